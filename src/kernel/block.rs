//! What kernels are given: blocks of a tensor's arrays, and what a step does with them.

use crate::algorithm::{MAX_COEFFS, MAX_SLOTS, MAX_SUMS};

/// Elements of a block, counted from the start of its tensor. Partial sums, and with them every
/// bit of `d`, depend on it.
pub(crate) const BLOCK: usize = 4096;
/// The most blocks of a call, of one tensor or of several. Between calls the processor asks for no memory.
pub(crate) const BLOCKS: usize = 16;

/// The most blocks of a call with elements of so many bytes. In f64, whose rows take more registers, the
/// loop over blocks would have its own from the innermost.
pub(crate) const fn most_blocks(bytes: usize) -> usize {
    if bytes == size_of::<f32>() { BLOCKS } else { 1 }
}

/// Stands for a slot that is known to hold nothing but zeros and has no memory of its own: a block's.
pub(crate) static ZEROS: Zeros = Zeros([0; BLOCK]);

/// Zeros of any element type.
#[repr(align(64))]
pub(crate) struct Zeros([u64; BLOCK]);

impl Zeros {
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }
}

/// Where a block's arrays start, element type erased. State beyond the algorithm's is null, and so
/// is what the pass does not read. What is only read may be [`ZEROS`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) p: *mut u8,
    pub(crate) g: *const u8,
    pub(crate) state: [*mut u8; MAX_SLOTS],
}

/// What a group's blocks have in common in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupPlan {
    pub(crate) coeffs: [f64; MAX_COEFFS],
    /// One of [`decay`](crate::algorithm::decay)'s.
    pub(crate) decay: u8,
    /// Bits of [`pass`](crate::algorithm::pass).
    pub(crate) pass: u8,
}

/// A block, or the shorter end of a tensor: what a kernel is given of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) streams: Streams,
    /// Up to [`BLOCK`].
    pub(crate) len: usize,
    /// What is swept after it, where that lies elsewhere and is of the kernel's type: memory is asked for
    /// it, and nothing is read.
    pub(crate) ahead: Option<Ahead<'a>>,
}

/// Arrays and their elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead<'a> {
    pub(crate) streams: &'a Streams,
    pub(crate) len: usize,
}

/// The sums of one block, unweighted.
pub(crate) type Partial = [f64; MAX_SUMS];
