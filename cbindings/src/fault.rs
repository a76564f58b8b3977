//! A hook for the tests, which no header declares.

use crate::handle::change;
use crate::optimizer::dadapt_optimizer;
use crate::status::dadapt_status;
use dadapt::Fault;
use std::sync::atomic::Ordering;

/// Makes the next step panic: 1 before the sweep, 2 in it; 3 makes the next tensor of a step in
/// parts. With 0 this call itself panics.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_fault_inject(
    optimizer: *mut dadapt_optimizer,
    place: i32,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        match place {
            1 => o.optimizer.inject(Fault::BeforeSweep),
            2 => o.optimizer.inject(Fault::InSweep),
            3 => o.steps.part_panics.store(true, Ordering::Relaxed),
            _ => panic!("injected in the call"),
        }
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}
