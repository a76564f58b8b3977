//! Structs that start with their size, of this version or another: tensors read, reports written.

use crate::handle::{Outcome, null};
use crate::status::{
    DADAPT_ERROR_NULL_POINTER, DADAPT_ERROR_RESERVED, DADAPT_ERROR_STATE_COUNT,
    DADAPT_ERROR_STRUCT_SIZE, DADAPT_ERROR_UNKNOWN_DTYPE, Failure,
};
use crate::step::{DADAPT_INDEX_I64, DADAPT_INDEX_U32, dadapt_report, dadapt_tensor};
use dadapt::{DType, Index, MAX_STATE, StepReport, StepTensors, TensorId, TensorStep};
use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::{ptr, slice};

/// The least `struct_size` of a tensor: everything that a tensor with state of the library's needs.
const MIN_TENSOR: usize = offset_of!(dadapt_tensor, state);
/// Above this a `struct_size` is taken for a mistake, and not for a later version's.
pub(crate) const MAX_STRUCT: usize = 4096;

pub(crate) fn bad_size(what: impl fmt::Display, given: usize, expected: &str) -> Failure {
    let detail = format!("{what}struct_size is {given}, which is not {expected}");
    Failure::new(DADAPT_ERROR_STRUCT_SIZE, detail)
}

/// What messages call a descriptor, up to the name of a field.
#[derive(Clone, Copy)]
enum Place {
    /// The only one of its call.
    Only,
    /// Of an array.
    At(usize),
}

impl Place {
    fn name(self) -> String {
        match self {
            Place::Only => "tensor".into(),
            Place::At(index) => format!("tensors[{index}]"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Only => f.write_str("tensor->"),
            Place::At(index) => write!(f, "tensors[{index}]."),
        }
    }
}

/// # Safety
/// `start` points to a struct that starts with its size; it need not be aligned.
unsafe fn tensor_size(start: *const u8, place: Place) -> Outcome<usize> {
    // SAFETY: this function's contract.
    let size = unsafe { start.cast::<usize>().read_unaligned() };
    if !(MIN_TENSOR..=MAX_STRUCT).contains(&size) {
        return Err(bad_size(place, size, "sizeof(dadapt_tensor) of any version"));
    }
    Ok(size)
}

/// # Safety
/// As [`read_tensor`].
#[cold]
unsafe fn read_other_version(
    start: *const u8,
    size: usize,
    place: Place,
) -> Outcome<dadapt_tensor> {
    let known = size.min(size_of::<dadapt_tensor>());
    for byte in known..size {
        // SAFETY: the struct has `size` bytes.
        if unsafe { start.add(byte).read() } != 0 {
            let whole = place.name();
            let detail =
                format!("{whole} has fields of a later version (byte {byte}) that are not 0");
            return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
        }
    }
    let mut tensor = MaybeUninit::<dadapt_tensor>::zeroed();
    // SAFETY: both hold `known` bytes; zeros are a value of every field, and so is what C wrote
    // there.
    unsafe {
        ptr::copy_nonoverlapping(start, tensor.as_mut_ptr().cast(), known);
        Ok(tensor.assume_init())
    }
}

/// Calls `with` for what the descriptor at `start` describes; fields that its version lacks are 0.
///
/// # Safety
/// `start` points to `size` bytes that C wrote, aligned or not, and the arrays are as the step that it is
/// for asks.
// No result with a tensor: it would be copied, and each copy waits for the one before to be written.
#[inline(always)]
unsafe fn read_tensor(
    (start, size): (*const u8, usize),
    place: Place,
    with: impl FnOnce(&TensorStep<'_, '_>) -> Outcome<()>,
) -> Outcome<()> {
    let other;
    let tensor: *const dadapt_tensor = if size == size_of::<dadapt_tensor>() {
        start.cast()
    } else {
        // SAFETY: this function's contract.
        other = unsafe { read_other_version(start, size, place)? };
        &raw const other
    };
    // Field by field: a copy of the whole waits for itself to be written.
    macro_rules! given {
        ($field:ident) => {
            // SAFETY: a struct of this version is there; what C wrote is a value of every field.
            unsafe { (&raw const (*tensor).$field).read_unaligned() }
        };
    }
    if given!(reserved) != 0 {
        let detail = format!("{place}reserved is {}, not 0", given!(reserved));
        return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
    }
    let id = TensorId::from_code(given!(id));
    let dtype_of = |code| match code {
        0 => Ok(None),
        code => DType::from_code(code).map(Some),
    };
    let (dtype, g_dtype) = (dtype_of(given!(dtype))?, dtype_of(given!(g_dtype))?);
    let (states, state_count) = (given!(state), given!(state_count));
    if states.is_null() && state_count > 0 {
        let detail = format!("{place}state is NULL, and state_count is {state_count}");
        return Err(Failure::new(DADAPT_ERROR_NULL_POINTER, detail));
    }
    if state_count > MAX_STATE {
        let detail = format!(
            "{place}state_count is {state_count}; no algorithm keeps more than {MAX_STATE}"
        );
        return Err(Failure::new(DADAPT_ERROR_STATE_COUNT, detail));
    }
    let mut state = [ptr::null_mut(); MAX_STATE];
    for (slot, to) in state.iter_mut().take(state_count).enumerate() {
        // SAFETY: this function's contract: `state` points to `state_count` pointers.
        *to = unsafe { states.add(slot).read_unaligned() }.cast();
    }
    let (len, p, g) = (given!(len), given!(p).cast(), given!(g).cast());
    let (rows, row_count) = (given!(rows), given!(row_count));
    let index = match given!(row_type) {
        0 if row_count == 0 && rows.is_null() => None,
        DADAPT_INDEX_U32 => Some(Index::U32),
        DADAPT_INDEX_I64 => Some(Index::I64),
        code => {
            let detail =
                format!("{place}row_type is {code}; there are DADAPT_INDEX_U32 (1) and _I64 (2)");
            return Err(Failure::new(DADAPT_ERROR_UNKNOWN_DTYPE, detail));
        }
    };
    // SAFETY: this function's contract.
    let mut step = unsafe {
        TensorStep::from_raw(id, dtype, len, p, g, &state[..state_count])
            .with_raw_gradient_dtype(g_dtype)
    };
    if let Some(index) = index {
        // SAFETY: this function's contract.
        step = unsafe { step.with_raw_rows(rows.cast(), row_count, index) };
    }
    with(&step)
}

/// An array of descriptors, of this version of the struct or another.
pub(crate) struct Descriptors {
    start: *const u8,
    n: usize,
    stride: usize,
}

impl Descriptors {
    /// # Safety
    /// `tensors` is null or points to `n` structs that start with their size.
    pub(crate) unsafe fn new(tensors: *const dadapt_tensor, n: usize) -> Outcome<Self> {
        if n == 0 {
            return Ok(Descriptors { start: ptr::null(), n, stride: 0 });
        }
        if tensors.is_null() {
            let detail = format!("tensors is NULL, and n is {n}");
            return Err(Failure::new(DADAPT_ERROR_NULL_POINTER, detail));
        }
        let start: *const u8 = tensors.cast();
        // SAFETY: this function's contract.
        let stride = unsafe { tensor_size(start, Place::At(0))? };
        Ok(Descriptors { start, n, stride })
    }

