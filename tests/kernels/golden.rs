//! Every golden file, replayed on every instruction set.
//!
//! Bounds. An implementation of element type with half-ulp `u` strays from exact arithmetic by at
//! most `4*u*k*(1 + travel)` in p, relative to the tensor's largest element, and `4*u*k` in d, after
//! `k` steps: each step rounds p once or twice and moves it by an update with a relative error of a
//! few `u`, and d is a product of at most `k` growths. `travel` is the sum of the steps' largest
//! moves on that scale. The reference obeys the same law (`oracle_vs_golden.rs` shows it), so a
//! kernel and the reference may be twice that apart; the kernel and the oracle, which computes in
//! f64, once. On top of the law stand two bounds that do not grow: 1e-10 in f64, 1e-4 for d in f32.

use crate::golden_files::{Golden, Problem, Regression};
use crate::isas::each_isa;
use crate::recurrences::{self, Oracle};
use crate::run::{Run, adapts, config, distance, largest, reference_name, rounded, unit_roundoff};
use dadapt::{Algorithm, DType, Element, Isa};

/// Of the law above, for one implementation.
pub const MULTIPLE: f64 = 4.0;
/// f64: the most that d, and p relative to its tensor's largest element, may be off.
const F64_BOUND: f64 = 1e-10;
/// f32: the most that d may be off.
pub const F32_D_BOUND: f64 = 1e-4;

/// Closed loops: of the files' budgets, with a few ulps beside them for the first steps, where they
/// are 0. The budgets are the largest of eight jittered runs and know nothing of the state's
/// roundings.
const BUDGET_MULTIPLE: f64 = 4.0;
const BUDGET_ULPS: f64 = 4.0;

#[test]
fn open_loop_f64_agrees_with_reference() {
    let cases = Golden::open("f64");
    each_isa(|isa| cases.iter().for_each(|case| _ = check_open::<f64>(case, isa)));
}

#[test]
fn open_loop_f32_agrees_with_reference() {
    let cases = Golden::open("f32");
    each_isa(|isa| cases.iter().for_each(|case| _ = check_open::<f32>(case, isa)));
}

#[test]
fn closed_loop_f64_stays_within_budget() {
    let cases = Golden::closed("f64");
    each_isa(|isa| cases.iter().for_each(|case| check_closed::<f64>(case, isa)));
}

#[test]
fn closed_loop_f32_stays_within_budget() {
    let cases = Golden::closed("f32");
    each_isa(|isa| cases.iter().for_each(|case| check_closed::<f32>(case, isa)));
}

#[test]
fn every_algorithm_has_golden_cases() {
    for (cases, kind) in [(Golden::open("f32"), "open"), (Golden::closed("f32"), "closed")] {
        // No package that pip finds is the reference of these; the oracle is.
        let ours = [Algorithm::PlainLion, Algorithm::PlainAdan];
        for &algorithm in Algorithm::ALL.iter().filter(|algorithm| !ours.contains(algorithm)) {
            let found = cases.iter().any(|case| case.algorithm == reference_name(algorithm));
            assert!(found, "no {kind} case of {algorithm}");
        }
    }
}

