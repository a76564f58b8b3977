//! D-Adapt Adam with parameters and state in shorter types.

use dadapt::{
    Algorithm, Config, DType, GroupId, Key, Optimizer, State, TensorId, TensorStep, bf16,
};

use crate::mlp::{Shape, Tensors};

/// What the options of a run differ in.
#[derive(Clone)]
pub struct Mode {
    pub name: String,
    state: State,
    /// Slots that are kept otherwise.
    slots: Vec<(String, Kept)>,
    parameters: Parameters,
}

#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// In that type, as the library rounds: stochastically.
    As(DType),
    /// In f32, rounded to nearest bf16 after each step: what bf16 without noise would be.
    Nearest,
}

#[derive(Clone, Copy, PartialEq)]
enum Parameters {
    F32,
    /// Up or down by 2^-23 of where they were to start, so many times doubled.
    Nudged(u32),
    /// bf16 with a master copy of f32.
    Master,
    /// bf16, stochastically rounded.
    Rounded,
}

/// What `Mode::parse` knows by name, and what each is.
pub const NAMED: [(&str, &str); 9] = [
    ("f32", "all in f32"),
    ("nudged", "f32 from weights off by 2^-23, nudged=N by 2^(N-23): what differs by chance"),
    ("compact", "s in 8 bits, exp_avg and exp_avg_sq in bf16"),
    ("bf16", "all state in bf16"),
    ("q8", "all state in 8 bits"),
    ("master", "parameters in bf16 with a master copy, state in f32"),
    ("rounded", "parameters in bf16 without one, state in f32"),
    ("least", "parameters in bf16 without one, state as in compact"),
    ("nearest", "exp_avg_sq rounded to nearest bf16, the rest in f32"),
];

impl Mode {
    /// A mode by its name, or one that keeps single slots otherwise, as in `s=q8+exp_avg=nearest`.
    pub fn parse(name: &str) -> Result<Self, String> {
        let mut mode = Mode {
            name: name.into(),
            state: State::Full,
            slots: Vec::new(),
            parameters: Parameters::F32,
        };
        if let Some(doubled) = name.strip_prefix("nudged=") {
            let doubled = doubled.parse().ok().filter(|doubled| *doubled < 23);
            let doubled = doubled.ok_or_else(|| format!("'{name}': 0 to 22"))?;
            mode.parameters = Parameters::Nudged(doubled);
            return Ok(mode);
        }
        match name {
            "f32" => {}
            "nudged" => mode.parameters = Parameters::Nudged(0),
            "compact" => mode.state = State::Compact,
            "bf16" => mode.state = State::Bf16,
            "q8" => mode.state = State::Q8,
            "master" => mode.parameters = Parameters::Master,
            "rounded" => mode.parameters = Parameters::Rounded,
            "least" => (mode.state, mode.parameters) = (State::Compact, Parameters::Rounded),
            "nearest" => mode.slots.push(("exp_avg_sq".into(), Kept::Nearest)),
            _ => {
                for pair in name.split('+') {
                    let (slot, kept) = pair.split_once('=').unwrap_or((pair, ""));
                    let kept = match kept {
                        "bf16" => Kept::As(DType::Bf16),
                        "q8" => Kept::As(DType::Q8),
                        "nearest" => Kept::Nearest,
                        _ => return Err(format!("unknown mode '{name}'")),
                    };
                    mode.slots.push((slot.into(), kept));
                }
            }
        }
        Ok(mode)
    }
}

/// Moves a network against its gradient.
pub struct Method {
    optimizer: Optimizer,
    ids: Vec<TensorId>,
    /// Parameters of bf16; a network computes on their values in f32.
    short: Option<[Vec<bf16>; 4]>,
    nearest: Vec<String>,
}

impl Method {
    /// Brings the network's parameters to what the mode can hold.
    pub fn new(
        mode: &Mode,
        shape: Shape,
        (growth_rate, seed): (f64, u64),
        net: &mut Tensors,
    ) -> Result<Self, dadapt::Error> {
        let mut config = Config::new(Algorithm::Adam);
        config.set(Key::GrowthRate, growth_rate)?.set(Key::State, mode.state)?;
        config.set(Key::Seed, seed as f64)?;
        config.set(Key::Master, mode.parameters == Parameters::Master)?;
        let mut nearest = Vec::new();
        for (slot, kept) in &mode.slots {
            match kept {
                Kept::As(dtype) => drop(config.set_state_dtype(None, slot, Some(*dtype))?),
                Kept::Nearest => nearest.push(slot.clone()),
            }
        }
        if let Parameters::Nudged(doubled) = mode.parameters {
            let by = f32::EPSILON * (1u32 << doubled) as f32;
            for (i, p) in net.iter_mut().flatten().enumerate() {
                let is_up = i.wrapping_mul(2_654_435_761) >> 16 & 1 == 0;
                *p *= 1.0 + if is_up { by } else { -by };
            }
        }
        let short = matches!(mode.parameters, Parameters::Master | Parameters::Rounded)
            .then(|| net.each_ref().map(|p| p.iter().map(|x| bf16::from_f32(*x)).collect()));
        let dtype = if short.is_some() { DType::Bf16 } else { DType::F32 };
        let mut optimizer = Optimizer::new(&config)?;
        let mut ids = Vec::new();
        for (name, len) in shape.tensors() {
            ids.push(optimizer.add_tensor(GroupId::FIRST, name, dtype, len)?);
        }
        let method = Self { optimizer, ids, short, nearest };
        method.show(net);
        Ok(method)
    }

    /// Takes a step; returns `d` after it.
    pub fn step(&mut self, net: &mut Tensors, grads: &Tensors) -> Result<f64, dadapt::Error> {
        let mut tensors: Vec<TensorStep> = Vec::with_capacity(net.len());
        let ids = self.ids.iter().zip(grads);
        match &mut self.short {
            None => tensors.extend(
                ids.zip(&mut *net).map(|((&id, g), p)| TensorStep::new(id, p.as_mut_slice(), g)),
            ),
            Some(short) => tensors.extend(
                ids.zip(short).map(|((&id, g), p)| TensorStep::new(id, p.as_mut_slice(), g)),
            ),
        }
        let report = self.optimizer.step(&mut tensors)?;
        for (slot, &id) in
            self.nearest.iter().flat_map(|slot| self.ids.iter().map(move |id| (slot, id)))
        {
            for x in self.optimizer.state_mut::<f32>(id, slot)? {
                *x = bf16::from_f32(*x).to_f32();
            }
        }
        self.show(net);
        Ok(report.d)
    }

    /// The values of parameters in bf16.
    fn show(&self, net: &mut Tensors) {
        for (p, short) in net.iter_mut().zip(self.short.iter().flatten()) {
            for (p, short) in p.iter_mut().zip(short) {
                *p = short.to_f32();
            }
        }
    }

    /// Bytes of all state, the master copy included.
    pub fn state_bytes(&self) -> Result<usize, dadapt::Error> {
        let mut bytes = 0;
        for &id in &self.ids {
            for name in self.optimizer.state_names(id)? {
                bytes += self.optimizer.state_bytes(id, name)?.1;
            }
        }
        Ok(bytes)
    }

    /// The second moments of all parameters.
    pub fn second_moments(&self) -> Result<Vec<f64>, dadapt::Error> {
        let mut all = Vec::new();
        for &id in &self.ids {
            all.extend(self.optimizer.state_values(id, "exp_avg_sq")?);
        }
        Ok(all)
    }
}
