//! What comes before and after the loops over a group: arrays that they leave to functions.

// As in the loops.
#![allow(clippy::needless_range_loop)]

use super::{CodedKernel, Group, Scratch};
use crate::algorithm::{MAX_SLOTS, Rule, pass};
use crate::dtype::DType;
use crate::kernel::codec::{GROUP, Scale};
use crate::kernel::coded::padding::Use;
use crate::kernel::kept::{Coded, Kept, adopt, decoded};
use crate::kernel::mode::pair;
use crate::kernel::rounding::Key;
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
    /// As [`CodedFn`], of these arrays, and `scratch` is [`new`](Scratch::new) as
    /// [`decodes`](Self::decodes) says; of all that follows too.
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
        // SAFETY: this function's own contract: each group has an exponent, and `scratch` holds numbers where
        // something is decoded to it.
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
                computed[slot] = scratch.state[slot].as_mut_ptr().cast();
                if Self::is_exact(slot) {
                    codes[slot] = kept[slot].place(start).codes;
                    let to = computed[slot];
                    computed[slot] = decoded(self.token, &kept[slot], (start, len), to);
                    continue;
                }
                let (format, place) = (Self::format(slot), kept[slot].place);
                codes[slot] = place.codes.wrapping_add(start * format.dtype.size());
                if format.is_grouped() {
                    scales[slot] = format.scale(*place.exponents.wrapping_add(start / GROUP));
                } else if format.dtype == DType::F32 {
                    computed[slot] = codes[slot].cast();
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

    /// What of the arrays the loops read and write.
    pub(super) const USE: Use = {
        let (mut reads, mut writes) = ([false; MAX_SLOTS], [false; MAX_SLOTS]);
        let mut slot = 0;
        while slot < SLOTS {
            reads[slot] = R::STATE[slot].is_read(PASS);
            writes[slot] = R::STATE[slot].is_written(PASS);
            slot += 1;
        }
        Use { reads, writes, gradient: PASS != pass::MOVE, parameter: PASS & pass::PARAMETER != 0 }
    };

    /// Of the group from an element on.
    #[inline(always)]
    pub(super) fn noise_of_parameter(&self, start: usize) -> (u64, usize, usize) {
        let (step, first) = self.arrays.noise;
        (step, first + start / GROUP, SLOTS)
    }

    /// The parameter of a pair.
    #[inline(always)]
    pub(super) fn short(arrays: &Coded) -> Kept {
        arrays.copy.map_or(arrays.p, |(copy, _)| copy)
    }
}
