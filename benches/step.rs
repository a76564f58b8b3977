//! Steps of every algorithm, beside the memory ceiling of the same streams and a plain kernel.
//!
//! `cargo bench --bench step`. Throughput is in bytes: those that the step must move for a
//! parameter (state that is read and written counts twice), 4 more where gradients are checked.
//! Compare with the ceiling of the same run only; `cargo bench --bench ratios` interleaves them.

mod common;

use common::streams::{adam_ceiling, adam_plain, adam_sumless, read_gradient, sgd_ceiling};
use common::{Case, coefficients};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dadapt::{Algorithm, NonFinite};

/// Something timed over the arrays of a step, by name.
type Run = (&'static str, fn(&mut Case));

fn step(c: &mut Criterion) {
    let adam: [Run; 4] = [
        ("step", Case::step),
        ("memory ceiling", |case| adam_ceiling(case.arrays(), &coefficients())),
        ("plain kernel", |case| adam_plain(case.arrays(), &coefficients())),
        ("plain kernel without sums", |case| adam_sumless(case.arrays(), &coefficients())),
    ];
    let sgd: [Run; 2] = [
        ("step", Case::step),
        ("memory ceiling", |case| sgd_ceiling(case.arrays(), &coefficients())),
    ];
    for len in [100_000, 1_000_000, 10_000_000] {
        let mut group = c.benchmark_group(format!("f32/{len}/1 thread"));
        group.sample_size(20);
        let cases: [(Algorithm, u64, &[Run]); 2] =
            [(Algorithm::Adam, 36, &adam), (Algorithm::Sgd, 24, &sgd)];
        for (algorithm, bytes, runs) in cases {
            group.throughput(Throughput::Bytes(bytes * len as u64));
            for (name, run) in runs {
                let mut case = Case::new(algorithm, len, 1, NonFinite::Propagate);
                let id = BenchmarkId::new(algorithm.name(), name);
                group.bench_function(id, |b| b.iter(|| run(&mut case)));
            }
            group.throughput(Throughput::Bytes((bytes + 4) * len as u64));
            let mut case = Case::new(algorithm, len, 1, NonFinite::Propagate);
            let id = BenchmarkId::new(algorithm.name(), "step, gradients checked");
            group.bench_function(id, |b| b.iter(|| case.step_with(NonFinite::Reject)));
        }
        group.throughput(Throughput::Bytes(4 * len as u64));
        let mut case = Case::new(Algorithm::Adam, len, 1, NonFinite::Propagate);
        group.bench_function("one read of the gradients", |b| {
            b.iter(|| read_gradient(case.arrays(), &coefficients()));
        });
        group.finish();

        let mut group = c.benchmark_group(format!("f32/{len}/2 threads"));
        group.sample_size(20);
        for (algorithm, bytes, _) in cases {
            group.throughput(Throughput::Bytes(bytes * len as u64));
            let mut case = Case::new(algorithm, len, 2, NonFinite::Propagate);
            group.bench_function(algorithm.name(), |b| b.iter(|| case.step()));
        }
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
