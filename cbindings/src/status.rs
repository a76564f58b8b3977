//! Statuses and errors

use crate::handle::thread_error;
use dadapt::Error;
use std::ffi::{CStr, c_char};

/// What came of a call. The numbers are pinned: none is changed or used again.
///
/// Unless a status says otherwise, a call that fails has changed nothing and written nothing.
pub type dadapt_status = i32;

/// Success.
pub const DADAPT_OK: dadapt_status = 0;
/// A pointer is NULL that must not be: a handle, a place for a result, an array with elements.
pub const DADAPT_ERROR_NULL_POINTER: dadapt_status = 1;
/// A struct_size is not that of any version of the struct, or not that of the array's first.
pub const DADAPT_ERROR_STRUCT_SIZE: dadapt_status = 2;
/// A reserved field, or a field that this version of the library does not know, is not 0.
pub const DADAPT_ERROR_RESERVED: dadapt_status = 3;
/// A string is not UTF-8.
pub const DADAPT_ERROR_INVALID_UTF8: dadapt_status = 4;
/// No algorithm has that code or name.
pub const DADAPT_ERROR_UNKNOWN_ALGORITHM: dadapt_status = 5;
/// No option has that key or name.
pub const DADAPT_ERROR_UNKNOWN_KEY: dadapt_status = 6;
/// The algorithm lacks that option.
pub const DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM: dadapt_status = 7;
/// The value is outside the option's bounds, or NaN. The text names key, value and bounds.
pub const DADAPT_ERROR_OUT_OF_BOUNDS: dadapt_status = 8;
/// The option is one value for all groups: set it with DADAPT_ALL_GROUPS.
pub const DADAPT_ERROR_NOT_PER_GROUP: dadapt_status = 9;
/// The option can no longer be set.
pub const DADAPT_ERROR_FIXED: dadapt_status = 10;
/// No group has that index.
pub const DADAPT_ERROR_UNKNOWN_GROUP: dadapt_status = 11;
/// No tensor has that id or name.
pub const DADAPT_ERROR_UNKNOWN_TENSOR: dadapt_status = 12;
/// The algorithm keeps no state of that index or name.
pub const DADAPT_ERROR_UNKNOWN_STATE: dadapt_status = 13;
/// No element type has that code.
pub const DADAPT_ERROR_UNKNOWN_DTYPE: dadapt_status = 14;
/// A tensor of that name is registered already.
pub const DADAPT_ERROR_DUPLICATE_NAME: dadapt_status = 15;
/// A tensor is given twice in one step.
pub const DADAPT_ERROR_TENSOR_TWICE: dadapt_status = 16;
/// A length is not the registered one, or there are not so many elements.
pub const DADAPT_ERROR_LENGTH: dadapt_status = 17;
/// A tensor is longer than memory can be.
pub const DADAPT_ERROR_TOO_LONG: dadapt_status = 18;
/// An element type is not the registered one.
pub const DADAPT_ERROR_DTYPE: dadapt_status = 19;
/// An array is not aligned to its elements.
pub const DADAPT_ERROR_MISALIGNED: dadapt_status = 20;
/// Arrays share memory, and the step would write it.
pub const DADAPT_ERROR_OVERLAP: dadapt_status = 21;
/// State arrays are missing, or given where the library owns the state.
pub const DADAPT_ERROR_STATE_COUNT: dadapt_status = 22;
/// The state asked for is kept by the caller.
pub const DADAPT_ERROR_STATE_OF_CALLER: dadapt_status = 23;
/// Groups have different rates, neither of them 0: give them one and set layer_scale, or have
/// d_per_group.
pub const DADAPT_ERROR_MIXED_LR: dadapt_status = 24;
/// The options together leave the range of the parameters' type.
pub const DADAPT_ERROR_COEFFICIENT: dadapt_status = 25;
/// A gradient holds a NaN or an infinity, and the policy is to reject such a step.
pub const DADAPT_ERROR_NON_FINITE_GRADIENT: dadapt_status = 26;
/// No instruction set has that name.
pub const DADAPT_ERROR_UNKNOWN_ISA: dadapt_status = 27;
/// This machine lacks the instruction set that is forced.
pub const DADAPT_ERROR_ISA_UNAVAILABLE: dadapt_status = 28;
/// An environment variable cannot be understood.
pub const DADAPT_ERROR_ENVIRONMENT: dadapt_status = 29;
/// Memory for state cannot be had.
pub const DADAPT_ERROR_OUT_OF_MEMORY: dadapt_status = 30;
/// Threads cannot be started.
pub const DADAPT_ERROR_THREADS: dadapt_status = 31;
/// An earlier call on the handle ended in DADAPT_ERROR_INTERNAL.
pub const DADAPT_ERROR_POISONED: dadapt_status = 32;
/// A defect of the library. A step may have stopped half-way: parameters and state are then valid
/// numbers, but of no particular step. The handle can only be read and freed.
pub const DADAPT_ERROR_INTERNAL: dadapt_status = 33;
/// A step in parts has begun: end or abort it first.
pub const DADAPT_ERROR_STEP_OPEN: dadapt_status = 34;
/// No step in parts has begun.
pub const DADAPT_ERROR_NO_STEP_OPEN: dadapt_status = 35;
/// The algorithm, or the policy for gradients that are not finite, needs all tensors at once.
pub const DADAPT_ERROR_NOT_IN_PARTS: dadapt_status = 36;
/// The algorithm has no restart.
pub const DADAPT_ERROR_NO_RESTART: dadapt_status = 37;
/// An algorithm that takes no gradients of single rows: all but adagrad.
pub const DADAPT_ERROR_NO_ROWS: dadapt_status = 38;
/// A gradient of single rows for a dense tensor, or a dense one for a table.
pub const DADAPT_ERROR_GRADIENT_KIND: dadapt_status = 39;
/// A row that the table does not have.
pub const DADAPT_ERROR_ROW_OUT_OF_RANGE: dadapt_status = 40;
/// weight_decay or momentum, for a table: they have no meaning for gradients of single rows.
pub const DADAPT_ERROR_NOT_FOR_ROWS: dadapt_status = 41;
/// An element type that such a tensor cannot have: q8, which is of state alone; one of 16 bits, for
/// a table of rows.
pub const DADAPT_ERROR_DTYPE_NOT_FOR: dadapt_status = 42;
/// An element type of a gradient that does not go with its parameter's.
pub const DADAPT_ERROR_GRADIENT_DTYPE: dadapt_status = 43;
/// A gradient that the state which keeps a copy of it would round: Adan's pre_grad.
pub const DADAPT_ERROR_GRADIENT_KEPT_IN: dadapt_status = 44;
/// An element type that such state cannot be kept in. The text says why.
pub const DADAPT_ERROR_STATE_DTYPE: dadapt_status = 45;
/// DADAPT_KEY_STATE, for an algorithm of whose state nothing may be rounded: sgd, adagrad.
pub const DADAPT_ERROR_NOTHING_TO_ROUND: dadapt_status = 46;

