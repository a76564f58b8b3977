//! Types that do not go together, or that something cannot be kept in: what is said, and that nothing
//! has changed.

use crate::errors::assert_says;
use dadapt::{
    Algorithm, Config, DType, Element, Error, GroupId, Key, Optimizer, State, StateOwner, TensorId,
    TensorStep, bf16, f16,
};

fn with_state(algorithm: Algorithm, state: State) -> Config {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, 1).unwrap().set(Key::State, state).unwrap();
    config
}

/// An optimizer with a tensor "w" of that type.
fn with_tensor(config: &Config, dtype: DType, len: usize) -> (Optimizer, TensorId) {
    let mut optimizer = Optimizer::new(config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", dtype, len).unwrap();
    (optimizer, id)
}

#[test]
fn double_precision_has_state_of_its_own_type() {
    for state in [State::Compact, State::Bf16, State::Q8] {
        let mut optimizer = Optimizer::new(&with_state(Algorithm::Adam, state)).unwrap();
        let added = optimizer.add_tensor(GroupId::FIRST, "w", DType::F64, 3);
        let error = added.unwrap_err();
        assert!(matches!(error, Error::StateDType { slot: "exp_avg", .. }), "{error:?}");
        assert_says(&error, &["exp_avg", "\"w\"", "f64"]);
        // The name is still free.
        optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 3).unwrap();
    }
}

#[test]
fn what_must_be_exact_is_not_rounded() {
    let refuse = |algorithm, slot: &str, dtype, words: &[&str]| {
        let mut config = Config::new(algorithm);
        let error = config.set_state_dtype(None, slot, Some(dtype)).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::StateDType { .. }), "{error:?}");
        assert_says(&error, &[slot, dtype.name()]);
        assert_says(&error, words);
    };
    refuse(Algorithm::Sgd, "s", DType::Bf16, &["rounds the model"]);
    refuse(Algorithm::Sgd, "x0", DType::Q8, &["copy of the parameter"]);
    refuse(Algorithm::AdaGrad, "sk", DType::Q8, &["rounds the model"]);
    refuse(Algorithm::AdaGrad, "alphak", DType::Bf16, &["totals"]);
    refuse(Algorithm::Prodigy, "p0", DType::Q8, &["copy of the parameter"]);
    refuse(Algorithm::Adan, "pre_grad", DType::Q8, &["copy of the gradient"]);
    refuse(Algorithm::Adam, "exp_avg_sq", DType::F16, &["range", "bf16"]);
    for algorithm in [Algorithm::Sgd, Algorithm::AdaGrad] {
        let mut config = Config::new(algorithm);
        let error = config.set(Key::State, State::Compact).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::NothingToRound { .. }), "{error:?}");
        assert_says(&error, &[algorithm.name()]);
        assert_eq!(config.get(Key::State), Ok(0.0));
    }
    let error = Config::new(Algorithm::Adam).set_state_dtype(None, "p0", None).map(|_| ());
    assert!(matches!(error, Err(Error::UnknownState { .. })), "{error:?}");
}

/// p0 is of the parameter's type, or of its master copy's; others would round it.
#[test]
fn copies_of_the_parameter_are_of_its_type() {
    for (dtype, master, kept) in [
        (DType::F32, true, DType::F32),
        (DType::Bf16, true, DType::F32),
        (DType::Bf16, false, DType::Bf16),
        (DType::F16, false, DType::F16),
        (DType::F64, true, DType::F64),
    ] {
        let mut config = Config::new(Algorithm::Prodigy);
        config.set(Key::Master, master).unwrap();
        let (optimizer, id) = with_tensor(&config, dtype, 10);
        assert_eq!(optimizer.state_bytes(id, "p0"), Ok((kept, 10 * kept.size())));
        config.set_state_dtype(None, "p0", Some(kept)).unwrap();
        with_tensor(&config, dtype, 10);
        let other = if kept == DType::Bf16 { DType::F16 } else { DType::Bf16 };
        config.set_state_dtype(None, "p0", Some(other)).unwrap();
        let added = Optimizer::new(&config).unwrap().add_tensor(GroupId::FIRST, "w", dtype, 10);
        assert!(matches!(added, Err(Error::StateDType { slot: "p0", .. })), "{added:?}");
    }
}

