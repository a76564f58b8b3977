//! Blocks of jobs whose arrays are not all of the type that lane functions compute in.

use super::blocks::BLOCK;
use super::job::Gradient;
use super::slices::Slice;
use super::sweep::JobBlock;
use crate::algorithm::{Init, MAX_SLOTS, MAX_SUMS, Role, pass};
use crate::dtype::DType;
use crate::kernel::block::{GroupPlan, Streams, ZEROS};
use crate::kernel::codec::{Format, GROUP, Place};
use crate::kernel::kept::{Coded, Kept, adopt};
use crate::kernel::rounding::mix;
use crate::kernel::sweep::sweep_block;
use std::mem::MaybeUninit;
use std::{ptr, slice};

/// Exponents of 8-bit state that come before an element of the tensor: groups are of a block's
/// elements, or of what a block has of a slice.
pub(crate) fn groups_before(slice: Slice, element: usize) -> usize {
    let (block, rest) = (element / BLOCK, element % BLOCK);
    let of_block = slice.before(BLOCK).div_ceil(GROUP);
    let within = slice.before(block * BLOCK + rest) - slice.before(block * BLOCK);
    block * of_block + within.div_ceil(GROUP)
}

impl JobBlock<'_> {
    /// The block's arrays, as they are kept.
    pub(super) fn arrays(&self) -> Coded {
        let JobBlock { job, start, .. } = *self;
        let zeros = ZEROS.as_ptr().cast_mut();
        let kept = |array: *mut u8, dtype: DType| {
            let codes = array.wrapping_add(start * dtype.size());
            Kept { place: Place { codes, exponents: codes }, format: Format::new(dtype, false) }
        };
        let nothing = Kept { format: Format::new(job.dtype, false), ..Kept::plain(zeros) };
        // A mend goes along the step alone.
        let without = self.plan.kernel.pass & pass::MEND != 0 || job.gradient == Gradient::Zero;
        let mut state = [nothing; MAX_SLOTS];
        for (i, slot) in self.sweep.slots.iter().enumerate().filter(|(i, _)| job.zeros != Some(*i))
        {
            let (array, format) = (job.streams.state[i], job.formats.state[i]);
            let slice = if slot.role == Role::Statistic { job.slice } else { Slice::WHOLE };
            let codes = array.wrapping_add(slice.before(start) * format.dtype.size());
            let exponents = array.wrapping_add(slice.before(job.len) + groups_before(slice, start));
            state[i] = Kept { place: Place { codes, exponents }, format };
        }
        Coded {
            p: kept(job.streams.p, job.formats.p),
            copy: job.copy.map(|(copy, dtype)| (kept(copy, dtype), job.master_is_set)),
            g: if without { nothing } else { kept(job.streams.g.cast_mut(), job.formats.g) },
            state,
            moves_by_kept: job.moves_by_kept,
            noise: (self.plan.noise ^ mix(job.noise), start / GROUP),
        }
    }

    /// Runs the kernel of a plan on values: what has no kernel of its own among types and passes.
    ///
    /// # Safety
    /// As [`run_on`](Self::run_on).
    // Not inlined: the values would be on the stack of other blocks too.
    #[inline(never)]
    pub(super) unsafe fn decode_and_run(
        &self,
        plan: &GroupPlan,
        arrays: &Coded,
        len: usize,
    ) -> ([f64; MAX_SUMS], u64) {
        let (job, token) = (self.job, self.token());
        let mut values = MaybeUninit::<[[f32; BLOCK]; 2 + MAX_SLOTS]>::uninit();
        let values = values.as_mut_ptr().cast::<[f32; BLOCK]>();
        let view = |kept: &Kept, i: usize, is_set: bool| {
            if kept.is_plain() {
                return kept.place.codes;
            }
            let to = values.wrapping_add(i).cast::<f32>();
            // SAFETY: this function's own contract; there is room for a block, and zeros are values.
            unsafe {
                to.write_bytes(0, len);
                if is_set {
                    kept.format.decode_all(token, kept.place, slice::from_raw_parts_mut(to, len));
                }
            }
            to.cast()
        };
        // SAFETY: this function's own contract.
        unsafe { adopt(token, arrays, 0, len) };
        let (p, g) = (view(&arrays.p, 0, true), view(&arrays.g, 1, true));
        let mut streams = Streams { p, g, state: [ptr::null_mut(); MAX_SLOTS] };
        for i in (0..self.sweep.slots.len()).filter(|i| self.sweep.slots[*i].is_read(plan.pass)) {
            streams.state[i] = view(&arrays.state[i], 2 + i, !job.first);
        }
        let both = pass::STATE | pass::PARAMETER;
        let waits = arrays.moves_by_kept && plan.pass & both == both;
        let dropped = if waits { pass::PARAMETER } else { 0 };
        let advance = GroupPlan { pass: plan.pass & !dropped, ..*plan };
        // SAFETY: views hold what the pass reads.
        let sums =
            unsafe { sweep_block(self.sweep_fn(), (token, &advance), (streams, len), job.first) };
        for (i, slot) in self.sweep.slots.iter().enumerate() {
            let (kept, set_up) = (&arrays.state[i], job.first && slot.init == Init::Parameter);
            let writes = slot.is_written(plan.pass) || set_up && slot.is_read(plan.pass);
            if writes && !kept.is_plain() {
                let noise = (arrays.noise.0, arrays.noise.1, i);
                // SAFETY: as above.
                unsafe {
                    let values = slice::from_raw_parts_mut(streams.state[i].cast(), len);
                    kept.format.encode_all(token, values, kept.place, noise, slot.saturates);
                }
            }
        }
        if waits {
            let moves = GroupPlan { pass: plan.pass & (pass::PARAMETER | pass::MOMENT), ..*plan };
            // SAFETY: as above; state is what it is as it is kept.
            unsafe { sweep_block(self.sweep_fn(), (token, &moves), (streams, len), false) };
        }
        let kept = arrays.copy.map_or(arrays.p, |(copy, _)| copy);
        if plan.pass & (pass::PARAMETER | pass::MEND) == 0 || kept.is_plain() {
            return (sums, 0);
        }
        let noise = (arrays.noise.0, arrays.noise.1, self.sweep.slots.len());
        let noise = arrays.copy.is_none().then_some(noise);
        // SAFETY: as above.
        unsafe {
            let p = slice::from_raw_parts_mut(streams.p.cast(), len);
            (sums, kept.format.round_all(token, p, kept.place.codes, noise))
        }
    }
}