    /// They as C wrote them, where they are of this version of the struct and that has no padding, which C may leave
    /// as it was.
    ///
    /// # Safety
    /// `new`'s contract holds for the lifetime.
    pub(crate) unsafe fn bytes<'a>(&self) -> Option<&'a [u8]> {
        const FIELDS: usize = size_of::<[usize; 8]>() + size_of::<u64>() + size_of::<[i32; 4]>();
        // SAFETY: this function's contract; the fields fill the structs.
        let bytes = || unsafe { slice::from_raw_parts(self.start, self.n * self.stride) };
        (FIELDS == size_of::<dadapt_tensor>() && self.stride == FIELDS).then(bytes)
    }

    /// Has what they describe take part in a step, up to the first error.
    ///
    /// # Safety
    /// `new`'s contract holds, and the arrays are as `dadapt_optimizer_step` asks.
    #[inline(always)]
    pub(crate) unsafe fn add_to(self, step: &mut StepTensors<'_>) -> Outcome<()> {
        for index in 0..self.n {
            // SAFETY: this function's contract, as `index < n`.
            let start = unsafe { self.start.add(index * self.stride) };
            // SAFETY: each struct starts with its size.
            let size = unsafe { start.cast::<usize>().read_unaligned() };
            let place = Place::At(index);
            if size != self.stride {
                let expected = format!("the {} of tensors[0]", self.stride);
                return Err(bad_size(place, size, &expected));
            }
            // SAFETY: this function's contract.
            unsafe { read_tensor((start, size), place, |tensor| Ok(step.add(tensor)?))? };
        }
        Ok(())
    }
}

/// Calls `with` for what a single descriptor describes.
///
/// # Safety
/// `tensor` is null or points to a struct that starts with its size, whose arrays are as
/// `dadapt_optimizer_step_tensor` asks.
pub(crate) unsafe fn read_one(
    tensor: *const dadapt_tensor,
    with: impl FnOnce(&TensorStep<'_, '_>) -> Outcome<()>,
) -> Outcome<()> {
    if tensor.is_null() {
        return Err(null("tensor"));
    }
    let (start, place): (*const u8, Place) = (tensor.cast(), Place::Only);
    // SAFETY: this function's contract.
    unsafe {
        let size = tensor_size(start, place)?;
        read_tensor((start, size), place, with)
    }
}

/// A caller's report, as far as its version of it goes.
pub(crate) struct ReportTo<'a> {
    start: *mut u8,
    size: usize,
    borrow: PhantomData<&'a mut dadapt_report>,
}

impl ReportTo<'_> {
    /// Nothing is written where `report` is null.
    ///
    /// # Safety `report` is null or points to a struct that starts with its size and can be
    /// written, by nobody else, for the lifetime.
    pub(crate) unsafe fn new(report: *mut dadapt_report) -> Outcome<Self> {
        let (start, borrow) = (report.cast::<u8>(), PhantomData);
        if report.is_null() {
            return Ok(ReportTo { start, size: 0, borrow });
        }
        // SAFETY: this function's contract.
        let size = unsafe { report.cast::<usize>().read_unaligned() };
        if !(size_of::<usize>()..=MAX_STRUCT).contains(&size) {
            return Err(bad_size("report->", size, "sizeof(dadapt_report) of any version"));
        }
        Ok(ReportTo { start, size: size.min(size_of::<dadapt_report>()), borrow })
    }

    pub(crate) fn write(self, report: &StepReport) {
        if self.start.is_null() {
            return;
        }
        let from = dadapt_report::new(report);
        let skip = size_of::<usize>(); // the caller's struct_size stays
        // SAFETY: `new` found `size` bytes in the caller's struct, no more than this version has.
        unsafe {
            let from = ptr::from_ref(&from).cast::<u8>().add(skip);
            ptr::copy_nonoverlapping(from, self.start.add(skip), self.size - skip);
        }
    }
}
