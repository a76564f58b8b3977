//! Groups, tensors, their state, and the step.

mod config;
mod estimator;
mod gather;
mod given;
mod layout;
mod memory;
mod overlap;
mod parts;
mod prepare;
mod report;
mod resume;
mod rows;
mod state;
mod step;
mod tensor;

pub use config::{Config, GroupId, NUM_THREADS_ENV};
pub use gather::StepTensors;
pub use given::{Index, RowIndex, TensorStep};
pub use parts::StepInParts;
pub use report::{Movement, StepReport, Sweeps};
pub use resume::{EstimateState, TensorProgress};
#[cfg(feature = "fault-injection")]
pub use step::Fault;
pub use tensor::{MAX_STATE, StateOwner, TensorId};

use crate::algorithm::{Algorithm, Descriptor, MAX_SLOTS, Slot};
use crate::engine::parallel::{Executor, Threads};
use crate::error::{Error, Result};
use crate::kernel::isa::{Isa, Token};
use crate::key::{Key, Scope};
use config::Settings;
use estimator::Estimator;
use gather::Scratch;
use layout::Layout;
use memory::Arena;
use parts::Parts;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use tensor::Tensor;

/// An optimizer over tensors in groups.
///
/// It is made from a [`Config`], tensors are registered with it, and each [`step`](Self::step)
/// updates them and its estimate `d`. A tensor is its [`TensorId`], not its address.
#[derive(Debug)]
pub struct Optimizer {
    algorithm: Algorithm,
    descriptor: Descriptor,
    rows_descriptor: Option<Descriptor>,
    settings: Settings,
    token: Token,
    threads: Threads,
    tensors: Vec<Tensor>,
    /// Where state of the library's own lies, by slot.
    arenas: [Arena; MAX_SLOTS],
    ids: HashMap<String, TensorId>,
    /// One, or one a group.
    estimators: Vec<Estimator>,
    /// `d` is not estimated any more.
    frozen: bool,
    /// Set while a sweep writes: found set, it panicked.
    poisoned: AtomicBool,
    /// Steps begun, which [`Tensor::seen`] is compared with.
    begun: u64,
    scratch: Scratch,
    /// Of a step in parts that has not ended.
    parts: Option<Parts>,
    #[cfg(feature = "fault-injection")]
    fault: Option<Fault>,
}

