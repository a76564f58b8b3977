//! Steps in parts: the very bits of whole steps, whatever the order of tensors and the threads.

use crate::isas::{each_isa, scaled_len};
use crate::run::{Random, Run, adapts, bits, config, rounded, set_if_there};
use dadapt::{
    Algorithm, Config, DType, Element, Error, GroupId, Isa, Key, NonFinite, Optimizer, StateOwner,
    StepReport, TensorId, TensorStep,
};
use std::thread;

const LENS: [usize; 6] = [1, 35, 600, 4097, 140_000, 17];
const STEPS: usize = 7;

/// LENS, the one that is enough for threads scaled.
fn lens() -> [usize; 6] {
    let mut lens = LENS;
    lens[4] = scaled_len(lens[4], 600);
    lens
}

/// Every algorithm that can.
fn stepping() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.iter().copied().filter(|algorithm| *algorithm != Algorithm::Prodigy)
}

/// Two groups and six tensors, with options that make a difference.
fn start<E: Element>(algorithm: Algorithm, isa: Isa, options: &[(&str, f64)]) -> Run<E> {
    let mut config = config(algorithm, isa);
    config.set(Key::NumThreads, 2).unwrap().set(Key::WeightDecay, 0.01).unwrap();
    if adapts(algorithm) {
        config.set(Key::D0, 1e-3).unwrap();
    }
    config.add_group();
    for (name, value) in options {
        set_if_there(&mut config, name, *value);
    }
    let mut run = Run::new(&config);
    let mut random = Random(17);
    for (i, len) in lens().iter().enumerate() {
        run.add(i % 2, rounded(&random.values(*len, 1.0)));
    }
    run
}

/// Gradients of a step: none for some tensors, all zero for others, nothing but zeros at first.
fn gradients<E: Element>(random: &mut Random, step: usize) -> Vec<Option<Vec<E>>> {
    lens()
        .iter()
        .enumerate()
        .map(|(i, len)| {
            let size = match (step, i) {
                (0, 0 | 2) => return None,
                (0, _) | (1, 1 | 4) => 0.0,
                (3, 3) | (5, 0) => return None,
                _ => 1.0,
            };
            let direction = random.values(*len, 0.3).into_iter();
            Some(rounded(&direction.map(|x| size * (x + 0.5)).collect::<Vec<_>>()))
        })
        .collect()
}

/// Steps in parts, in an order that changes from step to step; gradients are overwritten at once.
fn step_in_parts<E: Element>(run: &mut Run<E>, g: &[Option<Vec<E>>], order: usize) -> StepReport {
    let Run { optimizer, ids, p } = run;
    let step = optimizer.step_begin().unwrap();
    let mut tensors: Vec<_> = ids.iter().zip(p.iter_mut()).zip(g).collect();
    let count = tensors.len();
    tensors.rotate_left(order % count);
    if order % 2 == 1 {
        tensors.reverse();
    }
    for ((id, p), g) in tensors {
        let Some(mut g) = g.clone() else { continue };
        step.step_tensor(TensorStep::new(*id, p, &g)).unwrap();
        g.fill(E::from_f64(f64::NAN));
    }
    step.step_end().unwrap()
}

fn check<E: Element>(options: &[(&str, f64)], lrs: [f64; 2]) {
    each_isa(|isa| {
        for algorithm in stepping() {
            let mut whole = start::<E>(algorithm, isa, options);
            let mut parts = start::<E>(algorithm, isa, options);
            for run in [&mut whole, &mut parts] {
                for (group, lr) in lrs.into_iter().enumerate() {
                    run.optimizer.set_lr(GroupId::new(group), lr).unwrap();
                }
            }
            let mut random = Random(23);
            let mut progress = 0;
            for step in 0..STEPS {
                let g = gradients::<E>(&mut random, step);
                let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
                let expected = whole.step(&given).unwrap();
                let found = step_in_parts(&mut parts, &g, step);
                let what = format!("{algorithm} {} {isa} {options:?} step {step}", E::DTYPE);
                // As text, in which NaNs, of norms that nobody needed, are equal.
                assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{what}");
                for group in [GroupId::FIRST, GroupId::new(1)] {
                    let reports = [&whole, &parts].map(|run| run.optimizer.report(group).unwrap());
                    assert_eq!(format!("{:?}", reports[0]), format!("{:?}", reports[1]), "{what}");
                }
                assert!(whole.bits() == parts.bits(), "{what}: other bits");
                progress += usize::from(found.applied);
            }
            assert!(progress >= STEPS - 2, "MISTRUSTED: {algorithm}: {progress} steps");
        }
    });
}

