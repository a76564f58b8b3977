//! Sliced statistics: what they change, which is the estimate alone. That the estimate is the
//! oracle's is in `policies.rs`; how the option is refused in `api/errors.rs`.

use crate::isas::{each_isa, scaled_len, scaled_part};
use crate::recurrences::{self, Oracle};
use crate::run::{
    Random, Run, bits, config, distance, has, largest, reference_name, rounded, unit_roundoff,
};
use dadapt::{Algorithm, Config, Element, GroupId, Isa, Key};

/// Slices cross blocks of 4096, and some tensors have a first element only.
fn lens() -> [usize; 5] {
    [1, 2, 35, 4097, scaled_len(9000, 5002)]
}
const SLICES: [usize; 5] = [2, 3, 7, 64, 5000];
const D0: f64 = 1e-3;

/// Each algorithm that has slices, and whether its first moment is left out (Prodigy's may be).
fn kinds() -> Vec<(Algorithm, bool)> {
    let sliceable = Algorithm::ALL.iter().filter(|algorithm| has(**algorithm, Key::SliceP));
    let mut kinds: Vec<_> = sliceable.map(|algorithm| (*algorithm, false)).collect();
    assert_eq!(kinds.len(), 6, "MISTRUSTED: of those that do not compute p from s");
    kinds.push((Algorithm::Prodigy, true));
    kinds
}

fn configured((algorithm, without_moment): (Algorithm, bool), isa: Isa, slice: usize) -> Config {
    let mut config = config(algorithm, isa);
    config.set(Key::SliceP, slice as f64).unwrap().set(Key::D0, D0).unwrap();
    if without_moment {
        config.set(Key::Beta1, 0.0).unwrap();
    }
    config
}

fn start<E: Element>(config: &Config) -> Run<E> {
    let mut run = Run::new(config);
    let mut random = Random(3);
    for (i, len) in lens().iter().enumerate() {
        // One starts at zero, of which Prodigy keeps no copy.
        run.add(0, rounded(&random.values(*len, if i == 2 { 0.0 } else { 1.0 })));
    }
    run
}

