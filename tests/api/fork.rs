//! Steps in forked children, which have one thread whatever their parent had.

use crate::run::Run;
use dadapt::{Algorithm, Config, Error, Executor, Key};

const LEN: usize = 140_000;

fn run(threads: u32) -> Run<f32> {
    let mut config = Config::new(Algorithm::Adam);
    config.set(Key::NumThreads, threads).unwrap().set(Key::D0, 1e-3).unwrap();
    let mut run = Run::new(&config);
    run.add(0, (0..LEN).map(|i| (i % 7) as f32).collect());
    run
}

fn gradient() -> Vec<f32> {
    (0..LEN).map(|i| (i % 13) as f32 - 4.0).collect()
}

/// Runs `f` in a child; whether it returned true within half a minute.
fn in_child(f: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `f` and leaves by _exit, without running anything of the parent's.
    // What `f` needs of the system, allocation and threads, Linux and macOS provide after a fork.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork failed");
        if child == 0 {
            libc::alarm(30);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(false);
            libc::_exit(if done { 0 } else { 1 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

#[test]
fn child_steps_as_its_parent_would_have() {
    for threads in [1, 2, 3] {
        let mut parent = run(threads);
        let g = gradient();
        // The parent's pool is there and idle when the child is made.
        parent.step(&[Some(&g)]).unwrap();
        let mut twin = run(threads);
        twin.step(&[Some(&g)]).unwrap();
        twin.step(&[Some(&g)]).unwrap();
        let expected = twin.bits();
        let same = in_child(|| {
            parent.step(&[Some(&g)]).unwrap();
            // The pool is the child's own from here on.
            parent.bits() == expected && parent.step(&[Some(&g)]).is_ok()
        });
        assert!(same, "{threads} threads: the child hung or strayed");
        parent.step(&[Some(&g)]).unwrap();
        assert_eq!(parent.bits(), expected, "{threads} threads: the parent");
    }
}

/// Does its work in the process that made it only, as a pool of threads would.
#[derive(Debug)]
struct OfProcess(u32);

impl Executor for OfProcess {
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        assert_eq!(std::process::id(), self.0, "a child cannot wait for its parent's threads");
        (0..n).for_each(work);
    }
}

impl Drop for OfProcess {
    fn drop(&mut self) {
        assert_eq!(std::process::id(), self.0, "a child cannot end its parent's threads");
    }
}

#[test]
fn child_does_not_use_its_parents_executor() {
    let mut parent = run(2);
    let executor = OfProcess(std::process::id());
    parent.optimizer.set_executor(Some(Box::new(executor))).unwrap();
    let g = gradient();
    parent.step(&[Some(&g)]).unwrap();
    let mut twin = run(2);
    twin.step(&[Some(&g)]).unwrap();
    twin.step(&[Some(&g)]).unwrap();
    let expected = twin.bits();
    let same = in_child(|| {
        parent.step(&[Some(&g)]).is_ok()
            && parent.bits() == expected
            && parent.optimizer.set_executor(None).is_ok()
    });
    assert!(same, "the child used or dropped the executor, or strayed");
}

#[test]
fn threads_that_cannot_be_had_are_an_error() {
    let refused = in_child(|| {
        let mut run = run(4096);
        let g = gradient();
        let before = run.bits();
        // Beside what is in use, of which tests that run at once have different amounts.
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = pages.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let room = 4096 * pages + (1 << 30);
        let few = libc::rlimit { rlim_cur: room, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the struct is whole; the limit is this process's alone, which ends soon.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &few) }, 0);
        let Err(error) = run.step(&[Some(&g)]) else { return false };
        // The threads that were had may still be ending, and leave no room for what follows.
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, ..few };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &all) }, 0);
        let message = error.to_string();
        matches!(error, Error::Threads { threads: 4096, .. })
            && message.contains("4096 threads")
            && run.bits() == before
    });
    assert!(refused);
}
