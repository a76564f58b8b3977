//! The recurrences again, in plain f64: slow, obvious, and sharing nothing with `src/`.
//!
//! A test replays gradients through an [`Oracle`] and compares. What it computes follows the papers
//! (arXiv:2301.07733, arXiv:2306.06101) and the Python packages, with this crate's deliberate
//! differences: a group at lr = 0 is frozen and enters no sum, decay, momentum, eps and `decouple`
//! belong to the group, every algorithm has a layer scale and every adaptive one a growth rate,
//! `slice_p` is not Prodigy's alone, gradients are never written, and a step that makes no progress
//! changes nothing at all.
//!
//! A new algorithm is a file with a `const ALGORITHM`, and an entry of [`ALGORITHMS`].

#![allow(dead_code)] // every integration test includes this module and uses its own part of it

mod adagrad;
mod adam;
mod adam_preprint;
mod adan;
pub mod formats;
mod lion;
pub mod moves;
mod plain;
mod prodigy;
mod sgd;
mod sum;

/// All of them; the names are those of the golden files.
pub const ALGORITHMS: &[Algorithm] = &[
    adam::ALGORITHM,
    sgd::ALGORITHM,
    adagrad::ALGORITHM,
    lion::ALGORITHM,
    adan::ADAN,
    adan::ADAN_IP,
    adam_preprint::ALGORITHM,
    prodigy::ALGORITHM,
    plain::SGD,
    plain::ADAM,
    plain::ADAGRAD,
    plain::LION,
    plain::ADAN,
];

/// The gradient of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a> {
    Dense(&'a [f64]),
    /// Of some rows of a table, one after another; a row may come several times. AdaGrad only.
    Rows {
        rows: &'a [usize],
        values: &'a [f64],
    },
}

/// For each tensor its gradient, or none.
type Gradients<'a> = [Option<Gradient<'a>>];

/// One recurrence.
#[derive(Clone, Copy)]
pub struct Algorithm {
    pub name: &'static str,
    /// Changes the neutral defaults of [`Shared`] and [`Group`] where the algorithm has its own.
    defaults: fn(&mut Shared, &mut Group),
    /// One step with the given largest lr. False means no progress, and the caller undoes it all.
    step: fn(&mut Oracle, &Gradients, f64) -> bool,
}

impl Algorithm {
    pub fn named(name: &str) -> Self {
        let found = ALGORITHMS.iter().find(|algorithm| algorithm.name == name);
        *found.unwrap_or_else(|| panic!("the oracle has no algorithm {name:?}"))
    }
}

/// Options of the optimizer as a whole.
#[derive(Clone, Debug)]
pub struct Shared {
    pub d0: f64,
    pub growth_rate: f64,
    /// What d never grows above. A d that is above already stays.
    pub d_cap: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Adan's third, and Prodigy's, which defaults to the root of the second.
    pub beta3: Option<f64>,
    pub use_bias_correction: bool,
    pub d_coef: f64,
    /// What the second moment of a tensor starts from.
    pub initial_accumulator: f64,
}

/// Options of one group.
#[derive(Clone, Debug)]
pub struct Group {
    pub lr: f64,
    pub weight_decay: f64,
    pub eps: f64,
    pub layer_scale: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub decouple: bool,
    pub no_prox: bool,
    pub safeguard_warmup: bool,
    /// Only every so many elements enter the sums that d follows from.
    pub slice_p: usize,
    /// Not elements are counted but runs of so many.
    pub slice_run: usize,
}

impl Group {
    /// Whether an element of a tensor enters the sums.
    pub fn counts(&self, element: usize) -> bool {
        (element / self.slice_run).is_multiple_of(self.slice_p)
    }
}

/// A parameter and its state. Slots that the algorithm does not use stay zero.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub group: usize,
    pub p: Vec<f64>,
    /// Whether it has ever had a gradient in a step that made progress.
    pub started: bool,
    /// How many of them it had: plain Adam's and plain Adan's own count.
    pub steps: u64,
    /// First moment, `exp_avg`.
    pub m: Vec<f64>,
    /// Second moment, `exp_avg_sq`; AdaGrad's `alphak`.
    pub v: Vec<f64>,
    /// The weighted sum of gradients.
    pub s: Vec<f64>,
    /// The parameter at its first gradient.
    pub x0: Vec<f64>,
    /// Adan's moving average of differences, `exp_avg_diff`.
    pub e: Vec<f64>,
    /// Adan's previous gradient, `pre_grad`.
    pub h: Vec<f64>,
}

