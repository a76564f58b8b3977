//! `DADAPT_ISA` and `DADAPT_NUM_THREADS`.
//!
//! One test, in a program of its own: the environment is the whole process's.

use dadapt::{Algorithm, Config, Error, ISA_ENV, Isa, Key, NUM_THREADS_ENV, Optimizer};

fn with(name: &str, value: &str, config: &Config) -> Result<Optimizer, Error> {
    // SAFETY: this program's only test is its only user of the environment.
    unsafe { std::env::set_var(name, value) };
    let optimizer = Optimizer::new(config);
    // SAFETY: as above.
    unsafe { std::env::remove_var(name) };
    optimizer
}

#[test]
fn environment_sets_what_options_leave_open() {
    // SAFETY: as in `with`.
    unsafe {
        std::env::remove_var(ISA_ENV);
        std::env::remove_var(NUM_THREADS_ENV);
    }
    let config = Config::new(Algorithm::Adam);
    assert_eq!(Optimizer::new(&config).unwrap().isa(), Isa::detect());
    assert_eq!(with(ISA_ENV, "", &config).unwrap().isa(), Isa::detect());
    for isa in Isa::ALL {
        match with(ISA_ENV, isa.name(), &config) {
            Ok(optimizer) => assert_eq!(optimizer.isa(), isa),
            Err(error) => {
                assert!(!isa.is_available());
                assert_eq!(error, Error::IsaUnavailable { isa, best: Isa::detect() });
            }
        }
    }
    let error = with(ISA_ENV, "avx9", &config).unwrap_err();
    assert_eq!(error, Error::UnknownIsa { name: "avx9".into() });

    for value in ["", "0", "1", "4096"] {
        with(NUM_THREADS_ENV, value, &config).unwrap();
    }
    for value in ["-1", "4097", "1.5", "two", "NaN"] {
        let error = with(NUM_THREADS_ENV, value, &config).unwrap_err();
        assert!(matches!(error, Error::Environment { .. }));
        let message = error.to_string();
        for word in [NUM_THREADS_ENV, value, "a whole number from 0 to 4096"] {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }

    // Options come first.
    let mut forced = Config::new(Algorithm::Adam);
    forced.set(Key::Isa, Isa::Scalar).unwrap().set(Key::NumThreads, 1).unwrap();
    assert_eq!(with(ISA_ENV, "avx9", &forced).unwrap().isa(), Isa::Scalar);
    with(NUM_THREADS_ENV, "two", &forced).unwrap();
}