/// Why a call failed.
pub(crate) struct Failure {
    pub(crate) status: dadapt_status,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(status: dadapt_status, detail: impl Into<String>) -> Self {
        Failure { status, detail: detail.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::UnknownKey { .. } => DADAPT_ERROR_UNKNOWN_KEY,
            Error::KeyNotForAlgorithm { .. } | Error::NoSlices { .. } => {
                DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM
            }
            Error::OutOfBounds { .. } | Error::Resume { .. } => DADAPT_ERROR_OUT_OF_BOUNDS,
            Error::NotPerGroup { .. } => DADAPT_ERROR_NOT_PER_GROUP,
            Error::Fixed { .. } => DADAPT_ERROR_FIXED,
            Error::UnknownAlgorithm { .. } => DADAPT_ERROR_UNKNOWN_ALGORITHM,
            Error::UnknownIsa { .. } => DADAPT_ERROR_UNKNOWN_ISA,
            Error::IsaUnavailable { .. } => DADAPT_ERROR_ISA_UNAVAILABLE,
            Error::Environment { .. } => DADAPT_ERROR_ENVIRONMENT,
            Error::UnknownGroup { .. } => DADAPT_ERROR_UNKNOWN_GROUP,
            Error::UnknownTensor { .. } => DADAPT_ERROR_UNKNOWN_TENSOR,
            Error::UnknownState { .. } => DADAPT_ERROR_UNKNOWN_STATE,
            Error::DuplicateName { .. } => DADAPT_ERROR_DUPLICATE_NAME,
            Error::TensorTwice { .. } => DADAPT_ERROR_TENSOR_TWICE,
            Error::Length { .. } => DADAPT_ERROR_LENGTH,
            Error::TooLong { .. } => DADAPT_ERROR_TOO_LONG,
            // What C is handed of state is told its type, so that it cannot ask for another.
            Error::DTypeMismatch { .. } | Error::StateKeptIn { .. } => DADAPT_ERROR_DTYPE,
            Error::UnknownDType { .. } => DADAPT_ERROR_UNKNOWN_DTYPE,
            Error::DTypeNotFor { .. } => DADAPT_ERROR_DTYPE_NOT_FOR,
            Error::GradientDType { .. } => DADAPT_ERROR_GRADIENT_DTYPE,
            Error::GradientKeptIn { .. } => DADAPT_ERROR_GRADIENT_KEPT_IN,
            Error::StateDType { .. } => DADAPT_ERROR_STATE_DTYPE,
            Error::NothingToRound { .. } => DADAPT_ERROR_NOTHING_TO_ROUND,
            Error::Null { .. } => DADAPT_ERROR_NULL_POINTER,
            Error::Misaligned { .. } => DADAPT_ERROR_MISALIGNED,
            Error::Overlap { .. } => DADAPT_ERROR_OVERLAP,
            Error::StateCount { .. } => DADAPT_ERROR_STATE_COUNT,
            Error::StateOfCaller { .. } => DADAPT_ERROR_STATE_OF_CALLER,
            Error::MixedLr { .. } => DADAPT_ERROR_MIXED_LR,
            Error::Coefficient { .. } => DADAPT_ERROR_COEFFICIENT,
            Error::NonFiniteGradient { .. } => DADAPT_ERROR_NON_FINITE_GRADIENT,
            Error::OutOfMemory { .. } => DADAPT_ERROR_OUT_OF_MEMORY,
            Error::Threads { .. } => DADAPT_ERROR_THREADS,
            Error::Poisoned => DADAPT_ERROR_POISONED,
            Error::StepOpen => DADAPT_ERROR_STEP_OPEN,
            Error::NoStepOpen => DADAPT_ERROR_NO_STEP_OPEN,
            Error::NotInParts { .. } => DADAPT_ERROR_NOT_IN_PARTS,
            Error::NoRestart { .. } => DADAPT_ERROR_NO_RESTART,
            Error::NoRows { .. } => DADAPT_ERROR_NO_ROWS,
            Error::GradientKind { .. } => DADAPT_ERROR_GRADIENT_KIND,
            Error::RowOutOfRange { .. } => DADAPT_ERROR_ROW_OUT_OF_RANGE,
            Error::NotForRows { .. } => DADAPT_ERROR_NOT_FOR_ROWS,
            // An error that Rust got and this list did not: a defect of this file.
            _ => DADAPT_ERROR_INTERNAL,
        };
        Failure::new(status, error.to_string())
    }
}

