//! Adan at a rate set by hand.
//!
//! ```text
//! D = g - h                                      (0 at the tensor's first step)
//! m <- beta1*m + (1-beta1)*g ;   e <- beta2*e + (1-beta2)*D
//! v <- beta3*v + (1-beta3)*(g + beta2*D)^2 ;   h <- g
//! q = r*lr*(m/(1-beta1^t) + beta2*e/(1-beta2^t)) / (sqrt(v)/sqrt(1-beta3^t) + eps)
//! prox: p <- (p - q)/(1 + lr*weight_decay)       no_prox: p <- p*(1 - lr*weight_decay) - q
//! ```
//! with `t` the steps of the tensor, this one included, `r` the layer scale and `m`, `v`, `e`, `h`
//! the state `exp_avg`, `exp_avg_sq`, `exp_avg_diff`, `pre_grad`.
//!
//! Source: arXiv:2208.06677 and its authors' implementation, <https://github.com/sail-sg/Adan>.

use super::rule::{Cell, root};
use super::{Decay, Init, Role, Rule, Scalars, Slot, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct PlainAdan;

impl Rule<11, 4, 0> for PlainAdan {
    const NAME: &'static str = "plain_adan";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1e-3),
        (Key::Beta1, 0.98),
        (Key::Beta2, 0.92),
        (Key::Beta3, 0.99),
        (Key::Eps, 1e-8),
        (Key::WeightDecay, 0.0),
        (Key::NoProx, 0.0),
        (Key::LayerScale, 1.0),
    ];
    const STATE: [Slot; 4] = [
        Slot::new("exp_avg", Init::Zero, Role::State),
        Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned(),
        Slot::new("exp_avg_diff", Init::Zero, Role::State),
        Slot::new("pre_grad", Init::Gradient, Role::State),
    ];
    const DECAY: Decay = Decay::Decoupled;
    const PASSES: &'static [u8] = &[pass::UPDATE];
    const MOVES_BY_STATE: bool = true;
    const COUNTS_PER_TENSOR: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 11] {
        let get = |key| scalars.options.get(key);
        let (beta1, beta2, beta3) = (get(Key::Beta1), get(Key::Beta2), get(Key::Beta3));
        let t = (scalars.steps + 1) as f64;
        let corrected = |beta: f64| 1.0 - libm::pow(beta, t);
        let decay = scalars.lr * group.get(Key::WeightDecay);
        let shrink = if group.is_on(Key::NoProx) { 1.0 } else { 1.0 / (1.0 + decay) };
        let rate = shrink * scalars.lr * group.get(Key::LayerScale);
        [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            beta3,
            1.0 - beta3,
            1.0 / corrected(beta3).sqrt(),
            group.get(Key::Eps),
            -decay * shrink,
            rate / corrected(beta1),
            rate * beta2 / corrected(beta2),
        ]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, m_g, beta2, e_d, beta3, v_u, root_scale, eps, decay_p, p_m, p_e]: &[E::Reg<S>; 11],
        g: E::Reg<S>,
        (mut p, [mut m, mut v, mut e, h]): Cell<E, S, 4>,
        sums: [E::Reg<S>; 0],
    ) -> (Cell<E, S, 4>, [E::Reg<S>; 0]) {
        if PASS & pass::STATE != 0 {
            let difference = lanes.sub(g, h);
            let u = lanes.mul_add(beta2, difference, g);
            m = lanes.decay(beta1, m, m_g, g);
            e = lanes.decay(beta2, e, e_d, difference);
            v = lanes.decay(beta3, v, lanes.mul(v_u, u), u);
        }
        let denom = lanes.mul_add(root::<S, E, PASS>(lanes, v), root_scale, eps);
        let step = lanes.mul_add(p_m, m, lanes.mul(p_e, e));
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        ((lanes.sub(p, lanes.div(step, denom)), [m, v, e, g]), sums)
    }
}
