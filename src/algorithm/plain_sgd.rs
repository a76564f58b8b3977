//! SGD with momentum at a rate set by hand.
//!
//! ```text
//! g <- g + weight_decay*p
//! b <- momentum*b + (1-dampening)*g              (the tensor's first step: b <- g)
//! p <- p - lr*r*b
//! ```
//! with `r` the layer scale and `b` the state `momentum_buffer`, which is not kept where momentum is
//! 0: `p <- p - lr*r*g`.
//!
//! Source: PyTorch's `torch.optim.SGD`, without `nesterov` and `maximize`.

use super::rule::Cell;
use super::{Decay, Init, Role, Rule, Scalars, Slot, decay, pass};
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

pub(crate) struct PlainSgd;

impl Rule<4, 1, 0> for PlainSgd {
    const NAME: &'static str = "plain_sgd";
    const OPTIONS: &'static [(Key, f64)] = &[
        (Key::Lr, 1e-3),
        (Key::Momentum, 0.0),
        (Key::Dampening, 0.0),
        (Key::WeightDecay, 0.0),
        (Key::LayerScale, 1.0),
    ];
    const STATE: [Slot; 1] = [Slot::new("momentum_buffer", Init::Zero, Role::Moment)];
    const DECAY: Decay = Decay::Coupled;
    const PASSES: &'static [u8] = &[pass::UPDATE, pass::STATE | pass::PARAMETER];
    const MOVES_BY_STATE: bool = true;
    const COUNTS_PER_TENSOR: bool = true;

    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; 4] {
        let (momentum, taken) = if scalars.steps == 0 {
            (0.0, 1.0)
        } else {
            (group.get(Key::Momentum), 1.0 - group.get(Key::Dampening))
        };
        [momentum, taken, scalars.lr * group.get(Key::LayerScale), group.get(Key::WeightDecay)]
    }

    fn keeps_moment(_: &Options, group: &Options) -> bool {
        group.is_on(Key::Momentum)
    }

    #[inline(always)]
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        &[momentum, taken, rate, weight_decay]: &[E::Reg<S>; 4],
        mut g: E::Reg<S>,
        (p, [mut b]): Cell<E, S, 1>,
        sums: [E::Reg<S>; 0],
    ) -> (Cell<E, S, 1>, [E::Reg<S>; 0]) {
        if DECAY == decay::COUPLED {
            g = lanes.mul_add(weight_decay, p, g);
        }
        if PASS & pass::MOMENT == 0 {
            return ((lanes.negate_mul_add(rate, g, p), [b]), sums);
        }
        if PASS & pass::STATE != 0 {
            b = lanes.decay(momentum, b, taken, g);
        }
        ((lanes.negate_mul_add(rate, b, p), [b]), sums)
    }
}
