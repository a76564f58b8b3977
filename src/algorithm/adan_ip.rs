//! Adan with D-Adaptation by inner products; experimental.
//!
//! As [`adan`](super::adan), but for
//! ```text
//! N += r * g*s/(sqrt(v)+eps)                                     (old s, old v)
//! numerator_weighted <- beta3*numerator_weighted + (1-beta3)*gamma*N
//! d_hat = 2*beta3/(1-beta3) * numerator_weighted/S
//! ```
//! in the place of `G` and `W`. The quotients by the old and the new denominator share one division,
//! as in [`adam`](super::adam).
//!
//! Source: `dadaptation` 3.2, `experimental/dadapt_adan_ip.py`, `DAdaptAdanIP.step`, in whose state
//! dict `exp_avg_sq` and `exp_avg_diff` hold each other's tensor.

use super::adan::{self, COEFFS, Moments, moments};
use super::rule::{Cell, bounded};
use super::{Decay, Estimate, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct AdanIp;

impl Rule<COEFFS, 5, 2> for AdanIp {
    const NAME: &'static str = "experimental_adan_ip";
    const OPTIONS: &'static [(Key, f64)] = adan::OPTIONS;
    const STATE: [Slot; 5] = {
        let [m, v, e, h, s] = adan::STATE;
        [m, v.saturating(), e, h, s]
    };
    const DECAY: Decay = Decay::Decoupled;
    const MOVES_BY_STATE: bool = true;
    const RESTARTS: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; COEFFS] {
        adan::coeffs(scalars, group)
    }

    fn weights(_: &Scalars, group: &Options) -> [f64; 2] {
        [group.get(Key::LayerScale); 2]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        coeffs: &[E::Reg<S>; COEFFS],
        g: E::Reg<S>,
        (mut p, state): Cell<E, S, 5>,
        [numerator, s_l1]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 5>, [E::Reg<S>; 2]) {
        let &[_, _, _, _, beta3, _, s_g, eps, decay_p, p_q, _] = coeffs;
        if PASS & pass::STATE == 0 {
            if DECAY == decay::DECOUPLED {
                p = lanes.mul_add(decay_p, p, p);
            }
            let p = lanes.negate_mul_add(
                p_q,
                adan::step_by_state::<S, E, PASS>(lanes, coeffs, &state),
                p,
            );
            return ((p, state), [numerator, s_l1]);
        }
        let old_v = state[1];
        let Moments { state, denom: next_denom, step } = moments(lanes, coeffs, g, state);
        let [m, v, e, h, s] = state;
        if DECAY == decay::DECOUPLED {
            p = lanes.mul_add(decay_p, p, p);
        }
        if PASS & pass::SUMS == 0 {
            let v = bounded::<S, E, PASS>(lanes, v);
            let p = lanes.negate_mul_add(p_q, lanes.div(step, next_denom), p);
            return ((p, [m, v, e, h, s]), [numerator, s_l1]);
        }
        let denom = lanes.add(lanes.sqrt(old_v), eps);
        let inverse = lanes.div(lanes.splat(E::ONE), lanes.mul(denom, next_denom));
        let s_term = lanes.mul(s, lanes.mul(inverse, next_denom));
        let numerator = lanes.mul_add(g, s_term, numerator);
        let s = lanes.decay(beta3, s, s_g, g);
        let s_l1 = lanes.add(s_l1, lanes.abs(s));
        let q = lanes.mul(step, lanes.mul(inverse, denom));
        ((lanes.negate_mul_add(p_q, q, p), [m, v, e, h, s]), [numerator, s_l1])
    }

    fn estimate(
        scalars: &Scalars,
        [numerator_weighted, ..]: &mut Totals,
        &[numerator, s_l1]: &[f64; 2],
    ) -> Option<Estimate> {
        if s_l1 == 0.0 {
            return None;
        }
        let beta3 = scalars.options.get(Key::Beta3);
        let gamma = Self::gamma(scalars);
        *numerator_weighted = beta3 * *numerator_weighted + (1.0 - beta3) * (gamma * numerator);
        Estimate::quotient(2.0 * (beta3 / (1.0 - beta3)) * *numerator_weighted, s_l1)
    }
}
