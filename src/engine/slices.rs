//! Sliced statistics: sums over every so many elements, from a copy of them in the cache.
//!
//! No kernel knows of slices. The elements of a block that count are copied side by side, the kernel
//! with sums runs on the copy, where only the statistics are the tensor's own, and then the kernel
//! without sums runs on the block.

use super::blocks::{BLOCK, Job, Kernel};
use crate::algorithm::{MAX_SLOTS, MAX_SUMS, Role, Slot, pass};
use crate::dtype::DType;
use crate::kernel::lanes::ROW;
use crate::kernel::sweep::{GroupPlan, Streams};
use std::mem::MaybeUninit;
use std::ptr;

/// The most elements of a block that count, a slice being of every second element at least.
const MOST: usize = BLOCK / 2;

/// Which elements statistics follow: runs of so many elements, every so many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    every: usize,
    run: usize,
}

impl Slice {
    /// All elements.
    pub(crate) const WHOLE: Slice = Slice { every: 1, run: 1 };

    /// Every so many elements or, `by_line`, cache lines of f32.
    pub(crate) fn new(every: usize, by_line: bool) -> Self {
        Slice { every, run: if by_line && every > 1 { ROW } else { 1 } }
    }

    pub(crate) fn is_whole(self) -> bool {
        self.every == 1
    }

    /// How many of the first elements of a tensor count.
    #[inline]
    pub(crate) fn before(self, elements: usize) -> usize {
        if self.every == 1 {
            return elements;
        }
        let period = self.every.saturating_mul(self.run);
        elements / period * self.run + (elements % period).min(self.run)
    }

    /// Calls `f(offset, len)` for the runs of a slice that lie in a block, offsets from its start.
    fn runs(self, start: usize, len: usize, mut f: impl FnMut(usize, usize)) {
        let period = self.every.saturating_mul(self.run);
        let into = start % period;
        let mut at = if into < self.run { 0 } else { period - into };
        let mut end = if into < self.run { self.run - into } else { at + self.run };
        while at < len {
            f(at, end.min(len) - at);
            end = end.saturating_add(period);
            at = end - self.run;
        }
    }
}

/// Updates a block and returns the sums over its slice.
///
/// # Safety
/// `streams` hold the `len` elements of the job's block from `start` on, of its dtype, statistics
/// those of its slice, and nobody else uses them.
// Not inlined: the copies would be on the stack of blocks without slices too.
#[inline(never)]
pub(super) unsafe fn sweep(
    kernel: &Kernel,
    job: &Job,
    slots: &[Slot],
    streams: &Streams,
    start: usize,
    len: usize,
) -> [f64; MAX_SUMS] {
    let count = job.slice.before(start + len) - job.slice.before(start);
    let mut copies = MaybeUninit::<[[u64; MOST]; 2 + MAX_SLOTS]>::uninit();
    let copies: *mut [u64; MOST] = copies.as_mut_ptr().cast();
    let copy = |i: usize| copies.wrapping_add(i).cast::<u8>();
    let (p, g) = (copy(0), copy(1));
    let gather = |from: *const u8, to: *mut u8| {
        // SAFETY: the slice's elements lie within the block, and the copy has room for them.
        unsafe {
            match job.dtype {
                DType::F64 => gather::<u64>(from.cast(), to.cast(), job.slice, start, len),
                _ => gather::<u32>(from.cast(), to.cast(), job.slice, start, len),
            }
        }
    };
    gather(streams.p, p);
    gather(streams.g, g);
    let mut state = [ptr::null_mut(); MAX_SLOTS];
    for (i, slot) in slots.iter().enumerate() {
        if slot.role == Role::Statistic {
            state[i] = streams.state[i];
        } else if slot.is_read(kernel.plan.pass) {
            state[i] = copy(2 + i);
            if !job.first {
                gather(streams.state[i], state[i]);
            }
        }
    }
    let sliced = Streams { p, g, state };
    // SAFETY: the copies hold `count` elements each, and so do the statistics.
    let sums = unsafe { (kernel.sweep)(kernel.token, kernel.plan, &sliced, count, job.first) };
    let update = GroupPlan { pass: kernel.plan.pass & !pass::SUMS, ..*kernel.plan };
    // SAFETY: this function's own contract; a pass without sums reads no statistics.
    unsafe { (kernel.sweep)(kernel.token, &update, streams, len, job.first) };
    sums
}

/// Copies the elements of a slice that lie in a block side by side.
///
/// # Safety
/// `from` holds the `len` elements of a block that starts at `start`, and `to` has room for those of
/// the slice.
unsafe fn gather<T: Copy>(from: *const T, to: *mut T, slice: Slice, start: usize, len: usize) {
    let mut to = to;
    slice.runs(start, len, |offset, count| {
        // SAFETY: this function's own contract: `runs` stays within the block.
        unsafe { to.copy_from_nonoverlapping(from.add(offset), count) };
        to = to.wrapping_add(count);
    });
}
