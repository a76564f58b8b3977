//! Adan with D-Adaptation (`dadaptation/dadapt_adan.py`) and its variant with inner products
//! (`dadaptation/experimental/dadapt_adan_ip.py`), which differ in what d follows from.

use super::{Algorithm, Gradients, Group, Oracle, Shared, sum::Sum};

pub const ADAN: Algorithm = Algorithm {
    name: "adan",
    defaults,
    step: |run, gradients, lr| step(run, gradients, lr, false),
};

pub const ADAN_IP: Algorithm = Algorithm {
    name: "adan_ip",
    defaults,
    step: |run, gradients, lr| step(run, gradients, lr, true),
};

fn defaults(shared: &mut Shared, group: &mut Group) {
    (shared.beta1, shared.beta2, shared.beta3) = (0.98, 0.92, Some(0.99));
    (group.eps, group.weight_decay) = (1e-8, 0.02);
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64, inner_products: bool) -> bool {
    let Shared { beta1, beta2, beta3, .. } = run.shared;
    let beta3 = beta3.expect("Adan has three betas");
    let dlr = run.d * lr;
    let frozen = run.frozen;

    let (mut g_sq, mut sk_sq, mut sk_l1, mut numerator) =
        (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (tensor, gradient, group) in Oracle::active(&mut run.tensors, &run.groups, gradients) {
        let (r, decay, eps) = (group.layer_scale, group.weight_decay, group.eps);
        if !tensor.started {
            tensor.started = true;
            tensor.h.copy_from_slice(gradient);
        }
        for (i, &g) in gradient.iter().enumerate() {
            let (p, m, v, s) =
                (&mut tensor.p[i], &mut tensor.m[i], &mut tensor.v[i], &mut tensor.s[i]);
            let (e, h) = (&mut tensor.e[i], &mut tensor.h[i]);
            let difference = g - *h;
            let u = g + beta2 * difference;
            if !frozen && group.counts(i) {
                numerator.add(r * dlr * g * *s / (v.sqrt() + eps));
            }

            *m = beta1 * *m + dlr * (1.0 - beta1) * g;
            *e = beta2 * *e + dlr * (1.0 - beta2) * difference;
            *v = beta3 * *v + (1.0 - beta3) * u * u;
            let root = v.sqrt() + eps;
            if !frozen && group.counts(i) {
                *s = beta3 * *s + dlr * (1.0 - beta3) * g;
                g_sq.add(r * g * g / root);
                sk_sq.add(r * *s * *s / root);
                sk_l1.add(r * s.abs());
            }

            let move_by = r * (*m + beta2 * *e) / root;
            *p = if group.no_prox {
                *p * (1.0 - dlr * decay) - move_by
            } else {
                (*p - move_by) / (1.0 + dlr * decay)
            };
            *h = g;
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    if sk_l1.value() == 0.0 {
        return false;
    }
    run.denominator = sk_l1.value();
    if inner_products {
        run.numerator = beta3 * run.numerator + (1.0 - beta3) * numerator.value();
        run.finish(2.0 * (beta3 / (1.0 - beta3)) * run.numerator / run.denominator);
    } else {
        run.gsq = beta3 * run.gsq + (1.0 - beta3) * dlr * dlr * g_sq.value();
        run.finish_difference(sk_sq.value() / (1.0 - beta3), run.gsq);
    }
    true
}

/// `restart_opt`: everything but d and k starts again.
pub fn restart(run: &mut Oracle) {
    (run.gsq, run.numerator) = (0.0, 0.0);
    for tensor in &mut run.tensors {
        for slot in [&mut tensor.m, &mut tensor.e, &mut tensor.v, &mut tensor.s] {
            slot.fill(0.0);
        }
        tensor.started = false; // the next gradient is the first, and differs from none
    }
}
