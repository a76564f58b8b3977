//! One piece of work on several threads of a pool, whose caller waits for none that comes late.
//!
//! A thread that sleeps takes tens of microseconds to come, in a virtual machine more: as long as a
//! whole step in cache. So the caller does what it can alone, and when there is nothing left to begin
//! it closes the call. Who comes then goes away again; who is at work is waited for. (A scope of rayon's
//! ends when all have come, and its caller sleeps until then.)

use crate::kernel::fp_env::FpEnv;
use rayon::ThreadPool;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::{hint, mem};

/// Nobody may begin any more.
const CLOSED: usize = 1;
/// The caller sleeps, and is to be woken by the last to leave.
const SLEEPS: usize = 2;
/// One helper at work.
const HELPER: usize = 4;
/// How often the caller looks before it sleeps: for as long as waking it would take, or so.
const LOOKS: usize = 1000;

/// What a caller and its helpers share.
pub(super) struct Call {
    /// [`CLOSED`], [`SLEEPS`] and so many [`HELPER`]s.
    state: AtomicUsize,
    /// The caller's, who stays until the call is closed and all helpers have left.
    work: *const (dyn Fn() + Sync),
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` may be called from any thread, and `help` alone does that, while it is there.
unsafe impl Send for Call {}
// SAFETY: as above; all else is of types that may be shared.
unsafe impl Sync for Call {}

impl Call {
    /// Runs `work` on this thread and on up to so many others of a pool, by default rayon's current one,
    /// each in the default floating-point environment. It must be such that any number of runs do it.
    ///
    /// # Panics
    /// Where one has panicked, and after all that had begun have ended.
    pub(super) fn run(pool: Option<&ThreadPool>, helpers: usize, work: &(dyn Fn() + Sync)) {
        // SAFETY: the lifetime alone is another. `help` calls it between joining and leaving, and before
        // this function ends, by a panic too, `Closing` has closed the call and all have left.
        let work_of_any_time =
            unsafe { mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(work) };
        let call = Arc::new(Call {
            state: AtomicUsize::new(0),
            work: work_of_any_time,
            caller: thread::current(),
            panic: Mutex::new(None),
        });
        let closing = Closing(&call);
        for _ in 0..helpers {
            let call = Arc::clone(&call);
            let help = move || call.help();
            match pool {
                None => rayon::spawn(help),
                Some(pool) => pool.spawn(help),
            }
        }
        work();
        drop(closing);
        let panic = call.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn help(&self) {
        let join = |state| (state & CLOSED == 0).then_some(state + HELPER);
        if self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, join).is_err() {
            return;
        }
        // SAFETY: the call was open when this thread joined, so that its caller waits for it to leave.
        let work = unsafe { &*self.work };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _env = FpEnv::set_default();
            work();
        }));
        if let Err(panic) = outcome {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        if self.state.fetch_sub(HELPER, Ordering::Release) - HELPER == CLOSED | SLEEPS {
            self.caller.unpark();
        }
    }
}

/// Closes a call and waits for those at work, however its caller ends.
struct Closing<'a>(&'a Call);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.fetch_or(CLOSED, Ordering::Relaxed);
        for _ in 0..LOOKS {
            if state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            hint::spin_loop();
        }
        let mut found = state.fetch_or(SLEEPS, Ordering::Acquire);
        while found & !SLEEPS != CLOSED {
            thread::park();
            found = state.load(Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::ThreadPoolBuilder;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::time::Duration;

    fn pool(threads: usize) -> ThreadPool {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn helpers_that_come_late_are_not_waited_for() {
        let pool = pool(1);
        let (release, wait) = mpsc::channel::<()>();
        // The only thread is busy until the call is over.
        pool.spawn(move || wait.recv().unwrap());
        let runs = AtomicUsize::new(0);
        Call::run(Some(&pool), 3, &|| _ = runs.fetch_add(1, Ordering::Relaxed));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        release.send(()).unwrap();
        // What it finds then does not touch what is gone.
        pool.install(|| ());
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn helpers_at_work_are_waited_for() {
        let (pool, caller) = (pool(1), thread::current().id());
        for wait in [0, 30] {
            let (began, ended) = (AtomicBool::new(false), AtomicBool::new(false));
            Call::run(Some(&pool), 1, &|| {
                if thread::current().id() == caller {
                    while !began.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                } else {
                    began.store(true, Ordering::Release);
                    thread::sleep(Duration::from_millis(wait));
                    ended.store(true, Ordering::Relaxed);
                }
            });
            assert!(ended.into_inner());
        }
    }

    #[test]
    fn a_panic_of_either_is_the_callers() {
        let (pool, caller) = (pool(1), thread::current().id());
        for of_helper in [true, false] {
            let (began, done) = (AtomicBool::new(false), AtomicBool::new(false));
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                Call::run(Some(&pool), 1, &|| {
                    let is_helper = thread::current().id() != caller;
                    if is_helper {
                        began.store(true, Ordering::Release);
                    }
                    while !began.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                    assert!(is_helper != of_helper, "as it should");
                    done.store(true, Ordering::Relaxed);
                });
            }));
            let panic = outcome.unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it should"));
            assert!(done.into_inner());
        }
    }
}
