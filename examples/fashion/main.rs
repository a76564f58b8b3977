//! What fewer bytes do to training: Fashion-MNIST, or the digits, in f32 and in shorter types.
//!
//! `cargo run --release --example fashion` trains the same small network, from the same weights and on
//! the same batches, by D-Adapt Adam with parameters and state in each of several types, and compares
//! with f32. `--help` lists the options.

mod args;
#[path = "../digits/data.rs"]
mod data;
mod idx;
mod mlp;
mod modes;
mod report;
#[path = "../digits/rng.rs"]
mod rng;
mod set;
mod train;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use args::{Args, Output, Problem};
use mlp::Shape;
use modes::Mode;
use report::Entry;
use rng::Rng;
use set::Set;
use train::Task;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::usage());
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("fashion: {message} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fashion: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut modes = vec![Mode::parse("f32")?];
    modes.extend_from_slice(&args.modes);
    let epochs = args.epochs.unwrap_or(if args.problem == Problem::Fashion { 3 } else { 40 });
    let mut entries: Vec<Entry> = modes.into_iter().map(Entry::new).collect();

    // Draws to stderr, and nothing at all where that is not a terminal.
    let bar = ProgressBar::new(args.seeds * ((entries.len() + 1) * epochs) as u64);
    bar.set_style(ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} epochs, {eta} left")?);
    let fashion = match args.problem {
        Problem::Fashion => {
            let dir = args.data.clone().unwrap_or_else(|| idx::DIR.into());
            Some(idx::load(&dir)?)
        }
        Problem::Digits => None,
    };
    for seed in args.seed..args.seed + args.seeds {
        let mut rng = Rng::new(seed);
        let digits;
        let ((train, test), hidden, batch) = match &fashion {
            Some(sets) => (sets, 128, 64),
            None => {
                digits = load_digits(args.data.as_deref(), &mut rng)?;
                (&digits, 32, 32)
            }
        };
        let shape = Shape { inputs: train.inputs, hidden, classes: data::CLASSES };
        let initial = shape.initial(&mut rng);
        let growth_rate = args.growth_rate;
        let task = Task { growth_rate, seed, train, test, shape, initial, rng, epochs, batch };
        for entry in &mut entries {
            bar.set_message(format!("seed {seed}, {}", entry.mode.name));
            entry.runs.push(task.run(&entry.mode, &[], || bar.inc(1))?);
        }
        let others: Vec<Mode> = entries.iter().map(|entry| entry.mode.clone()).collect();
        bar.set_message(format!("seed {seed}, all on f32's gradients"));
        let together = task.run(&entries[0].mode, &others, || bar.inc(1))?;
        for (entry, shadow) in entries.iter_mut().zip(together.shadows) {
            entry.shadows.push(shadow);
        }
    }
    bar.finish_and_clear();

    let text = match args.output {
        Output::Tables => report::tables(&entries, args.seed, epochs),
        Output::Csv => report::csv(&entries, args.seed),
        Output::Json => report::json(&entries, args.seed),
    };
    write!(io::stdout(), "{text}")?;
    Ok(())
}

/// Another split for each seed.
fn load_digits(path: Option<&Path>, rng: &mut Rng) -> Result<(Set, Set), String> {
    let default =
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let (train, test) = data::load(&path.map_or_else(default, Path::to_path_buf), rng)?;
    Ok((Set::from(train), Set::from(test)))
}
