//! Configuration

use crate::algorithm::{dadapt_algorithm, dadapt_dtype};
use crate::handle::{Fate, Object, Outcome, change, free, guard, out, read, text, write_if_wanted};
use crate::keys::dadapt_key;
use crate::status::{DADAPT_ERROR_OUT_OF_BOUNDS, Failure, dadapt_status};
use dadapt::{Algorithm, Config, DType, Error, GroupId, Key};
use std::ffi::c_char;

/// What an optimizer is made from: algorithm, groups, options. Its functions may run on any thread,
/// on one at a time; those that take it as const may run at once.
pub struct dadapt_config {
    pub(crate) config: Config,
    fate: Fate,
}

impl Object for dadapt_config {
    const ARGUMENT: &'static str = "config";
    fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// The number of a group. Groups count from 0.
pub type dadapt_group = u32;

/// In the place of a group: the options that are one value for all groups, or an option of all
/// groups, those to come included.
pub const DADAPT_ALL_GROUPS: dadapt_group = u32::MAX;

pub(crate) fn group_of(group: dadapt_group) -> Option<GroupId> {
    (group != DADAPT_ALL_GROUPS).then_some(GroupId::new(group as usize))
}

/// A dtype, or 0 for none.
pub(crate) fn dtype_or_none(dtype: dadapt_dtype) -> Result<Option<DType>, Error> {
    (dtype != 0).then(|| DType::from_code(dtype)).transpose()
}

/// The number of a group that was just added.
pub(crate) fn group_number(group: GroupId) -> Outcome<dadapt_group> {
    let number = u32::try_from(group.index()).ok().filter(|number| *number != DADAPT_ALL_GROUPS);
    number.ok_or_else(|| Failure::new(DADAPT_ERROR_OUT_OF_BOUNDS, "there are too many groups"))
}

/// A configuration with the algorithm's defaults and one group, 0. The defaults are those of the
/// Python package dadaptation.
///
/// config: out, to be freed with dadapt_config_free.
/// Errors: DADAPT_ERROR_UNKNOWN_ALGORITHM, DADAPT_ERROR_NULL_POINTER. Any thread.
///
/// # Safety
/// config is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_new(
    algorithm: dadapt_algorithm,
    config: *mut *mut dadapt_config,
) -> dadapt_status {
    guard(|| {
        // SAFETY: this function's contract.
        let to = unsafe { out(config, "config")? };
        let config = Config::new(Algorithm::from_code(algorithm)?);
        to.write(Box::into_raw(Box::new(dadapt_config { config, fate: Fate::default() })));
        Ok(())
    })
}

/// Frees a configuration. Optimizers made from it stay. NULL is fine.
///
/// # Safety
/// config is NULL or from dadapt_config_new, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_free(config: *mut dadapt_config) {
    // SAFETY: this function's contract.
    unsafe { free(config) }
}

/// Adds a group, with the options that were set for all groups.
///
/// group: out, its number; groups count from 0. NULL where it is not wanted.
/// Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// config is NULL or from dadapt_config_new; group is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_add_group(
    config: *mut dadapt_config,
    group: *mut dadapt_group,
) -> dadapt_status {
    let work = |config: &mut dadapt_config| {
        group_number(GroupId::new(config.config.groups()))?;
        let added = group_number(config.config.add_group())?;
        // SAFETY: this function's contract.
        unsafe { write_if_wanted(group, added) };
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(config, work) }
}

fn set(config: &mut Config, group: dadapt_group, key: Key, value: f64) -> Outcome {
    match group_of(group) {
        None => config.set(key, value)?,
        Some(group) => config.set_group(group, key, value)?,
    };
    Ok(())
}

fn get(config: &Config, group: dadapt_group, key: Key) -> Outcome<f64> {
    Ok(match group_of(group) {
        None => config.get(key)?,
        Some(group) => config.get_group(group, key)?,
    })
}

/// Sets an option of a group, or with DADAPT_ALL_GROUPS one of the optimizer or of all groups.
///
/// Errors: DADAPT_ERROR_UNKNOWN_KEY, _KEY_NOT_FOR_ALGORITHM, _OUT_OF_BOUNDS (which a NaN always
/// is), _UNKNOWN_GROUP, _NOT_PER_GROUP, _NULL_POINTER.
///
/// # Safety
/// config is NULL or from dadapt_config_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_set_f64(
    config: *mut dadapt_config,
    group: dadapt_group,
    key: dadapt_key,
    value: f64,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(config, |c| set(&mut c.config, group, Key::from_code(key)?, value)) }
}

