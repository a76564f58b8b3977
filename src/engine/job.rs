//! A tensor of a step.

use super::blocks::decode;
use super::slices::Slice;
use crate::algorithm::{MAX_SLOTS, Role, Slot};
use crate::dtype::DType;
use crate::kernel::block::{Streams, ZEROS};
use crate::kernel::codec::Format;
use crate::kernel::isa::Token;
use std::ptr;

/// Where the gradient of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradient {
    /// Where `streams` say.
    Given,
    /// In a state slot, which is about to be set up.
    KeptIn(usize),
    /// Nowhere any more, and 0 all over.
    Zero,
}

/// How the arrays of a job are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formats {
    /// Of the parameter that is worked on.
    pub(crate) p: DType,
    pub(crate) g: DType,
    pub(crate) state: [Format; MAX_SLOTS],
}

/// A tensor of a step: where its arrays are and what is done with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// The parameter is the master copy where there is one.
    pub(crate) streams: Streams,
    pub(crate) len: usize,
    /// What lane functions compute in: f32 or f64.
    pub(crate) dtype: DType,
    pub(crate) formats: Formats,
    /// Where and of what type the parameter is that follows its master copy.
    pub(crate) copy: Option<(*mut u8, DType)>,
    /// Whether the master copy, where there is one, holds the parameter.
    pub(crate) master_is_set: bool,
    /// Whether the step moves by state that rounding changes, and so by what it is rounded to.
    pub(crate) moves_by_kept: bool,
    /// Stands for the tensor and its step in the noise of stochastic rounding, where it is mixed.
    pub(crate) noise: u64,
    pub(crate) group: usize,
    /// Index into the step's plans.
    pub(crate) plan: usize,
    /// Its first gradient: its state is set up.
    pub(crate) first: bool,
    /// What statistics follow.
    pub(crate) slice: Slice,
    /// The slot that holds nothing but zeros and has no memory.
    pub(crate) zeros: Option<usize>,
    pub(crate) gradient: Gradient,
    /// Whether all arrays but the gradient are of the type that lane functions compute in.
    pub(crate) is_plain_but_g: bool,
    /// Blocks of the jobs before this one; counted by `Jobs::add_spare`.
    pub(crate) blocks_before: usize,
}

// SAFETY: a job is a set of pointers that `Jobs::add_spare`'s caller vouched for: nobody else uses what
// they point to, and blocks handed to different threads are disjoint.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Whether some array is not of the type that lane functions compute in.
    #[inline]
    pub(super) fn is_coded(&self) -> bool {
        !self.is_plain_but_g || self.formats.g != self.dtype
    }

    /// The parameter becomes the copy of the state array of that number, which is its master copy.
    pub(crate) fn follow_master(&mut self, array: usize) {
        let Streams { p, state, .. } = &mut self.streams;
        self.copy = Some((*p, self.formats.p));
        *p = std::mem::replace(&mut state[array], ptr::null_mut());
        self.formats.p = DType::F32;
    }

    /// Whether steps round the parameter, of which there is no master copy.
    pub(crate) fn rounds_parameter(&self) -> bool {
        self.copy.is_none() && self.formats.p != self.dtype
    }

    /// Whether its arrays are of another's plain type and some start where the processor does not expect
    /// it: what follows an array within a few lines it asks for by itself.
    #[inline]
    pub(super) fn lies_apart_from(&self, before: &Job) -> bool {
        /// A power of two.
        const NEAR: usize = 256;
        let bytes = before.len * before.dtype.size();
        let gap = |to: *const u8, from: *const u8| {
            to.addr().wrapping_sub(from.addr()).wrapping_sub(bytes)
        };
        let (from, to) = (&before.streams, &self.streams);
        // All are below it where together they have no bit above it.
        let mut gaps = gap(to.p, from.p) | gap(to.g, from.g);
        for (to, from) in to.state.iter().zip(from.state) {
            gaps |= if to.is_null() { 0 } else { gap(*to, from) };
        }
        !self.is_coded() && self.dtype == before.dtype && gaps >= NEAR
    }

    /// Where the parameter is as the caller has it, and its type.
    pub(crate) fn parameter(&self) -> (*const u8, DType) {
        self.copy.map_or((self.streams.p.cast_const(), self.formats.p), |(p, dtype)| {
            (p.cast_const(), dtype)
        })
    }

    /// Keeps the gradient in a slot that is as wide as what lane functions compute in.
    ///
    /// # Safety
    /// Gradient and slot are as `Jobs::add_spare` says, and nobody else uses the slot.
    pub(crate) unsafe fn keep_gradient(&mut self, token: Token, slot: usize) {
        let (g, to) = (self.g_at(0), self.streams.state[slot]);
        // SAFETY: this function's own contract.
        unsafe { decode(token, (self.formats.g, self.dtype), g, self.len, to) };
        self.formats.g = self.dtype;
        self.gradient = Gradient::KeptIn(slot);
    }

    pub(super) fn g_at(&self, start: usize) -> *const u8 {
        self.streams.g.wrapping_add(start * self.formats.g.size())
    }

    /// The job's arrays from element `start` on, all of its dtype, which stand for zeros too where they have no
    /// memory.
    #[inline(always)]
    pub(super) fn at(&self, start: usize, slots: &[Slot], to: &mut Streams) {
        *to = self.streams;
        if start > 0 {
            let size = self.dtype.size();
            let Streams { p, g, state } = to;
            (*p, *g) = (p.wrapping_add(start * size), g.wrapping_add(start * size));
            for (array, slot) in state.iter_mut().zip(slots).filter(|(array, _)| !array.is_null()) {
                let skipped = match slot.role {
                    Role::Statistic => self.slice.before(start),
                    _ => start,
                };
                *array = array.wrapping_add(skipped * size);
            }
        }
        if let Some(slot) = self.zeros {
            to.state[slot] = ZEROS.as_ptr().cast_mut();
        }
        if self.gradient == Gradient::Zero {
            to.g = ZEROS.as_ptr();
        }
    }
}
