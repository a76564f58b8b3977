//! Optimizer

use crate::algorithm::{dadapt_algorithm, dadapt_dtype};
use crate::config::{dadapt_config, dadapt_group, dtype_or_none, group_number, group_of};
use crate::handle::{Fate, Object, Outcome, change, free, out, read, text, write_if_wanted};
use crate::keys::dadapt_key;
use crate::names::c_name;
use crate::repeat::Repeating;
use crate::status::dadapt_status;
use crate::step::Steps;
use dadapt::{Config, GroupId, Key, NUM_THREADS_ENV, Optimizer};
use std::ffi::{c_char, c_void};

/// An optimizer: its tensors, their state, the estimate d. Its functions may run on any thread, on
/// one at a time; those that take it as const may run at once, and so may
/// dadapt_optimizer_step_tensor. Different optimizers are independent.
pub struct dadapt_optimizer {
    pub(crate) optimizer: Repeating,
    pub(crate) steps: Steps,
    fate: Fate,
}

// What `const` in C promises: calls that read may run at once.
const _: fn() = || {
    fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<Optimizer>();
    may_be_shared::<Config>();
};

impl Object for dadapt_optimizer {
    const ARGUMENT: &'static str = "optimizer";
    fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// Called with the line that DADAPT_KEY_LOG_EVERY asks for. It must return: no longjmp, no C++
/// exception.
pub type dadapt_log_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, line: *const c_char)>;

/// The configuration with its thread count settled: by the option, by the environment, or by the
/// processors, since C programs have no pool that all libraries share.
fn with_threads(config: &Config) -> Outcome<Config> {
    let mut config = config.clone();
    if config.get(Key::NumThreads)? != 0.0 {
        return Ok(config);
    }
    let variable = std::env::var(NUM_THREADS_ENV).unwrap_or_default();
    let mut threads = 0.0;
    if !variable.is_empty() {
        match variable.parse() {
            Ok(number) if Key::NumThreads.bounds().contain(number) => threads = number,
            _ => return Ok(config), // for `Optimizer::new` to refuse
        }
    }
    if threads == 0.0 {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
        threads = processors.min(Key::NumThreads.bounds().max);
    }
    config.set(Key::NumThreads, threads)?;
    Ok(config)
}

/// An optimizer with the configuration's algorithm, groups and options, and no tensors yet. The
/// configuration is copied: it can be changed, used again and freed. Threads are started by the
/// first step that is large enough.
///
/// optimizer: out, to be freed with dadapt_optimizer_free.
/// Errors, kept by the configuration: DADAPT_ERROR_UNKNOWN_ISA, _ISA_UNAVAILABLE, _ENVIRONMENT,
/// _NULL_POINTER.
///
/// # Safety
/// config is NULL or from dadapt_config_new; optimizer is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_new(
    config: *const dadapt_config,
    optimizer: *mut *mut dadapt_optimizer,
) -> dadapt_status {
    let work = |config: &dadapt_config| {
        // SAFETY: this function's contract.
        let to = unsafe { out(optimizer, "optimizer")? };
        let optimizer = Repeating::new(Optimizer::new(&with_threads(&config.config)?)?);
        let (steps, fate) = (Steps::default(), Fate::default());
        to.write(Box::into_raw(Box::new(dadapt_optimizer { optimizer, steps, fate })));
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(config, work) }
}

/// Frees an optimizer and the state that it owns. NULL is fine.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_free(optimizer: *mut dadapt_optimizer) {
    // SAFETY: this function's contract.
    unsafe { free(optimizer) }
}

/// Adds a group, as dadapt_config_add_group does. Allowed between steps.
///
/// Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; group is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_add_group(
    optimizer: *mut dadapt_optimizer,
    group: *mut dadapt_group,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        group_number(GroupId::new(o.optimizer.groups()))?;
        let added = group_number(o.optimizer.add_group()?)?;
        // SAFETY: this function's contract.
        unsafe { write_if_wanted(group, added) };
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

fn set(optimizer: &mut Optimizer, group: dadapt_group, key: Key, value: f64) -> Outcome {
    match group_of(group) {
        None => optimizer.set(key, value)?,
        Some(group) => optimizer.set_group(group, key, value)?,
    };
    Ok(())
}

fn get(optimizer: &Optimizer, group: dadapt_group, key: Key) -> Outcome<f64> {
    Ok(match group_of(group) {
        None => optimizer.get(key)?,
        Some(group) => optimizer.get_group(group, key)?,
    })
}

/// Sets an option, as dadapt_config_set_f64 does. It holds from the next step on.
///
/// Errors: as there; DADAPT_ERROR_STEP_OPEN; DADAPT_ERROR_FIXED for DADAPT_KEY_ISA, _NUM_THREADS
/// and _D_PER_GROUP; for DADAPT_KEY_D0 once a step has made progress; and, where tensors have state
/// that would change, for DADAPT_KEY_STATE, _MASTER, _SLICE_P, _SLICE_BY_LINE and, from or to 0,
/// Prodigy's _BETA1 and plain_sgd's _MOMENTUM.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_f64(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    key: dadapt_key,
    value: f64,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| set(&mut o.optimizer, group, Key::from_code(key)?, value)) }
}

/// As dadapt_optimizer_set_f64, with the option's name.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; key is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_f64_by_name(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    key: *const c_char,
    value: f64,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let key = Key::from_name(unsafe { text(key, "key")? })?;
        set(&mut o.optimizer, group, key, value)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// Sets a group's lr, or with DADAPT_ALL_GROUPS everybody's: a schedule's factor, or 0 to freeze.
/// Groups that share a d and whose lr is not 0 must agree when a step is made.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_lr(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    lr: f64,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| set(&mut o.optimizer, group, Key::Lr, lr)) }
}

