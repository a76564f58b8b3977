//! Lion at a rate set by hand.
//!
//! ```text
//! u = sign(beta1*m + (1-beta1)*g)                                (sign(0) = 0)
//! p <- p*(1 - lr*weight_decay) - r*lr*u
//! m <- beta2*m + (1-beta2)*g
//! ```
//! with `r` the layer scale and `m` the state `exp_avg`.
//!
//! Source: arXiv:2302.06675, algorithm 2.

use super::rule::Cell;
use super::{Decay, Init, Role, Rule, Scalars, Slot, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct PlainLion;

impl Rule<6, 1, 0> for PlainLion {
    const NAME: &'static str = "plain_lion";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1e-4),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.99),
        (Key::WeightDecay, 0.0),
        (Key::LayerScale, 1.0),
    ];
    const STATE: [Slot; 1] = [Slot::new("exp_avg", Init::Zero, Role::State)];
    const DECAY: Decay = Decay::Decoupled;
    const PASSES: &'static [u8] = &[pass::UPDATE];

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 6] {
        let (beta1, beta2) = (scalars.options.get(Key::Beta1), scalars.options.get(Key::Beta2));
        [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            -group.get(Key::WeightDecay) * scalars.lr,
            group.get(Key::LayerScale) * scalars.lr,
        ]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, u_g, beta2, m_g, decay_p, p_u]: &[E::Reg<S>; 6],
        g: E::Reg<S>,
        (mut p, [m]): Cell<E, S, 1>,
        sums: [E::Reg<S>; 0],
    ) -> (Cell<E, S, 1>, [E::Reg<S>; 0]) {
        let u = lanes.sign(lanes.mul_add(beta1, m, lanes.mul(u_g, g)));
        let m = lanes.decay(beta2, m, m_g, g);
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        ((lanes.negate_mul_add(p_u, u, p), [m]), sums)
    }
}
