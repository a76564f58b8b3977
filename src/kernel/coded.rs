//! The one pass over a block whose arrays are not all of f32, as it usually is: codecs beside the lane
//! function.
//!
//! Registers are decoded as they are loaded and encoded as they are stored: codecs take the ports that
//! idle while the lane function divides. There is a kernel for each usual way of keeping state, for the
//! pass that most steps are; the engine does what they leave.
//!
//! State goes by groups. 8-bit state has an exponent for a group, which is known when all of it is
//! computed, and a parameter that moves by state moves by what that has been rounded to. So a first
//! loop over a group computes and leaves state that is to be rounded in the first cache, and a second one
//! rounds it and moves the parameter where that had to wait.

// Loops over arrays and registers index several at once; an iterator over one of them hides that.
#![allow(clippy::needless_range_loop)]

use super::bits::Bits;
use super::codec::{EXACT, Format, GROUP, Place, Rounding, Scale, become_infinite, magnitudes};
use super::isa::Token;
use super::lanes::{Lanes, ROW};
use super::prefetch::prefetch;
use super::rounding::{Key, Noise, PARAMETER};
use super::sums::{RUN, Wide, fold, widen};
use super::sweep::{Aligned, Coeffs, GroupPlan, kept_coeffs, knows};
use crate::algorithm::{self, Algorithm, MAX_SLOTS, MAX_SUMS, Role, Rule, Visitor, decay, pass};
use crate::dtype::DType;
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Where and how an array of a block is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    pub(crate) format: Format,
}

impl Kept {
    /// An array of f32.
    pub(crate) fn plain(array: *mut u8) -> Self {
        Kept {
            place: Place { codes: array, exponents: array },
            format: Format::new(DType::F32, false),
        }
    }

    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.format.dtype == DType::F32
    }

    #[inline(always)]
    fn from(&self, at: usize) -> (*const u8, usize) {
        (self.place.codes, at)
    }

    #[inline(always)]
    fn to(&self, at: usize) -> (*mut u8, usize) {
        (self.place.codes, at)
    }
}

/// A block's arrays. State beyond the algorithm's counts for nothing, and so does what the pass does
/// not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coded {
    /// The master copy where there is one.
    pub(crate) p: Kept,
    /// The parameter that follows its master copy, and whether that has been set by now.
    pub(crate) copy: Option<(Kept, bool)>,
    pub(crate) g: Kept,
    pub(crate) state: [Kept; MAX_SLOTS],
    /// Whether the parameter moves by state as it is kept.
    pub(crate) moves_by_kept: bool,
    /// Of the noise: a number for seed, step and tensor, and the number of the block's first group.
    pub(crate) noise: (u64, usize),
}

/// Sweeps one block: its sums, unweighted, and how many parameters have become infinite by being
/// rounded. `None` where there is no kernel, and nothing has been done.
///
/// # Safety
/// Every array that the plan's pass reads holds `len` elements of its format, aligned, and the
/// exponents of their groups; none overlaps another, and those other than `g` are used by nobody else.
pub(crate) type CodedFn =
    unsafe fn(Token, &GroupPlan, &Coded, len: usize) -> Option<([f64; MAX_SUMS], u64)>;

/// The kernels of an algorithm for every instruction set.
pub(crate) fn coded_fn(algorithm: Algorithm) -> CodedFn {
    algorithm.visit(Pick)
}

struct Pick;

impl Visitor for Pick {
    type Output = CodedFn;
    fn visit<R, const C: usize, const N: usize, const M: usize>(self) -> CodedFn
    where
        R: Rule<C, N, M>,
    {
        sweep::<R, C, N, M>
    }
}

/// The usual ways of keeping state, each with a kernel of its own.
mod mode {
    pub(super) const FULL: u8 = 1;
    pub(super) const BF16: u8 = 2;
    pub(super) const Q8: u8 = 3;
    pub(super) const COMPACT: u8 = 4;

    pub(super) const ALL: [u8; 4] = [FULL, BF16, Q8, COMPACT];
}

/// What a slot that may be rounded is kept in.
#[inline(always)]
const fn dtype_of(mode: u8, role: Role) -> DType {
    match (mode, role) {
        (mode::BF16, _) => DType::Bf16,
        (mode::Q8, _) | (mode::COMPACT, Role::Statistic) => DType::Q8,
        (mode::COMPACT, _) => DType::Bf16,
        _ => DType::F32,
    }
}

