//! What a step is given of a tensor.

use super::tensor::{MAX_STATE, Tensor, TensorId};
use crate::algorithm::MAX_SLOTS;
use crate::dtype::{DType, Element};
use std::marker::PhantomData;
use std::ptr;

/// The type of the numbers of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Index {
    /// Unsigned, 32 bits.
    U32 = 1,
    /// Signed, 64 bits, as PyTorch has them. Negative ones are an error.
    I64 = 2,
}

/// A Rust type that numbers rows: `u32` or `i64`.
pub trait RowIndex: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The type's name.
    const INDEX: Index;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for i64 {}
}

impl RowIndex for u32 {
    const INDEX: Index = Index::U32;
}

impl RowIndex for i64 {
    const INDEX: Index = Index::I64;
}

/// The rows of a gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) start: *const u8,
    pub(super) count: usize,
    pub(super) index: Index,
}

impl Rows {
    /// Bytes of one number, which is also its alignment.
    pub(super) fn size(&self) -> usize {
        match self.index {
            Index::U32 => 4,
            Index::I64 => 8,
        }
    }

    /// The numbers in their order.
    ///
    /// # Safety
    /// `start` is aligned and holds `count` numbers that nobody writes while the iterator lives.
    pub(super) unsafe fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |i| match self.index {
            // SAFETY: this function's own contract.
            Index::U32 => i64::from(unsafe { self.start.cast::<u32>().add(i).read() }),
            // SAFETY: this function's own contract.
            Index::I64 => unsafe { self.start.cast::<i64>().add(i).read() },
        })
    }
}

/// One tensor of a step: parameter, gradient, and state where the caller keeps it.
///
/// A tensor that a step does not name, or whose gradient is absent, is left as it is.
#[derive(Debug)]
pub struct TensorStep<'p, 'g> {
    pub(super) id: TensorId,
    /// `None` where the caller vouched that it is the registered one.
    pub(super) dtype: Option<DType>,
    pub(super) p: *mut u8,
    pub(super) p_len: usize,
    /// Null where the gradient is absent.
    pub(super) g: *const u8,
    /// `None` where it is the parameter's.
    pub(super) g_dtype: Option<DType>,
    /// `None` where the caller vouched for the length.
    pub(super) g_len: Option<usize>,
    /// Where the gradient is of single rows: which.
    pub(super) rows: Option<Rows>,
    pub(super) state: [*mut u8; MAX_SLOTS],
    /// In bytes; `None` where the caller vouched for them.
    pub(super) state_bytes: Option<[usize; MAX_SLOTS]>,
    pub(super) states: usize,
    /// Where all state is given as of one type.
    pub(super) state_dtype: Option<DType>,
    borrow: PhantomData<(&'p mut [u8], &'g [u8])>,
}

// SAFETY: it stands for `&mut [E]` and `&[E]` of plain numbers, which may move between threads.
unsafe impl Send for TensorStep<'_, '_> {}
// SAFETY: through `&self` safe code reaches nothing.
unsafe impl Sync for TensorStep<'_, '_> {}

impl<'p, 'g> TensorStep<'p, 'g> {
    /// A parameter, in and out, and its gradient, which is never written.
    ///
    /// The gradient may be of another type than the parameter: `f32`, [`bf16`](crate::bf16) and
    /// [`f16`](struct@crate::f16) go with one another, and `f64` with itself.
    pub fn new<P: Element, G: Element>(id: TensorId, p: &'p mut [P], g: &'g [G]) -> Self {
        TensorStep {
            id,
            dtype: Some(P::DTYPE),
            p: p.as_mut_ptr().cast(),
            p_len: p.len(),
            g: g.as_ptr().cast(),
            g_dtype: Some(G::DTYPE),
            g_len: Some(g.len()),
            rows: None,
            state: [ptr::null_mut(); MAX_SLOTS],
            state_bytes: Some([0; MAX_SLOTS]),
            states: 0,
            state_dtype: None,
            borrow: PhantomData,
        }
    }

