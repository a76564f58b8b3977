//! Gradients of single rows: those of a row summed first, then only touched rows read and written.
//!
//! The kernel knows of no rows. Touched rows are copied side by side into a tile that stays in the
//! cache, it runs on the tile, and what it changed is copied back.

use super::blocks::{Machine, Plan, Sums, merge, no_sums};
use super::parallel::for_each_piece;
use crate::algorithm::{Init, MAX_SLOTS, Slot};
use crate::dtype::DType;
use crate::kernel::block::{GroupPlan, Streams};
use crate::kernel::isa::Token;
use crate::kernel::lanes::LaneElement;
use crate::kernel::scan::{any_nonzero, finite_fn, first_non_finite};
use crate::kernel::sweep::{SweepFn, sweep_block};
use std::mem::MaybeUninit;
use std::slice;
use std::sync::Mutex;

/// Elements of a tile: with parameter and state of f32 it stays in the first cache. Partial sums, and
/// with them every bit of `d`, depend on it.
const TILE: usize = 1024;

/// A kernel and what it is called with.
struct RowKernel<'a> {
    sweep: SweepFn,
    token: Token,
    plan: &'a GroupPlan,
}

/// A table of a step: where its arrays are, which rows are touched, and their gradients.
#[derive(Debug)]
pub(crate) struct RowsJob {
    /// `g` is not used.
    pub(crate) streams: Streams,
    pub(crate) dtype: DType,
    /// Elements of a row.
    pub(crate) width: usize,
    pub(crate) group: usize,
    /// Index into the step's plans.
    pub(crate) plan: usize,
    /// Touched rows, ascending, each once.
    rows: Vec<usize>,
    /// Their gradients, side by side, of `dtype`.
    values: Vec<u64>,
    /// Row and place of what was given, sorted.
    order: Vec<(usize, usize)>,
}

// SAFETY: a job is a set of pointers whose maker vouched that nobody else uses what they point to;
// tiles of different rows are disjoint.
unsafe impl Send for RowsJob {}
// SAFETY: as above.
unsafe impl Sync for RowsJob {}

