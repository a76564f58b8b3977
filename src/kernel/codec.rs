//! Codecs: tiles of the types that state and parameters are kept in, from and to f32.
//!
//! Nothing but these functions knows the types: lane functions compute on f32 tiles that stay in the
//! first cache. Each codec is one function of an element each way, in integer and exact
//! floating-point operations that the compiler makes vectors of, so that the bits are the same on
//! every instruction set. A new type is a [`Codec`] here and a line in `with_codec!`.
//!
//! [`Mini`] is the common scheme. A float's magnitude, as an integer, grows with its value, in
//! steps that are equal between powers of two. Dropping its low bits rounds it down to a shorter
//! fraction, and adding noise below the lowest bit that is kept first rounds it stochastically.

use super::ahead::Ahead;
use super::isa::Token;
use super::rounding::Noise;
use crate::dtype::DType;
use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::slice;

/// Elements that are decoded and encoded at once: tiles of all arrays together stay in the first
/// cache. A block is whole tiles but for its end.
pub(crate) const TILE: usize = 1024;
/// Elements that share an exponent in 8-bit state.
pub(crate) const GROUP: usize = 256;

/// How an array is kept: its type and, of 8-bit state, whether values are never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) dtype: DType,
    pub(crate) unsigned: bool,
}

/// Where a tile is: its elements and, of 8-bit state, their exponents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) codes: *mut u8,
    pub(crate) exponents: *mut u8,
}

/// How a value that the type cannot hold is rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding<'a> {
    /// Up or down, by this noise with this mask.
    Stochastic(&'a Noise, u16),
    /// To nearest, ties to even; bf16 and f16 only.
    Nearest,
}

/// Bits of a magnitude.
const MAGNITUDE: u32 = 0x7fff_ffff;
const SIGN: u32 = 0x8000_0000;
/// Magnitude of an infinity; those above are NaN.
const INFINITE: u32 = 0x7f80_0000;
const FRACTION: u32 = 23;

/// One type: codes and, where they are `GROUPED`, an exponent that 256 of them share.
///
/// Each function is of one element; loops over them become vectors.
trait Codec {
    type Code: Copy;
    const GROUPED: bool = false;
    /// The largest finite value.
    const LARGEST: f32 = f32::MAX;

    /// The exponent for values of this largest finite magnitude, as bits.
    fn exponent(_largest: u32) -> u8 {
        0
    }
    fn decode(code: Self::Code, exponent: u8) -> f32;
    /// `noise` has 16 bits.
    fn stochastic(value: f32, exponent: u8, noise: u32) -> Self::Code;
    fn nearest(_value: f32) -> Self::Code {
        unreachable!("8-bit state is rounded stochastically")
    }
}

struct Bf16;

impl Codec for Bf16 {
    type Code = u16;
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);

    #[inline(always)]
    fn decode(code: u16, _: u8) -> f32 {
        f32::from_bits(u32::from(code) << 16)
    }
    #[inline(always)]
    fn stochastic(value: f32, _: u8, noise: u32) -> u16 {
        upper_half(value.to_bits(), noise)
    }
    #[inline(always)]
    fn nearest(value: f32) -> u16 {
        let bits = value.to_bits();
        upper_half(bits, 0x7fff + ((bits >> 16) & 1))
    }
}

/// The upper half of a float, with what is added to the lower one carried; a NaN stays one.
#[inline(always)]
fn upper_half(bits: u32, below: u32) -> u16 {
    let nan = bits & MAGNITUDE > INFINITE;
    let rounded = bits.wrapping_add(below);
    ((if nan { bits | 0x0040_0000 } else { rounded }) >> 16) as u16
}

/// Constants of a floating-point type with a shorter exponent and fraction.
///
/// `DROPPED` bits of an f32's fraction are left out. `normal` is the magnitude, as bits, of the
/// smallest normal number; its exponent is counted as 1, and below it codes are equally spaced.
#[derive(Clone, Copy)]
struct Mini<const DROPPED: u32> {
    normal: u32,
}

impl<const DROPPED: u32> Mini<DROPPED> {
    const ONE: u32 = 1 << (FRACTION - DROPPED);

    /// A magnitude from its code.
    #[inline(always)]
    fn decode(self, code: u32) -> f32 {
        let small = code < Self::ONE;
        let base = if small { self.normal } else { self.normal - (1 << FRACTION) };
        let beyond = f32::from_bits(if small { self.normal } else { 0 });
        f32::from_bits((code << DROPPED).wrapping_add(base)) - beyond
    }

