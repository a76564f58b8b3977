//! The step: check everything, look at the gradients, sweep, estimate `d`.

use super::overlap::{OverlapCheck, Span};
use super::report::{Movement, StepReport};
use super::tensor::{Tensor, TensorStep};
use super::{Optimizer, TensorId};
use crate::algorithm::{Estimate, MAX_SLOTS, MAX_SUMS, Scalars, decay};
use crate::dtype::{DType, Element};
use crate::engine::blocks::{Job, Jobs, Machine};
use crate::error::{Error, Result};
use crate::kernel::fp_env::FpEnv;
use crate::kernel::scan::{any_nonzero, first_non_finite, saturate};
use crate::kernel::sweep::{GroupPlan, Streams, SweepFn, sweep_fn};
use crate::key::{Key, NonFinite, Options};
use std::ptr;

/// Memory that steps use again, so that they allocate nothing after the first.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    jobs: Jobs,
    /// The tensors of `jobs`.
    active: Vec<TensorId>,
    plans: Vec<(GroupPlan, [f64; MAX_SUMS])>,
    overlap: OverlapCheck,
    /// Steps begun, which [`Tensor::seen`] is compared with.
    begun: u64,
}

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
    /// elsewhere in each step.
    ///
    /// # Errors
    /// Everything is checked before anything is written: an error leaves parameters, state, `d` and
    /// `k` as they were. [`Error::UnknownTensor`], [`Error::TensorTwice`],
    /// [`Error::DTypeMismatch`], [`Error::Length`], [`Error::StateCount`], [`Error::Null`],
    /// [`Error::Misaligned`], [`Error::Overlap`]: of the arrays. [`Error::MixedLr`],
    /// [`Error::Coefficient`]: of the options. [`Error::NonFiniteGradient`]: of the gradients.
    /// [`Error::Threads`]: of the system. [`Error::Poisoned`]: an earlier step panicked.
    ///
    /// # Determinism
    /// The same inputs give the same bits for any number of threads, any instruction set and any
    /// order of `tensors`, whatever floating-point environment the caller has set.
    pub fn step(&mut self, tensors: &mut [TensorStep<'_>]) -> Result<StepReport> {
        let env = FpEnv::set_default();
        let report = self.step_in_default_env(tensors);
        self.scratch.jobs.clear();
        drop(env);
        if let Ok(report) = &report {
            self.log(report);
        }
        report
    }

    // Not inlined: no float operation may move out of the environment that `step` sets.
    #[inline(never)]
    fn step_in_default_env(&mut self, tensors: &mut [TensorStep<'_>]) -> Result<StepReport> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let lr = self.common_lr()?;
        self.validate(tensors)?;
        if lr == 0.0 {
            return Ok(self.unchanged(Movement::LrZero));
        }
        let len = self.scratch.jobs.len();
        self.threads.prepare(len)?;
        let policy = self.non_finite();
        if policy != NonFinite::Propagate && !self.scratch.jobs.all_finite(&self.machine()) {
            return match policy {
                NonFinite::Skip => Ok(self.unchanged(Movement::NonFinite)),
                _ => Err(self.find_non_finite()),
            };
        }
        let grad_norm = self.first_grad_norm();
        if self.starts_from_nothing() && !self.has_progress(grad_norm) {
            return Ok(self.unchanged(Movement::NoProgress));
        }
        if self.needs_first_norm() && !grad_norm.is_finite() {
            return Ok(self.unchanged(Movement::NonFinite));
        }
        let g0_norm = if grad_norm.is_nan() { self.g0_norm } else { grad_norm };
        let scalars =
            Scalars { d: self.d, k: self.k, lr, g0_norm, options: self.settings.optimizer() };
        let dlr = (self.descriptor.gamma)(&scalars);
        let mut plans = std::mem::take(&mut self.scratch.plans);
        let planned = self.plan(&scalars, &mut plans);
        self.scratch.plans = plans;
        planned?;
        self.note_progress();

        let sums = self.sweep();
        for id in &self.scratch.active {
            self.tensors[id.index()].started = true;
        }
        self.g0_norm = g0_norm;
        let report = self.update_d(lr, dlr, grad_norm, sums);
        self.poisoned = false;
        Ok(report)
    }

    /// The lr that all groups but the frozen ones share; 0 where all are frozen.
    fn common_lr(&self) -> Result<f64> {
        let mut common = 0.0;
        for group in 0..self.groups() {
            let lr = self.settings.group(group).get(Key::Lr);
            if lr != 0.0 && common != 0.0 && lr != common {
                return Err(Error::MixedLr { group, lr, other: common });
            }
            if lr != 0.0 {
                common = lr;
            }
        }
        Ok(common)
    }

    /// Checks the arrays and gathers those that the step is about.
    fn validate(&mut self, tensors: &[TensorStep<'_>]) -> Result<()> {
        let slots = self.descriptor.state.len();
        let registered = self.tensors.len();
        let scratch = &mut self.scratch;
        scratch.jobs.clear();
        scratch.active.clear();
        scratch.overlap.clear();
        scratch.begun += 1;
        for given in tensors {
            let tensor = self
                .tensors
                .get_mut(given.id.index())
                .ok_or(Error::UnknownTensor { id: given.id.code(), tensors: registered })?;
            if std::mem::replace(&mut tensor.seen, scratch.begun) == scratch.begun {
                return Err(Error::TensorTwice { tensor: tensor.name.clone() });
            }
            let state = check_arrays(tensor, given, slots)?;
            let index = given.id.index();
            let bytes = tensor.bytes();
            let span = |start: *const u8, writes, what| Span {
                start: start.addr(),
                bytes,
                writes,
                tensor: index,
                what,
            };
            scratch.overlap.push(span(given.p, true, "the parameter"));
            if !given.g.is_null() {
                scratch.overlap.push(span(given.g, false, "the gradient"));
            }
            for start in &state[..slots] {
                scratch.overlap.push(span(*start, true, "the state"));
            }
            if !given.g.is_null() && self.settings.group(tensor.group).is_on(Key::Lr) {
                let streams = Streams { p: given.p, g: given.g, state };
                // SAFETY: `check_arrays` made sure of lengths, types and alignment, and the
                // overlap check below that nothing is shared; `TensorStep` holds the borrows, and
                // `step` clears the jobs before they end.
                unsafe {
                    scratch.jobs.push(
                        streams,
                        tensor.len,
                        tensor.dtype,
                        tensor.group,
                        !tensor.started,
                    );
                }
                scratch.active.push(given.id);
            }
        }
        if let Some((first, second)) = scratch.overlap.find() {
            let name = |span: Span| {
                format!("{} of tensor {:?}", span.what, self.tensors[span.tensor].name)
            };
            return Err(Error::Overlap { first: name(first), second: name(second) });
        }
        Ok(())
    }

    fn machine(&self) -> Machine<'_> {
        Machine { token: self.token, threads: &self.threads }
    }

    fn non_finite(&self) -> NonFinite {
        match self.settings.optimizer().get(Key::NonFinite) {
            code if code == f64::from(NonFinite::Skip) => NonFinite::Skip,
            code if code == f64::from(NonFinite::Propagate) => NonFinite::Propagate,
            _ => NonFinite::Reject,
        }
    }

    /// Where the value is that a scan has found.
    fn find_non_finite(&self) -> Error {
        let jobs = &self.scratch.jobs;
        let found = jobs.iter().zip(&self.scratch.active).find_map(|(job, id)| {
            // SAFETY: `validate` checked the gradient, and its borrow lasts for the step.
            let place = unsafe { first_non_finite(job.dtype, job.streams.g, job.len) };
            place.map(|place| (id, place))
        });
        let (id, (index, value)) = found.expect("the scan found one");
        let tensor = self.tensors[id.index()].name.clone();
        Error::NonFiniteGradient { tensor, index, value }
    }

    /// Whether this step takes `g0`.
    fn needs_first_norm(&self) -> bool {
        self.descriptor.needs_g0 && self.k == 0
    }

    /// `g0`, where the algorithm needs it and does not have it yet; else NaN.
    fn first_grad_norm(&self) -> f64 {
        if !self.needs_first_norm() {
            return f64::NAN;
        }
        let weight = |job: &Job| self.settings.group(job.group).get(Key::LayerScale);
        self.scratch.jobs.sum_sq(&self.machine(), weight).sqrt()
    }

    /// Whether there is nothing yet that could make progress but this step's gradients: no step has
    /// made any, or none of its tensors has had a gradient other than 0.
    fn starts_from_nothing(&self) -> bool {
        let still = |id: &TensorId| !self.tensors[id.index()].moved;
        self.k == 0 || self.scratch.active.iter().all(still)
    }

    /// Whether some gradient, coupled decay included, is not 0.
    fn has_progress(&self, grad_norm: f64) -> bool {
        if self.needs_first_norm() {
            return grad_norm != 0.0;
        }
        self.scratch.jobs.iter().any(|job| self.moves(job))
    }

    /// Whether a gradient, coupled decay included, is not 0 somewhere.
    fn moves(&self, job: &Job) -> bool {
        let Streams { p, g, .. } = job.streams;
        // SAFETY: `validate` checked the arrays, and their borrows last for the step.
        let in_g = unsafe { any_nonzero(job.dtype, g, job.len) };
        let decays = group_decay(self.settings.group(job.group)) == decay::COUPLED;
        // SAFETY: as above.
        in_g || decays && unsafe { any_nonzero(job.dtype, p, job.len) }
    }

    /// Remembers which tensors have moved, their state with them.
    fn note_progress(&mut self) {
        for at in 0..self.scratch.active.len() {
            let index = self.scratch.active[at].index();
            let moved = self.tensors[index].moved
                || self.scratch.jobs.iter().nth(at).is_some_and(|job| self.moves(job));
            self.tensors[index].moved = moved;
        }
    }

    /// The groups' coefficients and weights.
    fn plan(&self, scalars: &Scalars, plans: &mut Vec<(GroupPlan, [f64; MAX_SUMS])>) -> Result<()> {
        plans.clear();
        for group in 0..self.groups() {
            let options = self.settings.group(group);
            let coeffs = (self.descriptor.coeffs)(scalars, options);
            let plan = GroupPlan { coeffs, decay: group_decay(options) };
            plans.push((plan, (self.descriptor.weights)(scalars, options)));
        }
        for job in self.scratch.jobs.iter() {
            let fits = |coeff: &f64| match job.dtype {
                DType::F32 => f32::from_f64(*coeff).is_finite(),
                DType::F64 => coeff.is_finite(),
            };
            if !plans[job.group].0.coeffs.iter().all(fits) {
                let (group, dtype) = (job.group, job.dtype);
                return Err(Error::Coefficient { group, dtype, d: self.d });
            }
        }
        Ok(())
    }

    /// Writes. Whoever finds `poisoned` set afterwards knows that a panic came in between.
    fn sweep(&mut self) -> [f64; MAX_SUMS] {
        #[cfg(feature = "fault-injection")]
        let fault = self.fault.take();
        #[cfg(feature = "fault-injection")]
        assert!(fault != Some(Fault::BeforeSweep), "injected before the sweep");

        self.poisoned = true;
        let kernels = [sweep_fn(self.algorithm, DType::F32), sweep_fn(self.algorithm, DType::F64)];
        let sweeps = |dtype: DType| -> SweepFn {
            #[cfg(feature = "fault-injection")]
            assert!(fault != Some(Fault::InSweep), "injected in the sweep");
            match dtype {
                DType::F32 => kernels[0],
                DType::F64 => kernels[1],
            }
        };
        let sums = self.scratch.jobs.sweep(
            &self.machine(),
            sweeps,
            &self.scratch.plans,
            self.descriptor.sums,
        );
        let sums = sums.map(|sum| sum.round());
        if !sums.iter().all(|sum| sum.is_finite()) {
            self.saturate_state();
        }
        sums
    }

    /// Takes infinities out of the slots that must not keep them.
    fn saturate_state(&mut self) {
        for job in self.scratch.jobs.iter() {
            for (slot, start) in self.descriptor.state.iter().zip(job.streams.state) {
                // An empty tensor's state may be null.
                if slot.saturates && job.len > 0 {
                    // SAFETY: `validate` checked the array, its borrow lasts for the step, and the
                    // sweep is over.
                    unsafe { saturate(job.dtype, start, job.len) };
                }
            }
        }
    }

    /// `d` from the sums; it never falls.
    fn update_d(&mut self, lr: f64, dlr: f64, grad_norm: f64, sums: [f64; MAX_SUMS]) -> StepReport {
        let options = self.settings.optimizer();
        let scalars = Scalars { d: self.d, k: self.k, lr, g0_norm: self.g0_norm, options };
        let mut numerator_weighted = self.numerator_weighted;
        let estimate = (self.descriptor.estimate)(&scalars, &mut numerator_weighted, &sums);
        let mut report =
            StepReport { dlr, grad_norm, applied: true, ..self.unchanged(Movement::NoProgress) };
        let Some(Estimate { numerator, denominator, d_hat }) = estimate else { return report };
        report.numerator = numerator;
        report.denominator = denominator;
        report.d_hat = d_hat;
        report.movement = if d_hat.is_finite() && numerator_weighted.is_finite() {
            self.numerator_weighted = numerator_weighted;
            self.advance(d_hat)
        } else {
            Movement::NonFinite
        };
        self.k += 1;
        report.k = self.k;
        report.d = self.d;
        report
    }

    /// `d <- max(d, min(d_hat, d*growth_rate))`
    fn advance(&mut self, d_hat: f64) -> Movement {
        let limit = self.d * self.settings.optimizer().get(Key::GrowthRate);
        if d_hat <= self.d {
            return Movement::NotAbove;
        }
        self.d = d_hat.min(limit);
        if d_hat > limit { Movement::GrowthLimited } else { Movement::Grew }
    }

    /// The report of a step that changed nothing.
    fn unchanged(&self, movement: Movement) -> StepReport {
        StepReport {
            k: self.k,
            d: self.d,
            d_hat: self.d,
            dlr: 0.0,
            numerator: self.numerator_weighted,
            denominator: 0.0,
            grad_norm: f64::NAN,
            applied: false,
            movement,
        }
    }

    fn log(&self, report: &StepReport) {
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

fn group_decay(group: &Options) -> u8 {
    match (group.is_on(Key::WeightDecay), group.is_on(Key::Decouple)) {
        (false, _) => decay::NONE,
        (true, false) => decay::COUPLED,
        (true, true) => decay::DECOUPLED,
    }
}

/// Checks one tensor's arrays and returns where its state is.
fn check_arrays(
    tensor: &Tensor,
    given: &TensorStep<'_>,
    slots: usize,
) -> Result<[*mut u8; MAX_SLOTS]> {
    let name = || tensor.name.clone();
    tensor.require_dtype(given.dtype)?;
    let array = |start: *const u8, len: usize, what: &'static str| {
        let align = tensor.dtype.size();
        if len != tensor.len {
            let registered = tensor.len;
            return Err(Error::Length { tensor: name(), what, given: len, registered });
        }
        if len > 0 && start.is_null() {
            return Err(Error::Null { tensor: name(), what, len });
        }
        if len > 0 && !start.addr().is_multiple_of(align) {
            return Err(Error::Misaligned { tensor: name(), what, align });
        }
        Ok(())
    };
    array(given.p, given.p_len, "the parameter")?;
    if !given.g.is_null() {
        array(given.g, given.g_len, "the gradient")?;
    }
    let own = tensor.own_state(slots);
    let expected = if own.is_some() { 0 } else { slots };
    if given.states != expected {
        return Err(Error::StateCount { tensor: name(), expected, given: given.states });
    }
    let Some(own) = own else {
        tensor.require_dtype(given.state_dtype)?;
        for slot in 0..slots {
            array(given.state[slot], given.state_len[slot], "the state")?;
        }
        // Lengths agree, so an empty tensor's pointers are never followed, null or not.
        let mut state = [ptr::null_mut(); MAX_SLOTS];
        state[..slots].copy_from_slice(&given.state[..slots]);
        return Ok(state);
    };
    Ok(own)
}