/// The worst errors of p, relative to its tensor's largest element, and of d.
pub fn check_open<E: Element>(case: &Golden, isa: Isa) -> (f64, f64) {
    let problem = Problem::load();
    let initial = |tensor: &str| problem.initial(tensor).to_vec();
    let mut run = run_of::<E>(case, isa, initial);
    let mut oracle = oracle_of(case, initial);
    let u = unit_roundoff(E::DTYPE);
    let tensors = case.tensors();
    let mut travelled = vec![0.0; tensors.len()];
    let mut snapshots = case.snapshots.iter().enumerate().peekable();
    let mut worst = Worst::default();
    let name = format!("{} {} {isa}", case.name, case.dtype);
    let algorithm = run.optimizer.algorithm();
    let cancels = algorithm == Algorithm::Prodigy && oracle.shared.d0 < 1e-4;
    let f64_bound = if cancels { 1e-9 } else { F64_BOUND };
    let d_bound = match E::DTYPE {
        DType::F64 => f64_bound,
        _ if cancels => f64::INFINITY,
        _ => F32_D_BOUND,
    };

    for step in 0..case.steps {
        for change in case.changes_at(step) {
            run.set(change.group, &change.option, change.value);
            oracle.set(change.group, &change.option, change.value);
        }
        let exact: Vec<_> =
            tensors.iter().map(|(_, tensor)| problem.gradient(case, step, tensor)).collect();
        let given: Vec<_> = exact.iter().map(|g| g.map(rounded::<E>)).collect();
        let given: Vec<_> = given.iter().map(|g| g.as_deref()).collect();
        let before: Vec<_> = (0..tensors.len()).map(|i| run.parameter(i)).collect();
        let report = run.step(&given).unwrap();
        oracle.step(&exact);
        for (i, before) in before.iter().enumerate() {
            travelled[i] += distance(&run.parameter(i), before);
        }

        assert_eq!(report.k as f64, case.k()[step], "{name}: k after step {step}");
        let k = report.k.max(1) as f64;
        let law = MULTIPLE * (u * k * oracle.cancellation + case.open_d_budget(step));
        let d_error = (report.d / case.d()[step] - 1.0).abs();
        assert!(
            d_error <= d_bound.min(2.0 * law),
            "{name}: d after step {step} off by {d_error:e}, law {:e}",
            2.0 * law
        );
        let d_from_oracle = (report.d / oracle.d - 1.0).abs();
        assert!(
            d_from_oracle <= law,
            "{name}: d after step {step}, oracle, off by {d_from_oracle:e}, law {law:e}"
        );
        worst.d(d_error, d_error / (2.0 * law), d_from_oracle / law);

        let snapshot = snapshots.next_if(|(_, count)| **count == step + 1);
        for (i, (_, tensor)) in tensors.iter().enumerate() {
            let p = run.parameter(i);
            // A tensor of zeros that waits for its first gradient is exact.
            let scale = largest(&oracle.tensors[i].p).max(f64::MIN_POSITIVE);
            let travel = oracle.cancellation * travelled[i] / scale;
            let budget = snapshots_budget(case, tensor, step);
            let law = MULTIPLE * (u * k * (1.0 + travel) + budget);
            let from_oracle = distance(&p, &oracle.tensors[i].p) / scale;
            let what = format!("{name}: {tensor} after step {step}");
            assert!(from_oracle <= law, "{what}, oracle: off by {from_oracle:e}, law {law:e}");
            worst.p(0.0, 0.0, from_oracle / law);

            let Some((index, _)) = snapshot else { continue };
            let expected = case.parameter(tensor, index);
            let error = distance(&p, expected) / largest(expected).max(f64::MIN_POSITIVE);
            assert!(error <= 2.0 * law, "{what} is off by {error:e}, law {:e}", 2.0 * law);
            assert!(E::DTYPE != DType::F64 || error <= f64_bound, "{what} is off by {error:e}");
            worst.p(error, error / (2.0 * law), 0.0);
        }
    }
    assert!(snapshots.next().is_none(), "a snapshot beyond the last step");
    println!("{name:42} {worst}");

    let grown = run.optimizer.d() > 1.5 * oracle.shared.d0 || !adapts(algorithm);
    assert!(grown, "MISTRUSTED: {name}: d did not grow");
    let (mut moved, mut all) = (0, 0);
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        let (now, then) = (run.parameter(i), initial(tensor));
        moved += now.iter().zip(then).filter(|(now, then)| *now != then).count();
        all += now.len();
    }
    assert!(moved * 10 > 9 * all, "MISTRUSTED: {name}: only {moved} of {all} moved");
    (worst.0[0], worst.1[0])
}

