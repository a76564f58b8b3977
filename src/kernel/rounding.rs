//! Stochastic rounding: noise that is a function of where it is used, and of nothing else.
//!
//! A number between two that a type can hold becomes the upper one with the probability of its
//! distance from the lower one: the mean is the number. Rounding to nearest would lose every change
//! that is smaller than half of that distance.

use super::codec::TILE;
use super::isa::Token;
use pulp::{Simd, WithSimd};

/// 16 random bits for each element of a tile.
///
/// The arrays of a tile share them, each with a mask of its own: as masks are random too, what two
/// arrays get for an element is independent.
pub(crate) type Noise = [u16; TILE];

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

/// What decides the noise of a tile: a number for seed, step and tensor, and the tile's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(step: u64, tile: usize) -> Self {
        Key(mix(step ^ mix(tile as u64)))
    }

    /// The mask of an array of that number.
    pub(crate) fn mask(self, array: usize) -> u16 {
        mix(self.0 ^ (array as u64 + 1)) as u16
    }

    /// The noise of the tile.
    pub(crate) fn fill(self, token: Token, noise: &mut Noise) {
        token.dispatch(Fill(self, noise));
    }
}

struct Fill<'a>(Key, &'a mut Noise);

impl WithSimd for Fill<'_> {
    type Output = ();

    /// A word for two elements, half a tile apart. The mixing is `lowbias32` (C. Wellons,
    /// hash-prospector, 2018), with half of the key in its middle.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Fill(Key(key), noise) = self;
        let (start, middle) = (key as u32, (key >> 32) as u32);
        let (lower, upper) = noise.split_at_mut(TILE / 2);
        for (word, (lower, upper)) in lower.iter_mut().zip(upper).enumerate() {
            let x = (word as u32).wrapping_mul(0x9e37_79b9).wrapping_add(start);
            let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
            let x = (x ^ (x >> 15) ^ middle).wrapping_mul(0x846c_a68b);
            let x = x ^ (x >> 16);
            (*lower, *upper) = (x as u16, (x >> 16) as u16);
        }
    }
}
