//! Asking for memory ahead of its use.
//!
//! Tiles are decoded and encoded array by array, which is more than the processor foresees, and a
//! burst of requests for a whole tile would stand in its own way. So the codecs ask for a few lines
//! of the next tile with every group of elements of this one.

const LINE: usize = 64;
/// Lines that are asked for at once.
const LINES: usize = 8;
const MAX_ARRAYS: usize = 10;

/// Arrays that are needed soon.
#[derive(Debug)]
pub(crate) struct Ahead {
    arrays: [(*const u8, usize); MAX_ARRAYS],
    count: usize,
}

impl Ahead {
    /// Of no array.
    pub(crate) const fn none() -> Self {
        Ahead { arrays: [(std::ptr::null(), 0); MAX_ARRAYS], count: 0 }
    }

    /// Adds an array; what is there is not read, and need not be memory.
    pub(crate) fn push(&mut self, start: *const u8, bytes: usize) {
        if self.count < MAX_ARRAYS {
            self.arrays[self.count] = (start, bytes);
            self.count += 1;
        }
    }

    /// Asks for some more.
    #[inline(always)]
    pub(crate) fn fetch(&mut self) {
        let Some((start, bytes)) = self.arrays[..self.count].last_mut() else { return };
        for line in 0..LINES {
            prefetch(start.wrapping_add(line * LINE));
        }
        *start = start.wrapping_add(LINES * LINE);
        *bytes = bytes.saturating_sub(LINES * LINE);
        self.count -= usize::from(*bytes == 0);
    }
}

/// The most that is asked for of an array at once.
const FIRST: usize = 4096;

/// Asks for the beginning of an array.
#[inline(always)]
pub(crate) fn prefetch_first(start: *const u8, bytes: usize) {
    for line in (0..bytes.min(FIRST)).step_by(LINE) {
        prefetch(start.wrapping_add(line));
    }
}

#[inline(always)]
fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that could be seen, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