fn check_closed<E: Element>(case: &Golden, isa: Isa) {
    let regression = Regression::load();
    let mut run = run_of::<E>(case, isa, |tensor| regression.initial(tensor).to_vec());
    let ulp = 2.0 * unit_roundoff(E::DTYPE);
    let (mut worst_d, mut worst_loss): (f64, f64) = (0.0, 0.0);
    let mut last_loss = f64::INFINITY;
    let name = format!("{} {} {isa}", case.name, case.dtype);

    for step in 0..case.steps {
        let (loss, by_weight, by_bias) = regression.loss(&run.parameter(0), &run.parameter(1));
        let gradients = [rounded::<E>(&by_weight), rounded::<E>(&by_bias)];
        let d = run.step(&[Some(&gradients[0]), Some(&gradients[1])]).unwrap().d;
        last_loss = loss;
        for (what, value, expected, budget, worst) in [
            ("d", d, case.d()[step], case.d_budget()[step], &mut worst_d),
            ("loss", loss, case.loss()[step], case.loss_budget()[step], &mut worst_loss),
        ] {
            let error = (value / expected - 1.0).abs();
            let share = error / (BUDGET_MULTIPLE * (budget + BUDGET_ULPS * ulp));
            assert!(share <= 1.0, "{name}: {what} of step {step} off by {error:e}, {share} bounds");
            *worst = worst.max(share);
        }
    }
    println!("{name:42} of its bounds: d {worst_d:.2}  loss {worst_loss:.2}");
    assert!(last_loss < 0.05 * case.loss()[0], "MISTRUSTED: {name}: nothing was learned");
}

/// Prodigy's budget of a tensor's p after a step: that of the next snapshot, since budgets grow.
fn snapshots_budget(case: &Golden, tensor: &str, step: usize) -> f64 {
    let next = case.snapshots.iter().position(|count| *count > step);
    next.map_or(0.0, |index| case.open_p_budget(tensor, index))
}

pub fn run_of<E: Element>(case: &Golden, isa: Isa, initial: impl Fn(&str) -> Vec<f64>) -> Run<E> {
    let named = |algorithm: &Algorithm| reference_name(*algorithm) == case.algorithm;
    let algorithm = *Algorithm::ALL.iter().find(|algorithm| named(algorithm)).unwrap();
    let mut run = Run::new(&config(algorithm, isa));
    for _ in 1..case.groups.len() {
        run.optimizer.add_group().unwrap();
    }
    for (group, option, value) in case.options() {
        run.set(Some(group), option, value);
    }
    for (group, tensor) in case.tensors() {
        run.add(group, rounded(&initial(tensor)));
    }
    run
}

pub fn oracle_of(case: &Golden, initial: impl Fn(&str) -> Vec<f64>) -> Oracle {
    let algorithm = recurrences::Algorithm::named(&case.algorithm);
    let mut oracle = Oracle::new(algorithm, case.groups.len());
    for (group, option, value) in case.options() {
        oracle.set(Some(group), option, value);
    }
    for (group, tensor) in case.tensors() {
        oracle.add(group, initial(tensor));
    }
    oracle
}

/// Of p and d each: the worst error against the reference, its share of the law, and the share of
/// the law that the error against the oracle takes.
#[derive(Default)]
struct Worst([f64; 3], [f64; 3]);

impl Worst {
    fn p(&mut self, error: f64, share: f64, oracle_share: f64) {
        raise(&mut self.0, [error, share, oracle_share]);
    }
    fn d(&mut self, error: f64, share: f64, oracle_share: f64) {
        raise(&mut self.1, [error, share, oracle_share]);
    }
}

fn raise(most: &mut [f64; 3], by: [f64; 3]) {
    for (most, by) in most.iter_mut().zip(by) {
        *most = most.max(by);
    }
}

impl std::fmt::Display for Worst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Worst([p, p_share, p_oracle], [d, d_share, d_oracle]) = self;
        write!(f, "p {p:.1e} ({p_share:.2} of the law, oracle {p_oracle:.2})  ")?;
        write!(f, "d {d:.1e} ({d_share:.2}, oracle {d_oracle:.2})")
    }
}
