//! Stochastic rounding: noise that is a function of where it is used, and of nothing else.
//!
//! A number between two that a type can hold becomes the upper one with the probability of its
//! distance from the lower one: the mean is the number. Rounding to nearest would lose every change
//! that is smaller than half of that distance.

use super::bits::Bits;
use super::codec::GROUP;
use super::lanes::ROW;
use crate::algorithm::MAX_SLOTS;
use pulp::Simd;

/// One round of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// 2014).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number that stands for a name.
pub(crate) fn hash_name(name: &str) -> u64 {
    name.bytes().fold(name.len() as u64, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// What decides the noise of a group: a number for seed, step and tensor, and the group's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(step: u64, group: usize) -> Self {
        Key(mix(step ^ mix(group as u64)))
    }
}

/// 20 random bits for each element of a group and each of its arrays, of which types of 16 bits take the upper ones.
///
/// They come in rows of 16. A row is the one before times a number (G. Steele and S. Vigna: Computationally easy,
/// spectrally good multipliers for congruential pseudorandom number generators, 2021); the first is the key, mixed with
/// the elements' numbers by `lowbias32` (C. Wellons, hash-prospector, 2018), with half of the key in its middle. Each
/// array has them from another row on: that of its slot, and a parameter those that follow.
pub(crate) struct Noise<S: Simd> {
    bits: Bits<S>,
    first: [S::u32s; ROW],
}

impl<S: Simd> Noise<S> {
    #[inline(always)]
    pub(crate) fn new(bits: Bits<S>, Key(key): Key) -> Self {
        let (start, middle) = (bits.splat(key as u32), bits.splat((key >> 32) as u32));
        let mul = |x, by| bits.mul(x, bits.splat(by));
        let mut first = [start; ROW];
        for (register, x) in first[..ROW / Bits::<S>::LEN].iter_mut().enumerate() {
            // SAFETY: rows are whole registers.
            let number =
                unsafe { bits.load32(NUMBERS.as_ptr().wrapping_add(register * Bits::<S>::LEN)) };
            *x = bits.add(number, start);
            *x = mul(bits.xor(*x, bits.shr(*x, 16)), 0x7feb_352d);
            *x = mul(bits.xor(bits.xor(*x, bits.shr(*x, 15)), middle), 0x846c_a68b);
            *x = bits.xor(*x, bits.shr(*x, 16));
        }
        Noise { bits, first }
    }

    /// A register of a row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, register: usize) -> S::u32s {
        // The remainder is the row, and proof of that.
        let power = self.bits.splat(POWERS[row % POWERS.len()]);
        self.bits.shr(self.bits.mul(self.first[register], power), 12)
    }

    /// The register of an array from element `at` of the group on.
    #[inline(always)]
    pub(crate) fn of(&self, array: usize, at: usize) -> S::u32s {
        self.row(at / ROW + array, at % ROW / Bits::<S>::LEN)
    }
}

/// What tells elements of a row apart.
const NUMBERS: [u32; ROW] = {
    let (mut numbers, mut i) = ([0; ROW], 0);
    while i < ROW {
        numbers[i] = (i as u32).wrapping_mul(0x9e37_79b9);
        i += 1;
    }
    numbers
};

/// What the first row is multiplied by, of all the rows that a group's arrays have.
const POWERS: [u32; 32] = {
    assert!(GROUP / ROW + MAX_SLOTS <= 32);
    let (mut powers, mut i) = ([1u32; 32], 1);
    while i < powers.len() {
        powers[i] = powers[i - 1].wrapping_mul(0x93d7_65dd);
        i += 1;
    }
    powers
};