/// Steps about a direction that stays.
fn play<E: Element>(run: &mut Run<E>, steps: usize) {
    let mut random = Random(7);
    for _ in 0..steps {
        let mut draw = |len: &usize| -> Vec<E> {
            let noise = random.values(*len, 0.5);
            rounded(&noise.iter().map(|x| x + 0.75).collect::<Vec<_>>())
        };
        let g: Vec<_> = lens().iter().map(&mut draw).collect();
        run.step(&g.iter().map(|g| Some(g.as_slice())).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn f32_slices_feed_nothing_but_d() {
    check_held::<f32>();
}

#[test]
fn f64_slices_feed_nothing_but_d() {
    check_held::<f64>();
}

/// With a d that is held, parameters and the rest of the state have the unsliced run's bits, and
/// statistics are every so many of its elements.
fn check_held<E: Element>() {
    const STEPS: usize = 8;
    each_isa(|isa| {
        for kind in kinds() {
            let mut whole = start::<E>(configured(kind, isa, 1).set(Key::DCap, D0).unwrap());
            play(&mut whole, STEPS);
            for slice in SLICES {
                let mut sliced =
                    start::<E>(configured(kind, isa, slice).set(Key::DCap, D0).unwrap());
                play(&mut sliced, STEPS);
                let what = format!("{kind:?} {} {isa} slice {slice}", E::DTYPE);
                assert_eq!((sliced.optimizer.d(), whole.optimizer.d()), (D0, D0), "{what}");
                for (i, len) in lens().iter().enumerate() {
                    check_tensor(&whole, &sliced, i, slice, &what);
                    let kept = sliced.optimizer.state_len(sliced.ids[i], "s").unwrap();
                    assert_eq!(kept, len.div_ceil(slice), "{what}");
                }
            }
        }
    });
}

fn check_tensor<E: Element>(whole: &Run<E>, sliced: &Run<E>, i: usize, slice: usize, what: &str) {
    let algorithm = whole.optimizer.algorithm();
    for slot in algorithm.state_names() {
        let (all, some) = (whole.state(i, slot), sliced.state(i, slot));
        let every = if ["s", "p0"].contains(&slot) { slice } else { 1 };
        let expected: Vec<_> = all.iter().copied().step_by(every).collect();
        assert!(bits(&expected) == bits(some), "{what}: {slot} of tensor {i}");
    }
    if ![Algorithm::Adam, Algorithm::ExperimentalAdanIp].contains(&algorithm) {
        assert!(bits(&whole.p[i]) == bits(&sliced.p[i]), "{what}: tensor {i}");
        return;
    }
    // The quotient of these two's update shares a division with that of their sum, and is within 2
    // ulps of the one that stands alone. An update is d0*(1 + beta2)/sqrt(1-beta3), below 40*d0, so
    // each of the 8 steps may be off by 4u of that, and by the rounding of p, which is one u.
    let (left, right) = (whole.parameter(i), sliced.parameter(i));
    let bound = 8.0 * unit_roundoff(E::DTYPE) * (2.0 * largest(&left) + 4.0 * 40.0 * D0);
    let off = distance(&left, &right);
    assert!(off <= bound, "{what}: tensor {i} is off by {off:e} of {bound:e}");
}

#[test]
fn threads_and_instruction_sets_give_the_same_bits() {
    check_bits::<f32>();
    check_bits::<f64>();
}

fn check_bits<E: Element>() {
    for kind in kinds() {
        for slice in SLICES {
            let mut first = start::<E>(&configured(kind, Isa::Scalar, slice));
            play(&mut first, 10);
            let expected = first.bits();
            assert!(first.optimizer.d() > D0, "MISTRUSTED: {kind:?} {slice}: d did not grow");
            each_isa(|isa| {
                for &threads in scaled_part(&[3, 1]) {
                    let mut config = configured(kind, isa, slice);
                    let mut run = start::<E>(config.set(Key::NumThreads, threads).unwrap());
                    play(&mut run, 10);
                    assert!(run.bits() == expected, "{kind:?} {} {isa} {slice}", E::DTYPE);
                }
            });
        }
    }
}

/// Groups may slice differently, and so may those that come later.
#[test]
fn slices_are_each_groups_own() {
    each_isa(|isa| {
        for kind in kinds() {
            let mut run = Run::<f64>::new(&configured(kind, isa, 1));
            let recurrence = recurrences::Algorithm::named(reference_name(kind.0));
            let mut oracle = Oracle::new(recurrence, 3);
            oracle.set(None, "d0", D0);
            if kind.1 {
                oracle.set(None, "beta1", 0.0);
            }
            let mut random = Random(11);
            let mut add = |run: &mut Run<f64>, oracle: &mut Oracle, group: usize, slice: f64| {
                if group > 0 {
                    run.optimizer.add_group().unwrap();
                }
                oracle.set(Some(group), "slice_p", slice);
                run.set(Some(group), "slice_p", slice);
                let p = random.values(5000, 1.0);
                run.add(group, p.clone());
                oracle.add(group, p);
            };
            add(&mut run, &mut oracle, 0, 3.0);
            add(&mut run, &mut oracle, 1, 500.0);
            let mut noise = Random(13);
            for step in 0..14 {
                if step == 5 {
                    add(&mut run, &mut oracle, 2, 1.0);
                }
                // Of different sizes, so that a group with another's slice would show.
                let g: Vec<Vec<f64>> = (0..run.p.len())
                    .map(|i| {
                        let size = (i + 1) as f64;
                        noise.values(5000, 0.5).iter().map(|x| (x + 0.75) * size).collect()
                    })
                    .collect();
                let given: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
                run.step(&given).unwrap();
                oracle.step(&given);
                // What golden files allow f64: Prodigy's p0 - p, of moves of d0, has fewer digits.
                let bound = if kind.0 == Algorithm::Prodigy { 1e-9 } else { 1e-10 };
                let off = (run.optimizer.d() / oracle.d - 1.0).abs();
                assert!(off <= bound, "{kind:?} {isa} step {step}: d is off by {off:e}");
                for (p, tensor) in run.p.iter().zip(&oracle.tensors) {
                    let off = distance(p, &tensor.p) / largest(&tensor.p);
                    assert!(off <= bound, "{kind:?} {isa} step {step}: p is off by {off:e}");
                }
            }
            assert!(oracle.d > 1.1 * D0, "MISTRUSTED: {kind:?}: d did not grow");
        }
    });
}

/// A second moment that overflows is taken back to the largest number, in the slice and beside it:
/// an infinite one would end all movement of its element.
#[test]
fn one_huge_gradient_beside_the_slice_does_not_poison() {
    each_isa(|isa| {
        for algorithm in [Algorithm::Adam, Algorithm::ExperimentalAdanIp] {
            for place in [6, 7] {
                let mut config = configured((algorithm, false), isa, 3);
                config.set(Key::Beta2, 0.9).unwrap();
                let mut run = Run::<f32>::new(&config);
                run.add(0, vec![1.0; 35]);
                let mut huge = vec![0.5f32; 35];
                huge[place] = 1e25;
                run.step(&[Some(&[0.5; 35])]).unwrap();
                run.step(&[Some(&huge)]).unwrap();
                for step in 0..5 {
                    run.step(&[Some(&[0.5; 35])]).unwrap();
                    let v = run.state(0, "exp_avg_sq")[place];
                    let what = format!("{algorithm} {isa} element {place} step {step}");
                    assert!(v.is_finite(), "{what}: v {v}");
                    assert!(run.parameter(0).iter().all(|p| p.is_finite()), "{what}");
                    let report = run.optimizer.report(GroupId::FIRST).unwrap();
                    // In the slice the step after still meets the overflow, as Adan's difference.
                    let settled = place == 7 || step > 0;
                    assert!(!settled || report.numerator.is_finite(), "{what}: {report:?}");
                }
            }
        }
    });
}
