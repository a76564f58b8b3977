//! The usual ways of keeping state, each with a kernel of its own, and what has them.

use crate::algorithm::{self, Role, Rule, knows, pass};
use crate::dtype::DType;

pub(super) const FULL: u8 = 1;
pub(super) const BF16: u8 = 2;
pub(super) const Q8: u8 = 3;
pub(super) const COMPACT: u8 = 4;

pub(super) const ALL: [u8; 4] = [FULL, BF16, Q8, COMPACT];

/// Parameters and gradients that the loops decode themselves.
pub(super) mod pair {
    /// None: what is not f32 is decoded before.
    pub(in super::super) const NONE: u8 = 0;
    /// Of bf16, beside a master copy.
    pub(in super::super) const MASTER: u8 = 1;
    /// Of bf16, without one: the parameter is rounded by noise.
    pub(in super::super) const ALONE: u8 = 2;
}

/// Whether there are kernels for a pass.
pub(super) const fn has<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    pass: u8,
    decay: u8,
) -> bool
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    let is_whole = pass == pass::ALL && SUMS > 0 || pass == pass::UPDATE;
    (is_whole || R::USES_NEXT_D) && knows::<R, COEFFS, SLOTS, SUMS>(pass, decay)
}

/// Whether a mode is another's twin: compact state is bf16 but for statistics.
pub(super) const fn is_twin<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    mode: u8,
) -> bool
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    let mut slot = 0;
    while slot < SLOTS {
        if matches!(R::STATE[slot].role, Role::Statistic) {
            return false;
        }
        slot += 1;
    }
    mode == COMPACT
}

/// What a slot that may be rounded is kept in.
#[inline(always)]
pub(super) const fn dtype_of(mode: u8, role: Role) -> DType {
    match (mode, role) {
        (BF16, _) => DType::Bf16,
        (Q8, _) | (COMPACT, Role::Statistic) => DType::Q8,
        (COMPACT, _) => DType::Bf16,
        _ => DType::F32,
    }
}

/// Whether a slot may be kept rounded.
#[inline(always)]
pub(super) const fn may_round<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    slot: usize,
) -> bool
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    !matches!(R::STATE[slot].kept, algorithm::Kept::Exactly(_))
}
