//! A kernel with codecs: groups of 256 elements, one after the other.
//!
//! Registers are decoded as they are loaded and encoded as they are stored: codecs take the ports that
//! idle while the lane function divides. 8-bit state has an exponent for a group, which is known when
//! all of it is computed, and a parameter that moves by state moves by what that has been rounded to. So a
//! first loop over a group computes and leaves state that is to be rounded in the first cache, and a
//! second one rounds it and moves the parameter where that had to wait.

// Loops over arrays and registers index several at once; an iterator over one of them hides that. None is filtered:
// LLVM does not always unroll that.
#![allow(clippy::needless_range_loop)]

use super::buffers::{Group, Scratch};
use super::padding::{Padding, give_back};
use crate::algorithm::{self, Cell, Rule, pass};
use crate::dtype::DType;
use crate::kernel::bits::Bits;
use crate::kernel::block::{BLOCK, BLOCKS, Partial};
use crate::kernel::codec::{Format, GROUP, magnitudes, short};
use crate::kernel::coeffs::{Aligned, Coeffs, kept_coeffs};
use crate::kernel::isa::Token;
use crate::kernel::kept::Coded;
use crate::kernel::lanes::{Lanes, ROW};
use crate::kernel::mode::{self, dtype_of, may_round, pair};
use crate::kernel::prefetch::{AHEAD, prefetch, prefetch_second};
use crate::kernel::sums::{RUN, Wide, fold, widen};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::slice;

mod ends;
mod second;

/// Sums of a run, register by register.
type Run<S, const SUMS: usize> = [[<S as Simd>::f32s; ROW]; SUMS];

/// Blocks of one algorithm, kind of decay, pass and mode, yet to meet an instruction set.
pub(super) struct CodedKernel<
    'a,
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
    const MODE: u8,
    const PAIR: u8,
