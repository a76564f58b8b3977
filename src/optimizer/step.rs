//! The step: check everything, look at the gradients, sweep, estimate `d`.

use super::Optimizer;
use super::estimator::Estimator;
use super::gather::{Scratch, StepTensors, Unit};
use super::given::TensorStep;
use super::report::{Movement, StepReport, Sweeps};
use crate::algorithm::{Descriptor, MAX_SUMS, pass};
use crate::dtype::DType;
use crate::engine::blocks::{Machine, Sums, no_sums, rounded};
use crate::engine::exact_sum::ExactSum;
use crate::engine::job::Job;
use crate::engine::slices::Slice;
use crate::engine::sweep::{Kernels, Sweep};
use crate::error::{Error, Result};
use crate::kernel::coded::coded_fn;
use crate::kernel::fp_env::FpEnv;
use crate::kernel::scan::saturate;
use crate::kernel::sweep::sweep_fn;
use crate::key::{Key, NonFinite};
use std::sync::atomic::Ordering;

/// Where a step is made to panic, for tests.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// After all checks, before anything is written.
    BeforeSweep,
    /// In place of the first block.
    InSweep,
}

impl Optimizer {
    /// One step: updates parameters and state in one pass over memory, then the estimate `d`.
    ///
    /// `tensors` names each tensor once at most, in any order. Those left out, those whose gradient
    /// is absent and those of a group with lr 0 stay as they are. Parameters and state are in and
    /// out; gradients are only read, and may share memory with one another. The arrays may lie
    /// elsewhere in each step. Prodigy may take two passes, as [`Sweeps`] says.
    ///
    /// With one `d` a group, the report is that of the first group;
    /// [`report`](Self::report) has those of the others.
    ///
    /// # Errors
    /// Everything is checked before anything is written: an error leaves parameters, state, `d` and
    /// `k` as they were. [`Error::UnknownTensor`], [`Error::TensorTwice`],
    /// [`Error::DTypeMismatch`], [`Error::Length`], [`Error::StateCount`], [`Error::Null`],
    /// [`Error::Misaligned`], [`Error::Overlap`], [`Error::GradientKind`], [`Error::RowOutOfRange`]: of
    /// the arrays. [`Error::NotForRows`], [`Error::MixedLr`],
    /// [`Error::Coefficient`]: of the options. [`Error::NonFiniteGradient`]: of the gradients.
    /// [`Error::Threads`]: of the system. [`Error::StepOpen`]: a step in parts has not ended.
    /// [`Error::Poisoned`]: an earlier step panicked.
    ///
    /// # Determinism
    /// The same inputs give the same bits for any number of threads, any instruction set and any
    /// order of `tensors`, whatever floating-point environment the caller has set.
    pub fn step(&mut self, tensors: &mut [TensorStep<'_, '_>]) -> Result<StepReport> {
        self.step_each(|step| {
            // SAFETY: they are borrowed, for us alone, until this returns.
            tensors.iter().try_for_each(|tensor| unsafe { step.add(tensor) })
        })
    }

