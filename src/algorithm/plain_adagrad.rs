//! AdaGrad at a rate set by hand.
//!
//! ```text
//! g <- g + weight_decay*p
//! a <- a + g^2
//! p <- p - r*lr*g/(sqrt(a)+eps)
//! ```
//! with `r` the layer scale and `a` the state `sum`, which starts at 0.
//!
//! Source: PyTorch's `torch.optim.Adagrad`, without `lr_decay` and `initial_accumulator_value`.

use super::rule::{Cell, root};
use super::{Decay, Init, Role, Rule, Scalars, Slot, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct PlainAdaGrad;

impl Rule<3, 1, 0> for PlainAdaGrad {
    const NAME: &'static str = "plain_adagrad";
    const OPTIONS: &'static [(Key, f64)] =
        &[(Key::Lr, 1e-2), (Key::Eps, 1e-10), (Key::WeightDecay, 0.0), (Key::LayerScale, 1.0)];
    const STATE: [Slot; 1] = [Slot::new("sum", Init::Zero, Role::State).unsigned()];
    const DECAY: Decay = Decay::Coupled;
    const PASSES: &'static [u8] = &[pass::UPDATE];
    const MOVES_BY_STATE: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 3] {
        [scalars.lr * group.get(Key::LayerScale), group.get(Key::Eps), group.get(Key::WeightDecay)]
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[rate, eps, weight_decay]: &[E::Reg<S>; 3],
        mut g: E::Reg<S>,
        (p, [mut a]): Cell<E, S, 1>,
        sums: [E::Reg<S>; 0],
    ) -> (Cell<E, S, 1>, [E::Reg<S>; 0]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(weight_decay, p, g);
        }
        if PASS & pass::STATE != 0 {
            // Not below twice the smallest normal: a square that underflows counts as 0.
            a = lanes.decay(lanes.splat(E::ONE), a, g, g);
        }
        let denom = lanes.add(root::<S, E, PASS>(lanes, a), eps);
        ((lanes.negate_mul_add(rate, lanes.div(g, denom), p), [a]), sums)
    }
}
