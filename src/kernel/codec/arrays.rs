//! Whole arrays, of any length: what a kernel has no codec for in its loop.
//!
//! Each is compiled once for an instruction set and called for a group or a block, so that kernels need
//! no copy of it.

use super::*;
use crate::kernel::isa::Token;
use crate::kernel::lanes::ROW;
use crate::kernel::prefetch::{AHEAD, prefetch_first};
use crate::kernel::rounding::{Key, Noise};
use pulp::WithSimd;

/// The noise of stochastic rounding: a number for seed, step and tensor, the number of the first group,
/// and the array's.
pub(crate) type NoiseOf = (u64, usize, usize);

impl Format {
    /// Decodes any number of elements from the start of a group on.
    ///
    /// # Safety
    /// `from` holds `to.len()` elements of this format, with their exponents, which nobody writes
    /// meanwhile.
    #[inline(never)]
    pub(crate) unsafe fn decode_all(self, token: Token, from: Place, to: &mut [f32]) {
        token.dispatch(Decode { format: self, from, to });
    }

    /// Encodes state, any number of elements from the start of a group on, stochastically by the noise of
    /// that group and those that follow. Values become what they are as they are kept.
    ///
    /// # Safety
    /// `to` has room for as many elements of this format, with their exponents, which nobody else
    /// uses.
    #[inline(never)]
    pub(crate) unsafe fn encode_all(
        self,
        token: Token,
        values: &mut [f32],
        to: Place,
        noise: NoiseOf,
        saturates: bool,
    ) {
        token.dispatch(Encode { format: self, values, to, noise, saturates });
    }

    /// Rounds parameters, stochastically by the noise of the groups that they are or to nearest: how many
    /// have become infinite. Values stay what they are.
    ///
    /// # Safety
    /// `to` has room for as many elements of this format, bf16 or f16, which nobody else uses.
    #[inline(never)]
    pub(crate) unsafe fn round_all(
        self,
        token: Token,
        values: &mut [f32],
        to: *mut u8,
        noise: Option<NoiseOf>,
    ) -> u64 {
        token.dispatch(Round { format: self, values, to, noise })
    }

    /// Brings a master copy up to date with its parameters: those that are not it, rounded to nearest, are
    /// taken over. They are all of them at first, and then what somebody else has changed.
    ///
    /// # Safety
    /// `from` holds as many elements of this format, bf16 or f16, which nobody writes meanwhile.
    #[inline(never)]
    pub(crate) unsafe fn adopt_all(self, token: Token, master: &mut [f32], from: *const u8) {
        token.dispatch(Adopt { format: self, master, from });
    }
}

/// Does something for registers of a group's values and their codes, the last with copies of as much as
/// there is, and asks for codes of a later group. `codes` holds a code for each value, and what is done
/// reads and writes no more than a register's worth. Only where it says `writes` are codes written: a
/// gradient may lie in memory that cannot be, or that others read.
// A closure is not sure to be inlined, and what is not is not compiled for the instruction set.
macro_rules! for_registers {
    (reads $($rest:tt)*) => { for_registers!(false, $($rest)*) };
    (writes $($rest:tt)*) => { for_registers!(true, $($rest)*) };
    ($writes:literal, <$simd:ty, $codec:ty>, $values:expr, $codes:expr, |$at:pat_param, $value_at:ident, $code_at:ident| $then:block) => {{
        let (values, codes): (&mut [f32], *mut u8) = ($values, $codes);
        let (len, values) = (values.len(), values.as_mut_ptr());
        let code = |at: usize| codes.wrapping_add(at * <$codec>::BYTES);
        let whole = len / Bits::<$simd>::LEN * Bits::<$simd>::LEN;
        prefetch_first(code(AHEAD), len * <$codec>::BYTES);
        for at in (0..whole).step_by(Bits::<$simd>::LEN) {
            let ($at, $value_at, $code_at) = (at, values.wrapping_add(at), code(at));
            $then
        }
        if whole < len {
            let (rest, bytes) = (len - whole, (len - whole) * <$codec>::BYTES);
            let (mut value_copy, mut code_copy) = ([0.0; ROW], [0u32; ROW]);
            let $at = whole;
            let $value_at = value_copy.as_mut_ptr();
            let $code_at = code_copy.as_mut_ptr().cast::<u8>();
            $value_at.copy_from_nonoverlapping(values.wrapping_add(whole), rest);
            $code_at.copy_from_nonoverlapping(code(whole), bytes);
            $then
            values.wrapping_add(whole).copy_from_nonoverlapping($value_at, rest);
            if $writes {
                code(whole).copy_from_nonoverlapping($code_at, bytes);
            }
        }
    }};
}

struct Decode<'a> {
    format: Format,
    from: Place,
    to: &'a mut [f32],
}

impl Decode<'_> {
    /// # Safety
    /// As [`Format::decode_all`].
    #[inline(always)]
    unsafe fn run<S: Simd, C: Codec>(self, bits: Bits<S>) {
        let Decode { format, from, to } = self;
        for (group, to) in to.chunks_mut(GROUP).enumerate() {
            let scale = match format.is_grouped() {
                // SAFETY: this function's own contract: groups have their exponents.
                true => format.scale(unsafe { *from.exponents.add(group) }),
                false => Scale::NONE,
            };
            let codes = from.codes.wrapping_add(group * GROUP * C::BYTES);
            // SAFETY: as above.
            unsafe {
                for_registers!(reads <S, C>, to, codes, |_, to, codes| {
                    let values = C::decode(bits, C::load(bits, codes, 0), scale);
                    bits.store32(to.cast(), bits.of(values));
                });
            }
        }
    }
}

