//! Registered tensors, and what a step is given of them.

use super::GroupId;
use super::memory::StateMemory;
use crate::algorithm::MAX_SLOTS;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::{ptr, slice};

/// The most state arrays that a tensor has, whatever the algorithm.
pub const MAX_STATE: usize = MAX_SLOTS;

/// A registered tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(usize);

impl TensorId {
    pub(super) fn new(index: usize) -> Self {
        TensorId(index)
    }
    pub(super) fn index(self) -> usize {
        self.0
    }
    /// The id as a number: tensors count from 0 in the order they were added.
    pub fn code(self) -> u64 {
        self.0 as u64
    }
    /// The id of that number, which a step checks.
    pub fn from_code(code: u64) -> Self {
        TensorId(usize::try_from(code).unwrap_or(usize::MAX))
    }
}

/// Who keeps a tensor's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateOwner {
    /// The optimizer allocates it.
    Library,
    /// The caller hands it to each step.
    Caller,
}

/// A tensor as registered.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) group: usize,
    pub(super) dtype: DType,
    pub(super) len: usize,
    /// Whether it has had a gradient: its state is set up.
    pub(super) started: bool,
    /// Whether some gradient of its was not 0, coupled decay included.
    pub(super) moved: bool,
    /// The step that last named it, to find one given twice.
    pub(super) seen: u64,
    /// Of the library's own.
    memory: Option<StateMemory>,
}

impl Tensor {
    pub(super) fn new(
        group: GroupId,
        name: &str,
        dtype: DType,
        len: usize,
        slots: usize,
        owner: StateOwner,
    ) -> Result<Self> {
        let bytes = len.checked_mul(dtype.size()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or_else(|| Error::TooLong { tensor: name.into(), len })?;
        let memory = match owner {
            StateOwner::Caller => None,
            StateOwner::Library => Some(
                StateMemory::zeroed(slots, bytes)
                    .map_err(|bytes| Error::OutOfMemory { tensor: name.into(), bytes })?,
            ),
        };
        let (name, group) = (name.into(), group.index());
        Ok(Tensor { name, group, dtype, len, started: false, moved: false, seen: 0, memory })
    }

    pub(super) fn owner(&self) -> StateOwner {
        if self.memory.is_some() { StateOwner::Library } else { StateOwner::Caller }
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * self.dtype.size() // `new` checked that it fits
    }

    pub(super) fn require_dtype(&self, given: DType) -> Result<()> {
        if given == self.dtype {
            return Ok(());
        }
        let tensor = self.name.clone();
        Err(Error::DTypeMismatch { tensor, given, registered: self.dtype })
    }

    /// Where the library's own state starts, null beyond `slots`; `None` where the caller has it.
    pub(super) fn own_state(&self, slots: usize) -> Option<[*mut u8; MAX_SLOTS]> {
        let memory = self.memory.as_ref()?;
        let mut state = [ptr::null_mut(); MAX_SLOTS];
        for (slot, to) in state.iter_mut().take(slots).enumerate() {
            *to = memory.slot(slot).as_ptr();
        }
        Some(state)
    }

    fn slot(&self, slot: usize) -> Result<*mut u8> {
        let memory = self.memory.as_ref();
        let memory = memory.ok_or_else(|| Error::StateOfCaller { tensor: self.name.clone() })?;
        Ok(memory.slot(slot).as_ptr())
    }

    /// Of an `E` that [`require_dtype`](Self::require_dtype) has let through.
    pub(super) fn state<E: Element>(&self, slot: usize) -> Result<&[E]> {
        debug_assert_eq!(E::DTYPE, self.dtype);
        let start = self.slot(slot)?.cast();
        // SAFETY: `new` allocated `len` elements of `dtype`, zeroed, for each slot; zero bits are
        // a value of every `Element`. `&self` keeps writers out.
        Ok(unsafe { slice::from_raw_parts(start, self.len) })
    }

    /// Of an `E` that [`require_dtype`](Self::require_dtype) has let through.
    pub(super) fn state_mut<E: Element>(&mut self, slot: usize) -> Result<&mut [E]> {
        debug_assert_eq!(E::DTYPE, self.dtype);
        let start = self.slot(slot)?.cast();
        // SAFETY: as in `state`; `&mut self` keeps everybody else out.
        Ok(unsafe { slice::from_raw_parts_mut(start, self.len) })
    }
}

/// One tensor of a step: parameter, gradient, and state where the caller keeps it.
///
/// A tensor that a step does not name, or whose gradient is absent, is left as it is.
#[derive(Debug)]
pub struct TensorStep<'a> {
    pub(super) id: TensorId,
    pub(super) dtype: DType,
    pub(super) p: *mut u8,
    pub(super) p_len: usize,
    /// Null where the gradient is absent.
    pub(super) g: *const u8,
    pub(super) g_len: usize,
    pub(super) state: [*mut u8; MAX_SLOTS],
    pub(super) state_len: [usize; MAX_SLOTS],
    pub(super) states: usize,
    pub(super) state_dtype: DType,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: it stands for `&mut [E]` and `&[E]` of plain numbers, which may move between threads.
unsafe impl Send for TensorStep<'_> {}
// SAFETY: through `&self` nothing can be reached.
unsafe impl Sync for TensorStep<'_> {}

impl<'a> TensorStep<'a> {
    /// A parameter, in and out, and its gradient, which is never written.
    pub fn new<E: Element>(id: TensorId, p: &'a mut [E], g: &'a [E]) -> TensorStep<'a> {
        TensorStep {
            id,
            dtype: E::DTYPE,
            p: p.as_mut_ptr().cast(),
            p_len: p.len(),
            g: g.as_ptr().cast(),
            g_len: g.len(),
            state: [ptr::null_mut(); MAX_SLOTS],
            state_len: [0; MAX_SLOTS],
            states: 0,
            state_dtype: E::DTYPE,
            borrow: PhantomData,
        }
    }

    /// State that the caller keeps, in the order of
    /// [`Algorithm::state_names`](crate::Algorithm::state_names) and of the parameter's type.
    pub fn with_state<E: Element, const N: usize>(mut self, state: [&'a mut [E]; N]) -> Self {
        const { assert!(N <= MAX_STATE) }
        for (i, slot) in state.into_iter().enumerate() {
            self.state_len[i] = slot.len();
            self.state[i] = slot.as_mut_ptr().cast();
        }
        self.states = N;
        self.state_dtype = E::DTYPE;
        self
    }

    /// From raw parts, for other languages. Lengths, nulls, alignment and overlaps are checked by
    /// the step; a null `g` is an absent gradient.
    ///
    /// # Safety
    /// Until the step has returned, `p` and each of `state` that is not null point to `len`
    /// elements of `dtype` that may be read and written, and `g`, if not null, to as many that may be
    /// read;
    /// no other thread uses them. All are initialised.
    pub unsafe fn from_raw(
        id: TensorId,
        dtype: DType,
        len: usize,
        p: *mut u8,
        g: *const u8,
        state: &[*mut u8],
    ) -> TensorStep<'a> {
        let mut slots = [ptr::null_mut(); MAX_SLOTS];
        for (to, from) in slots.iter_mut().zip(state) {
            *to = *from;
        }
        TensorStep {
            id,
            dtype,
            p,
            p_len: len,
            g,
            g_len: len,
            state: slots,
            state_len: [len; MAX_SLOTS],
            states: state.len(),
            state_dtype: dtype,
            borrow: PhantomData,
        }
    }
}
