//! Sliced statistics: sums over every so many elements, from a copy of them in the cache.
//!
//! No kernel knows of slices. The elements of a block that count are copied side by side, the kernel
//! with sums runs on the copy, where only the statistics are the tensor's own, and then the kernel
//! without sums runs on the block.

use super::blocks::{BLOCK, Job, Kernel};
use crate::algorithm::{MAX_SLOTS, MAX_SUMS, Role, Slot, pass};
use crate::dtype::DType;
use crate::kernel::sweep::{GroupPlan, Streams};
use std::mem::MaybeUninit;
use std::ptr;

/// The most elements of a block that count, a slice being of every second element at least.
const MOST: usize = BLOCK / 2;

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
    let offset = start.next_multiple_of(job.slice) - start;
    let count = len.saturating_sub(offset).div_ceil(job.slice);
    let mut copies = MaybeUninit::<[[u64; MOST]; 2 + MAX_SLOTS]>::uninit();
    let copies: *mut [u64; MOST] = copies.as_mut_ptr().cast();
    let copy = |i: usize| copies.wrapping_add(i).cast::<u8>();
    let (p, g) = (copy(0), copy(1));
    let gather = |from: *const u8, to: *mut u8| {
        // SAFETY: `count` elements, `slice` apart from `offset` on, lie within the block, and the copy
        // has room for them.
        unsafe {
            match job.dtype {
                DType::F32 => gather::<u32>(from.cast(), to.cast(), offset, job.slice, count),
                DType::F64 => gather::<u64>(from.cast(), to.cast(), offset, job.slice, count),
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

/// # Safety
/// `from` holds `count` elements, `stride` apart, from `offset` on, and `to` has room for them.
unsafe fn gather<T: Copy>(from: *const T, to: *mut T, offset: usize, stride: usize, count: usize) {
    for i in 0..count {
        // SAFETY: this function's own contract.
        unsafe { to.add(i).write(from.add(offset + i * stride).read()) };
    }
}
