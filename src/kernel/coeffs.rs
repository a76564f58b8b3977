//! Coefficients of a kernel, in the registers that are left for them.

use super::lanes::{LaneElement, Lanes};
use pulp::Simd;

/// Aligned to a cache line: a register that lies across two takes two loads.
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// Registers that a lane function needs beside its sums and coefficients, as a rule: with 16 in all,
/// the coefficients for which none is left are operands from memory. LLVM would rather keep them and
/// spill the sums, and loads of all of them would bind the lean kernels, so this decides, and where
/// the others are is hidden from it. (Of 6 to 14, measured: worth 10 to 25 % in cache.)
const WORKING: usize = 9;

/// Coefficients, the first `keep` of which are kept in registers.
pub(super) struct Coeffs<'a, R, const COEFFS: usize> {
    kept: [R; COEFFS],
    hidden: &'a [R; COEFFS],
    keep: usize,
}

impl<'a, R: Copy, const COEFFS: usize> Coeffs<'a, R, COEFFS> {
    #[inline(always)]
    pub(super) fn new(all: &'a Aligned<[R; COEFFS]>, keep: usize) -> Self {
        Coeffs { kept: all.0, hidden: &std::hint::black_box(all).0, keep }
    }

    #[inline(always)]
    pub(super) fn get(&self) -> [R; COEFFS] {
        std::array::from_fn(|i| if i < self.keep { self.kept[i] } else { self.hidden[i] })
    }
}

/// How many coefficients are kept in registers.
pub(super) const fn kept_coeffs<S: Simd, E: LaneElement>(coeffs: usize, sums: usize) -> usize {
    if S::REGISTER_COUNT > 16 {
        return coeffs;
    }
    S::REGISTER_COUNT.saturating_sub(sums * Lanes::<S, E>::PER_ROW + WORKING)
}
