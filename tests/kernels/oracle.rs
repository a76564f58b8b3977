//! Random runs against the oracle: what the golden files do not combine.
//!
//! Each run draws groups with options of their own, tensors of several lengths, and events between
//! steps: options change, groups freeze and thaw, tensors and groups join, Adan restarts, and late in
//! some runs d is frozen.
//!
//! The bound is the law of `golden.rs`, widened by what the run itself does to errors: coupled decay
//! feeds the parameter back into a gradient that may nearly cancel, and normalisation by a fresh
//! second moment then magnifies what is left of it. Three more oracles show how much: each has its
//! parameters, state and totals moved by -1, 0 or +1 ulp of the type after every step, and the
//! furthest that any has strayed is added to the law's unit.
//!
//! Two things widen what d, and moves by it, may be off, since jitter may happen not to show them.
//! Where an estimate is the difference of two sums (adagrad, adan, adam_preprint), their roundings in
//! that very step count by the oracle's `cancellation`. Prodigy's d follows from `p0 - p`, and what a
//! move loses where it is added to a larger parameter has one sign in all elements: a sum of
//! `g*(p0 - p)` is off by a unit of the sum of `|g*p|`, and [`Lost`] says how much that is of it.

use crate::isas::{each_isa, scaled};
use crate::recurrences::{self, Oracle};
use crate::run::{
    Random, Run, adapts, config, distance, has, largest, reference_name, rounded, unit_roundoff,
};
use dadapt::{Algorithm, Element, Isa, Key, Movement, Scope};

const RUNS: usize = 150;
const STEPS: usize = 30;
const MULTIPLE: f64 = 4.0;
const JITTERED: usize = 3;
/// A run whose d leaves all bounds, as it does on gradients that never turn, ends there: the next
/// steps would leave f32's range.
const MOST_D: f64 = 1e3;

#[test]
fn random_f64_runs_agree_with_oracle() {
    check_all::<f64>();
}

#[test]
fn random_f32_runs_agree_with_oracle() {
    check_all::<f32>();
}

fn check_all<E: Element>() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let mut worst: (f64, f64) = (0.0, 0.0);
            let (mut grew, mut froze, runs) = (0, 0, scaled(RUNS).max(8));
            for seed in 0..runs as u64 {
                let outcome = Case::<E>::new(algorithm, isa, seed).play();
                worst = (worst.0.max(outcome.p), worst.1.max(outcome.d));
                grew += usize::from(outcome.grew);
                froze += usize::from(outcome.froze);
            }
            println!(
                "{algorithm} {} {isa}: {runs} runs, {grew} grew, {froze} froze, p {:.2} d {:.2} of the \
                 bound",
                E::DTYPE,
                worst.0,
                worst.1
            );
            // AdaGrad's and Lion's start to grow late.
            let trusted = grew * 10 >= runs * 3 || !adapts(algorithm);
            assert!(trusted, "MISTRUSTED: {algorithm}: d grew in {grew} of {runs} runs only");
            let trusted = froze * 10 >= runs || !adapts(algorithm) || runs < RUNS;
            assert!(trusted, "MISTRUSTED: {algorithm}: d froze in {froze} of {runs} runs only");
        }
    });
}

/// Of a run: the worst shares of their bounds, whether d grew, and whether it was frozen.
struct Outcome {
    p: f64,
    d: f64,
    grew: bool,
    froze: bool,
}

/// Of Prodigy's numerator: what roundings of p are relative to.
struct Lost {
    /// The numerator with `|g*p|` in the place of `g*(p0 - p)`.
    total: f64,
    /// How much of it the numerator was, at the least, where d followed from that; its inverse.
    most: f64,
}

/// A run beside its oracle.
struct Case<E> {
    name: String,
    random: Random,
    run: Run<E>,
    oracle: Oracle,
    jittered: [Oracle; JITTERED],
    /// One group that knows only what was set for all: what groups that join start with.
    template: Oracle,
    lr: f64,
    /// By tensor: the direction that its gradients keep, their size, and the sum of its moves.
    tensors: Vec<(Vec<f64>, f64, f64)>,
    /// The furthest that jittered oracles have strayed: in d, relatively, and in each tensor's p.
    strayed: (f64, Vec<f64>),
    lost: Lost,
}

