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
//! `s` is about `d*lr` in size, so its squares would underflow in f32 for a small `d0`. The sums
//! take `u*s` with `u` a power of two that brings `d*lr` near 1, and their weights take `u` back.
//!
//! Source: arXiv:2301.07733; `dadaptation` 3.2, `dadapt_sgd.py`, `DAdaptSGD.step`.

use super::{Cell, Estimate, Init, Rule, Scalars, Slot, decay};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct Sgd;

/// The power of two next below `1/(d*lr)`, within what leaves f32 room on either side: `s` of earlier
/// steps may be far above a `d*lr` that a schedule has taken down.
fn unit(scalars: &Scalars) -> f64 {
    let exponent = -i64::from(libm::ilogb(scalars.d * scalars.lr));
    libm::scalbn(1.0, exponent.clamp(-60, 56) as i32)
}

impl Rule<6, 2, 2> for Sgd {
    const NAME: &'static str = "sgd";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Momentum, 0.0),
        (Key::WeightDecay, 0.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
    ];
    const STATE: [Slot; 2] = [
        Slot { name: "s", init: Init::Zero, saturates: false },
        Slot { name: "x0", init: Init::Parameter, saturates: false },
    ];
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
            unit(scalars),
            group.get(Key::WeightDecay),
        ]
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 2] {
        let unit = unit(scalars);
        let r = group.get(Key::LayerScale);
        [r / unit, r / (unit * unit)]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8>(
        lanes: Lanes<S, E>,
        &[gamma, momentum, dampening, minus_r, unit, weight_decay]: &[E::Reg<S>; 6],
        mut g: E::Reg<S>,
        (p, [s, x0]): Cell<E, S, 2>,
        [numerator, s_sq]: [E::Reg<S>; 2],
    ) -> (Cell<E, S, 2>, [E::Reg<S>; 2]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(weight_decay, p, g);
        }
        let numerator = lanes.mul_add(g, lanes.mul(unit, s), numerator);
        let next_s = lanes.mul_add(gamma, g, s);
        let scaled = lanes.mul(unit, next_s);
        let s_sq = lanes.mul_add(scaled, scaled, s_sq);
        let z = lanes.mul_add(minus_r, next_s, x0);
        let next_p = lanes.mul_add(dampening, z, lanes.mul(momentum, p));
        ((next_p, [next_s, x0]), [numerator, s_sq])
    }

    fn estimate(
        scalars: &Scalars,
        numerator_weighted: &mut f64,
        &[numerator, s_sq]: &[f64; 2],
    ) -> Option<Estimate> {
        if s_sq == 0.0 {
            return None;
        }
        *numerator_weighted += Self::gamma(scalars) * numerator;
        let numerator = 2.0 * *numerator_weighted;
        let denominator = s_sq.sqrt();
        Some(Estimate { numerator, denominator, d_hat: numerator / denominator })
    }
}
