//! A perceptron with one hidden layer: 64 pixels, 32 rectified units, 10 classes; softmax and
//! cross-entropy.
//!
//! Every sum is taken in the order it is written, so that another language can repeat the bits.
//! Where the time goes, the inner loop adds a multiple of one row to another, which compilers
//! vectorise as it stands.

use crate::data::{CLASSES, PIXELS, Set};
use crate::rng::Rng;

const HIDDEN: usize = 32;
/// The parameter tensors: names and lengths. Weights are stored a row per input.
pub const TENSORS: [(&str, usize); 4] =
    [("w1", PIXELS * HIDDEN), ("b1", HIDDEN), ("w2", HIDDEN * CLASSES), ("b2", CLASSES)];
/// One buffer for each of `TENSORS`: the parameters, or their gradients.
pub type Tensors = [Vec<f32>; 4];

pub fn zeros() -> Tensors {
    TENSORS.map(|(_, len)| vec![0.0; len])
}

/// Weights uniform with the variance 2 / inputs (He et al., 2015), biases zero.
pub fn initial(rng: &mut Rng) -> Tensors {
    let mut tensors = zeros();
    for (layer, inputs) in [(0, PIXELS), (2, HIDDEN)] {
        let limit = (6.0 / inputs as f32).sqrt();
        tensors[layer].fill_with(|| rng.symmetric(limit));
    }
    tensors
}

/// What the forward pass leaves behind for one image.
struct Pass {
    hidden: [f32; HIDDEN],
    /// exp(logit - largest logit), and their sum.
    exps: [f32; CLASSES],
    sum: f32,
    loss: f32,
    guess: usize,
}

/// Mean loss over the images of `batch`, and its gradient in `grads`.
pub fn loss_and_gradient(net: &Tensors, set: &Set, batch: &[usize], grads: &mut Tensors) -> f32 {
    for tensor in grads.iter_mut() {
        tensor.fill(0.0);
    }
    let [gw1, gb1, gw2, gb2] = grads;
    let count = batch.len() as f32;
    let mut total = 0.0;
    for &i in batch {
        let pass = forward(net, set.image(i), set.digit(i));
        total += pass.loss;

        let mut dlogits = [0.0; CLASSES];
        for (class, dlogit) in dlogits.iter_mut().enumerate() {
            let target = if class == set.digit(i) { 1.0 } else { 0.0 };
            *dlogit = (pass.exps[class] / pass.sum - target) / count;
        }
        let mut dhidden = [0.0; HIDDEN];
        for (unit, &hidden) in pass.hidden.iter().enumerate() {
            add_scaled(hidden, &dlogits, &mut gw2[CLASSES * unit..CLASSES * (unit + 1)]);
            if hidden > 0.0 {
                let row = &net[2][CLASSES * unit..CLASSES * (unit + 1)];
                dhidden[unit] = row.iter().zip(&dlogits).fold(0.0, |sum, (w, d)| sum + w * d);
            }
        }
        for (&x, row) in set.image(i).iter().zip(gw1.chunks_exact_mut(HIDDEN)) {
            add_scaled(x, &dhidden, row);
        }
        add_scaled(1.0, &dhidden, gb1);
        add_scaled(1.0, &dlogits, gb2);
    }
    total / count
}

/// Mean loss over a whole set, and the share of images whose digit is recognised.
pub fn evaluate(net: &Tensors, set: &Set) -> (f64, f64) {
    let (mut loss, mut right) = (0.0, 0);
    for i in 0..set.len() {
        let pass = forward(net, set.image(i), set.digit(i));
        loss += f64::from(pass.loss);
        right += usize::from(pass.guess == set.digit(i));
    }
    (loss / set.len() as f64, right as f64 / set.len() as f64)
}

fn forward([w1, b1, w2, b2]: &Tensors, image: &[f32], digit: usize) -> Pass {
    let mut hidden = [0.0; HIDDEN];
    hidden.copy_from_slice(b1);
    for (&x, row) in image.iter().zip(w1.chunks_exact(HIDDEN)) {
        add_scaled(x, row, &mut hidden);
    }
    for h in &mut hidden {
        *h = if *h > 0.0 { *h } else { 0.0 };
    }
    let mut logits = [0.0; CLASSES];
    logits.copy_from_slice(b2);
    for (&h, row) in hidden.iter().zip(w2.chunks_exact(CLASSES)) {
        add_scaled(h, row, &mut logits);
    }

    let mut guess = 0;
    for class in 1..CLASSES {
        if logits[class] > logits[guess] {
            guess = class;
        }
    }
    // Without the largest logit taken off, exp could overflow.
    let largest = logits[guess];
    let exps = logits.map(|logit| (logit - largest).exp());
    let sum: f32 = exps.iter().fold(0.0, |sum, e| sum + e);
    let loss = sum.ln() - (logits[digit] - largest);
    Pass { hidden, exps, sum, loss, guess }
}

/// y <- y + a*x, rounded twice: Rust never fuses the two on its own.
fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}
