//! A step's tensors cut into blocks: the unit of work and of partial sums.

use super::exact_sum::ExactSum;
use super::parallel::{Threads, for_each_piece};
use super::slices::{self, Slice};
use super::tiles;
use crate::algorithm::{MAX_SLOTS, MAX_SUMS, Role, Slot, pass};
use crate::dtype::DType;
use crate::kernel::ahead::{Ahead, prefetch_first};
use crate::kernel::codec::{Format, Place, TILE};
use crate::kernel::isa::Token;
use crate::kernel::scan::{finite_fn, sum_sq_fn};
use crate::kernel::sweep::{GroupPlan, MAX_LEN, Streams, SweepFn, ZEROS};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Elements of a block, counted from the start of its tensor. Partial sums, and with them every
/// bit of `d`, depend on it.
pub(crate) const BLOCK: usize = MAX_LEN;

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

/// Where the gradient of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradient {
    /// Where `streams` say.
    Given,
    /// In a state slot, which is about to be set up.
    KeptIn(usize),
    /// Nowhere any more, and 0 all over.
    Zero,
}

/// How the arrays of a job are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formats {
    /// Of the parameter that is worked on.
    pub(crate) p: DType,
    pub(crate) g: DType,
    pub(crate) state: [Format; MAX_SLOTS],
}

