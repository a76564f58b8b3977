//! Adam as in the preprint of D-Adaptation (`dadaptation/experimental/dadapt_adam_preprint.py`).

use super::{Algorithm, Gradients, Group, Oracle, Shared, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "adam_preprint", defaults, step };

fn defaults(shared: &mut Shared, group: &mut Group) {
    (shared.beta1, shared.beta2) = (0.9, 0.999);
    group.eps = 1e-8;
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let Shared { beta1, beta2, .. } = run.shared;
    let dlr = run.d * lr;
    let frozen = run.frozen;

    let (mut g_sq, mut sk_sq, mut sk_l1) = (Sum::default(), Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let (r, decay, eps) = (group.layer_scale, group.weight_decay, group.eps);
        tensor.started = true;
        for (i, &given) in gradient.iter().enumerate() {
            let p = &mut tensor.p[i];
            let (m, v, s) = (&mut tensor.m[i], &mut tensor.v[i], &mut tensor.s[i]);
            let g = if group.decouple { given } else { given + decay * *p };

            *m = beta1 * *m + dlr * (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let root = v.sqrt() + eps;
            if !frozen && group.counts(i) {
                *s = beta2 * *s + dlr * (1.0 - beta2) * g;
                g_sq.add(r * g * g / root);
                sk_sq.add(r * *s * *s / root);
                sk_l1.add(r * s.abs());
            }

            if group.decouple {
                *p -= decay * dlr * *p;
            }
            *p -= r * *m / root;
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    if sk_l1.value() == 0.0 {
        return false;
    }
    run.gsq = beta2 * run.gsq + (1.0 - beta2) * dlr * dlr * g_sq.value();
    run.denominator = sk_l1.value();
    run.finish_difference(sk_sq.value() / (1.0 - beta2), run.gsq);
    true
}
