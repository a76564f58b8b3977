//! Handwritten digits without a learning rate: D-Adaptation against a grid of hand-set rates.
//!
//! `cargo run --release --example digits` trains the same small network, from the same weights and
//! on the same batches, with four methods that find their rate, and with plain Adam and SGD at a grid
//! of rates set by hand. `--help` lists the options.

mod args;
mod data;
mod methods;
mod mlp;
mod picture;
mod report;
mod rng;
mod train;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use dadapt::Algorithm;
use indicatif::{ProgressBar, ProgressStyle};

use args::Args;
use methods::Method;
use report::Entry;
use rng::Rng;
use train::{Run, Task};

/// Methods that find their rate. Not Lion and Prodigy, which want an lr that is annealed: here it is 1
/// throughout.
const ADAPTING: [(&str, Algorithm); 4] = [
    ("D-Adapt Adam", Algorithm::Adam),
    ("D-Adapt SGD", Algorithm::Sgd),
    ("D-Adapt AdaGrad", Algorithm::AdaGrad),
    ("D-Adapt Adan", Algorithm::Adan),
];
/// Half decades around the values people start from.
const ADAM_RATES: [f64; 6] = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1];
const SGD_RATES: [f64; 6] = [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0];

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("digits: {message} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("digits: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut rng = Rng::new(args.seed);
    let (train, test) = data::load(&args.data, &mut rng)?;
    let initial = mlp::initial(&mut rng);
    let task = Task { train, test, initial, rng, epochs: args.epochs };

    let runs = ADAPTING.len() + ADAM_RATES.len() + SGD_RATES.len();
    // Draws to stderr, and nothing at all where that is not a terminal.
    let bar = ProgressBar::new((runs * args.epochs) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{msg:<18} [{bar:40}] {pos}/{len} epochs, {eta} left",
    )?);

    let mut entries = Vec::new();
    for (name, algorithm) in ADAPTING {
        entries.push(adapted(name, algorithm, &task, &bar)?);
    }
    entries.push(tuned("Adam", Algorithm::PlainAdam, &ADAM_RATES, &task, &bar)?);
    entries.push(tuned("SGD", Algorithm::PlainSgd, &SGD_RATES, &task, &bar)?);
    bar.finish_and_clear();

    if let Some(path) = &args.losses {
        fs::write(path, report::bits(&entries)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let path = args.out.join("digits.svg");
    picture::draw(&path, &entries, task.steps_per_epoch())
        .map_err(|e| format!("{}: {e}", path.display()))?;
    // Last, since a reader that has seen enough may close the pipe.
    write!(io::stdout(), "{}\nPicture: {}\n", report::tables(&entries, &task), path.display())?;
    Ok(())
}

/// One run that finds its rate.
fn adapted(
    name: &'static str,
    algorithm: Algorithm,
    task: &Task,
    bar: &ProgressBar,
) -> Result<Entry, dadapt::Error> {
    bar.set_message(name);
    let run = task.run(&mut Method::adapting(algorithm)?, || bar.inc(1))?;
    Ok(Entry { name, adapts: true, runs: vec![run] })
}

/// One run for each hand-set rate.
fn tuned(
    name: &'static str,
    algorithm: Algorithm,
    rates: &[f64],
    task: &Task,
    bar: &ProgressBar,
) -> Result<Entry, dadapt::Error> {
    let mut runs: Vec<Run> = Vec::new();
    for &rate in rates {
        bar.set_message(format!("{name}, rate {rate}"));
        runs.push(task.run(&mut Method::plain(algorithm, rate)?, || bar.inc(1))?);
    }
    Ok(Entry { name, adapts: false, runs })
}
