//! Measures AdamW of candle and burn, by the protocol of `worker.py`.

mod burn;
mod candle;

use std::io::{BufRead, Write};
use std::time::Instant;

/// Steps that a case has made before it is measured; as in `worker.py`.
const WARM_UP: usize = 6;

/// An optimizer with its tensors and two gradients of each.
trait Case {
    /// Hands the optimizer a gradient, the first or the second; not measured.
    fn prepare(&mut self, which: usize);
    /// One step.
    fn step(&mut self);
    /// Some parameters, to see that they moved and are finite.
    fn sample(&self) -> Vec<f32>;
}

/// Numbers between -0.01 and 0.01 that repeat after 1,009, a prime.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i % 1009 * 541 + seed * 97) % 1009) as f32 * 2e-5 - 1e-2).collect()
}

fn main() {
    let mut case: Option<(Box<dyn Case>, Vec<f32>)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the driver writes lines");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["setup", name, lens] => {
                let lens: Vec<usize> =
                    lens.split(',').map(|len| len.parse().expect("a length")).collect();
                let mut made: Box<dyn Case> = match name.trim_end_matches("_tuned") {
                    "candle_adamw" => Box::new(candle::AdamWCase::new(&lens)),
                    "burn_flex_adamw" => Box::new(burn::AdamWCase::new(&lens, burn::flex())),
                    "burn_ndarray_adamw" => Box::new(burn::AdamWCase::new(&lens, burn::ndarray())),
                    _ => panic!("no peer has the name {name}"),
                };
                let before = made.sample();
                run(made.as_mut(), WARM_UP);
                case = Some((made, before));
                "ready".to_owned()
            }
            ["run", untimed, steps] => {
                let (case, _) = case.as_mut().expect("setup comes first");
                let steps_of = |word: &str| word.parse().expect("a number of steps");
                run(case.as_mut(), steps_of(untimed));
                format!("{:e}", run(case.as_mut(), steps_of(steps)))
            }
            ["check"] => {
                let (case, before) = case.as_ref().expect("setup comes first");
                let after = case.sample();
                let moved = after.iter().zip(before).filter(|(a, b)| a != b).count();
                if after.iter().any(|x| !x.is_finite()) {
                    "bad not finite".to_owned()
                } else if moved * 10 < after.len() * 9 {
                    format!("bad only {moved} of {} parameters moved", after.len())
                } else {
                    "ok".to_owned()
                }
            }
            _ => panic!("not a command: {line}"),
        };
        println!("{answer}");
        std::io::stdout().flush().expect("the driver reads");
    }
}

/// Seconds that the steps took, without what hands over the gradients.
fn run(case: &mut dyn Case, steps: usize) -> f64 {
    let mut seconds = 0.0;
    for step in 0..steps {
        case.prepare(step % 2);
        let start = Instant::now();
        case.step();
        seconds += start.elapsed().as_secs_f64();
    }
    seconds
}
