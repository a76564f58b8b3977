//! A step's tensors cut into blocks: the unit of work and of partial sums.

use super::exact_sum::ExactSum;
use super::parallel::{Threads, for_each_piece};
use crate::algorithm::{MAX_SLOTS, MAX_SUMS};
use crate::dtype::DType;
use crate::kernel::isa::Token;
use crate::kernel::scan::{finite_fn, sum_sq_fn};
use crate::kernel::sweep::{GroupPlan, Streams, SweepFn};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Elements of a block, counted from the start of its tensor. Partial sums, and with them every
/// bit of `d`, depend on it.
pub(crate) const BLOCK: usize = 4096;

/// A tensor of a step: where its arrays are and what is done with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) streams: Streams,
    pub(crate) len: usize,
    pub(crate) dtype: DType,
    /// Index into the step's plans.
    pub(crate) group: usize,
    /// Its first gradient: state that starts as the parameter is set.
    pub(crate) first: bool,
    /// Blocks of the jobs before this one.
    blocks_before: usize,
}

// SAFETY: a job is a set of pointers that `Jobs::push`'s caller vouched for: nobody else uses what
// they point to, and blocks handed to different threads are disjoint.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// The tensors of a step.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    blocks: usize,
    len: usize,
}

/// What the blocks of a step add up to.
pub(crate) type Sums = [ExactSum; MAX_SUMS];

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

    /// # Safety
    /// Until [`clear`](Jobs::clear): the arrays of `streams` hold `len` aligned elements of
    /// `dtype`, those of all jobs but `g` overlap nothing, and nobody else uses them.
    pub(crate) unsafe fn push(
        &mut self,
        streams: Streams,
        len: usize,
        dtype: DType,
        group: usize,
        first: bool,
    ) {
        self.jobs.push(Job { streams, len, dtype, group, first, blocks_before: self.blocks });
        self.blocks += len.div_ceil(BLOCK);
        self.len += len;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter()
    }

    /// Elements of all jobs.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Calls `f(job, start, len)` for the part that each job has of a range of blocks, which counts
    /// over all jobs.
    fn for_parts(&self, range: Range<usize>, mut f: impl FnMut(&Job, usize, usize)) {
        // The last job that starts at or before the range; empty jobs have no blocks.
        let first = self.jobs.partition_point(|job| job.blocks_before <= range.start);
        for job in &self.jobs[first.saturating_sub(1)..] {
            if job.blocks_before >= range.end {
                return;
            }
            let start = range.start.saturating_sub(job.blocks_before) * BLOCK;
            let end = job.len.min((range.end - job.blocks_before) * BLOCK);
            if start < end {
                f(job, start, end - start);
            }
        }
    }

    /// Updates every tensor and returns the weighted sums.
    ///
    /// `plans` and `weights` are by group; `sweeps` by dtype.
    pub(crate) fn sweep(
        &self,
        machine: &Machine,
        sweeps: impl Fn(DType) -> SweepFn + Sync,
        plans: &[(GroupPlan, [f64; MAX_SUMS])],
        count: usize,
    ) -> Sums {
        self.reduce(machine, count, |job, start, len, sums| {
            let (plan, weights) = &plans[job.group];
            let streams = job.at(start);
            // SAFETY: `push`'s caller vouched for the arrays; the block lies within them, and
            // `reduce` gives each block once.
            let partial =
                unsafe { sweeps(job.dtype)(machine.token, plan, &streams, len, job.first) };
            for i in 0..count {
                sums[i].add(weights[i] * partial[i]);
            }
        })
    }

    /// The sum of squares of all gradients, each times its job's weight.
    pub(crate) fn sum_sq(&self, machine: &Machine, weight: impl Fn(&Job) -> f64 + Sync) -> f64 {
        let sums = self.reduce(machine, 1, |job, start, len, sums| {
            let g = job.at(start).g;
            // SAFETY: `push`'s caller vouched for the gradient; the block lies within it.
            let partial = unsafe { sum_sq_fn(job.dtype)(machine.token, g, len) };
            sums[0].add(weight(job) * partial);
        });
        sums[0].round()
    }

    /// Whether every gradient is finite.
    pub(crate) fn all_finite(&self, machine: &Machine) -> bool {
        let finite = AtomicBool::new(true);
        for_each_piece(machine.threads, self.blocks, self.len, |pieces| {
            for range in pieces {
                self.for_parts(range, |job, start, len| {
                    let g = job.at(start).g;
                    // SAFETY: `push`'s caller vouched for the gradient; the part lies within it.
                    if unsafe { finite_fn(job.dtype)(machine.token, g, len) } != 0.0 {
                        finite.store(false, Ordering::Relaxed);
                    }
                });
            }
        });
        finite.into_inner()
    }

    /// Calls `block` once for every block and adds up what it adds to the first `count` sums.
    fn reduce(
        &self,
        machine: &Machine,
        count: usize,
        block: impl Fn(&Job, usize, usize, &mut Sums) + Sync,
    ) -> Sums {
        let total = Mutex::new([ExactSum::ZERO; MAX_SUMS]);
        for_each_piece(machine.threads, self.blocks, self.len, |pieces| {
            let mut sums = [ExactSum::ZERO; MAX_SUMS];
            for range in pieces {
                self.for_parts(range, |job, start, len| {
                    for at in (0..len).step_by(BLOCK) {
                        block(job, start + at, BLOCK.min(len - at), &mut sums);
                    }
                });
            }
            let mut total = total.lock().expect("no panic while the lock is held");
            for (total, sum) in total.iter_mut().zip(&sums).take(count) {
                total.merge(sum);
            }
        });
        total.into_inner().expect("no panic while the lock is held")
    }
}

impl Job {
    /// The job's arrays from element `start` on.
    fn at(&self, start: usize) -> Streams {
        let bytes = start * self.dtype.size();
        let mut state = [std::ptr::null_mut(); MAX_SLOTS];
        for (to, from) in state.iter_mut().zip(self.streams.state) {
            if !from.is_null() {
                *to = from.wrapping_add(bytes);
            }
        }
        Streams {
            p: self.streams.p.wrapping_add(bytes),
            g: self.streams.g.wrapping_add(bytes),
            state,
        }
    }
}
