//! State

use crate::algorithm::dadapt_dtype;
use crate::handle::{Outcome, out, read, read_exclusive, write_if_wanted};
use crate::optimizer::dadapt_optimizer;
use crate::status::dadapt_status;
use dadapt::{DType, Error, Optimizer, TensorId};
use std::ffi::c_void;
use std::ptr;

fn slot_name(optimizer: &Optimizer, id: TensorId, slot: usize) -> Result<&'static str, Error> {
    let algorithm = optimizer.algorithm().name();
    let unknown = || Error::UnknownState { slot: slot.to_string(), algorithm };
    optimizer.state_names(id)?.nth(slot).ok_or_else(unknown)
}

fn start_and_len<E>(state: &mut [E]) -> (*mut c_void, usize) {
    let start = if state.is_empty() { ptr::null_mut() } else { state.as_mut_ptr().cast() };
    (start, state.len())
}

/// A tensor's state of that number, where the library owns it: to look at and to
/// change between steps. dadapt_algorithm_state_name names it; those of a table of rows are alphak, sk,
/// x0 and weighted_sk.
///
/// state: out, len elements of dtype, aligned to them; NULL where len is 0. It stays where it is
/// until the optimizer is freed or frozen; p0 of Prodigy only until the tensor's first gradient.
/// len: out, the state's own: less than the tensor's with slice_p, 0 where there is none. Prodigy
/// drops the p0 of a tensor that is all 0 at its first gradient.
/// dtype: out. Each is NULL where it is not wanted.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _STATE_OF_CALLER, _NULL_POINTER.
/// The optimizer must not be in use by another thread.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; state, len and dtype are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_state(
    optimizer: *mut dadapt_optimizer,
    id: u64,
    slot: usize,
    state: *mut *mut c_void,
    len: *mut usize,
    dtype: *mut dadapt_dtype,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| -> Outcome {
        let tensor = TensorId::from_code(id);
        let (found_dtype, _, _) = o.optimizer.tensor_info(tensor)?;
        let name = slot_name(&o.optimizer, tensor, slot)?;
        let (start, found_len) = match found_dtype {
            DType::F32 => start_and_len(o.optimizer.state_mut::<f32>(tensor, name)?),
            DType::F64 => start_and_len(o.optimizer.state_mut::<f64>(tensor, name)?),
            other => return Err(Error::UnknownDType { dtype: other as i32 }.into()),
        };
        // SAFETY: this function's contract.
        unsafe {
            write_if_wanted(state, start);
            write_if_wanted(len, found_len);
            write_if_wanted(dtype, found_dtype as i32);
        }
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read_exclusive(optimizer, work) }
}

/// The size of a tensor's state array of that number, whoever owns it.
///
/// It is that of all elements of the tensor, of every slice_p-th, or 0 where the options or
/// dadapt_optimizer_freeze leave the array out.
///
/// bytes: out. Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; bytes is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_state_bytes(
    optimizer: *const dadapt_optimizer,
    id: u64,
    slot: usize,
    bytes: *mut usize,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let bytes = unsafe { out(bytes, "bytes")? };
        let tensor = TensorId::from_code(id);
        let (dtype, _, _) = o.optimizer.tensor_info(tensor)?;
        let len = o.optimizer.state_len(tensor, slot_name(&o.optimizer, tensor, slot)?)?;
        bytes.write(len * dtype.size());
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}
