//! State in 8 bits: a small float below its group's exponent.

use super::*;

/// An exponent that says that a group holds a NaN or an infinity: all of it decodes as NaN.
pub(super) const NOT_FINITE: u8 = 255;

/// The exponent of a group: what is rounded up from its largest value must have a code too.
pub(super) fn exponent(largest: u32, least: u8) -> u8 {
    if largest >= INFINITE {
        return NOT_FINITE;
    }
    (((largest + (1 << 20)) >> FRACTION) as u8).clamp(least, 254)
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
    codes!(u8, load8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        let mini = Mini::<20> { normal: scale.base };
        let magnitude = mini.decode(bits, bits.and(code, 0x7f));
        let sign = bits.and(bits.shl(code, 24), SIGN);
        bits.float(bits.or(bits.or(magnitude, sign), bits.splat(scale.not_finite)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let (mini, below) = (Mini::<20> { normal: scale.base }, below_three(bits, rounding));
        let (steps, is_small) = mini.steps(bits, bits.and(x, MAGNITUDE), below);
        let steps = bits.min(steps, 0x07ff_ffff);
        let code = bits.or(bits.shr(steps, 20), bits.and(bits.shr(x, 24), 0x80));
        let magnitude = mini.magnitude(bits, bits.and(steps, 0xfff0_0000), is_small);
        let not_finite = bits.splat(scale.not_finite);
        (code, bits.float(bits.or(bits.or(magnitude, bits.and(x, SIGN)), not_finite)))
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
    codes!(u8, load8, store8);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s {
        let value = bits.add(bits.shl(code, 20), bits.splat(scale.base));
        let is_zero = bits.is_equal(code, bits.splat(0));
        let value = bits.select(is_zero, bits.splat(0), value);
        bits.float(bits.or(value, bits.splat(scale.not_finite)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let (magnitude, below) = (bits.and(x, MAGNITUDE), below_three(bits, rounding));
        let is_zero = bits.is_equal(magnitude, bits.splat(0));
        let above = bits.max(magnitude, bits.splat(scale.base.wrapping_add(1 << 20)));
        let (base, zero) = (bits.splat(scale.base), bits.splat(0));
        let steps = bits.min(bits.add(bits.sub(above, base), below), 0x0fff_ffff);
        let value = bits.select(is_zero, zero, bits.add(bits.and(steps, 0xfff0_0000), base));
        let value = bits.or(value, bits.splat(scale.not_finite));
        (bits.select(is_zero, zero, bits.shr(steps, 20)), bits.float(value))
    }
}
