//! What the runs amount to: tables, or a record of each.

use crate::modes::Mode;
use crate::train::{Run, Shadow, deviation};

/// Where `d` starts: the default.
const D0: f64 = 1e-6;

/// The quantile of Student's t for a two-sided 95 %: beyond the table by a series in 1/n (Abramowitz and
/// Stegun, 26.7.5), which is right to three digits there.
fn t95(degrees: usize) -> f64 {
    let n = degrees as f64;
    T95.get(degrees - 1)
        .copied()
        .unwrap_or(1.960 + 2.372 / n + 2.823 / (n * n) + 2.556 / (n * n * n))
}

/// By degrees of freedom from 1.
const T95: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// A mode and its runs, one a seed.
pub struct Entry {
    pub mode: Mode,
    pub runs: Vec<Run>,
    /// Where f32's run makes the gradients, for each seed.
    pub shadows: Vec<Shadow>,
}

impl Entry {
    pub fn new(mode: Mode) -> Self {
        Entry { mode, runs: Vec::new(), shadows: Vec::new() }
    }

    fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len() as f64
    }

    /// The difference to the other's runs, in pairs: mean, and half the width of its 95 % interval.
    fn difference(&self, other: &Entry, of: impl Fn(&Run) -> f64) -> (f64, f64) {
        let pairs = self.runs.iter().zip(&other.runs);
        let differences: Vec<f64> = pairs.map(|(run, other)| of(run) - of(other)).collect();
        let n = differences.len();
        let mean = differences.iter().sum::<f64>() / n as f64;
        let squares: f64 = differences.iter().map(|x| (x - mean) * (x - mean)).sum();
        let deviation = (squares / (n - 1) as f64).sqrt();
        (mean, t95(n - 1) * deviation / (n as f64).sqrt())
    }

    /// The largest relative deviation of `d` from the other's in any run: where each run makes its own
    /// gradients, and where the other's makes them.
    fn deviations(&self, other: &Entry) -> [f64; 2] {
        let (mut own, mut same) = (0.0f64, 0.0f64);
        for (i, other) in other.runs.iter().enumerate() {
            own = own.max(deviation(&self.runs[i].d, &other.d, D0));
            same = same.max(deviation(&self.shadows[i].d, &other.d, D0));
        }
        [own, same]
    }
}

/// The tables: the first entry is what the others are compared with.
pub fn tables(entries: &[Entry], seed: u64, epochs: usize) -> String {
    let (base, seeds) = (&entries[0], entries[0].runs.len());
    let steps = base.runs[0].d.len();
    let mut rows = vec![
        format!(
            "D-Adapt Adam, {epochs} epochs = {steps} steps a run; means over {seeds} seeds from {seed}"
        ),
        format!(
            "{:<24} {:>10} {:>14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>11}",
            "mode",
            "train loss",
            "test accuracy",
            "d",
            "d off by",
            "at same g",
            "v there",
            "v stuck",
            "seconds",
            "state bytes"
        ),
    ];
    for entry in entries {
        let [own, same] = entry.deviations(base);
        let v = entry.shadows.iter().map(|shadow| shadow.v).sum::<f64>();
        rows.push(format!(
            "{:<24} {:>10.5} {:>13.2}% {:>9.2e} {:>8.2}% {:>8.2}% {:>+8.2}% {:>8.1}% {:>8.2} {:>11}",
            entry.mode.name,
            entry.mean(|run| run.train_loss),
            100.0 * entry.mean(|run| run.test_accuracy),
            entry.mean(|run| run.d[steps - 1]),
            100.0 * own,
            100.0 * same,
            100.0 * (v / seeds as f64 - 1.0),
            100.0 * entry.mean(|run| run.stuck),
            entry.mean(|run| run.seconds),
            entry.runs[0].state_bytes,
        ));
    }
    rows.push("d off by: from f32's, at most, of all steps and seeds with d > 2 d0.".into());
    rows.push("at same g: the same where f32's run makes the gradients of both.".into());
    rows.push("v there: how far the sum of second moments is from f32's at the end, there.".into());
    rows.push("v stuck: second moments that the second half of a run left as they were.".into());
    if seeds > 1 {
        rows.push(format!(
            "\nDifference to f32 in pairs, {seeds} seeds, with its 95 % t-interval (* without 0)"
        ));
        rows.push(format!("{:<24} {:>32} {:>28}", "mode", "train loss", "test accuracy, points"));
        for entry in &entries[1..] {
            let loss = entry.difference(base, |run| run.train_loss);
            let accuracy = entry.difference(base, |run| 100.0 * run.test_accuracy);
            rows.push(format!(
                "{:<24} {:>32} {:>28}",
                entry.mode.name,
                interval(loss, 5),
                interval(accuracy, 2)
            ));
        }
    }
    rows.join("\n") + "\n"
}

fn interval((mean, half): (f64, f64), decimals: usize) -> String {
    let mark = if mean.abs() > half { "*" } else { " " };
    format!("{mean:+.decimals$} [{:+.decimals$}, {:+.decimals$}]{mark}", mean - half, mean + half)
}

/// Every run's figures, by name.
fn records(entries: &[Entry], seed: u64) -> Vec<Vec<(&'static str, serde_json::Value)>> {
    let base = &entries[0];
    let mut records = Vec::new();
    for entry in entries {
        for (i, (run, other)) in entry.runs.iter().zip(&base.runs).enumerate() {
            records.push(vec![
                ("mode", entry.mode.name.clone().into()),
                ("seed", (seed + i as u64).into()),
                ("train_loss", run.train_loss.into()),
                ("test_accuracy", run.test_accuracy.into()),
                ("d", run.d[run.d.len() - 1].into()),
                ("d_off", deviation(&run.d, &other.d, D0).into()),
                ("d_off_at_same_g", deviation(&entry.shadows[i].d, &other.d, D0).into()),
                ("v_at_same_g", entry.shadows[i].v.into()),
                ("v_stuck", run.stuck.into()),
                ("seconds", run.seconds.into()),
                ("state_bytes", run.state_bytes.into()),
            ]);
        }
    }
    records
}

pub fn csv(entries: &[Entry], seed: u64) -> String {
    let records = records(entries, seed);
    let header: Vec<&str> = records[0].iter().map(|(name, _)| *name).collect();
    let mut text = header.join(",") + "\n";
    for record in records {
        let values: Vec<String> = record
            .iter()
            .map(|(_, value)| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        text += &(values.join(",") + "\n");
    }
    text
}

pub fn json(entries: &[Entry], seed: u64) -> String {
    let objects = records(entries, seed)
        .into_iter()
        .map(|record| record.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let all = serde_json::Value::Array(objects.map(serde_json::Value::Object).collect());
    format!("{all:#}\n")
}
