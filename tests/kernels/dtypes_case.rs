//! A run in shorter types beside the oracle, which starts each step from the state as it is kept.
//!
//! After a step is asked:
//! - of state that is rounded: that each number is one of the two neighbours, in its type, of what the
//!   oracle has computed. Sums of a few terms in f32 are off by [`UNITS`] half-ulps of their terms'
//!   sizes, so the neighbours are those of a range so wide;
//! - of all other state: that it is in that range, or equal where it is a copy;
//! - of parameters: that they have moved by the state as it is kept now, those of Lion as it was
//!   before: in that range, one of two neighbours, or exactly the master copy to nearest;
//! - of `d_hat` and d: that they are off by the same units of what they are computed from.
//!
//! A second oracle knows those sizes: it computes the step with signs by which nothing cancels.

use crate::isas::scaled_len;
use crate::kept::{Kept, kept};
use crate::recurrences::formats::{self, BF16, F16, Grid, top};
use crate::recurrences::moves::{Moved, Step};
use crate::recurrences::{self, Oracle, Tensor};
use crate::run::{Random, Run, adapts, config, has, reference_name, rounded, set_if_there};
use dadapt::{Algorithm, Config, DType, Element, Isa, Key, State, Sweeps, TensorStep, bf16, f16};

/// A coefficient, two products and a sum, each rounded, and as much again where a gradient is a sum.
const UNITS: f64 = 8.0;
const UNIT: f64 = f32::EPSILON as f64 / 2.0;
/// What is below the normal numbers of f32 counts as 0, in a result and in what it is computed from.
const LOST: f64 = 4.0 * f32::MIN_POSITIVE as f64;
/// Below it exponents of 8-bit state end.
const LEAST_TOP: i32 = -90;

const STEPS: usize = 5;
const LENS: [usize; 15] =
    [0, 1, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8200];

#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub algorithm: Algorithm,
    pub isa: Isa,
    pub state: State,
    /// 8 bits for `s` alone.
    pub short_s: bool,
    pub slice: (usize, bool),
    pub master: bool,
    pub seed: u64,
}

/// Of elements that were rounded: how many up and down. The worst shares of bounds.
#[derive(Default)]
pub struct Seen {
    pub up: usize,
    pub down: usize,
    /// Steps that Prodigy mended.
    pub mended: usize,
    state: f64,
    p: f64,
    d: f64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        (self.up, self.down) = (self.up + other.up, self.down + other.down);
        self.mended += other.mended;
        self.state = self.state.max(other.state);
        (self.p, self.d) = (self.p.max(other.p), self.d.max(other.d));
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { up, down, mended, state, p, d } = self;
        write!(
            f,
            "{up} up, {down} down, {mended} mended; of the bounds: state {state:.2} p {p:.2} d {d:.2}"
        )
    }
}

/// A gradient, in any type that goes with the parameter's.
enum Given {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Given {
    fn values(&self) -> Vec<f64> {
        fn all<E: Element>(values: &[E]) -> Vec<f64> {
            values.iter().map(|x| x.to_f64()).collect()
        }
        match self {
            Given::F32(g) => all(g),
            Given::Bf16(g) => all(g),
            Given::F16(g) => all(g),
        }
    }
}

pub struct Case<P> {
    name: String,
    kind: Kind,
    random: Random,
    run: Run<P>,
    oracle: Oracle,
    sizes: Oracle,
    seen: Seen,
    /// All gradients are bf16, and `pre_grad` keeps them so.
    short_gradients: bool,
}

impl<P: Element> Case<P> {
    pub fn new(kind: Kind) -> Self {
        let algorithm = kind.algorithm;
        let recurrence = recurrences::Algorithm::named(reference_name(algorithm));
        let mut random = Random(kind.seed ^ (algorithm as u64) << 8 ^ (kind.slice.0 as u64) << 16);
        let mut config = config(algorithm, kind.isa);
        config.set(Key::State, kind.state).unwrap().set(Key::Master, kind.master).unwrap();
        config.set(Key::Seed, kind.seed as f64).unwrap();
        if kind.short_s {
            config.set_state_dtype(None, "s", Some(DType::Q8)).unwrap();
        }
        let keeps_gradient = algorithm.state_names().any(|slot| slot == "pre_grad");
        let short_gradients = keeps_gradient && random.chance(0.5);
        if short_gradients {
            config.set_state_dtype(None, "pre_grad", Some(DType::Bf16)).unwrap();
        }
        for _ in 0..2 {
            config.add_group();
        }
        let mut oracle = Oracle::new(recurrence, 3);
        set_options(&mut config, &mut oracle, &kind, &mut random);
        let mut case = Case {
            name: format!("{kind:?} {}", P::DTYPE),
            kind,
            random,
            run: Run::new(&config),
            sizes: oracle.clone(),
            oracle,
            seen: Seen::default(),
            short_gradients,
        };
        for (i, len) in LENS.iter().enumerate() {
            let size = [1.0, 0.0, 30.0][i % 4 % 3];
            let len = scaled_len(*len, (*len).min(1025));
            let p: Vec<P> = rounded(&case.random.values(len, size));
            let group = case.random.below(3);
            case.oracle.add(group, p.iter().map(|x| x.to_f64()).collect());
            case.run.add(group, p);
        }
        case
    }

