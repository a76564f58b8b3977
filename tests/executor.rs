//! Steps on a program's own threads, whichever of their work those do.

#[path = "common/run.rs"]
mod run;

use dadapt::{Algorithm, Config, Error, Executor, Key};
use run::Run;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LEN: usize = 300_001;

/// Steps that run at once share the threads of one: each test counts its own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(algorithm: Algorithm, threads: u32) -> Run<f32> {
    let mut config = Config::new(algorithm);
    config.set(Key::NumThreads, threads).unwrap().set(Key::D0, 1e-3).unwrap();
    let mut run = Run::new(&config);
    run.add(0, (0..LEN).map(|i| (i % 7) as f32 - 2.0).collect());
    run
}

fn gradient(step: usize) -> Vec<f32> {
    (0..LEN).map(|i| ((i + step) % 13) as f32 - 4.0).collect()
}

fn step(run: &mut Run<f32>, count: usize) {
    for i in 0..count {
        run.step(&[Some(&gradient(i))]).unwrap();
    }
}

/// How an executor does its work.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Threads,
    InTurn,
    Backwards,
    Never,
    OnlyTheLast,
    TwiceAndTooMany,
}

#[derive(Debug)]
struct Pool {
    manner: Manner,
    runs: Arc<AtomicUsize>,
    shares: usize,
}

impl Executor for Pool {
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        assert_eq!(n, self.shares);
        self.runs.fetch_add(1, Ordering::Relaxed);
        match self.manner {
            Manner::Threads => std::thread::scope(|scope| {
                (0..n).for_each(|index| _ = scope.spawn(move || work(index)));
            }),
            Manner::InTurn => (0..n).for_each(work),
            Manner::Backwards => (0..n).rev().for_each(work),
            Manner::Never => (),
            Manner::OnlyTheLast => work(n - 1),
            Manner::TwiceAndTooMany => (0..2 * n).chain([usize::MAX]).for_each(work),
        }
    }
}

fn with_pool(algorithm: Algorithm, threads: u32, manner: Manner) -> (Run<f32>, Arc<AtomicUsize>) {
    let (mut run, runs) = (run(algorithm, threads), Arc::new(AtomicUsize::new(0)));
    let pool = Pool { manner, runs: Arc::clone(&runs), shares: threads as usize };
    run.optimizer.set_executor(Some(Box::new(pool))).unwrap();
    (run, runs)
}

#[test]
fn bits_are_those_of_own_threads_however_it_does_its_work() {
    let _alone = alone();
    for algorithm in [Algorithm::Adam, Algorithm::Sgd, Algorithm::Prodigy] {
        let mut alone = run(algorithm, 1);
        step(&mut alone, 3);
        for manner in [
            Manner::Threads,
            Manner::InTurn,
            Manner::Backwards,
            Manner::Never,
            Manner::OnlyTheLast,
            Manner::TwiceAndTooMany,
        ] {
            let (mut given, runs) = with_pool(algorithm, 3, manner);
            step(&mut given, 3);
            assert_eq!(given.bits(), alone.bits(), "{algorithm:?} {manner:?}");
            // The scan of gradients and the sweep, at the least.
            assert!(runs.load(Ordering::Relaxed) >= 6, "{algorithm:?} {manner:?}");
        }
    }
}

#[test]
fn one_thread_or_none_given_is_not_asked() {
    let _alone = alone();
    let (mut single, runs) = with_pool(Algorithm::Adam, 1, Manner::Threads);
    step(&mut single, 1);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    let (mut taken, runs) = with_pool(Algorithm::Adam, 2, Manner::InTurn);
    step(&mut taken, 1);
    let before = runs.load(Ordering::Relaxed);
    taken.optimizer.set_executor(None).unwrap();
    step(&mut taken, 1);
    assert_eq!((runs.load(Ordering::Relaxed), Arc::strong_count(&runs)), (before, 1));
}

#[test]
fn executor_is_not_changed_within_a_step_in_parts() {
    let _alone = alone();
    let (mut run, _) = with_pool(Algorithm::Adam, 2, Manner::InTurn);
    let parts = run.optimizer.step_begin().unwrap();
    std::mem::forget(parts);
    let refused = run.optimizer.set_executor(None).unwrap_err();
    assert!(matches!(refused, Error::StepOpen), "{refused}");
}

#[derive(Debug)]
struct Panics;

impl Executor for Panics {
    fn run(&self, _: usize, work: &(dyn Fn(usize) + Sync)) {
        work(0);
        panic!("as it should");
    }
}

#[test]
fn panic_of_an_executor_is_the_callers() {
    let _alone = alone();
    let mut run = run(Algorithm::Adam, 2);
    run.optimizer.set_executor(Some(Box::new(Panics))).unwrap();
    let g = gradient(0);
    let panic = catch_unwind(AssertUnwindSafe(|| run.step(&[Some(&g)]))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it should"));
}
