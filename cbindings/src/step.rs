//! Step

use crate::algorithm::dadapt_dtype;
use crate::handle::{Outcome, change};
use crate::names::{MOVEMENTS, c_name};
use crate::optimizer::{dadapt_log_callback, dadapt_optimizer, dtype_of};
use crate::status::{
    DADAPT_ERROR_NULL_POINTER, DADAPT_ERROR_RESERVED, DADAPT_ERROR_STATE_COUNT,
    DADAPT_ERROR_STRUCT_SIZE, Failure, dadapt_status,
};
use dadapt::{DType, MAX_STATE, Optimizer, StepReport, TensorId, TensorStep};
use std::ffi::{CString, c_char, c_void};
use std::mem::{MaybeUninit, offset_of, size_of};
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
    /// 0.
    pub reserved: i32,
    /// Parameters, in and out. May be NULL if len is 0.
    pub p: *mut c_void,
    /// Gradient, only read. NULL: absent, and the tensor is left as it is.
    pub g: *const c_void,
    /// Where the caller keeps the state: state_count arrays, in and out, of len elements of the
    /// tensor's type. Else NULL.
    pub state: *const *mut c_void,
    /// How many; 0 where the library keeps the state.
    pub state_count: usize,
}

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
    /// Numerator of d_hat.
    pub numerator: f64,
    /// Denominator of d_hat; 0 where the step has none.
    pub denominator: f64,
    /// Norm of all gradients where the step needed it, which is SGD's first; else NaN.
    pub grad_norm: f64,
    /// 1 where parameters and state were updated, else 0.
    pub applied: i32,
    /// What became of d: DADAPT_MOVEMENT_....
    pub movement: dadapt_movement,
}

/// The least `struct_size` of a tensor: everything that a tensor with state of the library's needs.
const MIN_TENSOR: usize = offset_of!(dadapt_tensor, state);
/// Above this a `struct_size` is taken for a mistake, and not for a later version's.
const MAX_STRUCT: usize = 4096;

/// What an optimizer's steps use again, and who gets its log.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Empty between steps.
    tensors: Vec<TensorStep<'static>>,
    callback: dadapt_log_callback,
    context: *mut c_void,
}

impl Default for Steps {
    fn default() -> Self {
        Steps { tensors: Vec::new(), callback: None, context: ptr::null_mut() }
    }
}

impl Steps {
    pub(crate) fn set_log(&mut self, callback: dadapt_log_callback, context: *mut c_void) {
        (self.callback, self.context) = (callback, context);
    }
}

fn bad_size(what: &str, given: usize, expected: &str) -> Failure {
    let detail = format!("{what}struct_size is {given}, which is not {expected}");
    Failure::new(DADAPT_ERROR_STRUCT_SIZE, detail)
}

/// Reads an array of descriptors, of this version of the struct or another.
struct Descriptors {
    start: *const u8,
    n: usize,
    stride: usize,
}

impl Descriptors {
    /// # Safety
    /// `tensors` is null or points to `n` structs that start with their size.
    unsafe fn new(tensors: *const dadapt_tensor, n: usize) -> Outcome<Self> {
        if n == 0 {
            return Ok(Descriptors { start: ptr::null(), n, stride: 0 });
        }
        if tensors.is_null() {
            let detail = format!("tensors is NULL, and n is {n}");
            return Err(Failure::new(DADAPT_ERROR_NULL_POINTER, detail));
        }
        let start: *const u8 = tensors.cast();
        // SAFETY: this function's contract; the array need not be aligned.
        let stride = unsafe { start.cast::<usize>().read_unaligned() };
        if !(MIN_TENSOR..=MAX_STRUCT).contains(&stride) {
            return Err(bad_size("tensors[0].", stride, "sizeof(dadapt_tensor) of any version"));
        }
        Ok(Descriptors { start, n, stride })
    }

    /// The descriptor of that index; fields that its version lacks are 0.
    ///
    /// # Safety
    /// `new`'s contract still holds, and `index < n`.
    unsafe fn get(&self, index: usize) -> Outcome<dadapt_tensor> {
        // SAFETY: this function's contract.
        let start = unsafe { self.start.add(index * self.stride) };
        // SAFETY: each struct starts with its size.
        let size = unsafe { start.cast::<usize>().read_unaligned() };
        if size != self.stride {
            let expected = format!("the {} of tensors[0]", self.stride);
            return Err(bad_size(&format!("tensors[{index}]."), size, &expected));
        }
        let known = size.min(size_of::<dadapt_tensor>());
        for byte in known..size {
            // SAFETY: the struct has `size` bytes.
            if unsafe { start.add(byte).read() } != 0 {
                let detail = format!(
                    "tensors[{index}] has fields of a later version (byte {byte}) that are not 0"
                );
                return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
            }
        }
        let mut tensor = MaybeUninit::<dadapt_tensor>::zeroed();
        // SAFETY: both hold `known` bytes; zeros are a value of every field, and so is what C
        // wrote there.
        let tensor = unsafe {
            ptr::copy_nonoverlapping(start, tensor.as_mut_ptr().cast(), known);
            tensor.assume_init()
        };
        if tensor.reserved != 0 {
            let detail = format!("tensors[{index}].reserved is {}, not 0", tensor.reserved);
            return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
        }
        Ok(tensor)
    }
}

