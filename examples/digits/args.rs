//! The command line.

use std::path::PathBuf;

pub const USAGE: &str = "\
Trains a small network on handwritten digits: with D-Adaptation (Adam, SGD, AdaGrad, Adan),
which needs no learning rate, and with plain Adam and SGD over a grid of rates.

usage: digits [options]

  --epochs N     passes over the training set in each run (40)
  --seed N       seed of the split, the initial weights and the batches (1)
  --data FILE    the digits (examples/data/digits.csv)
  --out DIR      where digits.svg goes (target)
  --losses FILE  also write every step of the runs that find d: method, step,
                 bits of the loss (f32) and of d (f64) in hexadecimal
  --help         this text
";

pub struct Args {
    pub epochs: usize,
    pub seed: u64,
    pub data: PathBuf,
    pub out: PathBuf,
    pub losses: Option<PathBuf>,
}

/// `None`: help was asked for.
pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut args = Args {
        epochs: 40,
        seed: 1,
        data: concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv").into(),
        out: "target".into(),
        losses: None,
    };
    while let Some(option) = given.next() {
        let mut value = || given.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--help" | "-h" => return Ok(None),
            "--epochs" => args.epochs = integer(&option, &value()?)?,
            "--seed" => args.seed = integer(&option, &value()?)?,
            "--data" => args.data = value()?.into(),
            "--out" => args.out = value()?.into(),
            "--losses" => args.losses = Some(value()?.into()),
            _ => return Err(format!("unknown option '{option}'")),
        }
    }
    if args.epochs == 0 {
        return Err("--epochs must be at least 1".into());
    }
    Ok(Some(args))
}

fn integer<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option}: '{text}' is not a non-negative integer"))
}
