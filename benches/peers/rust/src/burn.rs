//! burn: a module of parameters, mapped by its optimizer, which may use up the gradients.

use crate::{Case, numbers};
use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};

#[derive(Module, Debug)]
struct Parameters {
    tensors: Vec<Param<Tensor<1>>>,
}

pub struct AdamWCase {
    module: Option<Parameters>,
    optimizer: ModuleOptimizer,
    gradients: GradientsParams,
    device: Device,
}

pub fn flex() -> Device {
    Device::flex()
}

#[allow(deprecated)] // still the backend of many programs
pub fn ndarray() -> Device {
    Device::ndarray()
}

fn tensor(len: usize, seed: usize, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(numbers(len, seed), [len]), device)
}

impl AdamWCase {
    pub fn new(lens: &[usize], device: Device) -> Self {
        // As in training: parameters are tracked, gradients are not.
        let tracked = device.clone().autodiff();
        let tensors =
            lens.iter().map(|&len| Param::from_tensor(tensor(len, 0, &tracked))).collect();
        let optimizer = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8).init();
        let gradients = GradientsParams::new();
        Self { module: Some(Parameters { tensors }), optimizer, gradients, device }
    }

    fn module(&self) -> &Parameters {
        self.module.as_ref().expect("each step puts it back")
    }
}

impl Case for AdamWCase {
    /// New gradients each time, as a backward pass gives them: the step may then work in place.
    fn prepare(&mut self, which: usize) {
        self.gradients = GradientsParams::new();
        for param in &self.module.as_ref().expect("each step puts it back").tensors {
            let len = param.shape().num_elements();
            self.gradients.register(param.id, tensor(len, 1 + which, &self.device));
        }
    }

    fn step(&mut self) {
        let module = self.module.take().expect("each step puts it back");
        let gradients = std::mem::take(&mut self.gradients);
        self.module = Some(self.optimizer.step(1e-4, module, gradients));
    }

    fn sample(&self) -> Vec<f32> {
        let first = self.module().tensors[0].val();
        let len = first.shape().num_elements().min(1000);
        first.slice(0..len).into_data().try_to_vec().expect("it is a vector of f32")
    }
}
