//! The last line of each recurrence alone: where a parameter goes, given what the state has become.
//!
//! State that is rounded after a step is not what the recurrence computed, and the parameter moves by
//! it as it is kept. Lion's moves by the state of before the step.

use super::{Group, Oracle, Tensor};

/// What a step moves an element by.
pub struct Step<'a> {
    /// The oracle before the step, its tensor, and an element of that.
    pub before: &'a Oracle,
    pub tensor: usize,
    pub i: usize,
    /// The tensor's state as kept after the step.
    pub kept: &'a Tensor,
    pub g: f64,
    /// d after the step.
    pub next_d: f64,
    /// The parameter moved by the old d first, and was then moved back by the difference.
    pub mended: bool,
}

/// Where an element goes: the ends are apart where roundings decide on a sign.
pub struct Moved {
    pub least: f64,
    pub most: f64,
    /// The sizes of what is added up, whose roundings are relative to it.
    pub size: f64,
}

/// Relative to the terms of a sum: less than that, and roundings decide on its sign.
const OF_SIGN: f64 = 1e-6;

impl Step<'_> {
    fn group(&self) -> &Group {
        &self.before.groups[self.before.tensors[self.tensor].group]
    }

    /// "dlr".
    pub fn gamma(&self) -> f64 {
        let Oracle { shared, d, k, g0, algorithm, .. } = self.before;
        let rate = d * self.group().lr;
        let count = (k + 1) as f64;
        match algorithm.name {
            "sgd" => rate / g0,
            "adam" | "prodigy" if shared.use_bias_correction => {
                rate * (1.0 - shared.beta2.powf(count)).sqrt() / (1.0 - shared.beta1.powf(count))
            }
            _ => rate,
        }
    }

    /// Of Lion: `beta1*m + (1-beta1)*g`, if roundings cannot decide on its sign.
    pub fn direction(&self) -> Option<f64> {
        let (m, beta1) = (self.before.tensors[self.tensor].m[self.i], self.before.shared.beta1);
        let (left, right) = (beta1 * m, (1.0 - beta1) * self.g);
        let (sum, size) = (left + right, left.abs() + right.abs());
        (size == 0.0 || sum.abs() > OF_SIGN * size).then_some(sum)
    }

    pub fn moved(&self) -> Moved {
        let (group, shared, i) = (self.group(), &self.before.shared, self.i);
        let Group { lr, weight_decay: decay, eps, layer_scale: r, momentum, .. } = *group;
        let p = self.before.tensors[self.tensor].p[i];
        let Tensor { m, v, s, x0, e, steps, .. } = self.kept;
        let (m, v, s, x0, e) = (m[i], v[i], s[i], x0[i], e[i]);
        let gamma = self.gamma();
        let name = self.before.algorithm.name;
        let plain = name.starts_with("plain");
        let g = if group.decouple { self.g } else { self.g + decay * p };
        let share_of = |beta: f64| 1.0 - beta.powf(*steps as f64);

        let (size_of_g, root) = (self.g.abs() + (decay * p).abs(), v.sqrt());
        let (by, size) = match name {
            "adam" => (m / (root + eps), m.abs() / (root + eps)),
            "adam_preprint" => (r * m / (root + eps), r * m.abs() / (root + eps)),
            "prodigy" => {
                let scale = r * gamma / (root + self.next_d * eps);
                let d = if self.mended { self.before.d } else { self.next_d };
                match shared.beta1 > 0.0 {
                    true => (scale * m, r * gamma / (root + d * eps) * m.abs()),
                    false => (scale * self.next_d * g, scale * self.next_d * size_of_g),
                }
            }
            "adan" | "adan_ip" => {
                let (beta2, scale) = (shared.beta2, r / (root + eps));
                (scale * (m + beta2 * e), scale * (m.abs() + beta2 * e.abs()))
            }
            "sgd" | "adagrad" => {
                let far = r * s / if name == "sgd" { 1.0 } else { root + eps };
                let to = momentum * p + (1.0 - momentum) * (x0 - far);
                return Moved { least: to, most: to, size: p.abs() + x0.abs() + far.abs() };
            }
            "plain_sgd" if momentum == 0.0 => (r * lr * g, r * lr * size_of_g),
            "plain_sgd" => (r * lr * m, r * lr * m.abs()),
            "plain_adam" => {
                let root = root / share_of(shared.beta2).sqrt() + eps;
                let scale = r * lr / share_of(shared.beta1) / root;
                (scale * m, scale * m.abs())
            }
            "plain_adagrad" => (r * lr * g / (root + eps), r * lr * size_of_g / (root + eps)),
            "plain_adan" => {
                let beta3 = shared.beta3.expect("Adan has three betas");
                let scale = r * lr / (root / share_of(beta3).sqrt() + eps);
                let m = m / share_of(shared.beta1);
                let e = shared.beta2 * e / share_of(shared.beta2);
                (scale * (m + e), scale * (m.abs() + e.abs()))
            }
            "lion" | "plain_lion" => {
                let rate = if plain { lr } else { gamma };
                let (shrunk, by) = (p * (1.0 - rate * decay), r * rate);
                let [least, most] = match self.direction() {
                    None => [shrunk - by, shrunk + by],
                    Some(sum) => [shrunk - by * super::lion::sign(sum); 2],
                };
                return Moved { least, most, size: p.abs() + by };
            }
            _ => panic!("nobody wrote down how {name} moves"),
        };
        let rate = if plain { lr } else { gamma };
        let to = match name {
            "adan" | "adan_ip" | "plain_adan" if !group.no_prox => (p - by) / (1.0 + rate * decay),
            "adan" | "adan_ip" | "plain_adan" => p * (1.0 - rate * decay) - by,
            "plain_sgd" | "plain_adagrad" => p - by,
            _ if group.decouple => p * (1.0 - rate * decay) - by,
            _ => p - by,
        };
        Moved { least: to, most: to, size: p.abs() + size }
    }
}
