//! candle: one optimizer over all variables; gradients lie in a store.

use crate::{Case, numbers};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

pub struct AdamWCase {
    vars: Vec<Var>,
    optimizer: AdamW,
    gradients: [GradStore; 2],
    which: usize,
}

impl AdamWCase {
    pub fn new(lens: &[usize]) -> Self {
        let tensor = |len: usize, seed| {
            Tensor::from_vec(numbers(len, seed), len, &Device::Cpu).expect("memory is there")
        };
        let vars: Vec<Var> = (lens.iter())
            .map(|&len| Var::from_tensor(&tensor(len, 0)).expect("memory is there"))
            .collect();
        let gradients = [1, 2].map(|seed| {
            // A store comes from a backward pass alone.
            let mut store = vars[0].sum_all().and_then(|sum| sum.backward()).expect("a sum");
            for var in &vars {
                store.insert(var, tensor(var.elem_count(), seed));
            }
            store
        });
        let params = ParamsAdamW { lr: 1e-4, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(vars.clone(), params).expect("memory is there");
        Self { vars, optimizer, gradients, which: 0 }
    }
}

impl Case for AdamWCase {
    fn prepare(&mut self, which: usize) {
        self.which = which;
    }

    fn step(&mut self) {
        self.optimizer.step(&self.gradients[self.which]).expect("nothing is wrong with the step");
    }

    fn sample(&self) -> Vec<f32> {
        let first = self.vars[0].narrow(0, 0, self.vars[0].elem_count().min(1000));
        first.and_then(|first| first.to_vec1()).expect("it is a vector of f32")
    }
}
