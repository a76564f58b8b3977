//! Codecs: the types that state and parameters are kept in, from and to registers of f32.
//!
//! Nothing but these functions knows the types: lane functions compute in f32. Each codec is a function
//! of a register each way, in integer and exact floating-point operations, so that the bits are the same
//! on every instruction set. A new type is a [`Codec`] and a line in `with_codec!`.
//!
//! A float's magnitude, as an integer, grows with its value, in steps that are equal between powers of two. Dropping
//! its low bits rounds it down to a shorter fraction, and adding noise below the lowest bit that is kept first rounds
//! it stochastically. That is the common scheme.

use self::eight_bits::{NOT_FINITE, Signed8, Unsigned8};
use super::bits::{Bits, Packed};
use super::lanes::{Lanes, ROW};
use crate::algorithm::Kept;
use crate::dtype::DType;
use pulp::Simd;
use std::slice;

/// Elements that share an exponent in 8-bit state, and a key of noise.
pub(crate) const GROUP: usize = 256;

/// How an array is kept: its type and, of 8-bit state, whether values are never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) dtype: DType,
    pub(crate) unsigned: bool,
}

/// Where elements are and, of 8-bit state, the exponents of their groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) codes: *mut u8,
    pub(crate) exponents: *mut u8,
}

/// What the codes of a group of 8-bit state mean; counts for nothing of other types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// What codes are counted from, as bits.
    base: u32,
}

impl Scale {
    /// Of no group, or one whose values are to be 0.
    pub(crate) const NONE: Scale = Scale { base: 1f32.to_bits() };
    /// Of a group that is not finite, whose codes are 0.
    const NAN: Scale = Scale { base: INFINITE | QUIET };
}

/// How a value that the type cannot hold is rounded.
#[derive(Clone, Copy)]
pub(crate) enum Rounding<R> {
    /// Up or down, by noise of 20 bits.
    Stochastic(R),
    /// To nearest, ties to even; bf16 and f16 only.
    Nearest,
}

/// The kind of parameters and gradients, which are what they are.
pub(crate) const EXACT: Kept = Kept::Exactly("the caller has it");

/// Bits of a magnitude.
const MAGNITUDE: u32 = 0x7fff_ffff;
const SIGN: u32 = 0x8000_0000;
/// Magnitude of an infinity; those above are NaN.
const INFINITE: u32 = 0x7f80_0000;
const QUIET: u32 = 0x0040_0000;
const FRACTION: u32 = 23;

/// One type. Codes are numbers of 32 bits in registers.
trait Codec {
    /// Of a code.
    const BYTES: usize;
    /// The largest finite value.
    const LARGEST: f32 = f32::MAX;

    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, scale: Scale) -> S::f32s;
    /// A word that the code is made of, and what it decodes as.
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s);
    /// The code of such a word.
    #[inline(always)]
    fn code<S: Simd>(_: Bits<S>, word: S::u32s, _: Scale) -> S::u32s {
        word
    }
    /// Stores the codes of packed registers of words, which may take fewer operations than one by one.
    ///
    /// # Safety
    /// As many codes can be written from element `at` of `to` on, aligned.
    #[inline(always)]
    unsafe fn store_packed<S: Simd>(
        bits: Bits<S>,
        to: *mut u8,
        at: usize,
        words: &Packed<S>,
        scale: Scale,
    ) {
        for (i, word) in words[..Bits::<S>::PACKED].iter().enumerate() {
            let code = Self::code(bits, *word, scale);
            // SAFETY: this function's own contract.
            unsafe { Self::store(bits, to, at + i * Bits::<S>::LEN, code) };
        }
    }
    /// # Safety
    /// A register's worth of codes can be read from element `at` of `from` on, aligned.
    unsafe fn load<S: Simd>(bits: Bits<S>, from: *const u8, at: usize) -> S::u32s;
    /// # Safety
    /// A register's worth of codes can be written from element `at` of `to` on, aligned.
    unsafe fn store<S: Simd>(bits: Bits<S>, to: *mut u8, at: usize, code: S::u32s);
}

