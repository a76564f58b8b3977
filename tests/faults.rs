//! Panics in a step, injected: `cargo test --features fault-injection --test faults`.

use dadapt::{
    Algorithm, Config, DType, Error, Fault, GroupId, Key, Optimizer, TensorId, TensorStep,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

const LEN: usize = 140_000;

fn optimizer(algorithm: Algorithm, threads: u32) -> (Optimizer, TensorId) {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, threads).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let tensor = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, LEN).unwrap();
    (optimizer, tensor)
}

fn step(optimizer: &mut Optimizer, tensor: TensorId, p: &mut [f32]) -> Result<(), Error> {
    let g = vec![0.5f32; LEN];
    optimizer.step(&mut [TensorStep::new(tensor, p, &g)]).map(|_| ())
}

#[test]
fn panic_in_the_sweep_poisons() {
    for &algorithm in Algorithm::ALL {
        for threads in [1, 3] {
            let (mut optimizer, tensor) = optimizer(algorithm, threads);
            let mut p = vec![1.0f32; LEN];
            step(&mut optimizer, tensor, &mut p).unwrap();
            optimizer.inject(Fault::InSweep);
            let call = AssertUnwindSafe(|| step(&mut optimizer, tensor, &mut p));
            assert!(catch_unwind(call).is_err(), "nothing panicked");
            let after = p.clone();
            for _ in 0..2 {
                let error = step(&mut optimizer, tensor, &mut p).unwrap_err();
                assert_eq!(error, Error::Poisoned, "{algorithm} {threads}");
                assert!(error.to_string().contains("dropped"));
                assert_eq!(p, after);
            }
        }
    }
}

#[test]
fn panic_before_the_sweep_changes_nothing() {
    for &algorithm in Algorithm::ALL {
        let (mut spoilt, tensor) = optimizer(algorithm, 2);
        let (mut plain, same) = optimizer(algorithm, 2);
        let (mut p, mut q) = (vec![1.0f32; LEN], vec![1.0f32; LEN]);
        for fault in [None, Some(Fault::BeforeSweep), None] {
            if let Some(fault) = fault {
                spoilt.inject(fault);
                let call = AssertUnwindSafe(|| step(&mut spoilt, tensor, &mut p));
                assert!(catch_unwind(call).is_err(), "nothing panicked");
            }
            step(&mut spoilt, tensor, &mut p).unwrap();
            step(&mut plain, same, &mut q).unwrap();
            assert_eq!((&p, spoilt.k(), spoilt.d()), (&q, plain.k(), plain.d()), "{algorithm}");
        }
    }
}
