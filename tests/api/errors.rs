//! Every error that Rust can reach, what it says, and that it changed nothing.

use crate::run::Run;
use dadapt::{
    Algorithm, Config, DType, Error, GroupId, Isa, Key, NonFinite, Optimizer, TensorId, TensorStep,
};

/// The message has every word.
#[track_caller]
pub fn assert_says(error: &Error, words: &[&str]) {
    let message = error.to_string();
    let missing: Vec<_> = words.iter().filter(|word| !message.contains(**word)).collect();
    assert!(missing.is_empty(), "{message:?} lacks {missing:?}");
}

pub fn adam() -> Config {
    let mut config = Config::new(Algorithm::Adam);
    config.set(Key::NumThreads, 1).unwrap();
    config
}

/// An optimizer with the tensor "w" of three f32, that has made a step.
fn started() -> Run<f32> {
    let mut run = Run::new(&adam());
    run.add(0, vec![1.0, 2.0, 3.0]);
    run.step(&[Some(&[1.0, 1.0, 1.0])]).unwrap();
    run
}

#[test]
fn options_outside_their_bounds_are_named() {
    let mut config = adam();
    for (key, value, words) in [
        (Key::Beta1, 1.0, ["beta1", "1.0", "[0.0, 1.0)"]),
        (Key::Beta2, -0.5, ["beta2", "-0.5", "[0.0, 1.0)"]),
        (Key::Lr, f64::NAN, ["lr", "NaN", "[0.0, inf)"]),
        (Key::Lr, f64::INFINITY, ["lr", "inf", "[0.0, inf)"]),
        (Key::WeightDecay, -1e-9, ["weight_decay", "-1e-9", "[0.0, inf)"]),
        (Key::Eps, 1e-19, ["eps", "1e-19", "[1e-18, 1000000000.0]"]),
        (Key::D0, 0.0, ["d0", "0.0", "(0.0, inf)"]),
        (Key::LayerScale, 0.0, ["layer_scale", "0.0", "(0.0, inf)"]),
        (Key::GrowthRate, 0.99, ["growth_rate", "0.99", "[1.0, inf]"]),
        (Key::Decouple, 0.5, ["decouple", "0.5", "a whole number from 0 to 1"]),
        (Key::NonFinite, 3.0, ["non_finite", "3.0", "a whole number from 0 to 2"]),
        (Key::NumThreads, 1.5, ["num_threads", "1.5", "a whole number from 0 to 4096"]),
    ] {
        let before = config.get(key).unwrap();
        let error = config.set(key, value).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { key: k, .. } if k == key), "{error:?}");
        assert_says(&error, &words);
        assert_eq!(config.get(key).unwrap(), before, "{key}: changed by an error");
    }
    config.set(Key::GrowthRate, f64::INFINITY).unwrap();
}

#[test]
fn every_key_says_whether_it_is_there() {
    for &algorithm in Algorithm::ALL {
        for &key in Key::ALL {
            let common = [
                Key::LogEvery,
                Key::NonFinite,
                Key::NumThreads,
                Key::Isa,
                Key::State,
                Key::Master,
                Key::Seed,
            ];
            let has = common.contains(&key) || algorithm.options().iter().any(|(k, _)| *k == key);
            match Config::new(algorithm).get(key) {
                Ok(value) => assert!(has && key.bounds().contain(value), "{algorithm} {key}"),
                Err(Error::NoSlices { .. }) => {
                    let computed = [Algorithm::Sgd, Algorithm::AdaGrad];
                    let slices = [Key::SliceP, Key::SliceByLine].contains(&key);
                    assert!(slices && computed.contains(&algorithm));
                }
                Err(error) => {
                    assert!(!has && matches!(error, Error::KeyNotForAlgorithm { .. }));
                    assert_says(&error, &[algorithm.name(), key.name(), "lr", "isa"]);
                }
            }
        }
    }
}

#[test]
fn unknown_names_list_what_there_is() {
    assert_says(&Key::from_name("wd").unwrap_err(), &["\"wd\"", "weight_decay", "lr", "isa"]);
    assert_says(&Key::from_code(99).unwrap_err(), &["\"99\"", "weight_decay"]);
    assert_says(&Algorithm::from_name("adamw").unwrap_err(), &["\"adamw\"", "adam", "sgd"]);
    assert_says(&Algorithm::from_code(0).unwrap_err(), &["\"0\"", "adam", "sgd"]);
    let unknown = Isa::from_name("sse2").unwrap_err();
    assert_says(&unknown, &["\"sse2\"", "scalar", "avx2", "avx512", "neon"]);
    assert!(matches!(unknown, Error::UnknownIsa { .. }));
}