impl Optimizer {
    /// An optimizer with the configuration's algorithm, groups and options, and no tensors yet.
    ///
    /// # Errors
    /// The instruction set or thread count that the configuration or the environment
    /// (`DADAPT_ISA`, `DADAPT_NUM_THREADS`) asks for cannot be had or understood.
    pub fn new(config: &Config) -> Result<Self> {
        let settings = config.settings().clone();
        let token = config.isa()?.require()?;
        let threads = Threads::new(config.num_threads()?);
        Ok(Optimizer {
            algorithm: config.algorithm(),
            descriptor: config.algorithm().descriptor(),
            rows_descriptor: config.algorithm().rows_descriptor(),
            estimators: vec![
                Estimator::new(settings.optimizer().get(Key::D0));
                if settings.optimizer().is_on(Key::DPerGroup) {
                    settings.groups()
                } else {
                    1
                }
            ],
            settings,
            token,
            threads,
            tensors: Vec::new(),
            arenas: std::array::from_fn(Arena::new),
            ids: HashMap::new(),
            frozen: false,
            poisoned: AtomicBool::new(false),
            begun: 0,
            scratch: Scratch::default(),
            parts: None,
            #[cfg(feature = "fault-injection")]
            fault: None,
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The instruction set that steps run on.
    pub fn isa(&self) -> Isa {
        self.token.isa()
    }

    /// The estimate as of the last step: `d0` before the first. With one `d` a group, the first
    /// group's.
    pub fn d(&self) -> f64 {
        self.estimators[0].d
    }

    /// Steps that made progress. With one `d` a group, the first group's.
    pub fn k(&self) -> u64 {
        self.estimators[0].k
    }

    /// What the last step did to a group and its `d`; before the first, `d0` and no progress.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`].
    pub fn report(&self, group: GroupId) -> Result<StepReport> {
        if group.index() >= self.groups() {
            return Err(group.unknown(self.groups()));
        }
        Ok(self.estimators[self.unit(group.index())].report)
    }

    /// Groups there are.
    pub fn groups(&self) -> usize {
        self.settings.groups()
    }

    /// Adds a group with the options that were set for all groups; an lr that was set group by group
    /// (a schedule's, say) has to be set for it too.
    ///
    /// # Errors
    /// [`Error::StepOpen`].
    pub fn add_group(&mut self) -> Result<GroupId> {
        self.refuse_open()?;
        if self.settings.optimizer().is_on(Key::DPerGroup) {
            self.estimators.push(Estimator::new(self.settings.optimizer().get(Key::D0)));
        }
        Ok(self.settings.add_group())
    }

    /// Stops estimating: every `d` stays what it is, and what only estimates need is freed: `s`, and
    /// Prodigy's `p0`. SGD and AdaGrad compute parameters from `s` and `x0`, which they keep. There is
    /// no way back. State of the caller's that is no longer needed has
    /// [`state_len`](Self::state_len) 0 from then on.
    ///
    /// # Errors
    /// [`Error::StepOpen`].
    pub fn freeze(&mut self) -> Result<()> {
        self.refuse_open()?;
        self.frozen = true;
        self.tensors.iter_mut().for_each(|tensor| tensor.free_statistics(&mut self.arenas));
        Ok(())
    }

    /// Whether [`freeze`](Self::freeze) was called.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Adan's restart: forgets all state and starts it anew with the next gradient; `d` and `k` stay.
    ///
    /// The arrays themselves are left until then.
    ///
    /// # Errors
    /// [`Error::NoRestart`] for other algorithms; [`Error::StepOpen`].
    pub fn restart(&mut self) -> Result<()> {
        self.refuse_open()?;
        if !self.descriptor.restarts {
            return Err(Error::NoRestart { algorithm: self.descriptor.name });
        }
        self.estimators.iter_mut().for_each(|estimator| estimator.totals = Default::default());
        for tensor in &mut self.tensors {
            (tensor.steps, tensor.moved) = (0, false);
        }
        Ok(())
    }

    /// Sets an option for the optimizer, or for all groups, those to come included.
    ///
    /// It holds from the next step on.
    ///
    /// # Errors
    /// As [`Config::set`]; [`Error::Fixed`] for `isa`, `num_threads` and `d_per_group`, for `d0`
    /// once a step made progress or the optimizer is frozen, and for what decides the state of
    /// tensors that there are: `slice_p`, and Prodigy's `beta1` or plain SGD's `momentum` from or to
    /// 0. [`Error::StepOpen`]. Nothing is changed by an error.
    pub fn set(&mut self, key: Key, value: impl Into<f64>) -> Result<()> {
        self.set_option(None, key, value.into())
    }

    /// Sets a group's option.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`Error::UnknownGroup`]; [`Error::NotPerGroup`].
    pub fn set_group(&mut self, group: GroupId, key: Key, value: impl Into<f64>) -> Result<()> {
        self.set_option(Some(group), key, value.into())
    }

    /// Sets a group's lr: a schedule's factor, or 0 to freeze the group.
    ///
    /// Groups whose lr is not 0 must agree when [`step`](Self::step) is called; for relative rates
    /// there is [`Key::LayerScale`].
    ///
    /// # Errors
    /// As [`set_group`](Self::set_group).
    pub fn set_lr(&mut self, group: GroupId, lr: f64) -> Result<()> {
        self.set_group(group, Key::Lr, lr)
    }

    /// Runs large steps on threads that the program has already, where `num_threads` is not 1; `None` goes
    /// back to threads of the optimizer's own.
    ///
    /// A pool whose threads spin between their tasks, as those of OpenMP do, leaves no processor to
    /// another pool: a step that follows it within milliseconds is faster on that pool. `num_threads` says
    /// on how many threads (0: as many as there are processors). Bits do not depend on it. A forked
    /// child does not use the executor of its parent.
    ///
    /// # Errors
    /// [`Error::StepOpen`].
    pub fn set_executor(&mut self, executor: Option<Box<dyn Executor>>) -> Result<()> {
        self.refuse_open()?;
        self.threads.set_executor(executor);
        Ok(())
    }

    /// An option of the optimizer, or of all groups as set for those to come.
    ///
    /// # Errors
    /// [`Error::KeyNotForAlgorithm`].
    pub fn get(&self, key: Key) -> Result<f64> {
        self.settings.get(&self.descriptor, None, key)
    }

    /// An option of a group.
    ///
    /// # Errors
    /// [`Error::KeyNotForAlgorithm`], [`Error::UnknownGroup`].
    pub fn get_group(&self, group: GroupId, key: Key) -> Result<f64> {
        self.settings.get(&self.descriptor, Some(group), key)
    }

    fn set_option(&mut self, group: Option<GroupId>, key: Key, value: f64) -> Result<()> {
        self.refuse_open()?;
        if key.is_fixed() {
            return Err(Error::Fixed { key, when: "before the optimizer is made" });
        }
        if key == Key::D0 && self.estimators.iter().any(|estimator| estimator.k > 0) {
            return Err(Error::Fixed { key, when: "before a step has made progress" });
        }
        if key == Key::D0 && self.frozen {
            return Err(Error::Fixed { key, when: "before the optimizer is frozen" });
        }
        let before = self.settings.changes_layout(key).then(|| self.settings.clone());
        self.settings.set(&self.descriptor, group, key, value)?;
        if let Some(before) = before {
            self.keep_layouts(key, before)?;
        }
        if key == Key::D0 {
            self.estimators.iter_mut().for_each(|estimator| *estimator = Estimator::new(value));
        }
        Ok(())
    }

    /// Puts options back that were set although tensors have their state by what was before.
    fn keep_layouts(&mut self, key: Key, before: Settings) -> Result<()> {
        if self.tensors.iter().all(|tensor| self.layout_of(tensor).ok() == Some(tensor.layout)) {
            return Ok(());
        }
        self.settings = before;
        Err(Error::Fixed { key, when: "before tensors are added whose state it decides" })
    }

    /// Sets what a state slot of tensors to come is kept in, as [`Config::set_state_dtype`] does.
    ///
    /// # Errors
    /// As there; [`Error::Fixed`] where there are tensors whose state would change;
    /// [`Error::StepOpen`].
    pub fn set_state_dtype(
        &mut self,
        group: Option<GroupId>,
        slot: &str,
        dtype: Option<crate::DType>,
    ) -> Result<()> {
        self.refuse_open()?;
        let before = self.settings.clone();
        self.settings.set_state_dtype(&self.descriptor, group, slot, dtype)?;
        self.keep_layouts(Key::State, before)
    }

    /// What is set for a state slot, as [`Config::get_state_dtype`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn get_state_dtype(
        &self,
        group: Option<GroupId>,
        slot: &str,
    ) -> Result<Option<crate::DType>> {
        self.settings.get_state_dtype(&self.descriptor, group, slot)
    }

    /// What state a tensor has by the options as they are.
    fn layout_of(&self, tensor: &Tensor) -> Result<Layout> {
        let (name, dtype) = (tensor.name.as_str(), tensor.dtype);
        self.layout(tensor.group, (name, dtype), (tensor.slots, tensor.width))
    }

    fn layout(
        &self,
        group: usize,
        (name, dtype): (&str, crate::DType),
        (slots, width): (&[Slot], Option<usize>),
    ) -> Result<Layout> {
        if width.is_some() {
            return Ok(Layout::of_rows(dtype));
        }
        let options = (self.settings.optimizer(), self.settings.group(group));
        Layout::new(&self.descriptor, slots, options, self.adapts(), (name, dtype))
    }

    /// Registers a tensor of `len` elements and allocates its state.
    ///
    /// `name` must be new; it is what messages and checkpoints call the tensor. Tensors can be
    /// added between steps.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::DuplicateName`], [`Error::TooLong`],
    /// [`Error::OutOfMemory`].
    pub fn add_tensor(
        &mut self,
        group: GroupId,
        name: &str,
        dtype: crate::DType,
        len: usize,
    ) -> Result<TensorId> {
        self.register(group, name, dtype, len, (self.descriptor.state, None), StateOwner::Library)
    }

    /// Registers a tensor whose state the caller keeps and hands to each step by
    /// [`TensorStep::with_state`].
    ///
    /// The arrays, one a slot of [`Algorithm::state_names`] and as long as
    /// [`state_len`](Self::state_len) says, may hold anything before the tensor's first gradient and
    /// are left alone between steps.
    ///
    /// # Errors
    /// As [`add_tensor`](Self::add_tensor).
    pub fn add_tensor_with_state_of_caller(
        &mut self,
        group: GroupId,
        name: &str,
        dtype: crate::DType,
        len: usize,
    ) -> Result<TensorId> {
        self.register(group, name, dtype, len, (self.descriptor.state, None), StateOwner::Caller)
    }

    fn register(
        &mut self,
        group: GroupId,
        name: &str,
        dtype: crate::DType,
        len: usize,
        (slots, width): (&'static [Slot], Option<usize>),
        owner: StateOwner,
    ) -> Result<TensorId> {
        if group.index() >= self.groups() {
            return Err(group.unknown(self.groups()));
        }
        if self.ids.contains_key(name) {
            return Err(Error::DuplicateName { name: name.into() });
        }
        self.refuse_open()?;
        if dtype == crate::DType::Q8 {
            let reason = "it is a type of state alone";
            return Err(Error::DTypeNotFor { tensor: name.into(), dtype, reason });
        }
        let state = (slots, self.layout(group.index(), (name, dtype), (slots, width))?, width);
        let id = TensorId::new(self.tensors.len());
        let arenas = &mut self.arenas;
        self.tensors.push(Tensor::new(group, name, dtype, len, state, owner, arenas)?);
        self.ids.insert(name.into(), id);
        Ok(id)
    }

    /// Tensors registered.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.ids.get(name).copied()
    }

    #[inline]
    fn registered(&self, id: TensorId) -> Result<&Tensor> {
        let unknown = || Error::UnknownTensor { id: id.code(), tensors: self.tensors.len() };
        self.tensors.get(id.index()).ok_or_else(unknown)
    }

    /// Makes the next step panic at the given point.
    #[cfg(feature = "fault-injection")]
    pub fn inject(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }
}

/// Whether an option may be set where it is.
fn check_scope(key: Key, group: Option<GroupId>) -> Result<()> {
    if group.is_some() && key.scope() == Scope::Optimizer {
        return Err(Error::NotPerGroup { key });
    }
    Ok(())
}
