//! The kernels with codecs: state and parameters of shorter types beside the lane function.

use crate::assembly::{Function, frames};
use crate::checks::{Body, Machine};
use crate::{adapts, dump, has};
use dadapt::{Algorithm, Config, DType, Isa, Key, State};
use std::collections::BTreeMap;
use std::path::Path;
use std::ptr;

/// A kernel, as its `with_simd` names it. The algorithm is the module in `src/algorithm`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coded {
    isa: &'static str,
    algorithm: String,
    decay: String,
    pass: String,
    mode: String,
    /// Whether parameter and gradient are bf16, decoded in the loops: beside a master copy, or without one.
    pair: String,
}

/// How state is kept, by the numbers that `src/kernel/mode.rs` gives that: in full, in bf16, in 8 bits.
const MODES: [&str; 3] = ["1", "2", "3"];

/// Instructions of a loop whose origin is asked for.
const ASKED: usize = 4;

/// The passes that an algorithm has kernels with codecs for, by the bits of `src/algorithm/rule.rs`: all
/// at once (23), all but the statistics, and the halves of a step that waits for the new `d`.
fn passes(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::Prodigy => &["23", "22", "19", "20"],
        _ if adapts(&algorithm) => &["23", "22"],
        _ => &["22"],
    }
}

impl Coded {
    /// From `with_simd<dadapt::algorithm::adam::Adam, 8, 3, 2, 0, 23, 3, 0, pulp::x86::v3::V3>`.
    fn from_frame(frame: &str) -> Option<Self> {
        let parameters = frame.strip_prefix("with_simd<")?.strip_suffix('>')?;
        let parameters: Vec<&str> = parameters.split(", ").collect();
        let [rule, _, _, _, decay, pass, mode, pair, simd] = parameters[..] else { return None };
        let isa = match simd.rsplit("::").next()? {
            "V3" => Isa::Avx2,
            "V4" => Isa::Avx512,
            _ => Isa::Neon,
        };
        Some(Coded {
            isa: isa.name(),
            algorithm: rule.strip_prefix("dadapt::algorithm::")?.split("::").next()?.into(),
            decay: decay.into(),
            pass: pass.into(),
            mode: mode.into(),
            pair: pair.into(),
        })
    }
}

/// Reads a library's kernels with codecs and says what is wrong with them.
pub fn check(library: &Path, tools: &str, functions: &[Function], isas: &[Isa]) -> Vec<String> {
    let any = Machine { isa: isas[0], dtype: DType::F32 };
    let mut loops = Vec::new();
    for function in functions {
        for found in &function.loops {
            let body = found.iter().map(|i| &function.instructions[*i]);
            // Of a single one the line table may not say where it comes from.
            let arithmetic = body.filter(|instruction| any.is_arithmetic(instruction));
            for instruction in arithmetic.take(ASKED) {
                loops.push((function, found, instruction.address));
            }
        }
    }
    let addresses: Vec<u64> = loops.iter().map(|(.., address)| *address).collect();
    let mut kernels = BTreeMap::<Coded, usize>::new();
    let mut faults = Vec::new();
    let mut last = None;
    for ((function, found, _), frames) in loops.iter().zip(frames(library, tools, &addresses)) {
        let kernel = frames.iter().find_map(|frame| Coded::from_frame(frame));
        let Some(kernel) = kernel.filter(|kernel| has(isas, kernel.isa)) else { continue };
        if last.replace(ptr::from_ref(*found)) == Some(ptr::from_ref(*found)) {
            continue;
        }
        let isa = Isa::from_name(kernel.isa).expect("it comes from one");
        let machine = Machine { isa, dtype: DType::F32 };
        // Values wait for their rounding on the stack: which store is which is not asked.
        let body: Body =
            found.iter().map(|i| (function.instructions[*i].clone(), Default::default())).collect();
        // Others bring sums from lanes to f64, once in a while.
        if !machine.is_over_rows(&body) {
            continue;
        }
        let count = kernels.entry(kernel.clone()).or_default();
        *count += 1;
        let name = format!(
            "{}-coded-{}-decay{}-pass{}-mode{}-pair{}-{count}",
            kernel.isa, kernel.algorithm, kernel.decay, kernel.pass, kernel.mode, kernel.pair
        );
        dump(&name, &body);
        for (fault, instructions) in machine.codec_faults(&body).0 {
            let (count, first) = (instructions.len(), &instructions[0]);
            faults.push(format!("{name}: {fault}, {count}, the first at: {first}"));
        }
    }
    for isa in isas {
        for algorithm in Algorithm::ALL {
            let module = algorithm.name().trim_start_matches("experimental_");
            // A mode that is another's twin, or that the algorithm does not have, is none of its own.
            let takes = |state: State| Config::new(*algorithm).set(Key::State, state).is_ok();
            let required = [true, takes(State::Bf16), takes(State::Q8)];
            for (mode, _) in MODES.iter().zip(required).filter(|(_, required)| *required) {
                for pass in passes(*algorithm) {
                    // Without statistics, compact state is bf16's twin.
                    let twin = if ["20", "22"].contains(pass) && *mode == "2" { "4" } else { mode };
                    let paired = ["22", "23"].contains(pass) && *mode != "3";
                    // Prodigy's parameters wait for the next d where they are rounded.
                    let pairs = if module == "prodigy" { 2 } else { 3 };
                    for pair in ["0", "1", "2"].iter().take(if paired { pairs } else { 1 }) {
                        let is = |k: &Coded| {
                            (k.isa, k.algorithm.as_str(), k.pass.as_str(), k.pair.as_str())
                                == (isa.name(), module, *pass, *pair)
                                && [*mode, twin].contains(&k.mode.as_str())
                        };
                        if !kernels.keys().any(is) {
                            let what = format!("of pass {pass}, mode {mode}, pair {pair}");
                            faults.push(format!("{isa} {module}: no loop over rows {what}"));
                        }
                    }
                }
            }
        }
    }
    println!("{}: {} kernels with codecs", library.display(), kernels.len());
    faults
}
