//! The command line.

use std::path::PathBuf;

use crate::modes::{Mode, NAMED};

const USAGE: &str = "\
Trains a small network on Fashion-MNIST, or on the digits, by D-Adapt Adam with parameters and
state in shorter types, each from the same weights and on the same batches as in f32.

usage: fashion [options]

  --problem P    fashion, or digits (fashion)
  --epochs N     passes over the training set in each run (fashion 3, digits 40)
  --seed N       seed of the first weights and batches (1)
  --seeds N      run seeds N to N + this - 1, 1 to 100 of them, and compare in pairs (1)
  --mode M       modes, with commas between; f32 always runs (all that follow)
  --growth R     the most that d may grow by in a step, as a factor; inf for no limit (1.02)
  --data PATH    Fashion-MNIST's folder, or the digits' file
  --csv, --json  a line or an object for each run, and no tables
  --help         this text

modes:
";

#[derive(Clone, Copy, PartialEq)]
pub enum Problem {
    Fashion,
    Digits,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Output {
    Tables,
    Csv,
    Json,
}

pub struct Args {
    pub problem: Problem,
    pub epochs: Option<usize>,
    pub seed: u64,
    pub seeds: u64,
    pub modes: Vec<Mode>,
    pub growth_rate: f64,
    pub data: Option<PathBuf>,
    pub output: Output,
}

pub fn usage() -> String {
    let mut text = String::from(USAGE);
    for (name, what) in NAMED {
        text += &format!("  {name:<13}  {what}\n");
    }
    text + "  s=q8           single slots, with + between: bf16, q8, nearest\n"
}

/// `None`: help was asked for.
pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut args = Args {
        problem: Problem::Fashion,
        epochs: None,
        seed: 1,
        seeds: 1,
        modes: NAMED[1..].iter().map(|(name, _)| Mode::parse(name)).collect::<Result<_, _>>()?,
        growth_rate: 1.02,
        data: None,
        output: Output::Tables,
    };
    while let Some(option) = given.next() {
        let mut value = || given.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--help" | "-h" => return Ok(None),
            "--problem" => {
                args.problem = match value()?.as_str() {
                    "fashion" => Problem::Fashion,
                    "digits" => Problem::Digits,
                    other => return Err(format!("unknown problem '{other}'")),
                }
            }
            "--epochs" => args.epochs = Some(integer(&option, &value()?)?),
            "--seed" => args.seed = integer(&option, &value()?)?,
            "--seeds" => args.seeds = integer(&option, &value()?)?,
            "--mode" => {
                let modes = value()?;
                let others = modes.split(',').filter(|mode| *mode != "f32");
                args.modes = others.map(Mode::parse).collect::<Result<_, _>>()?;
            }
            "--growth" => {
                let text = value()?;
                let number = text.parse().map_err(|_| format!("{option}: '{text}' is no number"));
                args.growth_rate = number?;
            }
            "--data" => args.data = Some(value()?.into()),
            "--csv" => args.output = Output::Csv,
            "--json" => args.output = Output::Json,
            _ => return Err(format!("unknown option '{option}'")),
        }
    }
    if args.epochs == Some(0) {
        return Err("--epochs must be at least 1".into());
    }
    if !(1..=100).contains(&args.seeds) {
        return Err("--seeds must be from 1 to 100".into());
    }
    Ok(Some(args))
}

fn integer<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option}: '{text}' is not a non-negative integer"))
}
