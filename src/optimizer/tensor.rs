//! Registered tensors.

use super::GroupId;
use super::layout::{Layout, MASTER};
use super::memory::{Arena, OwnState};
use super::overlap::{Span, What};
use crate::algorithm::{MAX_SLOTS, Role, Slot};
use crate::dtype::{DType, Element};
use crate::engine::blocks::BLOCK;
use crate::engine::coded::groups_before;
use crate::engine::slices::Slice;
use crate::error::{Error, Result};
use crate::kernel::codec::Place;
use crate::kernel::isa::Isa;
use crate::kernel::rounding::hash_name;
use std::sync::atomic::AtomicU64;
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
// In this order: what every step reads lies together, since it comes from afar where tensors are many.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Tensor {
    pub(super) group: usize,
    pub(super) len: usize,
    /// Updates since its state was set up; 0 where it has yet to be.
    pub(super) steps: u64,
    /// The step that last named it, to find one given twice.
    pub(super) seen: AtomicU64,
    /// Stands for the name in the noise of stochastic rounding.
    pub(super) noise: u64,
    pub(super) layout: Layout,
    pub(super) dtype: DType,
    pub(super) owner: StateOwner,
    /// Whether some gradient of its was not 0, coupled decay included.
    pub(super) moved: bool,
    /// Whether its master copy, where it has one, holds the parameter: it does from its first step on.
    pub(super) master_is_set: bool,
    /// Whether it was 0 all over at its first gradient, so that its copy of that needs no memory.
    pub(super) started_at_zero: bool,
    /// Elements of a row, of a table whose gradients are of single rows.
    pub(super) width: Option<usize>,
    /// Where the library owns it; a slot without elements has no memory.
    own: OwnState,
    pub(super) slots: &'static [Slot],
    pub(super) name: String,
}

impl Tensor {
    pub(super) fn new(
        group: GroupId,
        name: &str,
        dtype: DType,
        len: usize,
        (slots, layout, width): (&'static [Slot], Layout, Option<usize>),
        owner: StateOwner,
        arenas: &mut [Arena],
    ) -> Result<Self> {
        let bytes = len.checked_mul(dtype.size()).filter(|bytes| isize::try_from(*bytes).is_ok());
        bytes.ok_or_else(|| Error::TooLong { tensor: name.into(), len })?;
        let mut tensor = Tensor {
            name: name.into(),
            noise: hash_name(name),
            group: group.index(),
            dtype,
            len,
            steps: 0,
            moved: false,
            master_is_set: false,
            started_at_zero: false,
            seen: AtomicU64::new(0),
            owner,
            layout,
            slots,
            width,
            own: OwnState::NONE,
        };
        if owner == StateOwner::Library {
            for slot in 0..tensor.arrays() {
                if let Err(error) = tensor.allocate(slot, arenas) {
                    (0..slot).for_each(|slot| tensor.free(slot, arenas));
                    return Err(error);
                }
            }
        }
        Ok(tensor)
    }

    /// Memory of the library's own for a slot, all zeros.
    fn allocate(&mut self, slot: usize, arenas: &mut [Arena]) -> Result<()> {
        let bytes = self.full_bytes(slot);
        if bytes > 0 {
            let memory = arenas[slot].take(bytes, self.width.is_some());
            let out_of_memory = |bytes| Error::OutOfMemory { tensor: self.name.clone(), bytes };
            self.own.put(slot, memory.map_err(out_of_memory)?);
        }
        Ok(())
    }

    /// Stands for it and its step in the noise of stochastic rounding. (Its own steps: k stands still where a
    /// step makes no progress, or is aborted.)
    #[inline]
    pub(super) fn noise_of_step(&self) -> u64 {
        self.noise ^ self.steps
    }

    /// State arrays that it has: its slots, and the master copy of a parameter in a shorter type.
    pub(super) fn arrays(&self) -> usize {
        self.slots.len() + usize::from(self.layout.master)
    }

    pub(super) fn array_name(&self, slot: usize) -> &'static str {
        self.slots.get(slot).map_or(MASTER, |slot| slot.name)
    }

    /// Elements of a state array.
    pub(super) fn slot_len(&self, slot: usize) -> usize {
        if self.has_given_back(slot) {
            return 0;
        }
        self.slots.get(slot).map_or(self.len, |slot| self.layout.slot_len(slot, self.len))
    }

