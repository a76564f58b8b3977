//! What a recurrence is: the trait that every algorithm implements, and its vocabulary.

use crate::kernel::lanes::{LaneElement, Lanes};
use crate::key::{Key, Options};
use pulp::Simd;

/// How weight decay enters a lane function, known when it is compiled.
pub(crate) mod decay {
    /// None.
    pub(crate) const NONE: u8 = 0;
    /// `g + weight_decay*p` takes the gradient's place.
    pub(crate) const COUPLED: u8 = 1;
    /// The parameter shrinks beside the step.
    pub(crate) const DECOUPLED: u8 = 2;
}

/// What a sweep does, as bits that are known when a lane function is compiled.
pub(crate) mod pass {
    /// Adds to the sums; reads and writes the statistics, which nothing else needs.
    pub(crate) const SUMS: u8 = 1;
    /// Writes the state.
    pub(crate) const STATE: u8 = 2;
    /// Writes the parameter.
    pub(crate) const PARAMETER: u8 = 4;
    /// Moves the parameter from where the old `d` put it to where the new one does.
    pub(crate) const MEND: u8 = 8;
    /// There is a first moment; without the bit, its slot has no memory.
    pub(crate) const MOMENT: u8 = 16;
    /// State that saturates does so by its codec.
    pub(crate) const UNBOUNDED: u8 = 32;
    /// State without a sign is given by its root.
    pub(crate) const ROOTS: u8 = 64;

    /// Without the parameter, which then moves by the state as it is kept.
    pub(crate) const ADVANCE: u8 = SUMS | STATE | MOMENT;
    pub(crate) const MOVE: u8 = PARAMETER | MOMENT;

    pub(crate) const UPDATE: u8 = STATE | PARAMETER | MOMENT;
    pub(crate) const ALL: u8 = SUMS | UPDATE;
}

/// The kinds of weight decay that an algorithm knows, each a kernel of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decay {
    /// There is none.
    None,
    /// Always in the gradient.
    Coupled,
    /// Always beside the step.
    Decoupled,
    /// As `decouple` says.
    Either,
}

impl Decay {
    pub(crate) const fn has(self, kind: u8) -> bool {
        match self {
            Decay::None => kind == decay::NONE,
            Decay::Coupled => kind != decay::DECOUPLED,
            Decay::Decoupled => kind != decay::COUPLED,
            Decay::Either => true,
        }
    }

    /// The kernel that a group's options ask for.
    pub(crate) fn kind(self, group: &Options) -> u8 {
        match (self, group.is_on(Key::WeightDecay), group.is_on(Key::Decouple)) {
            (Decay::None, ..) | (_, false, _) => decay::NONE,
            (Decay::Decoupled, ..) | (Decay::Either, _, true) => decay::DECOUPLED,
            (_, true, _) => decay::COUPLED,
        }
    }
}

/// The most running totals of any algorithm.
pub(crate) const MAX_TOTALS: usize = 3;

/// What an estimate carries from step to step, 0 at first; each algorithm says what it is.
pub(crate) type Totals = [f64; MAX_TOTALS];

/// What a state slot holds before the tensor's first gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    Zero,
    Constant(f64),
    /// The parameter as of its first gradient; never written afterwards.
    Parameter,
    /// The first gradient.
    Gradient,
}

/// What a state slot is for, and so when it has memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The update needs it.
    State,
    /// Only the estimate needs it: as long as the slice, and gone where `d` is frozen.
    Statistic,
    /// The first moment, which is not kept where its decay is 0.
    Moment,
}

/// How a slot's numbers may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Rounded: to bf16, or to 8 bits with a sign.
    Signed,
    /// Rounded: to bf16, or to 8 bits without a sign, where what is not 0 stays so, and 0 only among zeros.
    Unsigned,
    /// As computed, for this reason.
    Exactly(&'static str),
}