#[test]
fn f32_parts_have_the_bits_of_the_whole() {
    check::<f32>(&[], [1.0, 1.0]);
}

#[test]
fn f64_parts_have_the_bits_of_the_whole() {
    check::<f64>(&[], [1.0, 1.0]);
}

#[test]
fn frozen_groups_and_options_make_no_difference() {
    check::<f32>(&[("decouple", 1.0), ("momentum", 0.9), ("no_prox", 1.0)], [0.0, 0.5]);
    check::<f32>(&[("weight_decay", 0.0), ("slice_p", 3.0), ("layer_scale", 0.5)], [1.0, 0.0]);
}

#[test]
fn one_d_a_group_makes_no_difference() {
    each_isa(|isa| {
        for algorithm in stepping().filter(|algorithm| adapts(*algorithm)) {
            let make = || {
                let mut config = Config::new(algorithm);
                config.set(Key::DPerGroup, true).unwrap().set(Key::Isa, isa).unwrap();
                config.set(Key::D0, 1e-3).unwrap();
                let group = config.add_group();
                config.set_group(group, Key::Lr, 0.25).unwrap();
                let mut run = Run::<f32>::new(&config);
                lens().iter().enumerate().for_each(|(i, len)| run.add(i % 2, vec![0.5; *len]));
                run
            };
            let (mut whole, mut parts) = (make(), make());
            let mut random = Random(29);
            for step in 0..STEPS {
                let g = gradients::<f32>(&mut random, step);
                let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
                whole.step(&given).unwrap();
                step_in_parts(&mut parts, &g, step);
                let second = GroupId::new(1);
                let reports = [&whole, &parts].map(|run| run.optimizer.report(second).unwrap());
                assert_eq!(format!("{:?}", reports[0]), format!("{:?}", reports[1]), "{algorithm}");
                assert!(whole.bits() == parts.bits(), "{algorithm} {isa} step {step}");
            }
        }
    });
}

#[test]
fn threads_may_step_tensors_at_once() {
    for algorithm in stepping() {
        let mut whole = start::<f32>(algorithm, Isa::Scalar, &[]);
        let mut parts = start::<f32>(algorithm, Isa::Scalar, &[]);
        let mut random = Random(31);
        for step in 0..STEPS {
            let g = gradients::<f32>(&mut random, step);
            let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
            whole.step(&given).unwrap();
            let Run { optimizer, ids, p } = &mut parts;
            let open = optimizer.step_begin().unwrap();
            thread::scope(|scope| {
                for ((id, p), g) in ids.iter().zip(p.iter_mut()).zip(&g) {
                    let Some(g) = g else { continue };
                    let open = &open;
                    scope.spawn(move || open.step_tensor(TensorStep::new(*id, p, g)).unwrap());
                }
            });
            open.step_end().unwrap();
            assert!(whole.bits() == parts.bits(), "{algorithm} step {step}");
        }
    }
}

