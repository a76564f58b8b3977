//! What a step says of itself: every reason why d moved or did not.

use crate::run::Run;
use dadapt::{Algorithm, Config, Key, Movement, NonFinite, StepReport};

fn run(algorithm: Algorithm) -> Run<f32> {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, 1).unwrap().set(Key::D0, 1e-3).unwrap();
    let mut run = Run::new(&config);
    run.add(0, vec![1.0, -2.0]);
    run
}

const G: [f32; 2] = [1.0, -0.5];

/// The report of a step that changes nothing.
#[track_caller]
fn unchanged(run: &mut Run<f32>, g: Option<&[f32]>, movement: Movement) {
    let before = run.bits();
    let report = run.step(&[g]).unwrap();
    assert_eq!((report.movement, report.applied), (movement, false));
    assert_eq!((report.d, report.k), (run.optimizer.d(), run.optimizer.k()));
    assert_eq!((report.d_hat, report.dlr, report.denominator), (report.d, 0.0, 0.0));
    assert!(report.grad_norm.is_nan());
    assert_eq!(run.bits(), before);
}

#[test]
fn grown_d_is_the_estimate() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        let mut reports: Vec<StepReport> = Vec::new();
        for _ in 0..4 {
            reports.push(run.step(&[Some(&G)]).unwrap());
        }
        let first = reports[0];
        assert_eq!(first.movement, Movement::NotAbove, "{algorithm}: s was 0, and the numerator");
        assert_eq!((first.k, first.numerator, first.d_hat, first.d), (1, 0.0, 0.0, 1e-3));
        let norm = if algorithm == Algorithm::Sgd { 1.25f64.sqrt() } else { 1.0 };
        assert_eq!(first.dlr, 1e-3 / norm, "{algorithm}");
        assert_eq!(first.grad_norm.is_nan(), algorithm != Algorithm::Sgd);
        let last = reports[3];
        assert_eq!((last.movement, last.applied, last.k), (Movement::Grew, true, 4));
        assert_eq!(last.d, last.d_hat, "{algorithm}");
        assert_eq!(last.d_hat, last.numerator / last.denominator, "{algorithm}");
        assert!(last.d > reports[2].d && last.d == run.optimizer.d());
        assert!(last.grad_norm.is_nan(), "only the first step needs it");
    }
}

#[test]
fn growth_is_limited_by_its_rate() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.optimizer.set(Key::GrowthRate, 1.02).unwrap();
        let before = loop {
            let d = run.optimizer.d();
            let report = run.step(&[Some(&G)]).unwrap();
            assert!(report.k < 10, "MISTRUSTED: {algorithm}: d never grew");
            if report.movement != Movement::NotAbove {
                assert_eq!(report.movement, Movement::GrowthLimited, "{algorithm}");
                assert_eq!(report.d, d * 1.02);
                assert!(report.d_hat > report.d);
                break d;
            }
        };
        assert_eq!(before, 1e-3);
    }
}

#[test]
fn estimate_below_d_is_reported() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.step(&[Some(&G)]).unwrap();
        let report = run.step(&[Some(&G.map(|g| -0.5 * g))]).unwrap();
        assert_eq!((report.movement, report.d, report.applied), (Movement::NotAbove, 1e-3, true));
        assert!(report.d_hat < 0.0, "{algorithm}");
    }
}

#[test]
fn steps_without_progress_change_nothing() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        unchanged(&mut run, None, Movement::NoProgress);
        unchanged(&mut run, Some(&[0.0, -0.0]), Movement::NoProgress);
        run.optimizer.set(Key::Lr, 0.0).unwrap();
        unchanged(&mut run, Some(&G), Movement::LrZero);
        run.optimizer.set(Key::Lr, 1.0).unwrap();
        run.step(&[Some(&G)]).unwrap();
        run.optimizer.set(Key::Lr, 0.0).unwrap();
        unchanged(&mut run, Some(&G), Movement::LrZero);
    }
}

/// Coupled decay makes a gradient of its own. SGD takes `g0` before it, which is 0 then.
#[test]
fn coupled_decay_alone_is_progress_for_adam() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.optimizer.set(Key::WeightDecay, 0.5).unwrap();
        if algorithm == Algorithm::Sgd {
            unchanged(&mut run, Some(&[0.0; 2]), Movement::NoProgress);
            continue;
        }
        let report = run.step(&[Some(&[0.0; 2])]).unwrap();
        assert_eq!((report.applied, report.k), (true, 1), "{algorithm}");
        assert!(run.p[0][0] < 1.0 && run.p[0][1] > -2.0, "{algorithm}");
    }
}

