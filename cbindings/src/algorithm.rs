//! Algorithms and element types

use crate::handle::{guard, text, write_if_wanted};
use crate::names::c_name;
use crate::status::dadapt_status;
use dadapt::{Algorithm, DType};
use std::ffi::c_char;
use std::ptr;

/// An algorithm.
pub type dadapt_algorithm = i32;

/// D-Adaptation for Adam: three state arrays a tensor, exp_avg, exp_avg_sq and s.
pub const DADAPT_ALGORITHM_ADAM: dadapt_algorithm = 1;
/// D-Adaptation for SGD with momentum: two state arrays a tensor, s and x0.
pub const DADAPT_ALGORITHM_SGD: dadapt_algorithm = 2;
/// D-Adaptation for AdaGrad: alphak, sk and x0. It takes gradients of single rows too
/// (dadapt_optimizer_add_rows).
pub const DADAPT_ALGORITHM_ADAGRAD: dadapt_algorithm = 3;
/// D-Adaptation for Lion: exp_avg and s.
pub const DADAPT_ALGORITHM_LION: dadapt_algorithm = 4;
/// D-Adaptation for Adan: exp_avg, exp_avg_sq, exp_avg_diff, pre_grad and s. It can be restarted.
pub const DADAPT_ALGORITHM_ADAN: dadapt_algorithm = 5;
/// Prodigy: exp_avg, exp_avg_sq, s and p0. It does not step in parts.
pub const DADAPT_ALGORITHM_PRODIGY: dadapt_algorithm = 6;
/// D-Adaptation for Adam as in the first versions of its preprint: state as with Adam.
/// Experimental.
pub const DADAPT_ALGORITHM_EXPERIMENTAL_ADAM_PREPRINT: dadapt_algorithm = 7;
/// D-Adaptation for Adan by inner products: state and restart as with Adan. Experimental.
pub const DADAPT_ALGORITHM_EXPERIMENTAL_ADAN_IP: dadapt_algorithm = 8;
/// SGD with momentum, at a rate set by hand, as all plain ones: momentum_buffer.
pub const DADAPT_ALGORITHM_PLAIN_SGD: dadapt_algorithm = 9;
/// Adam and AdamW at a rate set by hand: exp_avg and exp_avg_sq.
pub const DADAPT_ALGORITHM_PLAIN_ADAM: dadapt_algorithm = 10;
/// AdaGrad at a rate set by hand: sum.
pub const DADAPT_ALGORITHM_PLAIN_ADAGRAD: dadapt_algorithm = 11;
/// Lion at a rate set by hand: exp_avg.
pub const DADAPT_ALGORITHM_PLAIN_LION: dadapt_algorithm = 12;
/// Adan at a rate set by hand: exp_avg, exp_avg_sq, exp_avg_diff and pre_grad.
pub const DADAPT_ALGORITHM_PLAIN_ADAN: dadapt_algorithm = 13;

/// The type of the elements of parameters, gradients and state. F32, BF16 and F16 go with one
/// another in any mix; all are computed on as float. F64 goes with itself.
pub type dadapt_dtype = i32;

/// float.
pub const DADAPT_DTYPE_F32: dadapt_dtype = 1;
/// double.
pub const DADAPT_DTYPE_F64: dadapt_dtype = 2;
/// The upper half of a float, as a uint16_t: 8 bits of exponent, 7 of fraction.
pub const DADAPT_DTYPE_BF16: dadapt_dtype = 3;
/// IEEE 754's binary16, as a uint16_t: 5 bits of exponent, 10 of fraction; up to 65504.
pub const DADAPT_DTYPE_F16: dadapt_dtype = 4;
/// Of state alone: a byte an element, floating point, then the exponents that 256 of them share, a
/// byte each. dadapt_optimizer_state_values reads it.
pub const DADAPT_DTYPE_Q8: dadapt_dtype = 5;

/// "adam", "plain_sgd"; NULL for other codes. They count from 1 without gaps. Never freed. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_algorithm_name(algorithm: dadapt_algorithm) -> *const c_char {
    Algorithm::from_code(algorithm).map_or(ptr::null(), |algorithm| c_name(algorithm.name()))
}

/// The algorithm of that name.
///
/// algorithm: out; NULL to learn only whether there is one.
/// Errors: DADAPT_ERROR_UNKNOWN_ALGORITHM; of the string. Any thread.
///
/// # Safety
/// name is NULL or a string; algorithm is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_algorithm_from_name(
    name: *const c_char,
    algorithm: *mut dadapt_algorithm,
) -> dadapt_status {
    guard(|| {
        // SAFETY: this function's contract.
        let found = Algorithm::from_name(unsafe { text(name, "name")? })?;
        // SAFETY: as above.
        unsafe { write_if_wanted(algorithm, found as i32) };
        Ok(())
    })
}

/// How many state arrays the algorithm keeps a tensor, master copies aside; 0 for other codes. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_algorithm_state_count(algorithm: dadapt_algorithm) -> usize {
    Algorithm::from_code(algorithm).map_or(0, |algorithm| algorithm.state_names().count())
}

/// The name of one of its state arrays, "exp_avg"; NULL where there is none. Never freed. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_algorithm_state_name(
    algorithm: dadapt_algorithm,
    slot: usize,
) -> *const c_char {
    let name = Algorithm::from_code(algorithm).ok().and_then(|a| a.state_names().nth(slot));
    name.map_or(ptr::null(), c_name)
}

/// "f32", "bf16"; NULL for other codes. Never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_dtype_name(dtype: dadapt_dtype) -> *const c_char {
    DType::from_code(dtype).map_or(ptr::null(), |dtype| c_name(dtype.name()))
}
