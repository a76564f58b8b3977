//! Prodigy (`prodigyopt/prodigy.py`). Two sweeps, as its parameters move by the new d.

use super::{Algorithm, Gradients, Group, Oracle, Shared, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "prodigy", defaults, step };

fn defaults(shared: &mut Shared, group: &mut Group) {
    (shared.beta1, shared.beta2) = (0.9, 0.999);
    (group.eps, group.decouple) = (1e-8, true);
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { d0, beta1, beta2, beta3, use_bias_correction, .. } = run.shared;
    let beta3 = beta3.unwrap_or(beta2.sqrt());
    let count = (run.k + 1) as f64;
    let correction = if use_bias_correction {
        (1.0 - beta2.powf(count)).sqrt() / (1.0 - beta1.powf(count))
    } else {
        1.0
    };
    let old = run.d;
    let dlr = old * lr * correction;
    let frozen = run.frozen;

    let (mut numerator, mut sk_l1) = (Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let r = group.layer_scale;
        if !tensor.started {
            tensor.started = true;
            tensor.x0.copy_from_slice(&tensor.p);
        }
        let weight = old / d0 * if group.safeguard_warmup { old } else { dlr };
        for (i, &given) in gradient.iter().enumerate() {
            let (p, m, v, s) = (tensor.p[i], &mut tensor.m[i], &mut tensor.v[i], &mut tensor.s[i]);
            let g = if group.decouple { given } else { given + group.weight_decay * p };
            *m = beta1 * *m + old * (1.0 - beta1) * g;
            *v = beta2 * *v + old * old * (1.0 - beta2) * g * g;
            if !frozen && group.counts(i) {
                numerator.add(old / d0 * dlr * g * (tensor.x0[i] - p));
                *s = beta3 * *s + weight * g;
                sk_l1.add(r * s.abs());
            }
        }
    }
    if frozen {
        if !run.finish_frozen(gradients) {
            return false;
        }
    } else {
        if sk_l1.value() == 0.0 {
            return false;
        }
        run.numerator = beta3 * run.numerator + numerator.value();
        run.denominator = sk_l1.value();
        finish(run);
    }

    let new = run.d;
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let (r, decay) = (group.layer_scale, group.weight_decay);
        for (i, &given) in gradient.iter().enumerate() {
            let p = &mut tensor.p[i];
            let root = tensor.v[i].sqrt() + new * group.eps;
            let g = if group.decouple { given } else { given + decay * *p };
            if group.decouple {
                *p -= decay * dlr * *p;
            }
            *p -= r * dlr * (if beta1 > 0.0 { tensor.m[i] } else { new * g }) / root;
        }
    }
    true
}

/// The first growth leaps to the estimate, whatever `growth_rate`; nothing leaps over `d_cap`.
fn finish(run: &mut Oracle) {
    let Shared { d0, growth_rate, d_cap, d_coef, .. } = run.shared;
    run.k += 1;
    run.d_hat = d_coef * run.numerator / run.denominator;
    run.estimate_size = run.d_hat.abs();
    // `f64::max` passes over a NaN.
    run.d_max = run.d_max.max(run.d_hat);
    let from = if run.d == d0 { run.d.max(run.d_hat) } else { run.d };
    run.d = run.d.max(run.d_max.min(from * growth_rate).min(d_cap));
}