#[test]
fn absent_instruction_set_is_never_replaced() {
    let Some(absent) = Isa::ALL.into_iter().find(|isa| !isa.is_available()) else { return };
    let mut config = adam();
    config.set(Key::Isa, absent).unwrap();
    let error = Optimizer::new(&config).unwrap_err();
    assert_eq!(error, Error::IsaUnavailable { isa: absent, best: Isa::detect() });
    assert_says(&error, &[absent.name(), Isa::detect().name()]);
}

#[test]
fn options_are_set_where_they_belong() {
    let mut config = adam();
    let error = config.set_group(GroupId::FIRST, Key::Beta1, 0.5).unwrap_err();
    assert_eq!(error, Error::NotPerGroup { key: Key::Beta1 });
    assert_says(&error, &["beta1", "all groups"]);
    let error = config.set_group(GroupId::new(3), Key::Lr, 0.5).unwrap_err();
    assert_eq!(error, Error::UnknownGroup { group: 3, groups: 1 });
    assert_says(&error, &["group 3", "1"]);
    assert!(config.get_group(GroupId::new(1), Key::Lr).is_err());
}

#[test]
fn some_options_are_fixed_in_time() {
    let mut run = started();
    for key in [Key::Isa, Key::NumThreads, Key::D0] {
        let error = run.optimizer.set(key, 1.0).unwrap_err();
        assert!(matches!(error, Error::Fixed { .. }), "{error:?}");
        assert_says(&error, &[key.name(), "before"]);
    }
    let mut fresh = Optimizer::new(&adam()).unwrap();
    fresh.set(Key::D0, 0.5).unwrap();
    assert_eq!(fresh.d(), 0.5);
}

#[test]
fn tensors_are_registered_once_and_fit() {
    let mut optimizer = Optimizer::new(&adam()).unwrap();
    optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 3).unwrap();
    let mut add = |group, name: &str, len| {
        optimizer.add_tensor(GroupId::new(group), name, DType::F64, len).unwrap_err()
    };
    let twice = add(0, "w", 4);
    assert_eq!(twice, Error::DuplicateName { name: "w".into() });
    assert_says(&twice, &["\"w\""]);
    assert_eq!(add(1, "v", 4), Error::UnknownGroup { group: 1, groups: 1 });
    let long = add(0, "v", usize::MAX / 4);
    assert_eq!(long, Error::TooLong { tensor: "v".into(), len: usize::MAX / 4 });
    assert_says(&long, &["\"v\"", &(usize::MAX / 4).to_string()]);
    let large = add(0, "v", isize::MAX as usize / 8 - 4096);
    assert!(matches!(large, Error::OutOfMemory { .. }), "{large:?}");
    assert_says(&large, &["\"v\"", "bytes"]);
    // None of them was registered half.
    assert_eq!(optimizer.tensors(), 1);
    assert_eq!(optimizer.tensor("v"), None);
    optimizer.add_tensor(GroupId::FIRST, "v", DType::F64, 4).unwrap();
}

#[test]
fn state_is_reached_by_its_name_and_type() {
    let mut run = started();
    let w = run.ids[0];
    let optimizer = &mut run.optimizer;
    let unknown = optimizer.state::<f32>(w, "x0").unwrap_err();
    assert!(matches!(unknown, Error::UnknownState { .. }));
    assert_says(&unknown, &["adam", "\"x0\"", "exp_avg", "exp_avg_sq", "s"]);
    let mismatch = optimizer.state::<f64>(w, "s").unwrap_err();
    assert_says(&mismatch, &["\"t0\"", "f64", "f32"]);
    assert!(matches!(mismatch, Error::StateKeptIn { .. }));
    let nobody = TensorId::from_code(7);
    let error = optimizer.state::<f32>(nobody, "s").unwrap_err();
    assert_eq!(error, Error::UnknownTensor { id: 7, tensors: 1 });
    let kept =
        optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "kept", DType::F32, 3).unwrap();
    let error = optimizer.state_mut::<f32>(kept, "s").unwrap_err();
    assert_eq!(error, Error::StateOfCaller { tensor: "kept".into() });
    assert_says(&error, &["\"kept\""]);
}

/// A step that fails in the given way, after which nothing has changed and the next one works.
#[track_caller]
fn refused(run: &mut Run<f32>, step: impl FnOnce(&mut Optimizer, TensorId) -> Error) -> Error {
    let before = run.bits();
    let error = step(&mut run.optimizer, run.ids[0]);
    assert_eq!(run.bits(), before, "{error}: something changed");
    run.step(&[Some(&[0.5, 0.5, 0.5])]).unwrap();
    error
}