> {
    pub(super) token: Token,
    pub(super) coeffs: [f32; COEFFS],
    pub(super) arrays: &'a Coded,
    /// Of all blocks, up to [`BLOCKS`].
    pub(super) len: usize,
    pub(super) out: &'a mut [Partial],
    pub(super) rule: PhantomData<R>,
}

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
    /// Whether a slot is kept in a type that holds what it is a copy of.
    #[inline(always)]
    fn is_exact(slot: usize) -> bool {
        !may_round::<R, COEFFS, SLOTS, SUMS>(slot)
    }

    /// How a slot is kept that is not.
    #[inline(always)]
    fn format(slot: usize) -> Format {
        let unsigned = matches!(R::STATE[slot].kept, algorithm::Kept::Unsigned);
        Format::new(dtype_of(MODE, R::STATE[slot].role), unsigned)
    }

    /// Whether a slot is kept rounded, and so decoded as it is loaded.
    #[inline(always)]
    fn is_rounded(slot: usize) -> bool {
        !Self::is_exact(slot) && Self::format(slot).dtype != DType::F32
    }

    #[inline(always)]
    fn reads(slot: usize) -> bool {
        R::STATE[slot].is_read(PASS)
    }

    #[inline(always)]
    fn writes(slot: usize) -> bool {
        R::STATE[slot].is_written(PASS)
    }

    /// Whether a slot is rounded, in the second loop.
    #[inline(always)]
    fn rounds(slot: usize) -> bool {
        Self::is_rounded(slot) && Self::writes(slot)
    }

    /// Whether any slot is.
    #[inline(always)]
    fn rounds_any() -> bool {
        (0..SLOTS).any(Self::rounds)
    }

    /// Whether the parameter moves.
    #[inline(always)]
    fn moves() -> bool {
        PASS & pass::PARAMETER != 0
    }

    /// Whether it does so in the second loop, by state as it is kept.
    #[inline(always)]
    fn waits() -> bool {
        R::MOVES_BY_STATE && MODE != mode::FULL && Self::moves() && PASS & pass::STATE != 0
    }

    /// Whether the parameter is rounded, in the second loop.
    #[inline(always)]
    fn rounds_parameter() -> bool {
        PAIR == pair::ALONE && Self::moves()
    }

    /// The lane function, with the parameter or without it.
    #[inline(always)]
    fn lane<S: Simd>(
        lanes: Lanes<S, f32>,
        coeffs: &Coeffs<S::f32s, COEFFS>,
        g: S::f32s,
        cell: Cell<f32, S, SLOTS>,
        sums: [S::f32s; SUMS],
    ) -> (Cell<f32, S, SLOTS>, [S::f32s; SUMS]) {
        let coeffs = &coeffs.get();
        if !Self::waits() {
            R::lane::<S, f32, DECAY, PASS>(lanes, coeffs, g, cell, sums)
        } else if PASS & pass::SUMS != 0 {
            const ADVANCE: u8 = pass::ADVANCE | pass::UNBOUNDED;
            R::lane::<S, f32, DECAY, ADVANCE>(lanes, coeffs, g, cell, sums)
        } else {
            const ADVANCE: u8 = pass::ADVANCE & !pass::SUMS | pass::UNBOUNDED;
            R::lane::<S, f32, DECAY, ADVANCE>(lanes, coeffs, g, cell, sums)
        }
    }

    /// Asks for a row of what lies ahead, in the first loop or in the second: where the parameter moves in that, some
    /// half of the bytes in each, since memory that is asked for in bursts idles between them.
    #[inline(always)]
    fn ask_ahead(group: &Group<SLOTS>, row: usize, second: bool) {
        let Group { p, g, short: [short_p, short_g], codes, .. } = *group;
        if second == Self::waits() {
            match PAIR {
                pair::ALONE => Self::ask(short_p, row, 2),
                _ => Self::ask(p.cast(), row, 4),
            }
        }
        if !second {
            if PAIR == pair::MASTER {
                Self::ask(short_p, row, 2);
            }
            if PAIR != pair::NONE {
                Self::ask(short_g, row, 2);
            } else if PASS != pass::MOVE {
                Self::ask(g.cast(), row, 4);
            }
        }
        for slot in 0..SLOTS {
            if Self::reads(slot) && second == (slot == 0 && Self::waits()) {
                let exact = Self::is_exact(slot);
                let size = if exact { 4 } else { Self::format(slot).dtype.size() };
                Self::ask(codes[slot], row, size);
            }
        }
    }

    /// Asks for a row of what lies ahead in an array.
    #[inline(always)]
    fn ask(array: *const u8, row: usize, size: usize) {
        let line = array.wrapping_add((row + AHEAD) * size);
        // State in full, of twice to four times the bytes, would drive out of the first cache what is
        // worked on.
        if MODE == mode::FULL { prefetch_second(line) } else { prefetch(line) }
    }

    /// The first loop, over some rows: computes, adds to the sums, and finds the largest magnitudes of 8-bit
    /// state.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[inline(always)]
    unsafe fn compute<S: Simd>(
        lanes: Lanes<S, f32>,
        bits: Bits<S>,
        coeffs: &Coeffs<S::f32s, COEFFS>,
        group: &Group<SLOTS>,
        (from, to): (usize, usize),
        (run, largest, special): (&mut Run<S, SUMS>, &mut [S::u32s; SLOTS], &mut S::u32s),
    ) {
        let Group { p, short: [short_p, _], computed, codes, scales, .. } = *group;
        for row in (from..to).step_by(ROW) {
            Self::ask_ahead(group, row, false);
            for register in 0..Lanes::<S, f32>::PER_ROW {
                let at = row + register * Lanes::<S, f32>::LEN;
                // SAFETY: this function's own contract.
                unsafe {
                    let x = match PAIR {
                        pair::NONE => lanes.load(p.wrapping_add(at)),
                        pair::ALONE => short::load(bits, (short_p, at)),
                        _ => short::adopt(bits, lanes.load(p.wrapping_add(at)), (short_p, at)),
                    };
                    if PAIR != pair::NONE && Self::waits() {
                        lanes.store(p.wrapping_add(at), x);
                    }
                    let mut state = [x; SLOTS];
                    for slot in 0..SLOTS {
                        if !Self::reads(slot) {
                            continue;
                        }
                        state[slot] = if Self::is_rounded(slot) {
                            let (format, kind) = (Self::format(slot), R::STATE[slot].kept);
                            format.load(bits, kind, (codes[slot], at), scales[slot])
                        } else {
                            lanes.load(computed[slot].wrapping_add(at))
                        };
                    }
                    let mut sums = [x; SUMS];
                    for sum in 0..SUMS {
                        sums[sum] = run[sum][register];
                    }
                    let gradient = Self::gradient(lanes, bits, group, at);
                    let ((x, state), sums) = Self::lane(lanes, coeffs, gradient, (x, state), sums);
                    for sum in 0..SUMS {
                        run[sum][register] = sums[sum];
                    }
                    if Self::moves() && !Self::waits() {
                        lanes.store(p.wrapping_add(at), x);
                        if PAIR == pair::MASTER {
                            *special = bits.max_of(*special, short::round(bits, x, (short_p, at)));
                        }
                    }
                    for slot in 0..SLOTS {
                        if !Self::writes(slot) {
                            continue;
                        }
                        let (format, mut x) = (Self::format(slot), state[slot]);
                        if Self::rounds(slot) && format.is_grouped() {
                            // What has no sign is its magnitude, and NaN is above all.
                            let size =
                                if format.unsigned { bits.of(x) } else { magnitudes(bits, x) };
                            largest[slot] = bits.max_of(largest[slot], size);
                        } else if Self::rounds(slot) && R::STATE[slot].saturates {
                            x = format.saturated(bits, x);
                        }
                        lanes.store(computed[slot].wrapping_add(at), x);
                    }
                }
            }
        }
    }

    /// A register of the gradient.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[inline(always)]
    unsafe fn gradient<S: Simd>(
        lanes: Lanes<S, f32>,
        bits: Bits<S>,
        group: &Group<SLOTS>,
        at: usize,
    ) -> S::f32s {
        // SAFETY: this function's own contract.
        unsafe {
            if PAIR == pair::NONE {
                lanes.load(group.g.wrapping_add(at))
            } else {
                short::load(bits, (group.short[1], at))
            }
        }
    }
}

