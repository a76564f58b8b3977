//! Golden files in bf16 and f16, replayed on every instruction set.
//!
//! The reference keeps its state in the parameter's type and rounds each of its operations to
//! nearest; here both a master copy and state are f32. So there are two truths:
//! - the reference in f64, on the same rounded parameters and gradients: the master copy keeps to it by
//!   the law of `golden.rs` for f32, with a unit roundoff of 2^-24, and the parameter is the master copy
//!   rounded, bit by bit;
//! - the reference in the type itself, which strays from that one by the same law, with the unit
//!   roundoff of its type: each step rounds its state and parameters, and d is a product of growths.
//!   2^-8 of bf16 is coarse: the law says little of single elements, and much of a wrong recurrence.
//!   That of f16 is 2^-11, but some of its state is below the normal numbers, or
//!   lost: four times that. Prodigy's d is beyond it: it follows from p0 - p, which at first is a few units
//!   in the last place, and so is off by an eighth as far as seen, of which twice is allowed.

use crate::golden::{F32_D_BOUND, MULTIPLE, oracle_of, run_of};
use crate::golden_files::{Golden, Problem};
use crate::isas::each_isa;
use crate::recurrences::formats::{BF16, F16, Grid};
use crate::run::{Run, adapts, distance, largest, rounded, unit_roundoff};
use dadapt::{DType, Element, Isa, bf16, f16};

const QUARTER: f64 = 0.25;

#[test]
fn bf16_agrees_with_reference() {
    let cases = Golden::half("bf16");
    each_isa(|isa| cases.iter().for_each(|case| check::<bf16>(case, isa, BF16, 2f64.powi(-8))));
}

#[test]
fn f16_agrees_with_reference() {
    let cases = Golden::half("f16");
    each_isa(|isa| cases.iter().for_each(|case| check::<f16>(case, isa, F16, 2f64.powi(-9))));
}

fn values<E: Element>(from: &[E]) -> Vec<f64> {
    from.iter().map(|x| x.to_f64()).collect()
}

fn master<P: Element>(run: &Run<P>, tensor: usize) -> Vec<f64> {
    run.optimizer.state_values(run.ids[tensor], "master").unwrap()
}

fn check<P: Element>(case: &Golden, isa: Isa, grid: Grid, coarse: f64) {
    let problem = Problem::load();
    let initial = |tensor: &str| values(&rounded::<P>(problem.initial(tensor)));
    let mut run = run_of::<P>(case, isa, initial);
    let mut oracle = oracle_of(case, initial);
    let fine = unit_roundoff(DType::F32);
    let tensors = case.tensors();
    let mut travelled = vec![0.0; tensors.len()];
    let (mut d_off, mut coarse_d_off): (f64, f64) = (0.0, 0.0);
    let mut snapshots = case.snapshots.iter().enumerate().peekable();
    let name = format!("{} {} {isa}", case.name, case.dtype);
    let (mut worst_fine, mut worst_coarse) = ([0.0, 0.0], [0.0, 0.0]);

    for step in 0..case.d().len() {
        let gradients = tensors.iter().map(|(_, tensor)| problem.gradient(case, step, tensor));
        let given: Vec<_> = gradients.map(|g| rounded::<P>(g.expect("in all steps"))).collect();
        let exact: Vec<_> = given.iter().map(|g| values(g)).collect();
        let before: Vec<_> = oracle.tensors.iter().map(|tensor| tensor.p.clone()).collect();
        let report = run.step(&given.iter().map(|g| Some(g.as_slice())).collect::<Vec<_>>());
        let report = report.unwrap();
        oracle.step(&exact.iter().map(|g| Some(g.as_slice())).collect::<Vec<_>>());
        assert_eq!(report.k as f64, case.k()[step], "{name}: k after step {step}");

        let law = |unit: f64| MULTIPLE * unit * report.k.max(1) as f64;
        let off = (report.d / case.exact_d()[step] - 1.0).abs();
        let bound = F32_D_BOUND.min(law(fine) * oracle.cancellation);
        // Prodigy's follows from p0 - p, most of whose digits cancel.
        let bound = if case.algorithm == "prodigy" { F32_D_BOUND } else { bound };
        check_share(&mut worst_fine[0], off, bound, || format!("{name}: d after step {step}"));
        d_off = d_off.max(off);
        let off = (report.d / case.d()[step] - 1.0).abs();
        let coarse_d = law(coarse) * oracle.cancellation;
        let coarse_d = if case.algorithm == "prodigy" { QUARTER } else { coarse_d };
        let what = || format!("{name}: d after step {step}, in the type,");
        check_share(&mut worst_coarse[0], off, coarse_d, what);
        coarse_d_off = coarse_d_off.max(off);

        let snapshot = snapshots.next_if(|(_, count)| **count == step + 1);
        for (i, (_, tensor)) in tensors.iter().enumerate() {
            travelled[i] += distance(&oracle.tensors[i].p, &before[i]);
            let (found, p) = (master(&run, i), run.parameter(i));
            let nearest: Vec<_> = found.iter().map(|x| grid.nearest(*x).to_bits()).collect();
            let bits: Vec<_> = p.iter().map(|x| x.to_bits()).collect();
            assert!(bits == nearest, "{name}: {tensor} is not its master copy, rounded");

            let Some((index, _)) = snapshot else { continue };
            let expected = case.exact_parameter(tensor, index);
            let scale = largest(expected).max(f64::MIN_POSITIVE);
            let travel = oracle.cancellation * travelled[i] / scale;
            let bound = law(fine) * (1.0 + travel) + d_off * travel;
            let what = || format!("{name}: master copy of {tensor} after step {step}");
            check_share(&mut worst_fine[1], distance(&found, expected) / scale, bound, what);
            let error = distance(&p, case.parameter(tensor, index)) / scale;
            let what = || format!("{name}: {tensor} after step {step}, in the type,");
            let bound = law(coarse) * (1.0 + travel) + coarse_d_off * travel;
            check_share(&mut worst_coarse[1], error, bound, what);
        }
    }
    assert!(snapshots.next().is_none(), "a snapshot beyond the last step");
    let [d, p] = worst_fine;
    let [type_d, type_p] = worst_coarse;
    println!(
        "{name:32} of the laws: f64 d {d:.2} p {p:.2}; in the type d {type_d:.2} p {type_p:.2}"
    );
    let grown = run.optimizer.d() > 1.5 * oracle.shared.d0 || !adapts(run.optimizer.algorithm());
    assert!(grown, "MISTRUSTED: {name}: d did not grow");
    let moved = |i: usize| distance(&master(&run, i), &initial(tensors[i].1)) > 0.0;
    assert!((0..tensors.len()).all(moved), "MISTRUSTED: {name}: nothing moved");
}

fn check_share(worst: &mut f64, error: f64, bound: f64, what: impl Fn() -> String) {
    assert!(error <= bound, "{} is off by {error:e}, bound {bound:e}", what());
    *worst = worst.max(if error == 0.0 { 0.0 } else { error / bound });
}