    /// The code of a magnitude below infinity: the last bit that is kept takes the carry of `below`.
    #[inline(always)]
    fn encode(self, magnitude: u32, below: u32) -> u32 {
        let small = magnitude < self.normal;
        // Beside the smallest normal number, places are equal: what is added is exact but for bits
        // below those that `below` decides.
        let beyond = f32::from_bits(if small { self.normal } else { 0 });
        let shifted = (f32::from_bits(magnitude) + beyond).to_bits();
        let base = if small { self.normal } else { self.normal - (1 << FRACTION) };
        shifted.wrapping_sub(base).wrapping_add(below) >> DROPPED
    }
}

struct F16;

impl F16 {
    /// 2^-14.
    const MINI: Mini<13> = Mini { normal: 113 << FRACTION };
    const INFINITY: u32 = 0x7c00;

    /// With the code of the magnitude as if there were no largest.
    #[inline(always)]
    fn code(value: f32, in_range: u32) -> u16 {
        let magnitude = value.to_bits() & MAGNITUDE;
        // Written so that the code, and the noise in it, is used in any case, without which this would
        // not be a vector. What is out of range has a code above infinity's.
        let least = if magnitude > INFINITE { 0x7e00 } else { 0 };
        let code = in_range.min(Self::INFINITY).max(least);
        (code | (value.to_bits() & SIGN) >> 16) as u16
    }
}

impl Codec for F16 {
    type Code = u16;
    const LARGEST: f32 = 65504.0;

    #[inline(always)]
    fn decode(code: u16, _: u8) -> f32 {
        let magnitude = u32::from(code) & 0x7fff;
        let finite = Self::MINI.decode(magnitude).to_bits();
        // An exponent of all ones is one in f32 too.
        let bits = if magnitude < Self::INFINITY { finite } else { INFINITE | (magnitude << 13) };
        f32::from_bits(bits | (u32::from(code) & 0x8000) << 16)
    }
    #[inline(always)]
    fn stochastic(value: f32, _: u8, noise: u32) -> u16 {
        Self::code(value, Self::MINI.encode(value.to_bits() & MAGNITUDE, noise >> 3))
    }
    #[inline(always)]
    fn nearest(value: f32) -> u16 {
        let magnitude = value.to_bits() & MAGNITUDE;
        let shifted = magnitude.wrapping_sub((112 << FRACTION) - 0xfff);
        let normal = shifted.wrapping_add((magnitude >> 13) & 1) >> 13;
        // Beside 0.5, whose last place is that of the smallest: rounded once.
        let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        Self::code(value, if magnitude < Self::MINI.normal { small } else { normal })
    }
}

/// An exponent that says that a group holds a NaN or an infinity: all of it decodes as NaN.
const NOT_FINITE: u8 = 255;

/// 4 bits of exponent and 3 of fraction, below the group's largest power of two.
struct Signed8;

impl Signed8 {
    /// Below it the equal steps would not be normal numbers. (Of untouched state the exponent is 0.)
    const LEAST: u8 = 18;

    #[inline(always)]
    fn mini(exponent: u8) -> Mini<20> {
        Mini { normal: (u32::from(exponent.max(Self::LEAST)) - 14) << FRACTION }
    }
}

impl Codec for Signed8 {
    type Code = u8;
    const GROUPED: bool = true;

    #[inline(always)]
    fn exponent(largest: u32) -> u8 {
        // What is rounded up from the largest value must have a code too.
        (((largest + (1 << 20)) >> FRACTION) as u8).clamp(Self::LEAST, 254)
    }
    #[inline(always)]
    fn decode(code: u8, exponent: u8) -> f32 {
        let magnitude = Self::mini(exponent).decode(u32::from(code) & 0x7f);
        f32::from_bits(magnitude.to_bits() | (u32::from(code) & 0x80) << 24)
    }
    #[inline(always)]
    fn stochastic(value: f32, exponent: u8, noise: u32) -> u8 {
        let bits = value.to_bits();
        let code = Self::mini(exponent).encode(bits & MAGNITUDE, (noise << 4) + 8);
        (code.min(0x7f) | (bits & SIGN) >> 24) as u8
    }
}

/// 5 bits of exponent and 3 of fraction, below the group's largest power of two. Code 0 is 0 and
/// stands for nothing else.
struct Unsigned8;

impl Unsigned8 {
    /// Below it the smallest code would not be a normal number.
    const LEAST: u8 = 32;