/// Whether a slot may be kept rounded.
#[inline(always)]
const fn may_round<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    slot: usize,
) -> bool
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    !matches!(R::STATE[slot].kept, algorithm::Kept::Exactly(_))
}

/// # Safety
/// As [`CodedFn`].
unsafe fn sweep<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    token: Token,
    plan: &GroupPlan,
    arrays: &Coded,
    len: usize,
) -> Option<([f64; MAX_SUMS], u64)>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    let most = if SUMS > 0 { pass::ALL } else { pass::UPDATE };
    if plan.pass != most || !len.is_multiple_of(ROW) || matches!(token, Token::Scalar(_)) {
        return None;
    }
    let is = |mode: &u8| {
        R::STATE.iter().zip(&arrays.state).enumerate().all(|(i, (slot, kept))| {
            !may_round::<R, COEFFS, SLOTS, SUMS>(i)
                || kept.format.dtype == dtype_of(*mode, slot.role)
        })
    };
    let mode = mode::ALL.into_iter().find(is)?;
    let mut coeffs = [0.0; COEFFS];
    for (coeff, from) in coeffs.iter_mut().zip(plan.coeffs) {
        *coeff = from as f32;
    }
    macro_rules! dispatch {
        ([$($decay:expr),+], $modes:tt) => { $(dispatch!(@ $decay, $modes);)+ };
        (@ $decay:expr, [$($mode:expr),+]) => { $(
            if const { knows::<R, COEFFS, SLOTS, SUMS>(if SUMS > 0 { pass::ALL } else { pass::UPDATE }, $decay) }
                && plan.decay == $decay && $mode == mode
            {
                let kernel = CodedKernel::<R, COEFFS, SLOTS, SUMS, { $decay }, { $mode }> {
                    coeffs, arrays, len, rule: PhantomData
                };
                let (sums, lost) = token.dispatch_wide(kernel);
                let mut out = [0.0; MAX_SUMS];
                out[..SUMS].copy_from_slice(&sums);
                return Some((out, lost));
            }
        )+ };
    }
    dispatch!(
        [decay::NONE, decay::COUPLED, decay::DECOUPLED],
        [mode::FULL, mode::BF16, mode::Q8, mode::COMPACT]
    );
    None
}

/// How many elements ahead memory is asked for.
const AHEAD: usize = 512;

/// Values of a group, and what keeps those of different slots from starting at one offset in their
/// pages: a load would wait for an earlier store to another of them.
type Values = [f32; GROUP + 16];

/// What a group needs while it is computed.
#[repr(align(64))]
struct Scratch {
    state: [Values; MAX_SLOTS],
    noise: Noise,
}

/// Brings the master copy of `len` elements up to date, where there is one.
///
/// # Safety
/// As [`CodedFn`].
pub(crate) unsafe fn adopt(token: Token, arrays: &Coded, len: usize) {
    let Some((copy, is_set)) = arrays.copy else { return };
    token.dispatch(Adopt { p: arrays.p, copy, is_set, len });
}

struct Adopt {
    p: Kept,
    copy: Kept,
    is_set: bool,
    len: usize,
}

impl WithSimd for Adopt {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (bits, lanes) = (Bits(simd), Lanes::<S, f32>::new(simd));
        let master = self.p.place.codes.cast::<f32>();
        let whole = self.len / Bits::<S>::LEN * Bits::<S>::LEN;
        for at in (0..whole).step_by(Bits::<S>::LEN) {
            // SAFETY: `adopt`'s contract.
            unsafe {
                let p = adopted(bits, lanes.load(master.add(at)), &self.copy, self.is_set, at);
                lanes.store(master.add(at), p);
            }
        }
        let (mut values, mut codes, rest) = ([0.0f32; ROW], [0u16; ROW], self.len - whole);
        let mut tail = self.copy;
        tail.place.codes = codes.as_mut_ptr().cast();
        // SAFETY: as above; the copies hold a row.
        unsafe {
            let from = self.copy.place.codes.cast::<u16>().add(whole);
            codes.as_mut_ptr().copy_from_nonoverlapping(from, rest);
            values.as_mut_ptr().copy_from_nonoverlapping(master.add(whole), rest);
            let p = adopted(bits, lanes.load(values.as_ptr()), &tail, self.is_set, 0);
            lanes.store(values.as_mut_ptr(), p);
            master.add(whole).copy_from_nonoverlapping(values.as_ptr(), rest);
        }
    }
}

