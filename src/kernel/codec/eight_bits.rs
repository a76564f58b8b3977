//! State in 8 bits: a small float below its group's exponent.

use super::*;

/// An exponent that says that a group holds a NaN or an infinity, or what would be rounded to one.
pub(super) const NOT_FINITE: u8 = 255;

/// The exponent of a group: what is rounded up from its largest value must have a code too.
#[inline(always)]
pub(super) fn exponent(largest: u32, least: u8) -> u8 {
    (((largest.min(INFINITE) + (1 << 20)) >> FRACTION) as u8).max(least)
}

/// What is added below the 3 bits of fraction that are kept.
#[inline(always)]
fn below_three<S: Simd>(bits: Bits<S>, rounding: Rounding<S::u32s>) -> S::u32s {
    match rounding {
        Rounding::Stochastic(_, noise) => noise,
        Rounding::Nearest => bits.splat(1 << 19), // ties up; nothing asks for it
    }
}

/// 4 bits of exponent and 3 of fraction, below the group's largest power of two.
pub(super) struct Signed8;

impl Signed8 {
    /// Below it the equal steps would not be normal numbers. (Of untouched state the exponent is 0.)
    pub(super) const LEAST: u8 = 18;
}

impl Codec for Signed8 {
    codes!(u8, load_signed8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        let counted = bits.and(bits.shl(code, 20), 0x7f << 20);
        let mini = Mini::<20> { base: scale.base };
        let magnitude = mini.magnitude(bits, bits.add(counted, bits.splat(mini.base)));
        bits.float(bits.or(magnitude, bits.and(code, SIGN)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let (mini, below) = (Mini::<20> { base: scale.base }, below_three(bits, rounding));
        let counted = bits.add(mini.counted(bits, bits.and(x, MAGNITUDE)), below);
        let code = bits.shr(bits.sub(counted, bits.splat(mini.base)), 20);
        let code = bits.or(code, bits.and(bits.shr(x, 24), 0x80));
        let magnitude = mini.magnitude(bits, bits.and(counted, 0xfff0_0000));
        (code, bits.float(bits.or(magnitude, bits.and(x, SIGN))))
    }
}

/// 5 bits of exponent and 3 of fraction, below the group's largest power of two. Code 0 is 0 and
/// stands for nothing else.
pub(super) struct Unsigned8;

impl Unsigned8 {
    /// Below it the smallest code would not be a normal number.
    pub(super) const LEAST: u8 = 32;
}

impl Codec for Unsigned8 {
    /// The largest that is not rounded up to infinity.
    const LARGEST: f32 = f32::from_bits(0x7f6f_ffff);
    codes!(u8, load8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        let value = bits.add(bits.shl(code, 20), bits.splat(scale.base));
        let is_more = bits.is_less(bits.splat(0), code);
        bits.float(bits.select(is_more, value, bits.splat(scale.zero)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let (base, zero) = (bits.splat(scale.base), bits.splat(0));
        let is_more = bits.is_less(zero, x);
        let least = bits.max(x, scale.base.wrapping_add(1 << 20));
        let counted = bits.add(least, below_three(bits, rounding));
        let code = bits.shr(bits.sub(counted, base), 20);
        let value = bits.select(is_more, bits.and(counted, 0xfff0_0000), zero);
        (bits.select(is_more, code, zero), bits.float(value))
    }
}
