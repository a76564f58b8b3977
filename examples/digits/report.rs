//! The tables on standard output, and the bits for comparing with other languages.

use std::fmt::Write;

use crate::train::{Run, Task};

/// A method and its runs: one where it finds its rate, one for each rate where it does not.
pub struct Entry {
    pub name: &'static str,
    pub adapts: bool,
    pub runs: Vec<Run>,
}

impl Entry {
    pub fn best(&self) -> &Run {
        let better = |a: &&Run, b: &&Run| a.rank().total_cmp(&b.rank());
        self.runs.iter().min_by(better).expect("an entry has at least one run")
    }
}

/// The tables.
pub fn tables(entries: &[Entry], task: &Task) -> String {
    let mut rows = vec![format!(
        "Each run: {} x {} steps on {} digits, tested on {} others; same start and batches.\n",
        task.epochs,
        task.steps_per_epoch(),
        task.train.len(),
        task.test.len()
    )];
    rows.push(format!(
        "{:<16} {:>10} {:>14} {:>9} {:>10} {:>12} {:>8}",
        "method", "train loss", "test accuracy", "d", "rate found", "rates tried", "seconds"
    ));
    for entry in entries {
        let best = entry.best();
        rows.push(format!(
            "{:<16} {:>10} {:>13.2}% {:>9} {:>10} {:>12} {:>8.2}",
            entry.name,
            loss(best),
            100.0 * best.test_accuracy,
            if entry.adapts { short(best.last().d) } else { "-".into() },
            short(best.last().rate),
            entry.runs.len(),
            entry.runs.iter().map(|run| run.seconds).sum::<f64>()
        ));
    }
    rows.push(NOTES.into());
    for entry in entries.iter().filter(|entry| !entry.adapts) {
        let title = format!("{} by hand", entry.name);
        rows.push(format!("\n{title:<16} {:>10} {:>14}", "train loss", "test accuracy"));
        for run in &entry.runs {
            let mark = if std::ptr::eq(run, entry.best()) { "  <- lowest" } else { "" };
            let (rate, accuracy) = (run.last().rate, 100.0 * run.test_accuracy);
            rows.push(format!("{rate:>16} {:>10} {accuracy:>13.2}%{mark}", loss(run)));
        }
    }
    rows.join("\n") + "\n"
}

const NOTES: &str = "
What finds its rate ran once, at lr 1, with d growing by 2 % a step at most, as a warm-up.
The rate is that of the last step: d, or d / |first gradient| for SGD.
Of the rates set by hand, the one with the lowest train loss is shown; the test set has no say.";

fn loss(run: &Run) -> String {
    if run.train_loss.is_finite() { short(run.train_loss) } else { "diverged".into() }
}

/// Three significant digits.
pub fn short(value: f64) -> String {
    if value.abs() < 1e-3 {
        return format!("{value:.2e}");
    }
    let decimals = (2 - value.abs().log10().floor() as i32).max(0);
    format!("{value:.*}", decimals as usize)
}

/// One line a step of the adapting methods: name, step, loss (f32 bits), d (f64 bits).
pub fn bits(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries.iter().filter(|entry| entry.adapts) {
        let name = entry.name.to_lowercase().replace(' ', "-");
        for run in &entry.runs {
            for (step, (loss, taken)) in run.losses.iter().zip(&run.taken).enumerate() {
                let (loss, d) = (loss.to_bits(), taken.d.to_bits());
                writeln!(text, "{name} {step} {loss:08x} {d:016x}").expect("a String takes all");
            }
        }
    }
    text
}
