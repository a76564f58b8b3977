//! Bf16 parameters and gradients in a kernel's loops, with a master copy in fewer operations than by the
//! codec: on most machines they bind.

use super::*;

pub(crate) const FORMAT: Format = Format::new(DType::Bf16, false);
/// Magnitudes from here on are infinite or NaN in bf16: codes of those are to be made again.
pub(crate) const SPECIAL: u32 = 0x7f7f_8000;

/// Numbers from here on may be rounded to infinity by noise, or are infinite or NaN.
pub(crate) const TOO_LARGE: u32 = 0x7f7f_0001;

/// A register of the master copy, with the parameter where that is not it rounded to nearest.
///
/// # Safety
/// A register's worth of parameters can be read from element `at` of `from` on, aligned.
#[inline(always)]
pub(crate) unsafe fn adopt<S: Simd>(
    bits: Bits<S>,
    master: S::f32s,
    (from, at): (*const u8, usize),
) -> S::f32s {
    // SAFETY: this function's own contract.
    let parameter = unsafe { load(bits, (from, at)) };
    let differs = bits.xor(nearest(bits, bits.of(master)), bits.of(parameter));
    let is_it = bits.is_equal(bits.and(differs, 0xffff_0000), bits.splat(0));
    // A NaN is not worth keeping, and may turn over into a small number.
    let kept = bits.0.and_m32s(is_it, bits.0.equal_f32s(master, master));
    bits.float(bits.select(kept, bits.of(master), bits.of(parameter)))
}

/// A register of values.
///
/// # Safety
/// As many of them can be read from element `at` of `from` on, aligned.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(bits: Bits<S>, (from, at): (*const u8, usize)) -> S::f32s {
    // SAFETY: this function's own contract.
    Bf16::decode(bits, unsafe { Bf16::load(bits, from, at) }, Scale::NONE)
}

/// Stores a register of parameters, rounded to nearest: their magnitudes, of which none may be
/// [`SPECIAL`].
///
/// # Safety
/// A register's worth of parameters can be written from element `at` of `to` on, aligned.
#[inline(always)]
pub(crate) unsafe fn round<S: Simd>(
    bits: Bits<S>,
    values: S::f32s,
    (to, at): (*mut u8, usize),
) -> S::u32s {
    let code = bits.shr(nearest(bits, bits.of(values)), 16);
    // SAFETY: this function's own contract.
    unsafe { Bf16::store(bits, to, at, code) };
    magnitudes(bits, values)
}

/// Stores a register of parameters without a master copy, rounded by noise: their magnitudes.
///
/// # Safety
/// As [`round`].
#[inline(always)]
pub(crate) unsafe fn round_by<S: Simd>(
    bits: Bits<S>,
    values: S::f32s,
    (to, at): (*mut u8, usize),
    rounding: Rounding<S::u32s>,
) -> S::u32s {
    let (word, _) = Bf16::encode(bits, bits.of(values), Scale::NONE, rounding);
    let code = Bf16::code(bits, word, Scale::NONE);
    // SAFETY: this function's own contract.
    unsafe { Bf16::store(bits, to, at, code) };
    magnitudes(bits, values)
}

/// In the upper half, rounded to nearest, ties to even.
#[inline(always)]
fn nearest<S: Simd>(bits: Bits<S>, x: S::u32s) -> S::u32s {
    let is_odd = bits.and(bits.shr(x, 16), 1);
    bits.add(bits.add(x, bits.splat(0x7fff)), is_odd)
}
