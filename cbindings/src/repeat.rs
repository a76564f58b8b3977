//! A step that is given what the step before was given, which need not be read and checked again.

use crate::handle::Outcome;
use crate::structs::Descriptors;
use dadapt::{Optimizer, StepReport};
use std::ops::{Deref, DerefMut};

/// An optimizer, and the descriptors of its last step where nothing has changed it since: whoever
/// borrows it mutably ends that.
pub(crate) struct Repeating {
    optimizer: Optimizer,
    last: Vec<u8>,
    /// Whether `last` are the descriptors of a step after which nothing was changed.
    unchanged: bool,
}

impl Repeating {
    pub(crate) fn new(optimizer: Optimizer) -> Self {
        Repeating { optimizer, last: Vec::new(), unchanged: false }
    }

    /// A step of what the descriptors describe.
    ///
    /// # Safety
    /// [`Descriptors::new`]'s contract holds, and the arrays are as `dadapt_optimizer_step` asks.
    pub(crate) unsafe fn step(&mut self, tensors: Descriptors) -> Outcome<StepReport> {
        // SAFETY: this function's contract.
        let bytes = unsafe { tensors.bytes() };
        let same = bytes == Some(&self.last[..]);
        // Until it has succeeded.
        if std::mem::take(&mut self.unchanged) && same {
            // SAFETY: the last mutable borrow was for a step, which was given the same arrays and succeeded; they are
            // there now as then by this function's contract.
            if let Some(report) = unsafe { self.optimizer.step_again() } {
                let report = report?;
                self.unchanged = true;
                return Ok(report);
            }
        }
        if !same {
            self.last.clear();
            self.last.extend_from_slice(bytes.unwrap_or_default());
        }
        // SAFETY: this function's contract.
        let report = self.optimizer.step_each(|step| unsafe { tensors.add_to(step) })?;
        self.unchanged = bytes.is_some();
        Ok(report)
    }
}

impl Deref for Repeating {
    type Target = Optimizer;
    fn deref(&self) -> &Optimizer {
        &self.optimizer
    }
}

impl DerefMut for Repeating {
    fn deref_mut(&mut self) -> &mut Optimizer {
        self.unchanged = false;
        &mut self.optimizer
    }
}