    /// Bytes of a state array.
    pub(super) fn slot_bytes(&self, slot: usize) -> usize {
        if self.has_given_back(slot) { 0 } else { self.full_bytes(slot) }
    }

    fn full_bytes(&self, slot: usize) -> usize {
        let master = self.len * DType::F32.size();
        let of = |of: &Slot| self.layout.slot_bytes(slot, of, self.len);
        self.slots.get(slot).map_or(master, of)
    }

    /// Whether an array of the library's own has no memory any more, or never had any.
    fn has_given_back(&self, slot: usize) -> bool {
        self.owner == StateOwner::Library && !self.own.has(slot)
    }

    pub(super) fn slot_dtype(&self, slot: usize) -> DType {
        self.slots.get(slot).map_or(DType::F32, |_| self.layout.formats[slot].dtype)
    }

    pub(super) fn require_dtype(&self, given: DType) -> Result<()> {
        if given == self.dtype {
            return Ok(());
        }
        let tensor = self.name.clone();
        Err(Error::DTypeMismatch { tensor, given, registered: self.dtype })
    }

    /// Where the library's own state starts, null where a slot has no memory.
    #[inline]
    pub(super) fn own_state(&self) -> [*mut u8; MAX_SLOTS] {
        self.own.starts()
    }

    /// The library's own state of the tensor of that index.
    pub(super) fn own_spans(&self, tensor: usize) -> impl Iterator<Item = Span> {
        self.own.arrays().map(move |(start, bytes)| Span {
            start: start.addr(),
            bytes,
            tensor,
            what: What::State,
        })
    }

    /// Memory of the library's own again for a slot that had been given back, all zeros.
    pub(super) fn take_back(&mut self, slot: usize, arenas: &mut [Arena]) -> Result<()> {
        if self.has_given_back(slot) { self.allocate(slot, arenas) } else { Ok(()) }
    }

    /// Gives back the memory of a slot.
    pub(super) fn free(&mut self, slot: usize, arenas: &mut [Arena]) {
        if let Some(memory) = self.own.remove(slot) {
            arenas[slot].give_back(memory);
        }
    }

    /// Gives back what only estimates need.
    pub(super) fn free_statistics(&mut self, arenas: &mut [Arena]) {
        if self.width.is_some() {
            return; // a table's state is all needed
        }
        self.layout.statistics = false;
        for slot in 0..self.slots.len() {
            if self.slots[slot].role == Role::Statistic {
                self.free(slot, arenas);
            }
        }
    }

    /// Where a slot of the library's own starts, aligned to its elements in any case.
    fn start(&self, slot: usize) -> Result<*mut u8> {
        if self.owner == StateOwner::Caller {
            return Err(Error::StateOfCaller { tensor: self.name.clone() });
        }
        let nothing = ptr::without_provenance_mut(DType::F64.size());
        Ok(if self.own.has(slot) { self.own.starts()[slot] } else { nothing })
    }

    pub(super) fn require_slot_dtype(&self, slot: usize, asked: DType) -> Result<()> {
        if self.slot_dtype(slot) == asked {
            return Ok(());
        }
        let (tensor, slot, kept) =
            (self.name.clone(), self.array_name(slot), self.slot_dtype(slot));
        Err(Error::StateKeptIn { tensor, slot, asked, kept })
    }

    pub(super) fn state<E: Element>(&self, slot: usize) -> Result<&[E]> {
        self.require_slot_dtype(slot, E::DTYPE)?;
        let start = self.start(slot)?;
        // SAFETY: `new` allocated `slot_len` elements of that type, zeroed; zero bits are a value of
        // every `Element`. `&self` keeps writers out. An empty slice needs an aligned address only.
        Ok(unsafe { slice::from_raw_parts(start.cast(), self.slot_len(slot)) })
    }

    pub(super) fn state_mut<E: Element>(&mut self, slot: usize) -> Result<&mut [E]> {
        self.require_slot_dtype(slot, E::DTYPE)?;
        let start = self.start(slot)?;
        // SAFETY: as in `state`; `&mut self` keeps everybody else out.
        Ok(unsafe { slice::from_raw_parts_mut(start.cast(), self.slot_len(slot)) })
    }