#[test]
fn types_of_parameter_and_gradient_go_together_or_not() {
    let (mut optimizer, id) = with_tensor(&Config::new(Algorithm::Adam), DType::F32, 2);
    let mut p = [1.0f32, 2.0];
    let error = optimizer.step(&mut [TensorStep::new(id, &mut p, &[1.0f64; 2])]).unwrap_err();
    assert!(matches!(error, Error::GradientDType { .. }), "{error:?}");
    assert_says(&error, &["\"w\"", "f64", "f32"]);
    let mut other = [bf16::from_f64(1.0); 2];
    let error = optimizer.step(&mut [TensorStep::new(id, &mut other, &[1.0f32; 2])]).unwrap_err();
    assert!(matches!(error, Error::DTypeMismatch { .. }), "{error:?}");
    assert_eq!((p, optimizer.k()), ([1.0, 2.0], 0));
    optimizer.step(&mut [TensorStep::new(id, &mut p, &[f16::from_f64(1.0); 2])]).unwrap();

    let (mut optimizer, id) = with_tensor(&Config::new(Algorithm::Adam), DType::F64, 2);
    let mut p = [1.0f64, 2.0];
    let g = [bf16::from_f64(1.0); 2];
    let error = optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap_err();
    assert!(matches!(error, Error::GradientDType { .. }), "{error:?}");
    assert_eq!((p, optimizer.k()), ([1.0, 2.0], 0));

    let mut optimizer = Optimizer::new(&Config::new(Algorithm::AdaGrad)).unwrap();
    let error = optimizer.add_tensor(GroupId::FIRST, "w", DType::Q8, 2).unwrap_err();
    assert_says(&error, &["\"w\"", "q8", "state alone"]);
    let owner = StateOwner::Library;
    let error = optimizer.add_rows(GroupId::FIRST, "w", DType::Bf16, 2, 2, owner).unwrap_err();
    assert_says(&error, &["\"w\"", "bf16", "f32 or f64"]);
    let id = optimizer.add_rows(GroupId::FIRST, "w", DType::F32, 2, 2, owner).unwrap();
    let mut p = [0.0f32; 4];
    let error =
        optimizer.step(&mut [TensorStep::rows(id, &mut p, &[1u32], &[1.0f32; 2])]).map(|_| ());
    assert_eq!(error, Ok(()));
}

#[test]
fn a_gradient_is_kept_in_a_type_that_holds_it() {
    let mut config = Config::new(Algorithm::Adan);
    config.set_state_dtype(None, "pre_grad", Some(DType::Bf16)).unwrap();
    let (mut optimizer, id) = with_tensor(&config, DType::F32, 2);
    assert_eq!(optimizer.state_bytes(id, "pre_grad"), Ok((DType::Bf16, 4)));
    let mut p = [1.0f32, 2.0];
    let error = optimizer.step(&mut [TensorStep::new(id, &mut p, &[1.0f32; 2])]).unwrap_err();
    assert!(matches!(error, Error::GradientKeptIn { .. }), "{error:?}");
    assert_says(&error, &["pre_grad", "\"w\"", "bf16", "f32"]);
    let error = optimizer.step(&mut [TensorStep::new(id, &mut p, &[f16::from_f64(1.0); 2])]);
    assert!(matches!(error, Err(Error::GradientKeptIn { .. })), "{error:?}");
    assert_eq!((p, optimizer.k()), ([1.0, 2.0], 0));
    let g = [bf16::from_f64(-0.75); 2];
    optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
    assert_eq!(optimizer.state::<bf16>(id, "pre_grad"), Ok(&g[..]));
}

