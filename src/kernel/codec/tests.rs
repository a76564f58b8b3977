//! Formats against the crate `half` and against their definitions, on every instruction set.

use super::*;
use crate::algorithm::MAX_SLOTS;
use crate::kernel::isa::{Isa, Token};
use crate::kernel::rounding::{Key, Noise, mix};
use half::{bf16, f16};
use pulp::WithSimd;

/// As many elements as are tested at once.
const LEN: usize = 1024;

const BF16: Format = Format::new(DType::Bf16, false);
const F16: Format = Format::new(DType::F16, false);
const SIGNED: Format = Format::new(DType::Q8, false);
const UNSIGNED: Format = Format::new(DType::Q8, true);

fn tokens() -> impl Iterator<Item = Token> {
    Isa::ALL.into_iter().filter_map(|isa| isa.require().ok())
}

/// How values are rounded: by the noise of groups' keys, as an array's, or to nearest.
#[derive(Clone, Copy)]
enum How<'a> {
    Stochastic(&'a [Key], usize),
    Nearest,
}

/// Encodes values as the kernels do: register by register, a group's exponent first.
struct Encode<'a> {
    format: Format,
    values: &'a [f32],
    to: Place,
    how: How<'a>,
    saturates: bool,
}

impl WithSimd for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Encode { format, to, how, .. } = self;
        let (bits, bytes) = (Bits(simd), format.dtype.size());
        let most =
            |x: f32| if self.saturates && x > format.largest() { format.largest() } else { x };
        let size = |x: f32| if format.unsigned { x.abs() } else { x };
        let values: Vec<f32> = self.values.iter().map(|x| size(most(*x))).collect();
        for (group, values) in values.chunks(GROUP).enumerate() {
            let largest = values.iter().map(|x| x.to_bits() & MAGNITUDE).max().unwrap();
            let (mut values, mut scale) = (values.to_vec(), Some(Scale::NONE));
            if format.is_grouped() {
                let all = (values.as_mut_ptr(), values.len());
                // SAFETY: each group has an exponent.
                scale = unsafe { format.set_exponent(largest, all, to.exponents.add(group)) };
            }
            let is_finite = scale.is_some();
            let scale = scale.unwrap_or(Scale::NONE);
            let mut words = Vec::new();
            for (i, values) in values.chunks(Bits::<S>::LEN).enumerate() {
                let at = i * Bits::<S>::LEN;
                let mut row = [0u32; ROW];
                row.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_bits());
                let mut codes = [0u32; ROW];
                // SAFETY: copies have room for a row, and `to` for what there is of it.
                unsafe {
                    let rounding = match how {
                        How::Stochastic(keys, array) => {
                            Rounding::Stochastic(Noise::new(bits, keys[group]).of(array, at))
                        }
                        How::Nearest => Rounding::Nearest,
                    };
                    let codes = codes.as_mut_ptr().cast::<u8>();
                    let x = bits.float(bits.load32(row.as_ptr()));
                    let (word, kept) = format.encode(bits, kind(format), x, (scale, rounding));
                    words.push(word);
                    store(bits, format, codes, (word, scale));
                    if format.unsigned && format.is_grouped() && is_finite {
                        let root = format.roots(bits, (word, kept), scale);
                        let expected = Lanes::<S, f32>::new(simd).sqrt(kept);
                        let [root, expected] = [root, expected].map(|x| elements(bits, bits.of(x)));
                        assert!(root == expected);
                    }
                    // What it says it kept is what is decoded.
                    let decoded = format.load(bits, kind(format), (codes, 0), scale);
                    let [kept, decoded] = [kept, decoded].map(|x| elements(bits, bits.of(x)));
                    assert!(kept == decoded || !is_finite, "{format:?}");
                    let at = (group * GROUP + at) * bytes;
                    to.codes.add(at).copy_from_nonoverlapping(codes, values.len() * bytes);
                }
            }
            // Registers that are packed together have the codes that they have one by one.
            let packed = Bits::<S>::PACKED;
            for (i, some) in words.chunks_exact(packed).enumerate() {
                let (at, len) = (i * packed * Bits::<S>::LEN, packed * Bits::<S>::LEN);
                let (mut found, mut all) = ([0u32; 4 * ROW], [bits.splat(0); 4]);
                all[..packed].copy_from_slice(some);
                let len = len.min(values.len() - at) * bytes;
                // SAFETY: there is room for four registers, and `to` has the codes of the values.
                unsafe {
                    let codes = found.as_mut_ptr().cast::<u8>();
                    format.store_packed(bits, kind(format), (codes, 0), &all, scale);
                    let one_by_one = to.codes.add((group * GROUP + at) * bytes);
                    let [a, b] = [codes.cast_const(), one_by_one.cast_const()];
                    assert!(slice::from_raw_parts(a, len) == slice::from_raw_parts(b, len));
                }
            }
        }
    }
}