    pub(super) fn raw_state_mut(&mut self, slot: usize) -> Result<&mut [u8]> {
        let start = self.start(slot)?;
        // SAFETY: as in `state_mut`, of the bytes that were allocated.
        Ok(unsafe { slice::from_raw_parts_mut(start, self.slot_bytes(slot)) })
    }

    /// A slot's values from `first` on, whatever they are kept in; the caller's are given.
    pub(super) fn read_state(
        &self,
        slot: usize,
        state: Option<&[u8]>,
        first: usize,
        to: &mut [f64],
    ) -> Result<()> {
        let (len, dtype) = (self.slot_len(slot), self.slot_dtype(slot));
        let start = self.start_of(slot, state)?;
        if first.checked_add(to.len()).is_none_or(|end| end > len) {
            let (what, given) = (self.array_name(slot), first.saturating_add(to.len()));
            return Err(Error::Length { tensor: self.name.clone(), what, given, registered: len });
        }
        match dtype {
            // SAFETY: there are `len` elements of that type, aligned, by `start_of`.
            DType::F32 => unsafe { copy_values::<f32>(start, first, to) },
            // SAFETY: as above.
            DType::F64 => unsafe { copy_values::<f64>(start, first, to) },
            // SAFETY: as above, as codes.
            _ => unsafe { self.decode_values(slot, start, first, to) },
        }
        Ok(())
    }

    /// Where a slot starts: the library's own, or what the caller gives.
    fn start_of(&self, slot: usize, state: Option<&[u8]>) -> Result<*const u8> {
        let (Some(state), StateOwner::Caller) = (state, self.owner) else {
            if state.is_some() {
                let tensor = self.name.clone();
                return Err(Error::StateCount { tensor, expected: 0, given: 1 });
            }
            return self.start(slot).map(<*mut u8>::cast_const);
        };
        let (bytes, align) = (self.slot_bytes(slot), self.slot_dtype(slot).size());
        let (tensor, what) = (self.name.clone(), self.array_name(slot));
        if state.len() != bytes {
            let (given, registered) = (state.len() / align, bytes / align);
            return Err(Error::Length { tensor, what, given, registered });
        }
        if bytes > 0 && !state.as_ptr().addr().is_multiple_of(align) {
            return Err(Error::Misaligned { tensor, what, align });
        }
        Ok(state.as_ptr())
    }

    /// # Safety
    /// `start` holds the slot, which is neither of f32 nor of f64, and `first + to.len()` elements of
    /// it at least; nobody writes them.
    unsafe fn decode_values(&self, slot: usize, start: *const u8, first: usize, to: &mut [f64]) {
        let (len, format) = (self.slot_len(slot), self.layout.formats[slot]);
        let sliced = self.slots[slot].role == Role::Statistic;
        let slice = if sliced { self.layout.slice } else { Slice::WHOLE };
        let token = Isa::Scalar.require().expect("every machine has it");
        let mut block = [0.0f32; BLOCK];
        for at in (0..self.len).step_by(BLOCK) {
            let (from, end) = (slice.before(at), slice.before(self.len.min(at + BLOCK)));
            let (wanted, until) = (from.max(first), end.min(first + to.len()));
            if wanted >= until {
                continue;
            }
            let place = Place {
                codes: start.wrapping_add(from * format.dtype.size()).cast_mut(),
                exponents: start.wrapping_add(len + groups_before(slice, at)).cast_mut(),
            };
            // SAFETY: blocks are laid out so by the steps, within this function's own contract.
            unsafe { format.decode_all(token, place, &mut block[..end - from]) };
            let values = &block[wanted - from..until - from];
            let to = &mut to[wanted - first..until - first];
            to.iter_mut().zip(values).for_each(|(to, value)| *to = f64::from(*value));
        }
    }
}

/// Elements of an array from `first` on.
///
/// # Safety
/// `start` is aligned and holds `first + to.len()` elements at least that nobody writes.
unsafe fn copy_values<E: Element>(start: *const u8, first: usize, to: &mut [f64]) {
    if to.is_empty() {
        return; // and nothing is aligned
    }
    // SAFETY: this function's own contract.
    let values = unsafe { slice::from_raw_parts(start.cast::<E>().add(first), to.len()) };
    to.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_f64());
}
