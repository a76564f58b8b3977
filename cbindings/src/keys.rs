//! Options

use crate::handle::{guard, out, text, write_if_wanted};
use crate::names::c_name;
use crate::status::dadapt_status;
use dadapt::{Isa, Key, Scope};
use std::ffi::c_char;
use std::ptr;

/// An option. Values are doubles: switches are 0 or 1, counts whole numbers, choices codes.
pub type dadapt_key = i32;

/// Learning rate, a factor on d: 1 unless there is a schedule. Groups that share a d are equal or 0
/// (frozen). Per group; default 1. Of plain algorithms the step size itself, any per group: default
/// 1e-3, of plain_adagrad 1e-2, of plain_lion 1e-4.
pub const DADAPT_KEY_LR: dadapt_key = 1;
/// Decay of the running mean of gradients. Default 0.9, of Adan 0.98. Prodigy keeps no exp_avg
/// where it is 0.
pub const DADAPT_KEY_BETA1: dadapt_key = 2;
/// Decay of the running mean of squared gradients. Default 0.999. Lion: of the running mean that it
/// keeps; default 0.99. Adan: of the mean of differences of gradients; default 0.92.
pub const DADAPT_KEY_BETA2: dadapt_key = 3;
/// Added to the root of the second moment. Per group; default 1e-8, of AdaGrad 1e-6, of
/// plain_adagrad 1e-10.
pub const DADAPT_KEY_EPS: dadapt_key = 4;
/// Weight decay. Per group; default 0, of Adan 0.02 and of plain_adan 0.
pub const DADAPT_KEY_WEIGHT_DECAY: dadapt_key = 5;
/// 1: weight decay shrinks the parameter, as AdamW does. 0: it is added to the gradient. Per group;
/// default 0, of Prodigy 1.
pub const DADAPT_KEY_DECOUPLE: dadapt_key = 6;
/// 1: Adam's bias correction. Default 0.
pub const DADAPT_KEY_USE_BIAS_CORRECTION: dadapt_key = 7;
/// The most that d may grow by in a step, as a factor. Default infinity, which is no limit; 1.02
/// acts as a warm-up.
pub const DADAPT_KEY_GROWTH_RATE: dadapt_key = 8;
/// The group's rate relative to that of the others. Per group; default 1.
pub const DADAPT_KEY_LAYER_SCALE: dadapt_key = 9;
/// Momentum of SGD and of AdaGrad. Per group; default 0, where plain_sgd keeps no momentum_buffer.
pub const DADAPT_KEY_MOMENTUM: dadapt_key = 10;
/// The first d; it can be set until a step has made progress. Default 1e-6.
pub const DADAPT_KEY_D0: dadapt_key = 11;
/// The log callback gets a line every so many steps. Default 0, which is never.
pub const DADAPT_KEY_LOG_EVERY: dadapt_key = 12;
/// What a NaN or an infinity in a gradient does: DADAPT_NON_FINITE_REJECT, _SKIP or _PROPAGATE.
pub const DADAPT_KEY_NON_FINITE: dadapt_key = 13;
/// Threads of a large step, the calling thread included. Default 0: as many as the environment
/// variable DADAPT_NUM_THREADS says, else as many as there are processors. Of configurations only.
pub const DADAPT_KEY_NUM_THREADS: dadapt_key = 14;
/// Forces an instruction set, by DADAPT_ISA_SCALAR and so on. Default 0: the one that the
/// environment variable DADAPT_ISA names, else the widest there is. Of configurations only.
pub const DADAPT_KEY_ISA: dadapt_key = 15;
/// Adan: decay of the second moment and of s; default 0.99. Prodigy: decay of s and of the
/// numerator; default 0, which stands for the root of beta2.
pub const DADAPT_KEY_BETA3: dadapt_key = 16;
/// 1: Adan's weight decay shrinks the parameter before the step, as AdamW does. 0: after it, by a
/// division. Per group; default 0.
pub const DADAPT_KEY_NO_PROX: dadapt_key = 17;
/// A factor on Prodigy's d_hat: 0.5 for a more cautious estimate, 2 for a bolder one. Default 1.
pub const DADAPT_KEY_D_COEF: dadapt_key = 18;
/// 1: Prodigy's s is weighted without lr and bias correction, so that a warm-up of lr does not let
/// d grow too large. Per group; default 0.
pub const DADAPT_KEY_SAFEGUARD_WARMUP: dadapt_key = 19;
/// Statistics (s, Prodigy's p0) follow only every so many elements of a tensor, which saves their
/// memory. Before the group has tensors. Per group; default 1.
pub const DADAPT_KEY_SLICE_P: dadapt_key = 20;
/// What d does not grow beyond. Default infinity, which is no limit.
pub const DADAPT_KEY_D_CAP: dadapt_key = 21;
/// How much less than the whole gradient joins the momentum of plain_sgd. Per group; default 0.
pub const DADAPT_KEY_DAMPENING: dadapt_key = 22;
/// 1: every group estimates a d of its own, and rates may differ. Default 0. Of configurations
/// only.
pub const DADAPT_KEY_D_PER_GROUP: dadapt_key = 23;
/// What state is kept in: DADAPT_STATE_FULL, _COMPACT, _BF16 or _Q8; of single slots
/// dadapt_config_set_state_dtype says it. Before the group has tensors. Groups with F64 tensors, and
/// sgd and adagrad, have DADAPT_STATE_FULL alone. Per group; default DADAPT_STATE_FULL, which is 0.
pub const DADAPT_KEY_STATE: dadapt_key = 24;
/// 1: parameters of BF16 and F16 have a master copy of F32, the last of their state arrays, which
/// steps work on; the parameter is that, rounded to nearest. Elements that the caller has changed
/// since, the copy takes over. 0: there is none, and parameters are rounded stochastically. Before
/// the group has tensors. Per group; default 1.
pub const DADAPT_KEY_MASTER: dadapt_key = 25;
/// Of the noise of stochastic rounding: the same seed gives the same bits, on any number of threads.
/// A whole number up to 2^53; default 0.
pub const DADAPT_KEY_SEED: dadapt_key = 26;
/// 1: slice_p counts runs of 16 elements, which are cache lines of floats, and not single elements:
/// less time for the same memory. Before the group has tensors. Per group; default 0.
pub const DADAPT_KEY_SLICE_BY_LINE: dadapt_key = 27;

