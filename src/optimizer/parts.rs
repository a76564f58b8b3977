//! A step whose gradients come one tensor at a time, as a backward pass makes them.

use super::gather::Unit;
use super::given::TensorStep;
use super::overlap::OverlapCheck;
use super::report::{Movement, StepReport};
use super::{Optimizer, TensorId};
use crate::algorithm::Init;
use crate::engine::blocks::{Sums, merge, no_sums, rounded};
use crate::engine::job::{Gradient, Job};
use crate::error::{Error, Result};
use crate::kernel::fp_env::FpEnv;
use crate::key::{Key, NonFinite};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A step that has begun and takes tensors one at a time, from any thread.
///
/// Dropped, it is aborted. Parameters stay borrowed until it has ended:
///
/// ```compile_fail,E0597
/// # use dadapt::{Algorithm, Config, DType, GroupId, Optimizer, TensorStep};
/// let mut optimizer = Optimizer::new(&Config::new(Algorithm::Sgd)).unwrap();
/// let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 8).unwrap();
/// let step = optimizer.step_begin().unwrap();
/// {
///     let mut p = vec![1.0f32; 8];
///     step.step_tensor(TensorStep::new(id, &mut p, &[1.0; 8])).unwrap();
/// }
/// step.step_end().unwrap();
/// ```
#[derive(Debug)]
pub struct StepInParts<'o, 'p> {
    optimizer: &'o mut Optimizer,
    /// Invariant in `'p`: else a call could shorten the borrow of a parameter to itself.
    borrow: PhantomData<&'p mut &'p mut [u8]>,
}

// `step_tensor` may be called from several threads.
const _: fn() = || {
    fn may_be_shared<T: Sync>() {}
    may_be_shared::<StepInParts<'_, '_>>();
};

impl<'p> StepInParts<'_, 'p> {
    /// Updates one tensor; its gradient may be freed or written again afterwards.
    ///
    /// Several threads may call it at once. Two kinds of tensors are left until
    /// [`step_end`](Self::step_end), which is why parameters stay borrowed: all of SGD's first step,
    /// whose norm of all gradients is not known before (the gradient is kept in `s`), and those
    /// that have had no gradient other than 0 while nothing else has made progress.
    ///
    /// # Errors
    /// As [`Optimizer::step`], of this tensor, which is then as it was. Those given before are updated
    /// already.
    ///
    /// # Determinism
    /// The bits are those of [`Optimizer::step`] with all the tensors, whatever their order. (In a
    /// gradient of zeros that is left until the end, -0 counts as 0.)
    pub fn step_tensor(&self, tensor: TensorStep<'p, '_>) -> Result<()> {
        // SAFETY: the tensor's borrows last as long as `step_part` asks for.
        unsafe { self.optimizer.step_part(&tensor) }
    }

    /// Ends the step: updates what was left until now, then the estimate `d`.
    ///
    /// # Errors
    /// [`Error::Coefficient`] in SGD's first step, which then has changed nothing; with one `d` a group,
    /// in those groups whose first step it is, while the others have taken theirs. The step is over
    /// either way.
    pub fn step_end(self) -> Result<StepReport> {
        // SAFETY: the borrows of all parameters and states given last for `'p`, which `self` carries.
        let report = unsafe { self.optimizer.close_step() };
        if let Ok(report) = &report {
            self.optimizer.log(report);
        }
        report
    }

    /// Ends the step without an estimate: `d` and `k` are as they were. (AdaGrad's totals take in what
    /// has been updated, since they go with its state.)
    ///
    /// Returns the tensors that have been updated.
    pub fn step_abort(self) -> Vec<TensorId> {
        self.optimizer.abort_step()
    }
}

impl Drop for StepInParts<'_, '_> {
    fn drop(&mut self) {
        self.optimizer.abort_step();
    }
}

/// What a step in parts has gathered.
#[derive(Debug)]
pub(super) struct Parts {
    progress: Mutex<Progress>,
    /// Memory of tensors that are done, for the next.
    spare: Mutex<Vec<(Unit, OverlapCheck)>>,
}

#[derive(Debug)]
struct Progress {
    /// By estimate.
    sums: Vec<Sums>,
    /// Parameters sent to infinity, by estimate.
    overflows: Vec<u64>,
    updated: Vec<Given>,
    waiting: Vec<Given>,
    /// Updated tables, with their estimates.
    tables: Vec<(usize, TensorId)>,
}

/// A tensor that was given.
#[derive(Clone, Copy, Debug)]
struct Given {
    id: TensorId,
    job: Job,
    /// Whether some gradient of its was not 0, this one included.
    moved: bool,
}

