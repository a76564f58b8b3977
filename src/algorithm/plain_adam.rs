//! Adam and AdamW at a rate set by hand.
//!
//! ```text
//! coupled decay (Adam):    g <- g + weight_decay*p
//! decoupled decay (AdamW): p <- p - lr*weight_decay*p
//! m <- beta1*m + (1-beta1)*g ;   v <- beta2*v + (1-beta2)*g^2
//! p <- p - r*lr/(1-beta1^t) * m/(sqrt(v)/sqrt(1-beta2^t) + eps)
//! ```
//! with `t` the steps of the tensor, this one included, `r` the layer scale and `m`, `v` the state
//! `exp_avg`, `exp_avg_sq`.
//!
//! Source: PyTorch's `torch.optim.Adam` and `AdamW`, without `amsgrad` and `maximize`. The defaults are
//! Adam's; those of AdamW are `decouple` 1 and `weight_decay` 0.01.

use super::rule::{Cell, root};
use super::{Decay, Init, Role, Rule, Scalars, Slot, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct PlainAdam;

impl Rule<8, 2, 0> for PlainAdam {
    const NAME: &'static str = "plain_adam";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1e-3),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.999),
        (Key::Eps, 1e-8),
        (Key::WeightDecay, 0.0),
        (Key::Decouple, 0.0),
        (Key::LayerScale, 1.0),
    ];
    const STATE: [Slot; 2] = [
        Slot::new("exp_avg", Init::Zero, Role::State),
        Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned(),
    ];
    const DECAY: Decay = Decay::Either;
    const PASSES: &'static [u8] = &[pass::UPDATE];
    const MOVES_BY_STATE: bool = true;
    const COUNTS_PER_TENSOR: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 8] {
        let (beta1, beta2) = (scalars.options.get(Key::Beta1), scalars.options.get(Key::Beta2));
        let t = (scalars.steps + 1) as f64;
        let weight_decay = group.get(Key::WeightDecay);
        [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            1.0 / (1.0 - libm::pow(beta2, t)).sqrt(),
            group.get(Key::Eps),
            group.get(Key::LayerScale) * scalars.lr / (1.0 - libm::pow(beta1, t)),
            if group.is_on(Key::Decouple) { -weight_decay * scalars.lr } else { weight_decay },
        ]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, m_g, beta2, v_g, root_scale, eps, rate, decay_p]: &[E::Reg<S>; 8],
        mut g: E::Reg<S>,
        (mut p, [mut m, mut v]): Cell<E, S, 2>,
        sums: [E::Reg<S>; 0],
    ) -> (Cell<E, S, 2>, [E::Reg<S>; 0]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(decay_p, p, g);
        }
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        if PASS & pass::STATE != 0 {
            m = lanes.decay(beta1, m, m_g, g);
            v = lanes.decay(beta2, v, lanes.mul(v_g, g), g);
        }
        let denom = lanes.mul_add(root::<S, E, PASS>(lanes, v), root_scale, eps);
        ((lanes.negate_mul_add(rate, lanes.div(m, denom), p), [m, v]), sums)
    }
}
