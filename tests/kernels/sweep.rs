//! Every length around the widths that matter, at every offset, between guards.
//!
//! State is the caller's here, so that its guards are checked too, and garbage before the first
//! step. Each element's parameter and gradients have one sign and gradients grow, so nothing cancels
//! in an element, and every value can be held to a bound of its own.
//!
//! Bounds, with `u` half an ulp of 1, from counting roundings:
//! - p: a step rounds it at most five times (SGD: two coefficients that do not add up to 1, one
//!   product, two fused operations);
//! - its moves and the other state: a value is made by at most 20 roundings of numbers of one sign,
//!   and has `d`'s error besides;
//! - d: each growth is by a ratio of two sums, and a sum of numbers of one sign takes at most 32
//!   roundings where it runs in the element type.
//!
//! Hence `5*u` a step of |p|, `(20 + D)*u` of a move or a state, and `D*u` of d, where `D` is 2*32 a
//! growth, and 0 where nothing is estimated. Three things add to `D`:
//! - An estimate that is a difference (adagrad, adan, adam_preprint) has the error of its two terms,
//!   relative to what is left of them: the oracle's `cancellation` is that factor.
//! - AdaGrad's terms are totals of what each step adds and takes away again, so each step's sums round
//!   as much as twice the whole total: another `2 * steps`.
//! - Prodigy's numerator is of `p0 - p`, which has all of p's roundings until then: `5` a step times
//!   the largest |p| / |p0 - p|.
//!
//! One case of a length, the scalar one, is held to the bounds; all other instruction sets and offsets
//! have to have its bits. Measured: a third of the bounds at most.

use crate::isas::{each_isa, scaled};
use crate::recurrences::{self, Oracle, Tensor};
use crate::run::{adapts, bits, config, has, reference_name, unit_roundoff};

use dadapt::{Algorithm, Element, GroupId, Isa, Key, Optimizer, Sweeps, TensorStep};

const P_ROUNDINGS: f64 = 5.0;
const MOVE_ROUNDINGS: f64 = 20.0;
const D_ROUNDINGS: f64 = 64.0;
/// Of the widest register, in f32.
const MAX_LANES: usize = 16;
/// Elements on either side of an array that nobody may touch.
const GUARD: usize = 2 * MAX_LANES;
const D0: f64 = 1e-2;
const BLOCK: usize = 4096;

type Options = Vec<(&'static str, f64)>;

#[test]
fn f32_every_length_and_offset() {
    check_all::<f32>();
}

#[test]
fn f64_every_length_and_offset() {
    check_all::<f64>();
}

fn check_all<E: Element>() {
    let mut isas = Vec::new();
    each_isa(|isa| isas.push(isa));
    for &algorithm in Algorithm::ALL {
        let kinds = Kind::all(algorithm);
        for (i, kind) in kinds.iter().enumerate() {
            let worst = places(i == 0)
                .map(|(len, offsets)| kind.check::<E>(&isas, len, &offsets))
                .fold(0.0, f64::max);
            println!("{:50} {} {worst:.3} of its bounds", kind.name, E::DTYPE);
        }
    }
}

/// Lengths with offsets: every short one, and those around runs of rows and around blocks of 4096.
/// Of the kinds that share their kernel's frame with an algorithm's first, a part of them.
fn places(all: bool) -> impl Iterator<Item = (usize, Vec<usize>)> {
    let block = [4080, 4095, BLOCK, 4097, 4111, 4113, 4352, 8191, 8192, 8193, 8208, 8209];
    let run = [255, 256, 257, 495, 496, 497, 511, 512, 513, 527, 528, 529, 1023, 1024, 1025];
    let some = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 193, 257, 513, 4095, 4097, 8209];
    let lens: Vec<usize> = match all {
        true => (0..=2 * MAX_LANES + 3).chain(run).chain(block).collect(),
        false => some.to_vec(),
    };
    // Where an emulator makes long ones dear, two odd offsets have to do, or one length at one.
    let dear = scaled(MAX_LANES) == 1;
    let lens = lens.into_iter().filter(move |len| all || !dear || *len <= BLOCK + 1);
    lens.map(move |len| {
        let offsets = 0..MAX_LANES;
        let offsets = match (len >= block[0], all) {
            (true, true) if dear => vec![3, 8],
            (true, false) if dear => vec![3],
            (_, true) => offsets.collect(),
            (_, false) => offsets.step_by(7).collect(),
        };
        (len, offsets)
    })
}

