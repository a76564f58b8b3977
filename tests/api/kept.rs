//! State that is kept in short types, given back, restored or started anew: nothing is lost by it.

use dadapt::{
    Algorithm, Config, DType, GroupId, Key, Optimizer, State, StateOwner, TensorProgress,
    TensorStep, bf16,
};

fn config(algorithm: Algorithm) -> Config {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, 1).unwrap();
    config
}

/// Prodigy gives back the p0 of a tensor that starts at 0; a checkpoint of another start needs it again.
#[test]
fn a_start_that_was_given_back_comes_back_with_a_checkpoint() {
    for steps in [0, 7] {
        let mut optimizer = Optimizer::new(&config(Algorithm::Prodigy)).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 100).unwrap();
        let (mut p, g) = (vec![0.0f32; 100], vec![1.0f32; 100]);
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        assert_eq!(optimizer.state_len(id, "p0"), Ok(0));
        let progress = TensorProgress {
            steps,
            moved: steps > 0,
            started_at_zero: false,
            master_is_set: false,
        };
        optimizer.set_tensor_progress(id, progress).unwrap();
        assert_eq!(optimizer.state_len(id, "p0"), Ok(100));
        p.fill(3.0);
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        // What starts with this step starts here; else p0 is what was put there, which is nothing yet.
        let start = if steps == 0 { 3.0 } else { 0.0 };
        assert_eq!(optimizer.state_values(id, "p0"), Ok(vec![start; 100]));
    }
}

/// Its square leaves f32, in a sweep that leaves the parameter for another.
#[test]
fn one_huge_gradient_leaves_finite_state_and_its_neighbours_alone() {
    for short in ["exp_avg", "exp_avg_sq"] {
        let mut config = config(Algorithm::Adam);
        let dtype = if short == "exp_avg" { DType::Bf16 } else { DType::Q8 };
        config.set_state_dtype(None, short, Some(dtype)).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 300).unwrap();
        let (mut p, mut g) = (vec![1.0f32; 300], vec![1.0f32; 300]);
        g[17] = 1e22;
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        let v = optimizer.state_values(id, "exp_avg_sq").unwrap();
        assert!(v.iter().all(|v| v.is_finite() && *v > 0.0), "{short}");
        assert!(v[17] > 1e38 && p.iter().all(|p| p.is_finite()), "{short}: {}", v[17]);
    }
    for algorithm in [Algorithm::PlainAdaGrad, Algorithm::PlainAdam, Algorithm::Prodigy] {
        let mut config = config(algorithm);
        config.set(Key::State, State::Q8).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 300).unwrap();
        let (mut p, mut g) = (vec![1.0f32; 300], vec![1.0f32; 300]);
        g[17] = 1e30;
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        let lost = p.iter().enumerate().filter(|(i, p)| *i != 17 && !p.is_finite()).count();
        assert_eq!(lost, 0, "{algorithm}");
    }
}

/// The master copy is the model, and no moment of its gradients.
#[test]
fn a_restart_leaves_master_copies() {
    let mut config = config(Algorithm::Adan);
    config.set(Key::D0, 1e-12).unwrap().set(Key::GrowthRate, 1.0).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::Bf16, 50).unwrap();
    let (mut p, g) = (vec![bf16::ONE; 50], vec![1.0f32; 50]);
    optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
    // Between two numbers of bf16, and nearest to the one that is there.
    let between = 1.0 + 0.5f32.powi(10);
    optimizer.state_mut::<f32>(id, "master").unwrap().fill(between);
    optimizer.restart().unwrap();
    optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
    // Steps are some 1e-12, which is less than an ulp of it.
    assert_eq!(optimizer.state::<f32>(id, "master"), Ok(&[between; 50][..]));
}

#[test]
fn a_frozen_table_fixes_no_option_of_others() {
    let mut optimizer = Optimizer::new(&config(Algorithm::AdaGrad)).unwrap();
    let owner = StateOwner::Library;
    optimizer.add_rows(GroupId::FIRST, "table", DType::F32, 4, 4, owner).unwrap();
    let dense = optimizer.add_group().unwrap();
    optimizer.freeze().unwrap();
    optimizer.set_group(dense, Key::Momentum, 0.9).unwrap();
}

