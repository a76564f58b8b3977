//! Asking for memory ahead of its use.

const LINE: usize = 64;
/// The most that is asked for of an array at once.
const FIRST: usize = 4096;
/// How many elements ahead a kernel with codecs asks for memory.
pub(crate) const AHEAD: usize = 512;

/// Asks for the beginning of an array; what is there is not read, and need not be memory.
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
