//! Going on from an earlier run

use crate::config::dadapt_group;
use crate::handle::{Outcome, change, null, read};
use crate::optimizer::dadapt_optimizer;
use crate::status::{DADAPT_ERROR_RESERVED, Failure, dadapt_status};
use crate::structs::{MAX_STRUCT, bad_size};
use dadapt::{EstimateState, GroupId, TensorId, TensorProgress};
use std::mem::size_of;
use std::ptr;

/// What an estimate carries from step to step. With it, the dadapt_progress of each tensor, the
/// state arrays and the options, an optimizer goes on as another would have done, to the bit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dadapt_estimate {
    /// sizeof(dadapt_estimate).
    pub struct_size: usize,
    /// Steps that made progress.
    pub k: u64,
    /// The estimate.
    pub d: f64,
    /// Running totals by the names of the Python packages, the rest 0: numerator_weighted of adam,
    /// sgd, lion and experimental_adan_ip; gsq_weighted of adan and experimental_adam_preprint;
    /// d_numerator, d_max of prodigy; sksq_weighted, gsq_weighted, skl1 of adagrad.
    pub totals: [f64; 3],
    /// Norm of the first gradients of sgd; of other algorithms 0.
    pub g0_norm: f64,
    /// 1 where the last step changed d, on which the order of Prodigy's sweeps depends; else 0.
    pub d_moved: i32,
    /// 0.
    pub reserved: i32,
}

/// What is known of a tensor beside its state arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dadapt_progress {
    /// sizeof(dadapt_progress).
    pub struct_size: usize,
    /// Updates since its state was set up. With 0 the next gradient sets the state up, whatever it
    /// holds.
    pub steps: u64,
    /// 1 where some gradient of its was not 0, else 0.
    pub moved: i32,
    /// 1 where it was 0 all over at its first gradient, so that Prodigy's p0 is 0 and, of the
    /// library's own, takes no memory; else 0.
    pub started_at_zero: i32,
    /// 1 where its master copy, if it has one, holds the parameter: from its first update on, whatever
    /// steps is after dadapt_optimizer_restart. With 0 the next gradient makes the copy anew.
    pub master_is_set: i32,
    /// 0.
    pub reserved: i32,
}

/// A struct of a call, as far as both sides know it.
///
/// # Safety
/// `start` is null or points to a struct that starts with its size.
unsafe fn size_of_struct<T>(start: *const T, name: &str, least: usize) -> Outcome<usize> {
    if start.is_null() {
        return Err(null(name));
    }
    // SAFETY: this function's contract.
    let size = unsafe { start.cast::<usize>().read_unaligned() };
    if !(least..=MAX_STRUCT).contains(&size) {
        return Err(bad_size(format!("{name}->"), size, "its size in any version"));
    }
    Ok(size)
}

/// # Safety
/// `from` is null or points to a struct that starts with its size.
unsafe fn read_struct<T: Copy>(from: *const T, name: &str) -> Outcome<T> {
    // SAFETY: this function's contract.
    let size = unsafe { size_of_struct(from, name, size_of::<T>())? };
    for byte in size_of::<T>()..size {
        // SAFETY: the struct has `size` bytes.
        if unsafe { from.cast::<u8>().add(byte).read() } != 0 {
            let detail =
                format!("{name} has fields of a later version (byte {byte}) that are not 0");
            return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
        }
    }
    // SAFETY: it has all fields of this version, and what C wrote is a value of each.
    Ok(unsafe { from.read_unaligned() })
}

/// Writes what the caller's version has; its struct_size stays.
///
/// # Safety
/// `to` is null or points to a struct that starts with its size and can be written.
unsafe fn write_struct<T: Copy>(to: *mut T, name: &str, value: T) -> Outcome {
    let skip = size_of::<usize>();
    // SAFETY: this function's contract.
    unsafe {
        let size = size_of_struct(to, name, skip)?.min(size_of::<T>());
        let (from, to) = (ptr::from_ref(&value).cast::<u8>(), to.cast::<u8>());
        ptr::copy_nonoverlapping(from.add(skip), to.add(skip), size - skip);
    }
    Ok(())
}