    /// In the third and the fourth step d is held. What ends that is a step in which d grows again, so
    /// that Prodigy mends what it has done with the old one; or d is frozen.
    pub fn play(mut self) -> Seen {
        for step in 0..STEPS {
            match step {
                _ if !adapts(self.kind.algorithm) => {}
                2 => self.set("d_cap", self.oracle.d),
                4 if self.kind.seed % 2 == 1 => self.set("freeze", 1.0),
                4 => self.set("d_cap", f64::INFINITY),
                _ => {}
            }
            self.step(step);
        }
        assert_eq!(self.oracle.k, STEPS as u64, "MISTRUSTED: {}: no progress", self.name);
        self.seen
    }

    fn set(&mut self, option: &str, value: f64) {
        self.run.set(None, option, value);
        self.oracle.set(None, option, value);
        self.sizes.set(None, option, value);
    }

    fn gradient(&mut self, len: usize) -> Given {
        let random = &mut self.random;
        let size = 10f64.powf(random.between(-2.0, 0.0));
        // About a direction that stays, so that d grows.
        let mut draw = |i: usize| {
            let towards = if i.is_multiple_of(3) { -size } else { size };
            match random.below(20) {
                0 => 0.0,
                // From one to the smallest of a group: into the lowest numbers of all types.
                1..6 => towards * random.between(-1.0, 1.0) * 0.5f64.powi(random.below(40) as i32),
                _ => towards * random.between(-0.3, 1.0),
            }
        };
        let g: Vec<_> = (0..len).map(&mut draw).collect();
        match random.below(3) {
            _ if self.short_gradients => Given::Bf16(rounded(&g)),
            0 => Given::F32(rounded(&g)),
            1 => Given::Bf16(rounded(&g)),
            _ => Given::F16(rounded(&g)),
        }
    }

    fn step(&mut self, step: usize) {
        let lens: Vec<_> = self.run.p.iter().map(Vec::len).collect();
        let gradients: Vec<_> = lens
            .iter()
            .map(|len| Some(self.gradient(*len)).filter(|_| !self.random.chance(0.1)))
            .collect();
        let exact: Vec<_> = gradients.iter().map(|g| g.as_ref().map(Given::values)).collect();
        let exact: Vec<_> = exact.iter().map(|g| g.as_deref()).collect();
        self.load();
        let before = self.oracle.clone();
        let untouched: Vec<_> = (0..lens.len()).map(|i| self.bytes(i)).collect();

        let report = {
            let Run { optimizer, ids, p } = &mut self.run;
            let tensors = ids.iter().zip(p).zip(&gradients);
            let mut steps: Vec<_> = tensors
                .filter_map(|((id, p), g)| {
                    Some(match g.as_ref()? {
                        Given::F32(g) => TensorStep::new(*id, p, g),
                        Given::Bf16(g) => TensorStep::new(*id, p, g),
                        Given::F16(g) => TensorStep::new(*id, p, g),
                    })
                })
                .collect();
            optimizer.step(&mut steps).unwrap()
        };
        self.oracle.step(&exact);
        let without: Vec<_> = exact.iter().map(|g| g.map(against)).collect();
        self.sizes.step(&without.iter().map(|g| g.as_deref()).collect::<Vec<_>>());
        self.name = format!("{:?} {} step {step}", self.kind, P::DTYPE);
        assert_eq!(report.k, self.oracle.k, "{}: k", self.name);
        assert_eq!(report.overflows, 0, "{}: overflows", self.name);
        let mended = report.sweeps == Sweeps::Mended;
        self.seen.mended += usize::from(mended);

        let mut undecided = false;
        for (i, g) in exact.iter().enumerate() {
            match g {
                Some(g) => undecided |= self.check_tensor(i, g, &before, (report.d, mended)),
                None => assert!(self.bytes(i) == untouched[i], "{}: tensor {i}", self.name),
            }
        }
        if undecided {
            // A sign that roundings decide moves a sum by more than they do.
            (self.oracle.d, self.oracle.numerator) = (report.d, report.numerator);
        } else {
            self.check_d(report.d_hat, report.d);
        }
    }

