//! Step

use crate::algorithm::dadapt_dtype;
use crate::config::dadapt_group;
use crate::handle::{change, null, read};
use crate::names::{MOVEMENTS, c_name};
use crate::optimizer::{dadapt_log_callback, dadapt_optimizer};
use crate::status::dadapt_status;
use crate::structs::{Descriptors, ReportTo};
use dadapt::{GroupId, Optimizer, StepReport};
use std::ffi::{CString, c_char, c_void};
use std::mem::size_of;
use std::ptr;

/// What became of d in a step.
pub type dadapt_movement = i32;

/// d grew to d_hat.
pub const DADAPT_MOVEMENT_GREW: dadapt_movement = 1;
/// d grew by growth_rate, and d_hat is above that.
pub const DADAPT_MOVEMENT_GROWTH_LIMITED: dadapt_movement = 2;
/// d_hat is not above d, which never falls.
pub const DADAPT_MOVEMENT_NOT_ABOVE: dadapt_movement = 3;
/// No gradient with a value other than 0, or none at all: nothing changed. (Where the sum that
/// divides became 0 by underflow or cancellation, the parameters did take their step.)
pub const DADAPT_MOVEMENT_NO_PROGRESS: dadapt_movement = 4;
/// Every group's lr is 0: nothing changed.
pub const DADAPT_MOVEMENT_LR_ZERO: dadapt_movement = 5;
/// A gradient was not finite and such steps are skipped, or a sum was not finite, which leaves d as
/// it was.
pub const DADAPT_MOVEMENT_NON_FINITE: dadapt_movement = 6;
/// d_hat is above d_cap: d grew to the cap, or stays above one that was set lower since.
pub const DADAPT_MOVEMENT_CAPPED: dadapt_movement = 7;
/// Nothing is estimated: the algorithm is a plain one, or the optimizer is frozen.
pub const DADAPT_MOVEMENT_FIXED: dadapt_movement = 8;

/// In what order a step went over the memory. Prodigy alone has a choice, since its parameters move
/// by the new d; all orders agree to within roundings.
pub type dadapt_sweeps = i32;

/// None: nothing was updated.
pub const DADAPT_SWEEPS_NONE: dadapt_sweeps = 0;
/// One sweep did all.
pub const DADAPT_SWEEPS_ONE: dadapt_sweeps = 1;
/// One sweep with the old d, and a second to mend the parameters, since d changed.
pub const DADAPT_SWEEPS_MENDED: dadapt_sweeps = 2;
/// One sweep for sums and state, and a second that moves the parameters: while d is d0, after a
/// step that changed d, and always where Prodigy's beta1 is 0.
pub const DADAPT_SWEEPS_TWO: dadapt_sweeps = 3;

/// One tensor of a step. Fill it with zeros first (memset, or = {0}): zero means default, and what
/// later versions add is then as it should be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dadapt_tensor {
    /// sizeof(dadapt_tensor), the same in all elements of an array.
    pub struct_size: usize,
    /// The tensor, by the id that it was registered with.
    pub id: u64,
    /// Its elements, as many as registered.
    pub len: usize,
    /// Its element type as registered; 0 where that need not be checked.
    pub dtype: dadapt_dtype,
    /// The element type of g, where it is not the tensor's: F32, BF16 and F16 go with one another.
    /// Else 0.
    pub g_dtype: dadapt_dtype,
    /// Parameters, in and out. May be NULL if len is 0.
    pub p: *mut c_void,
    /// Gradient, only read. NULL: absent, and the tensor is left as it is.
    pub g: *const c_void,
    /// Where the caller keeps the state: state_count arrays, in and out, of the types that
    /// dadapt_optimizer_state_info says and as large as dadapt_optimizer_state_bytes says; one of
    /// 0 bytes may be NULL. Else NULL.
    pub state: *const *mut c_void,
    /// How many: dadapt_optimizer_state_count. 0 where the library keeps the state.
    pub state_count: usize,
    /// Of a table: the numbers of the rows that g has gradients of, side by side in their order, of
    /// type row_type. A row may come several times; its gradients are then summed first, in that
    /// order. Else NULL.
    pub rows: *const c_void,
    /// How many; g has as many rows.
    pub row_count: usize,
    /// DADAPT_INDEX_U32 or DADAPT_INDEX_I64 of a table, also where row_count is 0; else 0.
    pub row_type: dadapt_index,
    /// 0.
    pub reserved: i32,
}

