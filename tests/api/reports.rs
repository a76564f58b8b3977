//! What a step says of itself: every reason why d moved or did not.

use crate::run::{Run, adapting, adapts, has};
use dadapt::{Algorithm, Config, GroupId, Key, Movement, NonFinite, StepReport, Sweeps};

fn run(algorithm: Algorithm) -> Run<f32> {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, 1).unwrap();
    if adapts(algorithm) {
        config.set(Key::D0, 1e-3).unwrap();
    }
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

/// Steps with the same gradient until d moves for that reason, and the reports.
fn until(run: &mut Run<f32>, movement: Movement) -> Vec<StepReport> {
    let mut reports = Vec::new();
    while reports.last().is_none_or(|report: &StepReport| report.movement != movement) {
        assert!(reports.len() < 100, "MISTRUSTED: never {movement:?}: {:?}", reports.last());
        reports.push(run.step(&[Some(&G)]).unwrap());
    }
    reports
}

#[test]
fn grown_d_is_the_estimate() {
    for algorithm in adapting() {
        let mut run = run(algorithm);
        let reports = until(&mut run, Movement::Grew);
        let first = reports[0];
        assert_eq!(first.movement, Movement::NotAbove, "{algorithm}: s was 0");
        // A difference of two equal terms in some, each rounded in f32.
        assert!(first.d_hat.abs() < 1e-6 * first.d, "{algorithm}: {}", first.d_hat);
        assert_eq!((first.k, first.d), (1, 1e-3));
        let norm = if algorithm == Algorithm::Sgd { 1.25f64.sqrt() } else { 1.0 };
        assert_eq!(first.dlr, 1e-3 / norm, "{algorithm}");
        assert_eq!(first.grad_norm.is_nan(), algorithm != Algorithm::Sgd);
        let last = reports[reports.len() - 1];
        assert_eq!((last.applied, last.k), (true, reports.len() as u64));
        assert_eq!(last.d, last.d_hat, "{algorithm}");
        if algorithm != Algorithm::ExperimentalAdanIp {
            assert_eq!(last.d_hat, last.numerator / last.denominator, "{algorithm}");
        }
        assert!(last.d > reports[reports.len() - 2].d && last.d == run.optimizer.d());
        assert!(last.grad_norm.is_nan(), "only the first step needs it");
        assert_eq!(run.optimizer.report(GroupId::FIRST).unwrap().d, last.d);
    }
}

#[test]
fn growth_is_limited_by_its_rate() {
    for algorithm in adapting() {
        let mut run = run(algorithm);
        run.optimizer.set(Key::GrowthRate, 1.02).unwrap();
        let reports = until(&mut run, Movement::GrowthLimited);
        let mut d = 1e-3;
        for report in &reports {
            // Prodigy leaps once, while d is d0.
            let leaps = algorithm == Algorithm::Prodigy && d == 1e-3;
            assert!(leaps || report.d <= d * 1.02, "{algorithm}");
            d = report.d;
        }
        let [.., before, last] = reports.as_slice() else { panic!("it took one step") };
        assert_eq!(last.d, before.d * 1.02, "{algorithm}");
    }
}

#[test]
fn growth_is_limited_by_the_cap() {
    for algorithm in adapting() {
        let mut run = run(algorithm);
        run.optimizer.set(Key::DCap, 1.5e-3).unwrap();
        let last = *until(&mut run, Movement::Capped).last().unwrap();
        assert_eq!((last.d, last.applied), (1.5e-3, true), "{algorithm}");
        assert!(last.d_hat > 1.5e-3, "{algorithm}");
        run.optimizer.set(Key::DCap, 1e-4).unwrap();
        let report = run.step(&[Some(&G)]).unwrap();
        assert_eq!(report.d, 1.5e-3, "{algorithm}: d fell");
    }
}

#[test]
fn plain_and_frozen_optimizers_estimate_nothing() {
    for &algorithm in Algorithm::ALL {
        let mut run = run(algorithm);
        let mut k = 0;
        if adapts(algorithm) {
            k = until(&mut run, Movement::Grew).len() as u64;
            run.optimizer.freeze().unwrap();
        }
        let d = run.optimizer.d();
        for g in [G, [0.0; 2]] {
            let report = run.step(&[Some(&g)]).unwrap();
            k += 1;
            assert_eq!((report.movement, report.applied), (Movement::Fixed, true), "{algorithm}");
            assert_eq!((report.k, report.d, report.d_hat), (k, d, d), "{algorithm}");
            assert_eq!(report.sweeps, Sweeps::One, "{algorithm}");
        }
        unchanged(&mut run, None, Movement::NoProgress);
    }
}

