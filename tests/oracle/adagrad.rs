//! AdaGrad with D-Adaptation (`dadaptation/dadapt_adagrad.py`), dense and row-sparse.
//!
//! The accumulator starts at 1e-6. It belongs to the change of variables too, so a layer scale r
//! leaves it what it is: the package on x' = x / r would have to start from r^2 * 1e-6.

use std::collections::BTreeMap;

use super::{Algorithm, Gradient, Gradients, Group, Oracle, Shared, Tensor, sum::Sum};

pub const ALGORITHM: Algorithm = Algorithm { name: "adagrad", defaults, step };

fn defaults(shared: &mut Shared, group: &mut Group) {
    shared.initial_accumulator = 1e-6;
    group.eps = 1e-6;
}

/// Of one step: the changes of the two totals, and the sum of squared gradients.
#[derive(Default)]
struct Sums {
    sk_sq: Sum,
    sk_l1: Sum,
    g_sq: Sum,
}

fn step(run: &mut Oracle, gradients: &Gradients, lr: f64) -> bool {
    let dlr = run.d * lr;
    let mut sums = Sums::default();
    for (tensor, gradient, group) in Oracle::taking_part(&mut run.tensors, &run.groups, gradients) {
        if !tensor.started {
            tensor.started = true;
            tensor.x0.copy_from_slice(&tensor.p);
        }
        match gradient {
            Gradient::Dense(given) => {
                let root = |a: f64| a.sqrt() + group.eps;
                for (i, &given) in given.iter().enumerate() {
                    let g = given + group.weight_decay * tensor.p[i];
                    element(tensor, i, g, dlr, group, root, &mut sums);
                }
            }
            Gradient::Rows { rows, values } => {
                assert!(group.weight_decay == 0.0 && group.momentum == 0.0, "not for rows");
                let root = |a: f64| (a + group.eps).sqrt();
                for (i, g) in coalesced(rows, values) {
                    element(tensor, i, g, dlr, group, root, &mut sums);
                }
            }
        }
    }
    if run.frozen {
        return run.finish_frozen(gradients);
    }
    run.sk_sq += sums.sk_sq.value();
    run.denominator += sums.sk_l1.value();
    if run.denominator == 0.0 {
        return false;
    }
    run.gsq += dlr * dlr * sums.g_sq.value();
    run.finish_difference(run.sk_sq, run.gsq);
    true
}

fn element(
    tensor: &mut Tensor,
    i: usize,
    g: f64,
    dlr: f64,
    group: &Group,
    root: impl Fn(f64) -> f64,
    sums: &mut Sums,
) {
    let (r, momentum) = (group.layer_scale, group.momentum);
    let (p, a, s) = (&mut tensor.p[i], &mut tensor.v[i], &mut tensor.s[i]);
    sums.sk_sq.add(-r * *s * *s / root(*a));
    sums.sk_l1.add(-r * s.abs());
    *a += g * g;
    sums.g_sq.add(r * g * g / root(*a));
    *s += dlr * g;
    sums.sk_sq.add(r * *s * *s / root(*a));
    sums.sk_l1.add(r * s.abs());
    *p = momentum * *p + (1.0 - momentum) * (tensor.x0[i] - r * *s / root(*a));
}

/// Elements and their gradients, those of a row that is given several times summed.
fn coalesced(rows: &[usize], values: &[f64]) -> BTreeMap<usize, f64> {
    let mut total = BTreeMap::new();
    if rows.is_empty() {
        return total;
    }
    let width = values.len() / rows.len();
    for (row, values) in rows.iter().zip(values.chunks(width)) {
        for (column, value) in values.iter().enumerate() {
            *total.entry(row * width + column).or_insert(0.0) += value;
        }
    }
    total
}
