//! Every instruction set by name: a test that could not run one says so, or fails.

#![allow(dead_code)] // every integration test includes this module and uses its own part of it

use dadapt::Isa;

/// Comma-separated names of instruction sets whose absence is a failure.
const REQUIRE_ENV: &str = "DADAPT_REQUIRE_ISA";
/// Comma-separated names of instruction sets to leave out, where another run has them.
const SKIP_ENV: &str = "DADAPT_SKIP_ISA";
/// A divisor of repetitions, for emulators a hundred times slower than a machine. Which kinds of
/// cases run does not depend on it.
const SCALE_ENV: &str = "DADAPT_TEST_SCALE";

/// Calls `check` with each instruction set that this machine has, the scalar one first.
pub fn each_isa(mut check: impl FnMut(Isa)) {
    let (required, skipped) = (named_by(REQUIRE_ENV), named_by(SKIP_ENV));
    for isa in Isa::ALL {
        let runs = isa.is_available() && !skipped.contains(&isa);
        assert!(runs || !required.contains(&isa), "{isa} is required by {REQUIRE_ENV} and absent");
        if runs {
            check(isa);
        } else {
            println!("SKIPPED {isa}");
        }
    }
}

/// `count` repetitions, or a part of them where `DADAPT_TEST_SCALE` asks for it, one at least.
pub fn scaled(count: usize) -> usize {
    let divisor = std::env::var(SCALE_ENV).map_or(1, |text| {
        text.parse::<usize>().unwrap_or_else(|_| panic!("{SCALE_ENV}={text:?} is no whole number"))
    });
    (count / divisor.max(1)).max(1)
}

/// A length, or a part of it, but no less than what the case is about.
pub fn scaled_len(len: usize, least: usize) -> usize {
    scaled(len).max(least)
}

/// The first so many of cases that are much the same, the most telling first.
pub fn scaled_part<T>(all: &[T]) -> &[T] {
    &all[..scaled(all.len())]
}

/// A misspelt name fails: it would name nothing.
fn named_by(variable: &str) -> Vec<Isa> {
    let names = std::env::var(variable).unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| Isa::from_name(name).unwrap_or_else(|e| panic!("{variable}: {e}"))).collect()
}
