//! A hook for the tests, which no header declares.

use crate::handle::change;
use crate::optimizer::dadapt_optimizer;
use crate::status::dadapt_status;
use dadapt::Fault;

/// Makes the next step panic: 1 before the sweep, 2 in it. With 0 this call itself panics.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_fault_inject(
    optimizer: *mut dadapt_optimizer,
    place: i32,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        o.optimizer.inject(match place {
            1 => Fault::BeforeSweep,
            2 => Fault::InSweep,
            _ => panic!("injected in the call"),
        });
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}
