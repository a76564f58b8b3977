//! Adan with D-Adaptation.
//!
//! ```text
//! D = g - h                                      (0 at the first step) ;   u = g + beta2*D
//! m <- beta1*m + gamma*(1-beta1)*g ;   e <- beta2*e + gamma*(1-beta2)*D
//! v <- beta3*v + (1-beta3)*u^2 ;       G += r * g^2/(sqrt(v)+eps)
//! s <- beta3*s + gamma*(1-beta3)*g ;   W += r * s^2/(sqrt(v)+eps) ;   S += r * |s|
//! q = r*(m + beta2*e)/(sqrt(v)+eps) ;  h <- g
//! prox: p <- (p - q)/(1 + gamma*weight_decay)    no_prox: p <- p*(1 - gamma*weight_decay) - q
//! gsq_weighted <- beta3*gsq_weighted + (1-beta3)*gamma^2*G
//! d_hat = (W/(1-beta3) - gsq_weighted)/S
//! ```
//! with `gamma = d*lr`, `r` the layer scale, `m`, `v`, `e`, `h` the state `exp_avg`, `exp_avg_sq`,
//! `exp_avg_diff`, `pre_grad`. As in [`sgd`](super::sgd) squares are of `u*s`, `u` a power of two.
//!
//! Source: arXiv:2301.07733, arXiv:2208.06677; `dadaptation` 3.2, `dadapt_adan.py`,
//! `DAdaptAdan.step`.

