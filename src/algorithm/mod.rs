//! The recurrences, one file an algorithm: options and defaults, state, lane function, `d` rule.
//!
//! A new algorithm is a file here and a line in `algorithms!`.

mod adam;
mod sgd;

use crate::error::Error;
use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

/// How weight decay enters a lane function, known when it is compiled.
pub(crate) mod decay {
    pub(crate) const NONE: u8 = 0;
    /// `g + weight_decay*p` takes the gradient's place.
    pub(crate) const COUPLED: u8 = 1;
    /// The parameter shrinks beside the step.
    pub(crate) const DECOUPLED: u8 = 2;
}

/// The most state slots of any algorithm, which fixes the size of descriptors.
pub(crate) const MAX_SLOTS: usize = 6;
/// The most sums of any algorithm.
pub(crate) const MAX_SUMS: usize = 4;
/// The most coefficients of any algorithm.
pub(crate) const MAX_COEFFS: usize = 12;

/// What a state slot holds before the tensor's first gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    Zero,
    /// The parameter as of its first gradient.
    Parameter,
}

/// A state slot: a tensor as long as its parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The reference's name for it.
    pub(crate) name: &'static str,
    pub(crate) init: Init,
    /// Infinity does not last: after a step whose sums are not finite it becomes the largest finite
    /// number. The lane function makes such a sum of it.
    pub(crate) saturates: bool,
}

/// The scalars of a step that a recurrence reads.
pub(crate) struct Scalars<'a> {
    pub(crate) d: f64,
    /// Steps that made progress so far.
    pub(crate) k: u64,
    /// The lr that all groups with lr > 0 share.
    pub(crate) lr: f64,
    /// Norm of the first gradients, where the algorithm [`NEEDS_G0`](Rule::NEEDS_G0).
    pub(crate) g0_norm: f64,
    pub(crate) options: &'a Options,
}

/// What the sums of a step say of `d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) numerator: f64,
    pub(crate) denominator: f64,
    pub(crate) d_hat: f64,
}

/// The registers of one place in the arrays: parameter and state.
pub(crate) type Cell<E, S, const SLOTS: usize> =
    (<E as LaneElement>::Reg<S>, [<E as LaneElement>::Reg<S>; SLOTS]);

/// An algorithm: everything that is its own.
///
/// The sizes of its arrays are parameters so that the compiler keeps them in registers.
pub(crate) trait Rule<const COEFFS: usize, const SLOTS: usize, const SUMS: usize> {
    /// Name in messages and in the C ABI.
    const NAME: &'static str;
    /// The options it has, with their defaults.
    const OPTIONS: &'static [(Key, f64)];
    /// Its state, in the order of the lane function's array.
    const STATE: [Slot; SLOTS];
    /// Whether the first step needs the norm of all gradients before it.
    const NEEDS_G0: bool;

    /// "dlr": what `d` and the lr amount to in this step.
    fn gamma(scalars: &Scalars) -> f64;

    /// A group's coefficients, each computed in f64; the kernel rounds them once.
    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; COEFFS];

    /// What a group's sums are multiplied by, in f64.
    fn weights(scalars: &Scalars, group: &Options) -> [f64; SUMS];

    /// One register of the recurrence. Sums take this place's terms; zeros everywhere add nothing.
    fn lane<S: Simd, E: LaneElement, const DECAY: u8>(
        lanes: Lanes<S, E>,
        coeffs: &[E::Reg<S>; COEFFS],
        g: E::Reg<S>,
        cell: Cell<E, S, SLOTS>,
        sums: [E::Reg<S>; SUMS],
    ) -> (Cell<E, S, SLOTS>, [E::Reg<S>; SUMS]);

    /// `d_hat` from the sums and the running total (`numerator_weighted`), which is brought up to
    /// date. `None` where the sum that divides is 0: no progress.
    fn estimate(
        scalars: &Scalars,
        numerator_weighted: &mut f64,
        sums: &[f64; SUMS],
    ) -> Option<Estimate>;
}

