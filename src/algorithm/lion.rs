//! Lion with D-Adaptation.
//!
//! ```text
//! u = sign(beta1*m + (1-beta1)*g)                                (sign(0) = 0)
//! p <- p*(1 - gamma*weight_decay) - r*gamma*u
//! m <- beta2*m + (1-beta2)*gamma*g
//! N += u*s                                                       (old s)
//! s <- sqrt(beta2)*s + (1-sqrt(beta2))*gamma*u ;   S += |s|
//! numerator_weighted <- sqrt(beta2)*numerator_weighted + (1-sqrt(beta2))*gamma*N
//! d_hat = numerator_weighted / ((1-sqrt(beta2))*S)
//! ```
//! with `gamma = d*lr`, `r` the layer scale, which enters no sum since signs do not see it, and `m`
//! the state `exp_avg`.
//!
//! Source: arXiv:2301.07733, arXiv:2302.06675; `dadaptation` 3.2, `dadapt_lion.py`,
//! `DAdaptLion.step`, which lacks `growth_rate` and a layer scale.

use super::adam::by_inner_products;
use super::rule::Cell;
use super::{Decay, Estimate, Init, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Lion;

impl Rule<8, 2, 2> for Lion {
    const NAME: &'static str = "lion";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.99),
        (Key::WeightDecay, 0.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::DCap, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
        (Key::DPerGroup, 0.0),
        (Key::SliceP, 1.0),
        (Key::SliceByLine, 0.0),
    ];
    const STATE: [Slot; 2] = [
        Slot::new("exp_avg", Init::Zero, Role::State),
        Slot::new("s", Init::Zero, Role::Statistic),
    ];
    const DECAY: Decay = Decay::Decoupled;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 8] {
        let gamma = Self::gamma(scalars);
        let (beta1, beta2) = (scalars.options.get(Key::Beta1), scalars.options.get(Key::Beta2));
        let sqrt_beta2 = beta2.sqrt();
        [
            beta1,
            1.0 - beta1,
            beta2,
            gamma * (1.0 - beta2),
            sqrt_beta2,
            gamma * (1.0 - sqrt_beta2),
            -group.get(Key::WeightDecay) * gamma,
            group.get(Key::LayerScale) * gamma,
        ]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[beta1, u_g, beta2, m_g, sqrt_beta2, s_u, decay_p, p_u]: &[E::Reg<S>; 8],
        g: E::Reg<S>,
        (mut p, [m, s]): Cell<E, S, 2>,
        [numerator, s_l1]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 2>, [E::Reg<S>; 2]) {
        let u = lanes.sign(lanes.mul_add(beta1, m, lanes.mul(u_g, g)));
        let next_m = lanes.decay(beta2, m, m_g, g);
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        let next_p = lanes.negate_mul_add(p_u, u, p);
        if PASS & pass::SUMS == 0 {
            return ((next_p, [next_m, s]), [numerator, s_l1]);
        }
        let numerator = lanes.mul_add(u, s, numerator);
        let next_s = lanes.decay(sqrt_beta2, s, s_u, u);
        let s_l1 = lanes.add(s_l1, lanes.abs(next_s));
        ((next_p, [next_m, next_s]), [numerator, s_l1])
    }

    fn estimate(scalars: &Scalars, totals: &mut Totals, sums: &[f64; 2]) -> Option<Estimate> {
        by_inner_products(scalars, Self::gamma(scalars), totals, sums)
    }
}
