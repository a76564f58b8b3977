//! What state a tensor has, and in what types: what its own type and its group's options decide.

use crate::algorithm::{Descriptor, Init, Kept, MAX_SLOTS, Role, Slot};
use crate::dtype::DType;
use crate::engine::coded::groups_before;
use crate::engine::slices::Slice;
use crate::error::{Error, Result};
use crate::kernel::codec::Format;
use crate::key::{Key, Options, State};

/// Name of the f32 copy of a parameter in a shorter type.
pub(super) const MASTER: &str = "master";

/// What of a tensor's state has memory, and how its numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// What statistics follow.
    pub(super) slice: Slice,
    /// There are statistics at all.
    pub(super) statistics: bool,
    /// There is a first moment.
    pub(super) moment: bool,
    /// There is a master copy of the parameter, after all other state.
    pub(super) master: bool,
    /// Of the slots, in their order.
    pub(super) formats: [Format; MAX_SLOTS],
    /// The parameter and all of that are of the type that lane functions compute in.
    pub(super) plain: bool,
    /// Gradients are kept until the next step.
    pub(super) keeps_gradient: bool,
    /// The step depends on state that is rounded.
    pub(super) moves_by_kept: bool,
}

impl Layout {
    /// Of a tensor of type `p`.
    ///
    /// # Errors
    /// [`Error::StateDType`], for the tensor of that name.
    pub(super) fn new(
        descriptor: &Descriptor,
        slots: &[Slot],
        (optimizer, options): (&Options, &Options),
        statistics: bool,
        (name, p): (&str, DType),
    ) -> Result<Self> {
        let master = p != p.working() && options.is_on(Key::Master);
        let source = if master { DType::F32 } else { p };
        let mut formats = [Format::new(p.working(), false); MAX_SLOTS];
        let moment = (descriptor.keeps_moment)(optimizer, options);
        let mut rounded = false;
        for (i, slot) in slots.iter().enumerate() {
            let dtype = slot_dtype(slot, options.state_dtype(i), state(options), source)
                .map_err(|(dtype, reason)| refused(name, slot, dtype, reason))?;
            formats[i] = Format::new(dtype, slot.kept == Kept::Unsigned);
            rounded |= dtype != p.working()
                && (slot.role == Role::State || slot.role == Role::Moment && moment)
                && !matches!(slot.kept, Kept::Exactly(_));
        }
        Ok(Layout {
            slice: Slice::new(options.get(Key::SliceP) as usize, options.is_on(Key::SliceByLine)),
            statistics,
            moment,
            master,
            formats,
            plain: p == p.working() && formats.iter().all(|format| format.dtype == p),
            keeps_gradient: slots.iter().any(|slot| slot.init == Init::Gradient),
            moves_by_kept: rounded && descriptor.moves_by_state,
        })
    }

    /// Of a table of rows, whose state is of its own type.
    pub(super) fn of_rows(dtype: DType) -> Self {
        Layout {
            slice: Slice::WHOLE,
            statistics: true,
            moment: true,
            master: false,
            formats: [Format::new(dtype, false); MAX_SLOTS],
            plain: true,
            keeps_gradient: false,
            moves_by_kept: false,
        }
    }

    /// Elements of a slot of a tensor of `len`.
    pub(super) fn slot_len(&self, slot: &Slot, len: usize) -> usize {
        match slot.role {
            Role::State => len,
            Role::Statistic if self.statistics => self.slice.before(len),
            Role::Moment if self.moment => len,
            _ => 0,
        }
    }

    /// Bytes of a slot of that number of a tensor of `len`.
    pub(super) fn slot_bytes(&self, i: usize, slot: &Slot, len: usize) -> usize {
        let (dtype, elements) = (self.formats[i].dtype, self.slot_len(slot, len));
        if dtype != DType::Q8 || elements == 0 {
            return elements * dtype.size();
        }
        let slice = if slot.role == Role::Statistic { self.slice } else { Slice::WHOLE };
        elements + groups_before(slice, len)
    }
}

fn refused(name: &str, slot: &Slot, dtype: DType, reason: &'static str) -> Error {
    Error::StateDType { tensor: name.into(), slot: slot.name, dtype, reason }
}

fn state(options: &Options) -> State {
    let code = options.get(Key::State);
    State::ALL.into_iter().find(|state| f64::from(*state) == code).unwrap_or(State::Full)
}

/// What a slot of a tensor is kept in, whose parameter is worked on in `source`; else why not.
fn slot_dtype(
    slot: &Slot,
    asked: Option<DType>,
    state: State,
    source: DType,
) -> std::result::Result<DType, (DType, &'static str)> {
    let working = source.working();
    let exact = if slot.init == Init::Parameter { source } else { working };
    if let Kept::Exactly(reason) = slot.kept {
        return match asked {
            None => Ok(exact),
            Some(dtype) if dtype == exact => Ok(exact),
            // The step checks that gradients are of that type.
            Some(dtype @ (DType::Bf16 | DType::F16))
                if slot.init == Init::Gradient && working == DType::F32 =>
            {
                Ok(dtype)
            }
            Some(dtype) => Err((dtype, reason)),
        };
    }
    let dtype = asked.unwrap_or(match (state, slot.role) {
        (State::Full, _) => working,
        (State::Bf16, _) => DType::Bf16,
        (State::Q8, _) | (State::Compact, Role::Statistic) => DType::Q8,
        (State::Compact, _) => DType::Bf16,
    });
    match dtype {
        _ if dtype == working => Ok(dtype),
        _ if working == DType::F64 => Err((dtype, "a tensor of f64 has state of f64")),
        DType::Bf16 | DType::Q8 => Ok(dtype),
        DType::F16 => Err((dtype, "its range is too short; take bf16 or q8")),
        _ => Err((dtype, "it is more than the recurrence computes; take f32")),
    }
}

/// Whether some state of the algorithm may be rounded.
pub(super) fn may_round(slots: &[Slot]) -> bool {
    slots.iter().any(|slot| !matches!(slot.kept, Kept::Exactly(_)))
}

/// Checks what can be known of a slot's type before there is a tensor.
pub(super) fn check_slot_dtype(slot: &Slot, dtype: DType) -> Result<()> {
    let possible = match (slot.kept, dtype) {
        (_, DType::F32 | DType::F64) => Ok(()),
        (Kept::Exactly(_), DType::Bf16 | DType::F16)
            if matches!(slot.init, Init::Parameter | Init::Gradient) =>
        {
            Ok(())
        }
        (Kept::Exactly(reason), _) => Err(reason),
        (_, DType::F16) => Err("its range is too short; take bf16 or q8"),
        _ => Ok(()),
    };
    possible.map_err(|reason| refused("of any type", slot, dtype, reason))
}