    fn check_d(&mut self, d_hat: f64, d: f64) {
        if !adapts(self.kind.algorithm) || self.oracle.frozen {
            return assert_eq!(d, self.oracle.d, "{}", self.name);
        }
        let Oracle { estimate_size, denominator, k, .. } = self.oracle;
        let share = (self.sizes.denominator / denominator).abs();
        let size = estimate_size.max(self.sizes.estimate_size) * share;
        let bound = UNITS * UNIT * k as f64 * size;
        let errors = [d_hat - self.oracle.d_hat, d - self.oracle.d].map(f64::abs);
        for (what, error) in ["d_hat", "d"].iter().zip(errors) {
            assert!(error <= bound, "{}: {what} is off by {error:e}, bound {bound:e}", self.name);
            self.seen.d = self.seen.d.max(error / bound);
        }
        // The oracle goes on from the same d.
        (self.oracle.d, self.oracle.d_max) = (d, self.oracle.d_max.max(d));
    }

    /// Everything that a step might change of a tensor.
    fn bytes(&mut self, i: usize) -> (Vec<u64>, Vec<Vec<u8>>) {
        let id = self.run.ids[i];
        let slots: Vec<_> = self.run.optimizer.state_names(id).unwrap().collect();
        let state =
            slots.iter().map(|slot| self.run.optimizer.raw_state_mut(id, slot).unwrap().to_vec());
        let state = state.collect();
        (crate::run::bits(&self.run.p[i]), state)
    }

    fn has_master(&self) -> bool {
        P::DTYPE != DType::F32 && self.kind.master
    }

    /// Which elements of a tensor a slot is about.
    fn elements(&self, i: usize, slot: &str) -> Vec<usize> {
        let group = &self.oracle.groups[self.oracle.tensors[i].group];
        let sliced = ["s", "p0"].contains(&slot) && has(self.kind.algorithm, Key::SliceP);
        (0..self.run.p[i].len()).filter(|i| !sliced || group.counts(*i)).collect()
    }

    fn kept(&mut self, i: usize, slot: &str) -> Kept {
        let elements = self.elements(i, slot);
        kept(&mut self.run, i, slot, &elements)
    }

    /// The oracle takes the state as it is kept for that of before the step.
    fn load(&mut self) {
        for i in 0..self.run.ids.len() {
            if self.oracle.tensors[i].started {
                let mut tensor = self.oracle.tensors[i].clone();
                self.read(i, &mut tensor);
                self.oracle.tensors[i] = tensor;
            }
        }
        self.sizes.tensors.clone_from(&self.oracle.tensors);
        for tensor in &mut self.sizes.tensors {
            let Tensor { p, m, v, s, x0, e, h, .. } = tensor;
            [p, m, s, e].into_iter().flatten().for_each(|x| *x = -x.abs());
            [v, x0, h].into_iter().flatten().for_each(|x| *x = x.abs());
        }
        (self.sizes.d, self.sizes.d_max) = (self.oracle.d, self.oracle.d_max);
    }

