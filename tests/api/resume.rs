//! Going on from what another optimizer had come to.

use crate::run::{Run, adapts, set_if_there};
use dadapt::{Algorithm, Config, DType, Error, EstimateState, GroupId, Key, TensorProgress};

const SHAPES: [usize; 3] = [5, 33, 4];

fn config(algorithm: Algorithm) -> Config {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, 1).unwrap();
    set_if_there(&mut config, "d0", if adapts(algorithm) { 1e-4 } else { 1.0 });
    set_if_there(&mut config, "weight_decay", 0.01);
    set_if_there(&mut config, "use_bias_correction", 1.0);
    config
}

/// The second tensor starts at zero, of which Prodigy keeps no copy.
fn new_run(algorithm: Algorithm) -> Run<f32> {
    let mut run = Run::new(&config(algorithm));
    for (i, len) in SHAPES.into_iter().enumerate() {
        let start = if i == 1 { 0.0 } else { 1.0 };
        run.add(0, (0..len).map(|at| start * (at as f32 - 1.5)).collect());
    }
    run
}

/// The third tensor has its first gradient in the ninth step.
fn step(run: &mut Run<f32>, number: usize) {
    let gradients: Vec<Vec<f32>> = run
        .p
        .iter()
        .map(|p| p.iter().enumerate().map(|(i, p)| p - 0.3 * (i % 5) as f32 - 0.2).collect())
        .collect();
    let given: Vec<_> = gradients
        .iter()
        .enumerate()
        .map(|(i, g)| (i != 2 || number >= 8).then_some(g.as_slice()))
        .collect();
    run.step(&given).unwrap();
}

/// A new optimizer with the parameters and the state arrays of another.
fn copied(from: &Run<f32>) -> Run<f32> {
    let algorithm = from.optimizer.algorithm();
    let mut to = new_run(algorithm);
    to.p.clone_from(&from.p);
    for id in 0..from.ids.len() {
        for slot in algorithm.state_names() {
            let state = from.state(id, slot).to_vec();
            let own = to.optimizer.state_mut::<f32>(to.ids[id], slot).unwrap();
            // p0 of a tensor that started at 0 is longer here until that is known.
            own[..state.len()].copy_from_slice(&state);
        }
    }
    to
}

#[test]
fn restored_optimizer_goes_on_to_the_bit() {
    for algorithm in Algorithm::ALL.iter().copied() {
        let mut run = new_run(algorithm);
        (0..6).for_each(|number| step(&mut run, number));
        let mut restored = copied(&run);
        let mut without = copied(&run);
        let estimate = run.optimizer.estimate(GroupId::FIRST).unwrap();
        restored.optimizer.set_estimate(GroupId::FIRST, estimate).unwrap();
        for (to, id) in run.ids.iter().zip(restored.ids.clone()) {
            let progress = run.optimizer.tensor_progress(*to).unwrap();
            restored.optimizer.set_tensor_progress(id, progress).unwrap();
            assert_eq!(restored.optimizer.tensor_progress(id).unwrap(), progress);
        }
        assert_eq!(restored.optimizer.estimate(GroupId::FIRST).unwrap(), estimate);
        assert_eq!((restored.optimizer.d(), restored.optimizer.k()), (estimate.d, 6));
        assert_eq!(restored.bits(), run.bits(), "{algorithm}");
        for number in 6..14 {
            step(&mut run, number);
            step(&mut restored, number);
            step(&mut without, number);
            assert_eq!(restored.bits(), run.bits(), "{algorithm}, step {number}");
        }
        // Plain algorithms carry nothing on but counts, of which some make no use here.
        let same = without.p == run.p;
        assert!(!same || !adapts(algorithm), "MISTRUSTED: {algorithm}");
    }
}

