//! AdaGrad with D-Adaptation, of single rows: what [`adagrad`](super::adagrad) is for embeddings.
//!
//! ```text
//! a  <- a + g^2
//! s  <- s + gamma*g ;                dL += r * (|s| - |old s|)
//! dW -= r * w ;   w <- s^2/sqrt(a+eps) ;   dW += r * w
//! G  += r * g^2/sqrt(a+eps)
//! p  <- x0 - r*s/sqrt(a+eps)
//! ```
//! for the rows that a gradient touches. `a`, `s`, `w` are the state `alphak`, `sk`, `weighted_sk`; the
//! totals and `d_hat` are those of `adagrad`. As in the reference `eps` stands under the root.
//!
//! Source: `dadaptation` 3.2, `dadapt_adagrad.py`, `DAdaptAdaGrad.step`, its sparse branch. That one
//! ignores weight decay and momentum; here they are an error.

use super::adagrad::{AdaGrad, INITIAL_ALPHAK};
use super::rule::Cell;
use super::{Decay, Init, Role, Rule, Scalars, Slot, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct AdaGradRows;

impl Rule<3, 4, 3> for AdaGradRows {
    const NAME: &'static str = AdaGrad::NAME;
    const OPTIONS: &'static [(Key, f64)] = AdaGrad::OPTIONS;
    const STATE: [Slot; 4] = [
        Slot::new("alphak", Init::Constant(INITIAL_ALPHAK), Role::State),
        Slot::new("sk", Init::Zero, Role::State),
        Slot::new("x0", Init::Parameter, Role::State),
        Slot::new("weighted_sk", Init::Zero, Role::State),
    ];
    const DECAY: Decay = Decay::None;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 3] {
        [Self::gamma(scalars), group.get(Key::LayerScale), group.get(Key::Eps)]
    }

    fn weights(_: &Scalars, group: &Options) -> [f64; 3] {
        [group.get(Key::LayerScale); 3]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[gamma, r, eps]: &[E::Reg<S>; 3],
        g: E::Reg<S>,
        (_, [a, s, x0, w]): Cell<E, S, 4>,
        [s_sq, s_l1, g_sq]: [E::Reg<S>; 3],
    ) -> (Cell<E, S, 4>, [E::Reg<S>; 3]) {
        let next_a = lanes.saturate(lanes.mul_add(g, g, a));
        let next_s = lanes.mul_add(gamma, g, s);
        let root = lanes.sqrt(lanes.add(next_a, eps));
        let inverse = lanes.div(lanes.splat(E::ONE), root);
        let quotient = lanes.mul(next_s, inverse);
        let next_w = lanes.mul(next_s, quotient);
        let p = lanes.negate_mul_add(r, quotient, x0);
        let state = [next_a, next_s, x0, next_w];
        if PASS & pass::SUMS == 0 {
            return ((p, state), [s_sq, s_l1, g_sq]);
        }
        let s_sq = lanes.add(s_sq, lanes.sub(next_w, w));
        let s_l1 = lanes.add(s_l1, lanes.sub(lanes.abs(next_s), lanes.abs(s)));
        let g_sq = lanes.mul_add(g, lanes.mul(g, inverse), g_sq);
        ((p, state), [s_sq, s_l1, g_sq])
    }
}