#[test]
fn state_is_asked_for_as_it_is_kept() {
    let (mut optimizer, id) =
        with_tensor(&with_state(Algorithm::Adam, State::Compact), DType::F32, 300);
    let error = optimizer.state::<f32>(id, "exp_avg").unwrap_err();
    assert_eq!(
        error,
        Error::StateKeptIn {
            tensor: "w".into(),
            slot: "exp_avg",
            asked: DType::F32,
            kept: DType::Bf16
        }
    );
    assert_eq!(optimizer.state::<bf16>(id, "exp_avg").map(<[_]>::len), Ok(300));
    assert!(optimizer.state_mut::<f32>(id, "s").is_err());
    // 300 codes, and the exponents of two groups.
    assert_eq!(optimizer.state_bytes(id, "s"), Ok((DType::Q8, 302)));
    assert_eq!(optimizer.raw_state_mut(id, "s").map(|bytes| bytes.len()), Ok(302));
    assert_eq!(optimizer.state_values(id, "s"), Ok(vec![0.0; 300]));
    let error = optimizer.set(Key::State, State::Q8).unwrap_err();
    assert!(matches!(error, Error::Fixed { key: Key::State, .. }), "{error:?}");
    assert_eq!(optimizer.get(Key::State), Ok(f64::from(State::Compact)));
}

#[test]
fn arrays_of_the_callers_have_the_bytes_of_their_types() {
    let mut optimizer = Optimizer::new(&with_state(Algorithm::Lion, State::Compact)).unwrap();
    let first = GroupId::FIRST;
    let id = optimizer.add_tensor_with_state_of_caller(first, "w", bf16::DTYPE, 100).unwrap();
    let names: Vec<_> = optimizer.state_names(id).unwrap().collect();
    assert_eq!(names, ["exp_avg", "s", "master"]);
    let mut p = vec![bf16::from_f64(1.0); 100];
    let g = vec![1.0f32; 100];
    // Of numbers that are aligned to anything.
    let mut memory = vec![[0u64; 60]; 3];
    let [m, s, master] = &mut memory[..] else { unreachable!() };
    fn bytes(words: &mut [u64; 60]) -> &mut [u8] {
        // SAFETY: any bytes are numbers and the other way round.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 480) }
    }
    let (m, s, master) = (bytes(m), bytes(s), bytes(master));
    let mut step = |m: &mut [u8], s: &mut [u8], master: &mut [u8]| {
        let tensor = TensorStep::new(id, &mut p, &g).with_state_bytes([m, s, master]);
        optimizer.step(&mut [tensor])
    };
    for (m_len, s_len, master_len, slot) in
        [(199, 101, 400, "exp_avg"), (200, 100, 400, "s"), (200, 101, 200, "master")]
    {
        let error = step(&mut m[..m_len], &mut s[..s_len], &mut master[..master_len]).unwrap_err();
        assert!(matches!(error, Error::Length { what, .. } if what == slot), "{error:?}");
    }
    let error = step(&mut m[1..201], &mut s[..101], &mut master[..400]).unwrap_err();
    assert!(matches!(error, Error::Misaligned { what: "exp_avg", align: 2, .. }), "{error:?}");
    let error = step(&mut m[..200], &mut s[..101], &mut master[2..402]).unwrap_err();
    assert!(matches!(error, Error::Misaligned { what: "master", align: 4, .. }), "{error:?}");
    // Codes of 8 bits may lie anywhere.
    step(&mut m[..200], &mut s[3..104], &mut master[..400]).unwrap();
    assert!(master[..400].iter().any(|byte| *byte != 0));
}

#[test]
fn the_seed_decides_the_noise() {
    let run = |seed: u32, name: &str| {
        let mut config = with_state(Algorithm::Adam, State::Q8);
        config.set(Key::Seed, seed).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, name, DType::F32, 500).unwrap();
        let mut p = vec![1.0f32; 500];
        let g: Vec<f32> = (0..500).map(|i| (i as f32).sin()).collect();
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        optimizer.state_values(id, "exp_avg_sq").unwrap()
    };
    assert_eq!(run(1, "w"), run(1, "w"));
    assert_ne!(run(1, "w"), run(2, "w"));
    assert_ne!(run(1, "w"), run(1, "v"));
}
