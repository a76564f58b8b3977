//! The four methods that are compared, behind one trait.

use dadapt::{Algorithm, Config, DType, GroupId, Key, Optimizer, TensorId, TensorStep};

use crate::mlp::{TENSORS, Tensors, zeros};

/// What a step reports: D-Adaptation's estimate (0 without one), and the rate it was taken with.
#[derive(Clone, Copy)]
pub struct Taken {
    pub d: f64,
    pub rate: f64,
}

/// An optimizer: moves `net` against its gradient.
pub trait Method {
    fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<Taken, dadapt::Error>;
}

/// Momentum of both SGDs.
const MOMENTUM: f64 = 0.9;

/// D-Adaptation, by the library. The learning rate stays at 1, for every problem.
pub struct DAdapt {
    optimizer: Optimizer,
    ids: Vec<TensorId>,
}

impl DAdapt {
    pub fn new(algorithm: Algorithm) -> Result<Self, dadapt::Error> {
        let mut config = Config::new(algorithm);
        config.set(Key::Lr, 1.0)?;
        // Unlimited (the default), d answers to the first, steepest batches, and constant steps of
        // that length can be too long for the rest. At most 2 % a step, as the reference package
        // advises for unstable training, act as a warm-up.
        config.set(Key::GrowthRate, 1.02)?;
        if algorithm == Algorithm::Sgd {
            config.set(Key::Momentum, MOMENTUM)?;
        }
        let mut optimizer = Optimizer::new(&config)?;
        let mut ids = Vec::new();
        for (name, len) in TENSORS {
            ids.push(optimizer.add_tensor(GroupId::FIRST, name, DType::F32, len)?);
        }
        Ok(Self { optimizer, ids })
    }
}

impl Method for DAdapt {
    fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<Taken, dadapt::Error> {
        let mut tensors: Vec<TensorStep> = Vec::with_capacity(net.len());
        for ((&id, p), g) in self.ids.iter().zip(net).zip(grads) {
            tensors.push(TensorStep::new(id, p.as_mut_slice(), g.as_slice()));
        }
        let report = self.optimizer.step(&mut tensors)?;
        Ok(Taken { d: report.d, rate: report.dlr })
    }
}

/// SGD with momentum, as D-Adapt SGD has it: m averages the gradients, so that the rate keeps its
/// meaning.
pub struct Sgd {
    lr: f64,
    m: Tensors,
}

impl Sgd {
    pub fn new(lr: f64) -> Self {
        Self { lr, m: zeros() }
    }
}

impl Method for Sgd {
    fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<Taken, dadapt::Error> {
        for ((p, g), m) in net.iter_mut().zip(grads).zip(&mut self.m) {
            for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                *m += (1.0 - MOMENTUM as f32) * (g - *m);
                *p -= self.lr as f32 * *m;
            }
        }
        Ok(Taken { d: 0.0, rate: self.lr })
    }
}

/// Adam as published (Kingma and Ba, 2015), with bias correction.
pub struct Adam {
    lr: f64,
    steps: i32,
    m: Tensors,
    v: Tensors,
}

impl Adam {
    const BETA1: f32 = 0.9;
    const BETA2: f32 = 0.999;
    const EPS: f32 = 1e-8;

    pub fn new(lr: f64) -> Self {
        Self { lr, steps: 0, m: zeros(), v: zeros() }
    }
}

impl Method for Adam {
    fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<Taken, dadapt::Error> {
        self.steps += 1;
        let scale_m = 1.0 / (1.0 - Self::BETA1.powi(self.steps));
        let scale_v = 1.0 / (1.0 - Self::BETA2.powi(self.steps));
        for (((p, g), m), v) in net.iter_mut().zip(grads).zip(&mut self.m).zip(&mut self.v) {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                *m += (1.0 - Self::BETA1) * (g - *m);
                *v += (1.0 - Self::BETA2) * (g * g - *v);
                *p -= self.lr as f32 * scale_m * *m / ((scale_v * *v).sqrt() + Self::EPS);
            }
        }
        Ok(Taken { d: 0.0, rate: self.lr })
    }
}