#[test]
fn arrays_of_a_step_must_be_as_registered() {
    let run = &mut started();
    let g = [1.0f32; 3];
    let error = refused(run, |optimizer, w| {
        let mut p = [0.0f32; 4];
        let step = TensorStep::new(w, &mut p, &[0.0f32; 4]);
        optimizer.step(&mut [step]).unwrap_err()
    });
    assert!(matches!(error, Error::Length { given: 4, registered: 3, .. }));
    assert_says(&error, &["parameter", "\"t0\"", "4", "3"]);

    let error = refused(run, |optimizer, w| {
        optimizer.step(&mut [TensorStep::new(w, &mut [0.0f32; 3], &g[..2])]).unwrap_err()
    });
    assert_says(&error, &["gradient", "\"t0\"", "2", "3"]);

    let error = refused(run, |optimizer, w| {
        let mut p = [0.0f64; 3];
        let step = TensorStep::new(w, &mut p, &[0.0f32; 3]);
        optimizer.step(&mut [step]).unwrap_err()
    });
    assert!(matches!(error, Error::DTypeMismatch { .. }));
    assert_says(&error, &["\"t0\"", "f64", "f32"]);

    let error = refused(run, |optimizer, w| {
        let (mut p, mut q) = ([0.0f32; 3], [0.0f32; 3]);
        let steps = &mut [TensorStep::new(w, &mut p, &g), TensorStep::new(w, &mut q, &g)];
        optimizer.step(steps).unwrap_err()
    });
    assert_eq!(error, Error::TensorTwice { tensor: "t0".into() });
    assert_says(&error, &["\"t0\"", "twice"]);

    let error = refused(run, |optimizer, _| {
        let mut p = [0.0f32; 3];
        let step = TensorStep::new(TensorId::from_code(u64::MAX), &mut p, &g);
        optimizer.step(&mut [step]).unwrap_err()
    });
    assert!(matches!(error, Error::UnknownTensor { .. }));

    let error = refused(run, |optimizer, w| {
        let mut state = [[0.0f32; 3]; 3];
        let [a, b, c] = state.each_mut().map(|slot| slot.as_mut_slice());
        let mut p = [0.0f32; 3];
        let step = TensorStep::new(w, &mut p, &g).with_state([a, b, c]);
        optimizer.step(&mut [step]).unwrap_err()
    });
    assert_eq!(error, Error::StateCount { tensor: "t0".into(), expected: 0, given: 3 });
}

#[test]
fn state_of_the_caller_must_be_as_registered() {
    let mut optimizer = Optimizer::new(&adam()).unwrap();
    let w = optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "w", DType::F32, 2).unwrap();
    let (mut p, g) = ([1.0f32; 2], [1.0f32; 2]);
    let (mut a, mut b, mut c) = ([0.0f32; 2], [0.0f32; 2], [0.0f32; 3]);
    let error = optimizer.step(&mut [TensorStep::new(w, &mut p, &g)]).unwrap_err();
    assert_eq!(error, Error::StateCount { tensor: "w".into(), expected: 3, given: 0 });
    assert_says(&error, &["\"w\"", "3", "0"]);
    let step = TensorStep::new(w, &mut p, &g).with_state([&mut a[..], &mut b, &mut c]);
    let error = optimizer.step(&mut [step]).unwrap_err();
    assert_says(&error, &["s of", "\"w\"", "3", "2"]);
    let mut wide = [[0.0f64; 2]; 3];
    let [x, y, z] = wide.each_mut().map(|slot| slot.as_mut_slice());
    let error = optimizer.step(&mut [TensorStep::new(w, &mut p, &g).with_state([x, y, z])]);
    assert!(matches!(error.unwrap_err(), Error::StateKeptIn { .. }));
    assert_eq!((p, optimizer.k()), ([1.0; 2], 0));
    let step = TensorStep::new(w, &mut p, &g).with_state([&mut a[..], &mut b, &mut c[..2]]);
    optimizer.step(&mut [step]).unwrap();
    assert!(p[0] < 1.0 && a[0] > 0.0);
}

