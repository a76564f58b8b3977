//! Groups, tensors, their state, and the step.

mod config;
mod memory;
mod overlap;
mod report;
mod step;
mod tensor;

pub use config::{Config, GroupId, NUM_THREADS_ENV};
pub use report::{Movement, StepReport};
#[cfg(feature = "fault-injection")]
pub use step::Fault;
pub use tensor::{MAX_STATE, StateOwner, TensorId, TensorStep};

use crate::algorithm::{Algorithm, Descriptor};
use crate::dtype::Element;
use crate::engine::parallel::Threads;
use crate::error::{Error, Result};
use crate::kernel::isa::{Isa, Token};
use crate::key::{Key, Scope};
use config::Settings;
use std::collections::HashMap;
use step::Scratch;
use tensor::Tensor;

/// A D-Adaptation optimizer over tensors in groups.
///
/// It is made from a [`Config`], tensors are registered with it, and each [`step`](Self::step)
/// updates them and its estimate `d`. A tensor is its [`TensorId`], not its address.
#[derive(Debug)]
pub struct Optimizer {
    algorithm: Algorithm,
    descriptor: Descriptor,
    settings: Settings,
    token: Token,
    threads: Threads,
    tensors: Vec<Tensor>,
    ids: HashMap<String, TensorId>,
    d: f64,
    k: u64,
    numerator_weighted: f64,
    g0_norm: f64,
    /// Set while a sweep writes: found set, it panicked.
    poisoned: bool,
    scratch: Scratch,
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
            d: settings.optimizer().get(Key::D0),
            settings,
            token,
            threads,
            tensors: Vec::new(),
            ids: HashMap::new(),
            k: 0,
            numerator_weighted: 0.0,
            g0_norm: 0.0,
            poisoned: false,
            scratch: Scratch::default(),
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

    /// The estimate as of the last step: `d0` before the first.
    pub fn d(&self) -> f64 {
        self.d
    }

    /// Steps that made progress.
    pub fn k(&self) -> u64 {
        self.k
    }

    /// Groups there are.
    pub fn groups(&self) -> usize {
        self.settings.groups()
    }

    /// Adds a group with the options that were set for all groups; an lr that was set group by group
    /// (a schedule's, say) has to be set for it too.
    pub fn add_group(&mut self) -> GroupId {
        self.settings.add_group()
    }

    /// Sets an option for the optimizer, or for all groups, those to come included.
    ///
    /// It holds from the next step on.
    ///
    /// # Errors
    /// As [`Config::set`]; [`Error::Fixed`] for `isa` and `num_threads`, and for `d0` once a step
    /// made progress. Nothing is changed by an error.
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
        if key.is_fixed() {
            return Err(Error::Fixed { key, when: "before the optimizer is made" });
        }
        if key == Key::D0 && self.k > 0 {
            return Err(Error::Fixed { key, when: "before a step has made progress" });
        }
        self.settings.set(&self.descriptor, group, key, value)?;
        if key == Key::D0 {
            self.d = value;
        }
        Ok(())
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
        self.register(group, name, dtype, len, StateOwner::Library)
    }

    /// Registers a tensor whose state the caller keeps and hands to each step by
    /// [`TensorStep::with_state`].
    ///
    /// The arrays, one a slot of [`Algorithm::state_names`] and as long as the tensor, are all 0
    /// before the tensor's first gradient and are left alone between steps.
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
        self.register(group, name, dtype, len, StateOwner::Caller)
    }

    fn register(
        &mut self,
        group: GroupId,
        name: &str,
        dtype: crate::DType,
        len: usize,
        owner: StateOwner,
    ) -> Result<TensorId> {
        if group.index() >= self.groups() {
            return Err(group.unknown(self.groups()));
        }
        if self.ids.contains_key(name) {
            return Err(Error::DuplicateName { name: name.into() });
        }
        let slots = self.descriptor.state.len();
        let id = TensorId::new(self.tensors.len());
        self.tensors.push(Tensor::new(group, name, dtype, len, slots, owner)?);
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

    /// A tensor's state of that name, where the library owns it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`], [`Error::DTypeMismatch`],
    /// [`Error::StateOfCaller`].
    pub fn state<E: Element>(&self, tensor: TensorId, slot: &str) -> Result<&[E]> {
        let index = self.slot(slot)?;
        let tensor = self.registered(tensor)?;
        tensor.require_dtype(E::DTYPE)?;
        tensor.state(index)
    }

    /// A tensor's state of that name, to be changed.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn state_mut<E: Element>(&mut self, tensor: TensorId, slot: &str) -> Result<&mut [E]> {
        let index = self.slot(slot)?;
        let id = tensor;
        self.registered(id)?.require_dtype(E::DTYPE)?;
        self.tensors[id.index()].state_mut(index)
    }

    /// A tensor's element type, length and who owns its state.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn tensor_info(&self, tensor: TensorId) -> Result<(crate::DType, usize, StateOwner)> {
        let tensor = self.registered(tensor)?;
        Ok((tensor.dtype, tensor.len, tensor.owner()))
    }

    fn slot(&self, name: &str) -> Result<usize> {
        self.descriptor.state.iter().position(|slot| slot.name == name).ok_or_else(|| {
            Error::UnknownState { slot: name.into(), algorithm: self.descriptor.name }
        })
    }

    fn registered(&self, id: TensorId) -> Result<&Tensor> {
        self.tensors
            .get(id.index())
            .ok_or(Error::UnknownTensor { id: id.code(), tensors: self.tensors.len() })
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