/// A register of the master copy: elements of the parameter that are not it, rounded, are taken over.
/// Those are all of them at first, and then what somebody else has changed.
///
/// # Safety
/// `copy` holds a register's worth of elements from `at` on.
#[inline(always)]
unsafe fn adopted<S: Simd>(
    bits: Bits<S>,
    master: S::f32s,
    copy: &Kept,
    is_set: bool,
    at: usize,
) -> S::f32s {
    // SAFETY: this function's own contract.
    unsafe {
        if is_set {
            copy.format.adopt(bits, master, copy.from(at))
        } else {
            copy.format.load(bits, EXACT, copy.from(at), Scale::NONE)
        }
    }
}

/// The elements of a register and zeros.
#[inline(always)]
fn elements<S: Simd>(bits: Bits<S>, x: S::u32s) -> [u32; ROW] {
    let mut all = [0; ROW];
    // SAFETY: no register has more elements than a row.
    unsafe { bits.store32(all.as_mut_ptr(), x) };
    all
}

/// A block of one algorithm, kind of decay and mode, yet to meet an instruction set.
struct CodedKernel<
    'a,
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const MODE: u8,
> {
    coeffs: [f32; COEFFS],
    arrays: &'a Coded,
    len: usize,
    rule: PhantomData<R>,
}

impl<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize, const DECAY: u8, const MODE: u8>
    CodedKernel<'_, R, COEFFS, SLOTS, SUMS, DECAY, MODE>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    /// How a slot is kept.
    #[inline(always)]
    fn format(&self, slot: usize) -> Format {
        if !may_round::<R, COEFFS, SLOTS, SUMS>(slot) {
            return self.arrays.state[slot].format;
        }
        let unsigned = matches!(R::STATE[slot].kept, algorithm::Kept::Unsigned);
        Format::new(dtype_of(MODE, R::STATE[slot].role), unsigned)
    }

    /// Whether a slot is rounded, in the second loop.
    #[inline(always)]
    fn rounds(slot: usize) -> bool {
        may_round::<R, COEFFS, SLOTS, SUMS>(slot)
            && R::STATE[slot].is_written(pass::ALL)
            && !matches!(dtype_of(MODE, R::STATE[slot].role), DType::F32)
    }

    /// Whether the parameter moves in the second loop, by state as it is kept.
    #[inline(always)]
    fn waits() -> bool {
        R::MOVES_BY_STATE && MODE != mode::FULL
    }

    /// What the codes of a group of a slot mean.
    ///
    /// # Safety
    /// The group has an exponent if it is of 8 bits.
    #[inline(always)]
    unsafe fn scale(&self, slot: usize, group: usize) -> Scale {
        let format = self.format(slot);
        if !format.is_grouped() {
            return Scale::NONE;
        }
        // SAFETY: this function's own contract.
        format.scale(unsafe { *self.arrays.state[slot].place.exponents.add(group) })
    }

    /// The lane function, with the parameter or without it.
    #[inline(always)]
    fn compute<S: Simd>(
        lanes: Lanes<S, f32>,
        coeffs: &Coeffs<S::f32s, COEFFS>,
        g: S::f32s,
        cell: (S::f32s, [S::f32s; SLOTS]),
        sums: [S::f32s; SUMS],
    ) -> ((S::f32s, [S::f32s; SLOTS]), [S::f32s; SUMS]) {
        let coeffs = &coeffs.get();
        match (SUMS > 0, Self::waits()) {
            (true, true) => {
                R::lane::<S, f32, DECAY, { pass::ADVANCE }>(lanes, coeffs, g, cell, sums)
            }
            (true, false) => R::lane::<S, f32, DECAY, { pass::ALL }>(lanes, coeffs, g, cell, sums),
            (false, true) => R::lane::<S, f32, DECAY, { pass::STATE | pass::MOMENT }>(
                lanes, coeffs, g, cell, sums,
            ),
            (false, false) => {
                R::lane::<S, f32, DECAY, { pass::UPDATE }>(lanes, coeffs, g, cell, sums)
            }
        }
    }
}

