//! Codecs: the types that state and parameters are kept in, from and to registers of f32.
//!
//! Nothing but these functions knows the types: lane functions compute in f32. Each codec is a function
//! of a register each way, in integer and exact floating-point operations, so that the bits are the same
//! on every instruction set. A new type is a [`Codec`] and a line in `with_codec!`.
//!
//! [`Mini`] is the common scheme. A float's magnitude, as an integer, grows with its value, in
//! steps that are equal between powers of two. Dropping its low bits rounds it down to a shorter
//! fraction, and adding noise below the lowest bit that is kept first rounds it stochastically.

use self::eight_bits::{NOT_FINITE, Signed8, Unsigned8, exponent};
use super::bits::Bits;
use super::lanes::{Lanes, ROW};
use super::rounding::Noise;
use crate::algorithm::Kept;
use crate::dtype::DType;
use pulp::Simd;

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
    /// Magnitude, as bits, that codes are counted from.
    base: u32,
    /// The value of an unsigned code 0, as bits.
    zero: u32,
}

impl Scale {
    pub(crate) const NONE: Scale = Scale { base: 0, zero: 0 };
    /// Of a group that is not finite, whose codes are 0.
    const NAN: Scale = Scale { base: INFINITE | QUIET, zero: INFINITE | QUIET };
}

/// How a value that the type cannot hold is rounded.
#[derive(Clone, Copy)]
pub(crate) enum Rounding<R> {
    /// Up or down, by noise: of 16 bits, and of 20.
    Stochastic(R, R),
    /// To nearest, ties to even; bf16 and f16 only.
    Nearest,
}

/// How a register of a group is rounded, from element `at` of that half of it on: by its noise.
#[inline(always)]
pub(crate) fn noise_at<S: Simd>(
    bits: Bits<S>,
    noise: &Noise,
    (half, at): (usize, usize),
) -> Rounding<S::u32s> {
    // SAFETY: halves of groups are whole registers.
    let words = unsafe { bits.load32(noise.as_ptr().wrapping_add(at)) };
    let short = bits.and(bits.shr(words, half as u32 * 16), 0xffff);
    let long = bits.and(bits.shr(words, half as u32 * 12), 0xf_ffff);
    Rounding::Stochastic(short, long)
}

/// The same under an array's mask.
#[inline(always)]
pub(crate) fn masked<S: Simd>(
    bits: Bits<S>,
    rounding: Rounding<S::u32s>,
    mask: u32,
) -> Rounding<S::u32s> {
    let Rounding::Stochastic(short, long) = rounding else { return rounding };
    let mask = |by| bits.splat(mask << by);
    Rounding::Stochastic(bits.xor(short, mask(0)), bits.xor(long, mask(4)))
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
    /// The code, and what it decodes as.
    fn encode<S: Simd>(
        bits: Bits<S>,
        x: S::u32s,
        scale: Scale,
        rounding: Rounding<S::u32s>,
    ) -> (S::u32s, S::f32s);
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
            Rounding::Stochastic(noise, _) => noise,
            Rounding::Nearest => bits.add(bits.and(bits.shr(x, 16), 1), bits.splat(0x7fff)),
        };
        let is_number = bits.0.equal_f32s(bits.float(x), bits.float(x));
        let nan = bits.or(x, bits.splat(QUIET));
        let rounded = bits.select(is_number, bits.add(x, below), nan);
        (bits.shr(rounded, 16), bits.float(bits.and(rounded, 0xffff_0000)))
    }
}

/// A floating-point type with a shorter exponent and fraction.
///
/// `DROPPED` bits of an f32's fraction are left out. Codes are counted from `base`, as bits of an f32: from
/// twice that on, each power of two has as many. Below it, where they are equally spaced, `(x + 2*base)/2`
/// has them as if it were such a number; that is above x where x is small and nowhere else, so that a
/// maximum takes it, and a minimum takes it back.
#[derive(Clone, Copy)]
struct Mini<const DROPPED: u32> {
    base: u32,
}

