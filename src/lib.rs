//! Learning-rate-free optimizers as fused SIMD kernels for CPUs.
//!
//! [D-Adaptation](https://arxiv.org/abs/2301.07733) and
//! [Prodigy](https://arxiv.org/abs/2306.06101) find the step size of SGD, Adam, AdaGrad, Lion and Adan
//! while they train: the learning rate is 1. This crate computes what the packages `dadaptation` and
//! `prodigyopt` compute, in one pass over memory, and with the same bits for any number of threads
//! and any instruction set (scalar, AVX2, AVX-512, NEON).
//!
//! ```
//! use dadapt::{Algorithm, Config, DType, GroupId, Optimizer, TensorStep};
//!
//! let mut optimizer = Optimizer::new(&Config::new(Algorithm::Adam))?;
//! let w = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, 3)?;
//! let mut p = [1.0f32, -2.0, 3.0];
//! for _ in 0..100 {
//!     let g = p; // the gradient of |p|^2/2
//!     let report = optimizer.step(&mut [TensorStep::new(w, &mut p, &g)])?;
//!     assert!(report.d >= 1e-6);
//! }
//! # Ok::<(), dadapt::Error>(())
//! ```
//!
//! # Layers
//! Calls go down only:
//! - [`Optimizer`]: groups, tensors, state, the step and its report;
//! - engine: blocks over many tensors, threads, the exact sum;
//! - kernel: one block on one instruction set;
//! - algorithm: the recurrence of one register, one file an [`Algorithm`].

mod algorithm;
mod dtype;
mod engine;
mod error;
mod kernel;
mod key;
mod optimizer;

pub use algorithm::Algorithm;
pub use dtype::{DType, Element, bf16, f16};
pub use engine::parallel::Executor;
pub use error::{Error, Result};
pub use kernel::fp_env::FpEnv;
pub use kernel::isa::{ISA_ENV, Isa};
pub use key::{Bounds, Key, NonFinite, Scope, State};
#[cfg(feature = "fault-injection")]
pub use optimizer::Fault;
pub use optimizer::{
    Config, EstimateState, GroupId, Index, MAX_STATE, Movement, NUM_THREADS_ENV, Optimizer,
    RowIndex, StateOwner, StepInParts, StepReport, StepTensors, Sweeps, TensorId, TensorProgress,
    TensorStep,
};

/// Version of the crate, `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