/// A state slot: a tensor as long as its parameter, or as its [`Role`] says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The reference's name for it.
    pub(crate) name: &'static str,
    pub(crate) init: Init,
    pub(crate) role: Role,
    pub(crate) kept: Kept,
    /// Infinity does not last: it becomes the largest finite number, in a lane function without sums
    /// at once, else after a step whose sums are not finite, and the lane function makes such a sum
    /// of it. (In the kernel with sums every operation counts.) Of bf16 and 8 bits it is the codec that does so; 8
    /// bits without a sign always saturate.
    pub(crate) saturates: bool,
}

impl Slot {
    pub(crate) const fn new(name: &'static str, init: Init, role: Role) -> Self {
        let kept = match init {
            Init::Parameter => Kept::Exactly("it is a copy of the parameter"),
            Init::Gradient => Kept::Exactly("it is a copy of the gradient"),
            _ => Kept::Signed,
        };
        Slot { name, init, role, kept, saturates: false }
    }

    pub(crate) const fn kept(self, kept: Kept) -> Self {
        Slot { kept, ..self }
    }

    /// Of squares.
    pub(crate) const fn unsigned(self) -> Self {
        self.kept(Kept::Unsigned)
    }

    pub(crate) const fn saturating(self) -> Self {
        Slot { saturates: true, ..self }
    }

    /// Whether a pass reads it.
    pub(crate) const fn is_read(&self, pass: u8) -> bool {
        match self.role {
            Role::State => true,
            Role::Statistic => pass & pass::SUMS != 0,
            Role::Moment => pass & pass::MOMENT != 0,
        }
    }

    /// Whether a pass writes it.
    pub(crate) const fn is_written(&self, pass: u8) -> bool {
        self.is_read(pass) && pass & pass::STATE != 0 && !matches!(self.init, Init::Parameter)
    }
}

/// The scalars of a step that a recurrence reads.
#[derive(Clone, Copy)]
pub(crate) struct Scalars<'a> {
    /// Before the step.
    pub(crate) d: f64,
    /// After it, as far as that is known: else `d`.
    pub(crate) next_d: f64,
    /// Steps that made progress so far.
    pub(crate) k: u64,
    /// Steps that the tensor has taken so far, where the algorithm
    /// [`COUNTS_PER_TENSOR`](Rule::COUNTS_PER_TENSOR); else 0.
    pub(crate) steps: u64,
    /// The group's lr, which all groups of one `d` share, but for those at 0.
    pub(crate) lr: f64,
    /// Norm of the first gradients, where the algorithm [`NEEDS_G0`](Rule::NEEDS_G0).
    pub(crate) g0_norm: f64,
    pub(crate) options: &'a Options,
}

impl Scalars<'_> {
    /// Adam's `sqrt(1-beta2^(k+1))/(1-beta1^(k+1))`, or 1 where that is off.
    pub(crate) fn bias_correction(&self) -> f64 {
        if !self.options.is_on(Key::UseBiasCorrection) {
            return 1.0;
        }
        let t = (self.k + 1) as f64;
        let beta1_t = libm::pow(self.options.get(Key::Beta1), t);
        let beta2_t = libm::pow(self.options.get(Key::Beta2), t);
        (1.0 - beta2_t).sqrt() / (1.0 - beta1_t)
    }

    /// The power of two next below `1/(d*lr)`, within what leaves f32 room on either side.
    ///
    /// `s` is about `d*lr` in size, so its squares would underflow in f32 for a small `d0`: sums take
    /// `unit*s`, and their weights take `unit` back. `s` of earlier steps may be far above a `d*lr`
    /// that a schedule has taken down.
    pub(crate) fn unit(&self) -> f64 {
        let exponent = -i64::from(libm::ilogb(self.d * self.lr));
        libm::scalbn(1.0, exponent.clamp(-60, 56) as i32)
    }
}

/// What the sums of a step say of `d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) numerator: f64,
    pub(crate) denominator: f64,
    pub(crate) d_hat: f64,
}

impl Estimate {
    pub(crate) fn quotient(numerator: f64, denominator: f64) -> Option<Self> {
        Some(Estimate { numerator, denominator, d_hat: numerator / denominator })
    }
}