#[test]
fn types_mix_and_the_caller_may_keep_the_state() {
    for algorithm in stepping() {
        let make = |owned: bool| {
            let mut optimizer = Optimizer::new(&config(algorithm, Isa::Scalar)).unwrap();
            let single = optimizer.add_tensor(GroupId::FIRST, "a", DType::F32, 40).unwrap();
            let double = match owned {
                true => optimizer.add_tensor(GroupId::FIRST, "b", DType::F64, 50),
                false => {
                    optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "b", DType::F64, 50)
                }
            };
            (optimizer, single, double.unwrap())
        };
        let (mut whole, a, b) = make(true);
        let (mut parts, ..) = make(false);
        let (mut p32, mut p64) = (vec![0.5f32; 40], vec![-0.5f64; 50]);
        let (mut q32, mut q64) = (p32.clone(), p64.clone());
        let lens: Vec<_> =
            algorithm.state_names().map(|slot| parts.state_len(b, slot).unwrap()).collect();
        let mut state: Vec<_> = lens.iter().map(|len| vec![f64::NAN; *len]).collect();
        let mut random = Random(37);
        for _ in 0..4 {
            let g32 = rounded::<f32>(&random.values(40, 1.0));
            let g64 = random.values(50, 1.0);
            let given = [TensorStep::new(a, &mut p32, &g32), TensorStep::new(b, &mut p64, &g64)];
            let [first, second] = given;
            let expected = whole.step(&mut [first, second]).unwrap();
            let open = parts.step_begin().unwrap();
            let given = TensorStep::new(b, &mut q64, &g64);
            open.step_tensor(with_state(given, &mut state)).unwrap();
            open.step_tensor(TensorStep::new(a, &mut q32, &g32)).unwrap();
            let found = open.step_end().unwrap();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{algorithm}");
            assert_eq!((bits(&p32), bits(&p64)), (bits(&q32), bits(&q64)), "{algorithm}");
            for (slot, kept) in algorithm.state_names().zip(&state) {
                assert_eq!(bits(whole.state::<f64>(b, slot).unwrap()), bits(kept), "{algorithm}");
            }
        }
    }
}

fn with_state<'p, 'g>(given: TensorStep<'p, 'g>, state: &'p mut [Vec<f64>]) -> TensorStep<'p, 'g> {
    match state {
        [a] => given.with_state([a]),
        [a, b] => given.with_state([a, b]),
        [a, b, c] => given.with_state([a, b, c]),
        [a, b, c, d] => given.with_state([a, b, c, d]),
        [a, b, c, d, e] => given.with_state([a, b, c, d, e]),
        _ => panic!("teach this test another number of state slots"),
    }
}

/// A rejected gradient leaves its tensor alone; the others stand, and `d` and `k` are the old ones.
#[test]
fn rejection_and_abort_leave_what_they_say() {
    for algorithm in stepping() {
        let mut run = start::<f32>(algorithm, Isa::Scalar, &[]);
        let mut random = Random(41);
        for step in 2..5 {
            let g = gradients::<f32>(&mut random, step);
            step_in_parts(&mut run, &g, 0);
        }
        let (d, k) = (run.optimizer.d(), run.optimizer.k());
        let before: Vec<_> = (0..LENS.len()).map(|tensor| run.tensor_bits(tensor)).collect();
        let Run { optimizer, ids, p } = &mut run;
        let [first, second, ..] = p.as_mut_slice() else { unreachable!() };
        let open = optimizer.step_begin().unwrap();
        open.step_tensor(TensorStep::new(ids[0], first, &[0.5f32])).unwrap();
        let mut bad = vec![0.5f32; LENS[1]];
        bad[7] = f32::NAN;
        let copy = Vec::leak(second.clone());
        let error = open.step_tensor(TensorStep::new(ids[1], copy, &bad)).unwrap_err();
        assert!(matches!(error, Error::NonFiniteGradient { index: 7, .. }), "{error}");
        let updated = open.step_abort();
        assert_eq!(updated, [ids[0]], "{algorithm}");
        assert_eq!((run.optimizer.d(), run.optimizer.k()), (d, k), "{algorithm}");
        assert!(run.tensor_bits(0) != before[0], "MISTRUSTED: {algorithm}: nothing happened");
        for (tensor, before) in before.iter().enumerate().skip(1) {
            assert!(run.tensor_bits(tensor) == *before, "{algorithm}: tensor {tensor}");
        }
        // The step after it is as any other, and the refused tensor may be given again.
        let g: Vec<_> = lens().iter().map(|len| Some(vec![0.25; *len])).collect();
        assert_eq!(step_in_parts(&mut run, &g, 0).k, k + 1);
    }
}