#[test]
fn an_absent_gradient_is_of_no_type() {
    let mut config = config(Algorithm::Adan);
    config.set_state_dtype(None, "pre_grad", Some(DType::Bf16)).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 2).unwrap();
    let mut p = [1.0f32, 2.0];
    let (start, none) = (p.as_mut_ptr().cast(), std::ptr::null());
    // SAFETY: `p` has two elements and outlives the step; there is no gradient, and no state.
    let tensor = unsafe { TensorStep::from_raw(id, DType::F32, 2, start, none, &[]) };
    optimizer.step(&mut [tensor]).unwrap();
    assert_eq!(p, [1.0, 2.0]);
}

fn gradient(step: usize) -> Vec<bf16> {
    let value = |i: usize| ((i * 7 + step * 13) % 17) as f32 / 8.0 - 0.9;
    (0..300).map(|i| bf16::from_f32_const(value(i))).collect()
}

/// Takes steps, does something, and goes on; an optimizer with a checkpoint of then does so to the bit.
fn goes_on_from_a_checkpoint_after(config: &Config, what: impl Fn(&mut Optimizer, &mut [bf16])) {
    let new = || {
        let mut optimizer = Optimizer::new(config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::Bf16, 300).unwrap();
        (optimizer, id)
    };
    let ((mut optimizer, id), (mut other, _)) = (new(), new());
    let mut p = vec![bf16::ONE; 300];
    for step in 0..40 {
        optimizer.step(&mut [TensorStep::new(id, &mut p, &gradient(step))]).unwrap();
    }
    what(&mut optimizer, &mut p);
    let names: Vec<_> = optimizer.state_names(id).unwrap().collect();
    for name in &names {
        let held = optimizer.raw_state_mut(id, name).unwrap().to_vec();
        other.raw_state_mut(id, name).unwrap().copy_from_slice(&held);
    }
    other.set_estimate(GroupId::FIRST, optimizer.estimate(GroupId::FIRST).unwrap()).unwrap();
    other.set_tensor_progress(id, optimizer.tensor_progress(id).unwrap()).unwrap();
    let mut q = p.clone();
    for step in 40..60 {
        optimizer.step(&mut [TensorStep::new(id, &mut p, &gradient(step))]).unwrap();
        other.step(&mut [TensorStep::new(id, &mut q, &gradient(step))]).unwrap();
    }
    assert!(p == q);
    for name in &names {
        let held =
            [&mut optimizer, &mut other].map(|o| o.raw_state_mut(id, name).unwrap().to_vec());
        assert!(held[0] == held[1], "{name}");
    }
}

/// A restart forgets that the tensor has stepped, and a checkpoint after it must not forget the rest.
#[test]
fn a_checkpoint_after_a_restart_keeps_master_copies() {
    let restart = |optimizer: &mut Optimizer, _: &mut [bf16]| optimizer.restart().unwrap();
    goes_on_from_a_checkpoint_after(&config(Algorithm::Adan), restart);
}

/// What has been updated stays so, and has had its noise: the tensor is a step further than `k`.
#[test]
fn a_checkpoint_after_an_aborted_step_keeps_its_noise() {
    let mut config = config(Algorithm::Adam);
    config.set(Key::State, State::Q8).unwrap().set(Key::Master, false).unwrap();
    config.set(Key::D0, 1e-2).unwrap();
    goes_on_from_a_checkpoint_after(&config, |optimizer, p| {
        let (id, before) = (dadapt::TensorId::from_code(0), p.to_vec());
        let step = optimizer.step_begin().unwrap();
        step.step_tensor(TensorStep::new(id, p, &gradient(99))).unwrap();
        assert_eq!(step.step_abort(), [id]);
        assert!(p != before && optimizer.k() == 40);
        assert_eq!(optimizer.tensor_progress(id).unwrap().steps, 41);
    });
}