impl<
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
    const MODE: u8,
    const PAIR: u8,
> WithSimd for CodedKernel<'_, R, COEFFS, SLOTS, SUMS, DECAY, PASS, MODE, PAIR>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        let (lanes, bits) = (Lanes::<S, f32>::new(simd), Bits(simd));
        let zero = lanes.splat(0.0);
        let mut coeffs = Aligned([zero; COEFFS]);
        for i in 0..COEFFS {
            coeffs.0[i] = lanes.splat(self.coeffs[i]);
        }
        let coeffs = Coeffs::new(&coeffs, kept_coeffs::<S, f32>(COEFFS, SUMS));
        let mut scratch = MaybeUninit::<Scratch<SLOTS>>::uninit();
        let scratch = Scratch::new(&mut scratch, self.decodes());
        let (mut padding, mut padded) = (Padding::new(), None);
        let mut wide = [const { MaybeUninit::<[Wide; SUMS]>::uninit() }; BLOCKS];
        let mut run = [[zero; ROW]; SUMS];
        let (mut lost, mut special) = (0, bits.splat(0));
        let (rounds, packed) =
            (Self::rounds_any() || Self::rounds_parameter(), Self::packed::<S>());
        let blocks = self.len.div_ceil(BLOCK);
        for (block, wide) in wide[..blocks].iter_mut().enumerate() {
            let wide = wide.write([[0.0; ROW]; SUMS]);
            let end = self.len.min((block + 1) * BLOCK);
            for start in (block * BLOCK..end).step_by(GROUP) {
                let there = (start, GROUP.min(end - start));
                let (mut arrays, whole) = (self.arrays, there.1 / ROW * ROW);
                let len = there.1.next_multiple_of(ROW);
                let filled = if rounds { len.next_multiple_of(packed) } else { len };
                if filled > there.1 {
                    let to = (start, there.1, filled);
                    // SAFETY: `CodedFn`'s contract.
                    let copies = unsafe { padding.fill(self.arrays, to, &Self::USE) };
                    arrays = padded.insert(copies);
                }
                // SAFETY: as above.
                let group = unsafe { self.open(arrays, (start, len), scratch) };
                let (mut row, mut largest) = (0, [bits.splat(0); SLOTS]);
                loop {
                    let rows = (row, if row < whole { whole } else { len });
                    let found = (&mut run, &mut largest, &mut special);
                    // SAFETY: as above.
                    unsafe { Self::compute(lanes, bits, &coeffs, &group, rows, found) };
                    row = rows.1;
                    // A shorter row is a run of its own, in this group or the next.
                    let left = end.saturating_sub(start + GROUP);
                    let is_run = (start + GROUP).is_multiple_of(RUN * ROW) || left < ROW;
                    if PASS & pass::SUMS != 0 && (is_run || row < len) {
                        for sum in 0..SUMS {
                            widen::<S, f32>(&run[sum], &mut wide[sum]);
                            run[sum] = [zero; ROW];
                        }
                    }
                    if row == len {
                        break;
                    }
                }
                // SAFETY: as above; arrays are filled up to what is packed together, and so is what has been computed.
                unsafe {
                    if rounds {
                        Self::clear(&group, filled);
                        let rest = (largest, &mut special);
                        self.round(lanes, bits, &coeffs, &group, rest);
                    }
                    lost += self.close(arrays, &group);
                    // Once more where some may have become infinite, to count them; of a master copy, also
                    // since the loops do not round what is infinite or NaN.
                    let least =
                        if PAIR == pair::MASTER { short::SPECIAL } else { short::TOO_LARGE };
                    if PAIR != pair::NONE && Self::moves() && bits.largest(special) >= least {
                        let p = slice::from_raw_parts_mut(group.p, group.len);
                        let alone = PAIR == pair::ALONE;
                        let noise = alone.then(|| self.noise_of_parameter(start));
                        lost += short::FORMAT.round_all(self.token, p, group.short[0], noise);
                        special = bits.splat(0);
                    }
                    if filled > there.1 {
                        give_back(self.arrays, arrays, there, &Self::USE);
                    }
                }
            }
        }
        for (out, wide) in self.out.iter_mut().zip(&wide[..blocks]) {
            // SAFETY: the loop above wrote so many.
            let wide = unsafe { wide.assume_init_ref() };
            for sum in 0..SUMS {
                out[sum] = fold(&wide[sum]);
            }
        }
        lost
    }
}