/// Options that choose kernels of their own.
struct Kind {
    algorithm: Algorithm,
    name: String,
    options: Options,
    slice: usize,
    freezes: bool,
}

impl Kind {
    /// Of an algorithm, the plainest first.
    fn all(algorithm: Algorithm) -> Vec<Kind> {
        let has = |key| has(algorithm, key);
        let decays: &[(&str, &[(&str, f64)])] = if has(Key::Decouple) {
            &[
                ("no decay", &[("weight_decay", 0.0)]),
                ("coupled", &[("weight_decay", 0.125), ("decouple", 0.0)]),
                ("decoupled", &[("weight_decay", 0.125), ("decouple", 1.0)]),
            ]
        } else if has(Key::NoProx) {
            &[
                ("no decay", &[("weight_decay", 0.0)]),
                ("prox", &[("weight_decay", 0.125)]),
                ("no_prox", &[("weight_decay", 0.125), ("no_prox", 1.0)]),
            ]
        } else {
            &[("no decay", &[("weight_decay", 0.0)]), ("decay", &[("weight_decay", 0.125)])]
        };
        let moments: &[(&str, &[(&str, f64)])] = match algorithm {
            Algorithm::Prodigy => &[
                ("", &[("eps", 0.0625), ("d_coef", 4.0)]),
                (" beta1 0", &[("eps", 0.0625), ("d_coef", 0.5), ("beta1", 0.0)]),
            ],
            Algorithm::PlainSgd => {
                &[("", &[("momentum", 0.25), ("dampening", 0.125)]), (" no momentum", &[])]
            }
            Algorithm::Sgd | Algorithm::AdaGrad => &[("", &[("momentum", 0.25)])],
            _ => &[("", &[])],
        };
        let slices: &[(&str, usize)] = match has(Key::SliceP) {
            true => &[("", 1), (" slice_p 3", 3), (" slice_p 64", 64)],
            false => &[("", 1)],
        };
        let freezes: &[(&str, bool)] = match adapts(algorithm) {
            true => &[("", false), (" frozen", true)],
            false => &[("", false)],
        };
        let mut all = Vec::new();
        for (moment, first) in moments {
            for (slice_name, slice) in slices {
                for (frozen, freezes) in freezes {
                    for (i, (decay, second)) in decays.iter().enumerate() {
                        // No kernel knows of the slice: it matters whether there is one.
                        if *slice > 1 && (*freezes || *slice > 3 && i > 0) {
                            continue;
                        }
                        let mut options = [*first, *second].concat();
                        if has(Key::SliceP) {
                            options.push(("slice_p", *slice as f64));
                        }
                        let rate = if has(Key::D0) { ("d0", D0) } else { ("lr", 0.0625) };
                        options.extend([rate, ("layer_scale", 0.75)]);
                        all.push(Kind {
                            algorithm,
                            name: format!("{algorithm} {decay}{moment}{slice_name}{frozen}"),
                            options,
                            slice: *slice,
                            freezes: *freezes,
                        });
                    }
                }
            }
        }
        all
    }

    /// Until d has grown, and Prodigy has taken each kind of sweep.
    fn steps(&self) -> usize {
        match self.algorithm {
            Algorithm::AdaGrad => 6,
            Algorithm::Prodigy => 5,
            Algorithm::Lion => 4,
            _ => 3,
        }
    }

    /// Odd lengths freeze after their first step, even ones before it.
    fn freezes_before(&self, step: usize, len: usize) -> bool {
        self.freezes && step == len % 2
    }

    /// What Prodigy's d may not grow beyond, so that it stays in two steps and the sweeps differ.
    fn cap(&self, step: usize, d: f64) -> Option<f64> {
        match (self.algorithm, step) {
            (Algorithm::Prodigy, 2 | 3) => Some(d),
            (Algorithm::Prodigy, 4) => Some(f64::INFINITY),
            _ => None,
        }
    }

