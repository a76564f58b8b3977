//! What a group needs while it is computed.

use crate::kernel::codec::{GROUP, Scale};
use crate::kernel::rounding::Key;
use std::mem::MaybeUninit;

/// A group's values, and what keeps those of different arrays from starting at one offset in their
/// pages: a load would wait for an earlier store to another of them.
type Values = MaybeUninit<[f32; GROUP + 16]>;

/// What a group needs while it is computed.
#[repr(align(64))]
pub(super) struct Scratch<const SLOTS: usize> {
    pub(super) p: Values,
    pub(super) g: Values,
    pub(super) state: [Values; SLOTS],
}

impl<const SLOTS: usize> Scratch<SLOTS> {
    /// With zeros in it where arrays are `decoded` to it.
    #[inline(always)]
    pub(super) fn new(memory: &mut MaybeUninit<Self>, decodes: bool) -> &mut Self {
        // SAFETY: nothing of it need be initialised, and zeros are values.
        unsafe {
            if decodes {
                memory.as_mut_ptr().write_bytes(0, 1);
            }
            memory.assume_init_mut()
        }
    }
}

/// A group's arrays, while it is computed.
pub(super) struct Group<const SLOTS: usize> {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) key: Key,
    pub(super) p: *mut f32,
    pub(super) g: *mut f32,
    /// Parameter and gradient in bf16, where loops decode them.
    pub(super) short: [*mut u8; 2],
    /// State as it is computed, before it is rounded.
    pub(super) computed: [*mut f32; SLOTS],
    pub(super) codes: [*mut u8; SLOTS],
    pub(super) scales: [Scale; SLOTS],
}