fn switch(value: i32, field: &str) -> Outcome<bool> {
    match value {
        0 | 1 => Ok(value == 1),
        _ => Err(Failure::new(DADAPT_ERROR_RESERVED, format!("{field} is {value}, not 0 or 1"))),
    }
}

fn zero(value: i32, field: &str) -> Outcome {
    match value {
        0 => Ok(()),
        _ => Err(Failure::new(DADAPT_ERROR_RESERVED, format!("{field} is {value}, not 0"))),
    }
}

/// What a group's estimate carries on, to be saved. Without d_per_group, every group's is the same.
///
/// estimate: out, as far as its struct_size goes.
/// Errors: DADAPT_ERROR_UNKNOWN_GROUP, _STRUCT_SIZE, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; estimate is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_estimate(
    optimizer: *const dadapt_optimizer,
    group: dadapt_group,
    estimate: *mut dadapt_estimate,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        let state = o.optimizer.estimate(GroupId::new(group as usize))?;
        let value = dadapt_estimate {
            struct_size: size_of::<dadapt_estimate>(),
            k: state.k,
            d: state.d,
            totals: state.totals,
            g0_norm: state.g0_norm,
            d_moved: i32::from(state.d_moved),
            reserved: 0,
        };
        // SAFETY: this function's contract.
        unsafe { write_struct(estimate, "estimate", value) }
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Puts back what a group's estimate had come to, in this library or, by the names above, in the
/// Python packages. The report is then that of an optimizer that has not stepped.
///
/// Set DADAPT_KEY_D0 first, which is fixed while k is above 0. Allowed between steps.
///
/// Errors: DADAPT_ERROR_OUT_OF_BOUNDS: d is not within the bounds of d0, a total is not finite,
/// g0_norm is not a norm, k is above 2^53. DADAPT_ERROR_UNKNOWN_GROUP, _STEP_OPEN, _STRUCT_SIZE,
/// _RESERVED, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; estimate is NULL or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_estimate(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    estimate: *const dadapt_estimate,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let given = unsafe { read_struct(estimate, "estimate")? };
        zero(given.reserved, "estimate->reserved")?;
        let state = EstimateState {
            k: given.k,
            d: given.d,
            totals: given.totals,
            g0_norm: given.g0_norm,
            d_moved: switch(given.d_moved, "estimate->d_moved")?,
        };
        Ok(o.optimizer.set_estimate(GroupId::new(group as usize), state)?)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// What is known of a tensor beside its state arrays, to be saved.
///
/// progress: out, as far as its struct_size goes.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _STRUCT_SIZE, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; progress is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_tensor_progress(
    optimizer: *const dadapt_optimizer,
    id: u64,
    progress: *mut dadapt_progress,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        let known = o.optimizer.tensor_progress(TensorId::from_code(id))?;
        let value = dadapt_progress {
            struct_size: size_of::<dadapt_progress>(),
            steps: known.steps,
            moved: i32::from(known.moved),
            started_at_zero: i32::from(known.started_at_zero),
            master_is_set: i32::from(known.master_is_set),
            reserved: 0,
        };
        // SAFETY: this function's contract.
        unsafe { write_struct(progress, "progress", value) }
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Puts back what was known of a tensor. Where steps is above 0, the state arrays hold what those
/// steps left there: fill them by dadapt_optimizer_state, or give them to the next step. A p0 of the
/// caller's is 0 all over with started_at_zero.
///
/// Allowed between steps.
/// Errors: DADAPT_ERROR_OUT_OF_BOUNDS: steps is above 2^53. DADAPT_ERROR_UNKNOWN_TENSOR, _STEP_OPEN,
/// _STRUCT_SIZE, _RESERVED, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; progress is NULL or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_tensor_progress(
    optimizer: *mut dadapt_optimizer,
    id: u64,
    progress: *const dadapt_progress,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let given = unsafe { read_struct(progress, "progress")? };
        zero(given.reserved, "progress->reserved")?;
        let known = TensorProgress {
            steps: given.steps,
            moved: switch(given.moved, "progress->moved")?,
            started_at_zero: switch(given.started_at_zero, "progress->started_at_zero")?,
            master_is_set: switch(given.master_is_set, "progress->master_is_set")?,
        };
        Ok(o.optimizer.set_tensor_progress(TensorId::from_code(id), known)?)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}
