//! Prodigy.
//!
//! ```text
//! coupled decay:   g <- g + weight_decay*p
//! N += g*(p0 - p)
//! m <- beta1*m + d*(1-beta1)*g ;   v <- beta2*v + d^2*(1-beta2)*g^2
//! s <- beta3*s + (d/d0)*(safeguard_warmup ? d : gamma)*g ;   S += r * |s|
//! num <- beta3*num + (d/d0)*gamma*N ;   d_hat = d_coef*num/S
//! if d == d0: d <- max(d, d_hat)
//! d_max <- max(d_max, d_hat) ;   d <- min(d_max, d*growth_rate)
//! decoupled decay: p <- p - weight_decay*gamma*p
//! p <- p - r*gamma*m/(sqrt(v) + d*eps)                           (gamma of the old d, new d)
//! beta1 = 0:  p <- p - r*gamma*d*g/(sqrt(v) + d*eps)             (no m; new d)
//! ```
//! with `gamma = d*lr*bc`, `bc = sqrt(1-beta2^(k+1))/(1-beta1^(k+1))` or 1, `r` the layer scale,
//! `p0` the parameter at its first gradient, `m`, `v` the state `exp_avg`, `exp_avg_sq`.
//!
//! The update waits for the new `d`. A single sweep runs with the old one, and a mend then moves `p`
//! by `r*gamma*(m/(sqrt(v)+d*eps))*(next_d-d)*eps/(sqrt(v)+next_d*eps)`, which cancels nothing. Or two
//! sweeps run in the order above. The optimizer chooses.
//!
//! `N` takes `u*(p0 - p)`, `u` a power of two that brings `d*lr` near 1, so that its terms do not
//! underflow.
//!
//! Source: arXiv:2306.06101; `prodigyopt` 1.1.2, `prodigy.py`, `Prodigy.step`.

