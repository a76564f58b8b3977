//! One `d` a group, freezing, restarting, and state that options leave out or slice.

use crate::isas::{each_isa, scaled_len};
use crate::recurrences::{self, Oracle};
use crate::run::{
    Random, Run, adapting, adapts, bits, config, distance, has, largest, reference_name, rounded,
    unit_roundoff,
};
use dadapt::{
    Algorithm, DType, Element, Error, GroupId, Isa, Key, Optimizer, StateOwner, TensorStep,
};

const STEPS: usize = 30;

fn lens() -> [usize; 5] {
    [1, 2, 35, 4097, scaled_len(9000, 5002)]
}

fn sliceable() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.iter().copied().filter(|algorithm| has(*algorithm, Key::SliceP))
}

/// A run with its oracle, one group, tensors of `lens`, the second of them all zero.
struct Pair<E> {
    run: Run<E>,
    oracle: Oracle,
    travelled: Vec<f64>,
    random: Random,
}

impl<E: Element> Pair<E> {
    fn new(algorithm: Algorithm, isa: Isa, options: &[(&str, f64)], lens: &[usize]) -> Self {
        let mut run = Run::new(&config(algorithm, isa));
        let name = recurrences::Algorithm::named(reference_name(algorithm));
        let mut oracle = Oracle::new(name, 1);
        let d0 = if adapts(algorithm) { &[("d0", 1e-3)][..] } else { &[] };
        for (option, value) in d0.iter().chain(options) {
            run.set(None, option, *value);
            oracle.set(None, option, *value);
        }
        let mut random = Random(1);
        for (i, len) in lens.iter().enumerate() {
            let size = if i == 1 { 0.0 } else { 1.0 };
            let p = random.values(*len, size);
            run.add(0, rounded(&p));
            oracle.add(0, p);
        }
        Pair { run, oracle, travelled: vec![0.0; lens.len()], random }
    }

    fn set(&mut self, option: &str, value: f64) {
        self.run.set(None, option, value);
        self.oracle.set(None, option, value);
    }

    /// A step about a direction that stays, held to the law that `golden.rs` argues.
    fn step(&mut self, what: &str) {
        let random = &mut self.random;
        let tensors = self.oracle.tensors.iter();
        let g: Vec<Vec<f64>> = tensors
            .map(|tensor| random.values(tensor.p.len(), 0.5).iter().map(|g| g + 0.75).collect())
            .collect();
        let given: Vec<Vec<E>> = g.iter().map(|g| rounded(g)).collect();
        let before: Vec<_> = self.oracle.tensors.iter().map(|tensor| tensor.p.clone()).collect();
        let given: Vec<_> = given.iter().map(|g| Some(g.as_slice())).collect();
        let report = self.run.step(&given).unwrap();
        // What the type holds of it is what both are given.
        let exact: Vec<Vec<f64>> =
            given.iter().map(|g| g.unwrap().iter().map(|x| x.to_f64()).collect()).collect();
        self.oracle.step(&exact.iter().map(|g| Some(g.as_slice())).collect::<Vec<_>>());
        assert_eq!(report.k, self.oracle.k, "{what}");
        // Prodigy's d follows from p0 - p, in which roundings of p (u of its largest element) stand
        // beside moves of d0 at first: that much more of them there is in d.
        let prodigy = self.run.optimizer.algorithm() == Algorithm::Prodigy;
        let magnified = if prodigy { 1e3 } else { 1.0 };
        let unit =
            4.0 * unit_roundoff(E::DTYPE) * report.k as f64 * self.oracle.cancellation * magnified;
        let off = (report.d / self.oracle.d - 1.0).abs();
        assert!(off <= unit, "{what}: d off by {off:e} of {unit:e}");
        for (i, before) in before.iter().enumerate() {
            let expected = &self.oracle.tensors[i].p;
            self.travelled[i] += distance(expected, before);
            let scale = largest(expected).max(f64::MIN_POSITIVE);
            let law = unit * (1.0 + self.travelled[i] / scale);
            let off = distance(&self.run.parameter(i), expected) / scale;
            assert!(off <= law, "{what}: tensor {i} off by {off:e} of {law:e}");
        }
    }
}

