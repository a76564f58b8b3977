//! The kernels, on every instruction set that the machine has: against the reference packages,
//! against the oracle, at every length and alignment, and bit for bit against the scalar ones.
//!
//! All of it is one program, so that an emulator that boots a machine boots one. With
//! `DADAPT_REQUIRE_ISA=avx512` an absent instruction set is a failure; `DADAPT_TEST_SCALE=20` cuts
//! repetitions for emulators. `-- --nocapture --test-threads 1` prints the worst errors.

mod agreement;
mod bits;
mod deviations;
mod dtypes;
mod dtypes_case;
mod formats;
mod golden;
mod golden_dtypes;
mod kept;
mod masters;
mod oracle;
mod parts;
mod policies;
mod properties;
mod rows;
mod second_moment;
mod slices;
mod special;
mod sweep;
mod unbiased;

#[path = "../common/golden.rs"]
mod golden_files;
#[path = "../common/isas.rs"]
mod isas;
#[path = "../oracle/mod.rs"]
mod recurrences;
#[path = "../common/run.rs"]
mod run;

#[cfg(target_arch = "x86_64")]
mod environment;
#[cfg(unix)]
mod read_only;
