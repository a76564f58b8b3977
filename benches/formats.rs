//! What shorter types are worth: a step of each kind of state and parameter against f32, in turn on the
//! same machine, in nanoseconds a parameter.
//!
//! `cargo bench --bench formats [-- LEN THREADS ALGORITHM]`, by default 1e7, 2 and adam. Each sample is
//! one step, after one that brings into the cache what fits there; the kinds take turns, and ratios are
//! of times of the same turn: medians with quartiles. `d` stands still and gradients are not checked.

use dadapt::{
    Algorithm, Config, DType, GroupId, Key, NonFinite, Optimizer, State, TensorId, TensorStep, bf16,
};
use std::time::Instant;

const ROUNDS: usize = 25;
const WARM_UP: usize = 2;

/// A parameter with its gradient, both of one type.
enum Arrays {
    Single(Vec<f32>, Vec<f32>),
    Half(Vec<bf16>, Vec<bf16>),
}

struct Case {
    name: String,
    /// Bytes of state a parameter, and bytes moved in a step.
    kept: f64,
    moved: f64,
    optimizer: Optimizer,
    id: TensorId,
    arrays: Arrays,
    times: Vec<f64>,
}

impl Case {
    fn new(
        algorithm: Algorithm,
        threads: f64,
        len: usize,
        (dtype, master, state): (DType, bool, State),
    ) -> Option<Self> {
        let mut config = Config::new(algorithm);
        config.set(Key::State, state).ok()?;
        let _ = config.set(Key::GrowthRate, 1.0);
        config.set(Key::Master, master).unwrap();
        config.set(Key::NonFinite, NonFinite::Propagate).unwrap();
        config.set(Key::NumThreads, threads).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", dtype, len).unwrap();
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) % 1_000_003) as f32 * 1e-8 - 5e-3;
        let (p, g) = (|i: usize| value(i + 77), value);
        let short = |x: f32| bf16::from_f32(x);
        let arrays = match dtype {
            DType::Bf16 => Arrays::Half(
                (0..len).map(p).map(short).collect(),
                (0..len).map(g).map(short).collect(),
            ),
            _ => Arrays::Single((0..len).map(p).collect(), (0..len).map(g).collect()),
        };
        let (mut kept, mut moved) = (0, 3 * len * dtype.size());
        for slot in optimizer.state_names(id).unwrap() {
            let bytes = optimizer.state_bytes(id, slot).unwrap().1;
            kept += bytes;
            moved += if ["x0", "p0"].contains(&slot) { bytes } else { 2 * bytes };
        }
        let parameter = match (dtype, master) {
            (DType::Bf16, true) => "bf16, master copy",
            (DType::Bf16, false) => "bf16, none",
            _ => "f32",
        };
        let per = |bytes: usize| bytes as f64 / len as f64;
        let name = format!("{parameter}; {state:?}");
        let (kept, moved) = (per(kept), per(moved));
        Some(Case { name, kept, moved, optimizer, id, arrays, times: Vec::new() })
    }

    /// Seconds of a step.
    fn step(&mut self) -> f64 {
        let start = Instant::now();
        let tensor = match &mut self.arrays {
            Arrays::Single(p, g) => TensorStep::new(self.id, p, g),
            Arrays::Half(p, g) => TensorStep::new(self.id, p, g),
        };
        self.optimizer.step(&mut [tensor]).unwrap();
        start.elapsed().as_secs_f64()
    }
}

/// Quartiles.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn main() {
    // cargo's own "--bench" aside.
    let mut given = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let len = given.next().map_or(10_000_000, |len| len.parse::<f64>().unwrap() as usize);
    let threads = given.next().map_or(2.0, |threads| threads.parse().unwrap());
    let name = given.next().unwrap_or("adam".into());
    let algorithm = Algorithm::from_name(&name).unwrap();
    let parameters = [(DType::F32, true), (DType::Bf16, true), (DType::Bf16, false)];
    let kinds = parameters
        .iter()
        .flat_map(|(dtype, master)| State::ALL.map(|state| (*dtype, *master, state)));
    let new = |kind| Case::new(algorithm, threads, len, kind);
    let mut cases: Vec<_> = kinds.filter_map(new).collect();
    for round in 0..WARM_UP + ROUNDS {
        for case in &mut cases {
            case.step();
            let time = case.step() * 1e9 / len as f64;
            if round >= WARM_UP {
                case.times.push(time);
            }
        }
    }
    println!("{algorithm}, {len} parameters, {threads} threads, {}", cases[0].optimizer.isa());
    println!("{:30} kept moved    ns      of f32 [quartiles]", "parameter; state");
    let full = cases[0].times.clone();
    for Case { name, kept, moved, times, .. } in cases {
        let ratios = times.iter().zip(&full).map(|(time, full)| time / full).collect();
        let ([_, time, _], [low, ratio, high]) = (quartiles(times), quartiles(ratios));
        println!("{name:30} {kept:4.0} {moved:5.0} {time:5.3}  {ratio:6.2} [{low:.2}, {high:.2}]");
    }
}
