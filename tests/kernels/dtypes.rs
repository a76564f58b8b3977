//! Parameters, gradients and state in shorter types, step by step against the oracle.
//!
//! Every step starts from the state as it is kept, decoded: what is computed from that in f64 is the
//! truth of the step, and roundings of earlier steps are no part of it. See `dtypes_case.rs` for what
//! is then asked of each element.

use crate::dtypes_case::{Case, Kind, Seen};
use crate::isas::{each_isa, scaled};
use crate::run::has;
use dadapt::{Algorithm, DType, Element, Isa, Key, State, bf16, f16};

/// Runs of an algorithm without slices, each with options and data of its own: enough for each option to be
/// drawn.
const RUNS: u64 = 4;
/// (`slice_p`, `slice_by_line`).
const SLICES: [(usize, bool); 6] =
    [(1, false), (3, false), (2, true), (7, false), (5, true), (5000, false)];

#[test]
fn f32_parameters_agree_with_oracle() {
    check_all::<f32>(true);
}

#[test]
fn bf16_parameters_with_master_agree_with_oracle() {
    check_all::<bf16>(true);
}

#[test]
fn bf16_parameters_alone_agree_with_oracle() {
    check_all::<bf16>(false);
}

#[test]
fn f16_parameters_with_master_agree_with_oracle() {
    check_all::<f16>(true);
}

#[test]
fn f16_parameters_alone_agree_with_oracle() {
    check_all::<f16>(false);
}

/// How state is kept: for all of it, or 8 bits for what only d follows from.
fn modes(algorithm: Algorithm) -> Vec<(State, bool)> {
    let none = [Algorithm::Sgd, Algorithm::AdaGrad];
    if none.contains(&algorithm) {
        return vec![(State::Full, false)];
    }
    let mut modes: Vec<_> = State::ALL.map(|state| (state, false)).to_vec();
    if has(algorithm, Key::SliceP) {
        modes.push((State::Full, true));
    }
    modes
}

fn check_all<P: Element>(master: bool) {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            check::<P>(algorithm, isa, master);
        }
    });
}

fn check<P: Element>(algorithm: Algorithm, isa: Isa, master: bool) {
    let mut all = Seen::default();
    let slices = if has(algorithm, Key::SliceP) { SLICES.len() } else { 1 };
    for (state, short_s) in modes(algorithm) {
        let mut of_mode = Seen::default();
        // Some slices are alike: emulators run the first of them.
        for slice in &SLICES[..scaled(slices).clamp(slices.min(3), slices)] {
            for seed in 0..if slices == 1 { RUNS } else { 1 } {
                let kind = Kind { algorithm, isa, state, short_s, slice: *slice, master, seed };
                of_mode.add(&Case::<P>::new(kind).play());
            }
        }
        // Both neighbours have their share, of numbers that the type cannot hold.
        let rounded = state != State::Full || short_s || P::DTYPE != DType::F32 && !master;
        let (up, down) = (of_mode.up, of_mode.down);
        let what = format!("{algorithm} {} {isa} {state:?}: {up} up, {down} down", P::DTYPE);
        assert!(!rounded || up.min(down) * 3 > up.max(down) && up > 10_000, "MISTRUSTED: {what}");
        all.add(&of_mode);
    }
    println!("{algorithm} {} {isa}: {all}", P::DTYPE);
    // Where a parameter has no master copy it would be rounded twice.
    let mends = algorithm == Algorithm::Prodigy && (master || P::DTYPE == DType::F32);
    let trusted = mends == (all.mended > 0);
    assert!(
        trusted,
        "MISTRUSTED: {algorithm} {} {isa}: {} steps were mended",
        P::DTYPE,
        all.mended
    );
}