/// The type of the numbers of rows.
pub type dadapt_index = i32;

/// uint32_t.
pub const DADAPT_INDEX_U32: dadapt_index = 1;
/// int64_t. Negative numbers are an error.
pub const DADAPT_INDEX_I64: dadapt_index = 2;

/// What a step did. Set struct_size before the step; the rest is written by it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dadapt_report {
    /// sizeof(dadapt_report).
    pub struct_size: usize,
    /// Steps that made progress, this one included.
    pub k: u64,
    /// The estimate after the step.
    pub d: f64,
    /// The estimate that this step alone argues for; d where the step has none.
    pub d_hat: f64,
    /// What the step was scaled by: d*lr of before the step, with Adam's bias correction or divided
    /// by the norm of SGD's first gradients.
    pub dlr: f64,
    /// Numerator of d_hat; 0 where the step has none.
    pub numerator: f64,
    /// Denominator of d_hat; 0 where the step has none.
    pub denominator: f64,
    /// Norm of all gradients where the step needed it, which is SGD's first; else NaN.
    pub grad_norm: f64,
    /// 1 where parameters and state were updated, else 0.
    pub applied: i32,
    /// What became of d: DADAPT_MOVEMENT_....
    pub movement: dadapt_movement,
    /// In what order the step went over the memory: DADAPT_SWEEPS_....
    pub sweeps: dadapt_sweeps,
    /// 0.
    pub reserved: i32,
    /// Parameters of BF16 or F16 that were finite as computed and became infinite as rounded. (A
    /// master copy keeps the finite value.)
    pub overflows: u64,
}

/// Who gets an optimizer's log.
#[derive(Debug)]
pub(crate) struct Steps {
    callback: dadapt_log_callback,
    context: *mut c_void,
    /// The next tensor of a step in parts panics.
    #[cfg(feature = "fault-injection")]
    pub(crate) part_panics: std::sync::atomic::AtomicBool,
}

impl Default for Steps {
    fn default() -> Self {
        Steps {
            callback: None,
            context: ptr::null_mut(),
            #[cfg(feature = "fault-injection")]
            part_panics: Default::default(),
        }
    }
}

