//! A step against the memory and against plain kernels, interleaved: medians and quartiles.
//!
//! `cargo bench --bench ratios` prints one line a measurement. Absolute times drift on shared
//! machines; each ratio is taken run by run, within milliseconds of each other.

mod common;

use common::streams::{adam_ceiling, adam_plain, sgd_ceiling};
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
        "{name:44} {len:>9} {bytes:>3} B  {:6.3} ns vs {:6.3} ns  ratio {:.3} [{:.3}, {:.3}]",
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios),
        quantile(&mut ratios, 0.25),
        quantile(&mut ratios, 0.75),
    );
}

fn main() {
    let c = coefficients();
    println!("{:44} {:>9} {:>5}  per parameter, median; ratio: median [quartiles]", "", "len", "");
    for len in [100_000, 1_000_000, 10_000_000] {
        for (threads, label) in [(1, "1 thread"), (2, "2 threads")] {
            let mut adam = Case::new(Algorithm::Adam, len, threads, NonFinite::Propagate);
            if threads == 1 {
                compare(
                    &format!("adam / memory, {label}"),
                    36,
                    len,
                    &mut adam,
                    Case::step,
                    |case| {
                        adam_ceiling(case.arrays(), &c);
                    },
                );
                compare(
                    &format!("adam / plain kernel, {label}"),
                    36,
                    len,
                    &mut adam,
                    Case::step,
                    |case| {
                        adam_plain(case.arrays(), &c);
                    },
                );
                compare(
                    &format!("plain kernel / memory, {label}"),
                    36,
                    len,
                    &mut adam,
                    |case| adam_plain(case.arrays(), &c),
                    |case| {
                        adam_ceiling(case.arrays(), &c);
                    },
                );
            }
            let mut checked = Case::new(Algorithm::Adam, len, threads, NonFinite::Reject);
            let mut sgd = Case::new(Algorithm::Sgd, len, threads, NonFinite::Propagate);
            if threads == 1 {
                compare(
                    &format!("adam, non-finite check on / memory, {label}"),
                    40,
                    len,
                    &mut checked,
                    Case::step,
                    |case| {
                        adam_ceiling(case.arrays(), &c);
                    },
                );
                compare(&format!("sgd / memory, {label}"), 24, len, &mut sgd, Case::step, |case| {
                    sgd_ceiling(case.arrays(), &c);
                });
            }
        }
    }
}