/// # Safety
/// A register of codes can be written.
#[inline(always)]
unsafe fn store<S: Simd>(
    bits: Bits<S>,
    format: Format,
    to: *mut u8,
    (word, scale): (S::u32s, Scale),
) {
    use super::Kept;
    // SAFETY: this function's own contract.
    unsafe {
        with_codec!(format, kind(format), C => C::store(bits, to, 0, C::code(bits, word, scale)));
    }
}

fn kind(format: Format) -> super::Kept {
    match (format.dtype, format.unsigned) {
        (DType::Q8, false) => super::Kept::Signed,
        (DType::Q8, true) => super::Kept::Unsigned,
        _ => super::Kept::Exactly("f16 may be"),
    }
}

/// Values in a format, with guards around them.
struct Kept {
    format: Format,
    memory: Vec<u16>,
    len: usize,
}

impl Kept {
    const GUARD: usize = 8;
    const PATTERN: u16 = 0xa5a5;

    fn place(&mut self) -> Place {
        let codes = self.memory[Self::GUARD..].as_mut_ptr().cast::<u8>();
        Place { codes, exponents: codes.wrapping_add(self.len * self.format.dtype.size()) }
    }

    fn bytes(format: Format, len: usize) -> usize {
        let exponents = if format.dtype == DType::Q8 { len.div_ceil(GROUP) } else { 0 };
        len * format.dtype.size() + exponents
    }

    fn encode(
        token: Token,
        format: Format,
        values: &[f32],
        (how, saturates): (How<'_>, bool),
    ) -> Self {
        let len = values.len();
        let words = Self::bytes(format, len).div_ceil(2) + 2 * Self::GUARD;
        let mut kept = Kept { format, memory: vec![Self::PATTERN; words], len };
        let to = kept.place();
        token.dispatch(Encode { format, values, to, how, saturates });
        let bytes = Self::bytes(format, len);
        let all: Vec<u8> = kept.memory.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let guard = |byte: &u8| *byte == 0xa5;
        assert!(all[..2 * Self::GUARD].iter().all(guard), "{format:?} {len}");
        assert!(all[2 * Self::GUARD + bytes..].iter().all(guard), "{format:?} {len}");
        kept
    }

    fn decode(&mut self, token: Token) -> Vec<f32> {
        let (place, mut values) = (self.place(), vec![f32::MIN_POSITIVE; self.len + 1]);
        // SAFETY: `encode` filled the place.
        unsafe { self.format.decode_all(token, place, &mut values[..self.len]) };
        assert_eq!(values.pop(), Some(f32::MIN_POSITIVE));
        values
    }
}

fn keys(step: u64) -> Vec<Key> {
    (0..LEN / GROUP).map(|group| Key::new(step, group)).collect()
}

fn nearest(token: Token, format: Format, values: &[f32]) -> Vec<f32> {
    Kept::encode(token, format, values, (How::Nearest, false)).decode(token)
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Floats of all sizes, specials and what lies beside the ends of the formats among them.
fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut special = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN];
    special.extend([65504.0, 65519.99, 65520.0, 65536.0, 1e38, f32::MAX, f32::MIN_POSITIVE]);
    special.extend([0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff].map(f32::from_bits));
    let random = (0..).map(|i| f32::from_bits(mix(seed ^ mix(i)) as u32));
    special.into_iter().chain(random).take(len).collect()
}

#[test]
fn sixteen_bits_decode_as_half_does() {
    for token in tokens() {
        for first in (0..=u16::MAX).step_by(LEN) {
            let codes: Vec<u16> = (first..=first + (LEN as u16 - 1)).collect();
            let mut kept = Kept { format: BF16, memory: vec![0; Kept::GUARD], len: LEN };
            kept.memory.extend(&codes);
            for (code, value) in codes.iter().zip(kept.decode(token)) {
                assert!(same(value, bf16::from_bits(*code).to_f32()), "{code:x} {token:?}");
            }
            kept.format = F16;
            for (code, value) in codes.iter().zip(kept.decode(token)) {
                assert!(same(value, f16::from_bits(*code).to_f32()), "{code:x} {token:?}");
            }
        }
    }
}

