//! SGD, Adam (AdamW) and AdaGrad at a rate set by hand, as in `torch.optim`; Lion
//! (arXiv:2302.06675) as in `lion-pytorch`, Adan (arXiv:2208.06677) as in its authors' package. d is
//! 1 and stays so.
//!
//! A step makes progress if any tensor takes part in it; nothing divides by a sum here.

use super::{Algorithm, Gradients, Group, Oracle, Shared, lion::sign};

pub const SGD: Algorithm = Algorithm { name: "plain_sgd", defaults: sgd_defaults, step: sgd };
pub const ADAM: Algorithm = Algorithm { name: "plain_adam", defaults: adam_defaults, step: adam };
pub const ADAGRAD: Algorithm =
    Algorithm { name: "plain_adagrad", defaults: adagrad_defaults, step: adagrad };
pub const LION: Algorithm = Algorithm { name: "plain_lion", defaults: lion_defaults, step: lion };
pub const ADAN: Algorithm = Algorithm { name: "plain_adan", defaults: adan_defaults, step: adan };

fn sgd_defaults(shared: &mut Shared, group: &mut Group) {
    (shared.d0, group.lr) = (1.0, 1e-3);
}

fn adam_defaults(shared: &mut Shared, group: &mut Group) {
    (shared.d0, group.lr) = (1.0, 1e-3);
    (shared.beta1, shared.beta2, group.eps) = (0.9, 0.999, 1e-8);
}

fn adagrad_defaults(shared: &mut Shared, group: &mut Group) {
    (shared.d0, group.lr) = (1.0, 1e-2);
    group.eps = 1e-10;
}

fn lion_defaults(shared: &mut Shared, group: &mut Group) {
    (shared.d0, group.lr) = (1.0, 1e-4);
    (shared.beta1, shared.beta2) = (0.9, 0.99);
}

fn adan_defaults(shared: &mut Shared, group: &mut Group) {
    (shared.d0, group.lr) = (1.0, 1e-3);
    (shared.beta1, shared.beta2, shared.beta3) = (0.98, 0.92, Some(0.99));
    group.eps = 1e-8;
}

fn sgd(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let mut progress = false;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        progress = true;
        for (i, &given) in gradient.iter().enumerate() {
            let (p, m) = (&mut tensor.p[i], &mut tensor.m[i]);
            let g = given + group.weight_decay * *p;
            // The first momentum is the gradient, whatever the dampening.
            let taken = if tensor.started { 1.0 - group.dampening } else { 1.0 };
            *m = group.momentum * *m + taken * g;
            *p -= group.layer_scale * lr * if group.momentum == 0.0 { g } else { *m };
        }
        tensor.started = true;
    }
    run.k += u64::from(progress);
    progress
}

/// As torch has it: steps are counted for each tensor, and eps joins the corrected root.
fn adam(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, .. } = run.shared;
    let mut progress = false;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        progress = true;
        tensor.started = true;
        tensor.steps += 1;
        let count = tensor.steps as f64;
        let rate = lr / (1.0 - beta1.powf(count));
        let root_of_correction = (1.0 - beta2.powf(count)).sqrt();
        for (i, &given) in gradient.iter().enumerate() {
            let (p, m, v) = (&mut tensor.p[i], &mut tensor.m[i], &mut tensor.v[i]);
            let g = if group.decouple { given } else { given + group.weight_decay * *p };
            if group.decouple {
                *p *= 1.0 - lr * group.weight_decay;
            }
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p -= group.layer_scale * rate * *m / (v.sqrt() / root_of_correction + group.eps);
        }
    }
    run.k += u64::from(progress);
    progress
}

fn adagrad(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let mut progress = false;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        progress = true;
        tensor.started = true;
        for (i, &given) in gradient.iter().enumerate() {
            let (p, a) = (&mut tensor.p[i], &mut tensor.v[i]);
            let g = given + group.weight_decay * *p;
            *a += g * g;
            *p -= group.layer_scale * lr * g / (a.sqrt() + group.eps);
        }
    }
    run.k += u64::from(progress);
    progress
}

fn lion(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, .. } = run.shared;
    let mut progress = false;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        progress = true;
        tensor.started = true;
        for (i, &g) in gradient.iter().enumerate() {
            let (p, m) = (&mut tensor.p[i], &mut tensor.m[i]);
            *p *= 1.0 - lr * group.weight_decay;
            *p -= group.layer_scale * lr * sign(beta1 * *m + (1.0 - beta1) * g);
            *m = beta2 * *m + (1.0 - beta2) * g;
        }
    }
    run.k += u64::from(progress);
    progress
}

/// Unlike D-Adaptation's, it corrects the bias of all three means. The package counts the steps of a
/// group; here a tensor has its own, as in [`adam`].
fn adan(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, beta3, .. } = run.shared;
    let beta3 = beta3.expect("Adan has three betas");
    let mut progress = false;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        progress = true;
        if !tensor.started {
            tensor.started = true;
            tensor.h.copy_from_slice(gradient);
        }
        tensor.steps += 1;
        let share_of = |beta: f64| 1.0 - beta.powf(tensor.steps as f64);
        let (of_m, of_e, of_root) = (share_of(beta1), share_of(beta2), share_of(beta3).sqrt());
        for (i, &g) in gradient.iter().enumerate() {
            let (p, m, v) = (&mut tensor.p[i], &mut tensor.m[i], &mut tensor.v[i]);
            let (e, h) = (&mut tensor.e[i], &mut tensor.h[i]);
            let difference = g - *h;
            let u = g + beta2 * difference;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *e = beta2 * *e + (1.0 - beta2) * difference;
            *v = beta3 * *v + (1.0 - beta3) * u * u;

            let q = (*m / of_m + beta2 * *e / of_e) / (v.sqrt() / of_root + group.eps);
            let move_by = group.layer_scale * lr * q;
            *p = if group.no_prox {
                *p * (1.0 - lr * group.weight_decay) - move_by
            } else {
                (*p - move_by) / (1.0 + lr * group.weight_decay)
            };
            *h = g;
        }
    }
    run.k += u64::from(progress);
    progress
}
