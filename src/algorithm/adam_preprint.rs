//! Adam with D-Adaptation as in the first versions of its preprint; experimental.
//!
//! ```text
//! coupled decay:   g <- g + weight_decay*p
//! m <- beta1*m + gamma*(1-beta1)*g ;   v <- beta2*v + (1-beta2)*g^2
//! G += r * g^2/(sqrt(v)+eps)                                     (new v)
//! s <- beta2*s + gamma*(1-beta2)*g ;   W += r * s^2/(sqrt(v)+eps) ;   S += r * |s|
//! decoupled decay: p <- p - weight_decay*gamma*p
//! p <- p - r*m/(sqrt(v)+eps)
//! gsq_weighted <- beta2*gsq_weighted + (1-beta2)*gamma^2*G
//! d_hat = (W/(1-beta2) - gsq_weighted)/S
//! ```
//! with `gamma = d*lr`, `r` the layer scale, `m`, `v` the state `exp_avg`, `exp_avg_sq`. As in
//! [`sgd`](super::sgd) squares are of `u*s`, `u` a power of two.
//!
//! Source: arXiv:2301.07733, versions 1 and 2; `dadaptation` 3.2,
//! `experimental/dadapt_adam_preprint.py`, `DAdaptAdamPreprint.step`.

use super::adan::by_squares;
use super::rule::{Cell, root};
use super::{Decay, Estimate, Init, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct AdamPreprint;

impl Rule<9, 3, 3> for AdamPreprint {
    const NAME: &'static str = "experimental_adam_preprint";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.999),
        (Key::Eps, 1e-8),
        (Key::WeightDecay, 0.0),
        (Key::Decouple, 0.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::DCap, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
        (Key::DPerGroup, 0.0),
        (Key::SliceP, 1.0),
        (Key::SliceByLine, 0.0),
    ];
    const STATE: [Slot; 3] = [
        Slot::new("exp_avg", Init::Zero, Role::State),
        Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned(),
        Slot::new("s", Init::Zero, Role::Statistic),
    ];
    const DECAY: Decay = Decay::Either;
    const MOVES_BY_STATE: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 9] {
        let gamma = Self::gamma(scalars);
        let (beta1, beta2) = (scalars.options.get(Key::Beta1), scalars.options.get(Key::Beta2));
        let weight_decay = group.get(Key::WeightDecay);
        [
            beta1,
            gamma * (1.0 - beta1),
            beta2,
            1.0 - beta2,
            gamma * (1.0 - beta2),
            group.get(Key::Eps),
            if group.is_on(Key::Decouple) { -weight_decay * gamma } else { weight_decay },
            group.get(Key::LayerScale),
            scalars.unit(),
        ]
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 3] {
        let unit = scalars.unit();
        let r = group.get(Key::LayerScale);
        [r, r / (unit * unit), r]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, m_g, beta2, v_g, s_g, eps, decay_p, r, unit]: &[E::Reg<S>; 9],
        mut g: E::Reg<S>,
        (mut p, [m, v, s]): Cell<E, S, 3>,
        [g_sq, s_sq, s_l1]: [E::Reg<S>; 3],
    ) -> (Cell<E, S, 3>, [E::Reg<S>; 3]) {
        if PASS & pass::STATE == 0 {
            if DECAY == decay::DECOUPLED {
                p = lanes.mul_add(decay_p, p, p);
            }
            let denom = lanes.add(root::<S, E, PASS>(lanes, v), eps);
            let inverse = lanes.div(lanes.splat(E::ONE), denom);
            let p = lanes.negate_mul_add(r, lanes.mul(m, inverse), p);
            return ((p, [m, v, s]), [g_sq, s_sq, s_l1]);
        }
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(decay_p, p, g);
        }
        let m = lanes.decay(beta1, m, m_g, g);
        let v = lanes.decay(beta2, v, lanes.mul(v_g, g), g);
        let inverse = lanes.div(lanes.splat(E::ONE), lanes.add(lanes.sqrt(v), eps));
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        let p = lanes.negate_mul_add(r, lanes.mul(m, inverse), p);
        if PASS & pass::SUMS == 0 {
            return ((p, [m, v, s]), [g_sq, s_sq, s_l1]);
        }
        let s = lanes.decay(beta2, s, s_g, g);
        let scaled = lanes.mul(unit, s);
        let g_sq = lanes.mul_add(g, lanes.mul(g, inverse), g_sq);
        let s_sq = lanes.mul_add(scaled, lanes.mul(scaled, inverse), s_sq);
        let s_l1 = lanes.add(s_l1, lanes.abs(s));
        ((p, [m, v, s]), [g_sq, s_sq, s_l1])
    }

    fn estimate(scalars: &Scalars, totals: &mut Totals, sums: &[f64; 3]) -> Option<Estimate> {
        by_squares(scalars, scalars.options.get(Key::Beta2), totals, sums)
    }
}
