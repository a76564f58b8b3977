//! What an optimizer is made from: algorithm, groups, options.

use super::check_scope;
use super::layout::{check_slot_dtype, may_round};
use crate::algorithm::{Algorithm, Descriptor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::isa::Isa;
use crate::key::{Key, Options, Scope};

/// Environment variable for the default of `num_threads`.
pub const NUM_THREADS_ENV: &str = "DADAPT_NUM_THREADS";

/// Index of a group. There is always a [`FIRST`](GroupId::FIRST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(usize);

impl GroupId {
    /// The group that every configuration starts with.
    pub const FIRST: GroupId = GroupId(0);

    /// The group of that index, which need not exist yet.
    pub const fn new(index: usize) -> Self {
        GroupId(index)
    }

    /// Its index, counted from 0.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// The options of the optimizer and of its groups.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The optimizer's own, and what a new group starts with.
    common: Options,
    groups: Vec<Options>,
}

impl Settings {
    pub(super) fn optimizer(&self) -> &Options {
        &self.common
    }

    pub(super) fn group(&self, group: usize) -> &Options {
        &self.groups[group]
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn add_group(&mut self) -> GroupId {
        self.groups.push(self.common);
        GroupId(self.groups.len() - 1)
    }

    /// Whether a key may decide what state tensors have.
    pub(super) fn changes_layout(&self, key: Key) -> bool {
        matches!(
            key,
            Key::SliceP | Key::SliceByLine | Key::Beta1 | Key::Momentum | Key::State | Key::Master
        )
    }

    fn options(&self, group: Option<GroupId>) -> Result<&Options> {
        match group {
            None => Ok(&self.common),
            Some(id) => self.groups.get(id.0).ok_or_else(|| id.unknown(self.groups.len())),
        }
    }

    /// Sets what a slot is kept in; `None` leaves it to [`Key::State`].
    pub(super) fn set_state_dtype(
        &mut self,
        descriptor: &Descriptor,
        group: Option<GroupId>,
        slot: &str,
        dtype: Option<DType>,
    ) -> Result<()> {
        self.options(group)?;
        let slot = slot_of(descriptor, slot)?;
        if let Some(dtype) = dtype {
            check_slot_dtype(&descriptor.state[slot], dtype)?;
        }
        match group {
            Some(id) => self.groups[id.0].set_state_dtype(slot, dtype),
            None => {
                self.common.set_state_dtype(slot, dtype);
                self.groups.iter_mut().for_each(|group| group.set_state_dtype(slot, dtype));
            }
        }
        Ok(())
    }

    /// What a slot is set to be kept in; `None` where it is left to [`Key::State`].
    pub(super) fn get_state_dtype(
        &self,
        descriptor: &Descriptor,
        group: Option<GroupId>,
        slot: &str,
    ) -> Result<Option<DType>> {
        Ok(self.options(group)?.state_dtype(slot_of(descriptor, slot)?))
    }

    pub(super) fn get(
        &self,
        descriptor: &Descriptor,
        group: Option<GroupId>,
        key: Key,
    ) -> Result<f64> {
        require(descriptor, key)?;
        let group = group.filter(|_| key.scope() == Scope::Group);
        Ok(self.options(group)?.get(key))
    }

    pub(super) fn set(
        &mut self,
        descriptor: &Descriptor,
        group: Option<GroupId>,
        key: Key,
        value: f64,
    ) -> Result<()> {
        require(descriptor, key)?;
        self.options(group)?;
        check_scope(key, group)?;
        key.check(value)?;
        if key == Key::State && value != 0.0 && !may_round(descriptor.state) {
            return Err(Error::NothingToRound { algorithm: descriptor.name });
        }
        match group {
            Some(id) => self.groups[id.0].set(key, value),
            None => {
                self.common.set(key, value);
                self.groups.iter_mut().for_each(|group| group.set(key, value));
            }
        }
        Ok(())
    }
}

/// The slot of an algorithm of that name.
pub(super) fn slot_of(descriptor: &Descriptor, name: &str) -> Result<usize> {
    let unknown = || Error::UnknownState { slot: name.into(), algorithm: descriptor.name };
    descriptor.state.iter().position(|slot| slot.name == name).ok_or_else(unknown)
}

fn require(descriptor: &Descriptor, key: Key) -> Result<()> {
    if descriptor.has(key) {
        return Ok(());
    }
    let algorithm = descriptor.name;
    if matches!(key, Key::SliceP | Key::SliceByLine) && descriptor.adapts() {
        return Err(Error::NoSlices { algorithm });
    }
    Err(Error::KeyNotForAlgorithm { key, algorithm })
}

/// What an [`Optimizer`](crate::Optimizer) is made from. Starts with the reference's defaults and
/// one group.
///
/// ```
/// use dadapt::{Algorithm, Config, Key};
///
/// let mut config = Config::new(Algorithm::Adam);
/// config.set(Key::WeightDecay, 0.01)?.set(Key::Decouple, true)?;
/// let biases = config.add_group();
/// config.set_group(biases, Key::WeightDecay, 0.0)?;
/// # Ok::<(), dadapt::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    algorithm: Algorithm,
    settings: Settings,
}

impl Config {
    /// The algorithm's defaults, which are the reference package's.
    pub fn new(algorithm: Algorithm) -> Self {
        let mut common = Options::new();
        for (key, default) in algorithm.options() {
            common.set(*key, *default);
        }
        if !algorithm.descriptor().adapts() {
            common.set(Key::D0, 1.0); // the lr alone is the rate
        }
        Config { algorithm, settings: Settings { common, groups: vec![common] } }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Groups there are.
    pub fn groups(&self) -> usize {
        self.settings.groups()
    }

    /// Adds a group with the options that were set for all groups.
    pub fn add_group(&mut self) -> GroupId {
        self.settings.add_group()
    }

    /// Sets an option for the optimizer, or for all groups, those to come included.
    ///
    /// Switches take a `bool`, choices an [`Isa`], a [`NonFinite`](crate::NonFinite) or a
    /// [`State`](crate::State).
    ///
    /// # Errors
    /// [`Error::KeyNotForAlgorithm`]; [`Error::OutOfBounds`], which NaN always is. Nothing is
    /// changed by an error.
    pub fn set(&mut self, key: Key, value: impl Into<f64>) -> Result<&mut Self> {
        self.settings.set(&self.algorithm.descriptor(), None, key, value.into())?;
        Ok(self)
    }

    /// Sets a group's option.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`Error::UnknownGroup`]; [`Error::NotPerGroup`].
    pub fn set_group(
        &mut self,
        group: GroupId,
        key: Key,
        value: impl Into<f64>,
    ) -> Result<&mut Self> {
        self.settings.set(&self.algorithm.descriptor(), Some(group), key, value.into())?;
        Ok(self)
    }

    /// Sets what a state slot is kept in, of all groups or of one; `None` leaves it to
    /// [`Key::State`].
    ///
    /// Slots that are rounded (`exp_avg`, `exp_avg_sq`, `exp_avg_diff`, `momentum_buffer`, `sum`, and
    /// `s` but for SGD's) take [`DType::Bf16`] and [`DType::Q8`], stochastically rounded: the first to
    /// go is `s`, which drives `d` alone. `x0` and `p0` are kept in the type of the parameter, or of its
    /// master copy; `pre_grad` in f32, or in the 16-bit type that all gradients then have to be of.
    /// What parameters or totals are computed from (SGD's `s`; AdaGrad's `alphak` and `sk`) is not
    /// rounded.
    ///
    /// # Errors
    /// [`Error::UnknownState`]; [`Error::StateDType`], which says why not; [`Error::UnknownGroup`].
    /// Whether the type goes with that of a tensor is found when it is added.
    pub fn set_state_dtype(
        &mut self,
        group: Option<GroupId>,
        slot: &str,
        dtype: Option<DType>,
    ) -> Result<&mut Self> {
        self.settings.set_state_dtype(&self.algorithm.descriptor(), group, slot, dtype)?;
        Ok(self)
    }

    /// What [`set_state_dtype`](Self::set_state_dtype) has set for a slot, of a group or as for groups
    /// to come.
    ///
    /// # Errors
    /// [`Error::UnknownState`], [`Error::UnknownGroup`].
    pub fn get_state_dtype(&self, group: Option<GroupId>, slot: &str) -> Result<Option<DType>> {
        self.settings.get_state_dtype(&self.algorithm.descriptor(), group, slot)
    }

    /// An option of the optimizer, or of all groups as set for those to come.
    ///
    /// # Errors
    /// [`Error::KeyNotForAlgorithm`].
    pub fn get(&self, key: Key) -> Result<f64> {
        self.settings.get(&self.algorithm.descriptor(), None, key)
    }

    /// An option of a group.
    ///
    /// # Errors
    /// [`Error::KeyNotForAlgorithm`], [`Error::UnknownGroup`].
    pub fn get_group(&self, group: GroupId, key: Key) -> Result<f64> {
        self.settings.get(&self.algorithm.descriptor(), Some(group), key)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The instruction set that is forced, by option before environment, or the widest.
    pub(super) fn isa(&self) -> Result<Isa> {
        let code = self.settings.common.get(Key::Isa);
        match Isa::ALL.into_iter().find(|isa| f64::from(*isa) == code) {
            Some(isa) => Ok(isa),
            None => Isa::from_env(),
        }
    }

    /// The thread count by option before environment; 0 takes rayon's current pool.
    pub(super) fn num_threads(&self) -> Result<usize> {
        let threads = self.settings.common.get(Key::NumThreads);
        if threads > 0.0 {
            return Ok(threads as usize);
        }
        let Some(value) = std::env::var_os(NUM_THREADS_ENV) else { return Ok(0) };
        let value = value.to_string_lossy().into_owned();
        match value.parse() {
            Ok(threads) if Key::NumThreads.bounds().contain(threads) => Ok(threads as usize),
            _ if value.is_empty() => Ok(0),
            _ => Err(Error::Environment {
                name: NUM_THREADS_ENV,
                value,
                expected: "a whole number from 0 to 4096",
            }),
        }
    }
}
