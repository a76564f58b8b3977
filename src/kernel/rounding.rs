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

/// What a parameter's noise is numbered by; that of state is by slot.
pub(crate) const PARAMETER: usize = MAX_SLOTS;

/// 20 random bits for each element of a group, row by row, of which types of 16 bits take the upper ones.
///
/// The arrays of a block share them, each from another row on, so that those that one element has are independent.
pub(crate) type Noise = [u32; GROUP + PARAMETER * ROW];

/// Before it is filled.
pub(crate) const NO_NOISE: Noise = [0; GROUP + PARAMETER * ROW];

/// The part of it that an array has.
#[inline(always)]
pub(crate) fn noise_of(noise: &Noise, array: usize) -> &[u32] {
    &noise[array * ROW..][..GROUP]
}

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

    /// The noise of the group for so many arrays.
    ///
    /// A row is the one before it times a number (G. Steele and S. Vigna: Computationally easy, spectrally good
    /// multipliers for congruential pseudorandom number generators, 2021); the first is the key, mixed with the
    /// elements' numbers by `lowbias32` (C. Wellons, hash-prospector, 2018), with half of the key in its middle.
    #[inline(always)]
    pub(crate) fn fill<S: Simd>(self, bits: Bits<S>, noise: &mut Noise, arrays: usize) {
        let (start, middle) = (bits.splat(self.0 as u32), bits.splat((self.0 >> 32) as u32));
        let mul = |x, by| bits.mul(x, bits.splat(by));
        let rows = GROUP / ROW + arrays - 1;
        for at in (0..ROW).step_by(Bits::<S>::LEN) {
            // SAFETY: rows are whole registers.
            let x = bits.add(unsafe { bits.load32(NUMBERS.as_ptr().wrapping_add(at)) }, start);
            let x = mul(bits.xor(x, bits.shr(x, 16)), 0x7feb_352d);
            let x = mul(bits.xor(bits.xor(x, bits.shr(x, 15)), middle), 0x846c_a68b);
            let x = bits.xor(x, bits.shr(x, 16));
            for (row, power) in POWERS[..rows].iter().enumerate() {
                let to = noise[row * ROW + at..][..Bits::<S>::LEN].as_mut_ptr();
                // SAFETY: there is room for a register.
                unsafe { bits.store32(to, bits.shr(mul(x, *power), 12)) };
            }
        }
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

/// What the first row is multiplied by.
const POWERS: [u32; GROUP / ROW + PARAMETER] = {
    let (mut powers, mut i) = ([1u32; GROUP / ROW + PARAMETER], 1);
    while i < powers.len() {
        powers[i] = powers[i - 1].wrapping_mul(0x93d7_65dd);
        i += 1;
    }
    powers
};