/// Where `d` goes, and how far it may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) d: f64,
    /// What `growth_rate` allows.
    pub(crate) limit: f64,
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
    /// The kinds of weight decay that its lane function knows.
    const DECAY: Decay;
    /// The passes that its lane function knows.
    const PASSES: &'static [u8] = &[pass::ALL, pass::UPDATE];
    /// Whether the step depends on state that may be rounded: its lane function can do without
    /// [`pass::PARAMETER`] what it does with it, and then move the parameter alone.
    const MOVES_BY_STATE: bool = false;
    /// Whether the first step needs the norm of all gradients before it.
    const NEEDS_G0: bool = false;
    /// Whether the sum that divides is one over all steps, so that a step without gradients makes
    /// progress too.
    const ACCUMULATES: bool = false;
    /// Whether the parameter moves by the new `d`.
    const USES_NEXT_D: bool = false;
    /// Whether coefficients depend on how many steps a tensor has taken.
    const COUNTS_PER_TENSOR: bool = false;
    /// Whether the reference can start its state anew.
    const RESTARTS: bool = false;

    /// "dlr": what `d` and the lr amount to in this step.
    fn gamma(scalars: &Scalars) -> f64 {
        scalars.d * scalars.lr
    }

    /// A group's coefficients, each computed in f64; the kernel rounds them once.
    fn coeffs(scalars: &Scalars, group: &Options) -> [f64; COEFFS];

    /// What a group's sums are multiplied by, in f64.
    fn weights(_: &Scalars, _: &Options) -> [f64; SUMS] {
        [1.0; SUMS]
    }

    /// Whether a group keeps the slots of [`Role::Moment`].
    fn keeps_moment(_optimizer: &Options, _group: &Options) -> bool {
        true
    }

    /// One register of the recurrence. Sums take this place's terms; zeros everywhere add nothing, so
    /// that it makes no difference how many elements a last register lacks.
    ///
    /// What a pass does not read is there with any value, and what it does not write is dropped.
    fn lane<S: Simd, E: LaneElement, const DECAY: u8, const PASS: u8>(
        lanes: Lanes<S, E>,
        coeffs: &[E::Reg<S>; COEFFS],
        g: E::Reg<S>,
        cell: Cell<E, S, SLOTS>,
        sums: [E::Reg<S>; SUMS],
    ) -> (Cell<E, S, SLOTS>, [E::Reg<S>; SUMS]);

    /// `d_hat` from the sums and the running totals, which are brought up to date. `None` where the
    /// sum that divides is 0: no progress. An algorithm without sums estimates nothing.
    fn estimate(_: &Scalars, _: &mut Totals, _: &[f64; SUMS]) -> Option<Estimate> {
        None
    }

    /// Where an estimate sends `d`.
    fn target(scalars: &Scalars, _: &mut Totals, d_hat: f64) -> Target {
        Target { d: d_hat, limit: scalars.d * scalars.options.get(Key::GrowthRate) }
    }
}

/// Whether a rule has that pass with that kind of decay.
pub(crate) const fn knows<R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    pass: u8,
    decay: u8,
) -> bool
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    let mut i = 0;
    while i < R::PASSES.len() {
        if R::PASSES[i] == pass {
            // A mend moves along the step alone.
            return R::DECAY.has(decay) && (pass & pass::MEND == 0 || decay == decay::NONE);
        }
        i += 1;
    }
    false
}

/// A value that saturates, in a pass that leaves this to lanes.
#[inline(always)]
pub(super) fn bounded<S: Simd, E: LaneElement, const PASS: u8>(
    lanes: Lanes<S, E>,
    x: E::Reg<S>,
) -> E::Reg<S> {
    if PASS & pass::UNBOUNDED == 0 { lanes.saturate(x) } else { x }
}

/// The root of a value without a sign, in a pass that may be given it.
#[inline(always)]
pub(super) fn root<S: Simd, E: LaneElement, const PASS: u8>(
    lanes: Lanes<S, E>,
    x: E::Reg<S>,
) -> E::Reg<S> {
    if PASS & pass::ROOTS == 0 { lanes.sqrt(x) } else { x }
}