#[test]
fn f64_slices_agree_with_oracle() {
    check_slices::<f64>();
}

#[test]
fn f32_slices_agree_with_oracle() {
    check_slices::<f32>();
}

fn check_slices<E: Element>() {
    each_isa(|isa| {
        for algorithm in sliceable() {
            for slice in [2.0, 7.0, 64.0, 5000.0] {
                let mut options = vec![("slice_p", slice), ("weight_decay", 0.01)];
                if algorithm == Algorithm::Prodigy && slice == 7.0 {
                    options.push(("beta1", 0.0));
                }
                let mut pair = Pair::<E>::new(algorithm, isa, &options, &lens());
                let what = format!("{algorithm} {} {isa} slice {slice}", E::DTYPE);
                for step in 0..STEPS {
                    pair.step(&format!("{what} step {step}"));
                    // On gradients that never turn it leaves all bounds.
                    if pair.oracle.d > 1e2 {
                        break;
                    }
                }
                assert!(pair.oracle.d > 1.3e-3, "MISTRUSTED: {what}: d did not grow");
                for (i, len) in lens().iter().enumerate() {
                    let kept = len.div_ceil(slice as usize);
                    let id = pair.run.ids[i];
                    assert_eq!(pair.run.optimizer.state_len(id, "s").unwrap(), kept, "{what}");
                    assert_eq!(pair.run.state(i, "s").len(), kept, "{what}");
                }
            }
        }
    });
}

#[test]
fn freezing_keeps_d_and_frees_statistics() {
    each_isa(|isa| {
        for algorithm in adapting() {
            let mut pair = Pair::<f64>::new(algorithm, isa, &[], &lens());
            let what = format!("{algorithm} {isa}");
            (0..STEPS / 2).for_each(|step| pair.step(&format!("{what} step {step}")));
            let d = pair.run.optimizer.d();
            pair.set("freeze", 1.0);
            assert!(pair.run.optimizer.is_frozen());
            (0..STEPS / 2).for_each(|step| pair.step(&format!("{what} frozen {step}")));
            assert_eq!(pair.run.optimizer.d(), d, "{what}");
            for slot in algorithm.state_names() {
                let freed = slot == "p0" || slot == "s" && algorithm != Algorithm::Sgd;
                let kept = if freed { 0 } else { lens()[3] };
                assert_eq!(pair.run.state(3, slot).len(), kept, "{what}: {slot}");
                let id = pair.run.ids[3];
                assert_eq!(pair.run.optimizer.state_len(id, slot).unwrap(), kept, "{what}: {slot}");
            }
            // Before the first step too, and for tensors that come later.
            let mut early = Pair::<f64>::new(algorithm, isa, &[], &lens()[..3]);
            early.set("freeze", 1.0);
            (0..5).for_each(|step| early.step(&format!("{what} frozen at once, {step}")));
            assert_eq!(early.run.optimizer.d(), 1e-3, "{what}");
            let fixed = early.run.optimizer.set(Key::D0, 1.0).unwrap_err();
            assert!(matches!(fixed, Error::Fixed { key: Key::D0, .. }), "{what}: {fixed}");
        }
    });
}

/// The restarted optimizer's state and parameters are those of a new one that starts with its d. (The
/// count k stays, which Adan has no use for.)
#[test]
fn restart_is_a_new_start_with_the_old_d() {
    each_isa(|isa| {
        for algorithm in [Algorithm::Adan, Algorithm::ExperimentalAdanIp] {
            let mut old = Pair::<f32>::new(algorithm, isa, &[], &lens());
            (0..10).for_each(|step| old.step(&format!("{algorithm} {isa} {step}")));
            let mut new = Run::<f32>::new(&config(algorithm, isa));
            new.set(None, "d0", old.run.optimizer.d());
            old.run.p.iter().for_each(|p| new.add(0, p.clone()));
            old.set("restart", 1.0);
            for step in 0..5 {
                let g: Vec<Vec<f32>> =
                    lens().iter().map(|len| rounded(&old.random.values(*len, 1.0))).collect();
                let given: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
                old.run.step(&given).unwrap();
                new.step(&given).unwrap();
                assert_eq!(old.run.optimizer.k(), new.optimizer.k() + 10);
                assert_eq!(old.run.optimizer.d(), new.optimizer.d(), "{algorithm} {isa} {step}");
                for tensor in 0..lens().len() {
                    let same = old.run.tensor_bits(tensor) == new.tensor_bits(tensor);
                    assert!(same, "{algorithm} {isa} {step}: tensor {tensor}");
                }
            }
        }
    });
}

