//! Stochastic rounding: that its mean is the number, and that its noise is new everywhere.
//!
//! Lion and Adam run with a d that is held, beside a run in f32 that is given their parameters and
//! state before each step: what that has computed is what they have rounded. (No gradient depends on
//! a parameter, and Lion's parameter moves by the state of before the step: the runs agree in all but
//! rounding.) All seeds are fixed. A number that lies the share `f` of the way up from a neighbour to
//! the next becomes the next with the probability `f`; what it then is off, divided by the root of
//! `f*(1-f)` of the way, has the mean 0 and the variance 1.
//!
//! The arrays of a group share noise: what one has for an element the next has for the element a row of 16 before,
//! and errs alike there. What is expected of all other correlations is the sum over groups to be within 5 of its
//! standard errors, as far as the sums of groups tell them.

use crate::isas::{each_isa, scaled};
use crate::kept::kept;
use crate::recurrences::formats::{BF16, F16, Grid};
use crate::run::{Random, Run, config, rounded};
use dadapt::{Algorithm, DType, Element, GroupId, Isa, Key, State, TensorStep, bf16, f16};

/// Elements that have their noise from one key, and those of a row.
const GROUP: usize = 256;
const ROW: usize = 16;
const LEN: usize = 9 * GROUP + 44;
const SEEDS: usize = 100;
const STEPS: usize = 2;
const SIGMAS: f64 = 5.0;
/// Numbers that are closer to a neighbour say little, and not by a normal distribution.
const NEAREST: f64 = 0.05;
const NAMES: [&str; 2] = ["left", "right"];

/// Of each element of an array: what it is off in standard deviations; 0 where that says little.
type Errors = Vec<f64>;

/// The errors of a step, by tensor, by array: the state in its order, and the parameter at last.
type StepErrors = Vec<Vec<Errors>>;

#[derive(Clone, Copy)]
struct Setting {
    algorithm: Algorithm,
    state: State,
    seed: usize,
    isa: Isa,
}

/// Both tensors start alike and get the same gradients.
fn start<P: Element>(setting: &Setting, names: [&str; 2]) -> Run<P> {
    let mut config = config(setting.algorithm, setting.isa);
    config.set(Key::State, setting.state).unwrap().set(Key::Master, 0.0).unwrap();
    config.set(Key::Seed, setting.seed as f64).unwrap();
    config.set(Key::D0, 1e-3).unwrap().set(Key::DCap, 1e-3).unwrap();
    let mut run = Run::new(&config);
    // To where numbers of f16 are equally spaced.
    let p = spread(&mut Random(5), 18);
    for name in names {
        run.ids.push(run.optimizer.add_tensor(GroupId::FIRST, name, P::DTYPE, LEN).unwrap());
        run.p.push(rounded(&p));
    }
    run
}

/// Numbers with sizes down to a power of a half.
fn spread(random: &mut Random, halvings: usize) -> Vec<f64> {
    let mut one = || random.between(-1.0, 1.0) * 0.5f64.powi(random.below(halvings) as i32);
    (0..LEN).map(|_| one()).collect()
}

fn gradient(step: usize) -> Vec<f32> {
    rounded(&spread(&mut Random(100 + step as u64), 18))
}

fn step<P: Element>(run: &mut Run<P>, g: &[f32]) {
    let Run { optimizer, ids, p } = run;
    let tensors = ids.iter().zip(p);
    let mut steps: Vec<_> = tensors.map(|(id, p)| TensorStep::new(*id, p, g)).collect();
    optimizer.step(&mut steps).unwrap();
}

/// The errors of a run, step by step.
fn errors<P: Element>(setting: &Setting) -> Vec<StepErrors> {
    let mut run = start::<P>(setting, NAMES);
    let mut exact = start::<f32>(&Setting { state: State::Full, ..*setting }, NAMES);
    let slots: Vec<_> = setting.algorithm.state_names().collect();
    let all: Vec<_> = (0..LEN).collect();
    let steps = (0..STEPS).map(|count| {
        for i in 0..NAMES.len() {
            exact.p[i] = rounded(&run.parameter(i));
            for slot in &slots {
                let values = run.optimizer.state_values(run.ids[i], slot).unwrap();
                let to = exact.optimizer.state_mut::<f32>(exact.ids[i], slot).unwrap();
                to.copy_from_slice(&rounded::<f32>(&values));
            }
        }
        let g = gradient(count);
        step(&mut run, &g);
        step(&mut exact, &g);
        let tensors = (0..NAMES.len()).map(|i| {
            let mut arrays: Vec<_> = slots
                .iter()
                .map(|slot| {
                    let found = kept(&mut run, i, slot, &all);
                    let exact = exact.optimizer.state_values(exact.ids[i], slot).unwrap();
                    deviations(&found.values, &exact, &found.grids)
                })
                .collect();
            let grid = match P::DTYPE {
                DType::Bf16 => Some(BF16),
                DType::F16 => Some(F16),
                _ => None,
            };
            let exact = exact.parameter(i);
            arrays.push(deviations(&run.parameter(i), &exact, &vec![grid; LEN]));
            arrays
        });
        tensors.collect()
    });
    steps.collect()
}

