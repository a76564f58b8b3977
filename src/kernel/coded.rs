//! The one pass over blocks whose arrays are not all of f32, as it usually is: codecs beside the lane
//! function.
//!
//! There is a kernel for each usual way of keeping state and each pass that whole runs consist of: all at
//! once, all but the statistics (of plain and frozen optimizers, and where statistics are sliced), and
//! the halves of a step whose parameter waits for the new `d`; of the first two others for parameters and
//! gradients of bf16, with a master copy and without. The engine does what they leave.

mod buffers;
mod group;
mod padding;

use self::group::CodedKernel;
use super::block::{GroupPlan, Partial};
use super::codec::short;
use super::isa::Token;
use super::kept::Coded;
use super::mode::{self, dtype_of, has, is_twin, may_round, pair};
use crate::algorithm::{Algorithm, Rule, Visitor, decay, pass};
use std::marker::PhantomData;

/// Sweeps the blocks of `len` elements, [`BLOCKS`](super::block::BLOCKS) at most, and sets `out`, which has room for
/// so many, to their sums, unweighted: how many parameters have become infinite by being rounded. `None` where
/// there is no kernel, and nothing has been done.
///
/// # Safety
/// Every array that the plan's pass reads holds `len` elements of its format, aligned, and the
/// exponents of their groups; none overlaps another, and those other than `g` are used by nobody else. What is
/// only read may be [`ZEROS`](super::block::ZEROS) where there is one block.
pub(crate) type CodedFn =
    unsafe fn(Token, &GroupPlan, &Coded, len: usize, out: &mut [Partial]) -> Option<u64>;

/// The kernels of an algorithm for every instruction set.
pub(crate) fn coded_fn(algorithm: Algorithm) -> CodedFn {
    algorithm.visit(Pick)
}

struct Pick;

impl Visitor for Pick {
    type Output = CodedFn;
    fn visit<R, const C: usize, const N: usize, const M: usize>(self) -> CodedFn
    where
        R: Rule<C, N, M>,
    {
        sweep::<R, C, N, M>
    }
}

/// # Safety
/// As [`CodedFn`].
unsafe fn sweep<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    token: Token,
    plan: &GroupPlan,
    arrays: &Coded,
    len: usize,
    out: &mut [Partial],
) -> Option<u64>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    if matches!(token, Token::Scalar(_)) {
        return None;
    }
    let is = |mode: &u8| {
        R::STATE.iter().zip(&arrays.state).enumerate().all(|(i, (slot, kept))| {
            !may_round::<R, COEFFS, SLOTS, SUMS>(i)
                || kept.format.dtype == dtype_of(*mode, slot.role)
        })
    };
    let mode = mode::ALL.into_iter().find(is)?;
    let pair = match arrays.copy {
        _ if arrays.g.format != short::FORMAT => pair::NONE,
        Some((copy, true)) if copy.format == short::FORMAT => pair::MASTER,
        None if arrays.p.format == short::FORMAT => pair::ALONE,
        _ => pair::NONE,
    };
    let mut coeffs = [0.0; COEFFS];
    for (coeff, from) in coeffs.iter_mut().zip(plan.coeffs) {
        *coeff = from as f32;
    }
    macro_rules! dispatch {
        ([$($pass:expr),+], $decays:tt, $modes:tt, $pair:expr) => {
            $(dispatch!(@ $pass, $decays, $modes, $pair);)+
        };
        (@ $pass:expr, [$($decay:expr),+], $modes:tt, $pair:expr) => { $(
            if const { has::<R, COEFFS, SLOTS, SUMS>($pass, $decay) }
                && (plan.pass, plan.decay) == ($pass, $decay)
            {
                dispatch!(@@ $pass, $decay, $modes, $pair);
            }
        )+ };
        (@@ $pass:expr, $decay:expr, [$($mode:expr),+], $pair:expr) => { $(
            if const { !is_twin::<R, COEFFS, SLOTS, SUMS>($mode) } && $mode == mode {
                let kernel = CodedKernel::<
                    R, COEFFS, SLOTS, SUMS, { $decay }, { $pass }, { $mode }, { $pair }
                > {
                    token, coeffs, arrays, len, out, rule: PhantomData
                };
                return Some(token.dispatch_wide(kernel));
            }
        )+ };
    }
    // Not where there is 8-bit state: it gains less by it, and kernels are many.
    if pair == pair::MASTER {
        dispatch!(
            [pass::ALL, pass::UPDATE],
            [decay::NONE, decay::COUPLED, decay::DECOUPLED],
            [mode::FULL, mode::BF16],
            pair::MASTER
        );
    }
    // Where steps round the parameter, it waits for the next `d`.
    if const { !R::USES_NEXT_D } && pair == pair::ALONE {
        dispatch!(
            [pass::ALL, pass::UPDATE],
            [decay::NONE, decay::COUPLED, decay::DECOUPLED],
            [mode::FULL, mode::BF16],
            pair::ALONE
        );
    }
    dispatch!(
        [pass::ALL, pass::UPDATE, pass::ADVANCE, pass::MOVE],
        [decay::NONE, decay::COUPLED, decay::DECOUPLED],
        [mode::FULL, mode::BF16, mode::Q8, mode::COMPACT],
        pair::NONE
    );
    None
}
