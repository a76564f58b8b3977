//! What a step finds out before it writes: is there progress, and with what coefficients.

use super::estimator::Estimator;
use super::gather::Unit;
use super::report::Movement;
use super::tensor::StateOwner;
use super::{Optimizer, TensorId};
use crate::algorithm::{Descriptor, Scalars, decay, pass};
use crate::dtype::{DType, Element};
use crate::engine::blocks::{Plan, rounded};
use crate::engine::job::Job;
use crate::error::{Error, Result};
use crate::kernel::block::GroupPlan;
use crate::kernel::rounding::mix;
use crate::kernel::scan::{any_nonzero, first_non_finite};
use crate::key::{Key, NonFinite};
use std::sync::atomic::Ordering;

impl Optimizer {
    pub(super) fn refuse_unusable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(Error::Poisoned);
        }
        self.refuse_open()
    }

    pub(super) fn refuse_open(&self) -> Result<()> {
        if self.parts.is_some() { Err(Error::StepOpen) } else { Ok(()) }
    }

    /// The index of the estimate that a group belongs to.
    pub(super) fn unit(&self, group: usize) -> usize {
        if self.settings.optimizer().is_on(Key::DPerGroup) { group } else { 0 }
    }

    /// Whether `d` is estimated.
    pub(super) fn adapts(&self) -> bool {
        self.descriptor.adapts() && !self.frozen
    }

    /// The lr that all groups of an estimate but the frozen ones share; 0 where all are frozen. The
    /// largest where nothing is estimated, and lrs may differ.
    pub(super) fn common_lr(&self, estimator: usize) -> Result<f64> {
        let mut common = 0.0;
        for group in (0..self.groups()).filter(|group| self.unit(*group) == estimator) {
            let lr = self.settings.group(group).get(Key::Lr);
            if self.adapts() && lr != 0.0 && common != 0.0 && lr != common {
                return Err(Error::MixedLr { group, lr, other: common });
            }
            common = lr.max(common);
        }
        Ok(common)
    }

    pub(super) fn non_finite(&self) -> NonFinite {
        match self.settings.optimizer().get(Key::NonFinite) {
            code if code == f64::from(NonFinite::Skip) => NonFinite::Skip,
            code if code == f64::from(NonFinite::Propagate) => NonFinite::Propagate,
            _ => NonFinite::Reject,
        }
    }

    /// What a sweep does that does all: an optimizer that estimates nothing leaves the sums out. The
    /// groups say whether there is a first moment.
    pub(super) fn passes(&self) -> u8 {
        let all = pass::STATE | pass::PARAMETER;
        if self.adapts() { all | pass::SUMS } else { all }
    }

    /// Whether every gradient is finite.
    pub(super) fn is_finite(&self, unit: &Unit) -> bool {
        let machine = self.machine();
        unit.jobs.all_finite(&machine) && unit.tables().all(|(job, _)| job.is_finite(&machine))
    }

    /// Where the value is that [`is_finite`](Self::is_finite) has found.
    pub(super) fn find_non_finite(&self, unit: &Unit) -> Error {
        let dense = unit.jobs.iter().zip(&unit.active).find_map(|(job, id)| {
            // SAFETY: `gather_dense` checked the gradient, and its borrow lasts for the step.
            let place = unsafe { first_non_finite(job.formats.g, job.streams.g, job.len) };
            place.map(|place| (id, place))
        });
        let rows = || unit.tables().find_map(|(job, id)| Some((id, job.first_non_finite()?)));
        let (id, (index, value)) = dense.or_else(rows).expect("the scan found one");
        let tensor = self.tensors[id.index()].name.clone();
        Error::NonFiniteGradient { tensor, index, value }
    }

    /// Decides whether a step makes progress, and plans it. Returns why it does not.
    pub(super) fn prepare(&self, estimator: usize, unit: &mut Unit) -> Result<Option<Movement>> {
        let estimate = &self.estimators[estimator];
        unit.grad_norm = f64::NAN;
        if unit.lr == 0.0 {
            return Ok(Some(Movement::LrZero));
        }
        if self.needs_g0(estimate) {
            let weight = |job: &Job| self.settings.group(job.group).get(Key::LayerScale);
            let sums = unit.jobs.sum_sq(&self.machine(), weight);
            unit.grad_norm = rounded(&sums)[0].sqrt();
        }
        if !self.makes_progress(estimate, unit) {
            return Ok(Some(Movement::NoProgress));
        }
        if self.needs_g0(estimate) && !unit.grad_norm.is_finite() {
            return Ok(Some(Movement::NonFinite));
        }
        unit.jobs.iter_mut().for_each(|job| self.note_zero_start(job));
        self.plan_with(estimate, estimate.d, unit, self.passes())?;
        Ok(None)
    }

    /// Finds out whether a tensor that starts here starts at zero.
    pub(super) fn note_zero_start(&self, job: &mut Job) {
        if let Some(slot) = self.descriptor.copy_of_start
            && job.first
            && self.adapts()
        {
            // SAFETY: `gather_dense` checked the parameter, and its borrow lasts for the step.
            let zero = unsafe {
                let (p, dtype) = job.parameter();
                !any_nonzero(dtype, p, job.len)
            };
            job.zeros = zero.then_some(slot);
        }
    }

    /// Whether this step takes `g0`.
    pub(super) fn needs_g0(&self, estimate: &Estimator) -> bool {
        self.descriptor.needs_g0 && estimate.k == 0
    }

    fn makes_progress(&self, estimate: &Estimator, unit: &Unit) -> bool {
        if self.needs_g0(estimate) {
            return unit.grad_norm != 0.0;
        }
        if !self.adapts() {
            return !(unit.active.is_empty() && unit.tables.is_empty());
        }
        if estimate.k > 0 {
            let moved = |id: &TensorId| self.tensors[id.index()].moved;
            if self.descriptor.accumulates || unit.active.iter().any(moved) {
                return true;
            }
        }
        // A table that is here has a gradient other than 0.
        !unit.tables.is_empty() || unit.jobs.iter().any(|job| self.moves(job))
    }

    /// Whether a gradient, coupled decay included, is not 0 somewhere.
    pub(super) fn moves(&self, job: &Job) -> bool {
        // SAFETY: `gather_dense` checked the arrays, and their borrows last for the step.
        let in_g = unsafe { any_nonzero(job.formats.g, job.streams.g, job.len) };
        let decay = self.descriptor.decay.kind(self.settings.group(job.group));
        // SAFETY: as above.
        in_g || decay == decay::COUPLED
            && unsafe {
                let (p, dtype) = job.parameter();
                any_nonzero(dtype, p, job.len)
            }
    }

    /// Counts the step of the tensors, and remembers whether they have moved and which started at zero.
    pub(super) fn note_progress(&mut self, unit: &Unit) {
        for (job, id) in unit.jobs.iter().zip(&unit.active) {
            let moved = self.tensors[id.index()].moved || self.moves(job);
            self.note_update(job, *id, moved);
        }
        for id in &unit.tables {
            self.tensors[id.index()].steps += 1;
        }
    }

    #[inline]
    pub(super) fn note_update(&mut self, job: &Job, id: TensorId, moved: bool) {
        let tensor = &mut self.tensors[id.index()];
        (tensor.steps, tensor.moved, tensor.master_is_set) = (tensor.steps + 1, moved, true);
        if job.first
            && let Some(slot) = job.zeros
        {
            tensor.started_at_zero = true;
            tensor.free(slot, &mut self.arenas);
            if tensor.owner == StateOwner::Caller {
                let bytes = tensor.slot_bytes(slot);
                if bytes > 0 {
                    // SAFETY: `gather_dense` checked the array, and its borrow lasts for the step.
                    unsafe { job.streams.state[slot].write_bytes(0, bytes) };
                }
            }
        }
    }

    /// The plan of a tensor's group, with these bits of its pass.
    pub(super) fn plan_of(
        &self,
        descriptor: &Descriptor,
        scalars: &Scalars,
        group: usize,
        dtype: DType,
        passes: u8,
    ) -> Result<Plan> {
        let (optimizer, options) = (self.settings.optimizer(), self.settings.group(group));
        let coeffs = (descriptor.coeffs)(scalars, options);
        let fits = |coeff: &f64| match dtype {
            DType::F64 => coeff.is_finite(),
            _ => f32::from_f64(*coeff).is_finite(),
        };
        if !coeffs.iter().all(fits) {
            return Err(Error::Coefficient { group, dtype, d: scalars.next_d });
        }
        let moment = (descriptor.keeps_moment)(optimizer, options);
        let mend = passes & pass::MEND != 0;
        let kernel = GroupPlan {
            coeffs,
            decay: if mend { decay::NONE } else { descriptor.decay.kind(options) },
            pass: passes | if moment { pass::MOMENT } else { 0 },
        };
        let weights = (descriptor.weights)(scalars, options);
        let noise = mix(mix(optimizer.get(Key::Seed) as u64) ^ scalars.k);
        Ok(Plan { group, dtype, steps: scalars.steps, kernel, noise, weights })
    }

    /// Plans for all tensors of a step, one for those that have all in common.
    pub(super) fn plan_with(
        &self,
        estimate: &Estimator,
        next_d: f64,
        unit: &mut Unit,
        passes: u8,
    ) -> Result<()> {
        unit.plans.clear();
        let mut scalars = estimate.scalars(unit.lr, self.settings.optimizer());
        scalars.next_d = next_d;
        if !unit.grad_norm.is_nan() {
            scalars.g0_norm = unit.grad_norm;
        }
        for (job, id) in unit.jobs.iter_mut().zip(&unit.active) {
            scalars.lr = self.settings.group(job.group).get(Key::Lr);
            if self.descriptor.counts_per_tensor {
                scalars.steps = self.tensors[id.index()].steps;
            }
            let fits = |plan: &Plan| {
                (plan.group, plan.dtype, plan.steps) == (job.group, job.dtype, scalars.steps)
            };
            job.plan = match unit.plans.iter().rposition(fits) {
                Some(plan) => plan,
                None => {
                    let (group, dtype) = (job.group, job.dtype);
                    unit.plans.push(self.plan_of(
                        &self.descriptor,
                        &scalars,
                        group,
                        dtype,
                        passes,
                    )?);
                    unit.plans.len() - 1
                }
            };
        }
        self.plan_rows(scalars, unit, passes)
    }
}
