//! What every exported function goes through: pointers checked, panics caught, the floating-point
//! environment set, the text of errors kept.

use crate::status::{
    DADAPT_ERROR_INTERNAL, DADAPT_ERROR_INVALID_UTF8, DADAPT_ERROR_NULL_POINTER,
    DADAPT_ERROR_POISONED, DADAPT_OK, Failure, dadapt_status,
};
use dadapt::FpEnv;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// What a handle remembers of failures.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    poisoned: AtomicBool,
    /// Behind a lock, so that calls that only read the handle can fail on several threads.
    error: Mutex<CString>,
}

impl Fate {
    pub(crate) fn last_error(&self) -> *const c_char {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).as_ptr()
    }

    fn record(&self, text: CString) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn refuse_poisoned(&self) -> Outcome {
        if !self.poisoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        let detail =
            "an earlier call failed inside the library; this handle can only be read and freed";
        Err(Failure::new(DADAPT_ERROR_POISONED, detail))
    }
}

/// Something that C holds by an opaque pointer.
pub(crate) trait Object {
    /// The name of the argument, for messages.
    const ARGUMENT: &'static str;
    fn fate(&self) -> &Fate;
}

/// A call without a handle.
pub(crate) fn guard(work: impl FnOnce() -> Outcome) -> dadapt_status {
    finish(None, run(work))
}

/// A call that changes what a handle holds.
///
/// # Safety
/// `handle` is null or points to an `H` that nobody else uses during the call.
pub(crate) unsafe fn change<H: Object>(
    handle: *mut H,
    work: impl FnOnce(&mut H) -> Outcome,
) -> dadapt_status {
    // SAFETY: this function's contract.
    let Some(handle) = (unsafe { handle.as_mut() }) else { return null_handle::<H>() };
    let outcome = handle.fate().refuse_poisoned().and_then(|()| run(|| work(handle)));
    finish(Some(handle.fate()), outcome)
}

/// A call that several threads may make at once although it changes something: `work` sees to that.
///
/// # Safety
/// `handle` is null or points to an `H` that nobody has to himself during the call.
pub(crate) unsafe fn share<H: Object>(
    handle: *const H,
    work: impl FnOnce(&H) -> Outcome,
) -> dadapt_status {
    // SAFETY: this function's contract.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return null_handle::<H>() };
    let outcome = handle.fate().refuse_poisoned().and_then(|()| run(|| work(handle)));
    finish(Some(handle.fate()), outcome)
}

/// A call that only reads; a poisoned handle allows it.
///
/// # Safety
/// `handle` is null or points to an `H` that nobody changes during the call.
pub(crate) unsafe fn read<H: Object>(
    handle: *const H,
    work: impl FnOnce(&H) -> Outcome,
) -> dadapt_status {
    // SAFETY: this function's contract.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return null_handle::<H>() };
    let outcome = run(|| work(handle));
    finish(Some(handle.fate()), outcome)
}

/// As [`read`], of what cannot be had from a shared reference.
///
/// # Safety
/// As [`change`].
pub(crate) unsafe fn read_exclusive<H: Object>(
    handle: *mut H,
    work: impl FnOnce(&mut H) -> Outcome,
) -> dadapt_status {
    // SAFETY: this function's contract.
    let Some(handle) = (unsafe { handle.as_mut() }) else { return null_handle::<H>() };
    let outcome = run(|| work(handle));
    finish(Some(handle.fate()), outcome)
}

/// Frees what `Box::into_raw` gave; null is fine.
///
/// # Safety
/// `handle` is null or from `Box::into_raw`, and not used again.
pub(crate) unsafe fn free<H>(handle: *mut H) {
    if handle.is_null() {
        return;
    }
    let outcome = run(|| {
        // SAFETY: this function's contract.
        drop(unsafe { Box::from_raw(handle) });
        Ok(())
    });
    finish(None, outcome);
}

fn null_handle<H: Object>() -> dadapt_status {
    finish(None, Err(null(H::ARGUMENT)))
}

pub(crate) fn null(argument: &str) -> Failure {
    Failure::new(DADAPT_ERROR_NULL_POINTER, format!("{argument} is NULL"))
}

/// Runs it in the default floating-point environment (comparing a NaN is a trap where the caller
/// unmasked that) and turns a panic into a failure.
fn run<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    // Not inlined: no float operation may move out of the environment.
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        work()
    }
    let env = FpEnv::set_default();
    let outcome = catch_unwind(AssertUnwindSafe(|| apart(work)));
    drop(env);
    outcome.unwrap_or_else(|panic| {
        let detail = format!("internal error, please report it: {}", panic_text(&*panic));
        Err(Failure::new(DADAPT_ERROR_INTERNAL, detail))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

/// The status of an outcome, whose text is kept by the handle and by the thread.
fn finish(fate: Option<&Fate>, outcome: Outcome) -> dadapt_status {
    let Err(Failure { status, detail }) = outcome else { return DADAPT_OK };
    let mut text = detail.into_bytes();
    text.retain(|byte| *byte != 0);
    let text = CString::new(text).unwrap_or_default();
    if let Some(fate) = fate {
        if status == DADAPT_ERROR_INTERNAL {
            fate.poisoned.store(true, Ordering::Relaxed);
        }
        fate.record(text.clone());
    }
    // A thread that is being torn down has nowhere to keep it.
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
    status
}

/// The text of this thread's last failure.
pub(crate) fn thread_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// A place for a result, or an error for null.
///
/// # Safety
/// `to` is null or may be written, by nobody else, for `'a`.
pub(crate) unsafe fn out<'a, T>(to: *mut T, argument: &str) -> Outcome<&'a mut MaybeUninit<T>> {
    // SAFETY: this function's contract; `MaybeUninit` asks for no value.
    unsafe { to.cast::<MaybeUninit<T>>().as_mut() }.ok_or_else(|| null(argument))
}

/// As [`out`], where null means that the result is not wanted.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn write_if_wanted<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: this function's contract.
        unsafe { to.write(value) };
    }
}

/// A string of the caller's.
///
/// # Safety
/// `text` is null or a C string that nobody changes for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, argument: &str) -> Outcome<&'a str> {
    if text.is_null() {
        return Err(null(argument));
    }
    // SAFETY: this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    let invalid = |_| Failure::new(DADAPT_ERROR_INVALID_UTF8, format!("{argument} is not UTF-8"));
    text.to_str().map_err(invalid)
}
