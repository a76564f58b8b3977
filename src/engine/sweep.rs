//! Kernels, run over the blocks of jobs.

use super::blocks::{Plan, Sums};
use super::job::{Gradient, Job};
use super::slices;
use crate::algorithm::{MAX_SLOTS, MAX_SUMS, Slot, pass};
use crate::dtype::DType;
use crate::kernel::block::{Ahead, BLOCK, BLOCKS, Block, GroupPlan, Partial, Streams, most_blocks};
use crate::kernel::coded::CodedFn;
use crate::kernel::isa::Token;
use crate::kernel::kept::Coded;
use crate::kernel::sweep::{SweepFn, sweep_block};
use std::mem::MaybeUninit;
use std::ptr;

/// The kernels of an algorithm.
pub(crate) struct Kernels {
    pub(crate) f32: SweepFn,
    pub(crate) f64: SweepFn,
    pub(crate) coded: CodedFn,
}

/// What the blocks of a sweep have in common.
pub(crate) struct Sweep<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) token: Token,
    pub(crate) plans: &'a [Plan],
    /// The algorithm's state and number of sums.
    pub(crate) slots: &'a [Slot],
    pub(crate) sums: usize,
}

/// Blocks that one call of a kernel is to sweep, and the sums that it adds to. Blocks of small tensors
/// share a call: what a call costs, and what its end waits for, would be much of their time.
pub(super) struct Batch<'a> {
    sweep: &'a Sweep<'a>,
    into: &'a mut Sums,
    /// Of all blocks: the plan's index, and whether they are of a first step.
    of: (usize, bool),
    len: usize,
    blocks: [Block<'a>; BLOCKS],
}

impl<'a> Batch<'a> {
    pub(super) fn new(sweep: &'a Sweep<'a>, into: &'a mut Sums) -> Self {
        let streams =
            Streams { p: ptr::null_mut(), g: ptr::null(), state: [ptr::null_mut(); MAX_SLOTS] };
        let blocks = [Block { streams, len: 0, ahead: None }; BLOCKS];
        Batch { sweep, into, of: (0, false), len: 0, blocks }
    }

    /// Sweeps a part of a job, now or with what follows: the parameters that it sends to infinity.
    ///
    /// # Safety
    /// Until [`run`](Self::run) has been called, the job's arrays hold the part, which starts at a block's
    /// start, and nobody else uses that.
    #[inline]
    pub(super) unsafe fn push(
        &mut self,
        job: &'a Job,
        (start, len): (usize, usize),
        next: Option<&'a Job>,
    ) -> u64 {
        let plan = &self.sweep.plans[job.plan];
        if !plan.is_plain(job) {
            // SAFETY: this function's own contract.
            return unsafe { self.run_coded(plan, job, (start, len)) };
        }
        // Apart, since what a loop over blocks sets up costs small tensors 40 instructions.
        if len <= BLOCK {
            // SAFETY: as above.
            unsafe { self.push_block(job, (start, len), next) };
        } else {
            // SAFETY: as above.
            unsafe { self.push_blocks(job, (start, len), next) };
        }
        0
    }

    /// The same of several blocks, whose arrays are plain.
    ///
    /// # Safety
    /// As [`push`](Self::push).
    #[inline(never)]
    unsafe fn push_blocks(
        &mut self,
        job: &'a Job,
        (start, len): (usize, usize),
        next: Option<&'a Job>,
    ) {
        for at in (0..len).step_by(BLOCK) {
            let part = BLOCK.min(len - at);
            let next = next.filter(|_| at + part == len);
            // SAFETY: this function's own contract.
            unsafe { self.push_block(job, (start + at, part), next) };
        }
    }

    /// The same of a block.
    ///
    /// # Safety
    /// As [`push`](Self::push).
    #[inline(always)]
    unsafe fn push_block(
        &mut self,
        job: &'a Job,
        (start, len): (usize, usize),
        next: Option<&'a Job>,
    ) {
        if self.of != (job.plan, job.first) {
            // SAFETY: `push` was promised what `run` asks for.
            unsafe { self.run() };
            self.of = (job.plan, job.first);
        }
        // What a first step sets up is to be in the cache when it is swept.
        let most = if job.first { 1 } else { most_blocks(job.dtype.size()) };
        let ahead = match next {
            Some(next) if next.lies_apart_from(job) => {
                Some(Ahead { streams: &next.streams, len: next.len })
            }
            _ => None,
        };
        // In place: a copy would wait for what it copies to be written.
        let block = &mut self.blocks[self.len];
        job.at(start, self.sweep.slots, &mut block.streams);
        (block.len, block.ahead) = (len, ahead);
        self.len += 1;
        if self.len == most {
            // SAFETY: as above.
            unsafe { self.run() };
        }
    }

    /// Sweeps what is left.
    ///
    /// # Safety
    /// As [`push`](Self::push) has it.
    pub(super) unsafe fn run(&mut self) {
        if self.len == 0 {
            return;
        }
        let (plan, first) = (&self.sweep.plans[self.of.0], self.of.1);
        let mut partials = [[0.0; MAX_SUMS]; BLOCKS];
        let partials = &mut partials[..self.len];
        let kernel = self.sweep.kernels.of(plan.dtype.working());
        // SAFETY: this function's own contract is the kernel's.
        unsafe {
            kernel(self.sweep.token, &plan.kernel, &self.blocks[..self.len], first, partials)
        };
        self.len = 0;
        self.add(plan, partials);
    }

