//! Blocks that are not all of f32: decoded tile by tile, swept, and encoded again.
//!
//! A tile is short enough for its f32 copies to stay in the first cache, so that memory sees each
//! array once, as it is kept. Kernels see f32 and know nothing of it; arrays of f32 are not copied.
//!
//! Where the step moves by state that rounding changes, it moves by what the state is rounded to, so
//! that a second sweep, which reads it, agrees: first the kernel that leaves the parameter alone, then
//! the state is encoded and decoded, then the kernel that moves the parameter by it.

use super::blocks::{Gradient, Job, Kernel, decode};
use crate::algorithm::{Init, MAX_SLOTS, MAX_SUMS, Role, Slot, pass};
use crate::dtype::DType;
use crate::kernel::ahead::Ahead;
use crate::kernel::codec::{Format, GROUP, Place, Rounding, TILE, infinities};
use crate::kernel::isa::Token;
use crate::kernel::rounding::{Key, Noise};
use crate::kernel::sweep::{GroupPlan, Streams, ZEROS};
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// Copies of a parameter, a gradient and state, which do not start at one offset in their pages: a
/// load would wait for an earlier store to another of them.
const BUFFERS: usize = 2 + MAX_SLOTS;
const STRIDE: usize = TILE + 160;

/// Memory for them, aligned to a cache line.
#[repr(align(64))]
struct Buffers {
    values: [f32; BUFFERS * STRIDE],
    noise: Noise,
}

/// Parameters number their noise after all state.
const PARAMETER: usize = MAX_SLOTS;

/// A block, tile by tile: its sums.
///
/// # Safety
/// The job's arrays hold the `len` elements of a block from `start` on, and nobody else uses those.
// Not inlined: the tiles would be on the stack of other blocks too.
#[inline(never)]
pub(super) unsafe fn sweep(
    kernel: &Kernel,
    noise: u64,
    job: &Job,
    slots: &[Slot],
    (start, len): (usize, usize),
    overflows: &AtomicU64,
) -> [f64; MAX_SUMS] {
    let mut buffers = MaybeUninit::<Buffers>::uninit();
    let buffers = buffers.as_mut_ptr();
    let mut sums = [0.0; MAX_SUMS];
    for at in (start..start + len).step_by(TILE) {
        let len = TILE.min(start + len - at);
        let ahead = Ahead::none();
        let mut tile =
            Tile { kernel, noise, job, slots, start: at, len, buffers, noisy: false, ahead };
        // SAFETY: this function's own contract; tiles lie within the block, and the buffers are ours.
        let partial = unsafe { tile.sweep(overflows) };
        sums.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
    }
    sums
}

/// A tile, with memory for its copies.
struct Tile<'a> {
    kernel: &'a Kernel<'a>,
    noise: u64,
    job: &'a Job,
    slots: &'a [Slot],
    start: usize,
    len: usize,
    buffers: *mut Buffers,
    /// Whether the noise of the tile is there.
    noisy: bool,
    ahead: Ahead,
}