impl<E: Element> Case<E> {
    fn new(algorithm: Algorithm, isa: Isa, seed: u64) -> Self {
        let recurrence = recurrences::Algorithm::named(reference_name(algorithm));
        let mut case = Case {
            name: format!("{algorithm} {} {isa} seed {seed}", E::DTYPE),
            random: Random(seed),
            run: Run::new(&config(algorithm, isa)),
            oracle: Oracle::new(recurrence, 1),
            jittered: [(); JITTERED].map(|()| Oracle::new(recurrence, 1)),
            template: Oracle::new(recurrence, 1),
            lr: 1.0,
            tensors: Vec::new(),
            strayed: (0.0, Vec::new()),
            lost: Lost { total: 0.0, most: 0.0 },
        };
        if algorithm == Algorithm::Prodigy {
            case.set(None, "d0", 1e-3);
        }
        case.set(None, "lr", case.lr); // plain ones have other defaults
        for _ in 0..4 {
            case.change_common();
        }
        for _ in 0..case.random.below(4) {
            case.add_group();
        }
        for group in 0..case.run.optimizer.groups() {
            for _ in 0..3 {
                case.change_group(group);
            }
        }
        for _ in 0..=1 + case.random.below(5) {
            case.add_tensor();
        }
        case
    }

    fn play(mut self) -> Outcome {
        let (mut worst_p, mut worst_d): (f64, f64) = (0.0, 0.0);
        for step in 0..STEPS {
            if step > 0 && self.random.chance(0.5) {
                self.event();
            }
            let (p, d) = self.step(step);
            worst_p = worst_p.max(p);
            worst_d = worst_d.max(d);
            if self.oracle.d > MOST_D {
                break;
            }
        }
        let grew = self.oracle.d > 1.5 * self.oracle.shared.d0;
        Outcome { p: worst_p, d: worst_d, grew, froze: self.oracle.frozen }
    }

    fn oracles(&mut self) -> impl Iterator<Item = &mut Oracle> {
        std::iter::once(&mut self.oracle).chain(&mut self.jittered)
    }

    /// A step of the jittered oracles.
    fn stray(&mut self, gradients: &[Option<&[f64]>]) {
        let ulp = 2.0 * unit_roundoff(E::DTYPE);
        for oracle in &mut self.jittered {
            let k = oracle.k;
            oracle.step(gradients);
            if oracle.k > k {
                let random = &mut self.random;
                let mut jitter = |x: &mut f64| *x *= 1.0 + ulp * random.pick(&[-1.0, 0.0, 1.0]);
                jitter(&mut oracle.numerator);
                jitter(&mut oracle.gsq);
                let groups = &oracle.groups;
                let given = oracle.tensors.iter_mut().zip(gradients).filter(|(_, g)| g.is_some());
                for (tensor, _) in given.filter(|(t, _)| groups[t.group].lr > 0.0) {
                    let recurrences::Tensor { p, m, v, s, e, .. } = tensor;
                    let arrays = [p, m, v, s, e];
                    arrays.into_iter().flatten().for_each(&mut jitter);
                }
            }
            let d = (oracle.d / self.oracle.d - 1.0).abs();
            self.strayed.0 = self.strayed.0.max(d);
            for (i, most) in self.strayed.1.iter_mut().enumerate() {
                *most = most.max(distance(&oracle.tensors[i].p, &self.oracle.tensors[i].p));
            }
        }
    }

    fn event(&mut self) {
        let group = self.random.below(self.run.optimizer.groups());
        match self.random.below(9) {
            7 => self.set_up_again(),
            8 if self.oracle.k > 20 => self.do_to_all("freeze"),
            0 => self.add_tensor(),
            1 => self.add_group(),
            2 => self.change_common(),
            3 | 4 => self.change_group(group),
            5 => self.set(Some(group), "lr", 0.0),
            _ => self.set(Some(group), "lr", self.lr),
        }
    }

    /// Adan's restart.
    fn set_up_again(&mut self) {
        let algorithm = self.run.optimizer.algorithm();
        if [Algorithm::Adan, Algorithm::ExperimentalAdanIp].contains(&algorithm) {
            self.do_to_all("restart");
        }
    }

    fn do_to_all(&mut self, what: &str) {
        if !adapts(self.run.optimizer.algorithm()) {
            return;
        }
        self.run.set(None, what, 1.0);
        self.oracles().for_each(|oracle| oracle.set(None, what, 1.0));
    }

