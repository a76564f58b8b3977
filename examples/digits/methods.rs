//! An optimizer of the library over the network's tensors.

use dadapt::{Algorithm, Config, DType, GroupId, Key, Optimizer, TensorId, TensorStep};

use crate::mlp::{TENSORS, Tensors};

/// What a step reports: the estimate, and the rate it was taken with.
#[derive(Clone, Copy)]
pub struct Taken {
    pub d: f64,
    pub rate: f64,
}

/// Moves a network against its gradient.
pub struct Method {
    optimizer: Optimizer,
    ids: Vec<TensorId>,
}

impl Method {
    /// One that finds its rate. The learning rate stays at 1, for every problem.
    pub fn adapting(algorithm: Algorithm) -> Result<Self, dadapt::Error> {
        let mut config = Config::new(algorithm);
        config.set(Key::Lr, 1.0)?;
        // Unlimited (the default), d answers to the first, steepest batches, and constant steps of
        // that length can be too long for the rest. At most 2 % a step, as the reference package
        // advises for unstable training, act as a warm-up.
        config.set(Key::GrowthRate, 1.02)?;
        if algorithm == Algorithm::Sgd {
            config.set(Key::Momentum, 0.9)?;
        }
        Self::new(&config)
    }

    /// One whose rate is set by hand.
    pub fn plain(algorithm: Algorithm, lr: f64) -> Result<Self, dadapt::Error> {
        let mut config = Config::new(algorithm);
        config.set(Key::Lr, lr)?;
        if algorithm == Algorithm::PlainSgd {
            // As D-Adapt SGD has it: a mean of gradients, so that the rate keeps its meaning.
            config.set(Key::Momentum, 0.9)?.set(Key::Dampening, 0.9)?;
        }
        Self::new(&config)
    }

    fn new(config: &Config) -> Result<Self, dadapt::Error> {
        let mut optimizer = Optimizer::new(config)?;
        let mut ids = Vec::new();
        for (name, len) in TENSORS {
            ids.push(optimizer.add_tensor(GroupId::FIRST, name, DType::F32, len)?);
        }
        Ok(Self { optimizer, ids })
    }

    pub fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<Taken, dadapt::Error> {
        let mut tensors: Vec<TensorStep> = Vec::with_capacity(net.len());
        for ((&id, p), g) in self.ids.iter().zip(net).zip(grads) {
            tensors.push(TensorStep::new(id, p.as_mut_slice(), g.as_slice()));
        }
        let report = self.optimizer.step(&mut tensors)?;
        Ok(Taken { d: report.d, rate: report.dlr })
    }
}
