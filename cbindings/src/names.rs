//! Rust's names, which end without a 0, as C strings that live as long as the program.

use dadapt::{Algorithm, DType, Isa, Key, Movement};
use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::LazyLock;

/// What the codes of movements mean, in their order from 1 on.
pub(crate) const MOVEMENTS: [Movement; 8] = [
    Movement::Grew,
    Movement::GrowthLimited,
    Movement::NotAbove,
    Movement::NoProgress,
    Movement::LrZero,
    Movement::NonFinite,
    Movement::Capped,
    Movement::Fixed,
];

/// Made once and never changed. New algorithms, keys and state are in it as Rust lists them.
static NAMES: LazyLock<HashMap<&'static str, CString>> = LazyLock::new(|| {
    let algorithms = Algorithm::ALL.iter().flat_map(|algorithm| {
        let state = algorithm.state_names().chain(algorithm.rows_state_names());
        std::iter::once(algorithm.name()).chain(state.collect::<Vec<_>>())
    });
    algorithms
        .chain(["master"])
        .chain(Key::ALL.iter().map(|key| key.name()))
        .chain(Isa::ALL.iter().map(|isa| isa.name()))
        .chain(DType::ALL.iter().map(|dtype| dtype.name()))
        .chain(MOVEMENTS.iter().map(|movement| movement.name()))
        .map(|name| (name, CString::new(name).expect("names have no 0 inside")))
        .collect()
});

/// The C string of a name that Rust has; null for others.
pub(crate) fn c_name(name: &str) -> *const c_char {
    NAMES.get(name).map_or(ptr::null(), |name| name.as_ptr())
}