    #[inline(always)]
    fn base(exponent: u8) -> u32 {
        (u32::from(exponent.max(Self::LEAST)) - 31) << FRACTION
    }
}

impl Codec for Unsigned8 {
    type Code = u8;
    const GROUPED: bool = true;

    #[inline(always)]
    fn exponent(largest: u32) -> u8 {
        (((largest + (1 << 20)) >> FRACTION) as u8).clamp(Self::LEAST, 254)
    }
    #[inline(always)]
    fn decode(code: u8, exponent: u8) -> f32 {
        let code = u32::from(code);
        f32::from_bits(if code == 0 { 0 } else { (code << 20).wrapping_add(Self::base(exponent)) })
    }
    #[inline(always)]
    fn stochastic(value: f32, exponent: u8, noise: u32) -> u8 {
        let magnitude = value.to_bits() & MAGNITUDE;
        let (base, below) = (Self::base(exponent), (noise << 4) + 8);
        // Written so that the noise is used in any case, without which this would not be a vector.
        let least = if magnitude == 0 { base } else { base + (1 << 20) };
        (magnitude.max(least).wrapping_sub(base).wrapping_add(below) >> 20).min(0xff) as u8
    }
}

macro_rules! with_codec {
    ($format:expr, $run:ident($($argument:expr),*)) => {
        match ($format.dtype, $format.unsigned) {
            (DType::Bf16, _) => $run::<Bf16>($($argument),*),
            (DType::F16, _) => $run::<F16>($($argument),*),
            (DType::Q8, false) => $run::<Signed8>($($argument),*),
            (DType::Q8, true) => $run::<Unsigned8>($($argument),*),
            (DType::F32 | DType::F64, _) => unreachable!("lane functions work on these"),
        }
    };
}

impl Format {
    pub(crate) const fn new(dtype: DType, unsigned: bool) -> Self {
        Format { dtype, unsigned }
    }

    /// Decodes a tile.
    ///
    /// # Safety
    /// `from` holds `len <= TILE` elements of this format, with their exponents, and `to` room for as
    /// many; they do not overlap, and nobody writes either meanwhile.
    pub(crate) unsafe fn decode(
        self,
        token: Token,
        from: Place,
        len: usize,
        to: *mut f32,
        ahead: &mut Ahead,
    ) {
        if self.dtype == DType::F16 && !matches!(token, Token::Scalar(_)) {
            // SAFETY: this function's own contract; every bit pattern is an `f16`.
            let (from, to) =
                unsafe { (slice::from_raw_parts(from.codes.cast::<f16>(), len), uninit(to, len)) };
            return from.convert_to_f32_slice(to);
        }
        // SAFETY: this function's own contract.
        unsafe { with_codec!(self, decode(token, from, len, to, ahead)) }
    }

    /// Encodes a tile. Where `saturates`, what is above the type's largest number becomes that first,
    /// in the tile too.
    ///
    /// # Safety
    /// `from` holds `len <= TILE` elements, and `to` room for as many of this format, with their
    /// exponents; they do not overlap, and nobody uses either meanwhile.
    pub(crate) unsafe fn encode(
        self,
        token: Token,
        from: *mut f32,
        len: usize,
        to: Place,
        (rounding, saturates): (Rounding<'_>, bool),
        ahead: &mut Ahead,
    ) {
        // SAFETY: this function's own contract.
        let values = unsafe { slice::from_raw_parts_mut(from, len) };
        if self.dtype == DType::F16
            && !matches!(token, Token::Scalar(_))
            && matches!(rounding, Rounding::Nearest)
        {
            // SAFETY: as above.
            let codes = unsafe { slice::from_raw_parts_mut(to.codes.cast::<f16>(), len) };
            return codes.convert_from_f32_slice(values);
        }
        // SAFETY: this function's own contract.
        unsafe { with_codec!(self, encode(token, values, to, (rounding, saturates), ahead)) }
    }
}

/// How many finite values have become infinite as codes of bf16 or f16.
pub(crate) fn infinities(token: Token, codes: &[u16], values: &[f32], dtype: DType) -> u64 {
    let infinity = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
    if token.dispatch(Largest(codes)) < infinity {
        return 0;
    }
    let pairs = codes.iter().zip(values);
    pairs.filter(|(code, value)| **code & 0x7fff == infinity && value.is_finite()).count() as u64
}

struct Largest<'a>(&'a [u16]);

impl WithSimd for Largest<'_> {
    type Output = u16;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u16 {
        self.0.iter().fold(0, |most, code| (code & 0x7fff).max(most))
    }
}

