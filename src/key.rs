//! The options of optimizers and groups, by key: names, bounds and where each is set.

use crate::algorithm::MAX_SLOTS;
use crate::dtype::DType;
use crate::error::Error;

/// Whether an option is one value of the optimizer or a value of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// One value for all groups.
    Optimizer,
    /// Each group has its own.
    Group,
}

/// The values that a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// The least value, or what the value must be above where [`open_min`](Bounds::open_min).
    pub min: f64,
    /// The greatest value, or what the value must be below where [`open_max`](Bounds::open_max).
    pub max: f64,
    /// `min` itself is not allowed.
    pub open_min: bool,
    /// `max` itself is not allowed.
    pub open_max: bool,
    /// Only whole numbers.
    pub integer: bool,
}

impl Bounds {
    const fn closed(min: f64, max: f64) -> Self {
        Bounds { min, max, open_min: false, open_max: false, integer: false }
    }
    const fn below(max: f64) -> Self {
        Bounds { min: 0.0, max, open_min: false, open_max: true, integer: false }
    }
    const fn positive() -> Self {
        Bounds { min: 0.0, max: f64::INFINITY, open_min: true, open_max: true, integer: false }
    }
    const fn integers(min: f64, max: f64) -> Self {
        Bounds { min, max, open_min: false, open_max: false, integer: true }
    }

    /// Whether `value` is within; NaN never is.
    pub fn contain(&self, value: f64) -> bool {
        let above = if self.open_min { value > self.min } else { value >= self.min };
        let below = if self.open_max { value < self.max } else { value <= self.max };
        above && below && (!self.integer || value.trunc() == value)
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.integer {
            return write!(f, "a whole number from {} to {}", self.min, self.max);
        }
        let (open, close) =
            (if self.open_min { '(' } else { '[' }, if self.open_max { ')' } else { ']' });
        write!(f, "{open}{:?}, {:?}{close}", self.min, self.max)
    }
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal, $scope:ident,
        $bounds:expr;)+) => {
        /// An option of an optimizer or of its groups.
        ///
        /// Every value is an `f64`: switches are 0 or 1, counts whole numbers, choices their codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum Key {
            $($(#[doc = $doc])+ $variant = $code,)+
        }

        impl Key {
            /// Every key.
            pub const ALL: &'static [Key] = &[$(Key::$variant),+];

            /// Lower-case name, as the reference packages spell it where they have it.
            pub const fn name(self) -> &'static str {
                match self { $(Key::$variant => $name,)+ }
            }

            /// Where the option is set.
            pub const fn scope(self) -> Scope {
                match self { $(Key::$variant => Scope::$scope,)+ }
            }

            /// The values it takes.
            pub const fn bounds(self) -> Bounds {
                match self { $(Key::$variant => $bounds,)+ }
            }

            /// The key of that code.
            ///
            /// # Errors
            /// [`Error::UnknownKey`].
            pub fn from_code(code: i32) -> Result<Key, Error> {
                match code {
                    $($code => Ok(Key::$variant),)+
                    _ => Err(Error::UnknownKey { key: code.to_string() }),
                }
            }
        }
    };
}

