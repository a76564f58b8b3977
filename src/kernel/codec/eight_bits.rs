//! State in 8 bits: a small float below its group's exponent.

use super::*;

/// An exponent that says that a group holds a NaN or an infinity, or what would be rounded to one.
pub(super) const NOT_FINITE: u8 = 255;

/// Bits of an f32's fraction that are left out.
const DROPPED: u32 = FRACTION - 3;

/// What is left in.
const KEPT: u32 = u32::MAX << DROPPED;

/// By how much a group's largest value is below the next power of two at least: what is rounded up must have a code
/// too, and in signed state `base`, of 2^-15, is added before.
const MARGIN: u32 = (1 << DROPPED) + (1 << (FRACTION - 15));

/// The largest magnitude that is finite in a group.
const LARGEST: u32 = INFINITE - MARGIN - 1;

/// What is added below the 3 bits of fraction that are kept.
#[inline(always)]
fn below_three<S: Simd>(bits: Bits<S>, rounding: Rounding<S::u32s>) -> S::u32s {
    match rounding {
        Rounding::Stochastic(noise) => noise,
        Rounding::Nearest => bits.splat(1 << (DROPPED - 1)), // ties up; nothing asks for it
    }
}

/// The exponent of a group whose largest magnitude, as bits, is that.
#[inline(always)]
fn exponent(largest: u32) -> u8 {
    ((largest.min(INFINITE) + MARGIN) >> FRACTION) as u8
}

/// 4 bits of exponent and 3 of fraction, of a magnitude and `base`, which is 2^-15 of the group's largest power of
/// two.
///
/// With a number added all magnitudes are normal ones of 16 powers of two, 0 too, and to take it away again
/// is exact. It is [`BASE`](Self::BASE), whose exponent ends with the four 0 that those of code 0 are, next to values in
/// units of `base/BASE`: a multiplication by a power of two and an addition are one operation.
pub(super) struct Signed8;

impl Signed8 {
    const BASE: u32 = 2.0f32.to_bits();
    const LEAST: u8 = 19;

    /// The exponent of a group. Below the least one the smallest values would not be normal numbers. (Of untouched
    /// state it is 0.)
    #[inline(always)]
    pub(super) fn exponent(largest: u32) -> u8 {
        exponent(largest).max(Self::LEAST)
    }
    #[inline(always)]
    pub(super) fn scale(exponent: u8) -> Scale {
        Scale { base: (u32::from(exponent.max(Self::LEAST)) - 15) << FRACTION }
    }

    /// From units: what has been added is taken away in the same operation.
    #[inline(always)]
    fn value<S: Simd>(bits: Bits<S>, x: S::u32s, minus_base: S::u32s, scale: Scale) -> S::f32s {
        let unit = scale.base.wrapping_sub(Self::BASE - 1f32.to_bits());
        bits.float(bits.scaled(x, f32::from_bits(unit), minus_base))
    }
}

impl Codec for Signed8 {
    codes!(u8, load_signed8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        let kept = bits.and(bits.shl(code, DROPPED), SIGN | 0x7f << DROPPED);
        let x = bits.or(kept, bits.splat(Self::BASE));
        let minus_base = bits.xor(bits.and(code, SIGN), bits.splat(scale.base | SIGN));
        Self::value(bits, x, minus_base, scale)
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let units = (Self::BASE + 1f32.to_bits()).wrapping_sub(scale.base);
        let base = bits.or(bits.and(x, SIGN), bits.splat(Self::BASE));
        let shifted = bits.scaled(x, f32::from_bits(units), base);
        let rounded = bits.add(shifted, below_three(bits, rounding));
        let minus_base = bits.xor(base, bits.splat(Self::BASE ^ scale.base ^ SIGN));
        (rounded, Self::value(bits, bits.and(rounded, KEPT), minus_base, scale))
    }
    #[inline(always)]
    fn code<S: Simd>(bits: Bits<S>, word: S::u32s, _: Scale) -> S::u32s {
        let sign = bits.and(bits.shr(word, 24), 0x80);
        bits.or(bits.and(bits.shr(word, DROPPED), 0x7f), sign)
    }
    #[inline(always)]
    unsafe fn store_packed<S: Simd>(
        bits: Bits<S>,
        to: *mut u8,
        at: usize,
        words: &Packed<S>,
        _: Scale,
    ) {
        // SAFETY: this function's own contract.
        unsafe { bits.store_7_of_27(to.wrapping_add(at), words) }
    }
}

/// 5 bits of exponent and 3 of fraction, from 2^-31 of the group's largest power of two on. There is no 0: what is
/// less becomes the least of them, but in a group that is 0.
pub(super) struct Unsigned8;

impl Unsigned8 {
    const LEAST: u8 = 32;

    /// Roots of values of two neighbouring powers of two, by the lowest bit of the exponent and the fraction: what is to
    /// be added to half of the exponent, as bits.
    #[rustfmt::skip]
    const ROOTS: [u32; 16] = [
        0x1fb5_04f3, 0x1fc0_0000, 0x1fca_62c2, 0x1fd4_4395,
        0x1fdd_b3d7, 0x1fe6_c15a, 0x1fef_7751, 0x1ff7_def6,
        0x2000_0000, 0x2007_c3b6, 0x200f_1bbd, 0x2016_17e3,
        0x201c_c471, 0x2023_2b2b, 0x2029_53fd, 0x202f_456f,
    ];

    /// The exponent of a group: of 0, if all of it is, else none below which the least value would not be a normal
    /// number.
    #[inline(always)]
    pub(super) fn exponent(largest: u32) -> u8 {
        if largest == 0 { 0 } else { exponent(largest).max(Self::LEAST) }
    }
    #[inline(always)]
    pub(super) fn scale(exponent: u8) -> Scale {
        if exponent == 0 {
            return Scale { base: 0 };
        }
        Scale { base: (u32::from(exponent.max(Self::LEAST)) - 31) << FRACTION }
    }

    /// The root of what a word is kept as, to nearest as the processor has it. But for powers of two there are 16, which
    /// some processors find in a register in a tenth of the time.
    #[inline(always)]
    pub(super) fn root<S: Simd>(
        bits: Bits<S>,
        (word, value): (S::u32s, S::f32s),
        scale: Scale,
    ) -> S::f32s {
        // Of a group of 0 it is 0.
        let mask = if scale.base == 0 { 0 } else { u32::MAX };
        match bits.entries(&Self::ROOTS, mask, bits.shr(word, DROPPED)) {
            Some(root) => bits.float(bits.add(root, bits.and(bits.shr(word, 1), INFINITE))),
            None => Lanes::<S, f32>::new(bits.0).sqrt(value),
        }
    }
}

impl Codec for Unsigned8 {
    const LARGEST: f32 = f32::from_bits(LARGEST);
    codes!(u8, load8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        bits.float(bits.add(bits.shl(code, DROPPED), bits.splat(scale.base)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let rounded = bits.add(bits.max(x, scale.base), below_three(bits, rounding));
        (rounded, bits.float(bits.and(rounded, KEPT)))
    }
    #[inline(always)]
    fn code<S: Simd>(bits: Bits<S>, word: S::u32s, scale: Scale) -> S::u32s {
        bits.shr(bits.sub(word, bits.splat(scale.base)), DROPPED)
    }
    #[inline(always)]
    unsafe fn store_packed<S: Simd>(
        bits: Bits<S>,
        to: *mut u8,
        at: usize,
        words: &Packed<S>,
        scale: Scale,
    ) {
        // SAFETY: this function's own contract.
        unsafe { bits.store_8_of_28(to.wrapping_add(at), words, scale.base) }
    }
}