    /// Sweeps a part of a job whose arrays are not plain.
    ///
    /// # Safety
    /// As [`push`](Self::push).
    // Not inlined: its copies would be on every stack.
    #[inline(never)]
    unsafe fn run_coded(&mut self, plan: &Plan, job: &Job, (start, len): (usize, usize)) -> u64 {
        let (mut at, mut lost) = (0, 0);
        while at < len {
            let part = |len| JobBlock { sweep: self.sweep, plan, job, start: start + at, len };
            let mut partials = [[0.0; MAX_SUMS]; BLOCKS];
            let rest = len - at;
            let together = rest.min(BLOCKS * BLOCK);
            // SAFETY: this function's own contract.
            let (done, of_part) = unsafe {
                part(together).run_together(&mut partials).map_or_else(
                    || {
                        let (partial, lost) = part(rest.min(BLOCK)).run();
                        partials[0] = partial;
                        (rest.min(BLOCK), lost)
                    },
                    |lost| (together, lost),
                )
            };
            self.add(plan, &partials[..done.div_ceil(BLOCK)]);
            at += done;
            lost += of_part;
        }
        lost
    }

    fn add(&mut self, plan: &Plan, partials: &[Partial]) {
        let sums = self.into.iter_mut().zip(plan.weights).take(self.sweep.sums);
        for (i, (to, weight)) in sums.enumerate() {
            to.add_all(partials.iter().map(|partial| weight * partial[i]));
        }
    }
}

impl Kernels {
    /// That of f32 or f64.
    pub(super) fn of(&self, dtype: DType) -> SweepFn {
        match dtype {
            DType::F64 => self.f64,
            _ => self.f32,
        }
    }
}

impl Plan {
    /// Whether the sums are of a slice of the elements.
    fn is_sliced(&self, job: &Job) -> bool {
        !job.slice.is_whole() && self.kernel.pass & pass::SUMS != 0
    }

    /// Whether kernels work on the arrays of a job as they lie.
    fn is_plain(&self, job: &Job) -> bool {
        !job.is_coded() && !self.is_sliced(job) && !matches!(job.gradient, Gradient::KeptIn(_))
    }
}

/// A part of a job whose arrays are not [plain](Plan::is_plain), from a block's start on.
pub(super) struct JobBlock<'a> {
    pub(super) sweep: &'a Sweep<'a>,
    pub(super) plan: &'a Plan,
    pub(super) job: &'a Job,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl JobBlock<'_> {
    /// Sweeps blocks that follow each other in one call, where there is a kernel for it: the parameters that
    /// they send to infinity.
    ///
    /// # Safety
    /// As [`run`](Self::run), of the part.
    unsafe fn run_together(&self, out: &mut [Partial]) -> Option<u64> {
        let job = self.job;
        // What stands for zeros is as long as a block.
        let has_zeros = job.gradient != Gradient::Given
            || job.zeros.is_some()
            || self.plan.kernel.pass & pass::MEND != 0;
        let is_sliced = self.plan.is_sliced(job);
        if self.len <= BLOCK || has_zeros || !job.is_coded() || is_sliced || job.first {
            return None;
        }
        let (coded, kernel) = (self.sweep.kernels.coded, &self.plan.kernel);
        // SAFETY: this function's own contract is the kernel's.
        unsafe { coded(self.token(), kernel, &self.arrays(), self.len, out) }
    }

    /// Of one block: its sums, and the parameters that it sends to infinity.
    ///
    /// # Safety
    /// The job's arrays hold the block, and nobody else uses that.
    unsafe fn run(&self) -> (Partial, u64) {
        debug_assert!(self.len <= BLOCK);
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
            if self.plan.is_sliced(self.job) {
                return slices::sweep(self, &arrays);
            }
            self.run_on(&self.plan.kernel, &arrays, self.len)
        }
    }

    pub(super) fn sweep_fn(&self) -> SweepFn {
        self.sweep.kernels.of(self.job.dtype)
    }

    /// Runs the kernel of a plan on other arrays than the block's.
    ///
    /// # Safety
    /// They hold `len` elements, as they say, a block at most, and nobody else uses them.
    pub(super) unsafe fn run_on(
        &self,
        plan: &GroupPlan,
        arrays: &Coded,
        len: usize,
    ) -> (Partial, u64) {
        let (token, first) = (self.token(), self.job.first);
        // SAFETY: this function's own contract is the kernels'.
        unsafe {
            if self.job.is_coded() {
                let coded = self.sweep.kernels.coded;
                let mut out = [[0.0; MAX_SUMS]];
                if !first && let Some(lost) = coded(token, plan, arrays, len, &mut out) {
                    return (out[0], lost);
                }
                return self.decode_and_run(plan, arrays, len);
            }
            let state = arrays.state.map(|kept| kept.place.codes);
            let streams = Streams { p: arrays.p.place.codes, g: arrays.g.place.codes, state };
            (sweep_block(self.sweep_fn(), (token, plan), (streams, len), first), 0)
        }
    }

    pub(super) fn token(&self) -> Token {
        self.sweep.token
    }
}