/// Of every f16, of what lies halfway to the next, and of what lies beside that; and of any floats.
#[test]
fn nearest_is_what_half_rounds_to() {
    let mut values: Vec<f32> = (0..0x7c00u16)
        .flat_map(|code| {
            let (low, high) = (f16::from_bits(code).to_f32(), f16::from_bits(code + 1).to_f32());
            let middle = if high.is_finite() { low + (high - low) / 2.0 } else { 65520.0 };
            let bits = middle.to_bits();
            [low, middle, -f32::from_bits(bits - 1), f32::from_bits(bits + 1)]
        })
        .collect();
    values.extend(floats(1, 40 * LEN));
    for token in tokens() {
        for values in values.chunks(LEN) {
            for (value, found) in values.iter().zip(nearest(token, F16, values)) {
                assert!(same(found, f16::from_f32_const(*value).to_f32()), "{value:e} {found:e}");
            }
            for (value, found) in values.iter().zip(nearest(token, BF16, values)) {
                assert!(same(found, bf16::from_f32_const(*value).to_f32()), "{value:e} {found:e}");
            }
        }
    }
}

/// The values that a format has around a magnitude, by its definition and not by its code: the
/// largest that is not above it, and the distance to the next, or to itself if there is none but it.
fn neighbours(format: Format, group_exponent: i32, magnitude: f64) -> (f64, f64) {
    let (bits, least, less) = match (format.dtype, format.unsigned) {
        (DType::Bf16, _) => (7, -126, 0.0),
        (DType::F16, _) => (10, -14, 0.0),
        (_, false) => (3, group_exponent - 15, 2f64.powi(group_exponent - 15)),
        (_, true) if magnitude < 2f64.powi(group_exponent - 31) => {
            return (2f64.powi(group_exponent - 31), 0.0);
        }
        (_, true) => (3, group_exponent - 31, 0.0),
    };
    let moved = magnitude + less;
    let exponent = moved.log2().floor() as i32;
    let exponent = if 2f64.powi(exponent) > moved { exponent - 1 } else { exponent };
    let step = 2f64.powi(exponent.max(least) - bits);
    ((moved / step).floor() * step - less, step)
}

/// The exponent of a group, by its definition: that of the largest value, or the next where rounding up
/// could reach that.
fn group_exponent(format: Format, group: &[f32]) -> i32 {
    let largest = group.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
    let exponent = |x: f64| if x > 0.0 { x.log2().floor() as i32 } else { -200 };
    let rises = largest >= 2f64.powi(exponent(largest)) * (1.875 - 2f64.powi(-15));
    let least = if format.unsigned { 32 - 127 } else { 19 - 127 };
    (exponent(largest) + i32::from(rises)).clamp(least, 127)
}

#[test]
fn stochastic_rounding_gives_a_neighbour_and_the_mean_is_the_value() {
    // 256 values that f32 holds, over 40 powers of two, and exact ones among them.
    let wide: Vec<f32> = (0..256)
        .map(|i| {
            let size = 2f32.powi(i % 40 - 30);
            let value = if i < 8 {
                size
            } else {
                size * (1.0 + (mix(i as u64) as u32 >> 9) as f32 * 2f32.powi(-23))
            };
            if i % 3 == 0 { -value } else { value }
        })
        .collect();
    const KEYS: u64 = 4000;
    for format in [BF16, F16, SIGNED, UNSIGNED] {
        let values: Vec<f32> =
            wide.iter().map(|x| if format.unsigned { x.abs() } else { *x }).collect();
        let values = match format.dtype {
            DType::F16 => values.iter().map(|x| x * 2.0).collect(),
            _ => values,
        };
        let exponent = group_exponent(format, &values);
        let token = tokens().last().unwrap();
        let mut ups = vec![0u32; values.len()];
        let around: Vec<_> =
            values.iter().map(|x| neighbours(format, exponent, f64::from(x.abs()))).collect();
        for key in 0..KEYS {
            let keys = keys(key);
            let how = (How::Stochastic(&keys, key as usize % (MAX_SLOTS + 1)), false);
            let found = Kept::encode(token, format, &values, how).decode(token);
            for (i, (value, found)) in values.iter().zip(found).enumerate() {
                let (below, step) = around[i];
                let magnitude = f64::from(found.abs());
                assert!(magnitude == below || magnitude == below + step, "{format:?} {value:e}");
                assert!(found == 0.0 || found.signum() == value.signum(), "{format:?} {value:e}");
                ups[i] += u32::from(magnitude != below);
            }
        }
        for (i, value) in values.iter().enumerate() {
            let (below, step) = around[i];
            if step == 0.0 {
                continue; // the least value, that is, and never 0
            }
            let share = (f64::from(value.abs()) - below) / step;
            let of = f64::from(ups[i]) / KEYS as f64;
            // Five standard errors of a share of 4,000, one case, as shares near 0 are not spread as errors are, and
            // what 16 bits of noise cannot tell.
            let error = (share * (1.0 - share) / KEYS as f64).sqrt();
            let bound = 5.0 * error + 1.0 / KEYS as f64 + 2f64.powi(-15);
            assert!((of - share).abs() <= bound, "{format:?} {value:e}: {of} and not {share}");
        }
    }
}