/// A value of DADAPT_KEY_STATE.
pub type dadapt_state_kind = i32;

/// What the recurrence computes in: F32, or F64 of F64 tensors. The default.
pub const DADAPT_STATE_FULL: dadapt_state_kind = 0;
/// s, which drives d and nothing else, in Q8; all else that may be rounded in BF16.
pub const DADAPT_STATE_COMPACT: dadapt_state_kind = 1;
/// All that may be rounded in BF16.
pub const DADAPT_STATE_BF16: dadapt_state_kind = 2;
/// All that may be rounded in Q8: the least memory.
pub const DADAPT_STATE_Q8: dadapt_state_kind = 3;

/// A value of DADAPT_KEY_NON_FINITE.
pub type dadapt_non_finite = i32;

/// The step is an error and changes nothing. The default.
pub const DADAPT_NON_FINITE_REJECT: dadapt_non_finite = 0;
/// The step succeeds, changes nothing and reports so.
pub const DADAPT_NON_FINITE_SKIP: dadapt_non_finite = 1;
/// Not looked for, which saves reading the gradients twice. Such a value spreads over the
/// parameters; d alone is protected from it.
pub const DADAPT_NON_FINITE_PROPAGATE: dadapt_non_finite = 2;

/// A value of DADAPT_KEY_ISA.
pub type dadapt_isa_code = i32;

/// Plain code.
pub const DADAPT_ISA_SCALAR: dadapt_isa_code = 1;
/// x86-64 AVX2 and FMA.
pub const DADAPT_ISA_AVX2: dadapt_isa_code = 2;
/// x86-64 AVX-512 F, BW, CD, DQ, VL.
pub const DADAPT_ISA_AVX512: dadapt_isa_code = 3;
/// AArch64 NEON.
pub const DADAPT_ISA_NEON: dadapt_isa_code = 4;

