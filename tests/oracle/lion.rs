//! Lion with D-Adaptation (`dadaptation/dadapt_lion.py`).
//!
//! The package has neither `growth_rate` nor a layer scale. The latter is a change of variables,
//! and cancels wherever only signs of gradients count: it multiplies the step and nothing else.

use super::{Algorithm, Gradients, Group, Oracle, Shared, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "lion", defaults, step };

fn defaults(shared: &mut Shared, _: &mut Group) {
    (shared.beta1, shared.beta2) = (0.9, 0.99);
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, .. } = run.shared;
    let dlr = run.d * lr;
    let frozen = run.frozen;
    let beta3 = beta2.sqrt();

    let (mut numerator, mut sk_l1) = (Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        tensor.started = true;
        for (i, &g) in gradient.iter().enumerate() {
            let (p, m, s) = (&mut tensor.p[i], &mut tensor.m[i], &mut tensor.s[i]);
            let u = sign(beta1 * *m + (1.0 - beta1) * g);

            *p *= 1.0 - dlr * group.weight_decay;
            *p -= group.layer_scale * dlr * u;
            *m = beta2 * *m + (1.0 - beta2) * dlr * g;

            if !frozen && group.counts(i) {
                numerator.add(dlr * u * *s);
                *s = beta3 * *s + (1.0 - beta3) * dlr * u;
                sk_l1.add(s.abs());
            }
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    if sk_l1.value() == 0.0 {
        return false;
    }
    run.numerator = beta3 * run.numerator + (1.0 - beta3) * numerator.value();
    run.denominator = (1.0 - beta3) * sk_l1.value();
    run.finish(run.numerator / run.denominator);
    true
}

/// `f64::signum` knows no zero.
pub(super) fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
