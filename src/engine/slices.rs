//! Sliced statistics: sums over every so many elements, from a copy of them in the cache.
//!
//! No kernel knows of slices. The elements of a block that count are copied side by side, the kernel
//! with sums runs on the copy, where only the statistics are the tensor's own, and then the kernel
//! without sums runs on the block.

use super::blocks::BLOCK;
use super::coded::groups_before;
use super::sweep::JobBlock;
use crate::algorithm::{MAX_SLOTS, MAX_SUMS, Role, pass};
use crate::dtype::DType;
use crate::kernel::block::GroupPlan;
use crate::kernel::isa::Token;
use crate::kernel::kept::{Coded, Kept, adopt};
use crate::kernel::lanes::ROW;
use std::mem::MaybeUninit;

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

/// Updates a block: the sums over its slice, and the parameters that have become infinite.
///
/// # Safety
/// `arrays` hold the block, statistics its slice, and nobody else uses them.
// Not inlined: the copies would be on the stack of blocks without slices too.
#[inline(never)]
pub(super) unsafe fn sweep(block: &JobBlock, arrays: &Coded) -> ([f64; MAX_SUMS], u64) {
    let JobBlock { job, plan, start, len, .. } = *block;
    let (token, plan) = (block.token(), &plan.kernel);
    let count = job.slice.before(start + len) - job.slice.before(start);
    let mut copies = MaybeUninit::<[[u64; MOST]; 2 + MAX_SLOTS]>::uninit();
    let copies: *mut [u64; MOST] = copies.as_mut_ptr().cast();
    let gather = |from: &Kept, i: usize| {
        let to = copies.wrapping_add(i).cast::<u8>();
        // SAFETY: the slice's elements lie within the block, and the copy has room for them.
        unsafe { gather(token, from, to, job.slice, (start, len)) };
        Kept::plain(to)
    };
    // SAFETY: this function's own contract.
    unsafe { adopt(token, arrays, 0, len) };
    let mut sliced = Coded {
        p: gather(&arrays.p, 0),
        copy: None,
        g: gather(&arrays.g, 1),
        moves_by_kept: false,
        // As many groups before it as exponents.
        noise: (arrays.noise.0, groups_before(job.slice, start)),
        ..*arrays
    };
    for (i, slot) in block.sweep.slots.iter().enumerate() {
        if slot.role != Role::Statistic && slot.is_read(plan.pass) {
            sliced.state[i] = if job.first {
                Kept::plain(copies.wrapping_add(2 + i).cast())
            } else {
                gather(&arrays.state[i], 2 + i)
            };
        }
    }
    let update = GroupPlan { pass: plan.pass & !pass::SUMS, ..*plan };
    // SAFETY: the copies hold `count` elements each, and so do the statistics; a pass without sums
    // reads none.
    unsafe {
        let (sums, _) = block.run_on(plan, &sliced, count);
        (sums, block.run_on(&update, arrays, len).1)
    }
}

/// Copies the elements of a slice that lie in a block side by side, as values.
///
/// # Safety
/// `from` holds the block, and `to` has room for what the slice has of it.
unsafe fn gather(token: Token, from: &Kept, to: *mut u8, slice: Slice, block: (usize, usize)) {
    let codes = from.place.codes;
    // SAFETY: this function's own contract.
    unsafe {
        match from.format.dtype {
            DType::F64 => gather_all::<u64>(codes.cast(), to.cast(), slice, block),
            DType::F32 => gather_all::<u32>(codes.cast(), to.cast(), slice, block),
            _ => {
                let mut values = [0.0; BLOCK];
                from.format.decode_all(token, from.place, &mut values[..block.1]);
                gather_all(values.as_ptr(), to.cast(), slice, block);
            }
        }
    }
}

/// # Safety
/// As [`gather`], of plain values.
unsafe fn gather_all<T>(from: *const T, to: *mut T, slice: Slice, (start, len): (usize, usize)) {
    let mut to = to;
    slice.runs(start, len, |offset, count| {
        // SAFETY: this function's own contract: `runs` stays within the block.
        unsafe { to.copy_from_nonoverlapping(from.add(offset), count) };
        to = to.wrapping_add(count);
    });
}