#[test]
fn a_refused_tensor_may_be_given_again() {
    for algorithm in stepping() {
        let mut whole = start::<f32>(algorithm, Isa::Scalar, &[]);
        let mut parts = start::<f32>(algorithm, Isa::Scalar, &[]);
        let g: Vec<_> = lens().iter().map(|len| Some(vec![0.25f32; *len])).collect();
        let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
        whole.step(&given).unwrap();
        let Run { optimizer, ids, p } = &mut parts;
        let open = optimizer.step_begin().unwrap();
        for ((id, p), g) in ids.iter().zip(p.iter_mut()).zip(&g) {
            let bad = vec![f32::INFINITY; p.len()];
            let mut copy = p.clone();
            let copy = Vec::leak(std::mem::take(&mut copy));
            open.step_tensor(TensorStep::new(*id, copy, &bad)).unwrap_err();
            open.step_tensor(TensorStep::new(*id, p, g.as_ref().unwrap())).unwrap();
        }
        open.step_end().unwrap();
        assert!(whole.bits() == parts.bits(), "{algorithm}");
    }
}

#[test]
fn what_cannot_be_done_in_parts_is_refused() {
    let mut run = start::<f32>(Algorithm::Adam, Isa::Scalar, &[]);
    run.optimizer.set(Key::NonFinite, NonFinite::Skip).unwrap();
    let error = run.optimizer.step_begin().unwrap_err().to_string();
    assert!(error.contains("skip") && error.contains("reject"), "{error}");
    let mut config = Config::new(Algorithm::Prodigy);
    config.set(Key::NumThreads, 1).unwrap();
    let mut prodigy = Run::<f32>::new(&config);
    prodigy.add(0, vec![1.0; 3]);
    let error = prodigy.optimizer.step_begin().unwrap_err().to_string();
    assert!(error.contains("prodigy") && error.contains("call step"), "{error}");
    // Frozen, its d is known.
    prodigy.step(&[Some(&[1.0; 3])]).unwrap();
    prodigy.optimizer.freeze().unwrap();
    let before = prodigy.p[0].clone();
    step_in_parts(&mut prodigy, &[Some(vec![1.0; 3])], 0);
    assert!(prodigy.p[0] != before && prodigy.optimizer.k() == 2);
}

#[test]
fn one_step_at_a_time() {
    let mut run = start::<f32>(Algorithm::Adam, Isa::Scalar, &[]);
    let (id, before) = (run.ids[0], run.bits());
    let g = [1.0f32];
    // SAFETY: the arrays outlive the step.
    let lone = |p: *mut f32| unsafe {
        TensorStep::from_raw(id, DType::F32, 1, p.cast(), g.as_ptr().cast(), &[])
    };
    let mut p = run.p[0].clone();
    // SAFETY: as above.
    let outcome = unsafe { run.optimizer.step_part(&lone(p.as_mut_ptr())) };
    assert_eq!(outcome, Err(Error::NoStepOpen));
    // SAFETY: nothing was given.
    assert_eq!(unsafe { run.optimizer.close_step() }.map(|_| ()), Err(Error::NoStepOpen));
    assert_eq!(run.optimizer.abort_step(), Vec::<TensorId>::new());
    run.optimizer.open_step().unwrap();
    assert_eq!(run.optimizer.open_step(), Err(Error::StepOpen));
    assert_eq!(run.optimizer.step(&mut []).map(|_| ()), Err(Error::StepOpen));
    assert_eq!(run.optimizer.set(Key::Eps, 1e-3), Err(Error::StepOpen));
    assert_eq!(run.optimizer.add_group().map(|_| ()), Err(Error::StepOpen));
    assert_eq!(run.optimizer.freeze(), Err(Error::StepOpen));
    let added = run.optimizer.add_tensor(GroupId::FIRST, "new", DType::F32, 1);
    assert_eq!(added.map(|_| ()), Err(Error::StepOpen));
    assert_eq!(run.optimizer.abort_step(), Vec::<TensorId>::new());
    assert!(run.bits() == before);

    let open = run.optimizer.step_begin().unwrap();
    let copy = Vec::leak(p.clone());
    open.step_tensor(TensorStep::new(id, &mut p, &g)).unwrap();
    let error = open.step_tensor(TensorStep::new(id, copy, &g)).unwrap_err();
    assert!(matches!(error, Error::TensorTwice { .. }), "{error}");
    drop(open); // aborts
    assert_eq!(run.optimizer.k(), 0);
    run.step(&[Some(&g), None, None, None, None, None]).unwrap();
}