    fn add_group(&mut self) {
        self.run.optimizer.add_group().unwrap();
        let group = self.template.groups[0].clone();
        self.oracles().for_each(|oracle| oracle.groups.push(group.clone()));
    }

    fn add_tensor(&mut self) {
        let group = self.random.below(self.run.optimizer.groups());
        let len = self.random.pick(&[0, 1, 3, 15, 16, 17, 40, 100, 257, 300]);
        let size = self.random.pick(&[0.0, 1.0, 30.0]);
        let p = self.random.values(len, size);
        self.run.add(group, rounded(&p));
        self.oracles().for_each(|oracle| oracle.add(group, p.clone()));
        self.strayed.1.push(0.0);
        let direction = self.random.values(len, 1.0);
        let size = 10f64.powf(self.random.between(-3.0, 1.0));
        self.tensors.push((direction, size, 0.0));
    }

    /// Sets one option of the optimizer or, for all groups, of groups.
    fn change_common(&mut self) {
        let (option, choices): (_, &[f64]) = self.random.pick(&[
            ("d0", &[1e-6, 1e-3, 1e-2]),
            ("beta1", &[0.0, 0.5, 0.9]),
            ("beta3", &[0.5, 0.9, 0.99]),
            ("d_coef", &[0.5, 1.0, 2.0]),
            ("d_cap", &[1e-2, 0.1, f64::INFINITY]),
            ("beta2", &[0.0, 0.9, 0.99, 0.999]),
            ("growth_rate", &[1.02, 1.5, f64::INFINITY]),
            ("use_bias_correction", &[0.0, 1.0]),
            ("lr", &[0.1, 0.5, 1.0, 1.5]),
            ("weight_decay", &[0.0, 0.01, 0.2]),
        ]);
        let value = self.random.pick(choices);
        // In f32, p0 - p is nothing but roundings while d0 is 1e-6.
        let prodigy = self.run.optimizer.algorithm() == Algorithm::Prodigy;
        if option == "d0" && (self.oracle.k > 0 || prodigy && value < 1e-3) {
            return;
        }
        if option == "lr" {
            self.lr = value;
        }
        self.set(None, option, value);
    }

    fn change_group(&mut self, group: usize) {
        let (option, choices): (_, &[f64]) = self.random.pick(&[
            ("weight_decay", &[0.0, 0.01, 0.3]),
            ("decouple", &[0.0, 1.0]),
            ("eps", &[1e-18, 1e-8, 1e-3, 1.0]),
            ("layer_scale", &[0.1, 0.3, 1.0, 3.0, 10.0]),
            ("momentum", &[0.0, 0.5, 0.9, 0.99]),
            ("dampening", &[0.0, 0.5, 1.0]),
            ("no_prox", &[0.0, 1.0]),
            ("safeguard_warmup", &[0.0, 1.0]),
            ("slice_p", &[1.0, 2.0, 3.0, 17.0]),
        ]);
        let value = self.random.pick(choices);
        self.set(Some(group), option, value);
    }

    /// Where the algorithm has the option.
    fn set(&mut self, group: Option<usize>, option: &str, value: f64) {
        let key = Key::from_name(option).unwrap();
        if !has(self.run.optimizer.algorithm(), key) {
            return;
        }
        assert!(group.is_none() || key.scope() == Scope::Group);
        // What decides the state is set before there is any.
        let decides = match (key, self.run.optimizer.algorithm()) {
            (Key::SliceP, _) | (Key::Beta1, Algorithm::Prodigy) => true,
            (Key::Momentum, algorithm) => algorithm == Algorithm::PlainSgd,
            _ => false,
        };
        if decides && !self.tensors.is_empty() {
            return;
        }
        self.run.set(group, option, value);
        self.oracles().for_each(|oracle| oracle.set(group, option, value));
        if group.is_none() {
            self.template.set(None, option, value);
        }
    }

    fn gradients(&mut self, step: usize) -> Vec<Option<Vec<f64>>> {
        let random = &mut self.random;
        let tensors = self.tensors.iter();
        tensors
            .map(|(direction, size, _)| {
                let absent = random.chance(0.15) && step > 0;
                let value = |towards: &f64| {
                    let noise = random.between(-0.7, 0.7);
                    f64::from((size * (towards + noise)) as f32)
                };
                let g: Vec<f64> = direction.iter().map(value).collect();
                (!absent).then_some(g)
            })
            .collect()
    }

