//! Steps of every algorithm, beside the memory ceiling of the same streams.
//!
//! `cargo bench --bench step`. Throughput is in bytes: those that the step must move for a
//! parameter (state that is read and written counts twice), 4 more where gradients are checked.
//! Compare with the ceiling of the same run only; `make -C benches/c run` interleaves them, and
//! compares with plain C kernels.

mod common;

use common::Case;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dadapt::{Algorithm, NonFinite};

fn step(c: &mut Criterion) {
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
        time(Algorithm::Adam, 40, "step, gradients checked", 1, &checked);
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