impl Tile<'_> {
    /// # Safety
    /// The job's arrays hold the tile's elements, and the buffers theirs; nobody else uses either.
    unsafe fn sweep(&mut self, overflows: &AtomicU64) -> [f64; MAX_SUMS] {
        let passes = self.kernel.plan.pass;
        self.look_ahead(passes);
        let both = pass::STATE | pass::PARAMETER;
        // SAFETY: this function's own contract, of all that follows.
        unsafe {
            let g = self.gradient();
            let p = self.parameter();
            let mut streams = Streams { p, g, state: [ptr::null_mut(); MAX_SLOTS] };
            self.read_state(&mut streams, passes, self.job.first);
            let sums = if self.job.moves_by_kept && passes & both == both {
                let sums = self.run(&streams, passes & !pass::PARAMETER, self.job.first);
                self.write_state(&streams, passes);
                let step = passes & (pass::PARAMETER | pass::MOMENT);
                self.read_state(&mut streams, step, false);
                self.run(&streams, step, false);
                sums
            } else {
                let sums = self.run(&streams, passes, self.job.first);
                self.write_state(&streams, passes);
                sums
            };
            if passes & (pass::PARAMETER | pass::MEND) != 0 {
                self.write_parameter(&streams, overflows);
            }
            sums
        }
    }

    /// The arrays of the next tile.
    fn look_ahead(&mut self, passes: u8) {
        let Job { streams, formats, copy, .. } = self.job;
        let next = |array: *const u8, size: usize, before: usize, count: usize| {
            (array.wrapping_add((before + count) * size), count * size)
        };
        let mut push = |(start, bytes)| self.ahead.push(start, bytes);
        for (i, slot) in self.slots.iter().enumerate() {
            if slot.is_read(passes) && !self.job.first && self.job.zeros != Some(i) {
                let count = elements(self.job, slot, self.start, self.len);
                let before = elements(self.job, slot, 0, self.start);
                push(next(streams.state[i], formats.state[i].dtype.size(), before, count));
            }
        }
        let (start, len) = (self.start, self.len);
        if let Some((copy, dtype)) = copy {
            push(next(copy.cast_const(), dtype.size(), start, len));
        }
        push(next(streams.p, formats.p.size(), start, len));
        push(next(streams.g, formats.g.size(), start, len));
    }

    fn token(&self) -> Token {
        self.kernel.token
    }

    fn buffer(&self, i: usize) -> *mut f32 {
        // SAFETY: the place of a field, which is not read.
        let values = unsafe { &raw mut (*self.buffers).values };
        values.cast::<f32>().wrapping_add(i * STRIDE)
    }

    /// Noise of stochastic rounding for an array of that number.
    ///
    /// # Safety
    /// As [`sweep`](Self::sweep).
    unsafe fn stochastic(&mut self, array: usize) -> Rounding<'static> {
        let key = Key::new(self.noise, self.start / TILE);
        // SAFETY: the buffers are this tile's own, and outlive it; zeros are noise of a kind, and
        // nobody holds on to it while it is filled.
        let noise = unsafe {
            let noise = &raw mut (*self.buffers).noise;
            if !self.noisy {
                noise.write_bytes(0, 1);
            }
            &mut *noise
        };
        if !self.noisy {
            key.fill(self.token(), noise);
            self.noisy = true;
        }
        Rounding::Stochastic(noise, key.mask(array))
    }

    fn is_plain(&self, dtype: DType) -> bool {
        dtype == self.job.dtype
    }

    /// Runs the kernel of these passes.
    ///
    /// # Safety
    /// `streams` hold the tile, decoded.
    unsafe fn run(&self, streams: &Streams, passes: u8, first: bool) -> [f64; MAX_SUMS] {
        let plan = GroupPlan { pass: passes, ..*self.kernel.plan };
        let kernel = Kernel { plan: &plan, ..*self.kernel };
        let job = Job { first, gradient: Gradient::Given, ..*self.job };
        // SAFETY: this function's own contract.
        unsafe { job.run(&kernel, self.slots, *streams, self.start, self.len) }
    }

    /// # Safety
    /// As [`sweep`](Self::sweep).
    unsafe fn gradient(&mut self) -> *const u8 {
        let (dtype, working) = (self.job.formats.g, self.job.dtype);
        if self.kernel.plan.pass & pass::MEND != 0 {
            return ZEROS.as_ptr(); // it goes along the step alone
        }
        let g = match self.job.gradient {
            Gradient::Zero => return ZEROS.as_ptr(),
            Gradient::KeptIn(slot) => self.job.streams.state[slot],
            Gradient::Given => self.job.streams.g.cast_mut(),
        };
        let g = g.cast_const().wrapping_add(self.start * dtype.size());
        if self.is_plain(dtype) && self.job.gradient == Gradient::Given {
            return g;
        }
        let buffer = self.buffer(1).cast::<u8>();
        // SAFETY: this function's own contract. A kept gradient is copied, since its slot is set up.
        unsafe { decode(self.token(), (dtype, working), g, self.len, buffer, &mut self.ahead) };
        buffer
    }

    /// The parameter that is worked on; a master copy is brought up to date first.
    ///
    /// # Safety
    /// As [`sweep`](Self::sweep).
    unsafe fn parameter(&mut self) -> *mut u8 {
        let (dtype, working) = (self.job.formats.p, self.job.dtype);
        let p = self.job.streams.p.wrapping_add(self.start * dtype.size());
        if let Some((copy, of)) = self.job.copy {
            let copy = copy.wrapping_add(self.start * of.size());
            // SAFETY: this function's own contract: the master copy is of f32.
            unsafe { self.adopt(p.cast(), copy, of) };
        }
        if self.is_plain(dtype) {
            return p;
        }
        let buffer = self.buffer(0).cast::<u8>();
        // SAFETY: this function's own contract.
        unsafe { decode(self.token(), (dtype, working), p, self.len, buffer, &mut self.ahead) };
        buffer
    }

    /// Takes over elements of the parameter that are not their master copy, rounded: all of them at
    /// first, then those that somebody else has changed.
    ///
    /// # Safety
    /// Both hold the tile's elements, `copy` those of type `of`.
    unsafe fn adopt(&mut self, master: *mut f32, copy: *mut u8, of: DType) {
        let (token, format) = (self.token(), Format::new(of, false));
        let of_copy = Place { codes: copy, exponents: copy };
        if !self.job.master_is_set {
            // SAFETY: this function's own contract.
            return unsafe { format.decode(token, of_copy, self.len, master, &mut self.ahead) };
        }
        // The gradient's buffer may be in use by now, the parameter's is not: its type is f32.
        let rounded = self.buffer(0);
        let place = Place { codes: rounded.cast(), exponents: rounded.cast() };
        // SAFETY: this function's own contract; both types have 16 bits, and the buffer has room.
        unsafe {
            rounded.write_bytes(0, self.len);
            format.encode(
                token,
                master,
                self.len,
                place,
                (Rounding::Nearest, false),
                &mut self.ahead,
            );
            let expected = slice::from_raw_parts(rounded.cast::<u16>(), self.len);
            let found = slice::from_raw_parts(copy.cast::<u16>(), self.len);
            if expected == found {
                return;
            }
            let values = self.buffer(2);
            format.decode(token, of_copy, self.len, values, &mut self.ahead);
            for i in (0..self.len).filter(|i| expected[*i] != found[*i]) {
                *master.add(i) = *values.add(i);
            }
        }
    }

    /// Where the tile's part of a slot is kept.
    fn place(&self, slot: usize) -> Place {
        let (job, sliced) = (self.job, self.slots[slot].role == Role::Statistic);
        let before = |elements| if sliced { job.slice.before(elements) } else { elements };
        let array = job.streams.state[slot];
        // Tiles have as many exponents as a whole one: those of different tiles are apart.
        let exponents = groups(self.whole(slot)) * (self.start / TILE);
        Place {
            codes: array.wrapping_add(before(self.start) * job.formats.state[slot].dtype.size()),
            exponents: array.wrapping_add(before(job.len) + exponents),
        }
    }

    /// Elements of a slot that whole tiles have at most.
    fn whole(&self, slot: usize) -> usize {
        elements(self.job, &self.slots[slot], 0, TILE)
    }

    /// # Safety
    /// As [`sweep`](Self::sweep).
    unsafe fn read_state(&mut self, streams: &mut Streams, passes: u8, first: bool) {
        for (i, slot) in self.slots.iter().enumerate() {
            let format = self.job.formats.state[i];
            if !slot.is_read(passes) {
                continue;
            }
            streams.state[i] = if self.job.zeros == Some(i) {
                ZEROS.as_ptr().cast_mut()
            } else if self.is_plain(format.dtype) {
                self.place(i).codes
            } else {
                let buffer = self.buffer(2 + i);
                if !first {
                    let (count, place) =
                        (elements(self.job, slot, self.start, self.len), self.place(i));
                    // SAFETY: this function's own contract.
                    unsafe { format.decode(self.token(), place, count, buffer, &mut self.ahead) };
                }
                buffer.cast()
            };
        }
    }

    /// # Safety
    /// As [`sweep`](Self::sweep); `streams` hold the state, decoded.
    unsafe fn write_state(&mut self, streams: &Streams, passes: u8) {
        for (i, slot) in self.slots.iter().enumerate() {
            let format = self.job.formats.state[i];
            let set_up = self.job.first && slot.is_read(passes) && slot.init == Init::Parameter;
            if self.is_plain(format.dtype)
                || self.job.zeros == Some(i)
                || !(slot.is_written(passes) || set_up)
            {
                continue;
            }
            // SAFETY: this function's own contract.
            let rounding = unsafe { self.stochastic(i) };
            // An infinity would take its whole group of 8-bit state along.
            let how = (rounding, slot.saturates || format.dtype == DType::Q8 && format.unsigned);
            let (from, to, count) = (
                streams.state[i].cast(),
                self.place(i),
                elements(self.job, slot, self.start, self.len),
            );
            // SAFETY: this function's own contract.
            unsafe { format.encode(self.token(), from, count, to, how, &mut self.ahead) };
            if format.dtype == DType::Q8 {
                let unused = groups(count)..groups(self.whole(i));
                // SAFETY: as above: each tile has room for the exponents of a whole one.
                unsafe { to.exponents.add(unused.start).write_bytes(0, unused.len()) };
            }
        }
    }

    /// # Safety
    /// As [`sweep`](Self::sweep); `streams` hold the parameter.
    unsafe fn write_parameter(&mut self, streams: &Streams, overflows: &AtomicU64) {
        let p = self.job.streams.p;
        let (to, dtype, rounding) = match self.job.copy {
            Some((copy, dtype)) => (copy, dtype, Rounding::Nearest),
            None if self.is_plain(self.job.formats.p) => return,
            // SAFETY: this function's own contract.
            None => (p, self.job.formats.p, unsafe { self.stochastic(PARAMETER) }),
        };
        let to = to.wrapping_add(self.start * dtype.size());
        let place = Place { codes: to, exponents: to };
        let from = streams.p.cast::<f32>();
        // SAFETY: this function's own contract; both types have 16 bits.
        let lost = unsafe {
            let format = Format::new(dtype, false);
            format.encode(self.token(), from, self.len, place, (rounding, false), &mut self.ahead);
            let codes = slice::from_raw_parts(to.cast::<u16>(), self.len);
            infinities(self.token(), codes, slice::from_raw_parts(from, self.len), dtype)
        };
        if lost > 0 {
            overflows.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// Elements of a slot that so many of the tensor's have, from `start` on.
fn elements(job: &Job, slot: &Slot, start: usize, len: usize) -> usize {
    match slot.role {
        Role::Statistic => job.slice.before(start + len) - job.slice.before(start),
        _ => len,
    }
}

/// Exponents of so many elements of 8-bit state.
pub(crate) fn groups(elements: usize) -> usize {
    elements.div_ceil(GROUP)
}
