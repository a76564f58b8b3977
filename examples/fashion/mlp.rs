//! A perceptron with one hidden layer of rectified units; softmax and cross-entropy.
//!
//! Batches go through it a pixel at a time, so that a row of weights is read once for several
//! images; black pixels, half of Fashion-MNIST's, cost nothing. The loops are compiled for the
//! widest instruction set; as each product and sum is rounded alone, the bits are the same on all.

use pulp::Arch;

use crate::rng::Rng;
use crate::set::Set;

/// Images whose hidden units stay in the first cache together.
const TOGETHER: usize = 16;

/// One buffer for each tensor: the parameters, or their gradients. Weights are stored a row per input.
pub type Tensors = [Vec<f32>; 4];

/// Numbers of units.
#[derive(Clone, Copy)]
pub struct Shape {
    pub inputs: usize,
    pub hidden: usize,
    pub classes: usize,
}

impl Shape {
    /// The parameter tensors: names and lengths.
    pub fn tensors(self) -> [(&'static str, usize); 4] {
        let Shape { inputs, hidden, classes } = self;
        [("w1", inputs * hidden), ("b1", hidden), ("w2", hidden * classes), ("b2", classes)]
    }

    pub fn zeros(self) -> Tensors {
        self.tensors().map(|(_, len)| vec![0.0; len])
    }

    /// Weights uniform with the variance 2 / inputs (He et al., 2015), biases zero.
    pub fn initial(self, rng: &mut Rng) -> Tensors {
        let mut tensors = self.zeros();
        for (layer, inputs) in [(0, self.inputs), (2, self.hidden)] {
            let limit = (6.0 / inputs as f32).sqrt();
            tensors[layer].fill_with(|| rng.symmetric(limit));
        }
        tensors
    }
}

/// Working memory for batches.
pub struct Mlp {
    arch: Arch,
    shape: Shape,
    hidden: Vec<f32>,
    dhidden: Vec<f32>,
    /// Of one image after the other: the logits, then the gradient of the batch's mean loss by them.
    logits: Vec<f32>,
}

impl Mlp {
    pub fn new(shape: Shape) -> Self {
        let (hidden, dhidden, logits) = (Vec::new(), Vec::new(), Vec::new());
        Mlp { arch: Arch::new(), shape, hidden, dhidden, logits }
    }

    /// Mean loss over the images of `batch`, and its gradient in `grads`.
    pub fn loss_and_gradient(
        &mut self,
        net: &Tensors,
        set: &Set,
        batch: &[usize],
        grads: &mut Tensors,
    ) -> f32 {
        let arch = self.arch;
        arch.dispatch(|| {
            let (loss, _) = self.forward(net, set, batch);
            self.backward(net, set, batch, grads);
            loss / batch.len() as f32
        })
    }

    /// Mean loss over a whole set, and the share of images that are recognised.
    pub fn evaluate(&mut self, net: &Tensors, set: &Set) -> (f64, f64) {
        let arch = self.arch;
        let all: Vec<usize> = (0..set.len()).collect();
        let (mut loss, mut right) = (0.0, 0);
        for batch in all.chunks(256) {
            let of_batch = arch.dispatch(|| self.forward(net, set, batch));
            loss += f64::from(of_batch.0);
            right += of_batch.1;
        }
        (loss / set.len() as f64, right as f64 / set.len() as f64)
    }

    /// The sum of losses, and how many images are recognised.
    #[inline(always)]
    fn forward(&mut self, [w1, b1, w2, b2]: &Tensors, set: &Set, batch: &[usize]) -> (f32, usize) {
        let Shape { hidden: units, classes, .. } = self.shape;
        self.hidden.clear();
        self.logits.clear();
        for _ in batch {
            self.hidden.extend_from_slice(b1);
            self.logits.extend_from_slice(b2);
        }
        for (batch, hidden) in batch.chunks(TOGETHER).zip(self.hidden.chunks_mut(TOGETHER * units))
        {
            for (pixel, row) in w1.chunks_exact(units).enumerate() {
                for (&i, hidden) in batch.iter().zip(hidden.chunks_exact_mut(units)) {
                    add_scaled(set.image(i)[pixel], row, hidden);
                }
            }
        }
        for h in &mut self.hidden {
            *h = if *h > 0.0 { *h } else { 0.0 };
        }

        let (mut loss, mut right) = (0.0, 0);
        let count = batch.len() as f32;
        let images = self.hidden.chunks_exact(units).zip(self.logits.chunks_exact_mut(classes));
        for (&i, (hidden, logits)) in batch.iter().zip(images) {
            for (&h, row) in hidden.iter().zip(w2.chunks_exact(classes)) {
                add_scaled(h, row, logits);
            }
            let mut guess = 0;
            for class in 1..classes {
                if logits[class] > logits[guess] {
                    guess = class;
                }
            }
            // Without the largest logit taken off, exp could overflow.
            let (largest, target) = (logits[guess], set.labels[i]);
            let of_target = logits[target];
            let mut sum = 0.0;
            for logit in logits.iter_mut() {
                *logit = (*logit - largest).exp();
                sum += *logit;
            }
            loss += sum.ln() - (of_target - largest);
            right += usize::from(guess == target);
            for (class, logit) in logits.iter_mut().enumerate() {
                *logit = (*logit / sum - if class == target { 1.0 } else { 0.0 }) / count;
            }
        }
        (loss, right)
    }

    #[inline(always)]
    fn backward(&mut self, net: &Tensors, set: &Set, batch: &[usize], grads: &mut Tensors) {
        let Shape { hidden: units, classes, .. } = self.shape;
        for tensor in grads.iter_mut() {
            tensor.fill(0.0);
        }
        let [gw1, gb1, gw2, gb2] = grads;
        self.dhidden.clear();
        self.dhidden.resize(self.hidden.len(), 0.0);
        let images = self.hidden.chunks_exact(units).zip(self.logits.chunks_exact(classes));
        for ((hidden, dlogits), dhidden) in images.zip(self.dhidden.chunks_exact_mut(units)) {
            for (unit, (&h, d)) in hidden.iter().zip(&mut *dhidden).enumerate() {
                if h > 0.0 {
                    let place = classes * unit..classes * (unit + 1);
                    add_scaled(h, dlogits, &mut gw2[place.clone()]);
                    *d = net[2][place].iter().zip(dlogits).fold(0.0, |sum, (w, d)| sum + w * d);
                }
            }
            add_scaled(1.0, dhidden, gb1);
            add_scaled(1.0, dlogits, gb2);
        }
        for (pixel, row) in gw1.chunks_exact_mut(units).enumerate() {
            for (&i, dhidden) in batch.iter().zip(self.dhidden.chunks_exact(units)) {
                add_scaled(set.image(i)[pixel], dhidden, row);
            }
        }
    }
}

#[inline(always)]
fn add_scaled(factor: f32, row: &[f32], sum: &mut [f32]) {
    if factor == 0.0 {
        return;
    }
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += factor * x;
    }
}
