//! A step's tensors cut into blocks: the unit of work and of partial sums.

use super::exact_sum::ExactSum;
use super::job::{Gradient, Job};
use super::parallel::{Threads, for_each_piece};
use super::slices;
use crate::algorithm::{MAX_SUMS, Slot, pass};
use crate::dtype::DType;
pub(crate) use crate::kernel::block::BLOCK;
use crate::kernel::block::{Ahead, BLOCKS, GroupPlan, Partial, Streams, ZEROS, most_blocks};
use crate::kernel::codec::{Format, GROUP, Place};
use crate::kernel::coded::CodedFn;
use crate::kernel::isa::Token;
use crate::kernel::kept::Coded;
use crate::kernel::scan::{finite_fn, sum_sq_fn};
use crate::kernel::sweep::{SweepFn, sweep_block};
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

    /// # Safety
    /// Whenever the jobs are looked at or swept until [`clear`](Jobs::clear): the arrays of the job hold
    /// `len` aligned elements of its dtype, statistics one for each element of the slice, null where the
    /// sweep's passes read nothing; those of all jobs but `g` overlap nothing, and nobody else uses
    /// them.
    #[inline]
    pub(crate) unsafe fn push(&mut self, mut job: Job) {
        (job.is_coded, job.blocks_before) = (job.is_coded(), self.blocks);
        self.blocks += job.len.div_ceil(BLOCK);
        self.len += job.len;
        self.jobs.push(job);
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
    fn for_parts(&self, range: Range<usize>, mut f: impl FnMut(&Job, usize, usize, Option<&Job>)) {
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
    ///
    /// `slots` and `count` are the algorithm's state and number of sums.
    pub(crate) fn sweep(
        &self,
        machine: &Machine,
        kernels: &Kernels,
        plans: &[Plan],
        (slots, count): (&[Slot], usize),
        into: &mut Sums,
    ) {
        self.reduce(machine, count, into, |job, (start, len), next, sums| {
            let plan = &plans[job.plan];
            let most = BLOCK * if plan.takes_many(job) { most_blocks(job.dtype.size()) } else { 1 };
            for at in (0..len).step_by(most) {
                let next = next.filter(|_| at + most >= len);
                let (start, len) = (start + at, most.min(len - at));
                let token = machine.token;
                let blocks = Blocks { kernels, token, plan, slots, job, start, len, next };
                let mut partials = [[0.0; MAX_SUMS]; BLOCKS];
                let partials = &mut partials[..len.div_ceil(BLOCK)];
                // SAFETY: `push`'s caller vouched for the arrays; the blocks lie within them, and
                // `reduce` gives each once.
                let lost = unsafe { blocks.run(partials) };
                if lost > 0 {
                    self.overflows.fetch_add(lost, Ordering::Relaxed);
                }
                for partial in partials {
                    for i in 0..count {
                        sums[i].add(plan.weights[i] * partial[i]);
                    }
                }
            }
        });
    }

    /// The sum of squares of all gradients, each times its job's weight; the first of the sums.
    pub(crate) fn sum_sq(&self, machine: &Machine, weight: impl Fn(&Job) -> f64 + Sync) -> Sums {
        let mut sums = no_sums();
        self.reduce(machine, 1, &mut sums, |job, (start, len), _, sums| {
            for at in (0..len).step_by(BLOCK) {
                let g = job.g_at(start + at);
                // SAFETY: `push`'s caller vouched for the gradient; the block lies within it.
                let partial =
                    unsafe { sum_sq(machine.token, job.formats.g, g, BLOCK.min(len - at)) };
                sums[0].add(weight(job) * partial);
            }
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
                    // SAFETY: `push`'s caller vouched for the gradient; the part lies within it.
                    if unsafe { finite_fn(job.formats.g)(machine.token, g, len) } != 0.0 {
                        finite.store(false, Ordering::Relaxed);
                    }
                });
            }
        });
        finite.into_inner()
    }

    /// Calls `part(job, place, next, sums)` for parts that together have every block once, to add to the first
    /// `count` sums; `next` is the job that follows.
    fn reduce(
        &self,
        machine: &Machine,
        count: usize,
        into: &mut Sums,
        part: impl Fn(&Job, (usize, usize), Option<&Job>, &mut Sums) + Sync,
    ) {
        let all = |range: Range<usize>, sums: &mut Sums| {
            self.for_parts(range, |job, start, len, next| part(job, (start, len), next, sums));
        };
        let total = Mutex::new(into);
        for_each_piece(machine.threads, self.blocks, self.len, |pieces| {
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

/// The kernels of an algorithm.
pub(crate) struct Kernels {
    pub(crate) f32: SweepFn,
    pub(crate) f64: SweepFn,
    pub(crate) coded: CodedFn,
}

impl Plan {
    /// Whether the sums are of a slice of the elements.
    fn is_sliced(&self, job: &Job) -> bool {
        !job.slice.is_whole() && self.kernel.pass & pass::SUMS != 0
    }

    /// Whether a call may have several blocks of a job: where kernels work on its arrays as they lie.
    fn takes_many(&self, job: &Job) -> bool {
        let plain = !job.is_coded && !self.is_sliced(job) && !job.first && job.zeros.is_none();
        plain && !matches!(job.gradient, Gradient::KeptIn(_) | Gradient::Zero)
    }
}

/// Blocks of a job and what is done with them: one, unless the plan [takes many](Plan::takes_many).
pub(super) struct Blocks<'a> {
    kernels: &'a Kernels,
    token: Token,
    pub(super) plan: &'a Plan,
    pub(super) slots: &'a [Slot],
    pub(super) job: &'a Job,
    pub(super) start: usize,
    pub(super) len: usize,
    /// What is swept next, if it is another job.
    next: Option<&'a Job>,
}

impl Blocks<'_> {
    /// Writes the sums of each: the parameters that it sends to infinity.
    ///
    /// # Safety
    /// The job's arrays hold the blocks, and nobody else uses that.
    unsafe fn run(&self, sums: &mut [Partial]) -> u64 {
        let job = self.job;
        let sliced = self.plan.is_sliced(job);
        if job.is_coded || sliced || matches!(job.gradient, Gradient::KeptIn(_)) {
            // SAFETY: this function's own contract.
            let (partial, lost) = unsafe { self.run_coded(sliced) };
            sums[0] = partial;
            return lost;
        }
        let mut streams = job.at(self.start, self.slots);
        if job.gradient == Gradient::Zero {
            streams.g = ZEROS.as_ptr();
        }
        let next = self.next.filter(|next| !next.is_coded && next.dtype == job.dtype);
        let ahead = next.map(|next| Ahead { streams: &next.streams, len: next.len });
        let (kernel, len) = (&self.plan.kernel, self.len);
        // SAFETY: this function's own contract is the kernel's.
        unsafe { self.sweep_fn()(self.token, kernel, &streams, len, job.first, ahead, sums) };
        0
    }

    /// # Safety
    /// As [`run`](Self::run).
    // Not inlined: the copy would be on the stack of every block.
    #[inline(never)]
    unsafe fn run_coded(&self, sliced: bool) -> ([f64; MAX_SUMS], u64) {
        if let Some(next) = self.next {
            next.prefetch();
        }
        let mut copy = MaybeUninit::<[u64; BLOCK]>::uninit();
        let mut arrays = self.arrays();
        if let Gradient::KeptIn(slot) = self.job.gradient {
            // The slot is set up.
            let (copy, bytes) = (copy.as_mut_ptr().cast::<u8>(), self.len * self.job.dtype.size());
            let kept = &mut arrays.state[slot].place;
            // SAFETY: this function's own contract; the copy has room for a block of any type.
            unsafe { copy.copy_from_nonoverlapping(kept.codes, bytes) };
            arrays.g.place.codes = copy;
        }
        // SAFETY: this function's own contract.
        unsafe {
            if sliced {
                return slices::sweep(self, &arrays);
            }
            self.run_on(&self.plan.kernel, &arrays, self.len)
        }
    }

    pub(super) fn sweep_fn(&self) -> SweepFn {
        match self.job.dtype {
            DType::F64 => self.kernels.f64,
            _ => self.kernels.f32,
        }
    }

    /// Runs the kernel of a plan on other arrays than the block's.
    ///
    /// # Safety
    /// They hold `len` elements, as they say, and nobody else uses them.
    pub(super) unsafe fn run_on(
        &self,
        plan: &GroupPlan,
        arrays: &Coded,
        len: usize,
    ) -> ([f64; MAX_SUMS], u64) {
        let first = self.job.first;
        // SAFETY: this function's own contract is the kernels'.
        unsafe {
            if self.job.is_coded {
                if !first && let Some(sums) = (self.kernels.coded)(self.token, plan, arrays, len) {
                    return sums;
                }
                return self.decode_and_run(plan, arrays, len);
            }
            let state = arrays.state.map(|kept| kept.place.codes);
            let streams = Streams { p: arrays.p.place.codes, g: arrays.g.place.codes, state };
            (sweep_block(self.sweep_fn(), (self.token, plan), (&streams, len), first), 0)
        }
    }

    pub(super) fn token(&self) -> Token {
        self.token
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