/// One optimizer a group, to the last bit, whatever the groups' rates.
#[test]
fn one_d_a_group_is_one_optimizer_a_group() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let lrs = [1.0, 0.25, 0.5];
            let mut config = config(algorithm, isa);
            if adapts(algorithm) {
                config.set(Key::D0, 1e-3).unwrap().set(Key::DPerGroup, true).unwrap();
            }
            let mut whole = Run::<f32>::new(&config);
            (1..lrs.len()).for_each(|_| _ = whole.optimizer.add_group().unwrap());
            if adapts(algorithm) {
                config.set(Key::DPerGroup, false).unwrap();
            }
            let mut parts: Vec<_> = lrs.iter().map(|_| Run::<f32>::new(&config)).collect();
            let mut random = Random(5);
            for (group, lr) in lrs.iter().enumerate() {
                whole.set(Some(group), "lr", *lr);
                parts[group].set(None, "lr", *lr);
                for len in [33, 5000] {
                    let p: Vec<f32> = rounded(&random.values(len, 1.0));
                    whole.add(group, p.clone());
                    parts[group].add(0, p);
                }
            }
            for step in 0..20 {
                let draw = |i: usize| {
                    let size = 1.0 + i as f64;
                    let values =
                        random.values(if i.is_multiple_of(2) { 33 } else { 5000 }, 0.5 * size);
                    rounded::<f32>(&values.iter().map(|g| g + size).collect::<Vec<_>>())
                };
                let g: Vec<_> = (0..6).map(draw).collect();
                // The second group pauses.
                let given: Vec<_> = (0..6)
                    .map(|i| (i / 2 != 1 || step % 5 != 3).then_some(g[i].as_slice()))
                    .collect();
                let first = whole.step(&given).unwrap();
                for (group, part) in parts.iter_mut().enumerate() {
                    let expected = part.step(&given[2 * group..2 * group + 2]).unwrap();
                    let what = format!("{algorithm} {isa} group {group} step {step}");
                    if adapts(algorithm) {
                        let found = whole.optimizer.report(GroupId::new(group)).unwrap();
                        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{what}");
                        assert!(group > 0 || first == found || first.grad_norm.is_nan());
                    }
                    for tensor in 0..2 {
                        let found = whole.tensor_bits(2 * group + tensor);
                        assert!(found == part.tensor_bits(tensor), "{what}: tensor {tensor}");
                    }
                }
            }
            let ds: Vec<_> = parts.iter().map(|part| part.optimizer.d()).collect();
            let apart = ds[0] != ds[1] && ds[1] != ds[2];
            assert!(apart || !adapts(algorithm), "MISTRUSTED: {algorithm}: the same d {ds:?}");
        }
    });
}

/// A cap is no more than a cap: until it binds, nothing differs.
#[test]
fn a_cap_binds_where_it_binds() {
    for algorithm in adapting() {
        let mut free = Pair::<f64>::new(algorithm, Isa::Scalar, &[], &lens());
        let mut capped = Pair::<f64>::new(algorithm, Isa::Scalar, &[("d_cap", 2e-3)], &lens());
        let mut bound = false;
        for step in 0..STEPS {
            free.step(&format!("{algorithm} free {step}"));
            capped.step(&format!("{algorithm} capped {step}"));
            bound |= free.run.optimizer.d() > 2e-3;
            assert!(capped.run.optimizer.d() <= 2e-3, "{algorithm} step {step}");
            let same = free.run.bits() == capped.run.bits();
            assert!(same || bound, "{algorithm} step {step}: the cap acts before it binds");
        }
        assert!(bound, "MISTRUSTED: {algorithm}: d stays below the cap");
    }
}