/// As dadapt_config_set_f64, with the option's name: "weight_decay".
///
/// # Safety
/// config is NULL or from dadapt_config_new; key is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_set_f64_by_name(
    config: *mut dadapt_config,
    group: dadapt_group,
    key: *const c_char,
    value: f64,
) -> dadapt_status {
    let work = |c: &mut dadapt_config| {
        // SAFETY: this function's contract.
        let key = Key::from_name(unsafe { text(key, "key")? })?;
        set(&mut c.config, group, key, value)
    };
    // SAFETY: this function's contract.
    unsafe { change(config, work) }
}

/// An option of a group, or with DADAPT_ALL_GROUPS one of the optimizer or of groups to come.
///
/// value: out.
/// Errors: DADAPT_ERROR_UNKNOWN_KEY, _KEY_NOT_FOR_ALGORITHM, _UNKNOWN_GROUP, _NULL_POINTER.
///
/// # Safety
/// config is NULL or from dadapt_config_new; value is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_get_f64(
    config: *const dadapt_config,
    group: dadapt_group,
    key: dadapt_key,
    value: *mut f64,
) -> dadapt_status {
    let work = |c: &dadapt_config| {
        // SAFETY: this function's contract.
        let value = unsafe { out(value, "value")? };
        value.write(get(&c.config, group, Key::from_code(key)?)?);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(config, work) }
}

/// As dadapt_config_get_f64, with the option's name.
///
/// # Safety
/// config is NULL or from dadapt_config_new; key is NULL or a string; value is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_get_f64_by_name(
    config: *const dadapt_config,
    group: dadapt_group,
    key: *const c_char,
    value: *mut f64,
) -> dadapt_status {
    let work = |c: &dadapt_config| {
        // SAFETY: this function's contract.
        let (key, value) = unsafe { (text(key, "key")?, out(value, "value")?) };
        value.write(get(&c.config, group, Key::from_name(key)?)?);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(config, work) }
}

/// Sets what a state slot is kept in, of a group or with DADAPT_ALL_GROUPS of all.
///
/// Slots that are rounded (exp_avg, exp_avg_sq, exp_avg_diff, momentum_buffer, sum, and s but for
/// sgd's) take DADAPT_DTYPE_BF16 and _Q8, stochastically rounded: the first to go is s, which drives
/// d alone. x0 and p0 are kept in the type of the parameter or of its master copy; pre_grad in
/// DADAPT_DTYPE_F32, or in the 16-bit type that all gradients then have to be of. What parameters or
/// totals are computed from (s of sgd; alphak and sk of adagrad) is not rounded. Tensors of
/// DADAPT_DTYPE_F64 have state of that.
///
/// slot: its name, "exp_avg". dtype: 0 leaves the slot to DADAPT_KEY_STATE.
/// Errors: DADAPT_ERROR_UNKNOWN_STATE, _UNKNOWN_DTYPE, _STATE_DTYPE, _UNKNOWN_GROUP, _INVALID_UTF8,
/// _NULL_POINTER. Whether the type goes with that of a tensor is found when the tensor is added.
///
/// # Safety
/// config is NULL or from dadapt_config_new; slot is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_set_state_dtype(
    config: *mut dadapt_config,
    group: dadapt_group,
    slot: *const c_char,
    dtype: dadapt_dtype,
) -> dadapt_status {
    let work = |c: &mut dadapt_config| {
        // SAFETY: this function's contract.
        let slot = unsafe { text(slot, "slot")? };
        c.config.set_state_dtype(group_of(group), slot, dtype_or_none(dtype)?)?;
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(config, work) }
}

/// What dadapt_config_set_state_dtype has set for a slot, of a group or with DADAPT_ALL_GROUPS of
/// groups to come.
///
/// dtype: out; 0 where the slot is left to DADAPT_KEY_STATE.
/// Errors: DADAPT_ERROR_UNKNOWN_STATE, _UNKNOWN_GROUP, _INVALID_UTF8, _NULL_POINTER.
///
/// # Safety
/// config is NULL or from dadapt_config_new; slot is NULL or a string; dtype is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_get_state_dtype(
    config: *const dadapt_config,
    group: dadapt_group,
    slot: *const c_char,
    dtype: *mut dadapt_dtype,
) -> dadapt_status {
    let work = |c: &dadapt_config| {
        // SAFETY: this function's contract.
        let (slot, to) = unsafe { (text(slot, "slot")?, out(dtype, "dtype")?) };
        let found = c.config.get_state_dtype(group_of(group), slot)?;
        to.write(found.map_or(0, |dtype| dtype as i32));
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(config, work) }
}

/// What the last call that failed on the configuration had to say; "" where none has or config is
/// NULL. Never NULL. Good until the next call that fails on the configuration.
///
/// # Safety
/// config is NULL or from dadapt_config_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_config_last_error(config: *const dadapt_config) -> *const c_char {
    // SAFETY: this function's contract.
    unsafe { config.as_ref() }.map_or(c"".as_ptr(), |config| config.fate.last_error())
}
