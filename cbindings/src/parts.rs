//! Step in parts

use crate::handle::{change, null, share, write_if_wanted};
use crate::optimizer::dadapt_optimizer;
use crate::status::dadapt_status;
use crate::step::{dadapt_report, dadapt_tensor};
use crate::structs::{ReportTo, read_one};

/// Begins a step that is given tensors one at a time, so that each gradient can be freed at once.
///
/// dadapt_optimizer_step_tensor follows for each, then dadapt_optimizer_step_end. The bits are
/// those of dadapt_optimizer_step with all of them.
///
/// Until the step has ended or is aborted, whatever else would change the optimizer is
/// DADAPT_ERROR_STEP_OPEN; freeing it is fine.
///
/// Errors: DADAPT_ERROR_NOT_IN_PARTS for Prodigy, unless it is frozen, and under
/// DADAPT_NON_FINITE_SKIP. DADAPT_ERROR_MIXED_LR, _THREADS, _STEP_OPEN, _POISONED, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step_begin(
    optimizer: *mut dadapt_optimizer,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| Ok(o.optimizer.open_step()?)) }
}

/// Updates one tensor in the step that has begun.
///
/// tensor: as in dadapt_optimizer_step. Its gradient may be freed or written again afterwards.
///     Parameters and state must stay where they are, and be used by nobody, until the step has
///     ended: all of SGD's first step is left until then, and so are tensors that have had no
///     gradient other than 0 while nothing else has made progress.
///
/// Several threads may call this at once for different tensors. Meanwhile no other function may use
/// the optimizer but those that take it as const: who begins and ends the step waits for the
/// threads. With several, ask dadapt_last_error what was wrong, and not
/// dadapt_optimizer_last_error.
///
/// Errors: as dadapt_optimizer_step, of this tensor: it is then as it was and may be given again.
/// Those given before are updated already. DADAPT_ERROR_OVERLAP is of this tensor's arrays alone:
/// that those of different tensors share no memory is not checked here.
/// DADAPT_ERROR_NO_STEP_OPEN: none has begun.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new, and nobody changes it otherwise during the call.
/// The arrays are as dadapt_optimizer_step asks; parameters and state until the step has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step_tensor(
    optimizer: *mut dadapt_optimizer,
    tensor: *const dadapt_tensor,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        #[cfg(feature = "fault-injection")]
        o.steps.panic_in_part();
        // SAFETY: this function's contract.
        unsafe { read_one(tensor, |tensor| Ok(o.optimizer.step_part(tensor)?)) }
    };
    // SAFETY: this function's contract: only shared references exist during the call.
    unsafe { share(optimizer, work) }
}

/// Ends the step: updates what was left until now, then the estimate d.
///
/// report: as in dadapt_optimizer_step.
/// Errors: DADAPT_ERROR_COEFFICIENT in SGD's first step, which is over then and has changed nothing
/// but s, which counts for nothing yet; with d_per_group, in those groups whose first step it is,
/// while the others have taken theirs. DADAPT_ERROR_STRUCT_SIZE of the report: the step is still
/// open. DADAPT_ERROR_NO_STEP_OPEN, _POISONED, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new. Parameters and state of all tensors given are
/// where they were and used by nobody; report is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step_end(
    optimizer: *mut dadapt_optimizer,
    report: *mut dadapt_report,
) -> dadapt_status {
    let mut log = None;
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let (to, done) = unsafe { (ReportTo::new(report)?, o.optimizer.close_step()?) };
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

/// Ends the step without an estimate: d and k are as they were. (AdaGrad's totals take in what has
/// been updated, since they go with its state.)
///
/// Tensors that have been updated stay so; the others are as they were. (SGD's first step has kept
/// gradients in s, which counts for nothing yet.) Where no step is open nothing is done, and count
/// is 0.
///
/// ids: out, the tensors that have been updated, the first capacity of them; NULL where capacity is
/// 0.
/// count: out, how many have been updated, be it more than capacity; NULL where it is not wanted.
/// Errors: DADAPT_ERROR_NULL_POINTER, and the step is still open; DADAPT_ERROR_POISONED.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; ids is NULL or capacity numbers can be written
/// there; count is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_step_abort(
    optimizer: *mut dadapt_optimizer,
    ids: *mut u64,
    capacity: usize,
    count: *mut usize,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        if ids.is_null() && capacity > 0 {
            return Err(null("ids"));
        }
        let updated = o.optimizer.abort_step();
        for (place, id) in updated.iter().take(capacity).enumerate() {
            // SAFETY: this function's contract: `place < capacity`.
            unsafe { ids.add(place).write(id.code()) };
        }
        // SAFETY: this function's contract.
        unsafe { write_if_wanted(count, updated.len()) };
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}