/// Prodigy's copy of a start that is all zero has no memory; the caller's, where it is, holds it once.
#[test]
fn a_start_at_zero_is_not_kept() {
    each_isa(|isa| {
        for slice in [1.0, 3.0] {
            let options = [("slice_p", slice)];
            let mut pair = Pair::<f64>::new(Algorithm::Prodigy, isa, &options, &[40, 5000, 70]);
            (0..STEPS).for_each(|step| pair.step(&format!("{isa} slice {slice} step {step}")));
            assert!(pair.oracle.d > 1.3e-3, "MISTRUSTED: d did not grow");
            assert_eq!(pair.run.state(1, "p0").len(), 0);
            assert_eq!(pair.run.optimizer.state_len(pair.run.ids[1], "p0").unwrap(), 0);
            assert_eq!(pair.run.state(2, "p0").len(), 70usize.div_ceil(slice as usize));
        }
        let mut owned = Run::<f32>::new(&config(Algorithm::Prodigy, isa));
        owned.add(0, vec![0.0; 100]);
        let mut optimizer = Optimizer::new(&config(Algorithm::Prodigy, isa)).unwrap();
        let add = Optimizer::add_tensor_with_state_of_caller;
        let id = add(&mut optimizer, GroupId::FIRST, "t", DType::F32, 100).unwrap();
        assert_eq!(optimizer.tensor_info(id).unwrap().2, StateOwner::Caller);
        let mut p = vec![0.0f32; 100];
        let mut state = vec![vec![f32::NAN; 100]; 4];
        let mut random = Random(9);
        for _ in 0..12 {
            let g = rounded::<f32>(&random.values(100, 1.0));
            owned.step(&[Some(&g)]).unwrap();
            let [a, b, c, d] = state.as_mut_slice() else { unreachable!() };
            let given = TensorStep::new(id, &mut p, &g).with_state([a, b, c, d]);
            optimizer.step(&mut [given]).unwrap();
            assert_eq!(bits(&p), bits(&owned.p[0]), "{isa}");
            assert!(state[3].iter().all(|p0| *p0 == 0.0), "{isa}: not the start");
        }
    });
}

/// Where beta1, or plain SGD's momentum, is 0 there is no mean of gradients.
#[test]
fn means_that_nobody_needs_are_not_kept() {
    let none = |algorithm: Algorithm, options: &[(&str, f64)], slot: &str| {
        let mut pair = Pair::<f64>::new(algorithm, Isa::Scalar, options, &lens());
        (0..STEPS).for_each(|step| pair.step(&format!("{algorithm} step {step}")));
        assert_eq!(pair.run.state(3, slot).len(), 0, "{algorithm}");
        assert_eq!(pair.run.optimizer.state_len(pair.run.ids[3], slot).unwrap(), 0);
    };
    none(Algorithm::Prodigy, &[("beta1", 0.0)], "exp_avg");
    none(Algorithm::PlainSgd, &[("weight_decay", 0.1)], "momentum_buffer");
}

/// An optimizer without sums takes overflow back too.
#[test]
fn frozen_second_moments_stay_finite() {
    each_isa(|isa| {
        let moments = [
            (Algorithm::Adam, "exp_avg_sq"),
            (Algorithm::AdaGrad, "alphak"),
            (Algorithm::ExperimentalAdanIp, "exp_avg_sq"),
        ];
        for (algorithm, slot) in moments {
            let mut run = Run::<f32>::new(&config(algorithm, isa));
            run.add(0, vec![1.0; 35]);
            run.step(&[Some(&[0.5; 35])]).unwrap();
            run.optimizer.freeze().unwrap();
            run.step(&[Some(&[1e25; 35])]).unwrap();
            assert!(run.state(0, slot).iter().all(|v| *v == f32::MAX), "{algorithm} {isa}");
            run.step(&[Some(&[0.5; 35])]).unwrap();
            assert!(run.parameter(0).iter().all(|p| p.is_finite()), "{algorithm} {isa}");
        }
    });
}