    /// A table and the gradients of some of its rows, side by side in `values`; a row may be given
    /// several times, and its gradients are then summed first, in the order in which they come.
    ///
    /// The table is one that [`Optimizer::add_rows`](crate::Optimizer::add_rows) registered. Rows that
    /// are not given cost nothing.
    pub fn rows<E: Element, I: RowIndex>(
        id: TensorId,
        table: &'p mut [E],
        rows: &'g [I],
        values: &'g [E],
    ) -> Self {
        let rows = Rows { start: rows.as_ptr().cast(), count: rows.len(), index: I::INDEX };
        TensorStep { rows: Some(rows), ..TensorStep::new(id, table, values) }
    }

    /// Makes the gradient one of `count` single rows, whose numbers are at `rows`: `g` then holds
    /// `count` rows.
    ///
    /// # Safety
    /// As of `g` in [`from_raw`](Self::from_raw): `rows` points to `count` numbers of that type.
    pub unsafe fn with_raw_rows(mut self, rows: *const u8, count: usize, index: Index) -> Self {
        self.rows = Some(Rows { start: rows, count, index });
        self.g_len = None;
        self
    }

    /// The type of the gradient's elements.
    #[inline]
    pub(super) fn g_dtype(&self, tensor: &Tensor) -> DType {
        self.g_dtype.unwrap_or(tensor.dtype)
    }

    /// State that the caller keeps, in the order of
    /// [`Optimizer::state_names`](crate::Optimizer::state_names), all of one type and as long as
    /// [`Optimizer::state_len`](crate::Optimizer::state_len) says.
    pub fn with_state<E: Element, const N: usize>(mut self, state: [&'p mut [E]; N]) -> Self {
        const { assert!(N <= MAX_STATE) }
        let mut bytes = [0; MAX_SLOTS];
        for (i, slot) in state.into_iter().enumerate() {
            bytes[i] = size_of_val(slot);
            self.state[i] = slot.as_mut_ptr().cast();
        }
        (self.state_bytes, self.states, self.state_dtype) = (Some(bytes), N, Some(E::DTYPE));
        self
    }

    /// State that the caller keeps, in the order of
    /// [`Optimizer::state_names`](crate::Optimizer::state_names): arrays of any types, as many bytes
    /// as [`Optimizer::state_bytes`](crate::Optimizer::state_bytes) says, aligned to their elements.
    pub fn with_state_bytes<const N: usize>(mut self, state: [&'p mut [u8]; N]) -> Self {
        const { assert!(N <= MAX_STATE) }
        let mut bytes = [0; MAX_SLOTS];
        for (i, slot) in state.into_iter().enumerate() {
            bytes[i] = slot.len();
            self.state[i] = slot.as_mut_ptr();
        }
        (self.state_bytes, self.states, self.state_dtype) = (Some(bytes), N, None);
        self
    }

    /// Makes the gradient one of another type, for other languages; `None` is the parameter's.
    ///
    /// # Safety
    /// As of `g` in [`from_raw`](Self::from_raw): it points to elements of `dtype`.
    pub unsafe fn with_raw_gradient_dtype(mut self, dtype: impl Into<Option<DType>>) -> Self {
        self.g_dtype = dtype.into();
        self
    }

    /// From raw parts, for other languages. Types, lengths, nulls, alignment and overlaps are checked
    /// by the step; a null `g` is an absent gradient, and a `dtype` of `None` the registered one.
    ///
    /// # Safety
    /// Until the step has returned, `p` points to `len` elements of that type that may be read and
    /// written, and each of `state` that is not null to as many bytes as
    /// [`Optimizer::state_bytes`](crate::Optimizer::state_bytes) says; `g`, if not null, points to `len`
    /// that may be read; no other thread uses them. All are initialised. In a step in parts this holds
    /// for `g` until [`StepInParts::step_tensor`](crate::StepInParts::step_tensor) has returned, and for the
    /// others until the step has ended.
    #[inline]
    pub unsafe fn from_raw(
        id: TensorId,
        dtype: impl Into<Option<DType>>,
        len: usize,
        p: *mut u8,
        g: *const u8,
        state: &[*mut u8],
    ) -> Self {
        let mut slots = [ptr::null_mut(); MAX_SLOTS];
        for (to, from) in slots.iter_mut().zip(state) {
            *to = *from;
        }
        TensorStep {
            id,
            dtype: dtype.into(),
            p,
            p_len: len,
            g,
            g_dtype: None,
            g_len: Some(len),
            rows: None,
            state: slots,
            state_bytes: None,
            states: state.len(),
            state_dtype: None,
            borrow: PhantomData,
        }
    }
}