struct Encode<'a> {
    format: Format,
    values: &'a mut [f32],
    to: Place,
    noise: NoiseOf,
    saturates: bool,
}

impl Encode<'_> {
    /// # Safety
    /// As [`Format::encode_all`].
    #[inline(always)]
    unsafe fn run<S: Simd, C: Codec>(self, bits: Bits<S>) {
        let Encode { format, values, to, noise: (step, first, array), saturates } = self;
        for (group, values) in values.chunks_mut(GROUP).enumerate() {
            let mut largest = 0;
            for value in &mut *values {
                if saturates && *value > C::LARGEST {
                    *value = C::LARGEST;
                }
                if format.unsigned {
                    *value = value.abs();
                }
                largest = largest.max(value.to_bits() & MAGNITUDE);
            }
            let mut scale = Some(Scale::NONE);
            if format.is_grouped() {
                let all = (values.as_mut_ptr(), values.len());
                let exponent = to.exponents.wrapping_add(group);
                // SAFETY: this function's own contract: each group has an exponent.
                scale = unsafe { format.set_exponent(largest, all, exponent) };
            }
            let noise = Noise::new(bits, Key::new(step, first + group));
            let codes = to.codes.wrapping_add(group * GROUP * C::BYTES);
            // SAFETY: as above.
            unsafe {
                for_registers!(writes <S, C>, values, codes, |at, values, codes| {
                    let x = bits.load32(values.cast());
                    let rounding = Rounding::Stochastic(noise.of(array, at));
                    let scale = scale.unwrap_or(Scale::NONE);
                    let (word, kept) = C::encode(bits, x, scale, rounding);
                    C::store(bits, codes, 0, C::code(bits, word, scale));
                    bits.store32(values.cast(), bits.of(kept));
                });
            }
            if scale.is_none() {
                values.fill(f32::NAN);
            }
        }
    }
}

struct Round<'a> {
    format: Format,
    values: &'a mut [f32],
    to: *mut u8,
    noise: Option<NoiseOf>,
}

impl Round<'_> {
    /// # Safety
    /// As [`Format::round_all`].
    #[inline(always)]
    unsafe fn run<S: Simd, C: Codec>(self, bits: Bits<S>) -> u64 {
        let mut lost = bits.splat(0);
        for (group, values) in self.values.chunks_mut(GROUP).enumerate() {
            let noise = self.noise.map(|(step, first, array)| {
                (Noise::new(bits, Key::new(step, first + group)), array)
            });
            let to = self.to.wrapping_add(group * GROUP * C::BYTES);
            // SAFETY: this function's own contract.
            unsafe {
                for_registers!(writes <S, C>, values, to, |at, values, codes| {
                    let x = bits.load32(values.cast());
                    let rounding = match &noise {
                        Some((noise, array)) => Rounding::Stochastic(noise.of(*array, at)),
                        None => Rounding::Nearest,
                    };
                    let (word, kept) = C::encode(bits, x, Scale::NONE, rounding);
                    C::store(bits, codes, 0, C::code(bits, word, Scale::NONE));
                    lost = bits.add(lost, become_infinite(bits, bits.float(x), kept));
                });
            }
        }
        elements(bits, lost).into_iter().map(u64::from).sum()
    }
}

struct Adopt<'a> {
    format: Format,
    master: &'a mut [f32],
    from: *const u8,
}

impl Adopt<'_> {
    /// # Safety
    /// As [`Format::adopt_all`].
    #[inline(always)]
    unsafe fn run<S: Simd, C: Codec>(self, bits: Bits<S>) {
        for (group, master) in self.master.chunks_mut(GROUP).enumerate() {
            let from = self.from.cast_mut().wrapping_add(group * GROUP * C::BYTES);
            // SAFETY: this function's own contract.
            unsafe {
                for_registers!(reads <S, C>, master, from, |_, master, codes| {
                    let (x, found) = (bits.load32(master.cast()), C::load(bits, codes, 0));
                    let (word, _) = C::encode(bits, x, Scale::NONE, Rounding::Nearest);
                    let expected = C::code(bits, word, Scale::NONE);
                    let adopted = bits.of(C::decode(bits, found, Scale::NONE));
                    let kept = bits.is_equal(found, expected);
                    bits.store32(master.cast(), bits.select(kept, x, adopted));
                });
            }
        }
    }
}

/// Whole arrays by the codec of their format.
macro_rules! by_codec {
    ($($name:ident -> $output:ty),+) => { $(
        impl WithSimd for $name<'_> {
            type Output = $output;

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> $output {
                let bits = Bits(simd);
                // SAFETY: the functions that dispatch this have the contracts that `run` has.
                unsafe {
                    with_codec!(self.format, self.format.kind(), C => self.run::<S, C>(bits))
                }
            }
        }
    )+ };
}

by_codec!(Decode -> (), Encode -> (), Round -> u64, Adopt -> ());
