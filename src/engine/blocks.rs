//! A step's tensors cut into blocks: the unit of work and of partial sums.

use super::exact_sum::ExactSum;
use super::job::Job;
use super::parallel::{Threads, for_each_piece};
use super::sweep::{Batch, Sweep};
use crate::algorithm::MAX_SUMS;
use crate::dtype::DType;
pub(crate) use crate::kernel::block::BLOCK;
use crate::kernel::block::GroupPlan;
use crate::kernel::codec::{Format, GROUP, Place};
use crate::kernel::isa::Token;
use crate::kernel::scan::{finite_fn, sum_sq_fn};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What tensors of a group and type have in common in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) group: usize,
    pub(crate) dtype: DType,
    /// Steps that they have taken, where that matters.
    pub(crate) steps: u64,
    pub(crate) kernel: GroupPlan,
    /// What of the noise of stochastic rounding depends on seed and step.
    pub(crate) noise: u64,
    /// What their sums are multiplied by.
    pub(crate) weights: [f64; MAX_SUMS],
}

/// The tensors of a step.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    blocks: usize,
    len: usize,
    /// Parameters that a sweep has sent to infinity.
    pub(crate) overflows: AtomicU64,
}

/// What the blocks of a step add up to.
pub(crate) type Sums = [ExactSum; MAX_SUMS];

pub(crate) const fn no_sums() -> Sums {
    [ExactSum::ZERO; MAX_SUMS]
}

pub(crate) fn rounded(sums: &Sums) -> [f64; MAX_SUMS] {
    sums.each_ref().map(ExactSum::round)
}

pub(crate) fn merge(to: &mut Sums, sums: &Sums) {
    to.iter_mut().zip(sums).for_each(|(to, sum)| to.merge(sum));
}

/// How a step runs.
pub(crate) struct Machine<'a> {
    pub(crate) token: Token,
    pub(crate) threads: &'a Threads,
}

