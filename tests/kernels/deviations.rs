//! Where this crate is not as the reference packages are, on purpose: the table "What is not copied
//! from the references" of its design notes. What other tests have is not here again:
//!
//! - the same bits for any threads and instruction set: `bits.rs`; exact sums: their own unit tests
//! - the gradient is never written: `properties.rs`, `gradient_is_never_written`
//! - betas, growth_rate are the optimizer's: `api/errors.rs`, `options_are_set_where_they_belong`
//! - SGD with no gradient, or zeros: `api/reports.rs`, `steps_without_progress_change_nothing`
//! - no progress leaves p alone, Lion's too: `api/reports.rs`, `coupled_decay_alone_is_progress`,
//!   `later_steps_without_gradients_make_no_progress`
//! - NaN: `properties.rs`, `refused_step_never_happened`; `api/reports.rs`,
//!   `non_finite_gradients_are_skipped_or_survived`; its sign: `formats.rs`, `what_is_not_finite_stays_where_it_is`
//! - Lion has a growth_rate: `api/reports.rs`, `growth_is_limited_by_its_rate`
//! - slices: `slices.rs`, `policies.rs`; an error in SGD and AdaGrad: `api/errors.rs`,
//!   `what_an_algorithm_cannot_do_says_why`
//! - no subnormals: `special.rs`, `f32_state_decays_without_subnormals` and its twin

use crate::isas::{each_isa, scaled_len};
use crate::recurrences::{self, Oracle};
use crate::run::{
    Random, Run, adapts, bits, config, distance, has, largest, reference_name, rounded,
};
use dadapt::{Algorithm, Element, Isa, Key, Movement};

const D0: f64 = 1e-3;
/// Of each group's tensors: a part of a register, and more than a block.
const LENS: [usize; 2] = [7, 4133];

/// Of a tensor; where elements are dear the longer one has less than a block.
fn len(tensor: usize) -> usize {
    if tensor.is_multiple_of(2) { LENS[0] } else { scaled_len(LENS[1], 600) }
}