impl<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize, const DECAY: u8, const MODE: u8>
    WithSimd for CodedKernel<'_, R, COEFFS, SLOTS, SUMS, DECAY, MODE>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    type Output = ([f64; SUMS], u64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (lanes, bits) = (Lanes::<S, f32>::new(simd), Bits(simd));
        let (zero, none) = (lanes.splat(0.0), bits.splat(0));
        let mut coeffs = Aligned([zero; COEFFS]);
        for i in 0..COEFFS {
            coeffs.0[i] = lanes.splat(self.coeffs[i]);
        }
        let coeffs = Coeffs::new(&coeffs, kept_coeffs::<S, f32>(COEFFS, SUMS));
        let Coded { p: p_kept, copy, g: g_kept, state: kept, .. } = *self.arrays;
        let p_array = p_kept.place.codes;

        let mut scratch = MaybeUninit::<Scratch>::uninit();
        let scratch = scratch.as_mut_ptr();
        // SAFETY: zeros are noise of a kind.
        let noise = unsafe {
            (&raw mut (*scratch).noise).write_bytes(0, 1);
            &mut (*scratch).noise
        };
        // SAFETY: the place of a field, which is not read.
        let values = unsafe { (&raw mut (*scratch).state).cast::<Values>() };
        let value =
            |slot: usize, at: usize| values.wrapping_add(slot).cast::<f32>().wrapping_add(at);
        let mut rounds = false;
        for slot in 0..SLOTS {
            rounds |= Self::rounds(slot);
        }
        let noisy = rounds || copy.is_none() && !p_kept.is_plain();

        let mut wide: [Wide; SUMS] = [[0.0; ROW]; SUMS];
        let mut run = [[zero; ROW]; SUMS];
        let mut lost = none;
        for start in (0..self.len).step_by(GROUP) {
            let group = start / GROUP;
            let len = GROUP.min(self.len - start);
            let key = Key::new(self.arrays.noise.0, self.arrays.noise.1 + group);
            if noisy {
                key.fill(noise);
            }
            let noise_at = |at: usize, mask: u32| {
                // SAFETY: a row's words lie within the noise.
                let words = unsafe { bits.load32(noise.as_ptr().wrapping_add(at % (GROUP / 2))) };
                let upper = (at / (GROUP / 2) * 16) as u32;
                Rounding::stochastic(bits, bits.and(bits.shr(words, upper), 0xffff), mask)
            };
            let mut masks = [0; SLOTS];
            let mut scales = [Scale::NONE; SLOTS];
            for slot in 0..SLOTS {
                masks[slot] = key.mask(slot);
                // SAFETY: groups have their exponents.
                scales[slot] = unsafe { self.scale(slot, group) };
            }
            let p_mask = key.mask(PARAMETER);
            // Stores a register of the parameter: which elements have become infinite.
            let move_to = |row: usize, p: S::f32s| {
                let at = start + row;
                // SAFETY: `CodedFn`'s contract, of this and all that follows.
                unsafe {
                    let kept = if p_kept.is_plain() {
                        lanes.store(p_array.cast::<f32>().wrapping_add(at), p);
                        let Some((copy, _)) = &copy else { return none };
                        let how = (Scale::NONE, Rounding::Nearest);
                        copy.format.store(bits, EXACT, copy.to(at), p, how)
                    } else {
                        let how = (Scale::NONE, noise_at(row, p_mask));
                        p_kept.format.store(bits, EXACT, p_kept.to(at), p, how)
                    };
                    become_infinite(bits, p, kept)
                }
            };
            let mut largest = [none; SLOTS];

            for row in (0..len).step_by(ROW) {
                for (array, bytes) in [(&p_kept, 4), (&g_kept, 4)] {
                    prefetch(array.place.codes.wrapping_add((start + row + AHEAD) * bytes));
                }
                for slot in 0..SLOTS {
                    let bytes = self.format(slot).dtype.size();
                    prefetch(kept[slot].place.codes.wrapping_add((start + row + AHEAD) * bytes));
                }
                for register in 0..Lanes::<S, f32>::PER_ROW {
                    let row = row + register * Lanes::<S, f32>::LEN;
                    let at = start + row;
                    // SAFETY: as above.
                    unsafe {
                        let mut p = p_kept.format.load(bits, EXACT, p_kept.from(at), Scale::NONE);
                        if let Some((copy, is_set)) = &copy {
                            p = adopted(bits, p, copy, *is_set, at);
                            if Self::waits() {
                                lanes.store(p_array.cast::<f32>().wrapping_add(at), p);
                            }
                        }
                        let g = g_kept.format.load(bits, EXACT, g_kept.from(at), Scale::NONE);
                        let mut state = [p; SLOTS];
                        for slot in 0..SLOTS {
                            let (format, how) = (self.format(slot), R::STATE[slot].kept);
                            state[slot] = format.load(bits, how, kept[slot].from(at), scales[slot]);
                        }
                        let mut sums = [p; SUMS];
                        for sum in 0..SUMS {
                            sums[sum] = run[sum][register];
                        }
                        let ((p, state), sums) = Self::compute(lanes, &coeffs, g, (p, state), sums);
                        for sum in 0..SUMS {
                            run[sum][register] = sums[sum];
                        }
                        for slot in 0..SLOTS {
                            let (format, how) = (self.format(slot), R::STATE[slot].kept);
                            if !R::STATE[slot].is_written(pass::ALL) {
                                continue;
                            } else if !Self::rounds(slot) {
                                // What it is a copy of is of its type.
                                let exact = (Scale::NONE, Rounding::Nearest);
                                format.store(bits, how, kept[slot].to(at), state[slot], exact);
                                continue;
                            }
                            let mut x = state[slot];
                            if format.saturates(R::STATE[slot].saturates) {
                                x = format.saturated(bits, x);
                            }
                            if format.is_grouped() {
                                largest[slot] = bits.max(largest[slot], magnitudes(bits, x));
                            }
                            lanes.store(value(slot, row), x);
                        }
                        if !Self::waits() {
                            lost = bits.add(lost, move_to(row, p));
                        }
                    }
                }
            }

            if rounds {
                for slot in 0..SLOTS {
                    let format = self.format(slot);
                    if Self::rounds(slot) && format.is_grouped() {
                        let largest = elements(bits, largest[slot]).into_iter().fold(0, u32::max);
                        let exponent = format.exponent(largest);
                        // SAFETY: as above: each group has an exponent.
                        unsafe { *kept[slot].place.exponents.wrapping_add(group) = exponent };
                        scales[slot] = format.scale(exponent);
                    }
                }
                for row in (0..len).step_by(Lanes::<S, f32>::LEN) {
                    let at = start + row;
                    // SAFETY: as above.
                    unsafe {
                        let mut state = [zero; SLOTS];
                        for slot in 0..SLOTS {
                            let (format, how) = (self.format(slot), R::STATE[slot].kept);
                            if Self::rounds(slot) {
                                let x = lanes.load(value(slot, row));
                                let rounding = (scales[slot], noise_at(row, masks[slot]));
                                state[slot] =
                                    format.store(bits, how, kept[slot].to(at), x, rounding);
                            } else if Self::waits() && R::STATE[slot].is_read(pass::MOVE) {
                                let from = kept[slot].from(at);
                                state[slot] = format.load(bits, how, from, scales[slot]);
                            }
                        }
                        if Self::waits() {
                            let p = p_kept.format.load(bits, EXACT, p_kept.from(at), Scale::NONE);
                            let g = g_kept.format.load(bits, EXACT, g_kept.from(at), Scale::NONE);
                            let ((p, _), _) = R::lane::<S, f32, DECAY, { pass::MOVE }>(
                                lanes,
                                &coeffs.get(),
                                g,
                                (p, state),
                                [zero; SUMS],
                            );
                            lost = bits.add(lost, move_to(row, p));
                        }
                    }
                }
            }
            let is_run = (start + GROUP).is_multiple_of(RUN * ROW) || start + GROUP >= self.len;
            if is_run {
                for sum in 0..SUMS {
                    widen::<S, f32>(&run[sum], &mut wide[sum]);
                    run[sum] = [zero; ROW];
                }
            }
        }
        let mut sums = [0.0; SUMS];
        for sum in 0..SUMS {
            sums[sum] = fold(&wide[sum]);
        }
        (sums, elements(bits, lost).into_iter().map(u64::from).sum())
    }
}