impl RowsJob {
    pub(crate) fn new() -> Self {
        let streams = Streams {
            p: std::ptr::null_mut(),
            g: std::ptr::null(),
            state: [std::ptr::null_mut(); MAX_SLOTS],
        };
        RowsJob {
            streams,
            dtype: DType::F32,
            width: 1,
            group: 0,
            plan: 0,
            rows: Vec::new(),
            values: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Takes the gradients of `rows`, those of a row summed in the order in which they come.
    ///
    /// # Errors
    /// The place of a row that is not below `count`.
    ///
    /// # Safety
    /// `values` holds `rows.len() * width` elements of `dtype`.
    pub(crate) unsafe fn gather(
        &mut self,
        rows: impl Iterator<Item = Option<usize>>,
        count: usize,
        values: *const u8,
    ) -> Result<(), usize> {
        self.order.clear();
        for (place, row) in rows.enumerate() {
            let row = row.filter(|row| *row < count).ok_or(place)?;
            self.order.push((row, place));
        }
        self.order.sort_unstable();
        self.rows.clear();
        self.rows.extend(self.order.iter().map(|(row, _)| *row));
        self.rows.dedup();
        match self.dtype {
            // SAFETY: this function's own contract.
            DType::F64 => unsafe { self.add_up::<f64>(values.cast()) },
            // SAFETY: this function's own contract.
            _ => unsafe { self.add_up::<f32>(values.cast()) },
        }
        Ok(())
    }

    /// # Safety
    /// `values` holds a row of type `E` for each place of `order`.
    unsafe fn add_up<E: LaneElement>(&mut self, values: *const E) {
        let (width, len) = (self.width, self.rows.len() * self.width);
        self.values.clear();
        self.values.resize((len * size_of::<E>()).div_ceil(size_of::<u64>()), 0);
        // SAFETY: the buffer has room for `len` elements, aligned to any type; zeros are values.
        let sums = unsafe { slice::from_raw_parts_mut(self.values.as_mut_ptr().cast::<E>(), len) };
        let (mut last, mut to) = (None, 0);
        for (row, place) in &self.order {
            // SAFETY: this function's own contract.
            let given = unsafe { slice::from_raw_parts(values.add(place * width), width) };
            if last == Some(*row) {
                let sums = sums[to - width..to].iter_mut();
                sums.zip(given).for_each(|(sum, x)| *sum = E::plus(*sum, *x));
            } else {
                sums[to..to + width].copy_from_slice(given);
                (last, to) = (Some(*row), to + width);
            }
        }
    }

    /// Elements of all touched rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * self.width
    }

    fn values(&self) -> *const u8 {
        self.values.as_ptr().cast()
    }

    pub(crate) fn is_finite(&self, machine: &Machine) -> bool {
        // SAFETY: `add_up` filled `len` elements of `dtype`.
        unsafe { finite_fn(self.dtype)(machine.token, self.values(), self.len()) == 0.0 }
    }

    /// Place in the table and value of the first sum that is not finite.
    pub(crate) fn first_non_finite(&self) -> Option<(usize, f64)> {
        // SAFETY: as in `is_finite`.
        let (at, value) = unsafe { first_non_finite(self.dtype, self.values(), self.len()) }?;
        Some((self.rows[at / self.width] * self.width + at % self.width, value))
    }

    /// Whether some gradient is not 0.
    pub(crate) fn moves(&self) -> bool {
        // SAFETY: as in `is_finite`.
        unsafe { any_nonzero(self.dtype, self.values(), self.len()) }
    }

    /// Updates the touched rows and adds up their weighted sums.
    pub(crate) fn sweep(
        &self,
        machine: &Machine,
        sweep: SweepFn,
        plan: &Plan,
        slots: &[Slot],
        count: usize,
    ) -> Sums {
        let total = Mutex::new(no_sums());
        let kernel = RowKernel { sweep, token: machine.token, plan: &plan.kernel };
        // Whole rows, or parts of one that is longer than a tile.
        let parts = self.width.div_ceil(TILE);
        let rows = (TILE / self.width.max(1)).max(1);
        let tiles = self.rows.len().div_ceil(rows) * parts;
        for_each_piece(machine.threads, tiles, self.len(), |pieces| {
            let mut sums = no_sums();
            for tile in pieces.flatten() {
                let (first, part) = (tile / parts * rows, tile % parts);
                let touched = &self.rows[first..self.rows.len().min(first + rows)];
                let columns = part * TILE..self.width.min((part + 1) * TILE);
                let at = first * self.width + columns.start;
                let part = Part { touched, start: columns.start, width: columns.len(), at };
                let partial = match self.dtype {
                    // SAFETY: the job's arrays hold `dtype`; `for_each_piece` gives each tile once.
                    DType::F64 => unsafe { self.tile::<f64>(&kernel, slots, &part) },
                    // SAFETY: as above.
                    _ => unsafe { self.tile::<f32>(&kernel, slots, &part) },
                };
                for i in 0..count {
                    sums[i].add(plan.weights[i] * partial[i]);
                }
            }
            merge(&mut total.lock().expect("no panic while the lock is held"), &sums);
        });
        total.into_inner().expect("no panic while the lock is held")
    }

    /// # Safety
    /// The arrays hold type `E`, and nobody else uses the part's rows.
    // Not inlined: the tile would be on the stack of the loop.
    #[inline(never)]
    unsafe fn tile<E: LaneElement>(
        &self,
        kernel: &RowKernel,
        slots: &[Slot],
        part: &Part,
    ) -> [f64; crate::algorithm::MAX_SUMS] {
        let mut tile = MaybeUninit::<[[E; TILE]; 1 + MAX_SLOTS]>::uninit();
        let tile: *mut E = tile.as_mut_ptr().cast();
        let len = part.touched.len() * part.width;
        let columns = |array: *mut u8, row: usize| {
            array.cast::<E>().wrapping_add(row * self.width + part.start)
        };
        let mut streams = Streams {
            p: tile.cast(),
            g: self.values().cast::<E>().wrapping_add(part.at).cast(),
            state: [std::ptr::null_mut(); MAX_SLOTS],
        };
        // SAFETY: rows are below the table's count and columns below its width, and the tile has room
        // for them: `len <= TILE`.
        unsafe {
            for (i, row) in part.touched.iter().enumerate() {
                let to = tile.add(i * part.width);
                to.copy_from_nonoverlapping(columns(self.streams.p, *row), part.width);
            }
            for (slot, state) in streams.state.iter_mut().enumerate().take(slots.len()) {
                let array = tile.add((1 + slot) * TILE);
                *state = array.cast();
                for (i, row) in part.touched.iter().enumerate() {
                    let from = columns(self.streams.state[slot], *row);
                    array.add(i * part.width).copy_from_nonoverlapping(from, part.width);
                }
            }
            self.set_up::<E>(slots, tile, len);
            let sums =
                sweep_block(kernel.sweep, (kernel.token, kernel.plan), (streams, len), false);
            for (i, row) in part.touched.iter().enumerate() {
                let from = tile.add(i * part.width);
                columns(self.streams.p, *row).copy_from_nonoverlapping(from, part.width);
            }
            for slot in 0..slots.len() {
                let array = tile.add((1 + slot) * TILE);
                for (i, row) in part.touched.iter().enumerate() {
                    let to = columns(self.streams.state[slot], *row);
                    to.copy_from_nonoverlapping(array.add(i * part.width), part.width);
                }
            }
            sums
        }
    }

    /// Sets up the elements that are touched for the first time, which a 0 in the first slot marks:
    /// once touched, it is the constant that it starts with at least.
    ///
    /// # Safety
    /// The tile holds `len` elements of the parameter and of each slot.
    unsafe fn set_up<E: LaneElement>(&self, slots: &[Slot], tile: *mut E, len: usize) {
        for i in 0..len {
            // SAFETY: this function's own contract.
            unsafe {
                if tile.add(TILE + i).read().to_f64() != 0.0 {
                    continue;
                }
                for (slot, of) in slots.iter().enumerate() {
                    let to = tile.add((1 + slot) * TILE + i);
                    match of.init {
                        Init::Zero | Init::Gradient => to.write(E::ZERO),
                        Init::Constant(value) => to.write(E::from_f64(value)),
                        Init::Parameter => to.write(tile.add(i).read()),
                    }
                }
            }
        }
    }
}

/// The same columns of some touched rows.
struct Part<'a> {
    touched: &'a [usize],
    /// First column.
    start: usize,
    /// Columns.
    width: usize,
    /// Where its gradients start among all.
    at: usize,
}
