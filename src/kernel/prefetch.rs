//! Asking for memory ahead of its use. What is there is not read, and need not be memory.

use super::lanes::ROW;

const LINE: usize = 64;
/// The most that is asked for of an array at once.
const FIRST: usize = 4096;
/// How many elements ahead a kernel with codecs asks for memory.
pub(crate) const AHEAD: usize = 512;

/// Asks for the beginning of an array.
#[inline(always)]
pub(crate) fn prefetch_first(start: *const u8, bytes: usize) {
    for line in (0..bytes.min(FIRST)).step_by(LINE) {
        prefetch(start.wrapping_add(line));
    }
}

/// Asks for a cache line.
#[inline(always)]
pub(crate) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that could be seen, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a cache line, not nearer than the second cache: the first has no room for what is worked on
/// and what comes next.
#[inline(always)]
pub(crate) fn prefetch_second(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that could be seen, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The same of a row of 16 elements.
#[inline(always)]
pub(crate) fn prefetch_row<E>(row: *const E) {
    for line in (0..ROW * size_of::<E>()).step_by(LINE) {
        prefetch_second(row.cast::<u8>().wrapping_add(line));
    }
}
