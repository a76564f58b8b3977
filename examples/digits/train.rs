//! One training run.

use std::time::Instant;

use crate::data::Set;
use crate::methods::{Method, Taken};
use crate::mlp::{self, Tensors};
use crate::rng::Rng;

const BATCH: usize = 32;

/// What every run starts from: all of them see the same weights and the same batches.
pub struct Task {
    pub train: Set,
    pub test: Set,
    pub initial: Tensors,
    pub rng: Rng,
    pub epochs: usize,
}

/// A finished run.
pub struct Run {
    /// The loss of each batch, before its step.
    pub losses: Vec<f32>,
    pub taken: Vec<Taken>,
    pub train_loss: f64,
    pub test_accuracy: f64,
    pub seconds: f64,
}

impl Run {
    /// What the best of several runs is chosen by: never the test set. A diverged run comes last.
    pub fn rank(&self) -> f64 {
        if self.train_loss.is_nan() { f64::INFINITY } else { self.train_loss }
    }

    pub fn last(&self) -> Taken {
        self.taken[self.taken.len() - 1]
    }
}

impl Task {
    /// Trains with `method`; calls `tick` after each epoch.
    pub fn run(&self, method: &mut Method, tick: impl Fn()) -> Result<Run, dadapt::Error> {
        let start = Instant::now();
        let mut net = self.initial.clone();
        let mut grads = mlp::zeros();
        let mut rng = self.rng.clone();
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        let (mut losses, mut taken) = (Vec::new(), Vec::new());
        for _ in 0..self.epochs {
            rng.shuffle(&mut order);
            for batch in order.chunks(BATCH) {
                losses.push(mlp::loss_and_gradient(&net, &self.train, batch, &mut grads));
                taken.push(method.step(&mut net, &grads)?);
            }
            tick();
        }
        let seconds = start.elapsed().as_secs_f64();
        let (train_loss, _) = mlp::evaluate(&net, &self.train);
        let (_, test_accuracy) = mlp::evaluate(&net, &self.test);
        Ok(Run { losses, taken, train_loss, test_accuracy, seconds })
    }

    pub fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(BATCH)
    }
}
