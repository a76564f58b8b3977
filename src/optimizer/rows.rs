//! Tables whose gradients are of single rows, as an embedding layer gives them.

use super::gather::{Unit, check_arrays, check_state};
use super::given::{Rows, TensorStep};
use super::overlap::{OverlapCheck, Span, What};
use super::tensor::{StateOwner, Tensor};
use super::{GroupId, Optimizer, TensorId};
use crate::algorithm::{Descriptor, Scalars};
use crate::dtype::DType;
use crate::engine::blocks::{Sums, merge};
use crate::engine::rows::RowsJob;
use crate::error::{Error, Result};
use crate::kernel::block::Streams;
use crate::kernel::sweep::rows_sweep_fn;
use crate::key::Key;

impl Optimizer {
    /// Registers a table of `rows` rows of `width` elements whose gradients are of single rows, as
    /// [`TensorStep::rows`](super::TensorStep::rows) gives them. AdaGrad only.
    ///
    /// A step reads and writes the touched rows and nothing else, and memory of the library's is
    /// taken page by page as rows are touched. Its state is `alphak`, `sk`, `x0` and `weighted_sk`,
    /// each as long as the table; kept by the caller, it must be 0 before the first gradient. Dense
    /// tensors and tables may share an optimizer.
    ///
    /// # Errors
    /// [`Error::NoRows`] for other algorithms; else as [`add_tensor`](Self::add_tensor).
    pub fn add_rows(
        &mut self,
        group: GroupId,
        name: &str,
        dtype: DType,
        rows: usize,
        width: usize,
        owner: StateOwner,
    ) -> Result<TensorId> {
        let Some(descriptor) = self.rows_descriptor else {
            return Err(Error::NoRows { algorithm: self.descriptor.name });
        };
        let too_long = || Error::TooLong { tensor: name.into(), len: usize::MAX };
        let len = rows.checked_mul(width).ok_or_else(too_long)?;
        if dtype != dtype.working() {
            let reason = "a table of rows is of f32 or f64";
            return Err(Error::DTypeNotFor { tensor: name.into(), dtype, reason });
        }
        self.register(group, name, dtype, len, (descriptor.state, Some(width)), owner)
    }

    fn rows_rule(&self) -> &Descriptor {
        self.rows_descriptor.as_ref().expect("`add_rows` asked for it")
    }

    /// Checks a table's arrays and gathers its gradients, summed by row.
    pub(super) fn gather_rows(
        &self,
        tensor: &Tensor,
        given: &TensorStep<'_, '_>,
        overlap: &mut OverlapCheck,
        unit: &mut Unit,
    ) -> Result<()> {
        unit.settled = false;
        check_arrays(tensor, given, overlap)?;
        let state = check_state(tensor, given, overlap)?;
        let g_dtype = given.g_dtype(tensor);
        if g_dtype != tensor.dtype {
            let (tensor, given, parameter) = (tensor.name.clone(), g_dtype, tensor.dtype);
            return Err(Error::GradientDType { tensor, given, parameter });
        }
        if given.g.is_null() {
            return Ok(());
        }
        let width = tensor.width.expect("the tensor is a table");
        let rows = check_rows(tensor, given)?;
        overlap.push(Span {
            start: rows.start.addr(),
            bytes: rows.count.saturating_mul(rows.size()),
            tensor: given.id.index(),
            what: What::Rows,
        });
        let options = self.settings.group(tensor.group);
        for key in [Key::WeightDecay, Key::Momentum] {
            if options.is_on(key) {
                let (group, tensor) = (tensor.group, tensor.name.clone());
                return Err(Error::NotForRows { key, group, tensor });
            }
        }
        if !options.is_on(Key::Lr) || tensor.len == 0 {
            return Ok(());
        }
        let used = unit.tables.len();
        if unit.rows.len() == used {
            unit.rows.push(RowsJob::new());
        }
        let job = &mut unit.rows[used];
        job.streams = Streams { p: given.p, g: given.g, state };
        (job.dtype, job.width, job.group) = (tensor.dtype, width, tensor.group);
        let count = tensor.len / width;
        // SAFETY: `check_rows` checked the numbers, whose borrow lasts for the step.
        let numbers = unsafe { rows.iter() }.map(|row| usize::try_from(row).ok());
        // SAFETY: `check_arrays` made sure that there are `rows.count` rows of values.
        if let Err(place) = unsafe { job.gather(numbers, count, given.g) } {
            // SAFETY: as above.
            let row = unsafe { rows.iter() }.nth(place).expect("a place among the rows");
            let tensor = tensor.name.clone();
            return Err(Error::RowOutOfRange { tensor, row, place, rows: count });
        }
        // A gradient that is 0 all over touches nothing.
        if job.moves() {
            unit.tables.push(given.id);
        }
        Ok(())
    }

    /// Plans for the tables of a step.
    pub(super) fn plan_rows(
        &self,
        mut scalars: Scalars,
        unit: &mut Unit,
        passes: u8,
    ) -> Result<()> {
        for at in 0..unit.tables.len() {
            let job = &mut unit.rows[at];
            scalars.lr = self.settings.group(job.group).get(Key::Lr);
            let plan = self.plan_of(self.rows_rule(), &scalars, job.group, job.dtype, passes)?;
            job.plan = unit.plans.len();
            unit.plans.push(plan);
        }
        Ok(())
    }

    /// Runs the plans of the tables, and adds to the sums.
    pub(super) fn sweep_rows(&self, unit: &Unit, sums: &mut Sums) {
        for (job, _) in unit.tables() {
            let kernel = rows_sweep_fn(self.algorithm, job.dtype).expect("`add_rows` asked for it");
            let Descriptor { state, sums: count, .. } = *self.rows_rule();
            let plan = &unit.plans[job.plan];
            merge(sums, &job.sweep(&self.machine(), kernel, plan, state, count));
        }
    }
}

impl Unit {
    /// The most elements that are handed out to threads at once.
    pub(super) fn longest(&self) -> usize {
        self.tables().map(|(job, _)| job.len()).fold(self.jobs.len(), usize::max)
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = (&RowsJob, &TensorId)> {
        self.rows.iter().zip(&self.tables)
    }
}

/// Checks the rows of a gradient.
fn check_rows(tensor: &Tensor, given: &TensorStep<'_, '_>) -> Result<Rows> {
    let name = || tensor.name.clone();
    let Some(rows) = given.rows else {
        return Err(Error::GradientKind { tensor: name(), registered: "rows", given: "dense" });
    };
    let what = "the rows";
    if rows.count > 0 && rows.start.is_null() {
        return Err(Error::Null { tensor: name(), what, len: rows.count });
    }
    if rows.count > 0 && !rows.start.addr().is_multiple_of(rows.size()) {
        return Err(Error::Misaligned { tensor: name(), what, align: rows.size() });
    }
    Ok(rows)
}
