//! Stochastic rounding: noise that is a function of where it is used, and of nothing else.
//!
//! A number between two that a type can hold becomes the upper one with the probability of its
//! distance from the lower one: the mean is the number. Rounding to nearest would lose every change
//! that is smaller than half of that distance.

use super::codec::GROUP;
use crate::algorithm::MAX_SLOTS;

/// What a parameter's noise is numbered by; that of state is by slot.
pub(crate) const PARAMETER: usize = MAX_SLOTS;

/// Half of a group.
pub(crate) const HALF: usize = GROUP / 2;

/// 32 random bits for two elements, half a group apart. In 16-bit types each has half of them. In 8-bit
/// ones one has the lower 20 and the other the upper 20: of the 8 that they share, those that count
/// most for one count least for the other.
///
/// The arrays of a block share them, all but the first with a mask of its own for the upper 16 bits that
/// an element has: as masks are random too, what two arrays get for an element is independent.
pub(crate) type Noise = [u32; HALF];

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

    /// The mask of an array of that number.
    #[inline(always)]
    pub(crate) fn mask(self, array: usize) -> u32 {
        if array == 0 {
            return 0;
        }
        let four = mix(self.0 ^ (array / 4 + 1) as u64);
        (four >> (16 * (array % 4))) as u32 & 0xffff
    }

    /// The noise of the group. The mixing is `lowbias32` (C. Wellons, hash-prospector, 2018), with half
    /// of the key in its middle.
    #[inline(always)]
    pub(crate) fn fill(self, noise: &mut Noise) {
        let (start, middle) = (self.0 as u32, (self.0 >> 32) as u32);
        for (i, word) in noise.iter_mut().enumerate() {
            let x = (i as u32).wrapping_mul(0x9e37_79b9).wrapping_add(start);
            let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
            let x = (x ^ (x >> 15) ^ middle).wrapping_mul(0x846c_a68b);
            *word = x ^ (x >> 16);
        }
    }
}