type Options<'a> = &'a [(Option<usize>, &'a str, f64)];

fn set<E: Element>(run: &mut Run<E>, options: Options) {
    for (group, option, value) in options {
        if has(run.optimizer.algorithm(), Key::from_name(option).unwrap()) {
            run.set(*group, option, *value);
        }
    }
}

/// Two groups of two tensors. Options that the algorithm lacks are left out.
fn start<E: Element>(algorithm: Algorithm, isa: Isa, options: Options) -> Run<E> {
    let mut run = Run::new(&config(algorithm, isa));
    run.optimizer.add_group().unwrap();
    set(&mut run, &[(None, "d0", D0)]);
    set(&mut run, options);
    let mut random = Random(3);
    for i in 0..2 * LENS.len() {
        run.add(i / LENS.len(), rounded(&random.values(len(i), 1.0)));
    }
    run
}

/// Gradients for all tensors, about a direction that stays.
fn draw<E: Element>(random: &mut Random) -> Vec<Vec<E>> {
    let tensor = |i: usize| {
        let noise = random.values(len(i), 0.5);
        rounded(&noise.iter().map(|x| x + 0.75).collect::<Vec<_>>())
    };
    (0..2 * LENS.len()).map(tensor).collect()
}

fn step<E: Element>(run: &mut Run<E>, gradients: &[Vec<E>]) -> dadapt::StepReport {
    run.step(&gradients.iter().map(|g| Some(g.as_slice())).collect::<Vec<_>>()).unwrap()
}

/// The packages sum in the parameters' type. Added one by one in f32, this many equal terms are off
/// by more than 1e-4; a d that grew `k` times may be off by `4*u*k*cancellation`, however many
/// elements there are.
#[test]
fn f32_statistics_are_summed_in_f64() {
    let len = scaled_len(300_000, 60_000);
    let (value, stepwise) = (0.7f32, (0..len).fold(0.0f32, |sum, _| sum + 0.7));
    let lost = f64::from(stepwise) / (f64::from(value) * len as f64) - 1.0;
    assert!(lost.abs() > 1e-4, "MISTRUSTED: f32 sums are off by {lost:e} only");
    for algorithm in Algorithm::ALL.iter().copied().filter(|algorithm| adapts(*algorithm)) {
        let recurrence = recurrences::Algorithm::named(reference_name(algorithm));
        let mut oracle = Oracle::new(recurrence, 1);
        let mut run = Run::<f32>::new(&config(algorithm, Isa::Scalar));
        run.set(None, "d0", D0);
        oracle.set(None, "d0", D0);
        // From 0, so that Prodigy's p0 - p is exact.
        run.add(0, vec![0.0; len]);
        oracle.add(0, vec![0.0; len]);
        let (g, exact) = (vec![value; len], vec![f64::from(value); len]);
        while oracle.d < 1.5 * D0 {
            assert!(oracle.k < 30, "MISTRUSTED: {algorithm}: d did not grow");
            run.step(&[Some(&g)]).unwrap();
            oracle.step(&[Some(&exact)]);
        }
        let off = (run.optimizer.d() / oracle.d - 1.0).abs();
        let law = 2.0 * f64::from(f32::EPSILON) * oracle.k as f64 * oracle.cancellation;
        assert!(off <= law, "{algorithm}: d off by {off:e}, law {law:e}");
        // AdaGrad's difference cancels, and with it goes the meaning of the law above.
        let meant = law < 0.1 * lost.abs() || oracle.cancellation > 2.0;
        assert!(meant, "MISTRUSTED: {algorithm}: a bound of {law:e}");
    }
}

#[test]
fn decay_momentum_eps_and_decouple_are_each_groups_own() {
    each_isa(|isa| {
        check_groups::<f32>(isa);
        check_groups::<f64>(isa);
    });
}

/// A group moves as it would if all groups had its options: d, which they share, is held.
fn check_groups<E: Element>(isa: Isa) {
    let base = [("d_cap", D0), ("weight_decay", 0.1), ("momentum", 0.5)];
    for &algorithm in Algorithm::ALL {
        let mut tried = 0;
        for option in ["weight_decay", "momentum", "eps", "decouple", "dampening", "no_prox"] {
            if !has(algorithm, Key::from_name(option).unwrap()) {
                continue;
            }
            tried += 1;
            let key = Key::from_name(option).unwrap();
            let runs = [None, Some(Some(1)), Some(None)].map(|changed: Option<Option<usize>>| {
                let mut options: Vec<_> =
                    base.iter().map(|(name, value)| (None, *name, *value)).collect();
                let mut run = start::<E>(algorithm, isa, &options);
                let was = run.optimizer.get(key).unwrap();
                let value = if was == 0.0 { 1.0 } else { 0.0 };
                let value = match option {
                    "decouple" | "no_prox" => value,
                    "eps" => 0.25,
                    _ => 0.75,
                };
                options = changed.map(|group| (group, option, value)).into_iter().collect();
                set(&mut run, &options);
                let mut random = Random(11);
                (0..4).for_each(|_| _ = step(&mut run, &draw(&mut random)));
                run
            });
            let [none, second, all] = &runs;
            let what = format!("{algorithm} {} {isa}: {option}", E::DTYPE);
            for i in 0..2 * LENS.len() {
                let expected = if i < LENS.len() { none } else { all };
                assert!(second.tensor_bits(i) == expected.tensor_bits(i), "{what}: tensor {i}");
                assert!(
                    bits(&none.p[i]) != bits(&all.p[i]),
                    "MISTRUSTED: {what} makes no difference"
                );
            }
        }
        assert!(tried > 0, "MISTRUSTED: {algorithm} has no such option");
    }
}

#[test]
fn lr_of_0_everywhere_does_nothing() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            for decouple in [0.0, 1.0] {
                let options = [(None, "weight_decay", 0.5), (None, "decouple", decouple)];
                let mut run = start::<f32>(algorithm, isa, &options);
                let mut random = Random(5);
                for steps in [0, 2] {
                    (0..steps).for_each(|_| _ = step(&mut run, &draw(&mut random)));
                    let lr = run.optimizer.get(Key::Lr).unwrap();
                    let before = run.bits();
                    run.set(None, "lr", 0.0);
                    let report = step(&mut run, &draw(&mut random));
                    assert_eq!((report.movement, report.applied), (Movement::LrZero, false));
                    assert!(run.bits() == before, "{algorithm} {isa}: something changed");
                    run.set(None, "lr", lr);
                }
            }
        }
    });
}

#[test]
fn a_group_at_lr_0_is_frozen_and_enters_no_sum() {
    each_isa(|isa| {
        check_frozen_group::<f32>(isa);
        check_frozen_group::<f64>(isa);
    });
}

