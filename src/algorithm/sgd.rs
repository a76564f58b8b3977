//! SGD with momentum and D-Adaptation.
//!
//! ```text
//! at k = 0: g0 = sqrt(sum r*g^2), before any decay
//! g <- g + weight_decay*p
//! N += r * g*s                                                   (old s)
//! s <- s + gamma*g ;   Q += r * s^2
//! p <- momentum*p + (1-momentum)*(x0 - r*s)
//! numerator_weighted <- numerator_weighted + gamma*N
//! d_hat = 2*numerator_weighted / sqrt(Q)
//! ```
//! with `gamma = d*lr/g0`, `r` the layer scale, `x0` the parameter at its first gradient. The
//! reference also stores `z = x0 - s`; here it is computed.
//!
//! The sums take `u*s` with `u` a power of two that brings `d*lr` near 1, so that squares do not
//! underflow, and their weights take `u` back.
//!
//! Source: arXiv:2301.07733; `dadaptation` 3.2, `dadapt_sgd.py`, `DAdaptSGD.step`.

use super::rule::Cell;
use super::{Decay, Estimate, Init, Kept, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Sgd;

impl Rule<6, 2, 2> for Sgd {
    const NAME: &'static str = "sgd";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Momentum, 0.0),
        (Key::WeightDecay, 0.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::DCap, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
        (Key::DPerGroup, 0.0),
    ];
    const STATE: [Slot; 2] = [
        Slot::new("s", Init::Zero, Role::State).kept(Kept::Exactly(
            "parameters are computed from it, and rounding it rounds the model",
        )),
        Slot::new("x0", Init::Parameter, Role::State),
    ];
    const DECAY: Decay = Decay::Coupled;
    const NEEDS_G0: bool = true;

    fn gamma(scalars: &Scalars) -> f64 {
        scalars.d * scalars.lr / scalars.g0_norm
    }

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 6] {
        let momentum = group.get(Key::Momentum);
        [
            Self::gamma(scalars),
            momentum,
            1.0 - momentum,
            -group.get(Key::LayerScale),
            scalars.unit(),
            group.get(Key::WeightDecay),
        ]
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 2] {
        let unit = scalars.unit();
        let r = group.get(Key::LayerScale);
        [r / unit, r / (unit * unit)]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[gamma, momentum, one_minus_momentum, minus_r, unit, weight_decay]: &[E::Reg<S>; 6],
        mut g: E::Reg<S>,
        (p, [s, x0]): Cell<E, S, 2>,
        [numerator, s_sq]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 2>, [E::Reg<S>; 2]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(weight_decay, p, g);
        }
        let next_s = lanes.mul_add(gamma, g, s);
        let z = lanes.mul_add(minus_r, next_s, x0);
        let next_p = lanes.mul_add(one_minus_momentum, z, lanes.mul(momentum, p));
        if PASS & pass::SUMS == 0 {
            return ((next_p, [next_s, x0]), [numerator, s_sq]);
        }
        let numerator = lanes.mul_add(g, lanes.mul(unit, s), numerator);
        let scaled = lanes.mul(unit, next_s);
        let s_sq = lanes.mul_add(scaled, scaled, s_sq);
        ((next_p, [next_s, x0]), [numerator, s_sq])
    }

    fn estimate(
        scalars: &Scalars,
        [numerator_weighted, ..]: &mut Totals,
        &[numerator, s_sq]: &[f64; 2],
    ) -> Option<Estimate> {
        if s_sq == 0.0 {
            return None;
        }
        *numerator_weighted += Self::gamma(scalars) * numerator;
        Estimate::quotient(2.0 * *numerator_weighted, s_sq.sqrt())
    }
}
