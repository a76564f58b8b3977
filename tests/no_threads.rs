//! A system that gives no threads is an error of the step, and not a panic of the pool's.
//!
//! One test, in a program of its own: rayon's pool is made once in a program.
#![cfg(target_os = "linux")]

use dadapt::{
    Algorithm, Config, DType, Error, Executor, GroupId, Key, NonFinite, Optimizer, TensorStep,
};

#[derive(Debug)]
struct InTurn;

impl Executor for InTurn {
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(work);
    }
}

#[test]
fn a_pool_that_cannot_be_had_is_an_error() {
    const LEN: usize = 140_000;
    let mut config = Config::new(Algorithm::Adam);
    config.set(Key::NumThreads, 0).unwrap().set(Key::NonFinite, NonFinite::Propagate).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, LEN).unwrap();
    let (mut p, g) = (vec![1.0f32; LEN], vec![1.0f32; LEN]);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: libc::rlim_t = pages.split(' ').next().unwrap().parse().unwrap();
    // Too little for a thread's stack.
    let used = pages * 4096 + (1 << 20);
    let little = libc::rlimit { rlim_cur: used, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is whole; the limit is this program's alone.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &little) }, 0);
    // A small step asks for no thread, not even where it has all of rayon's; nor does an executor's.
    let mut small = Optimizer::new(&config).unwrap();
    let few = small.add_tensor(GroupId::FIRST, "few", DType::F32, 64).unwrap();
    small.step(&mut [TensorStep::new(few, &mut p.clone()[..64], &g[..64])]).unwrap();
    optimizer.set_executor(Some(Box::new(InTurn))).unwrap();
    optimizer.step(&mut [TensorStep::new(id, &mut p.clone(), &g)]).unwrap();
    optimizer.set_executor(None).unwrap();
    let k = optimizer.k();
    for _ in 0..2 {
        let error = optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap_err();
        assert!(matches!(error, Error::Threads { .. }), "{error}");
        assert!(p.iter().all(|p| *p == 1.0) && optimizer.k() == k);
    }
}