    /// The largest share of a bound.
    fn check<E: Element>(&self, isas: &[Isa], len: usize, offsets: &[usize]) -> f64 {
        let expected = Expected::new(self, len);
        let mut first: Option<Vec<u64>> = None;
        let mut worst = 0.0;
        for isa in isas {
            for offset in offsets {
                let what = format!("{} {} {isa} length {len} offset {offset}", self.name, E::DTYPE);
                let outcome = self.run::<E>(*isa, len, *offset, &expected, &what);
                match &first {
                    Some(first) => assert!(outcome.bits == *first, "{what}: other bits"),
                    None => {
                        worst = expected.check(self, &outcome, &what);
                        first = Some(outcome.bits);
                    }
                }
            }
        }
        worst
    }

    fn run<E: Element>(
        &self,
        isa: Isa,
        len: usize,
        offset: usize,
        expected: &Expected,
        what: &str,
    ) -> Outcome<E> {
        let mut config = config(self.algorithm, isa);
        for (option, value) in &self.options {
            config.set(Key::from_name(option).unwrap(), *value).unwrap();
        }
        let mut optimizer = Optimizer::new(&config).unwrap();
        let tensor =
            optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "t", E::DTYPE, len).unwrap();
        // A read beyond the gradient makes sums NaN, a write beyond anything else changes a guard.
        let mut p = Guarded::<E>::new(offset, &expected.start, 1234.5);
        let mut g = Guarded::<E>::new(offset * 3 + 1, &expected.start, f64::NAN);
        let names: Vec<_> = self.algorithm.state_names().collect();
        let lens = |optimizer: &Optimizer| -> Vec<usize> {
            names.iter().map(|name| optimizer.state_len(tensor, name).unwrap()).collect()
        };
        let mut state: Vec<_> = lens(&optimizer)
            .into_iter()
            .enumerate()
            .map(|(i, len)| Guarded::<E>::new(offset * 5 + i * 7, &vec![f64::NAN; len], 0.25))
            .collect();
        let mut bits_of_steps = Vec::new();
        let mut sweeps = Vec::new();
        let mut dropped = vec![None; state.len()];
        for (step, gradient) in expected.gradients.iter().enumerate() {
            if self.freezes_before(step, len) {
                optimizer.freeze().unwrap();
            }
            if let Some(cap) = self.cap(step, optimizer.d()) {
                optimizer.set(Key::DCap, cap).unwrap();
            }
            g.fill(gradient);
            let before = raw(&g.all);
            let lens = lens(&optimizer);
            for (i, slot) in state.iter().enumerate() {
                if lens[i] < slot.len && dropped[i].is_none() {
                    dropped[i] = Some(raw(&slot.all));
                }
            }
            let arrays = state.iter_mut().zip(lens).map(|(slot, len)| &mut slot.slice()[..len]);
            let given = TensorStep::new(tensor, p.slice(), g.shared());
            let report = optimizer.step(&mut [with_state(given, arrays.collect())]).unwrap();
            bits_of_steps
                .extend([report.d, report.numerator, report.denominator].map(f64::to_bits));
            sweeps.push(report.sweeps);
            assert_eq!(raw(&g.all), before, "{what}: the gradient was written");
        }
        p.assert_guards_intact(what);
        g.assert_guards_intact(what);
        for (slot, dropped) in state.iter().zip(&dropped) {
            slot.assert_guards_intact(what);
            let untouched = dropped.as_ref().is_none_or(|before| *before == raw(&slot.all));
            assert!(untouched, "{what}: wrote a slot that has gone");
        }
        if self.algorithm == Algorithm::Prodigy && !self.freezes && len > 0 {
            let with_moment = [Sweeps::Two, Sweeps::Two, Sweeps::Two, Sweeps::One, Sweeps::Mended];
            let keeps = state[0].len > 0;
            let expected = if keeps { with_moment } else { [Sweeps::Two; 5] };
            assert_eq!(sweeps, expected, "MISTRUSTED: {what}");
        }
        let mut bits = [bits_of_steps, bits(p.shared())].concat();
        state.iter().for_each(|slot| bits.extend(crate::run::bits(slot.shared())));
        let gone = dropped.iter().map(Option::is_some).collect();
        Outcome { p, state, gone, d: optimizer.d(), bits }
    }
}