    /// Parameter and state of a tensor, as kept.
    fn read(&mut self, i: usize, tensor: &mut Tensor) {
        tensor.p = self.run.parameter(i);
        if self.has_master() {
            tensor.p = self.kept(i, "master").values;
        }
        for slot in self.kind.algorithm.state_names() {
            let kept = self.kept(i, slot).values;
            if !kept.is_empty() {
                for (to, x) in self.elements(i, slot).into_iter().zip(kept) {
                    array(tensor, slot)[to] = x;
                }
            }
        }
    }

    /// Whether a sign was too close for its sums to be checked.
    fn check_tensor(
        &mut self,
        i: usize,
        g: &[f64],
        before: &Oracle,
        (next_d, mended): (f64, bool),
    ) -> bool {
        let mut kept = self.oracle.tensors[i].clone();
        self.read(i, &mut kept);
        let step =
            |e: usize| Step { before, tensor: i, i: e, kept: &kept, g: g[e], next_d, mended };
        let signs = self.kind.algorithm.name().ends_with("lion");
        let undecided: Vec<bool> =
            (0..g.len()).map(|e| signs && step(e).direction().is_none()).collect();
        let steps = if undecided.contains(&true) { step(0).gamma() } else { 0.0 };
        for slot in self.kind.algorithm.state_names() {
            let found = self.kept(i, slot);
            if found.values.is_empty() {
                continue;
            }
            let elements = self.elements(i, slot);
            let pick = |from: &[f64]| -> Vec<f64> { elements.iter().map(|e| from[*e]).collect() };
            let exact = pick(array(&mut self.oracle.tensors[i], slot));
            let sizes = pick(array(&mut self.sizes.tensors[i], slot));
            let copy = ["x0", "p0", "pre_grad"].contains(&slot);
            let slack = |(size, e): (f64, &usize)| match copy {
                true => 0.0,
                _ if undecided[*e] && slot == "s" => steps + LOST,
                _ => UNITS * UNIT * size.abs() + LOST,
            };
            let slacks: Vec<_> = sizes.into_iter().zip(&elements).map(slack).collect();
            self.check_slot(&format!("{slot} of tensor {i}"), &found, &exact, &slacks);
        }

        let moved: Vec<_> = (0..g.len()).map(|e| step(e).moved()).collect();
        let (p, worked) = (self.run.parameter(i), kept.p);
        let grid = match P::DTYPE {
            DType::Bf16 => Some(BF16),
            DType::F16 => Some(F16),
            _ => None,
        };
        for (e, Moved { least, most, size }) in moved.into_iter().enumerate() {
            let slack = UNITS * UNIT * size + LOST;
            let what = || format!("{}: parameter {e} of tensor {i}", self.name);
            let (kept, grid) = match self.has_master() {
                true => (worked[e], None),
                false => (p[e], grid),
            };
            let share = share(grid, kept, (least, most), slack);
            assert!(share <= 1.0, "{} is {kept:e}, not {least:e}: {share} of {slack:e}", what());
            self.seen.p = self.seen.p.max(share);
            if let Some(grid) = grid {
                assert!(grid.holds(kept), "{} is {kept:e}", what());
                self.seen.round(kept, (least, most), slack);
            }
            if self.has_master() {
                let nearest = formats_of::<P>().nearest(worked[e]);
                assert!(p[e].to_bits() == nearest.to_bits(), "{}: {} of {kept:e}", what(), p[e]);
            }
        }
        undecided.contains(&true)
    }

