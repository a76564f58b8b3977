//! Floating-point environments that callers may have set, as `-ffast-math` and `fesetround` do.
//! MXCSR by hand, so x86-64 only.

use std::arch::asm;
use std::hint::black_box;

use crate::bits::steps;
use crate::isas::{each_isa, scaled_part};
use crate::run::{Run, adapts, config, rounded, set_if_there};
use dadapt::{Algorithm, Element, Isa, Key};
use rayon::ThreadPoolBuilder;

const DEFAULT: u32 = 0x1f80;
/// Sticky flags, which a step neither needs nor shows.
const FLAGS: u32 = 0x3f;
const ENVIRONMENTS: [(&str, u32); 6] = [
    ("flush to zero, subnormals are zero", DEFAULT | 0x8040),
    ("round up", DEFAULT | 0x4000),
    ("round down", DEFAULT | 0x2000),
    ("round to zero, flush to zero", DEFAULT | 0x6000 | 0x8040),
    ("every trap unmasked", 0),
    ("every trap unmasked, round up, flags set", 0x4000 | FLAGS),
];

fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stmxcsr writes the four bytes of `value`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
    value
}

fn set_mxcsr(value: u32) {
    // SAFETY: ldmxcsr reads the four bytes of `value`, in which no reserved bit is set. What runs
    // until the default is back is a step, which sets its own environment, and integers.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
}

/// Runs `f` in an environment and returns what it leaves of it, with its outcome.
#[inline(never)]
fn within<T>(value: u32, f: impl FnOnce() -> T) -> (T, u32) {
    set_mxcsr(value);
    let outcome = f();
    let after = mxcsr();
    set_mxcsr(DEFAULT);
    (outcome, after)
}

#[test]
fn environments_do_what_they_say() {
    let (tiny, _) = within(ENVIRONMENTS[0].1, || black_box(1e-30f32) * black_box(1e-10f32));
    assert_eq!(tiny, 0.0);
    let third = |environment| within(environment, || black_box(1.0f32) / black_box(3.0f32)).0;
    assert_eq!(third(ENVIRONMENTS[1].1), third(ENVIRONMENTS[2].1).next_up());
}

#[test]
fn f32_bits_do_not_depend_on_the_callers_environment() {
    check_all::<f32>();
}

#[test]
fn f64_bits_do_not_depend_on_the_callers_environment() {
    check_all::<f64>();
}

fn check_all<E: Element>() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            // Enough for a second thread, which starts in the caller's environment.
            let some = scaled_part(&ENVIRONMENTS);
            for (len, threads, environments) in [(67, 1, &ENVIRONMENTS[..]), (140_001, 2, some)] {
                let expected = run_in::<E>(algorithm, isa, DEFAULT, len, threads);
                for &(name, environment) in environments {
                    let found = run_in::<E>(algorithm, isa, environment, len, threads);
                    assert!(found == expected, "{algorithm} {} {isa} {threads}: {name}", E::DTYPE);
                }
            }
        }
    });
}

/// Subnormals everywhere, and sums that would round otherwise.
fn run_in<E: Element>(
    algorithm: Algorithm,
    isa: Isa,
    environment: u32,
    len: usize,
    threads: usize,
) -> Vec<u64> {
    let mut config = config(algorithm, isa);
    config.set(Key::NumThreads, threads as f64).unwrap();
    set_if_there(&mut config, "d0", 1e-3);
    config.set(Key::WeightDecay, 0.01).unwrap();
    let subnormal = if E::DTYPE.size() == 4 { 1e-40 } else { 1e-310 };
    let value = |i: usize, step: usize| match i % 5 {
        0 => subnormal * (1 + (i + step) % 7) as f64,
        _ => ((i * 13) % 29) as f64 / 29.0 - 0.4 + step as f64 / 64.0,
    };
    let values = |step: usize| rounded::<E>(&(0..len).map(|i| value(i, step)).collect::<Vec<_>>());
    let mut run = Run::new(&config);
    run.add(0, values(0));
    for step in 1..=steps(algorithm) {
        let g = values(step);
        let (report, after) = within(environment, || run.step(&[Some(&g)]));
        report.unwrap();
        assert_eq!(after, environment, "{algorithm} {isa}: not put back");
    }
    let grew = run.optimizer.d() > 1.3e-3 || !adapts(algorithm);
    assert!(grew, "MISTRUSTED: {algorithm}: d did not grow");
    run.bits()
}

/// A pool whose threads live in another environment than the caller.
#[test]
fn workers_environment_is_put_aside_and_back() {
    let other = ENVIRONMENTS[0].1;
    each_isa(|isa| {
        let pool = ThreadPoolBuilder::new()
            .num_threads(3)
            .start_handler(move |_| set_mxcsr(other))
            .exit_handler(|_| set_mxcsr(DEFAULT))
            .build()
            .unwrap();
        for &algorithm in Algorithm::ALL {
            let expected = run_in::<f32>(algorithm, isa, DEFAULT, 140_001, 1);
            let found = pool.install(|| {
                set_mxcsr(DEFAULT);
                let found = run_in::<f32>(algorithm, isa, DEFAULT, 140_001, 0);
                set_mxcsr(other);
                found
            });
            assert!(found == expected, "{algorithm} {isa}");
            let left = pool.broadcast(|_| mxcsr() & !FLAGS);
            assert_eq!(left, [other; 3], "{algorithm} {isa}");
        }
    });
}
