//! Steps of every algorithm, beside the memory ceiling of the same streams and a plain kernel.
//!
//! `cargo bench --bench step`. Throughput is in bytes: those that the step must move for a
//! parameter (state that is read and written counts twice), 4 more where gradients are checked.
//! Compare with the ceiling of the same run only; `cargo bench --bench ratios` interleaves them.

mod common;

use common::streams::{adam_plain, adam_sumless, read_gradient};
use common::{Case, coefficients};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dadapt::{Algorithm, NonFinite};

fn step(c: &mut Criterion) {
    let plain = |case: &mut Case| adam_plain(case.arrays(), &coefficients());
    let sumless = |case: &mut Case| adam_sumless(case.arrays(), &coefficients());
    for len in [100_000, 1_000_000, 10_000_000] {
        let mut group = c.benchmark_group(format!("f32/{len}"));
        group.sample_size(20);
        let mut time =
            |algorithm: Algorithm, bytes: usize, name: &str, threads, run: &dyn Fn(&mut Case)| {
                group.throughput(Throughput::Bytes((bytes * len) as u64));
                let mut case = Case::new(algorithm, len, threads, NonFinite::Propagate);
                let id = BenchmarkId::new(algorithm.name(), name);
                group.bench_function(id, |b| b.iter(|| run(&mut case)));
            };
        for &algorithm in Algorithm::ALL {
            let bytes = Case::bytes(algorithm);
            time(algorithm, bytes, "step", 1, &Case::step);
            time(algorithm, bytes, "memory ceiling", 1, &Case::ceiling);
            time(algorithm, bytes, "step, 2 threads", 2, &Case::step);
        }
        let checked = |case: &mut Case| case.step_with(NonFinite::Reject);
        let read = |case: &mut Case| read_gradient(case.arrays(), &coefficients());
        time(Algorithm::Adam, 40, "step, gradients checked", 1, &checked);
        time(Algorithm::Adam, 36, "plain kernel", 1, &plain);
        time(Algorithm::Adam, 36, "plain kernel without sums", 1, &sumless);
        time(Algorithm::Adam, 4, "one read of the gradients", 1, &read);
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
