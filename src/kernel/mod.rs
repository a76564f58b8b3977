//! One block on one instruction set: load, lane function, store, partial sums.
//!
//! Unsafe code of the pure Rust crate lives here and where the engine hands out disjoint blocks.

pub(crate) mod bits;
pub(crate) mod block;
pub(crate) mod codec;
pub(crate) mod coded;
mod coeffs;
pub(crate) mod fp_env;
pub(crate) mod isa;
pub(crate) mod kept;
pub(crate) mod lanes;
mod mode;
pub(crate) mod prefetch;
pub(crate) mod rounding;
pub(crate) mod scan;
pub(crate) mod sums;
pub(crate) mod sweep;
