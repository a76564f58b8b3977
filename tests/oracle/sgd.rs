//! SGD with D-Adaptation (`dadaptation/dadapt_sgd.py`).
//!
//! The layer scale r is the change of variables x = sqrt(r)*x', which the package knows only for
//! Adam: written back in x, it weighs every sum and scales the distance from x0.

use super::{Algorithm, Gradients, Group, Oracle, Tensor, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "sgd", defaults: |_, _| {}, step };

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    if run.k == 0 {
        run.g0 = first_gradient_norm(&mut run.tensors, &run.groups, gradients);
    }
    if run.g0 == 0.0 {
        return false;
    }
    let dlr = run.d * lr / run.g0;

    let (mut numerator, mut sk_sq) = (Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let (r, decay, momentum) = (group.layer_scale, group.weight_decay, group.momentum);
        if !tensor.started {
            tensor.started = true;
            tensor.x0.copy_from_slice(&tensor.p);
        }
        for (i, &given) in gradient.iter().enumerate() {
            let (p, s) = (&mut tensor.p[i], &mut tensor.s[i]);
            let g = given + decay * *p;

            numerator.add(r * dlr * g * *s);
            *s += dlr * g;
            sk_sq.add(r * *s * *s);

            *p = momentum * *p + (1.0 - momentum) * (tensor.x0[i] - r * *s);
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    if sk_sq.value() == 0.0 {
        return false;
    }
    run.numerator += numerator.value();
    run.denominator = sk_sq.value().sqrt();
    run.finish(2.0 * run.numerator / run.denominator);
    true
}

/// Of the gradient as given, before weight decay.
fn first_gradient_norm(tensors: &mut [Tensor], groups: &[Group], gradients: &Gradients) -> f64 {
    let mut squares = Sum::default();
    for (_, gradient, group) in Oracle::active(tensors, groups, gradients) {
        gradient.iter().for_each(|g| squares.add(group.layer_scale * g * g));
    }
    squares.value().sqrt()
}