/// What only raw parts can get wrong.
#[test]
fn raw_arrays_are_checked() {
    let run = &mut started();
    let (mut p, mut g) = ([1.0f32; 8], [1.0f32; 8]);
    let (p, g) = (p.as_mut_ptr().cast::<u8>(), g.as_mut_ptr().cast::<u8>());
    let mut step = |p: *mut u8, g: *const u8| {
        refused(run, |optimizer, w| {
            // SAFETY: each is null, or 3 floats of a local array, if misaligned or shared: which
            // the step finds before it follows them.
            let step = unsafe { TensorStep::from_raw(w, DType::F32, 3, p, g, &[]) };
            optimizer.step(&mut [step]).unwrap_err()
        })
    };
    let error = step(std::ptr::null_mut(), g);
    assert!(matches!(error, Error::Null { .. }));
    assert_says(&error, &["parameter", "\"t0\"", "null", "3"]);
    let error = step(p.wrapping_add(2), g);
    assert!(matches!(error, Error::Misaligned { align: 4, .. }));
    assert_says(&error, &["parameter", "\"t0\"", "4"]);
    let error = step(p, g.wrapping_add(1));
    assert_says(&error, &["gradient", "\"t0\"", "4"]);
    let error = step(p, p.wrapping_add(8));
    assert!(matches!(error, Error::Overlap { .. }));
    assert_says(&error, &["parameter", "gradient", "\"t0\""]);
}

#[test]
fn parameters_may_not_overlap_and_gradients_may() {
    let mut run = Run::<f32>::new(&adam());
    run.add(0, vec![1.0; 4]);
    run.add(0, vec![1.0; 4]);
    let mut p = [1.0f32; 8];
    let g = [1.0f32; 6];
    let start = p.as_mut_ptr();
    for (first, second, fits) in [(0, 4, true), (0, 3, false), (4, 1, false), (0, 0, false)] {
        // SAFETY: 4 floats from each place on lie within `p`, which nobody else uses; where the two
        // overlap the step finds it before it writes.
        let parts = [(0, first), (1, second)].map(|(tensor, at)| unsafe {
            let from = start.add(at).cast();
            let g = g.as_ptr().add(tensor).cast();
            TensorStep::from_raw(run.ids[tensor], DType::F32, 4, from, g, &[])
        });
        let mut parts = parts;
        match run.optimizer.step(&mut parts) {
            Ok(_) => assert!(fits, "{first} {second}"),
            Err(error) => {
                assert!(!fits && matches!(error, Error::Overlap { .. }), "{error}");
                assert_says(&error, &["\"t0\"", "\"t1\"", "overlap"]);
            }
        }
    }
}

#[test]
fn unequal_rates_point_to_layer_scale() {
    let mut config = adam();
    let second = config.add_group();
    let mut run = Run::<f32>::new(&config);
    run.add(0, vec![1.0, 2.0, 3.0]);
    run.optimizer.set_lr(second, 0.5).unwrap();
    let before = run.bits();
    let error = run.step(&[Some(&[1.0; 3])]).unwrap_err();
    assert_eq!(error, Error::MixedLr { group: 1, lr: 0.5, other: 1.0 });
    assert_says(&error, &["group 1", "0.5", "1.0", "layer_scale"]);
    assert_eq!(run.bits(), before);
    run.optimizer.set_lr(second, 0.0).unwrap();
    run.step(&[Some(&[1.0; 3])]).unwrap();
}

#[test]
fn coefficients_must_fit_the_type() {
    for (option, value) in [(Key::Lr, 1e60), (Key::LayerScale, 1e60)] {
        let mut run = Run::<f32>::new(&adam());
        run.add(0, vec![1.0, 2.0, 3.0]);
        run.optimizer.set(option, value).unwrap();
        let before = run.bits();
        let error = run.step(&[Some(&[1.0; 3])]).unwrap_err();
        assert!(matches!(error, Error::Coefficient { group: 0, dtype: DType::F32, .. }));
        assert_says(&error, &["group 0", "d = 1e-6", "f32", "lr", "layer_scale"]);
        assert_eq!(run.bits(), before);
    }
}

#[test]
fn non_finite_gradient_is_found_where_it_is() {
    let mut run = Run::<f32>::new(&adam());
    run.add(0, vec![1.0; 5]);
    run.add(0, vec![1.0; 140_000]);
    let mut g = vec![0.5f32; 140_000];
    run.step(&[Some(&g[..5]), Some(&g)]).unwrap();
    for (index, value) in [(0, f32::NAN), (4097, f32::INFINITY), (139_999, f32::NEG_INFINITY)] {
        g[index] = value;
        let before = run.bits();
        let error = run.step(&[Some(&[1.0; 5]), Some(&g)]).unwrap_err();
        assert_says(&error, &["\"t1\"", &format!("{:?}", f64::from(value)), &index.to_string()]);
        assert!(matches!(error, Error::NonFiniteGradient { index: i, .. } if i == index));
        assert_eq!(run.bits(), before);
        g[index] = 0.5;
    }
    // A tensor that takes no part is not looked at.
    let frozen = run.optimizer.add_group().unwrap();
    run.optimizer.set_lr(frozen, 0.0).unwrap();
    run.add(1, vec![1.0]);
    run.step(&[Some(&[1.0; 5]), None, Some(&[f32::NAN])]).unwrap();
    run.optimizer.set(Key::NonFinite, NonFinite::Propagate).unwrap();
    run.step(&[Some(&[f32::NAN; 5]), None, None]).unwrap();
    assert!(run.p[0][0].is_nan());
}

