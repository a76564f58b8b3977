//! What a step is given: checked, and gathered by the estimate that it belongs to.

use super::given::TensorStep;
use super::overlap::{OverlapCheck, Span, What};
use super::report::Movement;
use super::tensor::{StateOwner, Tensor};
use super::{Optimizer, TensorId};
use crate::algorithm::{Init, MAX_SLOTS};
use crate::dtype::DType;
use crate::engine::blocks::{Jobs, Plan};
use crate::engine::job::{Formats, Gradient, Job};
use crate::engine::rows::RowsJob;
use crate::error::{Error, Result};
use crate::kernel::block::Streams;
use crate::key::Key;
use std::ptr;
use std::sync::atomic::Ordering;

/// Memory that steps use again, so that they allocate nothing after the first; and the jobs of the last one, for
/// [`step_again`](Optimizer::step_again) alone.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// By estimate.
    pub(super) units: Vec<Unit>,
    overlap: OverlapCheck,
}

/// The part of a step that one estimate has.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) jobs: Jobs,
    /// The tensors of `jobs`.
    pub(super) active: Vec<TensorId>,
    pub(super) plans: Vec<Plan>,
    /// What all its groups share, but for those at 0.
    pub(super) lr: f64,
    /// Tables with gradients of single rows; those from `tables` on are memory to be used again.
    pub(super) rows: Vec<RowsJob>,
    pub(super) tables: Vec<TensorId>,
    /// Norm of the step's gradients, where it is needed; else NaN.
    pub(super) grad_norm: f64,
    /// Why the step changes nothing here, where it does not.
    pub(super) stays: Option<Movement>,
    /// Whether a step of the same tensors would have the same jobs: none is set up by this one, and all is
    /// known where it is.
    pub(super) settled: bool,
}

impl Unit {
    /// Parameters that sweeps have sent to infinity since this was last asked.
    pub(super) fn overflows(&self) -> u64 {
        self.jobs.overflows.swap(0, Ordering::Relaxed)
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
        self.active.clear();
        self.tables.clear();
        self.plans.clear();
        self.settled = true;
    }
}

/// Takes the tensors of a step, which [`Optimizer::step_each`] is about to make.
#[derive(Debug)]
pub struct StepTensors<'a> {
    optimizer: &'a Optimizer,
    scratch: &'a mut Scratch,
}

impl StepTensors<'_> {
    /// Checks a tensor, by itself, and has it take part.
    ///
    /// # Errors
    /// Those of [`Optimizer::step`] that are of the arrays, but for [`Error::Overlap`], which is looked for once
    /// all are there. A tensor that is refused takes no part, but its arrays may still count as overlapping others', and
    /// it cannot be added again.
    ///
    /// # Safety
    /// Until `step_each` has returned nobody else uses the arrays, and what `tensor` borrows stays borrowed.
    // By reference and inlined, so that the tensor need not be written to memory: it would be read back
    // sooner than that is done.
    #[inline(always)]
    pub unsafe fn add(&mut self, tensor: &TensorStep<'_, '_>) -> Result<()> {
        let (given, optimizer) = (tensor, self.optimizer);
        let tensor = optimizer.registered(given.id)?;
        if tensor.seen.load(Ordering::Relaxed) == optimizer.begun {
            return Err(Error::TensorTwice { tensor: tensor.name.clone() });
        }
        tensor.seen.store(optimizer.begun, Ordering::Relaxed);
        let unit = &mut self.scratch.units[optimizer.unit(tensor.group)];
        if tensor.width.is_some() {
            return optimizer.gather_rows(tensor, given, &mut self.scratch.overlap, unit);
        }
        // SAFETY: `gather` looks for overlaps before the jobs are looked at, which only this step does and such
        // as promise anew that the arrays are there; the rest is this function's own contract.
        unsafe { optimizer.gather_dense(tensor, given, &mut self.scratch.overlap, unit) }
    }
}