keys! {
    /// Learning rate, a factor on `d`: 1 unless there is a schedule. Groups that share a `d` are equal
    /// or 0 (frozen). Of plain algorithms, the step size.
    Lr = 1, "lr", Group, Bounds::below(f64::INFINITY);
    /// Decay of the running mean of gradients.
    Beta1 = 2, "beta1", Optimizer, Bounds::below(1.0);
    /// Decay of the running mean of squared gradients; its square root is that of `s`. Lion: decay of
    /// the running mean. Adan: decay of the mean of differences of gradients.
    Beta2 = 3, "beta2", Optimizer, Bounds::below(1.0);
    /// Added to the root of the second moment. The least is where `f32` still holds the product of
    /// two denominators; smaller gradients than that square to 0 in `f32` anyway.
    Eps = 4, "eps", Group, Bounds::closed(1e-18, 1e9);
    /// Weight decay, coupled or decoupled as `decouple` says.
    WeightDecay = 5, "weight_decay", Group, Bounds::below(f64::INFINITY);
    /// 1: weight decay shrinks the parameter (AdamW). 0: it is added to the gradient.
    Decouple = 6, "decouple", Group, Bounds::integers(0.0, 1.0);
    /// 1: Adam's bias correction.
    UseBiasCorrection = 7, "use_bias_correction", Optimizer, Bounds::integers(0.0, 1.0);
    /// The most that `d` may grow by in a step, as a factor; infinity for no limit.
    GrowthRate = 8, "growth_rate", Optimizer, Bounds::closed(1.0, f64::INFINITY);
    /// The group's rate relative to the other groups'.
    LayerScale = 9, "layer_scale", Group, Bounds::positive();
    /// Momentum of SGD and of AdaGrad.
    Momentum = 10, "momentum", Group, Bounds::below(1.0);
    /// The first `d`; until a step has made progress it can be set.
    D0 = 11, "d0", Optimizer, Bounds::positive();
    /// Log a line every so many steps through the `log` crate; 0 for none.
    LogEvery = 12, "log_every", Optimizer, Bounds::integers(0.0, 4294967295.0);
    /// What a non-finite gradient does, as a code of [`NonFinite`].
    NonFinite = 13, "non_finite", Optimizer, Bounds::integers(0.0, 2.0);
    /// Threads of a pool of the optimizer's own, the calling thread included; 0 takes rayon's
    /// current pool. Set before the optimizer is made.
    NumThreads = 14, "num_threads", Optimizer, Bounds::integers(0.0, 4096.0);
    /// Forces an instruction set, as a code of [`Isa`](crate::Isa); 0 leaves it to `DADAPT_ISA`
    /// and detection. Set before the optimizer is made.
    Isa = 15, "isa", Optimizer, Bounds::integers(0.0, 4.0);
    /// Adan: decay of the second moment and of `s`. Prodigy: decay of `s` and of the numerator, where
    /// 0 stands for the root of `beta2`.
    Beta3 = 16, "beta3", Optimizer, Bounds::below(1.0);
    /// 1: Adan's weight decay shrinks the parameter before the step (AdamW). 0: after it, by a
    /// division (the proximal step).
    NoProx = 17, "no_prox", Group, Bounds::integers(0.0, 1.0);
    /// A factor on Prodigy's `d_hat`: 0.5 for a more cautious estimate, 2 for a bolder one.
    DCoef = 18, "d_coef", Optimizer, Bounds::positive();
    /// 1: Prodigy's `s` is weighted without lr and bias correction, so that a warm-up of the lr does
    /// not let `d` grow too large.
    SafeguardWarmup = 19, "safeguard_warmup", Group, Bounds::integers(0.0, 1.0);
    /// Statistics follow only every so many elements of a tensor, which saves their memory. It
    /// decides what state a tensor has: set before the group has tensors.
    SliceP = 20, "slice_p", Group, Bounds::integers(1.0, 4294967296.0);
    /// What `d` does not grow beyond; infinity for no limit.
    DCap = 21, "d_cap", Optimizer, Bounds { open_min: true, ..Bounds::closed(0.0, f64::INFINITY) };
    /// How much less than the whole gradient joins the momentum of plain SGD.
    Dampening = 22, "dampening", Group, Bounds::closed(0.0, 1.0);
    /// 1: every group estimates a `d` of its own, and lrs may differ. Set before the optimizer is
    /// made.
    DPerGroup = 23, "d_per_group", Optimizer, Bounds::integers(0.0, 1.0);
    /// What state is kept in, as a code of [`State`]; single slots by
    /// [`Config::set_state_dtype`](crate::Config::set_state_dtype). Set before the group has tensors.
    State = 24, "state", Group, Bounds::integers(0.0, 3.0);
    /// 1: tensors of bf16 and f16 have a master copy of f32 among their state, which steps work on. 0:
    /// they are rounded stochastically. Set before the group has tensors.
    Master = 25, "master", Group, Bounds::integers(0.0, 1.0);
    /// Of the noise of stochastic rounding: the same seed gives the same bits.
    Seed = 26, "seed", Optimizer, Bounds::integers(0.0, 9007199254740992.0);
    /// 1: `slice_p` counts cache lines, that is runs of 16 elements, and not single elements. Set before the
    /// group has tensors.
    SliceByLine = 27, "slice_by_line", Group, Bounds::integers(0.0, 1.0);
}

impl Key {
    pub(crate) const COUNT: usize = Key::ALL.len();

    pub(crate) const fn index(self) -> usize {
        self as usize - 1 // codes count from 1 without gaps: `keys_codes_have_no_gaps`
    }