/// With k > 0 too: no gradients at all, or a tensor's first ones that are all 0.
#[test]
fn later_steps_without_gradients_make_no_progress() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.add(0, vec![3.0]);
        run.optimizer.set(Key::WeightDecay, 0.5).unwrap();
        if algorithm == Algorithm::Adam {
            run.optimizer.set(Key::Decouple, true).unwrap();
        }
        run.step(&[Some(&G), None]).unwrap();
        let before = run.bits();
        let report = run.step(&[None, None]).unwrap();
        assert_eq!((report.movement, report.k), (Movement::NoProgress, 1), "{algorithm}");
        assert_eq!((run.bits(), report.applied), (before, false), "{algorithm}");
        // Nor does one that has only had zeros, beside another that moved. (SGD's decay is coupled
        // and would make a gradient.)
        if algorithm == Algorithm::Sgd {
            run.optimizer.set(Key::WeightDecay, 0.0).unwrap();
            run.optimizer.set(Key::Momentum, 0.9).unwrap();
        }
        run.step(&[Some(&G), Some(&[0.0])]).unwrap();
        let (before, k) = (run.bits(), run.optimizer.k());
        let report = run.step(&[None, Some(&[0.0])]).unwrap();
        assert_eq!((report.movement, report.k), (Movement::NoProgress, k), "{algorithm}");
        assert_eq!((run.bits(), report.applied), (before, false), "{algorithm}");
    }
}

#[test]
fn a_first_gradient_of_zeros_is_no_progress_later_either() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.add(0, vec![3.0]);
        if algorithm == Algorithm::Adam {
            run.optimizer.set(Key::WeightDecay, 0.5).unwrap();
            run.optimizer.set(Key::Decouple, true).unwrap();
        }
        run.step(&[Some(&G), None]).unwrap();
        let before = run.bits();
        // A tensor without state brings nothing but its gradient, and that is 0. (SGD's momentum
        // would still touch last bits.)
        if algorithm == Algorithm::Sgd {
            run.optimizer.set(Key::Momentum, 0.9).unwrap();
        }
        let report = run.step(&[None, Some(&[0.0])]).unwrap();
        assert_eq!((report.movement, report.k), (Movement::NoProgress, 1), "{algorithm}");
        assert_eq!((run.bits(), report.applied), (before, false), "{algorithm}");
    }
}

#[test]
fn non_finite_gradients_are_skipped_or_survived() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        run.optimizer.set(Key::NonFinite, NonFinite::Skip).unwrap();
        unchanged(&mut run, Some(&[f32::NAN, 1.0]), Movement::NonFinite);
        run.step(&[Some(&G)]).unwrap();
        unchanged(&mut run, Some(&[1.0, f32::INFINITY]), Movement::NonFinite);
        run.optimizer.set(Key::NonFinite, NonFinite::Propagate).unwrap();
        let report = run.step(&[Some(&[f32::NAN, 1.0])]).unwrap();
        assert_eq!((report.movement, report.applied), (Movement::NonFinite, true), "{algorithm}");
        assert_eq!((report.d, report.k), (1e-3, 2), "{algorithm}");
        assert!(report.d_hat.is_nan() && run.p[0][0].is_nan());
    }
}

#[test]
fn bias_correction_is_in_dlr() {
    let mut run = run(Algorithm::Adam);
    run.optimizer.set(Key::UseBiasCorrection, true).unwrap();
    let report = run.step(&[Some(&G)]).unwrap();
    let expected = 1e-3 * (1.0 - 0.999f64).sqrt() / (1.0 - 0.9);
    assert!((report.dlr / expected - 1.0).abs() < 1e-12);
}

#[test]
fn every_movement_has_a_name() {
    let all = [
        Movement::Grew,
        Movement::GrowthLimited,
        Movement::NotAbove,
        Movement::NoProgress,
        Movement::LrZero,
        Movement::NonFinite,
    ];
    let mut names: Vec<_> = all.iter().map(|movement| movement.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}
