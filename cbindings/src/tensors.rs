//! Tensors

use crate::algorithm::dadapt_dtype;
use crate::config::dadapt_group;
use crate::handle::{Outcome, change, out, read, text, write_if_wanted};
use crate::optimizer::dadapt_optimizer;
use crate::status::{
    DADAPT_ERROR_OUT_OF_BOUNDS, DADAPT_ERROR_UNKNOWN_TENSOR, Failure, dadapt_status,
};
use dadapt::{DType, GroupId, Optimizer, StateOwner};
use std::ffi::c_char;

/// Arguments of the functions that register tensors.
struct Registration {
    group: dadapt_group,
    name: *const c_char,
    dtype: dadapt_dtype,
    /// Elements, or rows of a table.
    len: usize,
    /// Elements of a row, of a table.
    width: Option<usize>,
    id: *mut u64,
}

/// # Safety
/// `name` is null or a string; `id` is null or can be written.
unsafe fn add_tensor(
    optimizer: &mut Optimizer,
    Registration { group, name, dtype, len, width, id }: Registration,
    owner: StateOwner,
) -> Outcome {
    let number = optimizer.tensors().to_string();
    // SAFETY: this function's contract.
    let name = if name.is_null() { &number } else { unsafe { text(name, "name")? } };
    // SAFETY: as above.
    let to = unsafe { out(id, "id")? };
    let (group, dtype) = (GroupId::new(group as usize), DType::from_code(dtype)?);
    let added = match (width, owner) {
        (Some(width), _) => optimizer.add_rows(group, name, dtype, len, width, owner)?,
        (None, StateOwner::Library) => optimizer.add_tensor(group, name, dtype, len)?,
        (None, StateOwner::Caller) => {
            optimizer.add_tensor_with_state_of_caller(group, name, dtype, len)?
        }
    };
    to.write(added.code());
    Ok(())
}

/// Registers a tensor of len elements and allocates its state. Allowed between steps.
///
/// group: its number, not DADAPT_ALL_GROUPS.
/// name: what messages call the tensor; must be new. NULL names it by its id. Copied.
/// dtype: of its parameters: DADAPT_DTYPE_F32, _F64, _BF16 or _F16. Gradients may be of another, as
///     each step says. State is of what DADAPT_KEY_STATE and dadapt_config_set_state_dtype say.
/// id: out; ids count from 0.
/// Errors: DADAPT_ERROR_UNKNOWN_GROUP, _DUPLICATE_NAME, _UNKNOWN_DTYPE, _DTYPE_NOT_FOR, _STATE_DTYPE,
/// _TOO_LONG, _OUT_OF_MEMORY, _INVALID_UTF8, _STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; name is NULL or a string; id is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_add_tensor(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    name: *const c_char,
    dtype: dadapt_dtype,
    len: usize,
    id: *mut u64,
) -> dadapt_status {
    let given = Registration { group, name, dtype, len, width: None, id };
    // SAFETY: this function's contract is `add_tensor`'s.
    let work = |o: &mut dadapt_optimizer| unsafe {
        add_tensor(&mut o.optimizer, given, StateOwner::Library)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// Registers a tensor whose state the caller keeps and gives to each step: the field state of
/// dadapt_tensor. Arguments and errors are those of dadapt_optimizer_add_tensor.
///
/// There are dadapt_optimizer_state_count arrays, as large as dadapt_optimizer_state_bytes says, and
/// aligned to elements of what dadapt_optimizer_state_info says. They may hold anything before the
/// tensor's first gradient and are left alone between steps; they may be moved.
///
/// # Safety
/// As dadapt_optimizer_add_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_add_tensor_with_state_of_caller(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    name: *const c_char,
    dtype: dadapt_dtype,
    len: usize,
    id: *mut u64,
) -> dadapt_status {
    let given = Registration { group, name, dtype, len, width: None, id };
    // SAFETY: this function's contract is `add_tensor`'s.
    let work = |o: &mut dadapt_optimizer| unsafe {
        add_tensor(&mut o.optimizer, given, StateOwner::Caller)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// Registers a table of rows whose gradients are of single rows, as an embedding gives them: the
/// fields rows, row_count and row_type of dadapt_tensor. DADAPT_ALGORITHM_ADAGRAD only.
///
/// rows, width: its rows, and the elements of each. len of dadapt_tensor is rows*width.
/// state_of_caller: 0, or 1 where the caller keeps the state: alphak, sk, x0 and weighted_sk, each
///     as large as the table, and all 0 before the table's first gradient.
/// dtype: DADAPT_DTYPE_F32 or DADAPT_DTYPE_F64, also of gradients and state.
/// Other arguments: as dadapt_optimizer_add_tensor.
///
/// A step reads and writes the rows it is given and no others. Tables and other tensors may share an
/// optimizer; eps stands under the root here, as in the Python package.
///
/// Errors: DADAPT_ERROR_NO_ROWS for other algorithms, _OUT_OF_BOUNDS for another state_of_caller;
/// else as dadapt_optimizer_add_tensor.
///
/// # Safety
/// As dadapt_optimizer_add_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_add_rows(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    name: *const c_char,
    dtype: dadapt_dtype,
    rows: usize,
    width: usize,
    state_of_caller: i32,
    id: *mut u64,
) -> dadapt_status {
    let given = Registration { group, name, dtype, len: rows, width: Some(width), id };
    let work = |o: &mut dadapt_optimizer| {
        let owner = match state_of_caller {
            0 => StateOwner::Library,
            1 => StateOwner::Caller,
            other => {
                let detail = format!("state_of_caller is {other}, not 0 or 1");
                return Err(Failure::new(DADAPT_ERROR_OUT_OF_BOUNDS, detail));
            }
        };
        // SAFETY: this function's contract is `add_tensor`'s.
        unsafe { add_tensor(&mut o.optimizer, given, owner) }
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// The id of the tensor of that name.
///
/// id: out; NULL to learn only whether there is one.
/// Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _INVALID_UTF8, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; name is NULL or a string; id is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_tensor_id(
    optimizer: *const dadapt_optimizer,
    name: *const c_char,
    id: *mut u64,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let name = unsafe { text(name, "name")? };
        let unknown = || {
            let detail = format!("there is no tensor named {name:?}");
            Failure::new(DADAPT_ERROR_UNKNOWN_TENSOR, detail)
        };
        let found = o.optimizer.tensor(name).ok_or_else(unknown)?;
        // SAFETY: this function's contract.
        unsafe { write_if_wanted(id, found.code()) };
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}