#[test]
fn prodigy_says_how_it_swept() {
    let mut run = run(Algorithm::Prodigy);
    let mut seen = Vec::new();
    let mut moved = false;
    for step in 0..60 {
        let d = run.optimizer.d();
        // At a rate of 1 d stands still once it has left d0; then it may grow again.
        let rate = if (3..6).contains(&step) { 1.0 } else { 1.5 };
        run.optimizer.set(Key::GrowthRate, rate).unwrap();
        let report = run.step(&[Some(&G)]).unwrap();
        let expected = match (d == 1e-3 || moved, report.d > d) {
            (true, _) => Sweeps::Two,
            (false, true) => Sweeps::Mended,
            (false, false) => Sweeps::One,
        };
        assert_eq!(report.sweeps, expected, "step {step}");
        moved = report.d > d;
        seen.push(report.sweeps);
    }
    for sweeps in [Sweeps::One, Sweeps::Mended, Sweeps::Two] {
        assert!(seen.contains(&sweeps), "MISTRUSTED: never {sweeps:?}");
    }
    let mut config = Config::new(Algorithm::Prodigy);
    config.set(Key::Beta1, 0.0).unwrap().set(Key::DCap, 1e-6).unwrap();
    let mut run = Run::<f32>::new(&config);
    run.add(0, vec![1.0, -2.0]);
    for _ in 0..4 {
        assert_eq!(run.step(&[Some(&G)]).unwrap().sweeps, Sweeps::Two);
    }
}

#[test]
fn estimate_below_d_is_reported() {
    for algorithm in adapting() {
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
        if adapts(algorithm) {
            unchanged(&mut run, Some(&[0.0, -0.0]), Movement::NoProgress);
        }
        let lr = run.optimizer.get(Key::Lr).unwrap();
        run.optimizer.set(Key::Lr, 0.0).unwrap();
        unchanged(&mut run, Some(&G), Movement::LrZero);
        run.optimizer.set(Key::Lr, lr).unwrap();
        run.step(&[Some(&G)]).unwrap();
        run.optimizer.set(Key::Lr, 0.0).unwrap();
        unchanged(&mut run, Some(&G), Movement::LrZero);
    }
}

/// Coupled decay makes a gradient of its own. SGD takes `g0` before it, which is 0 then.
#[test]
fn coupled_decay_alone_is_progress() {
    for algorithm in adapting() {
        let mut run = run(algorithm);
        run.optimizer.set(Key::WeightDecay, 0.5).unwrap();
        let coupled = match has(algorithm, Key::Decouple) {
            true => run.optimizer.set(Key::Decouple, false).is_ok(),
            false => algorithm == Algorithm::AdaGrad,
        };
        if !coupled {
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
    for algorithm in adapting().filter(|algorithm| *algorithm != Algorithm::AdaGrad) {
        let mut run = run(algorithm);
        run.add(0, vec![3.0]);
        run.optimizer.set(Key::WeightDecay, 0.5).unwrap();
        if has(algorithm, Key::Decouple) {
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

/// AdaGrad divides by a total, as in the package: any step after the first counts.
#[test]
fn adagrad_counts_later_steps_without_gradients() {
    let mut run = run(Algorithm::AdaGrad);
    run.step(&[Some(&G)]).unwrap();
    let before = run.tensor_bits(0);
    let report = run.step(&[None]).unwrap();
    assert_eq!((report.movement, report.k, report.d), (Movement::NotAbove, 2, 1e-3));
    assert_eq!(run.tensor_bits(0), before);
}

#[test]
fn a_first_gradient_of_zeros_is_no_progress_later_either() {
    for algorithm in adapting().filter(|algorithm| *algorithm != Algorithm::AdaGrad) {
        let mut run = run(algorithm);
        run.add(0, vec![3.0]);
        if has(algorithm, Key::Decouple) {
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
        let d = run.optimizer.d();
        let report = run.step(&[Some(&[f32::NAN, 1.0])]).unwrap();
        let expected = if adapts(algorithm) { Movement::NonFinite } else { Movement::Fixed };
        assert_eq!((report.movement, report.applied), (expected, true), "{algorithm}");
        assert_eq!((report.d, report.k), (d, 2), "{algorithm}");
        assert!(run.p[0][0].is_nan() && run.p[0][1].is_finite(), "{algorithm}");
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
        Movement::Capped,
        Movement::Fixed,
    ];
    let mut names: Vec<_> = all.iter().map(|movement| movement.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}