impl<const DROPPED: u32> Mini<DROPPED> {
    /// A magnitude from its code.
    #[inline(always)]
    fn decode<S: Simd>(self, bits: Bits<S>, code: S::u32s) -> S::u32s {
        self.magnitude(bits, bits.add(bits.shl(code, DROPPED), bits.splat(self.base)))
    }

    /// A magnitude from where it is counted.
    #[inline(always)]
    fn magnitude<S: Simd>(self, bits: Bits<S>, counted: S::u32s) -> S::u32s {
        let twice = self.base.wrapping_add(1 << FRACTION);
        bits.min_of(counted, bits.scaled(counted, 2.0, f32::from_bits(twice ^ SIGN)))
    }

    /// Where a magnitude is counted, but for bits below those that count.
    #[inline(always)]
    fn counted<S: Simd>(self, bits: Bits<S>, magnitude: S::u32s) -> S::u32s {
        let base = f32::from_bits(self.base);
        bits.max_of(magnitude, bits.scaled(magnitude, 0.5, base))
    }
}

struct F16;

impl F16 {
    /// 2^-15: the smallest normal number is 2^-14.
    const MINI: Mini<13> = Mini { base: 112 << FRACTION };
    const INFINITY: u32 = 0x7c00;
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
        let finite = Self::MINI.decode(bits, magnitude);
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
            Rounding::Stochastic(noise, _) => {
                let counted = bits.add(Self::MINI.counted(bits, magnitude), bits.shr(noise, 3));
                bits.shr(bits.sub(counted, bits.splat(Self::MINI.base)), 13)
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
    /// or nothing where a value is not finite. All are 0 then, whose code stands for NaN.
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
            exponent(largest, if self.unsigned { Unsigned8::LEAST } else { Signed8::LEAST });
        // SAFETY: this function's own contract.
        unsafe { to.write(exponent) };
        if exponent == NOT_FINITE {
            // SAFETY: this function's own contract; zeros are numbers.
            unsafe { values.write_bytes(0, len) };
            return None;
        }
        Some(self.scale(exponent))
    }

    /// What the codes of a group with this exponent mean.
    #[inline(always)]
    pub(crate) fn scale(self, exponent: u8) -> Scale {
        if exponent == NOT_FINITE {
            return Scale::NAN;
        }
        let (least, below) =
            if self.unsigned { (Unsigned8::LEAST, 31) } else { (Signed8::LEAST, 15) };
        Scale { base: (u32::from(exponent.max(least)) - below) << FRACTION, zero: 0 }
    }

    /// The kind of array that has this format.
    fn kind(self) -> Kept {
        match (self.dtype, self.unsigned) {
            (DType::Q8, true) => Kept::Unsigned,
            (DType::Q8, false) => Kept::Signed,
            _ => EXACT,
        }
    }

    /// Whether infinity becomes the largest finite value, in a slot that does so or does not: it would
    /// take its whole group of 8-bit state along.
    #[inline(always)]
    pub(crate) fn saturates(self, slot: bool) -> bool {
        slot || self.is_grouped() && self.unsigned
    }

    /// The largest finite value.
    #[inline(always)]
    fn largest(self) -> f32 {
        match self.dtype {
            DType::Bf16 => Bf16::LARGEST,
            DType::F16 => F16::LARGEST,
            DType::Q8 => Unsigned8::LARGEST,
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

    /// Stores a register of values from element `at` on: what they are as they are kept.
    ///
    /// # Safety
    /// As many elements of this format can be written there, aligned.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(
        self,
        bits: Bits<S>,
        kind: Kept,
        (to, at): (*mut u8, usize),
        values: S::f32s,
        (scale, rounding): (Scale, Rounding<S::u32s>),
    ) -> S::f32s {
        // SAFETY: this function's own contract.
        unsafe {
            with_codec!(self, kind, C => {
                let (code, kept) = C::encode(bits, bits.of(values), scale, rounding);
                C::store(bits, to, at, code);
                kept
            })
        }
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