impl Optimizer {
    /// Checks the arrays and gathers those that the step is about.
    // Not inlined: no float operation may move out of the environment that its callers set.
    #[inline(never)]
    pub(super) fn gather<E: From<Error>>(
        &mut self,
        scratch: &mut Scratch,
        tensors: impl FnOnce(&mut StepTensors<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.refuse_unusable()?;
        scratch.units.resize_with(self.estimators.len(), Unit::default);
        scratch.units.iter_mut().for_each(Unit::clear);
        scratch.overlap.clear();
        self.begun += 1;
        tensors(&mut StepTensors { optimizer: self, scratch })?;
        self.refuse_overlap(&mut scratch.overlap)?;
        Ok(())
    }

    /// Makes the jobs of the step before, whose tensors all had settled, those of another.
    pub(super) fn gather_again(&self, scratch: &mut Scratch) {
        for unit in &mut scratch.units {
            for (job, id) in unit.jobs.iter_mut().zip(&unit.active) {
                let tensor = &self.tensors[id.index()];
                job.noise = tensor.noise_of_step();
                job.master_is_set = tensor.master_is_set;
                job.slice = tensor.layout.slice; // which Prodigy's second sweep knows nothing of
            }
        }
    }

    pub(super) fn refuse_overlap(&self, overlap: &mut OverlapCheck) -> Result<()> {
        let own = |tensor: usize| self.tensors[tensor].own_spans(tensor);
        let Some((first, second)) = overlap.find(own) else { return Ok(()) };
        let name = |span: Span| {
            format!("{} of tensor {:?}", span.what.name(), self.tensors[span.tensor].name)
        };
        Err(Error::Overlap { first: name(first), second: name(second) })
    }

    /// Checks a tensor's arrays and makes it a job, unless the step leaves the tensor as it is.
    ///
    /// # Safety
    /// The unit's jobs are looked at only once [`refuse_overlap`](Self::refuse_overlap) has found no
    /// overlap, and not once their borrows have ended.
    #[inline(always)]
    pub(super) unsafe fn gather_dense(
        &self,
        tensor: &Tensor,
        given: &TensorStep<'_, '_>,
        overlap: &mut OverlapCheck,
        unit: &mut Unit,
    ) -> Result<()> {
        if given.rows.is_some() {
            let tensor = tensor.name.clone();
            return Err(Error::GradientKind { tensor, registered: "dense", given: "rows" });
        }
        check_arrays(tensor, given, overlap)?;
        // The library's own, which most tensors have, without the detour of a result.
        let state = match tensor.owner {
            StateOwner::Library if given.states == 0 => tensor.own_state(),
            _ => check_state(tensor, given, overlap)?,
        };
        unit.settled &= given.states == 0;
        if given.g.is_null() || !self.settings.group(tensor.group).is_on(Key::Lr) {
            return Ok(());
        }
        let g_dtype = given.g_dtype(tensor);
        unit.jobs.spare().write(Job {
            streams: Streams { p: given.p, g: given.g, state },
            len: tensor.len,
            dtype: tensor.dtype.working(),
            formats: Formats { p: tensor.dtype, g: g_dtype, state: tensor.layout.formats },
            copy: None,
            master_is_set: tensor.master_is_set,
            moves_by_kept: tensor.layout.moves_by_kept,
            noise: tensor.noise_of_step(),
            group: tensor.group,
            first: tensor.steps == 0,
            slice: tensor.layout.slice,
            zeros: self.descriptor.copy_of_start.filter(|_| tensor.started_at_zero),
            gradient: Gradient::Given,
            plan: 0, // until there are plans
            is_plain_but_g: tensor.layout.plain,
            blocks_before: 0, // until it is pushed
        });
        // SAFETY: it was made; `check_arrays` and `check_state` made sure of lengths, types and alignment; the
        // rest is this function's own contract.
        let job = unsafe { unit.jobs.add_spare() };
        if tensor.layout.master {
            job.follow_master(tensor.slots.len());
        }
        unit.active.push(given.id);
        unit.settled &= tensor.steps > 0;
        Ok(())
    }
}

#[inline(always)]
fn check_gradient_dtype(tensor: &Tensor, g_dtype: DType) -> Result<()> {
    let name = || tensor.name.clone();
    if g_dtype == DType::Q8 || g_dtype.working() != tensor.dtype.working() {
        let (given, parameter) = (g_dtype, tensor.dtype);
        return Err(Error::GradientDType { tensor: name(), given, parameter });
    }
    if !tensor.layout.keeps_gradient {
        return Ok(());
    }
    let kept = tensor.slots.iter().zip(tensor.layout.formats);
    for (slot, format) in kept.filter(|(slot, _)| slot.init == Init::Gradient) {
        if format.dtype.size() < g_dtype.size()
            || format.dtype.size() == 2 && format.dtype != g_dtype
        {
            let (kept, given) = (format.dtype, g_dtype);
            return Err(Error::GradientKeptIn { tensor: name(), slot: slot.name, kept, given });
        }
    }
    Ok(())
}

/// Whether an array has its length and may be followed.
#[inline(always)]
fn check_array(
    tensor: &Tensor,
    start: *const u8,
    align: usize,
    (len, registered): (usize, usize),
    what: &'static str,
) -> Result<()> {
    let name = || tensor.name.clone();
    if len != registered {
        return Err(Error::Length { tensor: name(), what, given: len, registered });
    }
    if len > 0 && start.is_null() {
        return Err(Error::Null { tensor: name(), what, len });
    }
    if len > 0 && !start.addr().is_multiple_of(align) {
        return Err(Error::Misaligned { tensor: name(), what, align });
    }
    Ok(())
}

/// Checks one tensor's parameter and gradient, each by itself, and notes them for the check of overlaps.
#[inline(always)]
pub(super) fn check_arrays(
    tensor: &Tensor,
    given: &TensorStep<'_, '_>,
    overlap: &mut OverlapCheck,
) -> Result<()> {
    if let Some(dtype) = given.dtype {
        tensor.require_dtype(dtype)?;
    }
    let mut span = |start: *const u8, bytes, what| {
        overlap.push(Span { start: start.addr(), bytes, tensor: given.id.index(), what });
    };
    let size = tensor.dtype.size();
    let g_dtype = given.g_dtype(tensor);
    if !given.g.is_null() {
        check_gradient_dtype(tensor, g_dtype)?;
    }
    check_array(tensor, given.p, size, (given.p_len, tensor.len), "the parameter")?;
    span(given.p, tensor.len * size, What::Parameter);
    if !given.g.is_null() {
        let rows = given.rows.map(|rows| rows.count.saturating_mul(tensor.width.unwrap_or(0)));
        let (registered, size) = (rows.unwrap_or(tensor.len), g_dtype.size());
        let len = given.g_len.unwrap_or(registered);
        check_array(tensor, given.g, size, (len, registered), "the gradient")?;
        span(given.g, registered.saturating_mul(size), What::Gradient);
    }
    Ok(())
}

/// The same of its state: where that is.
pub(super) fn check_state(
    tensor: &Tensor,
    given: &TensorStep<'_, '_>,
    overlap: &mut OverlapCheck,
) -> Result<[*mut u8; MAX_SLOTS]> {
    let of_caller = tensor.owner == StateOwner::Caller;
    let expected = if of_caller { tensor.arrays() } else { 0 };
    if given.states != expected {
        let tensor = tensor.name.clone();
        return Err(Error::StateCount { tensor, expected, given: given.states });
    }
    if !of_caller {
        return Ok(tensor.own_state());
    }
    let mut state = [ptr::null_mut(); MAX_SLOTS];
    for slot in 0..expected {
        let (size, registered) = (tensor.slot_dtype(slot).size(), tensor.slot_bytes(slot));
        if let Some(asked) = given.state_dtype {
            tensor.require_slot_dtype(slot, asked)?;
        }
        let bytes = given.state_bytes.map_or(registered, |bytes| bytes[slot]);
        // In bytes where a part of an element, or an exponent, is left over.
        let unit = if bytes.is_multiple_of(size) { size } else { 1 };
        let lens = (bytes / unit, registered / unit);
        check_array(tensor, given.state[slot], size, lens, tensor.array_name(slot))?;
        // Where there are no elements the pointer is never followed, whatever it is.
        if registered > 0 {
            state[slot] = given.state[slot];
            let (start, tensor, what) = (state[slot].addr(), given.id.index(), What::State);
            overlap.push(Span { start, bytes: registered, tensor, what });
        }
    }
    Ok(state)
}