/// What a run of the optimizer left.
struct Outcome<E> {
    p: Guarded<E>,
    state: Vec<Guarded<E>>,
    /// By slot: whether it had no memory at last, and holds anything.
    gone: Vec<bool>,
    d: f64,
    /// Of p and state after the steps, of d and its sums in each.
    bits: Vec<u64>,
}

/// What the oracle says of a kind and length, and how far off it one may be.
struct Expected {
    start: Vec<f64>,
    gradients: Vec<Vec<f64>>,
    tensor: Tensor,
    d: f64,
    travelled: Vec<f64>,
    /// `D` of the module's comment.
    d_roundings: f64,
}

impl Expected {
    fn new(kind: &Kind, len: usize) -> Self {
        let recurrence = recurrences::Algorithm::named(reference_name(kind.algorithm));
        let mut oracle = Oracle::new(recurrence, 1);
        kind.options.iter().for_each(|(option, value)| oracle.set(None, option, *value));
        let start: Vec<f64> = (0..len).map(|i| sign(i) * (1.0 + fraction(i, 0))).collect();
        oracle.add(0, start.clone());
        let gradients: Vec<Vec<f64>> = (0..kind.steps())
            .map(|step| (0..len).map(|i| sign(i) * size(i, step)).collect())
            .collect();
        let mut travelled = vec![0.0; len];
        let (mut growths, mut of_p) = (0.0, 0.0);
        for (step, gradient) in gradients.iter().enumerate() {
            if kind.freezes_before(step, len) {
                oracle.set(None, "freeze", 1.0);
            }
            if let Some(cap) = kind.cap(step, oracle.d) {
                oracle.set(None, "d_cap", cap);
            }
            let (was, d) = (oracle.tensors[0].p.clone(), oracle.d);
            oracle.step(&[Some(gradient)]);
            let tensor = &oracle.tensors[0];
            if oracle.d > d {
                growths += 1.0;
                if kind.algorithm == Algorithm::Prodigy {
                    let places = was.iter().zip(&tensor.x0);
                    let most = places.map(|(p, x0)| p.abs() / (x0 - p).abs()).fold(0.0, f64::max);
                    of_p += P_ROUNDINGS * step as f64 * most;
                }
            }
            for (i, was) in was.iter().enumerate() {
                travelled[i] += (tensor.p[i] - was).abs();
            }
        }
        let totals = match kind.algorithm {
            Algorithm::AdaGrad => 2.0 * kind.steps() as f64,
            _ => 1.0,
        };
        let d_roundings = growths * D_ROUNDINGS * oracle.cancellation * totals + of_p;
        let tensor = oracle.tensors.remove(0);
        Expected { start, gradients, tensor, d: oracle.d, travelled, d_roundings }
    }

    /// The largest share of a bound.
    fn check<E: Element>(&self, kind: &Kind, outcome: &Outcome<E>, what: &str) -> f64 {
        let u = unit_roundoff(E::DTYPE);
        let mut worst: f64 = 0.0;
        let mut compare = |found: f64, expected: f64, bound: f64, place: &dyn Fn() -> String| {
            let error = (found - expected).abs();
            let share = if error == 0.0 { 0.0 } else { error / bound };
            assert!(share <= 1.0, "{what}: {} takes {share} of its bound", place());
            worst = worst.max(share);
        };
        let (of_p, of_moves) =
            (P_ROUNDINGS * kind.steps() as f64, MOVE_ROUNDINGS + self.d_roundings);
        for (i, found) in outcome.p.shared().iter().enumerate() {
            let bound = u * (of_p * self.start[i].abs() + of_moves * self.travelled[i]);
            compare(found.to_f64(), self.tensor.p[i], bound, &|| format!("p[{i}]"));
        }
        for (slot, name) in kind.algorithm.state_names().enumerate() {
            if outcome.gone[slot] {
                continue;
            }
            let found = outcome.state[slot].shared();
            let all = slot_of(&self.tensor, name);
            let stride = if found.len() < all.len() { kind.slice } else { 1 };
            let none = found.is_empty() && ["exp_avg", "momentum_buffer"].contains(&name);
            assert!(none || found.len() == all.len().div_ceil(stride), "{what}: length of {name}");
            for (i, (found, expected)) in found.iter().zip(all.iter().step_by(stride)).enumerate() {
                let bound = u * of_moves * expected.abs();
                compare(found.to_f64(), *expected, bound, &|| format!("{name}[{i}]"));
            }
        }
        compare(outcome.d / self.d, 1.0, u * self.d_roundings, &|| "d".into());
        if !self.start.is_empty() {
            let fixed = kind.freezes || !adapts(kind.algorithm);
            assert!(fixed || self.d > 1.2 * D0, "MISTRUSTED: {what}: d did not grow");
            let places = outcome.p.shared().iter().zip(&self.start);
            let moved = places.filter(|(now, then)| now.to_f64() != **then).count();
            assert_eq!(moved, self.start.len(), "MISTRUSTED: {what}: not all moved");
        }
        worst
    }
}

