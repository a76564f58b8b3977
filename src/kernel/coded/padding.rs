//! The group of a tensor's end whose last row is shorter, or is packed with one that is not there: copies of its
//! arrays, as they are kept, filled up with zeros.

use crate::algorithm::MAX_SLOTS;
use crate::kernel::codec::GROUP;
use crate::kernel::kept::{Coded, Kept};
use std::mem::MaybeUninit;

/// What of a block's arrays a kernel reads and writes.
pub(super) struct Use {
    pub(super) reads: [bool; MAX_SLOTS],
    pub(super) writes: [bool; MAX_SLOTS],
    pub(super) gradient: bool,
    /// Whether the parameter moves.
    pub(super) parameter: bool,
}

/// Room for a group of an array.
type Copy = MaybeUninit<[u32; GROUP]>;

/// Room for a group of all arrays.
pub(super) struct Padding {
    p: Copy,
    g: Copy,
    parameter: Copy,
    state: [Copy; MAX_SLOTS],
}

impl Padding {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let state = [const { Copy::uninit() }; MAX_SLOTS];
        Padding { p: Copy::uninit(), g: Copy::uninit(), parameter: Copy::uninit(), state }
    }

    /// The arrays with copies in place of what is read of the `len` elements from `start` on, filled up to `to`.
    ///
    /// # Safety
    /// The arrays hold these elements, which are of one group, and nobody else writes them.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn fill(
        &mut self,
        arrays: &Coded,
        (start, len, to): (usize, usize, usize),
        uses: &Use,
    ) -> Coded {
        let fill = |kept: &mut Kept, copy: &mut Copy| {
            let (from, size) = (kept.place(start).codes, kept.size());
            let copy = copy.as_mut_ptr().cast::<u8>();
            // SAFETY: this function's own contract; the copy has room for a group.
            unsafe {
                copy.copy_from_nonoverlapping(from, len * size);
                copy.add(len * size).write_bytes(0, (to - len) * size);
            }
            kept.place.codes = copy.wrapping_sub(start * size);
        };
        let mut padded = *arrays;
        fill(&mut padded.p, &mut self.p);
        if uses.gradient {
            fill(&mut padded.g, &mut self.g);
        }
        if let Some((parameter, _)) = &mut padded.copy {
            fill(parameter, &mut self.parameter);
        }
        for (slot, copy) in self.state.iter_mut().enumerate().filter(|(i, _)| uses.reads[*i]) {
            fill(&mut padded.state[slot], copy);
        }
        padded
    }
}

/// Puts back what has been written of such copies.
///
/// # Safety
/// As [`Padding::fill`], and nobody else uses what is written.
#[cold]
#[inline(never)]
pub(super) unsafe fn give_back(
    arrays: &Coded,
    padded: &Coded,
    (start, len): (usize, usize),
    uses: &Use,
) {
    let back = |to: &Kept, from: &Kept| {
        let (to, from, bytes) = (to.place(start), from.place(start), len * to.size());
        // SAFETY: this function's own contract.
        unsafe { to.codes.copy_from_nonoverlapping(from.codes, bytes) };
    };
    // A master copy is written too where it follows its parameter.
    if uses.parameter || arrays.copy.is_some() {
        back(&arrays.p, &padded.p);
    }
    if let (Some((to, _)), Some((from, _)), true) = (arrays.copy, padded.copy, uses.parameter) {
        back(&to, &from);
    }
    for slot in (0..MAX_SLOTS).filter(|slot| uses.writes[*slot]) {
        back(&arrays.state[slot], &padded.state[slot]);
    }
}