#[test]
fn every_instruction_set_and_length_gives_the_same_bits() {
    let scalar = tokens().next().unwrap();
    for token in tokens() {
        for len in [0, 1, 15, 16, 17, 255, 256, 257, 511, 700, LEN - 1, LEN] {
            let values = floats(len as u64, len);
            let keys = keys(len as u64);
            for format in [BF16, F16, SIGNED, UNSIGNED] {
                for saturates in [false, true] {
                    // Any floats, and such that groups are finite.
                    let tame: Vec<f32> =
                        values.iter().map(|x| if x.is_finite() { *x } else { 1.0 }).collect();
                    for values in [&values, &tame] {
                        let how = (How::Stochastic(&keys, 3), saturates);
                        let mut expected = Kept::encode(scalar, format, values, how);
                        let mut found = Kept::encode(token, format, values, how);
                        assert_eq!(found.memory, expected.memory, "{format:?} {len} {token:?}");
                        let (a, b) = (found.decode(token), expected.decode(scalar));
                        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&a), bits(&b), "{format:?} {len} {token:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_lost() {
    let keys = keys(3);
    for token in tokens() {
        for (i, special) in floats(0, 17).into_iter().filter(|x| !x.is_finite()).enumerate() {
            let mut values = vec![1.0f32; 600];
            values[300 + i] = special;
            for format in [BF16, F16, SIGNED, UNSIGNED] {
                let how = (How::Stochastic(&keys, 3), false);
                let found = Kept::encode(token, format, &values, how).decode(token);
                if format.dtype == DType::Q8 {
                    // The group of 256 is NaN, or finite where infinity has no sign; others are what they were.
                    let finite = format.unsigned && special.is_infinite();
                    let fits =
                        |x: &f32| if finite { x.is_finite() && *x > 0.0 } else { x.is_nan() };
                    assert!(found[256..512].iter().all(fits), "{format:?} {special}");
                    assert!(
                        found[256..512].iter().all(|x| x.to_bits() == found[256].to_bits())
                            || finite
                    );
                    let alone = Kept::encode(token, format, &[1.0; 600], how).decode(token);
                    assert!(found[..256] == alone[..256] && found[512..] == alone[512..]);
                } else {
                    assert!(same(found[300 + i], special), "{format:?} {special}");
                }
            }
        }
        // Saturated, the largest finite value takes the place of infinity, also by rounding up.
        let values = [f32::INFINITY, f32::MAX, 3.4e38, 1.0];
        for format in [BF16, F16, UNSIGNED] {
            let how = (How::Stochastic(&keys, 3), true);
            let found = Kept::encode(token, format, &values, how).decode(token);
            assert!(found.iter().all(|x| x.is_finite() && *x > 0.0), "{format:?} {found:?}");
        }
    }
}

#[test]
fn untouched_memory_is_zero() {
    for token in tokens() {
        for format in [BF16, F16, SIGNED, UNSIGNED] {
            let mut kept = Kept { format, memory: vec![0; 2 * LEN], len: LEN };
            assert!(kept.decode(token).iter().all(|x| x.to_bits() == 0), "{format:?}");
        }
    }
}

/// Values of a group by one noise: their codes and what they are as they are kept.
struct Group<'a>(Format, Scale, &'a [f32], u32);

impl WithSimd for Group<'_> {
    type Output = (Vec<u8>, Vec<f32>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (bits, Group(format, scale, values, noise)) = (Bits(simd), self);
        let (mut codes, mut found) = (vec![0u8; values.len()], vec![0f32; values.len()]);
        for at in (0..values.len()).step_by(Bits::<S>::LEN) {
            // SAFETY: there are whole registers of values and codes.
            unsafe {
                let x = bits.float(bits.load32(values.as_ptr().add(at).cast()));
                let how = (scale, Rounding::Stochastic(bits.splat(noise)));
                let (word, kept) = format.encode(bits, kind(format), x, how);
                store(bits, format, codes.as_mut_ptr().add(at), (word, scale));
                bits.store32(found.as_mut_ptr().add(at).cast(), bits.of(kept));
                let roots = elements(bits, bits.of(format.roots(bits, (word, kept), scale)));
                for (x, root) in found[at..].iter().zip(&roots[..Bits::<S>::LEN]) {
                    assert!(!format.unsigned || x.sqrt().to_bits() == *root, "{x:e}");
                }
            }
        }
        (codes, found)
    }
}

/// Of every exponent: what a code stands for has that code, whatever the noise, and the root that it has.
#[test]
fn values_of_8_bits_stay_what_they_are() {
    for token in tokens() {
        for (format, exponent) in
            [SIGNED, UNSIGNED].into_iter().flat_map(|x| (0..255).map(move |e| (x, e)))
        {
            let mut kept = Kept { format, memory: vec![0; Kept::GUARD], len: GROUP };
            kept.memory.extend((0..GROUP as u16).step_by(2).map(|i| i | (i + 1) << 8));
            kept.memory.push(u16::from(exponent));
            // Of a group of zeros there are no other codes.
            let zero = format.unsigned && exponent == 0;
            let values = if zero { vec![0.0; GROUP] } else { kept.decode(token) };
            for noise in [0, 1, 0xf_fffe, 0xf_ffff] {
                let group = Group(format, format.scale(exponent), &values, noise);
                let (codes, found) = token.dispatch(group);
                assert!(values == found, "{format:?} {exponent}");
                let own =
                    |(i, code): (usize, &u8)| usize::from(*code) == i || i == 0x80 && *code == 0;
                assert!(zero || codes.iter().enumerate().all(own), "{format:?} {exponent}");
            }
        }
    }
}

/// A group's largest value about where its exponent becomes the next: whatever is rounded up has a code.
#[test]
fn the_largest_of_a_group_has_a_code() {
    let edge = 1.875 - 2f32.powi(-15);
    let sizes = [1.0, 1.5, edge, 1.875, 1.9, 2.0 - f32::EPSILON];
    for (token, exponent) in tokens().flat_map(|token| (1..255).map(move |e| (token, e))) {
        let power = f32::from_bits(exponent << FRACTION);
        for (size, ulp) in sizes.into_iter().flat_map(|size| [-1, 0, 1].map(|ulp| (size, ulp))) {
            let x = f32::from_bits((power * size).to_bits().wrapping_add_signed(ulp));
            for format in [SIGNED, UNSIGNED] {
                let (mut values, mut exponent) = ([x, x / 3.0].repeat(ROW / 2), 0);
                let all = (values.as_mut_ptr(), values.len());
                // SAFETY: a group's exponent.
                let scale = unsafe { format.set_exponent(x.to_bits(), all, &mut exponent) };
                let is_large = x >= edge * 2f32.powi(127);
                assert_eq!(scale.is_none(), is_large && !format.unsigned, "{format:?} {x:e}");
                let Some(scale) = scale else { continue };
                let top = if is_large { 127 } else { group_exponent(format, &[x]) };
                assert_eq!(i32::from(exponent) - 127, top, "{format:?} {x:e}");
                for noise in [0, 0xf_ffff] {
                    let (_, found) = token.dispatch(Group(format, scale, &values, noise));
                    for (x, y) in values.iter().zip(found) {
                        let (below, step) = neighbours(format, top, f64::from(*x));
                        let y = f64::from(y);
                        assert!(y == below || y == below + step, "{format:?} {x:e} {y:e}");
                    }
                }
            }
        }
    }
}

/// What the tests of correlations rely on.
#[test]
fn an_array_has_the_noise_of_the_one_before_a_row_further_on() {
    let noise = Noise::new(Bits(pulp::Scalar::new()), Key::new(1, 2));
    for at in 0..GROUP - ROW {
        assert_eq!(noise.of(0, at + ROW), noise.of(1, at));
        assert_ne!(noise.of(0, at + ROW), noise.of(0, at));
    }
}
