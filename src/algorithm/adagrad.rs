//! AdaGrad with D-Adaptation.
//!
//! ```text
//! g  <- g + weight_decay*p
//! dW -= r * s^2/(sqrt(a)+eps) ;   dL -= r * |s|                  (old s, old a)
//! a  <- a + g^2 ;                 G  += r * g^2/(sqrt(a)+eps)    (new a)
//! s  <- s + gamma*g
//! dW += r * s^2/(sqrt(a)+eps) ;   dL += r * |s|
//! p  <- momentum*p + (1-momentum)*(x0 - r*s/(sqrt(a)+eps))
//! W  <- W + dW ;   L <- L + dL ;   Gw <- Gw + gamma^2*G
//! d_hat = (W - Gw)/L
//! ```
//! with `gamma = d*lr`, `r` the layer scale, `a` the state `alphak`, which starts at 1e-6, `s` the
//! state `sk`, and `x0` the parameter at its first gradient.
//!
//! [`adagrad_rows`](super::adagrad_rows) is the same for gradients of single rows.
//!
//! As in [`adam`](super::adam) the quotients by the old and the new denominator share one division,
//! and as in [`sgd`](super::sgd) sums take `u*s`, `u` a power of two.
//!
//! Source: arXiv:2301.07733; `dadaptation` 3.2, `dadapt_adagrad.py`, `DAdaptAdaGrad.step`.

use super::rule::Cell;
use super::{Decay, Estimate, Init, Kept, Role, Rule, Scalars, Slot, Totals, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct AdaGrad;

/// What the reference starts the accumulator of squared gradients with.
pub(super) const INITIAL_ALPHAK: f64 = 1e-6;

impl Rule<7, 3, 3> for AdaGrad {
    const NAME: &'static str = "adagrad";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1.0),
        (Key::Momentum, 0.0),
        (Key::Eps, 1e-6),
        (Key::WeightDecay, 0.0),
        (Key::GrowthRate, f64::INFINITY),
        (Key::DCap, f64::INFINITY),
        (Key::LayerScale, 1.0),
        (Key::D0, 1e-6),
        (Key::DPerGroup, 0.0),
    ];
    const STATE: [Slot; 3] = [
        Slot::new("alphak", Init::Constant(INITIAL_ALPHAK), Role::State)
            .saturating()
            .kept(Kept::Exactly("the totals take out with it what an earlier step put in with it")),
        Slot::new("sk", Init::Zero, Role::State).kept(Kept::Exactly(
            "parameters are computed from it, and rounding it rounds the model",
        )),
        Slot::new("x0", Init::Parameter, Role::State),
    ];
    const DECAY: Decay = Decay::Coupled;
    const ACCUMULATES: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 7] {
        let momentum = group.get(Key::Momentum);
        [
            Self::gamma(scalars),
            momentum,
            1.0 - momentum,
            -group.get(Key::LayerScale),
            scalars.unit(),
            group.get(Key::Eps),
            group.get(Key::WeightDecay),
        ]
    }

    fn weights(scalars: &Scalars, group: &Options) -> [f64; 3] {
        let unit = scalars.unit();
        let r = group.get(Key::LayerScale);
        [r / (unit * unit), r, r]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[gamma, momentum, one_minus_momentum, minus_r, unit, eps, weight_decay]: &[E::Reg<S>; 7],
        mut g: E::Reg<S>,
        (p, [a, s, x0]): Cell<E, S, 3>,
        [s_sq, s_l1, g_sq]: [E::Reg<S>; 3],
    ) -> (Cell<E, S, 3>, [E::Reg<S>; 3]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(weight_decay, p, g);
        }
        let next_a = lanes.mul_add(g, g, a);
        let next_s = lanes.mul_add(gamma, g, s);
        let next_denom = lanes.add(lanes.sqrt(next_a), eps);
        let step = |quotient| {
            let z = lanes.mul_add(minus_r, quotient, x0);
            lanes.mul_add(one_minus_momentum, z, lanes.mul(momentum, p))
        };
        if PASS & pass::SUMS == 0 {
            let next_a = lanes.saturate(next_a);
            let next_p = step(lanes.div(next_s, next_denom));
            return ((next_p, [next_a, next_s, x0]), [s_sq, s_l1, g_sq]);
        }
        let denom = lanes.add(lanes.sqrt(a), eps);
        let inverse = lanes.div(lanes.splat(E::ONE), lanes.mul(denom, next_denom));
        let (by_denom, by_next) = (lanes.mul(inverse, next_denom), lanes.mul(inverse, denom));

        let (scaled, next_scaled) = (lanes.mul(unit, s), lanes.mul(unit, next_s));
        let s_sq = lanes.mul_add(next_scaled, lanes.mul(next_scaled, by_next), s_sq);
        let s_sq = lanes.negate_mul_add(scaled, lanes.mul(scaled, by_denom), s_sq);
        let s_l1 = lanes.add(s_l1, lanes.sub(lanes.abs(next_s), lanes.abs(s)));
        let g_sq = lanes.mul_add(g, lanes.mul(g, by_next), g_sq);

        let next_p = step(lanes.mul(next_s, by_next));
        ((next_p, [next_a, next_s, x0]), [s_sq, s_l1, g_sq])
    }

    fn estimate(scalars: &Scalars, totals: &mut Totals, sums: &[f64; 3]) -> Option<Estimate> {
        estimate(scalars, totals, sums)
    }
}

/// Of dense and of row-sparse tensors together.
pub(super) fn estimate(
    scalars: &Scalars,
    [sksq_weighted, gsq_weighted, sk_l1, ..]: &mut Totals,
    &[s_sq, s_l1, g_sq]: &[f64; 3],
) -> Option<Estimate> {
    if *sk_l1 + s_l1 == 0.0 {
        return None;
    }
    let gamma = AdaGrad::gamma(scalars);
    *sk_l1 += s_l1;
    *sksq_weighted += s_sq;
    *gsq_weighted += gamma * gamma * g_sq;
    Estimate::quotient(*sksq_weighted - *gsq_weighted, *sk_l1)
}
