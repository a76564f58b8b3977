//! The recurrences, one file an algorithm: options and defaults, state, lane function, `d` rule.
//!
//! A new algorithm is a file here and a line in `algorithms!`.

mod adagrad;
mod adagrad_rows;
mod adam;
mod adam_preprint;
mod adan;
mod adan_ip;
mod lion;
mod plain_adagrad;
mod plain_adam;
mod plain_adan;
mod plain_lion;
mod plain_sgd;
mod prodigy;
mod rule;
mod sgd;

use crate::error::Error;
use crate::key::{Key, Options};
pub(crate) use rule::{
    Cell, Decay, Estimate, Init, Kept, MAX_TOTALS, Role, Rule, Scalars, Slot, Target, Totals,
    decay, knows, pass,
};

/// The most state slots of any algorithm, which fixes the size of descriptors.
pub(crate) const MAX_SLOTS: usize = 6;
/// The most sums of any algorithm.
pub(crate) const MAX_SUMS: usize = 4;
/// The most coefficients of any algorithm.
pub(crate) const MAX_COEFFS: usize = 16;

/// A [`Rule`] without its type: what the optimizer asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) options: &'static [(Key, f64)],
    pub(crate) state: &'static [Slot],
    /// None where it estimates nothing.
    pub(crate) sums: usize,
    pub(crate) decay: Decay,
    pub(crate) needs_g0: bool,
    pub(crate) accumulates: bool,
    pub(crate) uses_next_d: bool,
    pub(crate) counts_per_tensor: bool,
    pub(crate) restarts: bool,
    /// Whether the parameter can be moved by state as it is kept.
    pub(crate) moves_by_state: bool,
    /// The slot that is a copy of the parameter's start for statistics alone.
    pub(crate) copy_of_start: Option<usize>,
    pub(crate) keeps_moment: fn(&Options, &Options) -> bool,
    pub(crate) gamma: fn(&Scalars) -> f64,
    pub(crate) coeffs: fn(&Scalars, &Options) -> [f64; MAX_COEFFS],
    pub(crate) weights: fn(&Scalars, &Options) -> [f64; MAX_SUMS],
    pub(crate) estimate: fn(&Scalars, &mut Totals, &[f64; MAX_SUMS]) -> Option<Estimate>,
    pub(crate) target: fn(&Scalars, &mut Totals, f64) -> Target,
}

impl Descriptor {
    fn of<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>() -> Self
    where
        R: Rule<COEFFS, SLOTS, SUMS>,
    {
        const { assert!(COEFFS <= MAX_COEFFS && SLOTS < MAX_SLOTS && SUMS <= MAX_SUMS) }
        Descriptor {
            name: R::NAME,
            options: R::OPTIONS,
            state: const { &R::STATE },
            sums: SUMS,
            decay: R::DECAY,
            needs_g0: R::NEEDS_G0,
            accumulates: R::ACCUMULATES,
            uses_next_d: R::USES_NEXT_D,
            counts_per_tensor: R::COUNTS_PER_TENSOR,
            restarts: R::RESTARTS,
            moves_by_state: R::MOVES_BY_STATE,
            copy_of_start: R::STATE
                .iter()
                .position(|slot| slot.role == Role::Statistic && slot.init == Init::Parameter),
            keeps_moment: R::keeps_moment,
            gamma: R::gamma,
            coeffs: |scalars, group| pad(R::coeffs(scalars, group)),
            weights: |scalars, group| pad(R::weights(scalars, group)),
            estimate: |scalars, totals, sums| {
                R::estimate(scalars, totals, sums.first_chunk().expect("SUMS <= MAX_SUMS"))
            },
            target: R::target,
        }
    }

    pub(crate) fn has(&self, key: Key) -> bool {
        key.is_common() || self.options.iter().any(|(k, _)| *k == key)
    }

    /// Whether it estimates a `d`.
    pub(crate) fn adapts(&self) -> bool {
        self.sums > 0
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
    /// D-Adaptation for AdaGrad, of dense and of row-sparse gradients.
    AdaGrad = 3 => adagrad::AdaGrad;
    /// D-Adaptation for Lion.
    Lion = 4 => lion::Lion;
    /// D-Adaptation for Adan.
    Adan = 5 => adan::Adan;
    /// Prodigy.
    Prodigy = 6 => prodigy::Prodigy;
    /// D-Adaptation for Adam as in the first versions of its preprint; experimental.
    ExperimentalAdamPreprint = 7 => adam_preprint::AdamPreprint;
    /// D-Adaptation for Adan by inner products; experimental.
    ExperimentalAdanIp = 8 => adan_ip::AdanIp;
    /// SGD with momentum at a rate set by hand.
    PlainSgd = 9 => plain_sgd::PlainSgd;
    /// Adam and AdamW at a rate set by hand.
    PlainAdam = 10 => plain_adam::PlainAdam;
    /// AdaGrad at a rate set by hand.
    PlainAdaGrad = 11 => plain_adagrad::PlainAdaGrad;
    /// Lion at a rate set by hand.
    PlainLion = 12 => plain_lion::PlainLion;
    /// Adan at a rate set by hand.
    PlainAdan = 13 => plain_adan::PlainAdan;
}

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

impl Algorithm {
    pub(crate) fn descriptor(self) -> Descriptor {
        self.visit(Describe)
    }

    /// The recurrence of single rows, where the algorithm has one; its estimate is the algorithm's.
    pub(crate) fn visit_rows<V: Visitor>(self, visitor: V) -> Option<V::Output> {
        match self {
            Algorithm::AdaGrad => Some(visitor.visit::<adagrad_rows::AdaGradRows, _, _, _>()),
            _ => None,
        }
    }

    pub(crate) fn rows_descriptor(self) -> Option<Descriptor> {
        self.visit_rows(Describe)
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

    /// The names of the state slots of a table with gradients of single rows, in order; none where the
    /// algorithm takes none.
    pub fn rows_state_names(self) -> impl Iterator<Item = &'static str> {
        self.rows_descriptor().into_iter().flat_map(|rows| rows.state.iter().map(|slot| slot.name))
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