    /// Of Prodigy, before a step: the sum of `|g*p|` over what enters its sums.
    fn sizes(&self, gradients: &[Option<&[f64]>]) -> f64 {
        let mut sum = 0.0;
        for (tensor, gradient) in self.oracle.tensors.iter().zip(gradients) {
            let group = &self.oracle.groups[tensor.group];
            let Some(gradient) = gradient.filter(|_| group.lr > 0.0) else { continue };
            for (g, p) in gradient.iter().zip(&tensor.p).step_by(group.slice_p) {
                sum += (g.abs() + group.weight_decay * p.abs()) * p.abs();
            }
        }
        sum
    }

    /// Brings [`Lost`] up to date after a step of that weight.
    fn lose(&mut self, weight: f64, sizes: f64, grew: bool) {
        let shared = &self.oracle.shared;
        let beta3 = shared.beta3.unwrap_or(shared.beta2.sqrt());
        self.lost.total = beta3 * self.lost.total + weight * sizes;
        if grew {
            self.lost.most = self.lost.most.max(self.lost.total / self.oracle.numerator.abs());
        }
    }

    fn step(&mut self, step: usize) -> (f64, f64) {
        let exact = self.gradients(step);
        let given: Vec<_> = exact.iter().map(|g| g.as_deref().map(rounded::<E>)).collect();
        let given: Vec<_> = given.iter().map(|g| g.as_deref()).collect();
        let exact: Vec<_> = exact.iter().map(|g| g.as_deref()).collect();
        let tensors = 0..self.tensors.len();
        let before: Vec<_> =
            tensors.clone().map(|i| (self.run.parameter(i), self.run.tensor_bits(i))).collect();

        let (sizes, d, k) = (self.sizes(&exact), self.oracle.d, self.oracle.k);
        let report = self.run.step(&given).unwrap();
        self.oracle.step(&exact);
        self.stray(&exact);
        if self.run.optimizer.algorithm() == Algorithm::Prodigy && self.oracle.k > k {
            let grew = self.oracle.d > d;
            self.lose(d / self.oracle.shared.d0 * report.dlr, sizes, grew);
        }

        let what = format!("{} step {step}", self.name);
        let frozen = |i: usize| self.oracle.groups[self.oracle.tensors[i].group].lr == 0.0;
        if self.oracle.groups.iter().all(|group| group.lr == 0.0) {
            assert_eq!(report.movement, Movement::LrZero, "{what}");
        } else if report.applied {
            let fixed = self.oracle.frozen || !adapts(self.run.optimizer.algorithm());
            assert_eq!(report.movement == Movement::Fixed, fixed, "{what}");
        }
        for (i, (_, bits)) in before.iter().enumerate() {
            if frozen(i) || given[i].is_none() || !report.applied {
                assert_eq!(&self.run.tensor_bits(i), bits, "{what}: tensor {i} changed");
            }
        }
        assert_eq!(report.k, self.oracle.k, "{what}: k");
        assert_eq!((report.k, report.d), (self.run.optimizer.k(), self.run.optimizer.d()));

        let unit = unit_roundoff(E::DTYPE) * report.k.max(1) as f64;
        let of_d = unit * (self.oracle.cancellation + self.lost.most);
        let d_error = (report.d / self.oracle.d - 1.0).abs();
        let d_share = d_error / (MULTIPLE * (of_d + self.strayed.0));
        assert!(d_share <= 1.0, "{what}: d is off by {d_error:e}, {d_share} of its bound");
        let mut p_share: f64 = 0.0;
        for i in tensors {
            let p = self.run.parameter(i);
            self.tensors[i].2 += distance(&p, &before[i].0);
            let expected = &self.oracle.tensors[i].p;
            let bound = unit * largest(expected) + of_d * self.tensors[i].2 + self.strayed.1[i];
            let error = distance(&p, expected);
            let share = if error == 0.0 { 0.0 } else { error / (MULTIPLE * bound) };
            assert!(share <= 1.0, "{what}: tensor {i} is off by {error:e}, {share} of its bound");
            p_share = p_share.max(share);
        }
        (p_share, d_share)
    }
}