    /// [`step`](Self::step) of tensors that are made one after the other, such as from what another
    /// language describes them by, and so need no list: `tensors` adds each.
    ///
    /// That is called before anything is written, in the floating-point environment of the step. A panic of
    /// its leaves everything as it was.
    ///
    /// # Errors
    /// As `step`, and what `tensors` returns: nothing has been written then.
    ///
    /// # Determinism
    /// As `step`.
    pub fn step_each<E: From<Error>>(
        &mut self,
        tensors: impl FnOnce(&mut StepTensors<'_>) -> Result<(), E>,
    ) -> Result<StepReport, E> {
        self.step_of(|optimizer, scratch| optimizer.gather(scratch, tensors))
    }

    /// [`step`](Self::step) of the tensors of the step before, whose arrays lie where they did: for other
    /// languages. They are not read and checked again. `None`, and nothing has happened, where they have
    /// to be given: where that step set up state, or some state is the caller's, or some gradient of single rows.
    ///
    /// # Errors
    /// As `step`.
    ///
    /// # Safety
    /// The last call that took the optimizer mutably was `step`, `step_each` or this, and succeeded. Its tensors were made
    /// by [`TensorStep::from_raw`], and their arrays are as that asks, once more.
    pub unsafe fn step_again(&mut self) -> Option<Result<StepReport>> {
        let units = &self.scratch.units;
        if units.is_empty() || !units.iter().all(|unit| unit.settled) {
            return None;
        }
        Some(self.step_of(|optimizer, scratch| {
            optimizer.gather_again(scratch);
            Ok(())
        }))
    }

    fn step_of<E: From<Error>>(
        &mut self,
        gather: impl FnOnce(&mut Self, &mut Scratch) -> Result<(), E>,
    ) -> Result<StepReport, E> {
        let env = FpEnv::set_default();
        let mut scratch = std::mem::take(&mut self.scratch);
        let gathered = gather(self, &mut scratch);
        let report = gathered.and_then(|()| Ok(self.step_in_default_env(&mut scratch)?));
        // Its jobs stay, but only `step_again` may look at them.
        self.scratch = scratch;
        drop(env);
        if let Ok(report) = &report {
            self.log(report);
        }
        report
    }

    // Not inlined: no float operation may move out of the environment that `step_of` sets.
    #[inline(never)]
    fn step_in_default_env(&mut self, scratch: &mut Scratch) -> Result<StepReport> {
        for (i, unit) in scratch.units.iter_mut().enumerate() {
            unit.lr = self.common_lr(i)?;
        }
        let len = scratch.units.iter().map(Unit::longest).max();
        self.threads.prepare(len.unwrap_or(0))?;
        let moving = |unit: &&Unit| unit.lr != 0.0;
        let policy = self.non_finite();
        if policy != NonFinite::Propagate
            && let Some(unit) =
                scratch.units.iter().filter(moving).find(|unit| !self.is_finite(unit))
        {
            if policy == NonFinite::Reject {
                return Err(self.find_non_finite(unit));
            }
            self.estimators.iter_mut().for_each(|estimator| estimator.stay(Movement::NonFinite));
            return Ok(self.estimators[0].report);
        }
        // Nothing is written in here, and nothing fails after it.
        for (i, unit) in scratch.units.iter_mut().enumerate() {
            unit.stays = self.prepare(i, unit)?;
        }
        #[cfg(feature = "fault-injection")]
        let fault = self.fault.take();
        #[cfg(feature = "fault-injection")]
        assert!(fault != Some(Fault::BeforeSweep), "injected before the sweep");

        // Whoever finds it set afterwards knows that a panic came in between.
        self.poisoned.store(true, Ordering::Relaxed);
        #[cfg(feature = "fault-injection")]
        assert!(fault != Some(Fault::InSweep), "injected in the sweep");
        for (i, unit) in scratch.units.iter_mut().enumerate() {
            match unit.stays {
                Some(movement) => self.estimators[i].stay(movement),
                None => self.advance(i, unit),
            }
        }
        self.poisoned.store(false, Ordering::Relaxed);
        Ok(self.estimators[0].report)
    }

    /// Sweeps, and estimates `d`.
    fn advance(&mut self, estimator: usize, unit: &mut Unit) {
        let before = self.estimators[estimator];
        let two_sweeps = self.takes_two_sweeps(&before, unit);
        self.note_progress(unit);
        if let Some(g0_norm) = Some(unit.grad_norm).filter(|norm| !norm.is_nan()) {
            self.estimators[estimator].g0_norm = g0_norm;
        }
        let dropped = if two_sweeps { pass::PARAMETER } else { 0 };
        unit.plans.iter_mut().for_each(|plan| plan.kernel.pass &= !dropped);
        let sums = self.sweep(unit);
        self.settle(estimator, unit.lr, unit.grad_norm, &rounded(&sums));
        self.estimators[estimator].report.overflows = unit.overflows();
        if !self.descriptor.uses_next_d {
            return;
        }
        for job in unit.jobs.iter_mut() {
            (job.first, job.slice, job.master_is_set) = (false, Slice::WHOLE, true);
        }
        let moved = self.estimators[estimator].d_moved;
        let (second, sweeps) = match (two_sweeps, moved) {
            (true, _) => (pass::PARAMETER, Sweeps::Two),
            (false, true) => (pass::MEND, Sweeps::Mended),
            (false, false) => return,
        };
        let next_d = self.estimators[estimator].d;
        if self.plan_with(&before, next_d, unit, second).is_err() {
            self.estimators[estimator].take_back(before.d);
            if !two_sweeps {
                return;
            }
            let planned = self.plan_with(&before, before.d, unit, second);
            debug_assert!(planned.is_ok(), "it was planned with this d before");
        }
        self.sweep(unit);
        let report = &mut self.estimators[estimator].report;
        (report.sweeps, report.overflows) = (sweeps, unit.overflows());
    }

    /// Brings an estimate up to date by the sums of a step.
    pub(super) fn settle(
        &mut self,
        estimator: usize,
        lr: f64,
        grad_norm: f64,
        sums: &[f64; MAX_SUMS],
    ) {
        let adapts = self.adapts();
        let estimate = &mut self.estimators[estimator];
        let scalars = estimate.scalars(lr, self.settings.optimizer());
        if adapts {
            estimate.update(&self.descriptor, &scalars, grad_norm, sums);
        } else {
            estimate.count((self.descriptor.gamma)(&scalars), grad_norm);
        }
    }

    /// Whether the parameters wait for the new `d`: where the step is likely to change it, or cannot do
    /// without, or where a mend would round them a second time.
    fn takes_two_sweeps(&self, estimator: &Estimator, unit: &Unit) -> bool {
        let options = self.settings.optimizer();
        self.descriptor.uses_next_d
            && self.adapts()
            && (estimator.d == options.get(Key::D0)
                || estimator.d_moved
                || !(self.descriptor.keeps_moment)(options, options)
                || unit.jobs.iter().any(Job::rounds_parameter))
    }

    /// Runs the plans' kernels.
    pub(super) fn sweep(&self, unit: &Unit) -> Sums {
        let kernels = Kernels {
            f32: sweep_fn(self.algorithm, DType::F32),
            f64: sweep_fn(self.algorithm, DType::F64),
            coded: coded_fn(self.algorithm),
        };
        let Descriptor { state: slots, sums: count, .. } = self.descriptor;
        let (token, plans) = (self.token, &unit.plans);
        let sweep = Sweep { kernels: &kernels, token, plans, slots, sums: count };
        let mut sums = no_sums();
        unit.jobs.sweep(&self.threads, &sweep, &mut sums);
        self.sweep_rows(unit, &mut sums);
        self.saturate_state(&sums, unit.jobs.iter());
        sums
    }

    /// Where sums are not finite, takes infinities out of the slots that must not keep them.
    pub(super) fn saturate_state<'a>(&self, sums: &Sums, jobs: impl Iterator<Item = &'a Job>) {
        if sums.iter().all(ExactSum::is_finite) {
            return;
        }
        for job in jobs {
            let arrays = job.streams.state.iter().zip(job.formats.state);
            for (slot, (start, format)) in self.descriptor.state.iter().zip(arrays) {
                // Codecs saturate by themselves.
                if slot.saturates && !start.is_null() && format.dtype == job.dtype {
                    // SAFETY: `gather_dense` checked the array, its borrow lasts for the step, and the sweep
                    // is over.
                    unsafe { saturate(job.dtype, *start, job.len) };
                }
            }
        }
    }

    pub(super) fn machine(&self) -> Machine<'_> {
        Machine { token: self.token, threads: &self.threads }
    }

    pub(super) fn log(&self, report: &StepReport) {
        if log::log_enabled!(target: "dadapt", log::Level::Info)
            && let Some(line) = self.log_line(report)
        {
            log::info!(target: "dadapt", "{line}");
        }
    }

    /// The line that [`Key::LogEvery`] asks for after the step of that report; else `None`.
    pub fn log_line(&self, report: &StepReport) -> Option<String> {
        let every = self.settings.optimizer().get(Key::LogEvery) as u64;
        // The count of the step itself, as the packages print it: the first is 0.
        let step = if report.applied { report.k.saturating_sub(1) } else { report.k };
        (every > 0 && step.is_multiple_of(every)).then(|| {
            format!(
                "{} step {step}: dlr {:e}, d_hat {:e}, d {:e} ({}), numerator {:e}, denominator {:e}",
                self.algorithm,
                report.dlr,
                report.d_hat,
                report.d,
                report.movement.name(),
                report.numerator,
                report.denominator,
            )
        })
    }
}
