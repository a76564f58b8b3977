//! Values at the edges of the number format: same bits everywhere, no panic, and a `d` that holds.

use crate::bits::steps;
use crate::isas::{each_isa, scaled};
use crate::run::{Run, adapts, config, rounded, set_if_there};
use dadapt::{Algorithm, DType, Element, Error, Isa, Key, Movement, NonFinite, State};

const LEN: usize = 39;
const STEPS: usize = 5;

/// Kinds of decay and what else chooses a path.
const OPTIONS: [&[(&str, f64)]; 6] = [
    &[],
    &[("weight_decay", 0.1), ("decouple", 0.0)],
    &[("weight_decay", 0.1), ("decouple", 1.0), ("no_prox", 1.0)],
    &[("slice_p", 3.0)],
    &[("beta1", 0.0), ("safeguard_warmup", 1.0)],
    &[("layer_scale", 0.3), ("momentum", 0.9), ("use_bias_correction", 1.0)],
];

/// What a type can hold that ordinary runs never meet.
fn specials(dtype: DType) -> Vec<f64> {
    let mut all = vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e19, -1e19, 1e-20];
    match dtype {
        DType::F32 => {
            let (least, most) = (f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
            all.extend([1e-38, 1e-40, 1.5e-45, -1e-42, least, 1e21, 1e30, -1e30, most, -most]);
        }
        _ => {
            let (least, most) = (f64::MIN_POSITIVE, f64::MAX);
            all.extend([1e-160, 1e-310, 5e-324, -1e-320, least, 1e155, 1e200, -1e300, most, -most]);
        }
    }
    all
}

#[test]
fn special_f32_values_give_scalar_bits() {
    check_specials::<f32>();
}

#[test]
fn special_f64_values_give_scalar_bits() {
    check_specials::<f64>();
}