/// An optimizer. Everything is public: a test may read or set what it likes.
#[derive(Clone)]
pub struct Oracle {
    pub algorithm: Algorithm,
    pub shared: Shared,
    pub groups: Vec<Group>,
    pub tensors: Vec<Tensor>,
    pub d: f64,
    /// Whether d stays for good. What d follows from then stays as it is, and `d_hat` is NaN.
    pub frozen: bool,
    /// Steps that made progress.
    pub k: u64,
    /// `numerator_weighted`: Adam's moving average, SGD's running total.
    pub numerator: f64,
    /// What divided in the last step that made progress.
    pub denominator: f64,
    /// The estimate of that step, before `growth_rate` and the maximum with the old d.
    pub d_hat: f64,
    /// SGD's norm of the first gradient.
    pub g0: f64,
    /// `gsq_weighted`: the total of AdaGrad, the moving average of Adan and the preprint's Adam.
    pub gsq: f64,
    /// AdaGrad's total `sksq_weighted`.
    pub sk_sq: f64,
    /// Prodigy's largest estimate.
    pub d_max: f64,
    /// How much an estimate that raised d was at most smaller than the two terms whose difference
    /// it is, and hence how much more of their rounding it has. 1 where it is no difference.
    pub cancellation: f64,
    /// The last estimate, were it the sum of what it is the difference of.
    pub estimate_size: f64,
}

impl Oracle {
    /// An optimizer with `groups` groups of default options and no tensor.
    pub fn new(algorithm: Algorithm, groups: usize) -> Self {
        let mut shared = Shared {
            d0: 1e-6,
            growth_rate: f64::INFINITY,
            d_cap: f64::INFINITY,
            beta1: 0.0,
            beta2: 0.0,
            beta3: None,
            use_bias_correction: false,
            d_coef: 1.0,
            initial_accumulator: 0.0,
        };
        let mut group = Group {
            lr: 1.0,
            weight_decay: 0.0,
            eps: 0.0,
            layer_scale: 1.0,
            momentum: 0.0,
            dampening: 0.0,
            decouple: false,
            no_prox: false,
            safeguard_warmup: false,
            slice_p: 1,
            slice_run: 1,
        };
        (algorithm.defaults)(&mut shared, &mut group);
        Self {
            algorithm,
            d: shared.d0,
            frozen: false,
            d_max: shared.d0,
            shared,
            groups: vec![group; groups],
            tensors: Vec::new(),
            k: 0,
            numerator: 0.0,
            denominator: 0.0,
            d_hat: f64::NAN,
            g0: 0.0,
            gsq: 0.0,
            sk_sq: 0.0,
            cancellation: 1.0,
            estimate_size: 0.0,
        }
    }

    /// Sets an option by the reference's name; `None` means every group. Flags are 0 or 1.
    /// `restart` and `freeze` are no options, but tests list them as if they were.
    pub fn set(&mut self, group: Option<usize>, option: &str, value: f64) {
        match option {
            "d0" => {
                assert_eq!(self.k, 0, "d0 is where d starts");
                (self.shared.d0, self.d, self.d_max) = (value, value, value);
            }
            "growth_rate" => self.shared.growth_rate = value,
            "d_cap" => self.shared.d_cap = value,
            "beta1" => self.shared.beta1 = value,
            "beta2" => self.shared.beta2 = value,
            "beta3" => self.shared.beta3 = Some(value),
            "d_coef" => self.shared.d_coef = value,
            "restart" => self.restart(),
            "freeze" => {
                assert_eq!(value, 1.0, "nothing thaws d");
                (self.frozen, self.d_hat) = (true, f64::NAN);
            }
            "use_bias_correction" => self.shared.use_bias_correction = value != 0.0,
            _ => {
                let chosen = match group {
                    Some(index) => &mut self.groups[index..=index],
                    None => &mut self.groups[..],
                };
                for group in chosen {
                    match option {
                        "lr" => group.lr = value,
                        "weight_decay" => group.weight_decay = value,
                        "eps" => group.eps = value,
                        "layer_scale" => group.layer_scale = value,
                        "momentum" => group.momentum = value,
                        "dampening" => group.dampening = value,
                        "decouple" => group.decouple = value != 0.0,
                        "no_prox" => group.no_prox = value != 0.0,
                        "safeguard_warmup" => group.safeguard_warmup = value != 0.0,
                        "slice_p" => group.slice_p = value as usize,
                        // A cache line of f32.
                        "slice_by_line" => group.slice_run = if value == 0.0 { 1 } else { 16 },
                        _ => panic!("the oracle has no option {option:?}"),
                    }
                }
            }
        }
    }