/// Codes of so many bits.
macro_rules! codes {
    ($code:ty, $load:ident, $store:ident) => {
        const BYTES: usize = size_of::<$code>();

        #[inline(always)]
        unsafe fn load<S: Simd>(bits: Bits<S>, from: *const u8, at: usize) -> S::u32s {
            // SAFETY: this function's own contract.
            unsafe { bits.$load(from.cast::<$code>().wrapping_add(at)) }
        }
        #[inline(always)]
        unsafe fn store<S: Simd>(bits: Bits<S>, to: *mut u8, at: usize, code: S::u32s) {
            // SAFETY: this function's own contract.
            unsafe { bits.$store(to.cast::<$code>().wrapping_add(at), code) }
        }
    };
}

struct Bf16;

impl Codec for Bf16 {
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);
    codes!(u16, load16, store16);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, _: Scale) -> S::f32s {
        bits.float(bits.shl(code, 16))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        _: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        // The upper half, with what is added to the lower one carried; a NaN stays one.
        let below = match rounding {
            Rounding::Stochastic(noise) => bits.shr(noise, 4),
            Rounding::Nearest => bits.add(bits.and(bits.shr(x, 16), 1), bits.splat(0x7fff)),
        };
        let is_number = bits.0.equal_f32s(bits.float(x), bits.float(x));
        let nan = bits.or(x, bits.splat(QUIET));
        let rounded = bits.select(is_number, bits.add(x, below), nan);
        (rounded, bits.float(bits.and(rounded, 0xffff_0000)))
    }
    #[inline(always)]
    fn code<S: Simd>(bits: Bits<S>, word: S::u32s, _: Scale) -> S::u32s {
        bits.shr(word, 16)
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
        unsafe { bits.store_upper16(to.cast::<u16>().wrapping_add(at), words) }
    }
}

/// Codes are counted from [`BASE`](Self::BASE), as bits of an f32: from twice that on, each power of two has as many.
/// Below it, where they are equally spaced, `(x + 2*base)/2` has them as if it were such a number; that is above x
/// where x is small and nowhere else, so that a maximum takes it, and a minimum takes it back.
struct F16;

impl F16 {
    /// 2^-15: the smallest normal number is 2^-14.
    const BASE: u32 = 112 << FRACTION;
    const INFINITY: u32 = 0x7c00;
    /// Bits of an f32's fraction that are left out.
    const DROPPED: u32 = 13;

    /// A magnitude from its code.
    #[inline(always)]
    fn magnitude<S: Simd>(bits: Bits<S>, code: S::u32s) -> S::u32s {
        let counted = bits.add(bits.shl(code, Self::DROPPED), bits.splat(Self::BASE));
        let minus_twice = bits.splat(SIGN | (Self::BASE + (1 << FRACTION)));
        bits.min_of(counted, bits.scaled(counted, 2.0, minus_twice))
    }

    /// Where a magnitude is counted, but for bits below those that count.
    #[inline(always)]
    fn counted<S: Simd>(bits: Bits<S>, magnitude: S::u32s) -> S::u32s {
        bits.max_of(magnitude, bits.scaled(magnitude, 0.5, bits.splat(Self::BASE)))
    }
}