use super::rule::{Cell, root};
use super::{Decay, Estimate, Init, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Adan;

pub(super) const OPTIONS: &[(Key, f64)] = &[
    (Key::Lr, 1.0),
    (Key::Beta1, 0.98),
    (Key::Beta2, 0.92),
    (Key::Beta3, 0.99),
    (Key::Eps, 1e-8),
    (Key::WeightDecay, 0.02),
    (Key::NoProx, 0.0),
    (Key::GrowthRate, f64::INFINITY),
    (Key::DCap, f64::INFINITY),
    (Key::LayerScale, 1.0),
    (Key::D0, 1e-6),
    (Key::DPerGroup, 0.0),
    (Key::SliceP, 1.0),
    (Key::SliceByLine, 0.0),
];

pub(super) const STATE: [Slot; 5] = [
    Slot::new("exp_avg", Init::Zero, Role::State),
    Slot::new("exp_avg_sq", Init::Zero, Role::State).unsigned(),
    Slot::new("exp_avg_diff", Init::Zero, Role::State),
    Slot::new("pre_grad", Init::Gradient, Role::State),
    Slot::new("s", Init::Zero, Role::Statistic),
];

/// The first two, and those by state as it is kept.
pub(super) const COEFFS: usize = 11;

pub(super) fn coeffs(scalars: &Scalars, group: &Options) -> [f64; COEFFS] {
    let gamma = scalars.d * scalars.lr;
    let get = |key| scalars.options.get(key);
    let (beta1, beta2, beta3) = (get(Key::Beta1), get(Key::Beta2), get(Key::Beta3));
    let decay = gamma * group.get(Key::WeightDecay);
    let r = group.get(Key::LayerScale);
    // p + decay_p*p and not (1 + decay_p)*p, whose factor would round.
    let (decay_p, p_q) = if group.is_on(Key::NoProx) {
        (-decay, r)
    } else {
        (-decay / (1.0 + decay), r / (1.0 + decay))
    };
    [
        beta1,
        gamma * (1.0 - beta1),
        beta2,
        gamma * (1.0 - beta2),
        beta3,
        1.0 - beta3,
        gamma * (1.0 - beta3),
        group.get(Key::Eps),
        decay_p,
        p_q,
        scalars.unit(),
    ]
}

/// What Adan and its variant have in common of a step.
pub(super) struct Moments<R> {
    /// New, but for `s`.
    pub(super) state: [R; 5],
    /// New.
    pub(super) denom: R,
    /// `m + beta2*e`
    pub(super) step: R,
}

#[inline(always)]
pub(super) fn moments<S: Simd, E: LaneElement>(
    lanes: Lanes<S, E>,
    &[beta1, m_g, beta2, e_d, beta3, v_u, _, eps, ..]: &[E::Reg<S>; COEFFS],
    g: E::Reg<S>,
    [m, v, e, h, s]: [E::Reg<S>; 5],
) -> Moments<E::Reg<S>> {
    let difference = lanes.sub(g, h);
    let u = lanes.mul_add(beta2, difference, g);
    let m = lanes.decay(beta1, m, m_g, g);
    let e = lanes.decay(beta2, e, e_d, difference);
    let v = lanes.decay(beta3, v, lanes.mul(v_u, u), u);
    let denom = lanes.add(lanes.sqrt(v), eps);
    Moments { state: [m, v, e, g, s], denom, step: lanes.mul_add(beta2, e, m) }
}

/// `(m + beta2*e)/(sqrt(v)+eps)` of state as it is kept.
#[inline(always)]
pub(super) fn step_by_state<S: Simd, E: LaneElement, const PASS: u8>(
    lanes: Lanes<S, E>,
    &[_, _, beta2, _, _, _, _, eps, ..]: &[E::Reg<S>; COEFFS],
    &[m, v, e, ..]: &[E::Reg<S>; 5],
) -> E::Reg<S> {
    let denom = lanes.add(root::<S, E, PASS>(lanes, v), eps);
    lanes.div(lanes.mul_add(beta2, e, m), denom)
}

impl Rule<COEFFS, 5, 3> for Adan {
    const NAME: &'static str = "adan";
    const OPTIONS: &'static [(Key, f64)] = OPTIONS;
    const STATE: [Slot; 5] = STATE;
    const DECAY: Decay = Decay::Decoupled;
    const MOVES_BY_STATE: bool = true;
    const RESTARTS: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; COEFFS] {
        coeffs(scalars, group)
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 3] {
        let unit = scalars.unit();
        let r = group.get(Key::LayerScale);
        [r, r / (unit * unit), r]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        coeffs: &[E::Reg<S>; COEFFS],
        g: E::Reg<S>,
        (mut p, state): Cell<E, S, 5>,
        [g_sq, s_sq, s_l1]: [E::Reg<S>; 3],
    ) -> (Cell<E, S, 5>, [E::Reg<S>; 3]) {
        let &[_, _, _, _, beta3, _, s_g, _, decay_p, p_q, unit] = coeffs;
        if PASS & pass::STATE == 0 {
            if DECAY == decay::DECOUPLED {
                p = lanes.mul_add(decay_p, p, p);
            }
            let p =
                lanes.negate_mul_add(p_q, step_by_state::<S, E, PASS>(lanes, coeffs, &state), p);
            return ((p, state), [g_sq, s_sq, s_l1]);
        }
        let Moments { state: [m, v, e, h, s], denom, step } = moments(lanes, coeffs, g, state);
        let inverse = lanes.div(lanes.splat(E::ONE), denom);
        let q = lanes.mul(step, inverse);
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        let p = lanes.negate_mul_add(p_q, q, p);
        if PASS & pass::SUMS == 0 {
            return ((p, [m, v, e, h, s]), [g_sq, s_sq, s_l1]);
        }
        let s = lanes.decay(beta3, s, s_g, g);
        let scaled = lanes.mul(unit, s);
        let g_sq = lanes.mul_add(g, lanes.mul(g, inverse), g_sq);
        let s_sq = lanes.mul_add(scaled, lanes.mul(scaled, inverse), s_sq);
        let s_l1 = lanes.add(s_l1, lanes.abs(s));
        ((p, [m, v, e, h, s]), [g_sq, s_sq, s_l1])
    }

    fn estimate(scalars: &Scalars, totals: &mut Totals, sums: &[f64; 3]) -> Option<Estimate> {
        by_squares(scalars, scalars.options.get(Key::Beta3), totals, sums)
    }
}

/// The estimate of the method's first versions, from sums of squares; `beta` is that of `s`.
pub(super) fn by_squares(
    scalars: &Scalars,
    beta: f64,
    [gsq_weighted, ..]: &mut Totals,
    &[g_sq, s_sq, s_l1]: &[f64; 3],
) -> Option<Estimate> {
    if s_l1 == 0.0 {
        return None;
    }
    let gamma = scalars.d * scalars.lr;
    *gsq_weighted = beta * *gsq_weighted + (1.0 - beta) * (gamma * gamma * g_sq);
    Estimate::quotient(s_sq / (1.0 - beta) - *gsq_weighted, s_l1)
}
