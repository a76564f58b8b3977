//! An optimizer together with the parameters it moves, and ways to compare two of them.

#![allow(dead_code)] // every integration test includes this module and uses its own part of it

use dadapt::{
    Algorithm, Config, DType, Element, GroupId, Isa, Key, Optimizer, Result, Scope, StepReport,
    TensorId, TensorStep,
};

/// The configuration of an algorithm on an instruction set and the calling thread alone.
pub fn config(algorithm: Algorithm, isa: Isa) -> Config {
    let mut config = Config::new(algorithm);
    config.set(Key::Isa, isa).unwrap().set(Key::NumThreads, 1).unwrap();
    config
}

/// Without what marks experimental ones: the oracle's and the golden files' name.
pub fn reference_name(algorithm: Algorithm) -> &'static str {
    algorithm.name().trim_start_matches("experimental_")
}

/// Whether the algorithm has the option.
pub fn has(algorithm: Algorithm, key: Key) -> bool {
    algorithm.options().iter().any(|(has, _)| *has == key)
}

/// Sets an option, by its name, where the algorithm has it.
pub fn set_if_there(config: &mut Config, option: &str, value: f64) {
    let key = Key::from_name(option).unwrap();
    if has(config.algorithm(), key) {
        config.set(key, value).unwrap();
    }
}

/// Whether it finds d, which is 1 and stays so otherwise.
pub fn adapts(algorithm: Algorithm) -> bool {
    has(algorithm, Key::D0)
}

/// Those that find d.
pub fn adapting() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.iter().copied().filter(|algorithm| adapts(*algorithm))
}

/// An optimizer and the parameters of its tensors.
pub struct Run<E> {
    pub optimizer: Optimizer,
    pub ids: Vec<TensorId>,
    pub p: Vec<Vec<E>>,
}

impl<E: Element> Run<E> {
    pub fn new(config: &Config) -> Self {
        let optimizer = Optimizer::new(config).unwrap();
        let forced = config.get(Key::Isa).unwrap();
        assert!(forced == 0.0 || f64::from(optimizer.isa()) == forced, "it runs on another");
        Run { optimizer, ids: Vec::new(), p: Vec::new() }
    }

    /// Registers a tensor that starts as `p`, named by its number.
    pub fn add(&mut self, group: usize, p: Vec<E>) {
        let name = format!("t{}", self.ids.len());
        let group = GroupId::new(group);
        self.ids.push(self.optimizer.add_tensor(group, &name, E::DTYPE, p.len()).unwrap());
        self.p.push(p);
    }

    /// Sets an option by its name: of a group, or of everything. `restart` and `freeze` are no
    /// options, but golden files and tests list them as if they were.
    pub fn set(&mut self, group: Option<usize>, option: &str, value: f64) {
        match option {
            "restart" => return self.optimizer.restart().unwrap(),
            "freeze" => return self.optimizer.freeze().unwrap(),
            _ => {}
        }
        let key = Key::from_name(option).unwrap();
        match group.filter(|_| key.scope() == Scope::Group) {
            Some(group) => self.optimizer.set_group(GroupId::new(group), key, value).unwrap(),
            None => self.optimizer.set(key, value).unwrap(),
        }
    }

    /// A step with a gradient, or none, for each tensor in the order they were added.
    pub fn step(&mut self, gradients: &[Option<&[E]>]) -> Result<StepReport> {
        assert_eq!(gradients.len(), self.ids.len(), "one entry a tensor");
        let tensors = self.ids.iter().zip(&mut self.p).zip(gradients);
        let mut steps: Vec<_> = tensors
            .filter_map(|((id, p), g)| g.map(|g| TensorStep::new(*id, p.as_mut_slice(), g)))
            .collect();
        self.optimizer.step(&mut steps)
    }

    /// A tensor's parameter, exact whatever its type.
    pub fn parameter(&self, tensor: usize) -> Vec<f64> {
        self.p[tensor].iter().map(|x| x.to_f64()).collect()
    }

    /// A tensor's state of that name.
    pub fn state(&self, tensor: usize, slot: &str) -> &[E] {
        self.optimizer.state(self.ids[tensor], slot).unwrap()
    }

    /// Every bit that a step may change: d, k, then parameter and state of each tensor.
    pub fn bits(&self) -> Vec<u64> {
        let mut all = vec![self.optimizer.d().to_bits(), self.optimizer.k()];
        for tensor in 0..self.ids.len() {
            all.extend(self.tensor_bits(tensor));
        }
        all
    }

    /// Parameter and state of a tensor.
    pub fn tensor_bits(&self, tensor: usize) -> Vec<u64> {
        let mut all = bits(&self.p[tensor]);
        for slot in self.optimizer.algorithm().state_names() {
            all.extend(bits(self.state(tensor, slot)));
        }
        all
    }
}

/// One number for each element that tells all values apart, the zeros too, but no NaNs.
pub fn bits<E: Element>(values: &[E]) -> Vec<u64> {
    let one = |x: f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    values.iter().map(|x| one(x.to_f64())).collect()
}

/// As the element type rounds them.
pub fn rounded<E: Element>(values: &[f64]) -> Vec<E> {
    values.iter().map(|x| E::from_f64(*x)).collect()
}

/// Half an ulp of 1: how far one rounding is off, relatively, at most.
pub fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        _ => f64::EPSILON / 2.0,
    }
}

/// The largest size of a value.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// The largest difference. A NaN in either is infinitely far off.
pub fn distance(left: &[f64], right: &[f64]) -> f64 {
    assert_eq!(left.len(), right.len());
    let difference = |(a, b): (&f64, &f64)| (a - b).abs();
    let differences = left.iter().zip(right).map(difference);
    differences.fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x) })
}

/// A small generator of numbers (SplitMix64): the same on every machine, whatever else changes.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Within [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (0.5f64).powi(53)
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.bits() % count as u64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// `len` values between -size and size, each exact in f32.
    pub fn values(&mut self, len: usize, size: f64) -> Vec<f64> {
        (0..len).map(|_| f64::from(self.between(-size, size) as f32)).collect()
    }
}