impl Codec for F16 {
    const LARGEST: f32 = 65504.0;
    codes!(u16, load16, store16);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, _: Scale) -> S::f32s {
        if let Some(values) = bits.of_f16(code) {
            return values;
        }
        let magnitude = bits.and(code, 0x7fff);
        let finite = Self::magnitude(bits, magnitude);
        // An exponent of all ones is one in f32 too, and a NaN becomes a quiet one.
        let infinite = bits.or(bits.shl(magnitude, 13), bits.splat(INFINITE));
        let is_infinity = bits.is_equal(magnitude, bits.splat(Self::INFINITY));
        let quiet = bits.or(infinite, bits.splat(QUIET));
        let infinite = bits.select(is_infinity, infinite, quiet);
        let is_finite = bits.is_less(magnitude, bits.splat(Self::INFINITY));
        let magnitude = bits.select(is_finite, finite, infinite);
        bits.float(bits.or(magnitude, bits.and(bits.shl(code, 16), SIGN)))
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        _: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        let magnitude = bits.and(x, MAGNITUDE);
        let in_range = match rounding {
            Rounding::Stochastic(noise) => {
                let counted = bits.add(Self::counted(bits, magnitude), bits.shr(noise, 7));
                bits.shr(bits.sub(counted, bits.splat(Self::BASE)), Self::DROPPED)
            }
            Rounding::Nearest => {
                if let Some(codes) = bits.to_f16(bits.float(x)) {
                    return (codes, Self::decode(bits, codes, Scale::NONE));
                }
                let shifted = bits.sub(magnitude, bits.splat((112 << FRACTION) - 0xfff));
                let is_odd = bits.and(bits.shr(magnitude, 13), 1);
                let normal = bits.shr(bits.add(shifted, is_odd), 13);
                // Beside 0.5, whose last place is that of the smallest: rounded once.
                let half = bits.splat(0.5f32.to_bits());
                let sum = bits.0.add_f32s(bits.float(magnitude), bits.float(half));
                let small = bits.sub(bits.of(sum), half);
                let is_small = bits.is_less(magnitude, bits.splat(113 << FRACTION));
                bits.select(is_small, small, normal)
            }
        };
        // What is out of range has a code above infinity's; a NaN keeps what it can.
        let finite = bits.min(in_range, Self::INFINITY);
        let is_nan = bits.is_less(bits.splat(INFINITE), magnitude);
        let nan = bits.or(bits.and(bits.shr(x, 13), 0x3ff), bits.splat(0x7e00));
        let code = bits.select(is_nan, nan, finite);
        let code = bits.or(code, bits.and(bits.shr(x, 16), 0x8000));
        (code, Self::decode(bits, code, Scale::NONE))
    }
}

/// An expression for the codec of a format, of those that an array of that kind may have.
macro_rules! with_codec {
    ($format:expr, $kind:expr, $codec:ident => $then:expr) => {
        match ($format.dtype, $kind) {
            (DType::Bf16, _) => with_codec!(@ Bf16, $codec, $then),
            (DType::F16, Kept::Exactly(_)) => with_codec!(@ F16, $codec, $then),
            (DType::Q8, Kept::Signed) => with_codec!(@ Signed8, $codec, $then),
            (DType::Q8, Kept::Unsigned) => with_codec!(@ Unsigned8, $codec, $then),
            // What lane functions work on.
            _ => with_codec!(@ Plain, $codec, $then),
        }
    };
    (@ $type:ident, $codec:ident, $then:expr) => {{
        type $codec = $type;
        $then
    }};
}

/// f32 itself.
struct Plain;

impl Codec for Plain {
    codes!(u32, load32, store32);

    #[inline(always)]
    fn decode<S: Simd>(bits: Bits<S>, code: S::u32s, _: Scale) -> S::f32s {
        bits.float(code)
    }
    #[inline(always)]
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        _: Scale,
        _: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s) {
        (x, bits.float(x))
    }
}

impl Format {
    pub(crate) const fn new(dtype: DType, unsigned: bool) -> Self {
        Format { dtype, unsigned }
    }

    /// Whether groups of codes have an exponent.
    #[inline(always)]
    pub(crate) fn is_grouped(self) -> bool {
        self.dtype == DType::Q8
    }

    /// Sets the exponent of a group whose largest magnitude, as bits, is that: what its codes will mean,
    /// or nothing where a value is not finite. All are 0 then, whose code stands for NaN. Infinity without a sign is the
    /// largest finite value, and what is above that.
    ///
    /// # Safety
    /// There are `len` values, and an exponent can be written.
    #[inline(always)]
    pub(crate) unsafe fn set_exponent(
        self,
        largest: u32,
        (values, len): (*mut f32, usize),
        to: *mut u8,
    ) -> Option<Scale> {
        let exponent =
            if self.unsigned { Unsigned8::exponent(largest) } else { Signed8::exponent(largest) };
        // SAFETY: this function's own contract.
        unsafe {
            to.write(exponent);
            if exponent == NOT_FINITE {
                let is_bounded = self.unsigned && largest <= INFINITE;
                bound_or_clear(slice::from_raw_parts_mut(values, len), is_bounded);
                if !is_bounded {
                    return None;
                }
                to.write(NOT_FINITE - 1);
                return Some(self.scale(NOT_FINITE - 1));
            }
        }
        Some(self.scale(exponent))
    }

    /// What the codes of a group with this exponent mean.
    #[inline(always)]
    pub(crate) fn scale(self, exponent: u8) -> Scale {
        if exponent == NOT_FINITE {
            return Scale::NAN;
        }
        if self.unsigned { Unsigned8::scale(exponent) } else { Signed8::scale(exponent) }
    }

