//! The C ABI. What C programmers read is `include/dadapt.h`, made of the docs in these files.
//!
//! Every exported function converts its arguments, guards and calls: [`handle`] catches panics,
//! sets the floating-point environment and keeps the text of errors. Each file that starts with a
//! title is a section of the header; `include/dadapt.h` is committed, and a test compares it.

// Types are named as C knows them.
#![allow(non_camel_case_types)]

pub mod algorithm;
pub mod config;
pub mod dlpack;
#[cfg(feature = "fault-injection")]
mod fault;
mod handle;
pub mod keys;
mod names;
pub mod optimizer;
pub mod parts;
mod repeat;
pub mod resume;
pub mod state;
pub mod status;
pub mod step;
mod structs;
pub mod tensors;
pub mod threads;
pub mod version;