/// Where one group's first step cannot be scaled, others have moved already: as in an abort, they
/// count as updated, and a tensor of theirs that starts in this step keeps its start.
#[test]
fn a_refused_end_forgets_nothing_that_was_updated() {
    let mut config = config(Algorithm::Sgd, Isa::Scalar);
    config.set(Key::DPerGroup, true).unwrap().set(Key::D0, 1e-3).unwrap();
    config.add_group();
    let mut run = Run::<f32>::new(&config);
    run.add(0, vec![1.0; 3]);
    run.step(&[Some(&[1.0; 3])]).unwrap();
    run.add(0, vec![2.0; 3]);
    run.add(1, vec![3.0; 3]);
    run.optimizer.set_group(GroupId::new(1), Key::Lr, 1e300).unwrap();
    let Run { optimizer, ids, p } = &mut run;
    let open = optimizer.step_begin().unwrap();
    for (id, p) in ids.iter().zip(p.iter_mut()).skip(1) {
        open.step_tensor(TensorStep::new(*id, p, &[1.0f32; 3])).unwrap();
    }
    let error = open.step_end().unwrap_err();
    assert!(matches!(error, Error::Coefficient { group: 1, .. }), "{error}");
    assert_eq!(run.p[2], [3.0; 3], "that group itself is as it was");
    assert_ne!(run.p[1], [2.0; 3], "MISTRUSTED: the other group waited");
    let reports = [0, 1].map(|group| run.optimizer.report(GroupId::new(group)).unwrap());
    assert_eq!(reports.map(|report| (report.k, report.applied)), [(2, true), (0, false)]);
    run.step(&[None, Some(&[1.0; 3]), None]).unwrap();
    assert_eq!(run.state(1, "x0"), [2.0; 3], "a second start");
}

/// What waits for the end has not been updated: SGD's first step, and zeros before all progress.
#[test]
fn an_aborted_first_step_lists_what_has_moved() {
    for algorithm in stepping() {
        let mut whole = start::<f32>(algorithm, Isa::Scalar, &[("weight_decay", 0.0)]);
        let mut run = start::<f32>(algorithm, Isa::Scalar, &[("weight_decay", 0.0)]);
        let before = run.bits();
        let Run { optimizer, ids, p } = &mut run;
        let [first, second, third, ..] = p.as_mut_slice() else { unreachable!() };
        let open = optimizer.step_begin().unwrap();
        open.step_tensor(TensorStep::new(ids[2], third, &[0.0f32; LENS[2]])).unwrap();
        open.step_tensor(TensorStep::new(ids[1], second, &[0.5f32; LENS[1]])).unwrap();
        open.step_tensor(TensorStep::new(ids[0], first, &[0.5f32; LENS[0]])).unwrap();
        let mut updated = open.step_abort();
        updated.sort_unstable();
        let expected = match algorithm {
            Algorithm::Sgd => vec![],
            _ if adapts(algorithm) => vec![ids[0], ids[1]],
            _ => vec![ids[0], ids[1], ids[2]],
        };
        assert_eq!(updated, expected, "{algorithm}");
        let untouched = updated.is_empty();
        let same = run.p.iter().zip(&whole.p).all(|(new, old)| bits(new) == bits(old));
        assert_eq!(same, untouched, "{algorithm}: parameters");
        assert_eq!(run.bits()[..2], before[..2], "{algorithm}: d and k");
        if untouched {
            // It never was: the next step is a first one.
            let g: Vec<_> = lens().iter().map(|len| vec![0.25f32; *len]).collect();
            let g: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
            whole.step(&g).unwrap();
            run.step(&g).unwrap();
            assert!(run.bits() == whole.bits(), "{algorithm}: a trace of what was aborted");
        }
    }
}

