//! Sums over the virtual 16 lanes: the same bits whatever the width of a register.

use super::lanes::{LaneElement, Lanes, ROW};
use pulp::Simd;

/// Rows that are summed in the element type before they move on to f64. In f32 a lane's sum of 32
/// terms is off by less than 2e-6 of their absolute sum, and typically by 2e-7.
pub(crate) const RUN: usize = 32;

/// One f64 sum a lane.
pub(crate) type Wide = [f64; ROW];

/// Adds a run's sums, register by register, to the lanes they belong to.
#[inline(always)]
pub(crate) fn widen<S: Simd, E: LaneElement>(run: &[E::Reg<S>; ROW], wide: &mut Wide) {
    let mut row = [E::ZERO; ROW];
    for (register, lanes) in row.chunks_exact_mut(Lanes::<S, E>::LEN).enumerate() {
        // SAFETY: `chunks_exact_mut` gives exactly one register's worth of elements.
        unsafe { lanes.as_mut_ptr().cast::<E::Reg<S>>().write_unaligned(run[register]) };
    }
    // Left to see them, LLVM keeps the lanes of AVX-512 as scalars, through every row of the run.
    let row = if size_of::<E::Reg<S>>() == 64 { std::hint::black_box(row) } else { row };
    for lane in 0..ROW {
        wide[lane] += row[lane].to_f64();
    }
}

/// The sum of the lanes, by one fixed tree.
// Not inlined, which keeps `wide` in memory, lane by lane: left to see the tree, LLVM pairs the
// lanes for it and shuffles in every run.
#[inline(never)]
pub(crate) fn fold(wide: &Wide) -> f64 {
    let mut wide = *wide;
    let mut width = ROW / 2;
    while width > 0 {
        for lane in 0..width {
            wide[lane] += wide[lane + width];
        }
        width /= 2;
    }
    wide[0]
}