/// An option, as dadapt_config_get_f64 has it.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; value is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_get_f64(
    optimizer: *const dadapt_optimizer,
    group: dadapt_group,
    key: dadapt_key,
    value: *mut f64,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let value = unsafe { out(value, "value")? };
        value.write(get(&o.optimizer, group, Key::from_code(key)?)?);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// As dadapt_optimizer_get_f64, with the option's name.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; key is NULL or a string; value is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_get_f64_by_name(
    optimizer: *const dadapt_optimizer,
    group: dadapt_group,
    key: *const c_char,
    value: *mut f64,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let (key, value) = unsafe { (text(key, "key")?, out(value, "value")?) };
        value.write(get(&o.optimizer, group, Key::from_name(key)?)?);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Sets what a state slot of tensors to come is kept in, as dadapt_config_set_state_dtype does.
///
/// Errors: as there; DADAPT_ERROR_FIXED where there are tensors whose state would change;
/// DADAPT_ERROR_STEP_OPEN.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; slot is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_state_dtype(
    optimizer: *mut dadapt_optimizer,
    group: dadapt_group,
    slot: *const c_char,
    dtype: dadapt_dtype,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        // SAFETY: this function's contract.
        let slot = unsafe { text(slot, "slot")? };
        Ok(o.optimizer.set_state_dtype(group_of(group), slot, dtype_or_none(dtype)?)?)
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// What is set for a state slot, as dadapt_config_get_state_dtype has it. What a tensor's state is
/// kept in says dadapt_optimizer_state_info.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; slot is NULL or a string; dtype is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_get_state_dtype(
    optimizer: *const dadapt_optimizer,
    group: dadapt_group,
    slot: *const c_char,
    dtype: *mut dadapt_dtype,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        let (slot, to) = unsafe { (text(slot, "slot")?, out(dtype, "dtype")?) };
        let found = o.optimizer.get_state_dtype(group_of(group), slot)?;
        to.write(found.map_or(0, |dtype| dtype as i32));
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// What the last call that failed on the optimizer had to say; "" where none has or optimizer is
/// NULL. Never NULL. Good until the next call that fails on the optimizer.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_last_error(
    optimizer: *const dadapt_optimizer,
) -> *const c_char {
    // SAFETY: this function's contract.
    unsafe { optimizer.as_ref() }.map_or(c"".as_ptr(), |optimizer| optimizer.fate.last_error())
}

/// The estimate as of the last step: d0 before the first. With d_per_group, the first group's.
///
/// d: out. Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; d is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_d(
    optimizer: *const dadapt_optimizer,
    d: *mut f64,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        unsafe { out(d, "d")? }.write(o.optimizer.d());
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// How many steps have made progress. With d_per_group, of the first group.
///
/// k: out. Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; k is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_k(
    optimizer: *const dadapt_optimizer,
    k: *mut u64,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        unsafe { out(k, "k")? }.write(o.optimizer.k());
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// The optimizer's algorithm.
///
/// algorithm: out. Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; algorithm is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_algorithm(
    optimizer: *const dadapt_optimizer,
    algorithm: *mut dadapt_algorithm,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        unsafe { out(algorithm, "algorithm")? }.write(o.optimizer.algorithm() as i32);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// The instruction set that the optimizer's steps run on.
///
/// name: out, as dadapt_isa has it. Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; name is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_isa(
    optimizer: *const dadapt_optimizer,
    name: *mut *const c_char,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        unsafe { out(name, "name")? }.write(c_name(o.optimizer.isa().name()));
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Sets what gets a line on d every DADAPT_KEY_LOG_EVERY steps.
///
/// It is called at the end of dadapt_optimizer_step or dadapt_optimizer_step_end and on its thread.
/// The line is good during the call; the callback may use the optimizer.
///
/// callback: NULL for none. context: what it is called with.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; callback may be called with context until it is
/// replaced or the optimizer freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_set_log(
    optimizer: *mut dadapt_optimizer,
    callback: dadapt_log_callback,
    context: *mut c_void,
) -> dadapt_status {
    let work = |o: &mut dadapt_optimizer| {
        o.steps.set_log(callback, context);
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { change(optimizer, work) }
}

/// Stops estimating, for good: d stays what it is, and what only estimates need is freed.
///
/// That is s, and Prodigy's p0; SGD and AdaGrad compute parameters from theirs, and keep them.
/// State of the caller's that is no longer needed has dadapt_optimizer_state_bytes 0 from then on.
///
/// Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_freeze(
    optimizer: *mut dadapt_optimizer,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| Ok(o.optimizer.freeze()?)) }
}

/// Whether dadapt_optimizer_freeze was called.
///
/// frozen: out, 1 or 0. Errors: DADAPT_ERROR_NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new; frozen is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_is_frozen(
    optimizer: *const dadapt_optimizer,
    frozen: *mut i32,
) -> dadapt_status {
    let work = |o: &dadapt_optimizer| {
        // SAFETY: this function's contract.
        unsafe { out(frozen, "frozen")? }.write(i32::from(o.optimizer.is_frozen()));
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { read(optimizer, work) }
}

/// Adan's restart: forgets all state and starts it anew with the next gradient; d and k stay.
///
/// The arrays themselves are left until then.
///
/// Errors: DADAPT_ERROR_NO_RESTART for other algorithms than adan and experimental_adan_ip;
/// DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
///
/// # Safety
/// optimizer is NULL or from dadapt_optimizer_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_optimizer_restart(
    optimizer: *mut dadapt_optimizer,
) -> dadapt_status {
    // SAFETY: this function's contract.
    unsafe { change(optimizer, |o| Ok(o.optimizer.restart()?)) }
}
