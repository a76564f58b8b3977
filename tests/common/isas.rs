//! Every instruction set by name: a test that could not run one says so, or fails.

#![allow(dead_code)] // every integration test includes this module and uses its own part of it

use dadapt::Isa;

/// Comma-separated names of instruction sets whose absence is a failure.
const REQUIRE_ENV: &str = "DADAPT_REQUIRE_ISA";
/// A divisor of repetitions, for emulators a hundred times slower than a machine. Which kinds of
/// cases run does not depend on it.
const SCALE_ENV: &str = "DADAPT_TEST_SCALE";

/// Calls `check` with each instruction set that this machine has, the scalar one first.
pub fn each_isa(mut check: impl FnMut(Isa)) {
    let required = required();
    for isa in Isa::ALL {
        if isa.is_available() {
            check(isa);
            continue;
        }
        assert!(!required.contains(&isa), "{isa} is required by {REQUIRE_ENV} and absent");
        println!("SKIPPED {isa}");
    }
}

/// `count` repetitions, or a part of them where `DADAPT_TEST_SCALE` asks for it, one at least.
pub fn scaled(count: usize) -> usize {
    let divisor = std::env::var(SCALE_ENV).map_or(1, |text| {
        text.parse::<usize>().unwrap_or_else(|_| panic!("{SCALE_ENV}={text:?} is no whole number"))
    });
    (count / divisor.max(1)).max(1)
}

/// A misspelt name fails: it would require nothing.
fn required() -> Vec<Isa> {
    let names = std::env::var(REQUIRE_ENV).unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names
        .map(|name| Isa::from_name(name).unwrap_or_else(|e| panic!("{REQUIRE_ENV}: {e}")))
        .collect()
}
