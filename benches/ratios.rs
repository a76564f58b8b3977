//! A step against the memory and against plain kernels, interleaved: medians and quartiles.
//!
//! `cargo bench --bench ratios` prints one line a measurement. Absolute times drift on shared
//! machines; each ratio is taken run by run, within milliseconds of each other.

mod common;

use common::streams::{adam_plain, adam_sumless, read_gradient};
use common::{Case, coefficients};
use dadapt::{Algorithm, Config, DType, GroupId, NonFinite, Optimizer, StateOwner, TensorStep};
use std::time::Instant;

/// Whether the argument of the command line, if there is one, is part of a measurement's name.
fn wanted(name: &str, len: usize) -> bool {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    filter.is_none_or(|filter| format!("{name} {len}").contains(&filter))
}

/// Runs a candidate and a baseline in turn on the same memory.
fn compare(
    name: &str,
    bytes: usize,
    len: usize,
    case: &mut Case,
    candidate: impl Fn(&mut Case),
    baseline: impl Fn(&mut Case),
) {
    if !wanted(name, len) {
        return;
    }
    let repeats = (4_000_000 / len).max(1);
    let rounds = if len > 1_000_000 { 41 } else { 101 };
    let time = |case: &mut Case, run: &dyn Fn(&mut Case)| {
        let start = Instant::now();
        for _ in 0..repeats {
            run(case);
        }
        start.elapsed().as_secs_f64() * 1e9 / (repeats * len) as f64
    };
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (a, b) = (time(case, &candidate), time(case, &baseline));
        ratios.push(a / b);
        ours.push(a);
        theirs.push(b);
    }
    let quantile = |values: &mut Vec<f64>, q: f64| {
        values.sort_unstable_by(f64::total_cmp);
        values[(q * (values.len() - 1) as f64).round() as usize]
    };
    let median = |values: &mut Vec<f64>| quantile(values, 0.5);
    println!(
        "{name:52} {len:>9} {bytes:>4}  {:6.3} / {:6.3}  ratio {:.3} [{:.3}, {:.3}]",
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios),
        quantile(&mut ratios, 0.25),
        quantile(&mut ratios, 0.75),
    );
}

fn main() {
    println!(
        "{:52} {:>9} {:>4}  ns a parameter, medians; ratio: median [quartiles]",
        "", "len", "B"
    );
    let c = coefficients();
    let plain = |case: &mut Case| adam_plain(case.arrays(), &c);
    let sumless = |case: &mut Case| adam_sumless(case.arrays(), &c);
    let checked = |case: &mut Case| case.step_with(NonFinite::Reject);
    for len in [100_000, 1_000_000, 10_000_000] {
        for &algorithm in Algorithm::ALL {
            let name = format!("{algorithm} / memory");
            let bytes = Case::bytes(algorithm);
            if wanted(&name, len) {
                let mut case = Case::new(algorithm, len, 1, NonFinite::Propagate);
                compare(&name, bytes, len, &mut case, Case::step, Case::ceiling);
            }
        }
        if !wanted("adam plain", len) {
            continue;
        }
        let mut adam = Case::new(Algorithm::Adam, len, 1, NonFinite::Propagate);
        compare("adam / plain kernel", 36, len, &mut adam, Case::step, plain);
        compare("adam / plain kernel without sums", 36, len, &mut adam, Case::step, sumless);
        compare("adam plain kernel / memory", 36, len, &mut adam, plain, Case::ceiling);
        // No more than 1: the check costs what reading 4 bytes costs.
        compare(
            "adam, gradients checked / adam + one read of them",
            40,
            len,
            &mut adam,
            checked,
            |case| {
                case.step_with(NonFinite::Propagate);
                read_gradient(case.arrays(), &c);
            },
        );
    }
    rows();
}

/// AdaGrad of an embedding: only touched rows are paid for. Absolute, since nothing compares.
fn rows() {
    let (rows, width, touched) = (10_000_000, 16, 1_000);
    if !wanted("rows", rows) {
        return;
    }
    let mut optimizer =
        Optimizer::new(&Config::new(Algorithm::AdaGrad)).expect("defaults are fine");
    let owner = StateOwner::Library;
    let id = optimizer
        .add_rows(GroupId::FIRST, "embedding", DType::F32, rows, width, owner)
        .expect("memory is there");
    let mut table = vec![0.01f32; rows * width];
    let mut seed = 1u64;
    let mut draw = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((seed >> 33) % rows as u64) as u32
    };
    let values: Vec<f32> = (0..touched * width).map(|i| (i % 37) as f32 - 18.0).collect();
    let hot: Vec<Vec<u32>> = (0..500).map(|_| (0..touched).map(|_| draw()).collect()).collect();
    let mut pass = |what: &str| {
        let mut times: Vec<f64> = hot
            .iter()
            .map(|drawn| {
                let start = Instant::now();
                let step = TensorStep::rows(id, &mut table, drawn, &values);
                optimizer.step(&mut [step]).expect("nothing is wrong with the step");
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        let at = |q: f64| times[(q * (times.len() - 1) as f64) as usize];
        println!(
            "rows, 1,000 of 10,000,000 by 16, {what:24} ms a step: {:.3} [{:.3}, {:.3}], worst {:.3}",
            at(0.5),
            at(0.25),
            at(0.75),
            at(1.0)
        );
    };
    pass("touched for the first time");
    pass("touched before");
}