impl Steps {
    pub(crate) fn set_log(&mut self, callback: dadapt_log_callback, context: *mut c_void) {
        (self.callback, self.context) = (callback, context);
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn panic_in_part(&self) {
        let panics = self.part_panics.swap(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!panics, "injected in a part");
    }

    /// The call that the log gets after the step of that report.
    pub(crate) fn log_call(&self, optimizer: &Optimizer, report: &StepReport) -> Option<LogCall> {
        let callback = self.callback?;
        let line = CString::new(optimizer.log_line(report)?).ok()?;
        Some(LogCall { callback, context: self.context, line })
    }
}

/// A call of the log, to be made in the caller's floating-point environment, and while nothing is
/// borrowed.
pub(crate) struct LogCall {
    callback: unsafe extern "C" fn(context: *mut c_void, line: *const c_char),
    context: *mut c_void,
    line: CString,
}

impl LogCall {
    /// # Safety
    /// `dadapt_optimizer_set_log`'s contract holds.
    pub(crate) unsafe fn make(self) {
        // SAFETY: this function's contract.
        unsafe { (self.callback)(self.context, self.line.as_ptr()) };
    }
}

impl dadapt_report {
    pub(crate) fn new(report: &StepReport) -> Self {
        dadapt_report {
            struct_size: size_of::<dadapt_report>(),
            k: report.k,
            d: report.d,
            d_hat: report.d_hat,
            dlr: report.dlr,
            numerator: report.numerator,
            denominator: report.denominator,
            grad_norm: report.grad_norm,
            applied: i32::from(report.applied),
            movement: report.movement as i32,
            sweeps: report.sweeps as i32,
            reserved: 0,
            overflows: report.overflows,
        }
    }
}

/// One step: updates parameters and state in one pass over memory, then the estimate d.
///
/// Prodigy may take two passes: the report's sweeps.
///
/// tensors: n of them, each tensor once at most, in any order. Those left out, those whose gradient
///     is NULL and those of a group with lr 0 stay as they are. The arrays may lie elsewhere in
///     each step. They hold len initialised elements of their types, and no other thread uses them
///     during the call. Gradients may share memory with one another; otherwise no two arrays may.
/// report: what the step did, as far as its struct_size goes; NULL where it is not wanted. With
///     d_per_group it is the first group's; dadapt_optimizer_group_report has the others'.
///
/// Everything is checked before anything is written: on an error but DADAPT_ERROR_INTERNAL all
/// arrays, d, k and the report are as they were.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _TENSOR_TWICE, _UNKNOWN_DTYPE, _DTYPE, _GRADIENT_DTYPE,
/// _GRADIENT_KEPT_IN, _LENGTH, _STATE_COUNT, _NULL_POINTER, _MISALIGNED, _OVERLAP, _GRADIENT_KIND,
/// _ROW_OUT_OF_RANGE: of the arrays. _STRUCT_SIZE, _RESERVED: of the structs. _MIXED_LR,
/// _COEFFICIENT, _NOT_FOR_ROWS: of the options. _NON_FINITE_GRADIENT: of the gradients. _THREADS: of
/// the system. _STEP_OPEN: a step in parts has not ended. _POISONED: after an earlier _INTERNAL.
///
/// After the first step of the same tensors nothing is allocated, but where a line is
/// logged and what handing out a large step to threads takes.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new. The arrays hold len initialised elements of their
/// types, and no other thread uses them during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step(
    optimizer: *mut dadapt_optimizer,
    tensors: *const dadapt_tensor,
    n: usize,
    report: *mut dadapt_report,
) -> dadapt_status {
    let mut log = None;
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let (to, tensors) = unsafe { (ReportTo::new(report)?, Descriptors::new(tensors, n)?) };
        // SAFETY: this function's contract.
        let done = unsafe { o.optimizer.step(tensors)? };
        to.write(&done);
        log = o.steps.log_call(&o.optimizer, &done);
        Ok(())
    };
    // SAFETY: this function's contract.
    let status = unsafe { change(optimizer, work) };
    if let Some(log) = log {
        // SAFETY: `dadapt_optimizer_set_log`'s contract.
        unsafe { log.make() };
    }
    status
}

/// What the last step did to a group and its d.
///
/// With d_per_group it is about the group's own d, else the report of the step. Before the first
/// step: d0, and no progress.
///
/// report: out, as far as its struct_size goes.
/// Errors: DADAPT_ERROR_UNKNOWN_GROUP, _STRUCT_SIZE, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; report is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_group_report(
    optimizer: *const dadapt_optimizer,
    group: dadapt_group,
    report: *mut dadapt_report,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        if report.is_null() {
            return Err(null("report"));
        }
        // SAFETY: this function's contract.
        let to = unsafe { ReportTo::new(report)? };
        to.write(&o.optimizer.report(GroupId::new(group as usize))?);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Words for a movement of a report, "limited by growth_rate"; NULL for other codes. Never freed.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_movement_name(movement: dadapt_movement) -> *const c_char {
    let found = MOVEMENTS.into_iter().find(|known| *known as i32 == movement);
    found.map_or(ptr::null(), |movement| c_name(movement.name()))
}