/// What decides the state that tensors have is set before there are any.
#[test]
fn layout_is_fixed_once_tensors_have_it() {
    let fixed = |algorithm: Algorithm, key: Key, before: f64, same: f64, other: f64| {
        let mut optimizer = Optimizer::new(&Config::new(algorithm)).unwrap();
        optimizer.set(key, before).unwrap();
        optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 10).unwrap();
        optimizer.set(key, same).unwrap();
        let error = optimizer.set(key, other).unwrap_err();
        assert!(matches!(error, Error::Fixed { .. }), "{algorithm} {key}: {error:?}");
        assert_says(&error, &[key.name(), "before tensors are added"]);
        assert_eq!(optimizer.get(key).unwrap(), same, "{algorithm} {key}: changed by an error");
    };
    fixed(Algorithm::Adam, Key::SliceP, 3.0, 3.0, 1.0);
    fixed(Algorithm::Prodigy, Key::SliceP, 1.0, 1.0, 2.0);
    fixed(Algorithm::Prodigy, Key::Beta1, 0.9, 0.5, 0.0);
    fixed(Algorithm::Prodigy, Key::Beta1, 0.0, 0.0, 0.9);
    fixed(Algorithm::PlainSgd, Key::Momentum, 0.0, 0.0, 0.9);
    fixed(Algorithm::PlainSgd, Key::Momentum, 0.9, 0.5, 0.0);
    let mut optimizer = Optimizer::new(&adam()).unwrap();
    let error = optimizer.set(Key::DPerGroup, true).unwrap_err();
    assert!(matches!(error, Error::Fixed { key: Key::DPerGroup, .. }));
}

#[test]
fn what_an_algorithm_cannot_do_says_why() {
    for algorithm in [Algorithm::Sgd, Algorithm::AdaGrad] {
        let error = Config::new(algorithm).set(Key::SliceP, 2).map(|_| ()).unwrap_err();
        assert_eq!(error, Error::NoSlices { algorithm: algorithm.name() });
        assert_says(&error, &[algorithm.name(), "computes parameters from s"]);
    }
    for &algorithm in Algorithm::ALL {
        let restarts = [Algorithm::Adan, Algorithm::ExperimentalAdanIp].contains(&algorithm);
        let mut optimizer = Optimizer::new(&Config::new(algorithm)).unwrap();
        match optimizer.restart() {
            Ok(()) => assert!(restarts, "{algorithm}"),
            Err(error) => {
                assert_eq!(error, Error::NoRestart { algorithm: algorithm.name() });
                assert!(!restarts);
                assert_says(&error, &[algorithm.name(), "adan"]);
            }
        }
    }
}

/// NaN nowhere, an infinity only as "no limit", and neither changes what was set.
#[test]
fn nan_and_infinite_options_are_refused() {
    for &algorithm in Algorithm::ALL {
        let mut config = Config::new(algorithm);
        let mut optimizer = Optimizer::new(&config).unwrap();
        for &(key, default) in algorithm.options() {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let no_limit = [Key::GrowthRate, Key::DCap].contains(&key);
                if no_limit && value == f64::INFINITY {
                    config.set(key, value).unwrap();
                    optimizer.set(key, value).unwrap();
                    continue;
                }
                let error = config.set(key, value).map(|_| ()).unwrap_err();
                assert!(matches!(error, Error::OutOfBounds { .. }), "{algorithm} {error:?}");
                assert_says(&error, &[key.name(), &format!("{value:?}"), "bounds"]);
                let error = optimizer.set(key, value).unwrap_err();
                // What is fixed is so whatever the value.
                let fixed = matches!(error, Error::Fixed { .. }) && key == Key::DPerGroup;
                assert!(fixed || matches!(error, Error::OutOfBounds { .. }), "{error:?}");
                assert_eq!(optimizer.get(key).unwrap(), default, "{algorithm} {key}");
                assert_eq!(config.get(key).unwrap(), default, "{algorithm} {key}");
            }
        }
    }
}
