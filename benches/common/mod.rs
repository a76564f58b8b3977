//! One optimizer over one tensor, and what its memory is measured against.

pub mod streams;

use dadapt::{Algorithm, Config, DType, GroupId, Key, NonFinite, Optimizer, TensorId, TensorStep};
use streams::{Arrays, ceiling};

/// An optimizer over one f32 tensor, and the arrays of its step.
pub struct Case {
    optimizer: Optimizer,
    tensor: TensorId,
    p: Vec<f32>,
    g: Vec<f32>,
}

impl Case {
    /// `d` grows in the first steps, and is then held, so that a gradient that never changes does not
    /// drive it off. (Prodigy takes two sweeps while `d` is `d0` and after it has changed.)
    pub fn new(algorithm: Algorithm, len: usize, threads: usize, non_finite: NonFinite) -> Self {
        let mut config = Config::new(algorithm);
        let set = |config: &mut Config| -> dadapt::Result<()> {
            config.set(Key::NumThreads, threads as u32)?;
            config.set(Key::NonFinite, non_finite)?;
            if config.get(Key::D0).is_ok() {
                config.set(Key::D0, 1e-5)?;
            }
            if algorithm == Algorithm::PlainSgd {
                config.set(Key::Momentum, 0.9)?;
            }
            Ok(())
        };
        set(&mut config).expect("the values are within bounds");
        let mut optimizer = Optimizer::new(&config).expect("what the environment asks for is here");
        let tensor =
            optimizer.add_tensor(GroupId::FIRST, "p", DType::F32, len).expect("memory is there");
        let g = (0..len).map(|i| 1e-2 * ((i * 7919 % 1000) as f32 - 499.5)).collect();
        let mut case = Case { optimizer, tensor, p: vec![1.0; len], g };
        for _ in 0..5 {
            case.step();
        }
        if case.optimizer.get(Key::GrowthRate).is_ok() {
            case.optimizer.set(Key::GrowthRate, 1.0).expect("the value is within bounds");
        }
        case.step();
        case
    }

    /// Bytes that a step must move for a parameter: each array read once, and written once where the
    /// step writes it.
    pub fn bytes(algorithm: Algorithm) -> usize {
        let names: Vec<_> = algorithm.state_names().collect();
        let read_only = names.iter().filter(|name| ["x0", "p0"].contains(name)).count();
        4 * (3 + 2 * names.len() - read_only)
    }

    /// The memory ceiling of an algorithm's streams, over the very arrays of a step.
    pub fn ceiling(&mut self) {
        let read_only = |name: &str| ["x0", "p0"].contains(&name);
        let names = self.optimizer.algorithm().state_names();
        let written = names.enumerate().map(|(i, name)| usize::from(!read_only(name)) << i).sum();
        let zero = std::hint::black_box(0.0);
        match self.optimizer.algorithm().state_names().count() {
            1 => ceiling::<1>(self.arrays(), written, zero),
            2 => ceiling::<2>(self.arrays(), written, zero),
            3 => ceiling::<3>(self.arrays(), written, zero),
            4 => ceiling::<4>(self.arrays(), written, zero),
            5 => ceiling::<5>(self.arrays(), written, zero),
            n => panic!("teach the ceiling {n} state arrays"),
        }
    }

    pub fn step(&mut self) {
        let tensor = TensorStep::new(self.tensor, &mut self.p, &self.g);
        self.optimizer.step(&mut [tensor]).expect("nothing is wrong with the step");
    }

    /// A step with the given policy.
    pub fn step_with(&mut self, non_finite: NonFinite) {
        self.optimizer.set(Key::NonFinite, non_finite).expect("the value is within bounds");
        self.step();
    }

    /// The very arrays that a step reads and writes.
    fn arrays<const STATES: usize>(&mut self) -> Arrays<'_, STATES> {
        let names: Vec<_> = self.optimizer.algorithm().state_names().collect();
        let len = self.p.len();
        let state = std::array::from_fn(|i| {
            let state: &mut [f32] =
                self.optimizer.state_mut(self.tensor, names[i]).expect("the state is there");
            // SAFETY: the slots are distinct arrays of `len` elements, and `self` stays borrowed.
            unsafe { std::slice::from_raw_parts_mut(state.as_mut_ptr(), len) }
        });
        Arrays { p: &mut self.p, g: &self.g, state }
    }
}
