//! `log_every`, through a logger that keeps what its own thread logs.

use crate::run::Run;
use dadapt::{Algorithm, Config, Key};
use log::{LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }
    fn log(&self, record: &Record) {
        if record.target() == "dadapt" {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

#[test]
fn a_line_is_logged_every_so_many_steps() {
    log::set_logger(&Keeper).unwrap();
    log::set_max_level(LevelFilter::Info);
    let mut config = Config::new(Algorithm::Adam);
    config.set(Key::NumThreads, 1).unwrap();
    let mut run = Run::<f32>::new(&config);
    run.add(0, vec![1.0]);
    for _ in 0..4 {
        run.step(&[Some(&[1.0])]).unwrap();
    }
    assert_eq!(LINES.take(), [""; 0], "nobody asked");
    run.optimizer.set(Key::LogEvery, 3).unwrap();
    let mut expected = Vec::new();
    for step in 4..10 {
        let report = run.step(&[Some(&[1.0])]).unwrap();
        if step % 3 == 0 {
            expected.push((step, report));
        }
    }
    let lines = LINES.take();
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (step, report)) in lines.iter().zip(expected) {
        for word in [
            format!("adam step {step}:"),
            format!("dlr {:e}", report.dlr),
            format!("d_hat {:e}", report.d_hat),
            format!("d {:e} ({})", report.d, report.movement.name()),
            format!("numerator {:e}", report.numerator),
            format!("denominator {:e}", report.denominator),
        ] {
            assert!(line.contains(&word), "{line:?} lacks {word:?}");
        }
    }
}