/// Each special value in p or in g, in one step or from then on, at several places of a row.
fn check_specials<E: Element>() {
    let mut isas = Vec::new();
    each_isa(|isa| isas.push(isa));
    for &algorithm in Algorithm::ALL {
        for options in OPTIONS {
            for value in specials(E::DTYPE) {
                for in_p in [false, true] {
                    for from_step in 0..3 {
                        let place = Place { in_p, from_step, value };
                        let run = |isa: Isa| {
                            let what = format!(
                                "{algorithm} {} {isa} {options:?}: {value:e} in {} at {from_step}",
                                E::DTYPE,
                                if in_p { "p" } else { "g" },
                            );
                            (run_with::<E>(algorithm, isa, options, place, &what), what)
                        };
                        let (expected, _) = run(Isa::Scalar);
                        for isa in isas.iter().filter(|isa| **isa != Isa::Scalar) {
                            let (found, what) = run(*isa);
                            assert!(found == expected, "{what}: other bits");
                        }
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Place {
    in_p: bool,
    from_step: usize,
    value: f64,
}

fn run_with<E: Element>(
    algorithm: Algorithm,
    isa: Isa,
    options: &[(&str, f64)],
    place: Place,
    what: &str,
) -> Vec<u64> {
    let mut run = small_run::<E>(algorithm, isa, options);
    run.optimizer.set(Key::NonFinite, NonFinite::Propagate).unwrap();
    let mut d = run.optimizer.d();
    // Whoever's d grows late gets time for it; a special value in the first gradient comes first.
    if place.from_step > 1 && steps(algorithm) > STEPS {
        for _ in 0..10 {
            d = run.step(&[Some(&gradient(0))]).unwrap().d;
        }
    }
    for step in 0..STEPS {
        let mut g = gradient::<E>(step);
        if step >= place.from_step {
            for i in [step, 17, LEN - 1] {
                let array = if place.in_p { &mut run.p[0] } else { &mut g };
                array[i] = E::from_f64(place.value);
            }
        }
        let report = match run.step(&[Some(&g)]) {
            Ok(report) => report,
            // How far the parameter has come is Prodigy's d, and this is too far.
            Err(Error::Coefficient { .. }) if place.in_p && algorithm == Algorithm::Prodigy => {
                break;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        assert!(report.d.is_finite() && report.d >= d, "{what}: d went from {d} to {}", report.d);
        d = report.d;
    }
    if place.from_step > 1 && adapts(algorithm) {
        assert!(d > 1e-2, "MISTRUSTED: {what}: d did not grow before");
    }
    run.bits()
}

/// Options that the algorithm lacks are left out.
fn small_run<E: Element>(algorithm: Algorithm, isa: Isa, options: &[(&str, f64)]) -> Run<E> {
    let mut config = config(algorithm, isa);
    options.iter().for_each(|(option, value)| set_if_there(&mut config, option, *value));
    set_if_there(&mut config, "d0", 1e-2);
    let mut run = Run::new(&config);
    run.add(0, rounded(&(0..LEN).map(|i| (i as f64 - 11.0) / 16.0).collect::<Vec<_>>()));
    run
}

fn gradient<E: Element>(step: usize) -> Vec<E> {
    (0..LEN)
        .map(|i| E::from_f64(((i * 7 + 3) % 32) as f64 / 16.0 - 0.9 + step as f64 / 64.0))
        .collect()
}

/// Without coupled decay the parameter is in no sum, so nothing that it holds can change d. But for
/// Prodigy, whose estimate is of how far the parameter has come: its d stays what it was.
#[test]
fn infinite_parameter_leaves_d_alone() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL.iter().filter(|algorithm| adapts(**algorithm)) {
            let mut clean = small_run::<f32>(algorithm, isa, &[]);
            let mut spoilt = small_run::<f32>(algorithm, isa, &[]);
            for (i, value) in [(0, f32::INFINITY), (18, f32::NEG_INFINITY), (38, f32::NAN)] {
                spoilt.p[0][i] = value;
            }
            let mut same_d = true;
            for step in 0..if steps(algorithm) > STEPS { 20 } else { 6 } {
                let g = gradient::<f32>(step);
                let clean = clean.step(&[Some(&g)]).unwrap();
                let spoilt = spoilt.step(&[Some(&g)]).unwrap();
                same_d &= clean.d.to_bits() == spoilt.d.to_bits();
                if algorithm == Algorithm::Prodigy {
                    assert_eq!((spoilt.movement, spoilt.d), (Movement::NonFinite, 1e-2), "{isa}");
                } else {
                    assert!(same_d, "{algorithm} {isa} step {step}");
                }
            }
            assert!(clean.optimizer.d() > 1.3e-2, "MISTRUSTED: {algorithm}: d did not grow");
            for i in (0..LEN).filter(|i| same_d && ![0, 18, 38].contains(i)) {
                assert_eq!(clean.p[0][i], spoilt.p[0][i], "{algorithm} {isa}: element {i}");
            }
        }
    });
}

/// A gradient that is not finite in the very first step, where SGD takes its norm.
#[test]
fn non_finite_first_gradient_is_survived() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut run = small_run::<f32>(algorithm, isa, &[]);
                run.optimizer.set(Key::NonFinite, NonFinite::Propagate).unwrap();
                let d = run.optimizer.d();
                let mut g = gradient::<f32>(0);
                g[5] = value;
                let report = run.step(&[Some(&g)]).unwrap();
                let expected = match algorithm {
                    _ if !adapts(algorithm) => Movement::Fixed,
                    // Infinity has a sign, which is all that its sums see.
                    Algorithm::Lion if value.is_infinite() => Movement::NotAbove,
                    _ => Movement::NonFinite,
                };
                assert_eq!(report.movement, expected, "{algorithm} {isa} {value}");
                assert_eq!(report.d, d, "{algorithm} {isa} {value}");
            }
        }
    });
}

#[test]
fn f32_state_decays_without_subnormals() {
    // d0*g*(1 - sqrt(beta2)) halves some 120 times on the way down.
    check_decay::<f32>(f64::from(f32::MIN_POSITIVE), 0.9, 3_000);
}

#[test]
fn f64_state_decays_without_subnormals() {
    // A thousand halvings, which an emulator gets in fewer steps.
    let (decay, steps) = if scaled(10) == 1 { (0.5, 3_100) } else { (0.9, 20_000) };
    check_decay::<f64>(f64::MIN_POSITIVE, decay, steps);
}

