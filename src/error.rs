//! Errors: what was wrong, what would be right. None leaves anything changed, but where it says so.

use crate::dtype::DType;
use crate::kernel::isa::Isa;
use crate::key::{Bounds, Key};
use crate::optimizer::GroupId;

/// Why a call failed.
///
/// Every error is found before anything is written: parameters, state, `d` and `k` are as they
/// were. The one exception is [`Error::Poisoned`], which reports an earlier panic.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No key of that name or code.
    #[error("there is no option {key:?}; there are {}", names(Key::ALL.iter().map(|k| k.name())))]
    UnknownKey {
        /// The name or code given.
        key: String,
    },
    /// The algorithm lacks the option.
    #[error("{algorithm} has no option {key}; it has {}", names(algorithm_keys(algorithm)))]
    KeyNotForAlgorithm {
        /// The option.
        key: Key,
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// Sliced statistics of an algorithm that computes parameters from them.
    #[error("{algorithm} has no slice_p: it computes parameters from s, so s cannot be sliced")]
    NoSlices {
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// A value outside the option's bounds, or NaN.
    #[error("{key} = {value:?} is not within its bounds, {bounds}")]
    OutOfBounds {
        /// The option.
        key: Key,
        /// The value given.
        value: f64,
        /// What it must be within.
        bounds: Bounds,
    },
    /// An option of the optimizer was set for one group.
    #[error("{key} is one value for all groups; set it without a group")]
    NotPerGroup {
        /// The option.
        key: Key,
    },
    /// An option that can no longer be set.
    #[error("{key} can be set only {when}")]
    Fixed {
        /// The option.
        key: Key,
        /// Until when it could be.
        when: &'static str,
    },
    /// No algorithm of that name or code.
    #[error("there is no algorithm {algorithm:?}; there are {}", names(algorithms()))]
    UnknownAlgorithm {
        /// The name or code given.
        algorithm: String,
    },
    /// No instruction set of that name.
    #[error("there is no instruction set {name:?}; there are {}", names(Isa::ALL.iter().map(|i| i.name())))]
    UnknownIsa {
        /// The name given.
        name: String,
    },
    /// The instruction set asked for is not on this machine.
    #[error("this machine has no {isa}; its widest instruction set is {best}")]
    IsaUnavailable {
        /// The instruction set asked for.
        isa: Isa,
        /// What there is.
        best: Isa,
    },
    /// An environment variable that cannot be understood.
    #[error("environment variable {name}={value:?} is not {expected}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No group of that index.
    #[error("there is no group {group}; there are {groups}, counted from 0")]
    UnknownGroup {
        /// The index given.
        group: usize,
        /// How many there are.
        groups: usize,
    },
    /// No tensor of that id.
    #[error("there is no tensor of id {id}; {tensors} are registered, counted from 0")]
    UnknownTensor {
        /// The id given.
        id: u64,
        /// How many there are.
        tensors: usize,
    },
    /// The algorithm keeps no state of that name.
    #[error("{algorithm} keeps no state {slot:?}; it keeps {}", names(algorithm_state(algorithm)))]
    UnknownState {
        /// The name or index given.
        slot: String,
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// Two tensors of one name.
    #[error("a tensor named {name:?} is registered already")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A tensor appears twice in a step.
    #[error("tensor {tensor:?} is given twice in one step")]
    TensorTwice {
        /// The tensor's name.
        tensor: String,
    },
    /// An array whose length is not what was registered.
    #[error("{what} of tensor {tensor:?} has {given} elements, and {registered} are registered")]
    Length {
        /// The tensor's name.
        tensor: String,
        /// The array.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The length it must have.
        registered: usize,
    },
    /// A tensor too long to address.
    #[error("tensor {tensor:?} of {len} elements is longer than this machine can address")]
    TooLong {
        /// The tensor's name.
        tensor: String,
        /// The length given.
        len: usize,
    },
    /// An array whose type is not what was registered.
    #[error("tensor {tensor:?} is given as {given}, and {registered} is registered")]
    DTypeMismatch {
        /// The tensor's name.
        tensor: String,
        /// The type given.
        given: DType,
        /// The type it must have.
        registered: DType,
    },
    /// No element type of that code.
    #[error(
        "there is no element type {dtype}; there are f32 (1), f64 (2), bf16 (3), f16 (4) and, of state, q8 (5)"
    )]
    UnknownDType {
        /// The code given.
        dtype: i32,
    },
    /// An element type that a tensor cannot have.
    #[error("tensor {tensor:?} cannot be of {dtype}: {reason}")]
    DTypeNotFor {
        /// The tensor's name.
        tensor: String,
        /// The type asked for.
        dtype: DType,
        /// Why.
        reason: &'static str,
    },
    /// A gradient whose type does not go with the parameter's.
    #[error(
        "the gradient of tensor {tensor:?} is of {given}, which does not go with a parameter of {parameter}: f32, bf16 and f16 go with one another in dense tensors, else types are equal"
    )]
    GradientDType {
        /// The tensor's name.
        tensor: String,
        /// The gradient's type.
        given: DType,
        /// The parameter's type.
        parameter: DType,
    },
    /// A gradient that the state that keeps it cannot hold.
    #[error(
        "the gradient of tensor {tensor:?} is of {given}, and {slot} keeps a copy of it in {kept}, which would round it: give gradients of {kept}, or keep {slot} in f32"
    )]
    GradientKeptIn {
        /// The tensor's name.
        tensor: String,
        /// The slot.
        slot: &'static str,
        /// Its type.
        kept: DType,
        /// The gradient's.
        given: DType,
    },
    /// A type that a state slot cannot be kept in.
    #[error("{slot} of tensor {tensor:?} cannot be kept in {dtype}: {reason}")]
    StateDType {
        /// The tensor's name.
        tensor: String,
        /// The slot.
        slot: &'static str,
        /// The type asked for.
        dtype: DType,
        /// Why not.
        reason: &'static str,
    },
    /// State asked for as of another type than it is kept in.
    #[error("{slot} of tensor {tensor:?} is kept in {kept}, not in {asked}")]
    StateKeptIn {
        /// The tensor's name.
        tensor: String,
        /// The slot.
        slot: &'static str,
        /// The type given or asked for.
        asked: DType,
        /// The type it is kept in.
        kept: DType,
    },
    /// An algorithm of whose state nothing may be rounded.
    #[error("{algorithm} keeps no state that may be rounded: parameters are computed from it")]
    NothingToRound {
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// A null pointer where there are elements.
    #[error("{what} of tensor {tensor:?} is null, and {len} elements are registered")]
    Null {
        /// The tensor's name.
        tensor: String,
        /// The array.
        what: &'static str,
        /// The registered length.
        len: usize,
    },
    /// A pointer that is not aligned to its elements.
    #[error("{what} of tensor {tensor:?} is not aligned to the {align} bytes of its elements")]
    Misaligned {
        /// The tensor's name.
        tensor: String,
        /// The array.
        what: &'static str,
        /// The alignment it must have.
        align: usize,
    },
    /// Two arrays share memory, and a step writes at least one of them.
    #[error("{first} and {second} overlap, and a step would write them")]
    Overlap {
        /// One array.
        first: String,
        /// The other.
        second: String,
    },
    /// State of the caller's is missing, or given where the library owns it.
    #[error(
        "tensor {tensor:?} needs {expected} state arrays of the caller's in a step, and {given} are given"
    )]
    StateCount {
        /// The tensor's name.
        tensor: String,
        /// How many it needs; 0 where the library owns its state.
        expected: usize,
        /// How many are given.
        given: usize,
    },
    /// State that the caller keeps cannot be read through the optimizer.
    #[error("tensor {tensor:?} keeps its state with the caller")]
    StateOfCaller {
        /// The tensor's name.
        tensor: String,
    },
    /// Groups with different rates.
    #[error(
        "group {group} has lr {lr:?} where another has {other:?}: groups share one lr or have 0 (frozen); for relative rates set layer_scale"
    )]
    MixedLr {
        /// The group.
        group: usize,
        /// Its lr.
        lr: f64,
        /// The other group's.
        other: f64,
    },
    /// Options that together leave the range of the parameters' type.
    #[error(
        "the options of group {group} and d = {d:?} give a coefficient that {dtype} cannot hold; is lr or layer_scale too large?"
    )]
    Coefficient {
        /// The group.
        group: usize,
        /// The type of its tensors.
        dtype: DType,
        /// `d` at this step.
        d: f64,
    },
    /// A NaN or an infinity in a gradient, under [`NonFinite::Reject`](crate::NonFinite::Reject).
    #[error(
        "the gradient of tensor {tensor:?} is {value:?} at element {index}; it was refused and changed nothing"
    )]
    NonFiniteGradient {
        /// The tensor's name.
        tensor: String,
        /// The first such element.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// Memory for state cannot be had.
    #[error("{bytes} bytes for the state of tensor {tensor:?} cannot be allocated")]
    OutOfMemory {
        /// The tensor's name.
        tensor: String,
        /// How much was asked for.
        bytes: usize,
    },
    /// Threads cannot be started.
    #[error("a pool of {threads} threads cannot be started: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// A step in parts has begun and not ended.
    #[error("a step in parts has begun: end or abort it first")]
    StepOpen,
    /// No step in parts has begun.
    #[error("no step in parts has begun: call step_begin first")]
    NoStepOpen,
    /// What cannot be done one tensor at a time.
    #[error("{algorithm} cannot step tensor by tensor: {reason}")]
    NotInParts {
        /// The algorithm's name.
        algorithm: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An algorithm that takes no gradients of single rows.
    #[error("{algorithm} takes no gradients of single rows; adagrad does")]
    NoRows {
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// A gradient of rows for a dense tensor, or a dense one for a table of rows.
    #[error("tensor {tensor:?} is registered as {registered}, and the gradient is {given}")]
    GradientKind {
        /// The tensor's name.
        tensor: String,
        /// `dense` or `rows`.
        registered: &'static str,
        /// `dense` or `rows`.
        given: &'static str,
    },
    /// A row that the table does not have.
    #[error(
        "row {row} of the gradient of tensor {tensor:?} (at place {place}) is not below {rows}"
    )]
    RowOutOfRange {
        /// The tensor's name.
        tensor: String,
        /// The row given.
        row: i64,
        /// Where among the rows given.
        place: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// An option that has no meaning for gradients of single rows.
    #[error(
        "{key} of group {group} is set, and tensor {tensor:?} has gradients of single rows, for which it has no meaning: put the tensor in a group of its own"
    )]
    NotForRows {
        /// The option.
        key: Key,
        /// The group.
        group: usize,
        /// The tensor's name.
        tensor: String,
    },
    /// A number that no estimate can have come to, given to be gone on from.
    #[error("{what} is {value:?}: an optimizer cannot go on from that")]
    Resume {
        /// The number.
        what: &'static str,
        /// The value given.
        value: f64,
    },
    /// An algorithm that has no restart.
    #[error("{algorithm} has no restart; adan and experimental_adan_ip have one")]
    NoRestart {
        /// The algorithm's name.
        algorithm: &'static str,
    },
    /// An earlier step panicked while it wrote: parameters and state are valid numbers, but of no
    /// particular step.
    #[error("an earlier step failed half-way; this optimizer can only be dropped")]
    Poisoned,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn algorithms() -> impl Iterator<Item = &'static str> {
    crate::Algorithm::ALL.iter().map(|a| a.name())
}

fn algorithm_keys(name: &str) -> impl Iterator<Item = &'static str> {
    let algorithm = crate::Algorithm::from_name(name).ok();
    let own = algorithm.map(|a| a.options()).unwrap_or_default().iter().map(|(key, _)| *key);
    own.chain(Key::ALL.iter().copied().filter(|key| key.is_common())).map(Key::name)
}

fn algorithm_state(name: &str) -> impl Iterator<Item = &'static str> {
    crate::Algorithm::from_name(name).ok().into_iter().flat_map(|a| a.state_names())
}

impl GroupId {
    pub(crate) fn unknown(self, groups: usize) -> Error {
        Error::UnknownGroup { group: self.index(), groups }
    }
}