fn with_state<'p, 'g, E: Element>(
    given: TensorStep<'p, 'g>,
    arrays: Vec<&'p mut [E]>,
) -> TensorStep<'p, 'g> {
    fn all<T, const N: usize>(items: Vec<T>) -> [T; N] {
        items.try_into().ok().expect("as many as were counted")
    }
    match arrays.len() {
        1 => given.with_state::<E, 1>(all(arrays)),
        2 => given.with_state::<E, 2>(all(arrays)),
        3 => given.with_state::<E, 3>(all(arrays)),
        4 => given.with_state::<E, 4>(all(arrays)),
        5 => given.with_state::<E, 5>(all(arrays)),
        _ => panic!("teach this test another number of state slots"),
    }
}

fn slot_of<'a>(tensor: &'a Tensor, name: &str) -> &'a [f64] {
    match name {
        "exp_avg" | "momentum_buffer" => &tensor.m,
        "exp_avg_sq" | "alphak" | "sum" => &tensor.v,
        "s" | "sk" => &tensor.s,
        "x0" | "p0" => &tensor.x0,
        "exp_avg_diff" => &tensor.e,
        "pre_grad" => &tensor.h,
        _ => panic!("teach this test the slot {name:?}"),
    }
}

fn sign(i: usize) -> f64 {
    if i % 3 == 1 { -1.0 } else { 1.0 }
}

/// Within [0, 1), exact in f32, different in every lane and step.
fn fraction(i: usize, step: usize) -> f64 {
    ((i * 37 + step * 101 + i * i % 89) % 256) as f64 / 256.0
}

/// Of a gradient: larger in every step, so that Adan's differences have its sign; exact in f32.
fn size(i: usize, step: usize) -> f64 {
    0.5 * (1.0 + step as f64 + fraction(i, step))
}

/// Every bit, those of NaNs too.
fn raw<E: Element>(values: &[E]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

/// An array inside a larger one whose other elements are guards.
struct Guarded<E> {
    all: Vec<E>,
    start: usize,
    len: usize,
    guard: u64,
}

impl<E: Element> Guarded<E> {
    fn new(offset: usize, values: &[f64], guard: f64) -> Self {
        let (start, len) = (GUARD + offset % (MAX_LANES + 1), values.len());
        let guard = E::from_f64(guard);
        let all = vec![guard; start + len + GUARD];
        let mut guarded = Guarded { all, start, len, guard: guard.to_f64().to_bits() };
        guarded.fill(values);
        guarded
    }

    fn fill(&mut self, values: &[f64]) {
        let to = self.slice().iter_mut();
        to.zip(values).for_each(|(to, from)| *to = E::from_f64(*from));
    }

    fn slice(&mut self) -> &mut [E] {
        &mut self.all[self.start..][..self.len]
    }

    fn shared(&self) -> &[E] {
        &self.all[self.start..][..self.len]
    }

    fn assert_guards_intact(&self, what: &str) {
        let (before, rest) = self.all.split_at(self.start);
        let mut guards = before.iter().chain(&rest[self.len..]);
        let intact = guards.all(|x| x.to_f64().to_bits() == self.guard);
        assert!(intact, "{what}: wrote beyond an array");
    }
}
