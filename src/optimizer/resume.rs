//! What an optimizer carries from step to step beside state arrays: to be saved and put back.

use super::estimator::Estimator;
use super::tensor::{StateOwner, Tensor};
use super::{GroupId, Optimizer, TensorId};
use crate::algorithm::MAX_TOTALS;
use crate::error::{Error, Result};
use crate::key::Key;

/// What an estimate carries from step to step.
///
/// With it, the [`TensorProgress`] of each tensor, the state arrays and the options, an optimizer goes
/// on as another would have done, to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateState {
    /// Steps that made progress.
    pub k: u64,
    /// The estimate.
    pub d: f64,
    /// Running totals by the names of the packages, the rest 0: `numerator_weighted` of Adam, SGD, Lion and
    /// Adan-IP; `gsq_weighted` of Adan and the preprint's Adam; `d_numerator`, `d_max` of Prodigy;
    /// `sksq_weighted`, `gsq_weighted`, `skl1` of AdaGrad.
    pub totals: [f64; MAX_TOTALS],
    /// Norm of SGD's first gradients; of other algorithms 0.
    pub g0_norm: f64,
    /// Whether the last step changed `d`, on which the order of Prodigy's sweeps depends.
    pub d_moved: bool,
}

/// What is known of a tensor beside its state arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorProgress {
    /// Updates since its state was set up. With 0 the next gradient sets the state up, whatever it holds.
    pub steps: u64,
    /// Whether some gradient of its was not 0.
    pub moved: bool,
    /// Whether it was 0 all over at its first gradient, so that Prodigy's `p0` is 0 and takes no memory. Of
    /// other algorithms `false`.
    pub started_at_zero: bool,
    /// Whether its master copy, where it has one, holds the parameter: from its first update on, whatever
    /// `steps` is after [`Optimizer::restart`]. With `false` the next gradient makes the copy anew.
    pub master_is_set: bool,
}

/// Counts of steps beyond it are those of no run, and would overflow some day.
const MOST_STEPS: u64 = 1 << 53;

fn check_count(what: &'static str, steps: u64) -> Result<()> {
    if steps > MOST_STEPS {
        return Err(Error::Resume { what, value: steps as f64 });
    }
    Ok(())
}

impl Optimizer {
    /// What a group's estimate carries on; without one `d` a group, every group's is the same.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`].
    pub fn estimate(&self, group: GroupId) -> Result<EstimateState> {
        if group.index() >= self.groups() {
            return Err(group.unknown(self.groups()));
        }
        let estimator = &self.estimators[self.unit(group.index())];
        let Estimator { k, d, totals, g0_norm, d_moved, .. } = *estimator;
        Ok(EstimateState { k, d, totals, g0_norm, d_moved })
    }

    /// Puts back what a group's estimate had come to. The report is then that of an optimizer that has
    /// not stepped.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`]; [`Error::OutOfBounds`] of `d`, which is bounded as `d0` is;
    /// [`Error::Resume`] of what is not finite, or negative and a norm, or a `k` above 2^53;
    /// [`Error::StepOpen`].
    pub fn set_estimate(&mut self, group: GroupId, state: EstimateState) -> Result<()> {
        self.refuse_open()?;
        if group.index() >= self.groups() {
            return Err(group.unknown(self.groups()));
        }
        Key::D0.check(state.d)?;
        check_count("k", state.k)?;
        if let Some(total) = state.totals.into_iter().find(|total| !total.is_finite()) {
            return Err(Error::Resume { what: "a running total", value: total });
        }
        // SGD divides by it once k > 0.
        let needed = self.descriptor.needs_g0 && state.k > 0;
        if !state.g0_norm.is_finite() || state.g0_norm < 0.0 || needed && state.g0_norm == 0.0 {
            return Err(Error::Resume { what: "g0_norm", value: state.g0_norm });
        }
        let unit = self.unit(group.index());
        let mut estimator = Estimator::new(state.d);
        estimator.k = state.k;
        estimator.totals = state.totals;
        estimator.g0_norm = state.g0_norm;
        estimator.d_moved = state.d_moved;
        estimator.report.k = state.k;
        self.estimators[unit] = estimator;
        Ok(())
    }

    /// What is known of a tensor beside its state arrays.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn tensor_progress(&self, id: TensorId) -> Result<TensorProgress> {
        let tensor = self.registered(id)?;
        let Tensor { steps, moved, started_at_zero, master_is_set, .. } = *tensor;
        Ok(TensorProgress { steps, moved, started_at_zero, master_is_set })
    }

    /// Puts back what was known of a tensor: that its state arrays hold what earlier steps left there, where
    /// `steps` is above 0.
    ///
    /// With `started_at_zero` the library gives back a `p0` of its own, and one of the caller's must be 0.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::StepOpen`]; [`Error::Resume`] of `steps` above 2^53;
    /// [`Error::OutOfMemory`] for a `p0` that had been given back.
    pub fn set_tensor_progress(&mut self, id: TensorId, progress: TensorProgress) -> Result<()> {
        self.refuse_open()?;
        self.registered(id)?;
        check_count("steps", progress.steps)?;
        let copy_of_start = self.descriptor.copy_of_start;
        let tensor = &mut self.tensors[id.index()];
        // What has yet to start has started nowhere.
        let started_at_zero = progress.started_at_zero && progress.steps > 0;
        if let Some(slot) = copy_of_start.filter(|_| tensor.owner == StateOwner::Library) {
            if started_at_zero {
                tensor.free(slot, &mut self.arenas);
            } else {
                tensor.take_back(slot, &mut self.arenas)?;
            }
        }
        (tensor.steps, tensor.moved) = (progress.steps, progress.moved);
        tensor.started_at_zero = started_at_zero && copy_of_start.is_some();
        tensor.master_is_set = progress.master_is_set;
        Ok(())
    }
}