fn deviations(found: &[f64], exact: &[f64], grids: &[Option<Grid>]) -> Errors {
    let all = found.iter().zip(exact).zip(grids);
    all.map(|((found, x), grid)| {
        let Some(grid) = grid else { return 0.0 };
        let (down, up) = (grid.down(*x), grid.up(*x));
        assert!(found == &down || found == &up, "{found:e} is no neighbour of {x:e}");
        let share = (x - down) / (up - down);
        if !(NEAREST..=1.0 - NEAREST).contains(&share) {
            return 0.0;
        }
        (found - x) / ((share * (1.0 - share)).sqrt() * (up - down))
    })
    .collect()
}

/// Checks that independent terms have the mean 0, each of the variance 1.
fn check_mean(terms: impl Iterator<Item = f64>, least: usize, what: &str) {
    let (mut sum, mut count) = (0.0, 0);
    for term in terms.filter(|term| *term != 0.0) {
        (sum, count) = (sum + term, count + 1);
    }
    let sigmas = sum / f64::from(count.max(1)).sqrt();
    assert!(sigmas.abs() <= SIGMAS, "{what}: {sigmas:.1} sigmas off");
    assert!(count as usize >= least, "MISTRUSTED: {what}: of {count} numbers");
}

#[test]
fn rounded_means_are_the_numbers() {
    each_isa(|isa| {
        let seeds = scaled(SEEDS).max(20);
        for state in [State::Bf16, State::Q8] {
            for algorithm in [Algorithm::Lion, Algorithm::Adam] {
                let of = |seed| errors::<f32>(&Setting { algorithm, state, seed, isa });
                check_all(
                    &(0..seeds).map(of).collect::<Vec<_>>(),
                    &format!("{algorithm} {state:?}"),
                );
            }
        }
        let setting = |seed| Setting { algorithm: Algorithm::Lion, state: State::Full, seed, isa };
        let of = |seed| errors::<bf16>(&setting(seed));
        check_all(&(0..seeds).map(of).collect::<Vec<_>>(), "bf16 parameters");
        let of = |seed| errors::<f16>(&setting(seed));
        check_all(&(0..seeds).map(of).collect::<Vec<_>>(), "f16 parameters");
    });
}

/// Over all elements, those of the smallest numbers apart, and of each element.
fn check_all(runs: &[Vec<StepErrors>], what: &str) {
    let all = || runs.iter().flatten().flatten();
    let mut checked = 0;
    for array in 0..runs[0][0][0].len() {
        let of_array = || all().map(|arrays| &arrays[array]);
        if of_array().flatten().all(|error| *error == 0.0) {
            continue; // it is not rounded
        }
        checked += 1;
        let what = format!("{what}, array {array}");
        check_mean(of_array().flatten().copied(), 1000 * runs.len(), &what);
        // Of a first step only: numbers are those of the first gradient in all runs.
        for element in 0..LEN {
            let errors = runs.iter().map(|run| run[0].iter().map(|arrays| arrays[array][element]));
            check_mean(errors.flatten(), 0, &format!("{what}, element {element}"));
        }
        let (mut small, g) = (spread(&mut Random(5), 18), gradient(0));
        if what.contains("Q8") {
            small = g.iter().map(|g| f64::from(*g)).collect();
        }
        // Below 2^-14 f16 has no normal numbers, and those of 8 bits with a sign beside a number near 1 are nearly
        // equally spaced.
        let low = |(i, _): &(usize, &f64)| small[*i].abs() < 0.5f64.powi(14);
        let first = runs.iter().flat_map(|run| &run[0]).map(|arrays| &arrays[array]);
        let low = first.flat_map(|errors| errors.iter().enumerate().filter(low));
        check_mean(low.map(|(_, error)| *error), 100, &format!("{what}, small numbers"));
    }
    assert!(checked > 0, "MISTRUSTED: {what}: nothing was rounded");
}

