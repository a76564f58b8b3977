//! Adam with D-Adaptation.
//!
//! ```text
//! coupled decay:   g <- g + weight_decay*p
//! N += r * g*s/(sqrt(v)+eps)                                     (old s, old v)
//! m <- beta1*m + r*gamma*(1-beta1)*g
//! v <- beta2*v + (1-beta2)*g^2
//! s <- sqrt(beta2)*s + gamma*(1-sqrt(beta2))*g ;   S += r*|s|
//! decoupled decay: p <- p - weight_decay*gamma*p
//! p <- p - m/(sqrt(v)+eps)                                       (new m, new v)
//! numerator_weighted <- sqrt(beta2)*numerator_weighted + (1-sqrt(beta2))*gamma*N
//! d_hat = numerator_weighted / ((1-sqrt(beta2))*S)
//! ```
//! with `gamma = d*lr*bc`, `bc = sqrt(1-beta2^(k+1))/(1-beta1^(k+1))` or 1, `r` the layer scale,
//! `m`, `v` the state `exp_avg`, `exp_avg_sq`.
//!
//! The two quotients share one division: with `a`, `b` the old and the new denominator,
//! `q = 1/(a*b)`, `1/a = q*b` and `1/b = q*a` to within 2 units in the last place
//! (while `a*b` is below 2^126 in f32, that is `v` below 8e37). The divider is
//! what limits this kernel in cache. `eps >= 1e-18` keeps `a*b` a normal number in f32, and
//! where `v` overflows the numerator is NaN, on which the slot is saturated.
//!
//! Source: arXiv:2301.07733; `dadaptation` 3.2, `dadapt_adam.py`, `DAdaptAdam.step`.

use super::rule::{Cell, bounded, root};
use super::{Decay, Estimate, Init, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Adam;

impl Rule<8, 3, 2> for Adam {
    const NAME: &'static str = "adam";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.999),
        (Key::Eps, 1e-8),
        (Key::WeightDecay, 0.0),
        (Key::Decouple, 0.0),
        (Key::UseBiasCorrection, 0.0),
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
        Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned().saturating(),
        Slot::new("s", Init::Zero, Role::Statistic),
    ];
    const DECAY: Decay = Decay::Either;
    const MOVES_BY_STATE: bool = true;

    fn gamma(scalars: &Scalars) -> f64 {
        scalars.d * scalars.lr * scalars.bias_correction()
    }

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 8] {
        let gamma = Self::gamma(scalars);
        let (beta1, beta2) = (scalars.options.get(Key::Beta1), scalars.options.get(Key::Beta2));
        let sqrt_beta2 = beta2.sqrt();
        let weight_decay = group.get(Key::WeightDecay);
        [
            beta1,
            group.get(Key::LayerScale) * gamma * (1.0 - beta1),
            beta2,
            1.0 - beta2,
            sqrt_beta2,
            gamma * (1.0 - sqrt_beta2),
            group.get(Key::Eps),
            if group.is_on(Key::Decouple) { -weight_decay * gamma } else { weight_decay },
        ]
    }

    fn weights(_: &Scalars, group: &Options) -> [f64; 2] {
        [group.get(Key::LayerScale); 2]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, m_g, beta2, v_g, sqrt_beta2, s_g, eps, decay_p]: &[E::Reg<S>; 8],
        mut g: E::Reg<S>,
        (mut p, [m, v, s]): Cell<E, S, 3>,
        [numerator, s_l1]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 3>, [E::Reg<S>; 2]) {
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        if PASS & pass::STATE == 0 {
            let step = lanes.div(m, lanes.add(root::<S, E, PASS>(lanes, v), eps));
            return ((lanes.sub(p, step), [m, v, s]), [numerator, s_l1]);
        }
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(decay_p, p, g);
        }
        let next_m = lanes.decay(beta1, m, m_g, g);
        let next_v = lanes.decay(beta2, v, lanes.mul(v_g, g), g);
        let next_denom = lanes.add(lanes.sqrt(next_v), eps);
        if PASS & pass::SUMS == 0 {
            let next_v = bounded::<S, E, PASS>(lanes, next_v);
            let next_p = lanes.sub(p, lanes.div(next_m, next_denom));
            return ((next_p, [next_m, next_v, s]), [numerator, s_l1]);
        }
        let next_s = lanes.decay(sqrt_beta2, s, s_g, g);
        let denom = lanes.add(lanes.sqrt(v), eps);
        if PASS & pass::PARAMETER == 0 {
            let numerator = lanes.mul_add(g, lanes.div(s, denom), numerator);
            let s_l1 = lanes.add(s_l1, lanes.abs(next_s));
            // Its sums know of the old v alone.
            let next_v = bounded::<S, E, PASS>(lanes, next_v);
            return ((p, [next_m, next_v, next_s]), [numerator, s_l1]);
        }
        let inverse = lanes.div(lanes.splat(E::ONE), lanes.mul(denom, next_denom));

        // g*(s/denom) and not (g*s)/denom: the product of two small numbers would underflow.
        let s_term = lanes.mul(s, lanes.mul(inverse, next_denom));
        let numerator = lanes.mul_add(g, s_term, numerator);
        let s_l1 = lanes.add(s_l1, lanes.abs(next_s));

        let next_p = lanes.negate_mul_add(next_m, lanes.mul(inverse, denom), p);
        ((next_p, [next_m, next_v, next_s]), [numerator, s_l1])
    }

    fn estimate(scalars: &Scalars, totals: &mut Totals, sums: &[f64; 2]) -> Option<Estimate> {
        by_inner_products(scalars, Self::gamma(scalars), totals, sums)
    }
}

/// The estimate of the method's third version, from inner products; `s` decays by `sqrt(beta2)`.
pub(super) fn by_inner_products(
    scalars: &Scalars,
    gamma: f64,
    [numerator_weighted, ..]: &mut Totals,
    &[numerator, s_l1]: &[f64; 2],
) -> Option<Estimate> {
    if s_l1 == 0.0 {
        return None;
    }
    let sqrt_beta2 = scalars.options.get(Key::Beta2).sqrt();
    *numerator_weighted =
        sqrt_beta2 * *numerator_weighted + (1.0 - sqrt_beta2) * (gamma * numerator);
    Estimate::quotient(*numerator_weighted, (1.0 - sqrt_beta2) * s_l1)
}
