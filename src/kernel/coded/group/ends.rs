//! What comes before and after the loops over a group: arrays that they leave to functions.

// As in the loops.
#![allow(clippy::needless_range_loop)]

use super::{CodedKernel, Group, Padding, Scratch};
use crate::algorithm::{Rule, pass};
use crate::dtype::DType;
use crate::kernel::codec::{GROUP, Scale};
use crate::kernel::coded::buffers::Copy;
use crate::kernel::kept::{Coded, Kept, adopt, decoded};
use crate::kernel::lanes::ROW;
use crate::kernel::mode::pair;
use crate::kernel::rounding::{Key, PARAMETER};
use std::{ptr, slice};

impl<
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
    const MODE: u8,
    const PAIR: u8,
> CodedKernel<'_, R, COEFFS, SLOTS, SUMS, DECAY, PASS, MODE, PAIR>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    /// Whether some arrays are decoded before the loops.
    #[inline(always)]
    pub(super) fn decodes(&self) -> bool {
        let Coded { p, g, state, .. } = self.arrays;
        let is_decoded = |kept: &Kept| !kept.is_plain();
        PAIR == pair::NONE && (is_decoded(p) || is_decoded(g))
            || (0..SLOTS).any(|slot| Self::is_exact(slot) && is_decoded(&state[slot]))
    }

    /// The group of `len` elements from one on, decoded where the loops are not to.
    ///
    /// # Safety
    /// As [`CodedFn`], of these arrays; of all that follows too.
    #[inline(always)]
    pub(super) unsafe fn open(
        &self,
        arrays: &Coded,
        (start, len): (usize, usize),
        scratch: &mut Scratch<SLOTS>,
    ) -> Group<SLOTS> {
        let Coded { p, g, state: kept, noise: (step, first), .. } = arrays;
        let mut computed = [ptr::null_mut::<f32>(); SLOTS];
        let mut codes = [ptr::null_mut::<u8>(); SLOTS];
        let mut scales = [Scale::NONE; SLOTS];
        // SAFETY: this function's own contract: each group has an exponent.
        unsafe {
            let mut short = [ptr::null_mut(); 2];
            if PAIR == pair::NONE {
                adopt(self.token, arrays, start, len);
            } else {
                short = [Self::short(arrays).place(start).codes, g.place(start).codes];
            }
            let p = if PAIR == pair::ALONE {
                scratch.p.as_mut_ptr().cast()
            } else {
                decoded(self.token, p, (start, len), scratch.p.as_mut_ptr().cast())
            };
            // A parameter that moves by its state alone needs no gradient.
            let g = if PASS == pass::MOVE || PAIR != pair::NONE {
                p
            } else {
                decoded(self.token, g, (start, len), scratch.g.as_mut_ptr().cast())
            };
            for slot in 0..SLOTS {
                if !Self::reads(slot) {
                    continue;
                }
                let place = kept[slot].place(start);
                computed[slot] = scratch.state[slot].as_mut_ptr().cast();
                codes[slot] = place.codes;
                if Self::is_exact(slot) {
                    let to = computed[slot];
                    computed[slot] = decoded(self.token, &kept[slot], (start, len), to);
                } else if Self::format(slot).is_grouped() {
                    scales[slot] = Self::format(slot).scale(*place.exponents);
                } else if Self::format(slot).dtype == DType::F32 {
                    computed[slot] = place.codes.cast();
                }
            }
            let key = Key::new(*step, first + start / GROUP);
            Group { start, len, key, p, g, short, computed, codes, scales }
        }
    }

    /// Puts back what the loops had decoded for them: how many parameters have become infinite.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[inline(always)]
    pub(super) unsafe fn close(&self, arrays: &Coded, group: &Group<SLOTS>) -> u64 {
        let Group { start, len, p, computed, codes, .. } = *group;
        let Coded { p: p_kept, copy, state: kept, .. } = arrays;
        // SAFETY: this function's own contract: what has been computed is there.
        unsafe {
            for slot in 0..SLOTS {
                if !Self::is_exact(slot) {
                    continue;
                }
                if Self::writes(slot) && !kept[slot].is_plain() {
                    // What it is a copy of is of its type.
                    let values = slice::from_raw_parts_mut(computed[slot], len);
                    kept[slot].format.round_all(self.token, values, codes[slot], None);
                }
            }
            if !Self::moves() || PAIR != pair::NONE {
                return 0;
            }
            let p = slice::from_raw_parts_mut(p, len);
            if let Some((copy, _)) = copy {
                copy.format.round_all(self.token, p, copy.place(start).codes, None)
            } else if !p_kept.is_plain() {
                let noise = Some(self.noise_of_parameter(start));
                p_kept.format.round_all(self.token, p, p_kept.place(start).codes, noise)
            } else {
                0
            }
        }
    }

    /// The arrays with copies in place of the elements from `start` on, filled up to a whole row with zeros.
    ///
    /// # Safety
    /// As [`open`](Self::open), of the elements from `start` on, which are of one group.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn pad(&self, start: usize, padding: &mut Padding<SLOTS>) -> Coded {
        let (mut padded, len) = (*self.arrays, self.len - start);
        let fill = |kept: &mut Kept, copy: &mut Copy| {
            let (from, size) = (kept.place(start).codes, kept.size());
            let copy = copy.as_mut_ptr().cast::<u8>();
            // SAFETY: this function's own contract; the copy has room for a group.
            unsafe {
                copy.copy_from_nonoverlapping(from, len * size);
                let rest = len.next_multiple_of(ROW) - len;
                copy.add(len * size).write_bytes(0, rest * size);
            }
            kept.place.codes = copy.wrapping_sub(start * size);
        };
        fill(&mut padded.p, &mut padding.p);
        if PASS != pass::MOVE {
            fill(&mut padded.g, &mut padding.g);
        }
        if let Some((parameter, _)) = &mut padded.copy {
            fill(parameter, &mut padding.parameter);
        }
        for slot in (0..SLOTS).filter(|slot| Self::reads(*slot)) {
            fill(&mut padded.state[slot], &mut padding.state[slot]);
        }
        padded
    }

    /// Puts back what has been written of such copies.
    ///
    /// # Safety
    /// As [`pad`](Self::pad).
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn give_back(&self, start: usize, padded: &Coded) {
        let back = |to: &Kept, from: &Kept| {
            let bytes = (self.len - start) * to.size();
            // SAFETY: this function's own contract.
            unsafe {
                to.place(start).codes.copy_from_nonoverlapping(from.place(start).codes, bytes);
            }
        };
        // A master copy is written too where it follows its parameter.
        if Self::moves() || padded.copy.is_some() {
            back(&self.arrays.p, &padded.p);
        }
        if let (Some((to, _)), Some((from, _)), true) =
            (&self.arrays.copy, &padded.copy, Self::moves())
        {
            back(to, from);
        }
        for slot in (0..SLOTS).filter(|slot| Self::writes(*slot)) {
            back(&self.arrays.state[slot], &padded.state[slot]);
        }
    }

    /// Of the group from an element on.
    #[inline(always)]
    pub(super) fn noise_of_parameter(&self, start: usize) -> (u64, usize, usize) {
        let (step, first) = self.arrays.noise;
        (step, first + start / GROUP, PARAMETER)
    }

    /// The parameter of a pair.
    #[inline(always)]
    pub(super) fn short(arrays: &Coded) -> Kept {
        arrays.copy.map_or(arrays.p, |(copy, _)| copy)
    }
}