impl Jobs {
    /// Forgets all jobs and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
        self.blocks = 0;
        self.len = 0;
    }

    /// Where the next job is to be made.
    #[inline(always)]
    pub(crate) fn spare(&mut self) -> &mut MaybeUninit<Job> {
        if self.jobs.len() == self.jobs.capacity() {
            self.grow();
        }
        &mut self.jobs.spare_capacity_mut()[0]
    }

    /// Adds the job that was made where [`spare`](Jobs::spare) said. (Not one that is given, or made by a function:
    /// a copy would wait for what it copies to be written.)
    ///
    /// # Safety
    /// The job was made, and nothing was added or cleared since.
    ///
    /// Whenever the jobs are looked at or swept until [`clear`](Jobs::clear): the arrays of the job hold
    /// `len` aligned elements of its dtype, statistics one for each element of the slice, null where the
    /// sweep's passes read nothing; those of all jobs but `g` overlap nothing, and nobody else uses
    /// them.
    #[inline(always)]
    pub(crate) unsafe fn add_spare(&mut self) -> &mut Job {
        let count = self.jobs.len();
        // SAFETY: `spare` made sure of the capacity, and this function's own contract is that it was written.
        unsafe { self.jobs.set_len(count + 1) };
        let job = &mut self.jobs[count];
        job.blocks_before = self.blocks;
        self.blocks += job.len.div_ceil(BLOCK);
        self.len += job.len;
        job
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.jobs.reserve(1);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.jobs.iter_mut()
    }

    /// Elements of all jobs.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Calls `f(job, start, len, next)` for the part that each job has of a range of blocks, which
    /// counts over all jobs; `next` is the job that follows in the range.
    #[inline]
    fn for_parts<'a>(
        &'a self,
        range: Range<usize>,
        mut f: impl FnMut(&'a Job, usize, usize, Option<&'a Job>),
    ) {
        // The last job that starts at or before the range; empty jobs have no blocks.
        let first = self.jobs.partition_point(|job| job.blocks_before <= range.start);
        let mut at = range.start;
        let jobs = &self.jobs[first.saturating_sub(1)..];
        for (i, job) in jobs.iter().enumerate() {
            if at >= range.end {
                return;
            }
            let start = (at - job.blocks_before) * BLOCK;
            let end = job.len.min((range.end - job.blocks_before) * BLOCK);
            if start < end {
                let next = jobs.get(i + 1).filter(|next| next.blocks_before < range.end);
                f(job, start, end - start, next);
                at = job.blocks_before + end.div_ceil(BLOCK);
            }
        }
    }

    /// Runs the kernels of the plans over every tensor and adds up the weighted sums.
    pub(crate) fn sweep(&self, threads: &Threads, sweep: &Sweep, into: &mut Sums) {
        self.reduce(threads, sweep.sums, into, |range, sums| {
            let mut batch = Batch::new(sweep, sums);
            self.for_parts(range, |job, start, len, next| {
                // SAFETY: `add_spare`'s caller vouched for the arrays, and `reduce` gives each block once.
                let lost = unsafe { batch.push(job, (start, len), next) };
                if lost > 0 {
                    self.overflows.fetch_add(lost, Ordering::Relaxed);
                }
            });
            // SAFETY: as above.
            unsafe { batch.run() };
        });
    }

    /// The sum of squares of all gradients, each times its job's weight; the first of the sums.
    pub(crate) fn sum_sq(&self, machine: &Machine, weight: impl Fn(&Job) -> f64 + Sync) -> Sums {
        let mut sums = no_sums();
        self.reduce(machine.threads, 1, &mut sums, |range, sums| {
            self.for_parts(range, |job, start, len, _| {
                for at in (0..len).step_by(BLOCK) {
                    let g = job.g_at(start + at);
                    // SAFETY: `add_spare`'s caller vouched for the gradient; the block lies within it.
                    let partial =
                        unsafe { sum_sq(machine.token, job.formats.g, g, BLOCK.min(len - at)) };
                    sums[0].add(weight(job) * partial);
                }
            });
        });
        sums
    }

    /// Whether every gradient is finite.
    pub(crate) fn all_finite(&self, machine: &Machine) -> bool {
        let finite = AtomicBool::new(true);
        for_each_piece(machine.threads, self.blocks, self.len, |pieces| {
            for range in pieces {
                self.for_parts(range, |job, start, len, _| {
                    let g = job.g_at(start);
                    // SAFETY: `add_spare`'s caller vouched for the gradient; the part lies within it.
                    if unsafe { finite_fn(job.formats.g)(machine.token, g, len) } != 0.0 {
                        finite.store(false, Ordering::Relaxed);
                    }
                });
            }
        });
        finite.into_inner()
    }

    /// Calls `all(range, sums)` for ranges that together have every block once, to add to the first
    /// `count` sums.
    fn reduce(
        &self,
        threads: &Threads,
        count: usize,
        into: &mut Sums,
        all: impl Fn(Range<usize>, &mut Sums) + Sync,
    ) {
        let total = Mutex::new(into);
        for_each_piece(threads, self.blocks, self.len, |pieces| {
            let lock = || total.lock().expect("no panic while the lock is held");
            if let Some(range) = pieces.alone() {
                return all(range, &mut lock());
            }
            let mut sums = no_sums();
            pieces.for_each(|range| all(range, &mut sums));
            for (total, sum) in lock().iter_mut().zip(&sums).take(count) {
                total.merge(sum);
            }
        });
    }
}

/// Values of a plain type, decoded from `dtype` to `to`, which is f32 or f64.
///
/// # Safety
/// `from` holds `len` elements of `dtype` and `to` room for as many, in aligned memory; they do not
/// overlap, and nobody uses either meanwhile.
pub(super) unsafe fn decode(
    token: Token,
    (dtype, working): (DType, DType),
    from: *const u8,
    len: usize,
    to: *mut u8,
) {
    // SAFETY: this function's own contract; zeros are numbers.
    unsafe {
        if dtype == working {
            return to.copy_from_nonoverlapping(from, len * dtype.size());
        }
        let place = Place { codes: from.cast_mut(), exponents: to };
        to.write_bytes(0, len * size_of::<f32>());
        let to = slice::from_raw_parts_mut(to.cast(), len);
        Format::new(dtype, false).decode_all(token, place, to);
    }
}

/// The sum of squares of a block of a gradient of any type, formed in f64.
///
/// # Safety
/// `g` holds `len` elements of `dtype`, which nobody writes meanwhile.
unsafe fn sum_sq(token: Token, dtype: DType, g: *const u8, len: usize) -> f64 {
    if dtype == dtype.working() {
        // SAFETY: this function's own contract.
        return unsafe { sum_sq_fn(dtype)(token, g, len) };
    }
    let mut values = [0.0; GROUP];
    let mut sum = 0.0;
    for start in (0..len).step_by(GROUP) {
        let values = &mut values[..GROUP.min(len - start)];
        let codes = g.cast_mut().wrapping_add(start * dtype.size());
        let from = Place { codes, exponents: codes };
        // SAFETY: this function's own contract.
        sum += unsafe {
            Format::new(dtype, false).decode_all(token, from, values);
            sum_sq_fn(DType::F32)(token, values.as_ptr().cast(), values.len())
        };
    }
    sum
}