/// A slice over memory that is about to be written.
///
/// # Safety
/// `to` has room for `len` elements that nobody else uses.
unsafe fn uninit<'a>(to: *mut f32, len: usize) -> &'a mut [f32] {
    // SAFETY: this function's own contract; zeros are numbers.
    unsafe {
        to.write_bytes(0, len);
        slice::from_raw_parts_mut(to, len)
    }
}

/// # Safety
/// As [`Format::decode`].
unsafe fn decode<C: Codec>(token: Token, from: Place, len: usize, to: *mut f32, ahead: &mut Ahead) {
    token.dispatch(Decode::<C> { from, len, to, ahead, codec: PhantomData });
}

struct Decode<'a, C> {
    from: Place,
    len: usize,
    to: *mut f32,
    ahead: &'a mut Ahead,
    codec: PhantomData<C>,
}

impl<C: Codec> WithSimd for Decode<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // SAFETY: `decode`'s contract: there are `len` elements and room for as many, apart; zeros are
        // numbers, so that the room may be taken for some.
        let (codes, to) = unsafe {
            let codes = slice::from_raw_parts(self.from.codes.cast::<C::Code>(), self.len);
            (codes, slice::from_raw_parts_mut(self.to.cast::<MaybeUninit<f32>>(), self.len))
        };
        for (group, (codes, to)) in codes.chunks(GROUP).zip(to.chunks_mut(GROUP)).enumerate() {
            self.ahead.fetch();
            // SAFETY: `decode`'s contract: groups have their exponents.
            let exponent = if C::GROUPED { unsafe { *self.from.exponents.add(group) } } else { 0 };
            if exponent == NOT_FINITE {
                to.fill(MaybeUninit::new(f32::NAN));
            } else {
                decode_all::<C>(codes, exponent, to);
            }
        }
    }
}

#[inline(always)]
fn decode_all<C: Codec>(codes: &[C::Code], exponent: u8, to: &mut [MaybeUninit<f32>]) {
    for (to, code) in to.iter_mut().zip(codes) {
        *to = MaybeUninit::new(C::decode(*code, exponent));
    }
}

/// # Safety
/// As [`Format::encode`].
unsafe fn encode<C: Codec>(
    token: Token,
    values: &mut [f32],
    to: Place,
    (rounding, saturates): (Rounding<'_>, bool),
    ahead: &mut Ahead,
) {
    token.dispatch(Encode::<C> { values, to, rounding, saturates, ahead, codec: PhantomData });
}

struct Encode<'a, C> {
    values: &'a mut [f32],
    to: Place,
    rounding: Rounding<'a>,
    saturates: bool,
    ahead: &'a mut Ahead,
    codec: PhantomData<C>,
}

impl<C: Codec> WithSimd for Encode<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.saturates {
            for value in &mut *self.values {
                *value = if *value > C::LARGEST { C::LARGEST } else { *value };
            }
        }
        for (group, values) in self.values.chunks(GROUP).enumerate() {
            let to = self.to.codes.cast::<MaybeUninit<C::Code>>().wrapping_add(group * GROUP);
            // SAFETY: `encode`'s contract: there is room for the group.
            let to = unsafe { slice::from_raw_parts_mut(to, values.len()) };
            self.ahead.fetch();
            let mut exponent = 0;
            if C::GROUPED {
                let largest = largest_magnitude(values);
                exponent = if largest >= INFINITE { NOT_FINITE } else { C::exponent(largest) };
                // SAFETY: `encode`'s contract: each group has an exponent.
                unsafe { self.to.exponents.add(group).write(exponent) };
            }
            if exponent == NOT_FINITE {
                // What stands there does not count, but is the same everywhere.
                exponent = 0;
            }
            match self.rounding {
                Rounding::Nearest => {
                    for (to, value) in to.iter_mut().zip(values) {
                        *to = MaybeUninit::new(C::nearest(*value));
                    }
                }
                Rounding::Stochastic(noise, mask) => {
                    let noise = &noise[group * GROUP..];
                    for ((to, value), noise) in to.iter_mut().zip(values).zip(noise) {
                        let noise = u32::from(*noise ^ mask);
                        *to = MaybeUninit::new(C::stochastic(*value, exponent, noise));
                    }
                }
            }
        }
    }
}

/// As bits. A NaN is larger than all else.
#[inline(always)]
fn largest_magnitude(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, value| largest.max(value.to_bits() & MAGNITUDE))
}

#[cfg(test)]
mod tests;
