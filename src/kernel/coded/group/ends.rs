//! What comes before and after the loops over a group: arrays that they leave to functions.

// As in the loops.
#![allow(clippy::needless_range_loop)]

use super::{CodedKernel, Group, Scratch};
use crate::algorithm::{Rule, pass};
use crate::dtype::DType;
use crate::kernel::codec::{GROUP, Scale};
use crate::kernel::kept::{Coded, Kept, adopt, decoded};
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
    /// The group from an element on, decoded where the loops are not to.
    ///
    /// # Safety
    /// As [`CodedFn`], of the block's arrays; of all that follows too.
    #[inline(always)]
    pub(super) unsafe fn open(&self, start: usize, scratch: &mut Scratch<SLOTS>) -> Group<SLOTS> {
        let Coded { p, g, state: kept, noise: (step, first), .. } = self.arrays;
        let len = GROUP.min(self.len - start);
        let mut computed = [ptr::null_mut::<f32>(); SLOTS];
        let mut codes = [ptr::null_mut::<u8>(); SLOTS];
        let mut scales = [Scale::NONE; SLOTS];
        // SAFETY: this function's own contract: each group has an exponent.
        unsafe {
            let mut short = [ptr::null_mut(); 2];
            if PAIR == pair::NONE {
                adopt(self.token, self.arrays, start, len);
            } else {
                short = [self.short().place(start).codes, g.place(start).codes];
            }
            let p = if PAIR == pair::ALONE {
                scratch.p.as_mut_ptr()
            } else {
                decoded(self.token, p, start, &mut scratch.p[..len])
            };
            // A parameter that moves by its state alone needs no gradient.
            let g = if PASS == pass::MOVE || PAIR != pair::NONE {
                p
            } else {
                decoded(self.token, g, start, &mut scratch.g[..len])
            };
            for slot in 0..SLOTS {
                if !Self::reads(slot) {
                    continue;
                }
                let (values, place) = (&mut scratch.state[slot][..len], kept[slot].place(start));
                computed[slot] = values.as_mut_ptr();
                codes[slot] = place.codes;
                if Self::is_exact(slot) {
                    computed[slot] = decoded(self.token, &kept[slot], start, values);
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
    pub(super) unsafe fn close(&self, group: &Group<SLOTS>) -> u64 {
        let Group { start, len, p, computed, codes, .. } = *group;
        let Coded { p: p_kept, copy, state: kept, .. } = self.arrays;
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

    /// Of the group from an element on.
    #[inline(always)]
    pub(super) fn noise_of_parameter(&self, start: usize) -> (u64, usize, usize) {
        let (step, first) = self.arrays.noise;
        (step, first + start / GROUP, PARAMETER)
    }

    /// The parameter of a pair.
    #[inline(always)]
    pub(super) fn short(&self) -> Kept {
        self.arrays.copy.map_or(self.arrays.p, |(copy, _)| copy)
    }
}
