//! A second moment in fewer bits: why it is rounded stochastically.
//!
//! With beta2 = 0.999 an update changes it by a thousandth at most of what it is, or of the square that
//! comes in. The places of bf16 are 1/128 to 1/256 apart: an update is under half of one.

use dadapt::{Algorithm, Config, Key, State, bf16};

use crate::isas::scaled_len;
use crate::run::Run;

const LEN: usize = 4096;
const PHASE: usize = 1500;
/// Gradients of two phases: a rise from 0, and a fall.
const GRADIENTS: [f32; 2] = [1.0, 0.0625];

/// Each element's second moment after either phase; `after` has a hand in the state after each step.
fn second_moments(state: State, after: impl Fn(&mut Run<f32>)) -> [Vec<f64>; 2] {
    let mut config = Config::new(Algorithm::Adam);
    config.set(Key::NumThreads, 1).unwrap().set(Key::State, state).unwrap();
    // A gradient that stays the same would send d to infinity.
    config.set(Key::GrowthRate, 1.0).unwrap();
    let len = scaled_len(LEN, LEN / 16);
    let mut run = Run::<f32>::new(&config);
    run.add(0, vec![1.0; len]);
    GRADIENTS.map(|g| {
        for _ in 0..PHASE {
            run.step(&[Some(&vec![g; len])]).unwrap();
            after(&mut run);
        }
        run.optimizer.state_values(run.ids[0], "exp_avg_sq").unwrap()
    })
}

/// What it is in exact arithmetic.
fn truth() -> [f64; 2] {
    let mut v = 0.0;
    GRADIENTS.map(|g| {
        for _ in 0..PHASE {
            v = 0.999 * v + 0.001 * f64::from(g * g);
        }
        v
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn second_moment_rounded_to_nearest_stays_stuck() {
    let nearest = second_moments(State::Full, |run| {
        for v in run.optimizer.state_mut::<f32>(run.ids[0], "exp_avg_sq").unwrap() {
            *v = bf16::from_f32(*v).to_f32();
        }
    });
    // A quarter is where an update falls below half a place, on the way up; and on the way down it
    // never was above.
    for after in &nearest {
        assert!(after.iter().all(|v| *v == 0.25), "{}", mean(after));
    }
    let [risen, fallen] = truth();
    assert!(risen > 0.77 && fallen < 0.18, "{risen} {fallen}");
}

/// bf16 keeps an element within a tenth, 8 bits within a half or so, and the mean of 4096 elements within
/// five of its standard deviations, which are 64 times less.
#[test]
fn second_moment_rounded_stochastically_follows() {
    for (state, most) in [(State::Full, 0.0), (State::Bf16, 0.1), (State::Q8, 0.6)] {
        let kept = second_moments(state, |_| {});
        for (values, truth) in kept.iter().zip(truth()) {
            let mean = mean(values);
            let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
            let deviation = (squares / values.len() as f64).sqrt() / truth;
            let off = mean / truth - 1.0;
            println!("{state:?}: {truth:.4} off by {off:+.5}, one element by {deviation:.4}");
            assert!(deviation <= most, "{state:?}: one element's deviation is {deviation}");
            // What f32 rounds itself is a part in 10,000.
            let bound = 1e-4 + 5.0 * deviation / (values.len() as f64).sqrt();
            assert!(off.abs() < bound, "{state:?}: {mean} and not {truth}");
        }
    }
}