impl Parts {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn spare(&self) -> MutexGuard<'_, Vec<(Unit, OverlapCheck)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Poisons the optimizer unless it is forgotten: a panic has come in between.
struct Writing<'a>(&'a AtomicBool);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Optimizer {
    /// Begins a step that takes tensors one at a time, so that each gradient can be freed at once.
    ///
    /// Until it has ended, parameters and state that were given stay borrowed.
    ///
    /// # Errors
    /// [`Error::NotInParts`] for Prodigy, whose parameters wait for the new `d`, and under
    /// [`NonFinite::Skip`], since a tensor that has been updated cannot be skipped any more.
    /// [`Error::MixedLr`], [`Error::Threads`], [`Error::StepOpen`], [`Error::Poisoned`].
    pub fn step_begin<'p>(&mut self) -> Result<StepInParts<'_, 'p>> {
        self.open_step()?;
        Ok(StepInParts { optimizer: self, borrow: PhantomData })
    }

    /// For other languages: [`step_begin`](Self::step_begin) without its guard.
    ///
    /// # Errors
    /// As [`step_begin`](Self::step_begin).
    #[doc(hidden)]
    pub fn open_step(&mut self) -> Result<()> {
        self.refuse_unusable()?;
        let reason = if self.descriptor.uses_next_d && self.adapts() {
            Some("its parameters move by a d that all gradients decide; call step instead")
        } else if self.non_finite() == NonFinite::Skip {
            Some("non_finite = skip could not take back what is updated; set reject or propagate")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(Error::NotInParts { algorithm: self.descriptor.name, reason });
        }
        for estimator in 0..self.estimators.len() {
            self.common_lr(estimator)?;
        }
        // What waits for the end is swept at once then.
        let all = self.tensors.iter().fold(0, |sum: usize, tensor| sum.saturating_add(tensor.len));
        self.threads.prepare(all)?;
        self.begun += 1;
        let progress = Progress {
            sums: self.estimators.iter().map(|_| no_sums()).collect(),
            overflows: vec![0; self.estimators.len()],
            updated: Vec::new(),
            waiting: Vec::new(),
            tables: Vec::new(),
        };
        let spare = Mutex::new(Vec::new());
        self.parts = Some(Parts { progress: Mutex::new(progress), spare });
        Ok(())
    }

    /// For other languages: [`StepInParts::step_tensor`].
    ///
    /// # Errors
    /// As [`StepInParts::step_tensor`]; [`Error::NoStepOpen`].
    ///
    /// # Safety
    /// Parameter and state stay valid, and are used by nobody else, until the step has ended; the
    /// gradient until this returns.
    #[doc(hidden)]
    pub unsafe fn step_part(&self, given: &TensorStep<'_, '_>) -> Result<()> {
        let _env = FpEnv::set_default();
        let parts = self.parts.as_ref().ok_or(Error::NoStepOpen)?;
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(Error::Poisoned);
        }
        let tensor = self.registered(given.id)?;
        if tensor.seen.swap(self.begun, Ordering::AcqRel) == self.begun {
            return Err(Error::TensorTwice { tensor: tensor.name.clone() });
        }
        let (mut unit, mut overlap) = parts.spare().pop().unwrap_or_default();
        // SAFETY: this function's own contract.
        let outcome = unsafe { self.update_part(parts, given, &mut unit, &mut overlap) };
        unit.clear();
        overlap.clear();
        parts.spare().push((unit, overlap));
        if outcome.is_err() {
            tensor.seen.store(0, Ordering::Release);
        }
        outcome
    }

    /// # Safety
    /// As [`step_part`](Self::step_part).
    // Not inlined: no float operation may move out of the environment that `step_part` sets.
    #[inline(never)]
    unsafe fn update_part(
        &self,
        parts: &Parts,
        given: &TensorStep<'_, '_>,
        unit: &mut Unit,
        overlap: &mut OverlapCheck,
    ) -> Result<()> {
        let tensor = self.registered(given.id)?;
        if tensor.width.is_some() {
            // SAFETY: this function's own contract.
            return unsafe { self.update_rows(parts, given, unit, overlap) };
        }
        // SAFETY: nothing overlaps, or the jobs are not used; the caller vouches for the borrows, and
        // `step_part` clears the jobs.
        unsafe { self.gather_dense(tensor, given, overlap, unit)? };
        self.refuse_overlap(overlap)?;
        let Some(job) = unit.jobs.iter_mut().next() else { return Ok(()) };
        self.note_zero_start(job);
        let mut job = *job;
        let estimator = self.unit(job.group);
        let estimate = &self.estimators[estimator];
        unit.lr = self.common_lr(estimator)?;
        unit.grad_norm = f64::NAN;
        let moved = self.registered(given.id)?.moved;
        self.refuse_non_finite(unit)?;
        if self.needs_g0(estimate) {
            let weight = |job: &Job| self.settings.group(job.group).get(Key::LayerScale);
            let sum_sq = unit.jobs.sum_sq(&self.machine(), weight);
            let slot = self.descriptor.state.iter().position(|slot| slot.init == Init::Zero);
            let slot = slot.expect("an algorithm that needs g0 sums gradients");
            let moved = moved || self.moves(&job);
            // Also where an earlier step made no progress: its `s` is 0, and `x0` the parameter.
            job.first = true;
            // SAFETY: `gather_dense` checked both arrays, and that they are apart.
            unsafe { job.keep_gradient(self.token, slot) };
            let mut progress = parts.progress();
            merge(&mut progress.sums[estimator], &sum_sq);
            progress.waiting.push(Given { id: given.id, job, moved });
            return Ok(());
        }
        self.plan_with(estimate, estimate.d, unit, self.passes())?;
        let started = estimate.k > 0 && (moved || self.descriptor.accumulates);
        let moves = !(started && moved) && self.moves(&job);
        let mut given = Given { id: given.id, job, moved: moved || moves };
        if self.adapts() && !moves && !started {
            given.job.gradient = Gradient::Zero;
            parts.progress().waiting.push(given);
            return Ok(());
        }
        let writing = Writing(&self.poisoned);
        let sums = self.sweep(unit);
        std::mem::forget(writing);
        let mut progress = parts.progress();
        merge(&mut progress.sums[estimator], &sums);
        progress.overflows[estimator] += unit.overflows();
        progress.updated.push(given);
        Ok(())
    }

    fn refuse_non_finite(&self, unit: &Unit) -> Result<()> {
        if self.non_finite() == NonFinite::Propagate {
            return Ok(());
        }
        if self.is_finite(unit) { Ok(()) } else { Err(self.find_non_finite(unit)) }
    }

    /// The same of a table; one whose gradient is 0 all over is left as it is.
    ///
    /// # Safety
    /// As [`step_part`](Self::step_part).
    unsafe fn update_rows(
        &self,
        parts: &Parts,
        given: &TensorStep<'_, '_>,
        unit: &mut Unit,
        overlap: &mut OverlapCheck,
    ) -> Result<()> {
        self.gather_rows(self.registered(given.id)?, given, overlap, unit)?;
        self.refuse_overlap(overlap)?;
        let Some(group) = unit.tables().next().map(|(job, _)| job.group) else { return Ok(()) };
        let estimator = self.unit(group);
        unit.lr = self.common_lr(estimator)?;
        self.refuse_non_finite(unit)?;
        let estimate = &self.estimators[estimator];
        self.plan_with(estimate, estimate.d, unit, self.passes())?;
        let writing = Writing(&self.poisoned);
        let sums = self.sweep(unit);
        std::mem::forget(writing);
        let mut progress = parts.progress();
        merge(&mut progress.sums[estimator], &sums);
        progress.tables.push((estimator, given.id));
        Ok(())
    }

    /// For other languages: [`StepInParts::step_end`].
    ///
    /// # Errors
    /// As [`StepInParts::step_end`]; [`Error::NoStepOpen`].
    ///
    /// # Safety
    /// What was given to [`step_part`](Self::step_part) in this step is still valid.
    #[doc(hidden)]
    pub unsafe fn close_step(&mut self) -> Result<StepReport> {
        let _env = FpEnv::set_default();
        let parts = self.parts.take().ok_or(Error::NoStepOpen)?;
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(Error::Poisoned);
        }
        let mut progress = parts.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this function's own contract.
        let closed = unsafe { self.close_with(&mut progress) };
        // Also where the rest cannot be done: what is updated stays so.
        self.note_updates(&progress);
        self.drop_kept(&progress);
        closed.map(|()| self.estimators[0].report)
    }

    /// # Safety
    /// As [`close_step`](Self::close_step).
    #[inline(never)]
    unsafe fn close_with(&mut self, progress: &mut Progress) -> Result<()> {
        let mut units: Vec<Unit> = Vec::new();
        let mut outcome = Ok(());
        for estimator in 0..self.estimators.len() {
            let mut unit = Unit { grad_norm: f64::NAN, ..Unit::default() };
            for given in &progress.waiting {
                if self.unit(given.job.group) == estimator {
                    unit.jobs.spare().write(given.job);
                    // SAFETY: it was made; as when it was checked: the caller vouches that the arrays are valid.
                    unsafe { unit.jobs.add_spare() };
                    unit.active.push(given.id);
                }
            }
            unit.stays = self.close_unit(estimator, &mut unit, progress).unwrap_or_else(|error| {
                // Of this estimate alone: the others have moved already, and are settled.
                outcome = Err(error);
                Some(Movement::NoProgress)
            });
            units.push(unit);
        }
        let writing = Writing(&self.poisoned);
        for (estimator, unit) in units.iter().enumerate() {
            if unit.stays.is_none() && !unit.active.is_empty() {
                merge(&mut progress.sums[estimator], &self.sweep(unit));
                progress.overflows[estimator] += unit.overflows();
            }
        }
        std::mem::forget(writing);
        for (estimator, unit) in units.iter().enumerate() {
            if let Some(movement) = unit.stays {
                self.estimators[estimator].stay(movement);
                continue;
            }
            let ran = |given: &&Given| self.unit(given.job.group) == estimator;
            progress.updated.extend(progress.waiting.extract_if(.., |given| ran(&&*given)));
            // As whole steps do: where any tensor's sums are not finite, in all.
            let given = progress.updated.iter().filter(ran);
            self.saturate_state(&progress.sums[estimator], given.map(|given| &given.job));
            if !unit.grad_norm.is_nan() {
                self.estimators[estimator].g0_norm = unit.grad_norm;
            }
            let sums = rounded(&progress.sums[estimator]);
            self.settle(estimator, unit.lr, unit.grad_norm, &sums);
            self.estimators[estimator].report.overflows = progress.overflows[estimator];
        }
        outcome
    }

    /// Decides whether a step in parts made progress, and plans what has waited for that.
    fn close_unit(
        &self,
        estimator: usize,
        unit: &mut Unit,
        progress: &mut Progress,
    ) -> Result<Option<Movement>> {
        unit.lr = self.common_lr(estimator)?;
        if unit.lr == 0.0 {
            return Ok(Some(Movement::LrZero));
        }
        let estimate = &self.estimators[estimator];
        if self.needs_g0(estimate) {
            let sums = std::mem::replace(&mut progress.sums[estimator], no_sums());
            unit.grad_norm = rounded(&sums)[0].sqrt();
            if unit.grad_norm == 0.0 {
                return Ok(Some(Movement::NoProgress));
            }
            if !unit.grad_norm.is_finite() {
                return Ok(Some(Movement::NonFinite));
            }
        } else {
            let mut ran = progress.updated.iter().map(|updated| self.unit(updated.job.group));
            let total = self.adapts() && self.descriptor.accumulates && estimate.k > 0;
            let tables = || progress.tables.iter().any(|(unit, _)| *unit == estimator);
            if !total && !ran.any(|unit| unit == estimator) && !tables() {
                return Ok(Some(Movement::NoProgress));
            }
        }
        self.plan_with(estimate, estimate.d, unit, self.passes())?;
        Ok(None)
    }

    /// For other languages: [`StepInParts::step_abort`]. Nothing where no step is open.
    #[doc(hidden)]
    pub fn abort_step(&mut self) -> Vec<TensorId> {
        let Some(parts) = self.parts.take() else { return Vec::new() };
        let _env = FpEnv::set_default();
        self.abort(parts)
    }

    // Not inlined: no float operation may move out of the environment that `abort_step` sets.
    #[inline(never)]
    fn abort(&mut self, parts: Parts) -> Vec<TensorId> {
        let progress = parts.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (estimator, sums) in progress.sums.iter().enumerate() {
            let lr = self.common_lr(estimator).unwrap_or_default();
            if self.adapts() && lr != 0.0 {
                let estimate = &mut self.estimators[estimator];
                let scalars = estimate.scalars(lr, self.settings.optimizer());
                estimate.keep_totals(&self.descriptor, &scalars, &rounded(sums));
            }
        }
        self.note_updates(&progress);
        self.drop_kept(&progress);
        let dense = progress.updated.iter().map(|given| given.id);
        dense.chain(progress.tables.iter().map(|(_, id)| *id)).collect()
    }

    /// Takes gradients that were kept for nothing out of state that has yet to be set up. (The caller's
    /// own may hold anything until then, and may be gone by now.)
    fn drop_kept(&mut self, progress: &Progress) {
        for Given { id, job, .. } in &progress.waiting {
            let own = self.tensors[id.index()].own_state();
            if let Gradient::KeptIn(slot) = job.gradient
                && !own[slot].is_null()
            {
                // SAFETY: the slot is as long as the tensor, and `&mut self` keeps others out.
                unsafe { own[slot].write_bytes(0, job.len * job.dtype.size()) };
            }
        }
    }

    fn note_updates(&mut self, progress: &Progress) {
        for (_, id) in &progress.tables {
            self.tensors[id.index()].steps += 1;
        }
        for Given { id, job, moved } in &progress.updated {
            self.note_update(job, *id, *moved);
        }
    }
}
