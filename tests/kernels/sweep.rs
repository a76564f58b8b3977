//! Every length around the widths that matter, at every offset, between guards.
//!
//! State is the caller's here, so that its guards are checked too. Parameters and gradients have
//! one sign an element, so nothing cancels and every value can be held to a bound of its own.
//!
//! Bounds, with `u` half an ulp of 1, after at most [`STEPS`] steps, from counting roundings:
//! - p: a step rounds it at most five times (SGD: two coefficients that do not add up to 1, one
//!   product, two fused operations);
//! - its moves and the other state: a value is made by at most 20 roundings of numbers of one sign,
//!   and has `d`'s error besides. `d` grows at most twice, by a ratio of two sums, and a sum of
//!   numbers of one sign takes at most 32 roundings where it runs in the element type.
//!
//! Hence `5*u` a step of |p|, `(20 + 2*2*32)*u` of a move or a state, and `2*32*u` of d for the
//! growth that ends a run of steps. Measured: a sixth of that.

use crate::isas::{each_isa, scaled};
use crate::recurrences::{self, Oracle, Tensor};
use crate::run::{bits, config, unit_roundoff};
use std::hash::{DefaultHasher, Hash, Hasher};

use dadapt::{Algorithm, Element, GroupId, Isa, Key, Optimizer, TensorStep};

const STEPS: usize = 3;
const P_ROUNDINGS: f64 = 5.0;
const MOVE_ROUNDINGS: f64 = 148.0;
const D_ROUNDINGS: f64 = 64.0;
/// Of the widest register, in f32.
const MAX_LANES: usize = 16;
/// Elements on either side of an array that nobody may touch.
const GUARD: usize = 2 * MAX_LANES;

/// Options that choose one compiled kernel each.
const KINDS: [(&str, &[(&str, f64)]); 3] = [
    ("no decay", &[]),
    ("coupled", &[("weight_decay", 0.125)]),
    ("decoupled", &[("weight_decay", 0.125), ("decouple", 1.0)]),
];

#[test]
fn f32_every_length_and_offset() {
    check_all::<f32>();
}

#[test]
fn f64_every_length_and_offset() {
    check_all::<f64>();
}

fn check_all<E: Element>() {
    // By place and kind, of the scalar instruction set, which comes first.
    let mut scalar: Vec<u64> = Vec::new();
    each_isa(|isa| {
        let mut digests = Vec::new();
        for case in Case::all::<E>() {
            let mut worst: f64 = 0.0;
            for (len, offset) in places() {
                let (found, share) = case.check::<E>(isa, len, offset);
                worst = worst.max(share);
                let place = digests.len();
                digests.push(digest(&found));
                let same = scalar.get(place).is_none_or(|scalar| *scalar == digests[place]);
                assert!(same, "{} {isa} length {len} offset {offset}: other bits", case.name);
            }
            println!("{:22} {isa:8} {worst:.3} of its bounds", case.name);
        }
        if isa == Isa::Scalar {
            scalar = digests;
        }
    });
    assert!(!scalar.is_empty(), "MISTRUSTED: nothing to compare with");
}

/// Lengths with offsets: every short one, and those around runs of rows and around blocks of 4096.
fn places() -> impl Iterator<Item = (usize, usize)> {
    let short = (0..=2 * MAX_LANES + 3).map(|len| (len, 1));
    let run = [255, 256, 257, 495, 496, 497, 511, 512, 513, 527, 528, 529, 1023, 1024, 1025]
        .map(|len| (len, 1));
    // Where an emulator makes long ones dear, four offsets have to do.
    let stride = (MAX_LANES / scaled(MAX_LANES)).min(5);
    let block = [4080, 4095, 4096, 4097, 4111, 4113, 4352, 8191, 8192, 8193, 8208, 8209];
    let all = short.chain(run).chain(block.map(|len| (len, stride)));
    all.flat_map(|(len, stride)| (0..MAX_LANES).step_by(stride).map(move |offset| (len, offset)))
}

struct Case {
    algorithm: Algorithm,
    options: &'static [(&'static str, f64)],
    name: String,
}

impl Case {
    fn all<E: Element>() -> Vec<Case> {
        let mut all = Vec::new();
        for &algorithm in Algorithm::ALL {
            let has = |name: &str| algorithm.options().iter().any(|(key, _)| key.name() == name);
            let kinds = KINDS.iter().filter(|(_, options)| options.iter().all(|(n, _)| has(n)));
            all.extend(kinds.map(|(kind, options)| {
                let name = format!("{algorithm} {} {kind}", E::DTYPE);
                Case { algorithm, options, name }
            }));
        }
        all
    }