    /// Adds a tensor; the order of these calls is the order of gradients in [`Oracle::step`].
    pub fn add(&mut self, group: usize, p: Vec<f64>) {
        assert!(group < self.groups.len(), "no group {group}");
        let zero = vec![0.0; p.len()];
        self.tensors.push(Tensor {
            group,
            p,
            started: false,
            steps: 0,
            m: zero.clone(),
            v: vec![self.shared.initial_accumulator; zero.len()],
            s: zero.clone(),
            e: zero.clone(),
            h: zero.clone(),
            x0: zero,
        });
    }

    /// Adan's restart: d and k stay, all else is forgotten.
    pub fn restart(&mut self) {
        assert!(self.algorithm.name.starts_with("adan"), "only Adan restarts");
        adan::restart(self);
    }

    /// One step with a gradient, or none, for each tensor. Returns d as the step left it.
    pub fn step(&mut self, gradients: &[Option<&[f64]>]) -> f64 {
        let gradients: Vec<_> = gradients.iter().map(|g| g.map(Gradient::Dense)).collect();
        self.step_with(&gradients)
    }

    /// The same where some gradients are of rows.
    pub fn step_with(&mut self, gradients: &Gradients) -> f64 {
        assert_eq!(gradients.len(), self.tensors.len(), "one entry a tensor");
        for (tensor, gradient) in self.tensors.iter().zip(gradients) {
            match gradient {
                Some(Gradient::Dense(g)) => assert_eq!(g.len(), tensor.p.len(), "a length differs"),
                Some(Gradient::Rows { rows, values }) if !rows.is_empty() => {
                    let width = values.len() / rows.len();
                    assert_eq!(values.len(), width * rows.len(), "rows of unequal length");
                    assert_eq!(tensor.p.len() % width, 0, "rows of another length");
                }
                _ => {}
            }
        }
        let lr = self.groups.iter().fold(0.0, |most: f64, group| most.max(group.lr));
        assert!(self.groups.iter().all(|group| group.lr == lr || group.lr == 0.0), "unequal lrs");

        let before = self.clone();
        if lr == 0.0 || !(self.algorithm.step)(self, gradients, lr) {
            *self = before;
        }
        self.d
    }

    /// The tensors that take part in a step, each with its gradient and its group.
    fn taking_part<'a>(
        tensors: &'a mut [Tensor],
        groups: &'a [Group],
        gradients: &'a Gradients,
    ) -> impl Iterator<Item = (&'a mut Tensor, Gradient<'a>, &'a Group)> {
        tensors.iter_mut().zip(gradients).filter_map(|(tensor, gradient)| {
            let group = &groups[tensor.group];
            gradient.filter(|_| group.lr > 0.0).map(|g| (tensor, g, group))
        })
    }

    /// The same for an algorithm that knows no rows.
    fn active<'a>(
        tensors: &'a mut [Tensor],
        groups: &'a [Group],
        gradients: &'a Gradients,
    ) -> impl Iterator<Item = (&'a mut Tensor, &'a [f64], &'a Group)> {
        let all = Self::taking_part(tensors, groups, gradients);
        all.map(|(tensor, gradient, group)| match gradient {
            Gradient::Dense(gradient) => (tensor, gradient, group),
            Gradient::Rows { .. } => panic!("only AdaGrad takes gradients of rows"),
        })
    }

    /// Ends a step whose estimate is `(plus - minus) / denominator`.
    fn finish_difference(&mut self, plus: f64, minus: f64) {
        let old = self.d;
        self.finish((plus - minus) / self.denominator);
        self.estimate_size = ((plus.abs() + minus.abs()) / self.denominator).abs();
        if self.d > old {
            self.cancellation = self.cancellation.max((plus + minus) / (plus - minus));
        }
    }

    /// Ends a step that made progress: d grows to the estimate, as far as `growth_rate` and `d_cap`
    /// allow.
    fn finish(&mut self, d_hat: f64) {
        (self.d_hat, self.estimate_size) = (d_hat, d_hat.abs());
        self.k += 1;
        // False for a NaN, which therefore leaves d alone.
        if d_hat > self.d {
            let Shared { growth_rate, d_cap, .. } = self.shared;
            self.d = self.d.max(d_hat.min(self.d * growth_rate).min(d_cap));
        }
    }

    /// Ends a step whose d is frozen: with no sum to divide by, any tensor makes progress.
    fn finish_frozen(&mut self, gradients: &Gradients) -> bool {
        let progress =
            Self::taking_part(&mut self.tensors, &self.groups, gradients).next().is_some();
        self.k += u64::from(progress);
        progress
    }
}