/// # Safety
/// `given`'s arrays are as `dadapt_optimizer_step` asks.
unsafe fn tensor_step(
    optimizer: &Optimizer,
    index: usize,
    given: &dadapt_tensor,
) -> Outcome<TensorStep<'static>> {
    let id = TensorId::from_code(given.id);
    let dtype: DType = match given.dtype {
        0 => optimizer.tensor_info(id)?.0,
        code => dtype_of(code)?,
    };
    if given.state.is_null() && given.state_count > 0 {
        let detail =
            format!("tensors[{index}].state is NULL, and state_count is {}", given.state_count);
        return Err(Failure::new(DADAPT_ERROR_NULL_POINTER, detail));
    }
    if given.state_count > MAX_STATE {
        let detail = format!(
            "tensors[{index}].state_count is {}; no algorithm keeps more than {MAX_STATE}",
            given.state_count
        );
        return Err(Failure::new(DADAPT_ERROR_STATE_COUNT, detail));
    }
    let mut state = [ptr::null_mut(); MAX_STATE];
    for (slot, to) in state.iter_mut().take(given.state_count).enumerate() {
        // SAFETY: this function's contract: `state` points to `state_count` pointers.
        *to = unsafe { given.state.add(slot).read_unaligned() }.cast();
    }
    let state = &state[..given.state_count];
    // SAFETY: this function's contract.
    Ok(unsafe { TensorStep::from_raw(id, dtype, given.len, given.p.cast(), given.g.cast(), state) })
}

impl dadapt_report {
    fn new(report: &StepReport) -> Self {
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
        }
    }
}

/// How many bytes of a report the caller's version of it takes.
///
/// # Safety
/// `report` is null or points to a struct that starts with its size.
unsafe fn report_size(report: *const dadapt_report) -> Outcome<usize> {
    if report.is_null() {
        return Ok(0);
    }
    // SAFETY: this function's contract.
    let size = unsafe { report.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=MAX_STRUCT).contains(&size) {
        return Err(bad_size("report->", size, "sizeof(dadapt_report) of any version"));
    }
    Ok(size.min(size_of::<dadapt_report>()))
}

/// One step: updates parameters and state in one pass over memory, then the estimate d.
///
/// tensors: n of them, each tensor once at most, in any order. Those left out, those whose gradient
///     is NULL and those of a group with lr 0 stay as they are. The arrays may lie elsewhere in
///     each step. They hold len initialised elements of the tensor's type, and no other thread uses
///     them during the call. Gradients may share memory with one another; otherwise no two arrays
///     may.
/// report: what the step did, as far as its struct_size goes; NULL where it is not wanted.
///
/// Everything is checked before anything is written: on an error but DADAPT_ERROR_INTERNAL all
/// arrays, d, k and the report are as they were.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _TENSOR_TWICE, _UNKNOWN_DTYPE, _DTYPE, _LENGTH,
/// _STATE_COUNT, _NULL_POINTER, _MISALIGNED, _OVERLAP: of the arrays. _STRUCT_SIZE, _RESERVED: of
/// the structs. _MIXED_LR, _COEFFICIENT: of the options. _NON_FINITE_GRADIENT: of the gradients.
/// _THREADS: of the system. _POISONED: after an earlier _INTERNAL.
///
/// After the first step of the same tensors nothing is allocated, but where a line is
/// logged and what handing out a large step to threads takes.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new. The arrays hold len initialised elements of the
/// tensor's type, and no other thread uses them during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step(
    optimizer: *mut dadapt_optimizer,
    tensors: *const dadapt_tensor,
    n: usize,
    report: *mut dadapt_report,
) -> dadapt_status {
    let mut line = None;
    let work = |o: &mut dadapt_optimizer| {
        o.steps.tensors.clear();
        // SAFETY: this function's contract.
        let (written, descriptors) =
            unsafe { (report_size(report)?, Descriptors::new(tensors, n)?) };
        for index in 0..descriptors.n {
            // SAFETY: this function's contract.
            let step = unsafe { tensor_step(&o.optimizer, index, &descriptors.get(index)?)? };
            o.steps.tensors.push(step);
        }
        let done = o.optimizer.step(&mut o.steps.tensors);
        o.steps.tensors.clear();
        let done = done?;
        if written > 0 {
            let skip = size_of::<usize>(); // the caller's struct_size stays
            let from = dadapt_report::new(&done);
            // SAFETY: `report_size` found `written` bytes in the caller's struct, and no more than
            // this version has.
            unsafe {
                let from = ptr::from_ref(&from).cast::<u8>().add(skip);
                ptr::copy_nonoverlapping(from, report.cast::<u8>().add(skip), written - skip);
            }
        }
        if let Some(callback) = o.steps.callback {
            let text = o.optimizer.log_line(&done).and_then(|line| CString::new(line).ok());
            line = text.map(|text| (callback, o.steps.context, text));
        }
        Ok(())
    };
    // SAFETY: this function's contract.
    let status = unsafe { change(optimizer, work) };
    // In the caller's floating-point environment, and while nothing is borrowed.
    if let Some((callback, context, text)) = line {
        // SAFETY: `dadapt_optimizer_set_log`'s contract.
        unsafe { callback(context, text.as_ptr()) };
    }
    status
}

/// Words for a movement of a report, "limited by growth_rate"; NULL for other codes. Never freed.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_movement_name(movement: dadapt_movement) -> *const c_char {
    let found = MOVEMENTS.into_iter().find(|known| *known as i32 == movement);
    found.map_or(ptr::null(), |movement| c_name(movement.name()))
}