    /// The bits of p and state after the steps, of d and its sums in each, and the largest share of a bound.
    fn check<E: Element>(&self, isa: Isa, len: usize, offset: usize) -> (Vec<u64>, f64) {
        let (mut optimizer, mut oracle) = self.subjects(isa);
        let tensor =
            optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "t", E::DTYPE, len).unwrap();
        let start: Vec<f64> = (0..len).map(|i| sign(i) * (1.0 + fraction(i, 0))).collect();
        oracle.add(0, start.clone());
        // A read beyond the gradient makes sums NaN, a write beyond anything else changes a guard.
        let mut p = Guarded::<E>::new(offset, &start, 1234.5);
        let mut g = Guarded::<E>::new(offset * 3 + 1, &start, f64::NAN);
        let slots: Vec<_> = self.algorithm.state_names().collect();
        let mut state: Vec<_> = (0..slots.len())
            .map(|slot| Guarded::<E>::new(offset * 5 + slot * 7, &vec![0.0; len], 0.25))
            .collect();
        let mut travelled = vec![0.0; len];
        let mut found = Vec::new();
        let what = format!("{} {isa} length {len} offset {offset}", self.name);

        for step in 0..STEPS {
            let gradient: Vec<f64> =
                (0..len).map(|i| sign(i) * (0.5 + fraction(i, step))).collect();
            g.fill(&gradient);
            let before = raw(&g.all);
            let was = oracle.tensors[0].p.clone();
            let given = TensorStep::new(tensor, p.slice(), g.shared());
            let given = match state.as_mut_slice() {
                [a, b] => given.with_state([a.slice(), b.slice()]),
                [a, b, c] => given.with_state([a.slice(), b.slice(), c.slice()]),
                _ => panic!("teach this test another number of state slots"),
            };
            let report = optimizer.step(&mut [given]).unwrap();
            found.extend([report.d, report.numerator, report.denominator].map(f64::to_bits));
            oracle.step(&[Some(&gradient)]);
            assert_eq!(raw(&g.all), before, "{what}: the gradient was written");
            for (i, was) in was.iter().enumerate() {
                travelled[i] += (oracle.tensors[0].p[i] - was).abs();
            }
        }

        p.assert_guards_intact(&what);
        g.assert_guards_intact(&what);
        state.iter().for_each(|slot| slot.assert_guards_intact(&what));
        let u = unit_roundoff(E::DTYPE);
        let mut worst: f64 = 0.0;
        let mut compare =
            |found: &[E], expected: &[f64], bound: &dyn Fn(usize) -> f64, name: &str| {
                for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                    let share = (found.to_f64() - expected).abs() / bound(i);
                    assert!(share <= 1.0, "{what}: {name}[{i}] takes {share} of its bound");
                    worst = worst.max(share);
                }
            };
        let expected = &oracle.tensors[0];
        let p_bound = |i: usize| {
            u * (P_ROUNDINGS * STEPS as f64 * start[i].abs() + MOVE_ROUNDINGS * travelled[i])
        };
        compare(p.shared(), &expected.p, &p_bound, "p");
        for (slot, name) in state.iter().zip(&slots) {
            let expected = slot_of(expected, name);
            compare(slot.shared(), expected, &|i| u * MOVE_ROUNDINGS * expected[i].abs(), name);
        }
        if len > 0 {
            let ratio = optimizer.d() / oracle.d;
            compare(&[E::from_f64(1.0)], &[ratio], &|_| u * D_ROUNDINGS, "d");
            assert!(optimizer.d() > 1.2 * D0, "MISTRUSTED: {what}: d did not grow");
            let moved = p.shared().iter().zip(&start).filter(|(now, then)| now.to_f64() != **then);
            assert_eq!(moved.count(), len, "MISTRUSTED: {what}: not all moved");
        }

        found.extend(bits(p.shared()));
        state.iter().for_each(|slot| found.extend(bits(slot.shared())));
        (found, worst)
    }

    fn subjects(&self, isa: Isa) -> (Optimizer, Oracle) {
        let mut config = config(self.algorithm, isa);
        let mut oracle = Oracle::new(recurrences::Algorithm::named(self.algorithm.name()), 1);
        for (option, value) in self.options.iter().chain(&[("d0", D0), ("layer_scale", 0.75)]) {
            config.set(Key::from_name(option).unwrap(), *value).unwrap();
            oracle.set(None, option, *value);
        }
        if self.algorithm == Algorithm::Sgd {
            config.set(Key::Momentum, 0.25).unwrap();
            oracle.set(None, "momentum", 0.25);
        }
        (Optimizer::new(&config).unwrap(), oracle)
    }
}

const D0: f64 = 1e-2;

fn slot_of<'a>(tensor: &'a Tensor, name: &str) -> &'a [f64] {
    match name {
        "exp_avg" => &tensor.m,
        "exp_avg_sq" => &tensor.v,
        "s" => &tensor.s,
        "x0" => &tensor.x0,
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

/// Every bit, those of NaNs too.
fn raw<E: Element>(values: &[E]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

fn digest(bits: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bits.hash(&mut hasher);
    hasher.finish()
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
