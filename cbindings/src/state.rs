//! State

use crate::algorithm::dadapt_dtype;
use crate::handle::{Outcome, null, out, read, read_exclusive, write_if_wanted};
use crate::names::c_name;
use crate::optimizer::dadapt_optimizer;
use crate::status::{DADAPT_ERROR_LENGTH, Failure, dadapt_status};
use dadapt::{Error, Optimizer, StateOwner, TensorId};
use std::ffi::{c_char, c_void};
use std::{ptr, slice};

fn slot_name(optimizer: &Optimizer, id: TensorId, slot: usize) -> Result<&'static str, Error> {
    let algorithm = optimizer.algorithm().name();
    let unknown = || Error::UnknownState { slot: slot.to_string(), algorithm };
    optimizer.state_names(id)?.nth(slot).ok_or_else(unknown)
}

/// How many state arrays a tensor has, whoever owns them: dadapt_algorithm_state_count, and one more
/// where there is a master copy (DADAPT_KEY_MASTER); of a table of rows, 4.
///
/// count: out. Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; count is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_state_count(
    optimizer: *const dadapt_optimizer,
    id: u64,
    count: *mut usize,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let count = unsafe { out(count, "count")? };
        count.write(o.optimizer.state_names(TensorId::from_code(id))?.count());
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// What a tensor's state array of that number is, whoever owns it.
///
/// name: out, as dadapt_algorithm_state_name has it; "master" of a master copy; those of a table of
/// rows are alphak, sk, x0 and weighted_sk. Never freed.
/// dtype: out, what it is kept in, which it is also aligned to.
/// len: out, its elements: those of the tensor, or of its slice, or 0 where the options or
/// dadapt_optimizer_freeze leave the array out. Prodigy drops the p0 of a tensor that is all 0 at its
/// first gradient, where it is the library's. Each is NULL where it is not wanted.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; name, dtype and len are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_state_info(
    optimizer: *const dadapt_optimizer,
    id: u64,
    slot: usize,
    name: *mut *const c_char,
    dtype: *mut dadapt_dtype,
    len: *mut usize,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        let tensor = TensorId::from_code(id);
        let slot = slot_name(&o.optimizer, tensor, slot)?;
        let (found_dtype, _) = o.optimizer.state_bytes(tensor, slot)?;
        let found_len = o.optimizer.state_len(tensor, slot)?;
        // SAFETY: this function's contract.
        unsafe {
            write_if_wanted(name, c_name(slot));
            write_if_wanted(dtype, found_dtype as i32);
            write_if_wanted(len, found_len);
        }
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// A tensor's state array of that number, where the library owns it: to look at and to change
/// between steps.
///
/// state: out, len elements of dtype, aligned to them, in as many bytes as
/// dadapt_optimizer_state_bytes says; NULL where len is 0. It stays where it is until the optimizer
/// is freed or frozen; p0 of Prodigy only until the tensor's first gradient.
/// len, dtype: out, as dadapt_optimizer_state_info has them. Each is NULL where it is not wanted.
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
        let name = slot_name(&o.optimizer, tensor, slot)?;
        let (found_dtype, _) = o.optimizer.state_bytes(tensor, name)?;
        let found_len = o.optimizer.state_len(tensor, name)?;
        let bytes = o.optimizer.raw_state_mut(tensor, name)?;
        let start = if bytes.is_empty() { ptr::null_mut() } else { bytes.as_mut_ptr().cast() };
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

/// The size of a tensor's state array of that number, whoever owns it: of as many elements of its
/// own type as dadapt_optimizer_state_info says and, of DADAPT_DTYPE_Q8, of the exponents that they
/// share: one for each 256 elements and one for what is left over, by slices counted within each
/// 4,096 elements of the parameter.
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
        let (_, found) = o.optimizer.state_bytes(tensor, slot_name(&o.optimizer, tensor, slot)?)?;
        bytes.write(found);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// The values of a tensor's state array of that number as doubles, exactly, whatever it is kept in.
/// Nothing is allocated.
///
/// state: NULL where the library owns it; else the caller's array, only read.
/// first, n: which elements, of the len that dadapt_optimizer_state_info says.
/// values: out, n of them. NULL where n is 0.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE; _STATE_OF_CALLER, where state is NULL and
/// must not be; _STATE_COUNT, where it is not and must be; _LENGTH, where there are not so many
/// elements; _MISALIGNED, _NULL_POINTER.
/// The optimizer must not be in use by another thread.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; state is NULL or holds as many bytes as
/// dadapt_optimizer_state_bytes says; values is NULL or n doubles can be written there, apart from
/// state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_state_values(
    optimizer: *mut dadapt_optimizer,
    id: u64,
    slot: usize,
    state: *const c_void,
    first: usize,
    n: usize,
    values: *mut f64,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        let (optimizer, tensor) = (&o.optimizer, TensorId::from_code(id));
        let name = slot_name(optimizer, tensor, slot)?;
        let (bytes, len) =
            (optimizer.state_bytes(tensor, name)?.1, optimizer.state_len(tensor, name)?);
        if first.checked_add(n).is_none_or(|end| end > len) {
            let detail = format!("{n} elements of {name} from {first} on: there are {len}");
            return Err(Failure::new(DADAPT_ERROR_LENGTH, detail));
        }
        if values.is_null() && n > 0 {
            return Err(null("values"));
        }
        let of_caller = optimizer.tensor_info(tensor)?.2 == StateOwner::Caller;
        // Of the library's own an array that is given is refused, whatever it holds.
        let state = match (state.is_null(), of_caller) {
            (true, _) if !of_caller || bytes > 0 => None,
            (false, true) if bytes > 0 => {
                // SAFETY: this function's contract.
                Some(unsafe { slice::from_raw_parts(state.cast::<u8>(), bytes) })
            }
            _ => Some(&[][..]),
        };
        // All checks, before anything is written.
        optimizer.read_state(tensor, name, state, first, &mut [])?;
        if n > 0 {
            // SAFETY: this function's contract: there is room, which becomes numbers before it is
            // taken for some.
            let to = unsafe {
                values.write_bytes(0, n);
                slice::from_raw_parts_mut(values, n)
            };
            optimizer.read_state(tensor, name, state, first, to)?;
        }
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read_exclusive(optimizer, work) }
}