/// A tensor of a step: where its arrays are and what is done with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// The parameter is the master copy where there is one.
    pub(crate) streams: Streams,
    pub(crate) len: usize,
    /// What lane functions compute in: f32 or f64.
    pub(crate) dtype: DType,
    pub(crate) formats: Formats,
    /// Where and of what type the parameter is that follows its master copy.
    pub(crate) copy: Option<(*mut u8, DType)>,
    /// Whether the master copy, where there is one, holds the parameter.
    pub(crate) master_is_set: bool,
    /// Whether the step moves by state that rounding changes, and so by what it is rounded to.
    pub(crate) moves_by_kept: bool,
    /// Stands for the tensor in the noise of stochastic rounding.
    pub(crate) noise: u64,
    pub(crate) group: usize,
    /// Index into the step's plans.
    pub(crate) plan: usize,
    /// Its first gradient: its state is set up.
    pub(crate) first: bool,
    /// What statistics follow.
    pub(crate) slice: Slice,
    /// The slot that holds nothing but zeros and has no memory.
    pub(crate) zeros: Option<usize>,
    pub(crate) gradient: Gradient,
    /// Blocks of the jobs before this one.
    pub(super) blocks_before: usize,
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
    /// Until [`clear`](Jobs::clear): the arrays of the job hold `len` aligned elements of its dtype,
    /// statistics one for each element of the slice, null where the sweep's passes read nothing;
    /// those of all jobs but `g` overlap nothing, and nobody else uses them.
    pub(crate) unsafe fn push(&mut self, job: Job) {
        self.jobs.push(Job { blocks_before: self.blocks, ..job });
        self.blocks += job.len.div_ceil(BLOCK);
        self.len += job.len;
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

    /// Calls `f(job, start, len)` for the part that each job has of a range of blocks, which counts
    /// over all jobs.
    #[inline]
    fn for_parts(&self, range: Range<usize>, mut f: impl FnMut(&Job, usize, usize)) {
        // The last job that starts at or before the range; empty jobs have no blocks.
        let first = self.jobs.partition_point(|job| job.blocks_before <= range.start);
        let mut at = range.start;
        let jobs = &self.jobs[first.saturating_sub(1)..];
        for (i, job) in jobs.iter().enumerate() {
            if at >= range.end {
                return;
            }
            if let Some(next) = jobs.get(i + 1).filter(|next| next.blocks_before < range.end) {
                next.prefetch();
            }
            let start = (at - job.blocks_before) * BLOCK;
            let end = job.len.min((range.end - job.blocks_before) * BLOCK);
            if start < end {
                f(job, start, end - start);
                at = job.blocks_before + end.div_ceil(BLOCK);
            }
        }
    }

    /// Runs the kernels of the plans over every tensor and adds up the weighted sums.
    ///
    /// `sweeps` are by dtype, `slots` and `count` the algorithm's state and number of sums.
    pub(crate) fn sweep(
        &self,
        machine: &Machine,
        sweeps: impl Fn(DType) -> SweepFn + Sync,
        plans: &[Plan],
        (slots, count): (&[Slot], usize),
        into: &mut Sums,
    ) {
        self.reduce(machine, count, into, |job, start, len, sums| {
            let plan = &plans[job.plan];
            let kernel =
                Kernel { sweep: sweeps(job.dtype), token: machine.token, plan: &plan.kernel };
            // SAFETY: `push`'s caller vouched for the arrays; the block lies within them, and
            // `reduce` gives each block once.
            let partial = unsafe {
                if job.is_tiled() {
                    let noise = plan.noise ^ job.noise;
                    tiles::sweep(&kernel, noise, job, slots, (start, len), &self.overflows)
                } else {
                    job.run(&kernel, slots, job.at(start, slots), start, len)
                }
            };
            for i in 0..count {
                sums[i].add(plan.weights[i] * partial[i]);
            }
        });
    }

    /// The sum of squares of all gradients, each times its job's weight; the first of the sums.
    pub(crate) fn sum_sq(&self, machine: &Machine, weight: impl Fn(&Job) -> f64 + Sync) -> Sums {
        let mut sums = no_sums();
        self.reduce(machine, 1, &mut sums, |job, start, len, sums| {
            let g = job.g_at(start);
            // SAFETY: `push`'s caller vouched for the gradient; the block lies within it.
            let partial = unsafe { sum_sq(machine.token, job.formats.g, g, len) };
            sums[0].add(weight(job) * partial);
        });
        sums
    }

    /// Whether every gradient is finite.
    pub(crate) fn all_finite(&self, machine: &Machine) -> bool {
        let finite = AtomicBool::new(true);
        for_each_piece(machine.threads, self.blocks, self.len, |pieces| {
            for range in pieces {
                self.for_parts(range, |job, start, len| {
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

    /// Calls `block` once for every block, to add to the first `count` sums.
    fn reduce(
        &self,
        machine: &Machine,
        count: usize,
        into: &mut Sums,
        block: impl Fn(&Job, usize, usize, &mut Sums) + Sync,
    ) {
        let all = |range: Range<usize>, sums: &mut Sums| {
            self.for_parts(range, |job, start, len| {
                for at in (0..len).step_by(BLOCK) {
                    block(job, start + at, BLOCK.min(len - at), sums);
                }
            });
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

/// A kernel and what it is called with.
pub(super) struct Kernel<'a> {
    pub(super) sweep: SweepFn,
    pub(super) token: Token,
    pub(super) plan: &'a GroupPlan,
}

impl Job {
    /// A job over whole arrays, with state that is kept in full and has been set up.
    pub(crate) fn new(streams: Streams, len: usize, dtype: DType, group: usize) -> Self {
        let state = [Format::new(dtype, false); MAX_SLOTS];
        Job {
            streams,
            len,
            dtype,
            formats: Formats { p: dtype, g: dtype, state },
            copy: None,
            master_is_set: false,
            moves_by_kept: false,
            noise: 0,
            group,
            plan: 0,
            first: false,
            slice: Slice::WHOLE,
            zeros: None,
            gradient: Gradient::Given,
            blocks_before: 0,
        }
    }

    /// Whether some array is not of the type that lane functions compute in.
    #[inline]
    fn is_tiled(&self) -> bool {
        let plain = Formats { p: self.dtype, g: self.dtype, ..self.formats };
        self.copy.is_some()
            || self.formats != plain
            || self.formats.state.iter().any(|format| format.dtype != self.dtype)
    }

    /// Whether steps round the parameter, of which there is no master copy.
    pub(crate) fn rounds_parameter(&self) -> bool {
        self.copy.is_none() && self.formats.p != self.dtype
    }

    /// Asks for the beginnings of the arrays: those of small tensors each start cold.
    #[inline]
    fn prefetch(&self) {
        prefetch_first(self.streams.g, self.len * self.formats.g.size());
        prefetch_first(self.streams.p, self.len * self.formats.p.size());
        for (array, format) in self.streams.state.iter().zip(self.formats.state) {
            if !array.is_null() {
                prefetch_first(*array, self.len * format.dtype.size());
            }
        }
    }

    /// Where the parameter is as the caller has it, and its type.
    pub(crate) fn parameter(&self) -> (*const u8, DType) {
        self.copy.map_or((self.streams.p.cast_const(), self.formats.p), |(p, dtype)| {
            (p.cast_const(), dtype)
        })
    }

    /// Keeps the gradient in a slot that is as wide as what lane functions compute in.
    ///
    /// # Safety
    /// Gradient and slot are as [`Jobs::push`] says, and nobody else uses the slot.
    pub(crate) unsafe fn keep_gradient(&mut self, token: Token, slot: usize) {
        let size = self.dtype.size();
        for start in (0..self.len).step_by(TILE) {
            let (g, to) = (self.g_at(start), self.streams.state[slot].wrapping_add(start * size));
            let len = TILE.min(self.len - start);
            // SAFETY: this function's own contract.
            unsafe { decode(token, (self.formats.g, self.dtype), g, len, to, &mut Ahead::none()) };
        }
        self.formats.g = self.dtype;
        self.gradient = Gradient::KeptIn(slot);
    }

    fn g_at(&self, start: usize) -> *const u8 {
        self.streams.g.wrapping_add(start * self.formats.g.size())
    }

    /// The job's arrays from element `start` on, all of its dtype.
    #[inline]
    pub(super) fn at(&self, start: usize, slots: &[Slot]) -> Streams {
        let size = self.dtype.size();
        let Streams { p, g, mut state } = self.streams;
        if start > 0 {
            for (array, slot) in state.iter_mut().zip(slots).filter(|(array, _)| !array.is_null()) {
                let skipped = match slot.role {
                    Role::Statistic => self.slice.before(start),
                    _ => start,
                };
                *array = array.wrapping_add(skipped * size);
            }
        }
        if let Some(slot) = self.zeros {
            state[slot] = ZEROS.as_ptr().cast_mut();
        }
        Streams { p: p.wrapping_add(start * size), g: g.wrapping_add(start * size), state }
    }

    /// A kernel on one block.
    ///
    /// # Safety
    /// `streams` are [`at`](Job::at) `start`, `len` elements from there on are a block of the job's,
    /// and nobody else uses them.
    pub(super) unsafe fn run(
        &self,
        kernel: &Kernel,
        slots: &[Slot],
        mut streams: Streams,
        start: usize,
        len: usize,
    ) -> [f64; MAX_SUMS] {
        match self.gradient {
            Gradient::Given => {}
            Gradient::Zero => streams.g = ZEROS.as_ptr(),
            // SAFETY: this function's own contract.
            Gradient::KeptIn(slot) => unsafe {
                return self.run_on_kept(kernel, slots, streams, start, len, slot);
            },
        }
        if !self.slice.is_whole() && kernel.plan.pass & pass::SUMS != 0 {
            // SAFETY: this function's own contract.
            return unsafe { slices::sweep(kernel, self, slots, &streams, start, len) };
        }
        // SAFETY: this function's own contract is the kernel's.
        unsafe { (kernel.sweep)(kernel.token, kernel.plan, &streams, len, self.first) }
    }

    /// As [`run`](Job::run), with the gradient that is kept in a slot.
    ///
    /// # Safety
    /// As `run`.
    // Not inlined: the copy would be on the stack of every block.
    #[inline(never)]
    unsafe fn run_on_kept(
        &self,
        kernel: &Kernel,
        slots: &[Slot],
        streams: Streams,
        start: usize,
        len: usize,
        slot: usize,
    ) -> [f64; MAX_SUMS] {
        let mut kept = MaybeUninit::<[u64; BLOCK]>::uninit();
        let (copy, bytes) = (kept.as_mut_ptr().cast::<u8>(), len * self.dtype.size());
        // SAFETY: the slot has the block's elements, and the copy room for a block of any type.
        unsafe { copy.copy_from_nonoverlapping(streams.state[slot], bytes) };
        let job = Job { gradient: Gradient::Given, ..*self };
        // SAFETY: this function's own contract; the gradient is the copy.
        unsafe { job.run(kernel, slots, Streams { g: copy, ..streams }, start, len) }
    }
}

/// Values of a plain type, decoded from `dtype` to `to`, which is f32 or f64.
///
/// # Safety
/// `from` holds `len <= TILE` elements of `dtype` and `to` room for as many; they do not overlap, and
/// nobody uses either meanwhile.
pub(super) unsafe fn decode(
    token: Token,
    (dtype, working): (DType, DType),
    from: *const u8,
    len: usize,
    to: *mut u8,
    ahead: &mut Ahead,
) {
    // SAFETY: this function's own contract.
    unsafe {
        if dtype == working {
            return to.copy_from_nonoverlapping(from, len * dtype.size());
        }
        let place = Place { codes: from.cast_mut(), exponents: to };
        Format::new(dtype, false).decode(token, place, len, to.cast(), ahead);
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
    let mut tile = MaybeUninit::<[f32; TILE]>::uninit();
    let tile: *mut u8 = tile.as_mut_ptr().cast();
    let mut sum = 0.0;
    for start in (0..len).step_by(TILE) {
        let len = TILE.min(len - start);
        // SAFETY: this function's own contract; the tile has room for `len` elements.
        sum += unsafe {
            let g = g.add(start * dtype.size());
            decode(token, (dtype, DType::F32), g, len, tile, &mut Ahead::none());
            sum_sq_fn(DType::F32)(token, tile, len)
        };
    }
    sum
}