/// Flags of dadapt_key_bounds.
pub type dadapt_bounds = u32;

/// min itself is not allowed.
pub const DADAPT_BOUNDS_OPEN_MIN: dadapt_bounds = 1;
/// max itself is not allowed.
pub const DADAPT_BOUNDS_OPEN_MAX: dadapt_bounds = 2;
/// Whole numbers only.
pub const DADAPT_BOUNDS_INTEGER: dadapt_bounds = 4;
/// Each group has its own value.
pub const DADAPT_BOUNDS_PER_GROUP: dadapt_bounds = 8;

/// The option's name in lower case, "weight_decay"; NULL for other codes. Never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_key_name(key: dadapt_key) -> *const c_char {
    Key::from_code(key).map_or(ptr::null(), |key| c_name(key.name()))
}

/// The option of that name.
///
/// key: out; NULL to learn only whether there is one.
/// Errors: DADAPT_ERROR_UNKNOWN_KEY; of the string. Any thread.
///
/// # Safety
/// name is NULL or a string; key is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_key_from_name(
    name: *const c_char,
    key: *mut dadapt_key,
) -> dadapt_status {
    guard(|| {
        // SAFETY: this function's contract.
        let found = Key::from_name(unsafe { text(name, "name")? })?;
        // SAFETY: as above.
        unsafe { write_if_wanted(key, found as i32) };
        Ok(())
    })
}

/// The values that an option takes: from min to max, but for what the flags take away. NaN never.
///
/// min, max, flags: out, each NULL where it is not wanted; flags are DADAPT_BOUNDS_....
/// Errors: DADAPT_ERROR_UNKNOWN_KEY. Any thread.
///
/// # Safety
/// min, max and flags are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_key_bounds(
    key: dadapt_key,
    min: *mut f64,
    max: *mut f64,
    flags: *mut dadapt_bounds,
) -> dadapt_status {
    guard(|| {
        let key = Key::from_code(key)?;
        let bounds = key.bounds();
        let set = |on: bool, flag: dadapt_bounds| if on { flag } else { 0 };
        let all_flags = set(bounds.open_min, DADAPT_BOUNDS_OPEN_MIN)
            | set(bounds.open_max, DADAPT_BOUNDS_OPEN_MAX)
            | set(bounds.integer, DADAPT_BOUNDS_INTEGER)
            | set(key.scope() == Scope::Group, DADAPT_BOUNDS_PER_GROUP);
        // SAFETY: this function's contract.
        unsafe {
            write_if_wanted(min, bounds.min);
            write_if_wanted(max, bounds.max);
            write_if_wanted(flags, all_flags);
        }
        Ok(())
    })
}

/// The instruction set that an optimizer gets by default: the one that the environment variable
/// DADAPT_ISA names, else the widest that this machine has. The bits are the same with each.
///
/// name: out, "scalar", "avx2", "avx512" or "neon"; never freed.
/// Errors: DADAPT_ERROR_UNKNOWN_ISA and DADAPT_ERROR_ISA_UNAVAILABLE, of DADAPT_ISA;
/// DADAPT_ERROR_NULL_POINTER. Any thread.
///
/// # Safety
/// name points to a pointer that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_isa(name: *mut *const c_char) -> dadapt_status {
    guard(|| {
        // SAFETY: this function's contract.
        let name = unsafe { out(name, "name")? };
        name.write(c_name(Isa::from_env()?.name()));
        Ok(())
    })
}

/// "scalar", "avx2", "avx512", "neon" for DADAPT_ISA_SCALAR and so on; NULL for other codes. Never
/// freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_isa_name(isa: dadapt_isa_code) -> *const c_char {
    let found = Isa::ALL.into_iter().find(|known| *known as i32 == isa);
    found.map_or(ptr::null(), |isa| c_name(isa.name()))
}