    /// The kind of array that has this format.
    fn kind(self) -> Kept {
        match (self.dtype, self.unsigned) {
            (DType::Q8, true) => Kept::Unsigned,
            (DType::Q8, false) => Kept::Signed,
            _ => EXACT,
        }
    }

    /// The largest finite value.
    #[inline(always)]
    fn largest(self) -> f32 {
        match self.dtype {
            DType::Bf16 => Bf16::LARGEST,
            DType::F16 => F16::LARGEST,
            _ => f32::MAX,
        }
    }

    /// With the type's largest finite value in place of what is above it.
    #[inline(always)]
    pub(crate) fn saturated<S: Simd>(self, bits: Bits<S>, x: S::f32s) -> S::f32s {
        Lanes::<S, f32>::new(bits.0).at_most(x, self.largest())
    }

    /// A register of values, from element `at` of an array of that kind on.
    ///
    /// # Safety
    /// As many elements of this format can be read there, aligned.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Simd>(
        self,
        bits: Bits<S>,
        kind: Kept,
        (from, at): (*const u8, usize),
        scale: Scale,
    ) -> S::f32s {
        // SAFETY: this function's own contract.
        unsafe { with_codec!(self, kind, C => C::decode(bits, C::load(bits, from, at), scale)) }
    }

    /// A register of words that codes are made of, and the values as they are kept.
    #[inline(always)]
    pub(crate) fn encode<S: Simd>(
        self,
        bits: Bits<S>,
        kind: Kept,
        values: S::f32s,
        (scale, rounding): (Scale, Rounding<S::u32s>),
    ) -> (S::u32s, S::f32s) {
        with_codec!(self, kind, C => C::encode(bits, bits.of(values), scale, rounding))
    }

    /// The roots of 8-bit state without a sign, which has been kept as such words and is these values.
    #[inline(always)]
    pub(crate) fn roots<S: Simd>(
        self,
        bits: Bits<S>,
        kept: (S::u32s, S::f32s),
        scale: Scale,
    ) -> S::f32s {
        Unsigned8::root(bits, kept, scale)
    }

    /// Stores the codes of packed registers of words from element `at` on.
    ///
    /// # Safety
    /// As many elements of this format can be written there, aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_packed<S: Simd>(
        self,
        bits: Bits<S>,
        kind: Kept,
        (to, at): (*mut u8, usize),
        words: &Packed<S>,
        scale: Scale,
    ) {
        // SAFETY: this function's own contract.
        unsafe { with_codec!(self, kind, C => C::store_packed(bits, to, at, words, scale)) }
    }
}

/// Puts the largest finite value of 8-bit state in place of what is above it, or 0 in place of all.
#[cold]
#[inline(never)]
fn bound_or_clear(values: &mut [f32], is_bounded: bool) {
    for value in values {
        *value = if is_bounded { value.min(Unsigned8::LARGEST) } else { 0.0 };
    }
}

/// 1 where a finite value has become infinite, else 0.
#[inline(always)]
fn become_infinite<S: Simd>(bits: Bits<S>, was: S::f32s, is: S::f32s) -> S::u32s {
    let infinite = bits.splat(INFINITE);
    let was_finite = bits.is_less(magnitudes(bits, was), infinite);
    let is_infinite = bits.is_equal(magnitudes(bits, is), infinite);
    let (zero, one) = (bits.splat(0), bits.splat(1));
    bits.select(was_finite, bits.select(is_infinite, one, zero), zero)
}

/// The elements of a register and zeros.
#[inline(always)]
pub(crate) fn elements<S: Simd>(bits: Bits<S>, x: S::u32s) -> [u32; ROW] {
    let mut all = [0; ROW];
    // SAFETY: no register has more elements than a row.
    unsafe { bits.store32(all.as_mut_ptr(), x) };
    all
}

/// Magnitudes, as bits. That of a NaN is larger than all else.
#[inline(always)]
pub(crate) fn magnitudes<S: Simd>(bits: Bits<S>, values: S::f32s) -> S::u32s {
    bits.and(bits.of(values), MAGNITUDE)
}

mod arrays;
mod eight_bits;
pub(crate) mod short;
#[cfg(test)]
mod tests;
