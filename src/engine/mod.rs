//! Blocks of many tensors over threads, and sums that no order of them can change.

pub(crate) mod blocks;
mod call;
pub(crate) mod coded;
pub(crate) mod exact_sum;
pub(crate) mod job;
pub(crate) mod parallel;
pub(crate) mod rows;
pub(crate) mod slices;
pub(crate) mod sweep;