    fn check_slot(&mut self, what: &str, found: &Kept, exact: &[f64], slacks: &[f64]) {
        for (e, (&kept, grid)) in found.values.iter().zip(&found.grids).enumerate() {
            let (x, slack) = (exact[e], slacks[e]);
            let share = share(*grid, kept, (x, x), slack);
            assert!(share <= 1.0, "{}: {what}, {e} is {kept:e}, not {x:e} {grid:?}", self.name);
            self.seen.state = self.seen.state.max(share);
            if let Some(grid) = grid {
                assert!(grid.holds(kept), "{}: {what}, {e} is {kept:e}", self.name);
                self.seen.round(kept, (x, x), slack);
            }
        }
        let Some((groups, tops)) = &found.groups else { return };
        for (group, found) in tops.iter().enumerate() {
            let members = groups.iter().enumerate().filter(|(_, of)| **of == group);
            let ends = members.fold((0.0, 0.0), |(least, most): (f64, f64), (e, _)| {
                let (x, slack) = (exact[e].abs(), slacks[e]);
                (least.max(x - slack), most.max(x + slack))
            });
            let expected = top(ends.0)..=top(ends.1);
            let fits = expected.contains(found) || ends.1 < formats::power(LEAST_TOP);
            assert!(fits, "{}: {what}, group {group} has {found}, not {expected:?}", self.name);
        }
    }
}

impl Seen {
    /// Counts a number that is clearly none of its type's.
    fn round(&mut self, kept: f64, (least, most): (f64, f64), slack: f64) {
        self.up += usize::from(kept > most + slack);
        self.down += usize::from(kept < least - slack);
    }
}

/// How much of its bound an error is: of what is rounded to a grid, 0 for a neighbour.
fn share(grid: Option<Grid>, kept: f64, (least, most): (f64, f64), slack: f64) -> f64 {
    let (low, high) = (least - slack, most + slack);
    match grid {
        Some(grid) if (grid.down(low)..=grid.up(high)).contains(&kept) => 0.0,
        Some(_) => f64::INFINITY,
        None if kept == least || kept == most => 0.0,
        None => (least - kept).max(kept - most) / slack,
    }
}

fn formats_of<P: Element>() -> Grid {
    if P::DTYPE == DType::F16 { F16 } else { BF16 }
}

/// The gradient by which nothing cancels.
fn against(g: &[f64]) -> Vec<f64> {
    g.iter().map(|g| -g.abs()).collect()
}

/// The oracle's array for a slot of that name.
fn array<'a>(tensor: &'a mut Tensor, slot: &str) -> &'a mut Vec<f64> {
    match slot {
        "exp_avg" | "momentum_buffer" => &mut tensor.m,
        "exp_avg_sq" | "alphak" | "sum" => &mut tensor.v,
        "exp_avg_diff" => &mut tensor.e,
        "pre_grad" => &mut tensor.h,
        "s" | "sk" => &mut tensor.s,
        "x0" | "p0" => &mut tensor.x0,
        _ => panic!("the oracle has no {slot:?}"),
    }
}

/// Options by group, some of which choose kernels, and shared ones.
fn set_options(config: &mut Config, oracle: &mut Oracle, kind: &Kind, random: &mut Random) {
    let algorithm = kind.algorithm;
    let mut all = |option: &str, value: f64| {
        if has(algorithm, Key::from_name(option).unwrap()) {
            set_if_there(config, option, value);
            oracle.set(None, option, value);
        }
    };
    all("d0", 1e-3);
    all("lr", if adapts(algorithm) { 1.0 } else { 0.01 });
    all("use_bias_correction", f64::from(kind.seed as u32 & 1));
    all("slice_p", kind.slice.0 as f64);
    all("slice_by_line", f64::from(u8::from(kind.slice.1)));
    all("d_coef", 50.0); // else Prodigy's d would not grow so soon
    if algorithm == Algorithm::Prodigy && random.chance(0.3) {
        all("beta1", 0.0);
    }
    for group in 0..3 {
        for (option, choices) in [
            ("weight_decay", [0.0, 0.01, 0.3]),
            ("decouple", [0.0, 1.0, 1.0]),
            ("eps", [1e-8, 1e-6, 1e-3]),
            ("layer_scale", [1.0, 0.3, 3.0]),
            ("momentum", [0.0, 0.9, 0.5]),
            ("dampening", [0.0, 0.5, 0.1]),
            ("no_prox", [0.0, 1.0, 1.0]),
            ("safeguard_warmup", [0.0, 1.0, 0.0]),
        ] {
            let (key, value) = (Key::from_name(option).unwrap(), random.pick(&choices));
            if has(algorithm, key) {
                config.set_group(dadapt::GroupId::new(group), key, value).unwrap();
                oracle.set(Some(group), option, value);
            }
        }
    }
}