/// A [`Rule`] without its type: what the optimizer asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) options: &'static [(Key, f64)],
    pub(crate) state: &'static [Slot],
    pub(crate) sums: usize,
    pub(crate) needs_g0: bool,
    pub(crate) gamma: fn(&Scalars) -> f64,
    pub(crate) coeffs: fn(&Scalars, &Options) -> [f64; MAX_COEFFS],
    pub(crate) weights: fn(&Scalars, &Options) -> [f64; MAX_SUMS],
    pub(crate) estimate: fn(&Scalars, &mut f64, &[f64; MAX_SUMS]) -> Option<Estimate>,
}

impl Descriptor {
    fn of<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>() -> Self
    where
        R: Rule<COEFFS, SLOTS, SUMS>,
    {
        const { assert!(COEFFS <= MAX_COEFFS && SLOTS <= MAX_SLOTS && SUMS <= MAX_SUMS) }
        Descriptor {
            name: R::NAME,
            options: R::OPTIONS,
            state: const { &R::STATE },
            sums: SUMS,
            needs_g0: R::NEEDS_G0,
            gamma: R::gamma,
            coeffs: |scalars, group| pad(R::coeffs(scalars, group)),
            weights: |scalars, group| pad(R::weights(scalars, group)),
            estimate: |scalars, total, sums| {
                R::estimate(scalars, total, sums.first_chunk().expect("SUMS <= MAX_SUMS"))
            },
        }
    }

    pub(crate) fn has(&self, key: Key) -> bool {
        key.is_common() || self.options.iter().any(|(k, _)| *k == key)
    }
}

fn pad<const N: usize, const MAX: usize>(values: [f64; N]) -> [f64; MAX] {
    let mut out = [0.0; MAX];
    out[..N].copy_from_slice(&values);
    out
}

/// Something done with an algorithm's type.
pub(crate) trait Visitor {
    type Output;
    fn visit<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(self) -> Self::Output
    where
        R: Rule<COEFFS, SLOTS, SUMS>;
}

macro_rules! algorithms {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal => $rule:path;)+) => {
        /// An optimization algorithm.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum Algorithm {
            $($(#[doc = $doc])+ $variant = $code,)+
        }

        impl Algorithm {
            /// Every algorithm.
            pub const ALL: &'static [Algorithm] = &[$(Algorithm::$variant),+];

            pub(crate) fn visit<V: Visitor>(self, visitor: V) -> V::Output {
                match self { $(Algorithm::$variant => visitor.visit::<$rule, _, _, _>(),)+ }
            }

            /// The algorithm of that code.
            ///
            /// # Errors
            /// [`Error::UnknownAlgorithm`], which lists what there is.
            pub fn from_code(code: i32) -> Result<Algorithm, Error> {
                match code {
                    $($code => Ok(Algorithm::$variant),)+
                    _ => Err(Error::UnknownAlgorithm { algorithm: code.to_string() }),
                }
            }
        }
    };
}

algorithms! {
    /// D-Adaptation for Adam (version 3 of the method).
    Adam = 1 => adam::Adam;
    /// D-Adaptation for SGD with momentum.
    Sgd = 2 => sgd::Sgd;
}

impl Algorithm {
    pub(crate) fn descriptor(self) -> Descriptor {
        struct Describe;
        impl Visitor for Describe {
            type Output = Descriptor;
            fn visit<R, const C: usize, const N: usize, const M: usize>(self) -> Descriptor
            where
                R: Rule<C, N, M>,
            {
                Descriptor::of::<R, C, N, M>()
            }
        }
        self.visit(Describe)
    }

    /// Lower-case name: `adam`, `sgd`.
    pub fn name(self) -> &'static str {
        self.descriptor().name
    }

    /// The algorithm of that [`name`](Algorithm::name).
    ///
    /// # Errors
    /// [`Error::UnknownAlgorithm`], which lists what there is.
    pub fn from_name(name: &str) -> Result<Algorithm, Error> {
        Algorithm::ALL
            .iter()
            .copied()
            .find(|a| a.name() == name)
            .ok_or_else(|| Error::UnknownAlgorithm { algorithm: name.into() })
    }

    /// The keys it has, with their defaults; those about the step and not the recurrence
    /// (`log_every`, `non_finite`, `num_threads`, `isa`) are left out.
    pub fn options(self) -> &'static [(Key, f64)] {
        self.descriptor().options
    }

    /// The names of its state slots, in order.
    pub fn state_names(self) -> impl Iterator<Item = &'static str> {
        self.descriptor().state.iter().map(|slot| slot.name)
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
