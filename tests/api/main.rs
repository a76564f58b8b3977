//! The public surface beside numbers: errors and their words, reports, the log, forked processes.

mod bytes;
mod dtypes;
mod errors;
#[cfg(unix)]
mod fork;
mod kept;
mod log_lines;
mod one_by_one;
mod reports;
mod resume;

#[path = "../common/run.rs"]
mod run;

/// Trainers move optimizers between threads.
#[test]
fn optimizers_can_be_sent_and_shared() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<dadapt::Optimizer>();
    assert_send_sync::<dadapt::Config>();
    assert_send_sync::<dadapt::TensorStep<'_, '_>>();
    assert_send_sync::<dadapt::Error>();
    assert_send_sync::<dadapt::StepReport>();
}
