//! One training run.

use std::time::Instant;

use crate::mlp::{Mlp, Shape, Tensors};
use crate::modes::{Method, Mode};
use crate::rng::Rng;
use crate::set::Set;

/// What every run of a seed starts from: all of them see the same weights and the same batches.
pub struct Task<'a> {
    pub train: &'a Set,
    pub test: &'a Set,
    pub shape: Shape,
    pub initial: Tensors,
    pub rng: Rng,
    pub epochs: usize,
    pub batch: usize,
    /// 1.02 acts as a warm-up, as in the digits example.
    pub growth_rate: f64,
    /// Of the noise of stochastic rounding.
    pub seed: u64,
}

/// A finished run.
pub struct Run {
    /// After each step.
    pub d: Vec<f64>,
    pub train_loss: f64,
    pub test_accuracy: f64,
    pub seconds: f64,
    pub state_bytes: usize,
    /// The share of second moments other than 0 that the second half of the run left as they were,
    /// to the bit.
    pub stuck: f64,
    /// Of other modes that were given the same gradients.
    pub shadows: Vec<Shadow>,
}

/// What a mode makes of the gradients of another's run.
pub struct Shadow {
    /// After each step.
    pub d: Vec<f64>,
    /// The sum of its second moments at the end, relative to that of the run.
    pub v: f64,
}

impl Task<'_> {
    /// Trains in a mode; calls `tick` after each epoch. The gradients go to `others` too, which have no
    /// say: that their `d` differs is due to their state alone, and not to another path.
    pub fn run(&self, mode: &Mode, others: &[Mode], tick: impl Fn()) -> Result<Run, dadapt::Error> {
        let start = Instant::now();
        let mut net = self.initial.clone();
        let mut method = Method::new(mode, self.shape, (self.growth_rate, self.seed), &mut net)?;
        let mut shadows = Vec::new();
        for mode in others {
            let mut net = self.initial.clone();
            shadows.push((
                Method::new(mode, self.shape, (self.growth_rate, self.seed), &mut net)?,
                net,
                Vec::new(),
            ));
        }
        let (mut mlp, mut grads) = (Mlp::new(self.shape), self.shape.zeros());
        let mut rng = self.rng.clone();
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        let (mut d, mut halfway) = (Vec::new(), Vec::new());
        for epoch in 0..self.epochs {
            if epoch == self.epochs / 2 {
                halfway = method.second_moments()?;
            }
            rng.shuffle(&mut order);
            for batch in order.chunks(self.batch) {
                mlp.loss_and_gradient(&net, self.train, batch, &mut grads);
                d.push(method.step(&mut net, &grads)?);
                for (method, net, d) in &mut shadows {
                    d.push(method.step(net, &grads)?);
                }
            }
            tick();
        }
        let seconds = start.elapsed().as_secs_f64();
        let (train_loss, _) = mlp.evaluate(&net, self.train);
        let (_, test_accuracy) = mlp.evaluate(&net, self.test);
        let end = method.second_moments()?;
        let pairs: Vec<_> =
            halfway.iter().zip(&end).filter(|(before, _)| **before != 0.0).collect();
        let same = pairs.iter().filter(|(before, after)| before == after).count();
        let stuck = same as f64 / pairs.len().max(1) as f64;
        let sum = end.iter().sum::<f64>();
        let shadows = shadows.into_iter().map(|(method, _, d)| {
            Ok(Shadow { d, v: method.second_moments()?.iter().sum::<f64>() / sum })
        });
        let shadows = shadows.collect::<Result<_, dadapt::Error>>()?;
        let state_bytes = method.state_bytes()?;
        Ok(Run { d, train_loss, test_accuracy, seconds, state_bytes, stuck, shadows })
    }
}

/// How far `d` is from another run's, relatively, at the step where that is the most, of those in
/// which the other's has left its start, `d0`, by more than a factor of 2.
pub fn deviation(d: &[f64], other: &[f64], d0: f64) -> f64 {
    let pairs = d.iter().zip(other).filter(|(_, other)| **other > 2.0 * d0);
    pairs.fold(0.0, |most, (d, other)| (d / other - 1.0).abs().max(most))
}