/// As if its tensors had no gradients, from the first step on or later, and for a while only.
fn check_frozen_group<E: Element>(isa: Isa) {
    for &algorithm in Algorithm::ALL {
        for (beta1, decouple) in [(0.9, 1.0), (0.9, 0.0), (0.0, 1.0)] {
            for from in [0, 3] {
                let options = [("weight_decay", 0.1), ("decouple", decouple), ("beta1", beta1)];
                let options = options.map(|(name, value)| (None, name, value));
                let mut frozen = start::<E>(algorithm, isa, &options);
                let mut absent = start::<E>(algorithm, isa, &options);
                let lr = frozen.optimizer.get(Key::Lr).unwrap();
                let mut random = Random(13);
                for turn in 0..from + 8 {
                    let still = (from..from + 4).contains(&turn);
                    frozen.set(Some(1), "lr", if still { 0.0 } else { lr });
                    let g = draw::<E>(&mut random);
                    let given: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
                    let mut fewer = given.clone();
                    if still {
                        fewer[LENS.len()..].fill(None);
                    }
                    let before = frozen.bits();
                    let reports = [frozen.step(&given), absent.step(&fewer)].map(Result::unwrap);
                    let what = format!("{algorithm} {} {isa} step {turn}", E::DTYPE);
                    // As text, in which NaNs, of norms that nobody needed, are equal.
                    let texts = reports.map(|report| format!("{report:?}"));
                    assert_eq!(texts[0], texts[1], "{what}");
                    assert!(frozen.bits() == absent.bits(), "{what}: other bits");
                    assert!(frozen.bits() != before, "MISTRUSTED: {what}: nothing moves");
                }
            }
        }
    }
}

/// A layer scale r is a change of variables: a tensor of p = r*x (SGD: sqrt(r)*x) moves as x does,
/// whose gradient is r (sqrt(r)) times that of p, and whose eps is r times as large. Powers of two:
/// only the start of AdaGrad, 1e-6 beside squares of 1e8, is not the same: by 1e-14.
#[test]
fn every_algorithm_has_a_layer_scale() {
    const SCALE: f64 = 16.0;
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let by_root = [Algorithm::Sgd, Algorithm::PlainSgd].contains(&algorithm);
            let factor = if by_root { SCALE.sqrt() } else { SCALE };
            let rates = [(None, "growth_rate", 1.5)];
            let mut scaled = start::<f64>(algorithm, isa, &rates);
            let mut changed = start::<f64>(algorithm, isa, &rates);
            scaled.set(Some(1), "layer_scale", SCALE);
            if has(algorithm, Key::Eps) {
                let eps = changed.optimizer.get(Key::Eps).unwrap();
                changed.set(Some(1), "eps", factor * eps);
            }
            for i in LENS.len()..2 * LENS.len() {
                changed.p[i].iter_mut().for_each(|x| *x /= factor);
            }
            let size = if algorithm == Algorithm::AdaGrad { 1e4 } else { 1.0 };
            let mut random = Random(17);
            for turn in 0..12 {
                let mut g = draw::<f64>(&mut random);
                g.iter_mut().flatten().for_each(|g| *g *= size);
                step(&mut scaled, &g);
                g[LENS.len()..].iter_mut().flatten().for_each(|g| *g *= factor);
                step(&mut changed, &g);
                let what = format!("{algorithm} {isa} step {turn}");
                let off = (scaled.optimizer.d() / changed.optimizer.d() - 1.0).abs();
                assert!(off < 1e-10, "{what}: d is off by {off:e}");
                for i in 0..2 * LENS.len() {
                    let factor = if i < LENS.len() { 1.0 } else { factor };
                    let expected: Vec<_> = changed.p[i].iter().map(|x| factor * x).collect();
                    let off = distance(&scaled.p[i], &expected) / largest(&expected);
                    assert!(off < 1e-10, "{what}: tensor {i} is off by {off:e}");
                }
            }
            let grew = scaled.optimizer.d() > 1.2 * D0 || !adapts(algorithm);
            assert!(grew, "MISTRUSTED: {algorithm}: d did not grow");
        }
    });
}

/// It grows by factors that f32, the parameters' type, could not tell from 1.
#[test]
fn d_is_f64_whatever_the_parameters_are() {
    const RATE: f64 = 1.0 + 1e-10;
    each_isa(|isa| {
        for algorithm in Algorithm::ALL.iter().copied().filter(|algorithm| adapts(*algorithm)) {
            let mut run = start::<f32>(algorithm, isa, &[(None, "growth_rate", RATE)]);
            let mut random = Random(19);
            let mut limited = 0;
            for _ in 0..30 {
                let before = run.optimizer.d();
                let report = step(&mut run, &draw(&mut random));
                if report.movement == Movement::GrowthLimited && before != D0 {
                    assert!(report.d == before * RATE && report.d > before, "{algorithm} {isa}");
                    assert_eq!(report.d as f32, before as f32, "MISTRUSTED: too fast");
                    limited += 1;
                }
            }
            assert!(limited > 2, "MISTRUSTED: {algorithm}: {limited} steps were limited");
        }
    });
}