use super::rule::{Cell, root};
use super::{Decay, Estimate, Init, Role, Rule, Scalars, Slot, Target, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Prodigy;

fn beta3(options: &Options) -> f64 {
    let beta3 = options.get(Key::Beta3);
    if beta3 == 0.0 { options.get(Key::Beta2).sqrt() } else { beta3 }
}

impl Rule<13, 4, 2> for Prodigy {
    const NAME: &'static str = "prodigy";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Beta1, 0.9),
        (Key::Beta2, 0.999),
        (Key::Beta3, 0.0),
        (Key::Eps, 1e-8),
        (Key::WeightDecay, 0.0),
        (Key::Decouple, 1.0),
        (Key::UseBiasCorrection, 0.0),
        (Key::SafeguardWarmup, 0.0),
        (Key::DCoef, 1.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::DCap, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
        (Key::DPerGroup, 0.0),
        (Key::SliceP, 1.0),
        (Key::SliceByLine, 0.0),
    ];
    const STATE: [Slot; 4] = [
        Slot::new("exp_avg", Init::Zero, Role::Moment),
        Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned(),
        Slot::new("s", Init::Zero, Role::Statistic),
        Slot::new("p0", Init::Parameter, Role::Statistic),
    ];
    const DECAY: Decay = Decay::Either;
    const PASSES: &'static [u8] = &[
        pass::ALL,
        pass::UPDATE,
        pass::SUMS | pass::STATE | pass::MOMENT,
        pass::STATE | pass::MOMENT,
        pass::PARAMETER | pass::MOMENT,
        pass::MEND | pass::MOMENT,
        pass::SUMS | pass::STATE,
        pass::STATE,
        pass::PARAMETER,
        pass::STATE | pass::PARAMETER,
    ];
    const MOVES_BY_STATE: bool = true;
    const USES_NEXT_D: bool = true;

    fn gamma(scalars: &Scalars) -> f64 {
        scalars.d * scalars.lr * scalars.bias_correction()
    }

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 13] {
        let Scalars { d, next_d, options, .. } = *scalars;
        let gamma = Self::gamma(scalars);
        let (beta1, beta2) = (options.get(Key::Beta1), options.get(Key::Beta2));
        let (eps, weight_decay) = (group.get(Key::Eps), group.get(Key::WeightDecay));
        let s_rate = if group.is_on(Key::SafeguardWarmup) { d } else { gamma };
        // Not 0 in f32, so that an element without gradients is 0/eps and no NaN.
        let least = f64::from(f32::MIN_POSITIVE);
        [
            beta1,
            d * (1.0 - beta1),
            beta2,
            d * d * (1.0 - beta2),
            beta3(options),
            d / options.get(Key::D0) * s_rate,
            (d * eps).max(least),
            (next_d * eps).max(least),
            (next_d - d) * eps,
            if group.is_on(Key::Decouple) { -weight_decay * gamma } else { weight_decay },
            group.get(Key::LayerScale) * gamma,
            next_d,
            scalars.unit(),
        ]
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 2] {
        [1.0 / scalars.unit(), group.get(Key::LayerScale)]
    }

    fn keeps_moment(optimizer: &Options, _: &Options) -> bool {
        optimizer.is_on(Key::Beta1)
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[
            beta1,
            m_g,
            beta2,
            v_g,
            beta3,
            s_g,
            d_eps,
            next_d_eps,
            eps_rise,
            decay_p,
            p_m,
            next_d,
            unit,
        ]: &[E::Reg<S>; 13],
        mut g: E::Reg<S>,
        (mut p, [mut m, mut v, mut s, p0]): Cell<E, S, 4>,
        [mut numerator, mut s_l1]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 4>, [E::Reg<S>; 2]) {
        if PASS & pass::MEND != 0 {
            let root = lanes.sqrt(v);
            let was = lanes.div(m, lanes.add(root, d_eps));
            let rise = lanes.div(eps_rise, lanes.add(root, next_d_eps));
            p = lanes.mul_add(p_m, lanes.mul(was, rise), p);
            return ((p, [m, v, s, p0]), [numerator, s_l1]);
        }
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(decay_p, p, g);
        }
        if PASS & pass::STATE != 0 {
            if PASS & pass::MOMENT != 0 {
                m = lanes.decay(beta1, m, m_g, g);
            }
            v = lanes.decay(beta2, v, lanes.mul(v_g, g), g);
        }
        if PASS & pass::SUMS != 0 {
            let moved = lanes.mul(unit, lanes.sub(p0, p));
            numerator = lanes.mul_add(g, moved, numerator);
            s = lanes.decay(beta3, s, s_g, g);
            s_l1 = lanes.add(s_l1, lanes.abs(s));
        }
        if PASS & pass::PARAMETER != 0 {
            if DECAY == decay::DECOUPLED {
                p = lanes.mul_add(decay_p, p, p);
            }
            let denom = lanes.add(root::<S, E, PASS>(lanes, v), next_d_eps);
            let step = if PASS & pass::MOMENT != 0 { m } else { lanes.mul(next_d, g) };
            p = lanes.negate_mul_add(p_m, lanes.div(step, denom), p);
        }
        ((p, [m, v, s, p0]), [numerator, s_l1])
    }

    fn estimate(
        scalars: &Scalars,
        [numerator_weighted, ..]: &mut Totals,
        &[numerator, s_l1]: &[f64; 2],
    ) -> Option<Estimate> {
        if s_l1 == 0.0 {
            return None;
        }
        let weight = scalars.d / scalars.options.get(Key::D0) * Self::gamma(scalars);
        *numerator_weighted = beta3(scalars.options) * *numerator_weighted + weight * numerator;
        Estimate::quotient(scalars.options.get(Key::DCoef) * *numerator_weighted, s_l1)
    }

    /// `d_max` remembers estimates that the growth rate held back.
    fn target(scalars: &Scalars, [_, d_max, ..]: &mut Totals, d_hat: f64) -> Target {
        let d = if scalars.d == scalars.options.get(Key::D0) {
            scalars.d.max(d_hat)
        } else {
            scalars.d
        };
        *d_max = d_max.max(d_hat);
        Target { d: *d_max, limit: d * scalars.options.get(Key::GrowthRate) }
    }
}