    /// The key of that [`name`](Key::name).
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub fn from_name(name: &str) -> Result<Key, Error> {
        Key::ALL
            .iter()
            .copied()
            .find(|key| key.name() == name)
            .ok_or_else(|| Error::UnknownKey { key: name.into() })
    }

    /// Checks a value against the key's bounds.
    pub(crate) fn check(self, value: f64) -> Result<(), Error> {
        if self.bounds().contain(value) {
            return Ok(());
        }
        Err(Error::OutOfBounds { key: self, value, bounds: self.bounds() })
    }

    /// Whether every algorithm has it, being about the step and not the recurrence.
    pub(crate) const fn is_common(self) -> bool {
        matches!(
            self,
            Key::LogEvery
                | Key::NonFinite
                | Key::NumThreads
                | Key::Isa
                | Key::State
                | Key::Master
                | Key::Seed
        )
    }

    /// Whether it can be set only before the optimizer is made.
    pub(crate) const fn is_fixed(self) -> bool {
        matches!(self, Key::NumThreads | Key::Isa | Key::DPerGroup)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a step does about a NaN or an infinity in a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum NonFinite {
    /// The step is an error and changes nothing. The default.
    Reject = 0,
    /// The step succeeds and changes nothing; the report says so. As gradient scalers want it.
    Skip = 1,
    /// Not looked for, which saves reading the gradients twice. Such a value spreads as it would in
    /// the reference; `d` alone is protected from it.
    Propagate = 2,
}

/// What state is kept in.
///
/// Slots that hold a copy of a parameter or gradient, and those that parameters are computed from,
/// stay as they are: [`Config::set_state_dtype`](crate::Config::set_state_dtype) says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum State {
    /// What the recurrence computes in: f32, or f64 of f64. The default.
    Full = 0,
    /// `s`, which drives `d` and nothing else, in 8 bits, all else in bf16. The one to take where
    /// memory counts: it trains as well as `Full`.
    Compact = 1,
    /// bf16, rounded stochastically.
    Bf16 = 2,
    /// 8 bits, rounded stochastically: the least memory.
    Q8 = 3,
}

impl State {
    /// Every kind.
    pub const ALL: [State; 4] = [State::Full, State::Compact, State::Bf16, State::Q8];
}

impl From<State> for f64 {
    fn from(state: State) -> f64 {
        f64::from(state as i32)
    }
}

impl From<NonFinite> for f64 {
    fn from(policy: NonFinite) -> f64 {
        f64::from(policy as i32)
    }
}

impl From<crate::Isa> for f64 {
    fn from(isa: crate::Isa) -> f64 {
        f64::from(isa as i32)
    }
}

/// The values of all keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Options {
    values: [f64; Key::COUNT],
    /// By slot, where one is set.
    state: [Option<DType>; MAX_SLOTS],
}

impl Options {
    pub(crate) const fn new() -> Self {
        let mut values = [0.0; Key::COUNT];
        values[Key::Lr.index()] = 1.0;
        values[Key::LayerScale.index()] = 1.0;
        values[Key::D0.index()] = 1e-6;
        values[Key::GrowthRate.index()] = f64::INFINITY;
        values[Key::DCap.index()] = f64::INFINITY;
        values[Key::SliceP.index()] = 1.0;
        values[Key::Master.index()] = 1.0;
        Options { values, state: [None; MAX_SLOTS] }
    }
    pub(crate) fn get(&self, key: Key) -> f64 {
        self.values[key.index()]
    }
    pub(crate) fn is_on(&self, key: Key) -> bool {
        self.get(key) != 0.0
    }
    pub(crate) fn set(&mut self, key: Key, value: f64) {
        self.values[key.index()] = value;
    }
    /// What a slot is to be kept in, where that is set.
    pub(crate) fn state_dtype(&self, slot: usize) -> Option<DType> {
        self.state[slot]
    }
    pub(crate) fn set_state_dtype(&mut self, slot: usize, dtype: Option<DType>) {
        self.state[slot] = dtype;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_codes_have_no_gaps() {
        for (i, key) in Key::ALL.iter().enumerate() {
            assert_eq!(key.index(), i);
            assert_eq!(Key::from_code(i as i32 + 1).unwrap(), *key);
            assert_eq!(Key::from_name(key.name()).unwrap(), *key);
        }
    }
}
