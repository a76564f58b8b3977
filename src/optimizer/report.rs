//! What a step says of itself.

/// What became of `d` in a step, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Movement {
    /// `d` grew to `d_hat`.
    Grew = 1,
    /// `d_hat` is above what `growth_rate` allows: `d` grew by that factor.
    GrowthLimited = 2,
    /// `d_hat` is not above `d`, which never falls.
    NotAbove = 3,
    /// No gradient with a value other than 0, or none at all: nothing changed. (Where the sum
    /// that divides became 0 by underflow or cancellation, the parameters did take their step.)
    NoProgress = 4,
    /// Every group's lr is 0: nothing changed.
    LrZero = 5,
    /// A gradient was not finite and the policy is to skip such a step, or a sum was not finite,
    /// which leaves the estimate as it was.
    NonFinite = 6,
    /// `d_hat` is above `d_cap`: `d` grew to the cap, or stays above it where it has been set lower
    /// since.
    Capped = 7,
    /// Nothing is estimated: the algorithm is a plain one, or the optimizer is frozen.
    Fixed = 8,
}

impl Movement {
    /// Words for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Movement::Grew => "grew",
            Movement::GrowthLimited => "limited by growth_rate",
            Movement::NotAbove => "d_hat not above d",
            Movement::NoProgress => "no progress",
            Movement::LrZero => "lr is 0",
            Movement::NonFinite => "not finite",
            Movement::Capped => "limited by d_cap",
            Movement::Fixed => "not estimated",
        }
    }
}

/// In what order a step went over the memory.
///
/// Prodigy alone has a choice, since its parameters move by the new `d`: all orders agree to within
/// roundings, and which one runs depends on nothing but `d`, `k`, the options and the parameters' types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Sweeps {
    /// None: nothing was updated.
    None = 0,
    /// One sweep did all.
    One = 1,
    /// One sweep with the old `d`, and a second to mend the parameters, since `d` changed.
    Mended = 2,
    /// One sweep for sums and state, and a second that moves the parameters by the new `d`: while
    /// `d` is `d0`, in a step after one that changed `d`, and always where beta1 is 0 or where a
    /// parameter of 16 bits has no master copy: it is rounded once.
    Two = 3,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// Steps that made progress, this one included.
    pub k: u64,
    /// The estimate after the step.
    pub d: f64,
    /// The estimate that this step alone argues for; `d` where the step has none.
    pub d_hat: f64,
    /// What the step was scaled by: `d*lr` of before the step, with Adam's bias correction or
    /// divided by SGD's `g0`. The packages log it as `dlr`.
    pub dlr: f64,
    /// Numerator of `d_hat`; 0 where the step has none.
    pub numerator: f64,
    /// Denominator of `d_hat`; 0 where the step has none.
    pub denominator: f64,
    /// Norm of all gradients, where the step needed it: SGD's first. Else NaN.
    pub grad_norm: f64,
    /// Whether parameters and state were updated.
    pub applied: bool,
    /// What became of `d`, and why.
    pub movement: Movement,
    /// In what order the step went over the memory.
    pub sweeps: Sweeps,
    /// Parameters of bf16 or f16 that were finite as computed and became infinite as rounded. (A
    /// master copy keeps the finite value.)
    pub overflows: u64,
}
