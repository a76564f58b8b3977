//! Properties of every run, on inputs that proptest draws. The draws are the same in every run.

use crate::isas::{each_isa, scaled};
use crate::run::{Run, adapts, bits, config};
use dadapt::{Algorithm, Element, Error, Isa, Key, Movement, NonFinite, StepReport};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::cell::Cell;

const CASES: u32 = 60;
const D0: f64 = 1e-3;

/// Checks a property on every instruction set and with every algorithm.
fn check<S: Strategy>(
    strategy: impl Fn() -> S,
    property: impl Fn(Algorithm, Isa, S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    check_of(Algorithm::ALL, strategy, property);
}

fn check_of<S: Strategy>(
    algorithms: &[Algorithm],
    strategy: impl Fn() -> S,
    property: impl Fn(Algorithm, Isa, S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    each_isa(|isa| {
        for &algorithm in algorithms {
            let cases = scaled(CASES as usize) as u32;
            let config = Config { cases, failure_persistence: None, ..Config::default() };
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            let mut runner = TestRunner::new_with_rng(config, rng);
            match runner.run(&strategy(), |input| property(algorithm, isa, input)) {
                Ok(()) => {}
                Err(TestError::Fail(reason, input)) => {
                    panic!("{algorithm} {isa}: {reason}\n{input:?}")
                }
                Err(TestError::Abort(reason)) => panic!("{algorithm} {isa}: {reason}"),
            }
        }
    });
}

/// A tensor, and gradients that keep a direction for some steps, so that d grows.
#[derive(Clone, Debug)]
struct Input {
    p: Vec<f32>,
    g: Vec<Vec<f32>>,
    growth_rate: f64,
    place: usize,
}

fn inputs() -> impl Strategy<Value = Input> {
    let value = prop_oneof![8 => -2.0f32..2.0, 1 => Just(0.0f32), 1 => -1e-3f32..1e3];
    (1usize..70, 2usize..6).prop_flat_map(move |(len, steps)| {
        let p = vec(value.clone(), len);
        let direction = vec(-1.0f32..1.0, len);
        let g = vec(vec(-0.3f32..0.3, len), steps);
        let growth_rate = prop_oneof![Just(f64::INFINITY), 1.0f64..2.0];
        (p, direction, g, growth_rate, 0..len).prop_map(
            |(p, direction, mut g, growth_rate, place)| {
                for g in &mut g {
                    g.iter_mut().zip(&direction).for_each(|(g, towards)| *g += towards);
                }
                Input { p, g, growth_rate, place }
            },
        )
    })
}

fn start<E: Element>(algorithm: Algorithm, isa: Isa, p: &[E]) -> Run<E> {
    let mut config = config(algorithm, isa);
    if adapts(algorithm) {
        config.set(Key::D0, D0).unwrap();
    }
    let mut run = Run::new(&config);
    run.add(0, p.to_vec());
    run
}

/// The gradients, as often as the algorithm needs them for d to grow in most cases.
fn gradients(algorithm: Algorithm, input: &Input) -> impl Iterator<Item = &Vec<f32>> {
    let rounds = match algorithm {
        Algorithm::AdaGrad => 6,
        Algorithm::Lion => 3,
        _ => 1,
    };
    std::iter::repeat_n(&input.g, rounds).flatten()
}

/// Checks a property as [`check`] does; it says whether the case was one that could have failed.
/// At least a third of the cases must be, with each algorithm that adapts.
fn check_often<S: Strategy>(
    strategy: impl Fn() -> S,
    property: impl Fn(Algorithm, Isa, S::Value) -> Result<bool, TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    for &algorithm in Algorithm::ALL {
        let (cases, telling) = (Cell::new(0), Cell::new(0));
        check_of(&[algorithm], &strategy, |algorithm, isa, input| {
            cases.set(cases.get() + 1);
            telling.set(telling.get() + i32::from(property(algorithm, isa, input)?));
            Ok(())
        });
        let often = 3 * telling.get() >= cases.get() || !adapts(algorithm) || scaled(60) < 60;
        assert!(often, "MISTRUSTED: {algorithm}: {} of {} cases", telling.get(), cases.get());
    }
}

/// Prodigy remembers estimates that were held back, and its rate does not bind while d is d0.
#[test]
fn d_never_falls_and_respects_growth_rate() {
    check_often(inputs, |algorithm, isa, input| {
        let mut run = start(algorithm, isa, &input.p);
        if adapts(algorithm) {
            run.optimizer.set(Key::GrowthRate, input.growth_rate).unwrap();
        }
        let prodigy = algorithm == Algorithm::Prodigy;
        let start = run.optimizer.d();
        let (mut d, mut best) = (start, f64::NEG_INFINITY);
        for g in gradients(algorithm, &input) {
            let StepReport { d: next, d_hat, .. } = run.step(&[Some(g)]).unwrap();
            prop_assert!(next >= d, "d fell from {d} to {next}");
            let free = prodigy && d == D0;
            prop_assert!(free || next <= d * input.growth_rate, "d grew from {d} to {next}");
            best = if prodigy { d_hat.max(best) } else { d_hat };
            prop_assert!(next == d || next <= best, "d grew to {next} and not to {best}");
            d = next;
        }
        Ok(d > start)
    });
}

/// Up to the step that would pass it, a cap changes nothing; then d is the cap and stays there.
#[test]
fn d_stays_below_its_cap() {
    let strategy = || (inputs(), 1.0f64..3.0);
    check_often(strategy, |algorithm, isa, (input, factor)| {
        if !adapts(algorithm) {
            return Ok(false);
        }
        let cap = D0 * factor;
        let mut free = start(algorithm, isa, &input.p);
        let mut capped = start(algorithm, isa, &input.p);
        capped.optimizer.set(Key::DCap, cap).unwrap();
        let mut met = false;
        for g in gradients(algorithm, &input) {
            let free = free.step(&[Some(g)]).unwrap();
            let capped = capped.step(&[Some(g)]).unwrap();
            if met {
                prop_assert_eq!(capped.d, cap);
                prop_assert!(matches!(capped.movement, Movement::Capped | Movement::NotAbove));
            } else if free.d > cap {
                prop_assert_eq!((capped.d, capped.movement), (cap, Movement::Capped));
                met = true;
            } else {
                prop_assert_eq!(format!("{:?}", capped), format!("{:?}", free));
            }
        }
        Ok(met)
    });
}

/// Frozen, d stays for good, whatever the gradients.
#[test]
fn frozen_d_stays() {
    check(inputs, |algorithm, isa, input| {
        let mut run = start(algorithm, isa, &input.p);
        run.step(&[Some(&input.g[0])]).unwrap();
        run.optimizer.freeze().unwrap();
        let d = run.optimizer.d();
        for g in gradients(algorithm, &input) {
            let report = run.step(&[Some(g)]).unwrap();
            prop_assert_eq!((report.d, report.movement), (d, Movement::Fixed));
        }
        Ok(())
    });
}

/// SGD divides by the first gradients' norm, so a power of two in all of them changes nothing: not
/// a bit of p, state or d.
#[test]
fn sgd_does_not_see_the_scale_of_gradients() {
    check_of(
        &[Algorithm::Sgd],
        || (inputs(), -12i32..12),
        |algorithm, isa, (input, power)| {
            let factor = 2f32.powi(power);
            let mut plain = start(algorithm, isa, &input.p);
            let mut times = start(algorithm, isa, &input.p);
            for g in &input.g {
                // Room below, so that no product of the factor underflows.
                let g: Vec<f32> = g.iter().map(|g| (g * 1024.0).round() / 1024.0).collect();
                let scaled: Vec<f32> = g.iter().map(|g| g * factor).collect();
                plain.step(&[Some(&g)]).unwrap();
                times.step(&[Some(&scaled)]).unwrap();
            }
            prop_assert_eq!(plain.bits(), times.bits());
            Ok(())
        },
    );
}

/// Adam's second moment takes the scale out up to eps and roundings of its coefficients; with an
/// even power of two and a negligible eps nothing rounds differently.
#[test]
fn adam_without_eps_does_not_see_the_scale_of_gradients() {
    check_of(
        &[Algorithm::Adam],
        || (inputs(), -6i32..6),
        |algorithm, isa, (input, power)| {
            let factor = 4f32.powi(power);
            let mut plain = start(algorithm, isa, &input.p);
            let mut times = start(algorithm, isa, &input.p);
            for run in [&mut plain, &mut times] {
                run.optimizer.set(Key::Eps, 1e-18).unwrap();
            }
            for g in &input.g {
                // At least 2^-10 in size: eps is then below half an ulp of every denominator.
                let g: Vec<f32> =
                    g.iter().map(|g| (g * 1024.0).round().abs().max(1.0) / 1024.0).collect();
                let scaled: Vec<f32> = g.iter().map(|g| g * factor).collect();
                let plain = plain.step(&[Some(&g)]).unwrap();
                let times = times.step(&[Some(&scaled)]).unwrap();
                let off = (times.d / plain.d - 1.0).abs();
                // d_hat itself is homogeneous of degree 0 here; its first numerator, over an old
                // denominator of eps alone, is 0 because s is.
                prop_assert!(off < 1e-5, "d {} and {}", plain.d, times.d);
            }
            prop_assert_eq!(bits(&plain.p[0]), bits(&times.p[0]));
            Ok(())
        },
    );
}

/// The estimate is one for all tensors: a run in two tensors has the d of a run in one, but for the
/// roundings of sums that are cut elsewhere.
#[test]
fn tensors_cut_anywhere_give_nearly_the_same_d() {
    check(inputs, |algorithm, isa, input| {
        let cut = input.place;
        let to_f64 = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let p = to_f64(&input.p);
        let mut whole = start(algorithm, isa, &p);
        let mut parts = start(algorithm, isa, &p[..cut]);
        parts.add(0, p[cut..].to_vec());
        for g in gradients(algorithm, &input) {
            let g = to_f64(g);
            let whole = whole.step(&[Some(&g)]).unwrap();
            let parts = parts.step(&[Some(&g[..cut]), Some(&g[cut..])]).unwrap();
            let off = (parts.d / whole.d - 1.0).abs();
            prop_assert!(off < 1e-12, "d {} and {}", whole.d, parts.d);
            prop_assert_eq!(whole.k, parts.k);
        }
        Ok(())
    });
}

#[test]
fn gradient_is_never_written() {
    check(inputs, |algorithm, isa, input| {
        let mut run = start(algorithm, isa, &input.p);
        run.optimizer.set(Key::WeightDecay, 0.1).unwrap();
        for g in &input.g {
            let before = bits(g);
            run.step(&[Some(g)]).unwrap();
            prop_assert_eq!(bits(g), before);
        }
        Ok(())
    });
}

/// A step that is refused or skipped leaves no trace, not even in the steps after it.
#[test]
fn refused_step_never_happened() {
    let values = || prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)];
    let strategy = || (inputs(), values(), 0usize..6, any::<bool>());
    check(strategy, |algorithm, isa, (input, value, at, skip)| {
        let mut plain = start(algorithm, isa, &input.p);
        let mut spoilt = start(algorithm, isa, &input.p);
        if skip {
            spoilt.optimizer.set(Key::NonFinite, NonFinite::Skip).unwrap();
        }
        for (step, g) in input.g.iter().enumerate() {
            if step == at % input.g.len() {
                let mut bad = g.clone();
                bad[input.place] = value;
                let before = spoilt.bits();
                match spoilt.step(&[Some(&bad)]) {
                    Ok(report) => prop_assert!(skip && !report.applied),
                    Err(Error::NonFiniteGradient { index, value: found, .. }) => {
                        prop_assert!(!skip && index == input.place);
                        prop_assert_eq!(bits(&[found]), bits(&[f64::from(value)]));
                    }
                    Err(other) => prop_assert!(false, "{other}"),
                }
                prop_assert_eq!(spoilt.bits(), before, "a refused step wrote");
            }
            let (plain, spoilt) =
                (plain.step(&[Some(g)]).unwrap(), spoilt.step(&[Some(g)]).unwrap());
            // As text, in which NaNs, of norms that nobody needed, are equal.
            prop_assert_eq!(format!("{plain:?}"), format!("{spoilt:?}"));
        }
        prop_assert_eq!(plain.bits(), spoilt.bits());
        Ok(())
    });
}
