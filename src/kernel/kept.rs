//! A block's arrays as they are kept.

use super::codec::{Format, GROUP, Place};
use super::isa::Token;
use crate::algorithm::MAX_SLOTS;
use crate::dtype::DType;
use std::slice;

/// Where and how an array of a block is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    pub(crate) format: Format,
}

impl Kept {
    /// An array of f32.
    pub(crate) fn plain(array: *mut u8) -> Self {
        Kept {
            place: Place { codes: array, exponents: array },
            format: Format::new(DType::F32, false),
        }
    }

    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.format.dtype == DType::F32
    }

    /// Bytes of an element.
    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        self.format.dtype.size()
    }

    /// Where a group starts.
    #[inline(always)]
    pub(super) fn place(&self, at: usize) -> Place {
        Place {
            codes: self.place.codes.wrapping_add(at * self.size()),
            exponents: self.place.exponents.wrapping_add(at / GROUP),
        }
    }
}

/// A block's arrays. State beyond the algorithm's counts for nothing, and so does what the pass does
/// not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coded {
    /// The master copy where there is one.
    pub(crate) p: Kept,
    /// The parameter that follows its master copy, and whether that has been set by now.
    pub(crate) copy: Option<(Kept, bool)>,
    pub(crate) g: Kept,
    pub(crate) state: [Kept; MAX_SLOTS],
    /// Whether the parameter moves by state as it is kept.
    pub(crate) moves_by_kept: bool,
    /// Of the noise: a number for seed, step and tensor, and the number of the block's first group.
    pub(crate) noise: (u64, usize),
}

/// Brings the master copy of `len` elements from `at` on up to date, where there is one.
///
/// # Safety
/// The parameter and its copy hold so many elements of their formats, aligned, and are used by nobody else.
pub(crate) unsafe fn adopt(token: Token, arrays: &Coded, at: usize, len: usize) {
    let Some((copy, is_set)) = arrays.copy else { return };
    let (format, from) = (copy.format, copy.place(at));
    // SAFETY: this function's own contract; a master copy is of f32.
    unsafe {
        let master = slice::from_raw_parts_mut(arrays.p.place(at).codes.cast(), len);
        if is_set {
            format.adopt_all(token, master, from.codes);
        } else {
            format.decode_all(token, from, master);
        }
    }
}

/// Where a group's values are: the array itself, or `values` that they are decoded to.
///
/// # Safety
/// From `start` on the array holds `len` elements of its format, aligned, which nobody writes meanwhile; where
/// it is not plain, `values` are as many numbers, which nobody else uses.
#[inline(always)]
pub(super) unsafe fn decoded(
    token: Token,
    kept: &Kept,
    (start, len): (usize, usize),
    values: *mut f32,
) -> *mut f32 {
    if kept.is_plain() {
        return kept.place.codes.cast::<f32>().wrapping_add(start);
    }
    // SAFETY: this function's own contract.
    unsafe {
        kept.format.decode_all(token, kept.place(start), slice::from_raw_parts_mut(values, len))
    };
    values
}