/// State that is a running mean, after the last nonzero gradient: normal numbers or 0. Rounded to
/// nearest, a mean with a decay `beta` stops where `(1-beta)*x` is half of twice the smallest normal.
fn check_decay<E: Element>(smallest_normal: f64, decay: f64, steps: usize) {
    let betas = [
        ("beta1", decay - 0.1),
        ("beta2", decay),
        ("beta3", decay),
        ("momentum", decay),
        ("d_cap", 1e-2),
    ];
    // Of the decays of all means, roots included, the largest.
    let stop = smallest_normal / (1.0 - decay.sqrt());
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            // Neither sums over all steps nor copies; nor what follows a sign, which Lion's mean keeps
            // when it stops.
            let means: &[&str] = match algorithm {
                Algorithm::Sgd | Algorithm::AdaGrad | Algorithm::PlainAdaGrad => &[],
                Algorithm::Lion => &["exp_avg"],
                _ => &["exp_avg", "exp_avg_sq", "exp_avg_diff", "s", "momentum_buffer"],
            };
            let means: Vec<_> =
                algorithm.state_names().filter(|slot| means.contains(slot)).collect();
            if means.is_empty() {
                continue;
            }
            let mut run = small_run::<E>(algorithm, isa, &betas);
            run.step(&[Some(&gradient(0))]).unwrap();
            let zeros = vec![E::from_f64(0.0); LEN];
            for step in 0..steps {
                run.step(&[Some(&zeros)]).unwrap();
                for slot in &means {
                    let mut largest = 0.0f64;
                    for x in run.state(0, slot) {
                        let size = x.to_f64().abs();
                        let normal = size == 0.0 || size >= smallest_normal;
                        assert!(normal, "{algorithm} {isa} step {step}: {slot} holds {size:e}");
                        largest = largest.max(size);
                    }
                    assert!(step > 10 || largest > 0.0, "MISTRUSTED: {slot} was never there");
                    let what = format_args!("{algorithm} {isa}: {slot} stopped at {largest:e}");
                    assert!(step + 1 < steps || largest <= stop, "{what}");
                }
            }
            assert!(run.parameter(0).iter().all(|x| x.is_finite()), "{algorithm} {isa}");
        }
    });
}

/// A gradient whose square is infinite in f32 is survived: `v` stops at the largest finite number.
/// Those not here keep infinity, as their references do, but for AdaGrad, whose `s` never forgets such
/// a gradient: its `d` stays from then on.
#[test]
fn one_huge_gradient_does_not_poison() {
    let sizes = [6e20f32, 1e25, 1e30];
    let kinds = [State::Full, State::Bf16, State::Q8].map(|state| sizes.map(|size| (state, size)));
    each_isa(|isa| {
        for algorithm in [Algorithm::Adam, Algorithm::ExperimentalAdanIp] {
            for (state, size) in kinds.concat() {
                let options = [("beta2", 0.9), ("beta3", 0.9), ("state", state.into())];
                let mut run = small_run::<f32>(algorithm, isa, &options);
                let huge: Vec<f32> = gradient::<f32>(0).iter().map(|g| g.signum() * size).collect();
                run.step(&[Some(&gradient(0))]).unwrap();
                let d = run.optimizer.d();
                let report = run.step(&[Some(&huge)]).unwrap();
                let what = format!("{algorithm} {isa} {state:?} {size:e}");
                assert_eq!((report.movement, report.d), (Movement::NonFinite, d), "{what}");
                for step in 1..200 {
                    let report = run.step(&[Some(&gradient(step))]).unwrap();
                    // Adan meets it twice: as the previous gradient, too.
                    let again = step == 1 && algorithm == Algorithm::ExperimentalAdanIp;
                    assert!(again || report.numerator.is_finite(), "{what} {step}: {report:?}");
                    assert!(run.parameter(0).iter().all(|p| p.is_finite()), "{what}");
                    for slot in algorithm.state_names() {
                        let values = run.optimizer.state_values(run.ids[0], slot).unwrap();
                        assert!(values.iter().all(|v| v.is_finite()), "{what} {slot}");
                    }
                }
            }
        }
    });
}

/// Squares that underflow are stored as zeros of either sign's bits, never as subnormals.
#[test]
fn tiny_gradients_leave_no_subnormals() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            for size in [1e-18f32, 1e-19, 1e-20, 1e-30, 1e-38, 1e-44] {
                // SGD divides by their norm, and f32 cannot hold the quotient.
                if algorithm == Algorithm::Sgd && size < 1e-30 {
                    continue;
                }
                let mut run = small_run::<f32>(algorithm, isa, &[("momentum", 0.5)]);
                let what = format!("{algorithm} {isa} {size:e}");
                for step in 0..4 {
                    let g: Vec<f32> = gradient::<f32>(step).iter().map(|g| g * size).collect();
                    let report = run.step(&[Some(&g)]).unwrap();
                    assert!(report.d.is_finite(), "{what}");
                    // The gradient itself may be subnormal, and SGD's and AdaGrad's sums of it.
                    let kept = ["pre_grad", "sk", "x0"];
                    let sums = algorithm == Algorithm::Sgd;
                    for slot in algorithm.state_names().filter(|slot| !sums && !kept.contains(slot))
                    {
                        let found = run.state(0, slot).iter().find(|x| x.is_subnormal());
                        assert_eq!(found, None, "{what}: {slot}");
                    }
                }
                assert!(run.parameter(0).iter().all(|p| p.is_finite()), "{what}");
            }
        }
    });
}