/// NaNs and second moments that overflow, in the slice and beside it, spread as in whole steps.
#[test]
fn non_finite_values_have_the_bits_of_the_whole() {
    each_isa(|isa| {
        for algorithm in stepping() {
            for slice in [1.0, 3.0] {
                let (nan, infinite) = (f32::NAN, f32::INFINITY);
                let pairs = [[nan; 2], [infinite; 2], [1e30; 2], [nan, 1e30]];
                for values in pairs {
                    let options = [("slice_p", slice), ("beta2", 0.9), ("beta3", 0.9)];
                    let mut whole = start::<f32>(algorithm, isa, &options);
                    let mut parts = start::<f32>(algorithm, isa, &options);
                    for run in [&mut whole, &mut parts] {
                        run.optimizer.set(Key::NonFinite, NonFinite::Propagate).unwrap();
                    }
                    let mut random = Random(43);
                    for step in 0..8 {
                        let mut g = gradients::<f32>(&mut random, step);
                        if [1, 4].contains(&step) {
                            g[1].as_mut().unwrap()[6] = values[0]; // of the slice
                            g[5].as_mut().unwrap()[7] = values[1]; // not of the slice
                        }
                        let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
                        let expected = whole.step(&given).unwrap();
                        let found = step_in_parts(&mut parts, &g, step);
                        let what =
                            format!("{algorithm} {isa} slice {slice} {values:?} step {step}");
                        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{what}");
                        assert!(whole.bits() == parts.bits(), "{what}: other bits");
                    }
                }
            }
        }
    });
}

/// What waits is swept together at the end, on threads where there is enough of it.
#[test]
fn many_small_tensors_may_wait() {
    let mut config = config(Algorithm::Sgd, Isa::Scalar);
    config.set(Key::NumThreads, 2).unwrap();
    let (mut whole, mut parts) = (Run::<f32>::new(&config), Run::<f32>::new(&config));
    for run in [&mut whole, &mut parts] {
        (0..3).for_each(|_| run.add(0, vec![1.0; 40_000]));
    }
    let g = vec![Some(vec![0.5f32; 40_000]); 3];
    let given: Vec<_> = g.iter().map(|g| g.as_deref()).collect();
    whole.step(&given).unwrap();
    step_in_parts(&mut parts, &g, 0);
    assert!(whole.bits() == parts.bits());
}

/// AdaGrad's estimate divides by a total that is the sum of |s| of all tensors: also where a step that
/// moved s was aborted, of dense tensors and of tables.
#[test]
fn an_aborted_step_is_in_totals() {
    let mut run = Run::<f64>::new(&config(Algorithm::AdaGrad, Isa::Scalar));
    run.add(0, vec![1.0; 50]);
    run.add(0, vec![2.0; 30]);
    let add = |run: &mut Run<f64>| {
        let owner = StateOwner::Library;
        run.optimizer.add_rows(GroupId::FIRST, "rows", DType::F64, 10, 4, owner).unwrap()
    };
    let (table, mut rows) = (add(&mut run), vec![0.5; 40]);
    let g = [vec![0.5; 50], vec![-0.25; 30]];
    run.step(&[Some(&g[0]), Some(&g[1])]).unwrap();
    let before = (run.optimizer.d(), run.optimizer.k());
    let Run { optimizer, ids, p } = &mut run;
    let open = optimizer.step_begin().unwrap();
    open.step_tensor(TensorStep::new(ids[0], &mut p[0], &g[0])).unwrap();
    open.step_tensor(TensorStep::rows(table, &mut rows, &[3u32, 3], &[1.0; 8])).unwrap();
    assert_eq!(open.step_abort(), [ids[0], table]);
    assert_eq!((run.optimizer.d(), run.optimizer.k()), before);
    // Back to where s was: without the aborted sums the total would be off by a third.
    let back: Vec<f64> = g[0].iter().map(|g| -g).collect();
    let report = run.step(&[Some(&back), None]).unwrap();
    let optimizer = &run.optimizer;
    let sum = |id, slot| optimizer.state::<f64>(id, slot).unwrap().iter().map(|s| s.abs()).sum();
    let total: f64 = [run.ids[0], run.ids[1], table].map(|id| sum(id, "sk")).iter().sum::<f64>();
    // Each of the few partial sums of some hundred terms rounds by less than that.
    assert!((report.denominator / total - 1.0).abs() < 1e-13, "{} {total}", report.denominator);
}