/// The name of a status as this header has it, "DADAPT_ERROR_LENGTH". Never NULL, never freed. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_status_name(status: dadapt_status) -> *const c_char {
    const NAMES: [&CStr; 47] = [
        c"DADAPT_OK",
        c"DADAPT_ERROR_NULL_POINTER",
        c"DADAPT_ERROR_STRUCT_SIZE",
        c"DADAPT_ERROR_RESERVED",
        c"DADAPT_ERROR_INVALID_UTF8",
        c"DADAPT_ERROR_UNKNOWN_ALGORITHM",
        c"DADAPT_ERROR_UNKNOWN_KEY",
        c"DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM",
        c"DADAPT_ERROR_OUT_OF_BOUNDS",
        c"DADAPT_ERROR_NOT_PER_GROUP",
        c"DADAPT_ERROR_FIXED",
        c"DADAPT_ERROR_UNKNOWN_GROUP",
        c"DADAPT_ERROR_UNKNOWN_TENSOR",
        c"DADAPT_ERROR_UNKNOWN_STATE",
        c"DADAPT_ERROR_UNKNOWN_DTYPE",
        c"DADAPT_ERROR_DUPLICATE_NAME",
        c"DADAPT_ERROR_TENSOR_TWICE",
        c"DADAPT_ERROR_LENGTH",
        c"DADAPT_ERROR_TOO_LONG",
        c"DADAPT_ERROR_DTYPE",
        c"DADAPT_ERROR_MISALIGNED",
        c"DADAPT_ERROR_OVERLAP",
        c"DADAPT_ERROR_STATE_COUNT",
        c"DADAPT_ERROR_STATE_OF_CALLER",
        c"DADAPT_ERROR_MIXED_LR",
        c"DADAPT_ERROR_COEFFICIENT",
        c"DADAPT_ERROR_NON_FINITE_GRADIENT",
        c"DADAPT_ERROR_UNKNOWN_ISA",
        c"DADAPT_ERROR_ISA_UNAVAILABLE",
        c"DADAPT_ERROR_ENVIRONMENT",
        c"DADAPT_ERROR_OUT_OF_MEMORY",
        c"DADAPT_ERROR_THREADS",
        c"DADAPT_ERROR_POISONED",
        c"DADAPT_ERROR_INTERNAL",
        c"DADAPT_ERROR_STEP_OPEN",
        c"DADAPT_ERROR_NO_STEP_OPEN",
        c"DADAPT_ERROR_NOT_IN_PARTS",
        c"DADAPT_ERROR_NO_RESTART",
        c"DADAPT_ERROR_NO_ROWS",
        c"DADAPT_ERROR_GRADIENT_KIND",
        c"DADAPT_ERROR_ROW_OUT_OF_RANGE",
        c"DADAPT_ERROR_NOT_FOR_ROWS",
        c"DADAPT_ERROR_DTYPE_NOT_FOR",
        c"DADAPT_ERROR_GRADIENT_DTYPE",
        c"DADAPT_ERROR_GRADIENT_KEPT_IN",
        c"DADAPT_ERROR_STATE_DTYPE",
        c"DADAPT_ERROR_NOTHING_TO_ROUND",
    ];
    let name = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    name.copied().unwrap_or(c"unknown status").as_ptr()
}

/// What the last call that failed on this thread had to say, whatever handle it was on; "" where
/// none has. Never NULL. Good until the next call that fails on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_last_error() -> *const c_char {
    thread_error()
}
