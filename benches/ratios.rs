//! A step against the memory and against plain kernels, interleaved: medians and quartiles.
//!
//! `cargo bench --bench ratios` prints one line a measurement. Absolute times drift on shared
//! machines; each ratio is taken run by run, within milliseconds of each other.

mod common;

use common::streams::{adam_ceiling, adam_plain, adam_sumless, read_gradient, sgd_ceiling};
use common::{Case, coefficients};
use dadapt::{Algorithm, NonFinite};
use std::time::Instant;

/// Runs a candidate and a baseline in turn on the same memory.
fn compare(
    name: &str,
    bytes: usize,
    len: usize,
    case: &mut Case,
    candidate: impl Fn(&mut Case),
    baseline: impl Fn(&mut Case),
) {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if filter.is_some_and(|filter| !format!("{name} {len}").contains(&filter)) {
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
    let memory = |case: &mut Case| adam_ceiling(case.arrays(), &c);
    let plain = |case: &mut Case| adam_plain(case.arrays(), &c);
    let sumless = |case: &mut Case| adam_sumless(case.arrays(), &c);
    let sgd_memory = |case: &mut Case| sgd_ceiling(case.arrays(), &c);
    let checked = |case: &mut Case| case.step_with(NonFinite::Reject);
    for len in [100_000, 1_000_000, 10_000_000] {
        let case = |algorithm, threads, policy| Case::new(algorithm, len, threads, policy);
        let mut adam = case(Algorithm::Adam, 1, NonFinite::Propagate);
        compare("adam / memory", 36, len, &mut adam, Case::step, memory);
        compare("adam / plain kernel", 36, len, &mut adam, Case::step, plain);
        compare("adam / plain kernel without sums", 36, len, &mut adam, Case::step, sumless);
        compare("plain kernel / memory", 36, len, &mut adam, plain, memory);
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
        let mut sgd = case(Algorithm::Sgd, 1, NonFinite::Propagate);
        compare("sgd / memory", 24, len, &mut sgd, Case::step, sgd_memory);
    }
}
