//! Adam with D-Adaptation, version 3 (`dadaptation/dadapt_adam.py`).

use super::{Algorithm, Gradients, Group, Oracle, Shared, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "adam", defaults, step };

fn defaults(shared: &mut Shared, group: &mut Group) {
    (shared.beta1, shared.beta2) = (0.9, 0.999);
    group.eps = 1e-8;
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, use_bias_correction, .. } = run.shared;
    let count = (run.k + 1) as f64;
    let correction = if use_bias_correction {
        (1.0 - beta2.powf(count)).sqrt() / (1.0 - beta1.powf(count))
    } else {
        1.0
    };
    let dlr = run.d * lr * correction;
    let frozen = run.frozen;
    let beta3 = beta2.sqrt();

    let (mut numerator, mut sk_l1) = (Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let (r, decay, eps) = (group.layer_scale, group.weight_decay, group.eps);
        tensor.started = true;
        for (i, &given) in gradient.iter().enumerate() {
            let p = &mut tensor.p[i];
            let (m, v, s) = (&mut tensor.m[i], &mut tensor.v[i], &mut tensor.s[i]);
            let g = if group.decouple { given } else { given + decay * *p };

            if !frozen && group.counts(i) {
                numerator.add(r * dlr * g * (*s / (v.sqrt() + eps)));
                *s = beta3 * *s + dlr * (1.0 - beta3) * g;
                sk_l1.add(r * s.abs());
            }
            *m = beta1 * *m + r * dlr * (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;

            if group.decouple {
                *p -= decay * dlr * *p;
            }
            *p -= *m / (v.sqrt() + eps);
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    // Not `<=`: a NaN is no reason to undo the step.
    if sk_l1.value() == 0.0 {
        return false;
    }
    run.numerator = beta3 * run.numerator + (1.0 - beta3) * numerator.value();
    run.denominator = (1.0 - beta3) * sk_l1.value();
    run.finish(run.numerator / run.denominator);
    true
}