#[test]
fn estimate_that_cannot_be_is_refused_and_changes_nothing() {
    let mut run = new_run(Algorithm::Sgd);
    step(&mut run, 0);
    let good = run.optimizer.estimate(GroupId::FIRST).unwrap();
    assert!(good.g0_norm > 0.0 && good.k == 1);
    let totals = [f64::NAN, 0.0, 0.0];
    for (bad, word) in [
        (EstimateState { d: 0.0, ..good }, "d0"),
        (EstimateState { d: f64::NAN, ..good }, "d0"),
        (EstimateState { totals, ..good }, "running total"),
        (EstimateState { g0_norm: 0.0, ..good }, "g0_norm"),
        (EstimateState { g0_norm: f64::INFINITY, ..good }, "g0_norm"),
        (EstimateState { k: u64::MAX, ..good }, "k"),
    ] {
        let error = run.optimizer.set_estimate(GroupId::FIRST, bad).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(run.optimizer.estimate(GroupId::FIRST).unwrap(), good);
    }
    let known = run.optimizer.tensor_progress(run.ids[0]).unwrap();
    let bad = TensorProgress { steps: u64::MAX, ..known };
    let error = run.optimizer.set_tensor_progress(run.ids[0], bad).unwrap_err();
    assert!(error.to_string().contains("steps"), "{error}");
    assert_eq!(run.optimizer.tensor_progress(run.ids[0]).unwrap(), known);
    let unknown = run.optimizer.set_estimate(GroupId::new(1), good).unwrap_err();
    assert!(matches!(unknown, Error::UnknownGroup { .. }));
    assert!(matches!(run.optimizer.estimate(GroupId::new(1)), Err(Error::UnknownGroup { .. })));
}

#[test]
fn each_group_with_its_own_d_is_restored() {
    let mut config = config(Algorithm::Adam);
    config.set(Key::DPerGroup, true).unwrap();
    config.add_group();
    let mut run = Run::<f32>::new(&config);
    let state =
        EstimateState { k: 3, d: 0.5, totals: [0.25, 0.0, 0.0], g0_norm: 0.0, d_moved: true };
    run.optimizer.set_estimate(GroupId::new(1), state).unwrap();
    assert_eq!(run.optimizer.estimate(GroupId::new(1)).unwrap(), state);
    assert_eq!(run.optimizer.report(GroupId::new(1)).unwrap().k, 3);
    assert_eq!((run.optimizer.d(), run.optimizer.k()), (1e-4, 0));
}

#[test]
fn progress_of_no_steps_sets_the_state_up_again() {
    let mut run = new_run(Algorithm::Prodigy);
    step(&mut run, 0);
    let none =
        TensorProgress { steps: 0, moved: false, started_at_zero: false, master_is_set: false };
    run.optimizer.set_tensor_progress(run.ids[0], none).unwrap();
    let before = run.p[0].clone();
    step(&mut run, 1);
    assert_eq!(run.state(0, "p0"), before, "p0 is the parameter as of its first gradient");
    let id = run.optimizer.add_tensor(GroupId::FIRST, "zero", DType::F32, 9).unwrap();
    let zero = TensorProgress { steps: 1, moved: true, started_at_zero: true, master_is_set: true };
    run.optimizer.set_tensor_progress(id, zero).unwrap();
    assert_eq!(run.optimizer.state_len(id, "p0").unwrap(), 0);
}

#[test]
fn open_step_refuses_to_be_restored() {
    let mut run = new_run(Algorithm::Adam);
    let (estimate, id) = (run.optimizer.estimate(GroupId::FIRST).unwrap(), run.ids[0]);
    let progress = run.optimizer.tensor_progress(id).unwrap();
    run.optimizer.open_step().unwrap();
    assert_eq!(run.optimizer.set_estimate(GroupId::FIRST, estimate), Err(Error::StepOpen));
    assert_eq!(run.optimizer.set_tensor_progress(id, progress), Err(Error::StepOpen));
    run.optimizer.abort_step();
    run.optimizer.set_estimate(GroupId::FIRST, estimate).unwrap();
}
