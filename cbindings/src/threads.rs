//! Threads

use crate::handle::{Outcome, change, null};
use crate::optimizer::dadapt_optimizer;
use crate::status::dadapt_status;
use dadapt::Executor;
use std::ffi::{c_int, c_uint, c_void};

/// What a dadapt_executor calls: one share of the work, whose number is index.
pub type dadapt_work = unsafe extern "C" fn(work: *mut c_void, index: usize);

/// Calls call(work, index) once for each index below n, as many at once as it can, and returns when all
/// have returned: "#pragma omp parallel for schedule(static, 1)" over index, or what another pool has
/// for that. The calling thread should take part.
///
/// Only time depends on which calls are made, and where; those that are not are done for. An index that
/// is on the same thread in every step finds in its caches what it had there before.
pub type dadapt_executor = Option<
    unsafe extern "C" fn(context: *mut c_void, n: usize, call: dadapt_work, work: *mut c_void),
>;

/// Of an OpenMP runtime, GOMP_parallel: calls call(work) on so many threads, this one among them.
pub type dadapt_openmp_parallel = Option<
    unsafe extern "C" fn(
        call: unsafe extern "C" fn(work: *mut c_void),
        work: *mut c_void,
        threads: c_uint,
        flags: c_uint,
    ),
>;

/// Of an OpenMP runtime, omp_get_thread_num.
pub type dadapt_openmp_thread_num = Option<unsafe extern "C" fn() -> c_int>;

#[derive(Debug)]
struct Given {
    run: unsafe extern "C" fn(*mut c_void, usize, dadapt_work, *mut c_void),
    context: *mut c_void,
}

// SAFETY: `dadapt_optimizer_set_executor`'s contract: from any thread that steps, at once too.
unsafe impl Send for Given {}
// SAFETY: as above.
unsafe impl Sync for Given {}

impl Executor for Given {
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        unsafe extern "C" fn call(work: *mut c_void, index: usize) {
            // SAFETY: it is the reference below, which is there until `run` returns.
            let work = unsafe { *work.cast::<&(dyn Fn(usize) + Sync)>() };
            work(index);
        }
        let mut work = work;
        // SAFETY: `dadapt_optimizer_set_executor`'s contract.
        unsafe { (self.run)(self.context, n, call, (&raw mut work).cast()) }
    }
}

#[derive(Debug)]
struct OpenMp {
    parallel: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint),
    thread_num: unsafe extern "C" fn() -> c_int,
}

/// What the threads of a region get.
struct Region<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    thread_num: unsafe extern "C" fn() -> c_int,
}

impl Executor for OpenMp {
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        unsafe extern "C" fn call(region: *mut c_void) {
            // SAFETY: it is the one below, which is there until `run` returns, and only read.
            let region = unsafe { &*region.cast::<Region<'_>>() };
            // SAFETY: `dadapt_optimizer_set_openmp`'s contract.
            let thread = unsafe { (region.thread_num)() };
            (region.work)(usize::try_from(thread).unwrap_or(0));
        }
        let mut region = Region { work, thread_num: self.thread_num };
        let threads = c_uint::try_from(n).unwrap_or(c_uint::MAX);
        // SAFETY: `dadapt_optimizer_set_openmp`'s contract.
        unsafe { (self.parallel)(call, (&raw mut region).cast(), threads, 0) }
    }
}

/// Runs large steps on threads that the program has already, in place of a pool of the library's.
///
/// A pool whose threads spin between their tasks, as those of OpenMP do for some milliseconds, leaves no
/// processor to another: a step that comes right after its work is faster on that pool. num_threads
/// says into how many shares the work is cut, where it is not 1. Bits do not depend on it.
///
/// run: NULL goes back to threads of the library's. context: what it is called with. It is called in
///     the default floating-point environment, by any thread that steps, at once where several do.
///     A forked child does not call its parent's.
/// Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; run may be called with context until it is replaced
/// or the optimizer freed, does what dadapt_executor says, and makes no call after it has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_executor(
    optimizer: *mut dadapt_optimizer,
    run: dadapt_executor,
    context: *mut c_void,
) -> dadapt_status {
    let executor = run.map(|run| Box::new(Given { run, context }) as Box<dyn Executor>);
    // SAFETY: this function's contract.
    unsafe { set(optimizer, || Ok(executor)) }
}

/// Runs large steps on the threads of an OpenMP runtime, as dadapt_optimizer_set_executor does: for
/// bindings, which have its functions and no compiler for its pragmas. (GCC's libgomp has them, and so
/// have LLVM's and Intel's runtimes.)
///
/// parallel, thread_num: the runtime's GOMP_parallel and omp_get_thread_num.
/// Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; the functions are what they are said to be, and stay
/// loaded until they are replaced or the optimizer freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_openmp(
    optimizer: *mut dadapt_optimizer,
    parallel: dadapt_openmp_parallel,
    thread_num: dadapt_openmp_thread_num,
) -> dadapt_status {
    let executor = || {
        let parallel = parallel.ok_or_else(|| null("parallel"))?;
        let thread_num = thread_num.ok_or_else(|| null("thread_num"))?;
        Ok(Some(Box::new(OpenMp { parallel, thread_num }) as Box<dyn Executor>))
    };
    // SAFETY: this function's contract.
    unsafe { set(optimizer, executor) }
}

/// # Safety
/// `optimizer` is null or from `dadapt_optimizer_new`.
unsafe fn set(
    optimizer: *mut dadapt_optimizer,
    executor: impl FnOnce() -> Outcome<Option<Box<dyn Executor>>>,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| Ok(o.optimizer.set_executor(executor()?)?)) }
}