/// Pairs of errors that noise might have in common.
#[test]
fn noise_is_new_in_every_element_array_tensor_and_step() {
    for state in [State::Bf16, State::Q8] {
        let algorithm = Algorithm::Lion;
        let of = |seed| errors::<bf16>(&Setting { algorithm, state, seed, isa: Isa::Scalar });
        let runs: Vec<_> = (0..scaled(SEEDS).max(40)).map(of).collect();
        let check = |what: &str, pair: &dyn Fn(usize) -> (Errors, Errors, usize)| {
            check_uncorrelated(&format!("{state:?}, {what}"), runs.len(), pair);
        };
        let at = |seed: usize, step: usize, tensor: usize, array: usize| -> Errors {
            runs[seed][step][tensor][array].clone()
        };
        for array in 0..3 {
            for lag in [1, 2, 16, GROUP / 2, GROUP, 4 * GROUP] {
                check(&format!("array {array} lag {lag}"), &|seed| {
                    (at(seed, 1, 0, array), at(seed, 1, 0, array), lag)
                });
            }
            for other in (0..3).filter(|other| *other != array) {
                check(&format!("arrays {array} and {other}"), &|seed| {
                    (at(seed, 1, 0, array), at(seed, 1, 0, other), 0)
                });
                for rows in [1, 2, 3, 8].into_iter().filter(|rows| other + rows != array) {
                    check(&format!("arrays {array} and {other}, {rows} rows apart"), &|seed| {
                        (at(seed, 1, 0, array), at(seed, 1, 0, other), rows * ROW)
                    });
                }
            }
            check(&format!("array {array}, steps"), &|seed| {
                (at(seed, 0, 0, array), at(seed, 1, 0, array), 0)
            });
            check(&format!("array {array}, tensors"), &|seed| {
                (at(seed, 1, 0, array), at(seed, 1, 1, array), 0)
            });
            check(&format!("array {array}, seeds"), &|seed| {
                (at(seed, 1, 0, array), at((seed + 1) % runs.len(), 1, 0, array), 0)
            });
            check(&format!("array {array}, next step of next seed"), &|seed| {
                (at(seed, 1, 0, array), at((seed + 1) % runs.len(), 0, 0, array), 0)
            });
        }
    }
}

fn check_uncorrelated(what: &str, seeds: usize, pair: &dyn Fn(usize) -> (Errors, Errors, usize)) {
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0);
    for seed in 0..seeds {
        let (left, right, lag) = pair(seed);
        for (left, right) in left.chunks(GROUP).zip(right[lag..].chunks(GROUP)) {
            let terms = left.iter().zip(right).map(|(a, b)| a * b);
            count += terms.clone().filter(|term| *term != 0.0).count();
            let of_group: f64 = terms.sum();
            (sum, squares) = (sum + of_group, squares + of_group * of_group);
        }
    }
    assert!(count > 1000, "MISTRUSTED: {what}: {count} pairs");
    let sigmas = sum / squares.sqrt();
    assert!(sigmas.abs() <= SIGMAS, "{what}: {sigmas:.1} sigmas");
}

#[test]
fn noise_depends_on_seed_and_name_alone() {
    let played = |seed, isa, names: [&str; 2]| {
        let setting = Setting { algorithm: Algorithm::Lion, state: State::Q8, seed, isa };
        let mut run = start::<bf16>(&setting, names);
        (0..STEPS).for_each(|count| step(&mut run, &gradient(count)));
        let of = |name: &str| -> Vec<f64> {
            let i = names.iter().position(|n| *n == name).expect("registered");
            let id = run.optimizer.tensor(name).unwrap();
            let slots = setting.algorithm.state_names();
            let state = slots.flat_map(|slot| run.optimizer.state_values(id, slot).unwrap());
            state.chain(run.parameter(i)).collect()
        };
        names.map(of)
    };
    let [left, right] = played(1, Isa::Scalar, NAMES);
    assert!(left != right, "two names");
    let [other, _] = played(2, Isa::Scalar, NAMES);
    assert!(left != other, "two seeds");
    let [other, again] = played(1, Isa::Scalar, ["other", "right"]);
    assert!(left != other && right == again, "a name does not change the other's noise");
    each_isa(|isa| {
        assert!(played(1, isa, NAMES) == [left.clone(), right.clone()], "{isa}");
        let turned = played(1, isa, ["right", "left"]);
        assert!(turned == [right.clone(), left.clone()], "{isa}: order");
    });
}
