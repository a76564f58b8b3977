//! The generated code: every kernel's loop over rows, in the library that users link, disassembled.
//!
//! A loop is known by the line tables: they name the `with_simd` that an address was compiled from,
//! with algorithm, element type, kind of decay, pass and instruction set. docs/codegen.md says what
//! is checked and why. objdump and addr2line must be there.
//!
//! NEON is read from a library built for AArch64, where there is a rustc that can (`DADAPT_NEON_RUSTC`,
//! or where `.ci/neon` puts it), gcc-aarch64-linux-gnu and its binutils; else it is skipped, which
//! `DADAPT_REQUIRE_CODEGEN=neon` makes a failure. `DADAPT_CODEGEN_DUMP=folder` writes each loop to a
//! file there.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod assembly;
mod checks;
mod coded;
mod flow;
mod library;

use assembly::{frames, functions};
use checks::{Body, Machine, NOT_FUSED, SPILLS};
use dadapt::{Algorithm, DType, Isa, Key};
use flow::stack_pointers;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A kernel, as its `with_simd` names it. The algorithm is the module in `src/algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kernel<'a> {
    isa: &'static str,
    dtype: &'a str,
    algorithm: &'a str,
    decay: u8,
    pass: u8,
}

/// The bit of a pass that adds to sums (`pass::SUMS`), and the two passes of every algorithm.
const SUMS: u8 = 1;
const ALL: u8 = 23;
const UPDATE: u8 = 22;
/// The passes that advance state, with sums and without, and the one that moves the parameter alone.
const HALVES: [u8; 3] = [19, 18, 20];

/// What the loops were last read with, natively and for NEON. Others may make other loops of the same
/// source, which would be no fault of a change to it: with them the tests are skipped.
const COMPILER: &str = "rustc 1.95.0 ";
const NEON_COMPILER: &str = "rustc 1.96.0 ";

/// Kernels that put vector registers on the stack in every row; kernels without sums are never excused.
/// Growth shows in the instruction counts.
const SPILLING: [(&str, &str, &[&str]); 4] = [
    // 4 to 6 of 16 registers are sums. The other way, all coefficients in memory, spills less and is
    // slower: the loads bind. See `WORKING` in src/kernel/coeffs.rs.
    ("avx2", "f32", &["adagrad", "adam", "adam_preprint", "adan", "adan_ip"]),
    // 8 to 12 of 16 registers are sums.
    (
        "avx2",
        "f64",
        &["adagrad", "adagrad_rows", "adam", "adam_preprint", "adan", "adan_ip", "lion", "prodigy"],
    ),
    // 8 to 12 of 32 registers are sums, as many coefficients, and LLVM computes a row's four registers
    // side by side.
    (
        "neon",
        "f32",
        &["adagrad", "adagrad_rows", "adam", "adam_preprint", "adan", "adan_ip", "prodigy"],
    ),
    // 16 to 24 of 32 registers are sums, or they are on the stack and the loop is over registers.
    (
        "neon",
        "f64",
        &[
            "adagrad",
            "adagrad_rows",
            "adam",
            "adam_preprint",
            "adan",
            "adan_ip",
            "lion",
            "prodigy",
            "sgd",
        ],
    ),
];

/// Kernels without a product beside a sum. Adam's step is a quotient, which the pass that moves the
/// parameter alone (`pass::PARAMETER | pass::MOMENT`) takes from it; coupled decay is not in that pass.
const NOTHING_TO_FUSE: [(&str, u8, &[u8]); 1] = [("adam", 20, &[0, 1])];

impl<'a> Kernel<'a> {
    /// From `with_simd<f32, dadapt::algorithm::adam::Adam, 8, 3, 2, 0, 23, pulp::x86::v3::V3>`.
    fn from_frame(frame: &'a str) -> Option<Self> {
        let parameters = frame.strip_prefix("with_simd<")?.strip_suffix('>')?;
        let parameters: Vec<&str> = parameters.split(", ").collect();
        let [dtype, rule, _, _, _, decay, pass, simd] = parameters[..] else { return None };
        let isa = match simd.rsplit("::").next()? {
            "V3" => Isa::Avx2,
            "V4" => Isa::Avx512,
            "Neon" => Isa::Neon,
            _ => Isa::Scalar,
        };
        Some(Kernel {
            isa: isa.name(),
            dtype,
            algorithm: rule.strip_prefix("dadapt::algorithm::")?.split("::").next()?,
            decay: decay.parse().ok()?,
            pass: pass.parse().ok()?,
        })
    }

    fn machine(&self) -> Machine {
        let isa = Isa::from_name(self.isa).expect("it comes from one");
        Machine { isa, dtype: if self.dtype == "f32" { DType::F32 } else { DType::F64 } }
    }

    fn may_spill(&self) -> bool {
        let listed = |(isa, dtype, algorithms): &(&str, &str, &[&str])| {
            (*isa, *dtype) == (self.isa, self.dtype) && algorithms.contains(&self.algorithm)
        };
        self.pass & SUMS != 0 && SPILLING.iter().any(listed)
    }

    fn has_nothing_to_fuse(&self) -> bool {
        NOTHING_TO_FUSE.iter().any(|(algorithm, pass, decays)| {
            (*algorithm, *pass) == (self.algorithm, self.pass) && decays.contains(&self.decay)
        })
    }
}

impl std::fmt::Display for Kernel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Kernel { isa, dtype, algorithm, decay, pass } = self;
        write!(f, "{isa}-{dtype}-{algorithm}-decay{decay}-pass{pass}")
    }
}

/// Reads a library's kernels and says what is wrong with them, or with the table.
fn check(library: &Path, tools: &str, isas: &[Isa]) -> Vec<String> {
    let any = Machine { isa: isas[0], dtype: DType::F32 };
    let functions = functions(library, tools);
    // Each innermost loop with arithmetic, and the first address of that.
    let mut loops = Vec::new();
    for function in &functions {
        for found in &function.loops {
            let mut body = found.iter().map(|i| &function.instructions[*i]);
            if let Some(arithmetic) = body.find(|instruction| any.is_arithmetic(instruction)) {
                loops.push((function, found, arithmetic.address));
            }
        }
    }
    let addresses: Vec<u64> = loops.iter().map(|(.., address)| *address).collect();
    let frames = frames(library, tools, &addresses);
    let mut kernels = BTreeMap::<Kernel, Vec<Body>>::new();
    let mut known = None;
    for ((function, found, _), frames) in loops.iter().zip(&frames) {
        let kernel = frames.iter().find_map(|frame| Kernel::from_frame(frame));
        let Some(kernel) = kernel.filter(|kernel| has(isas, kernel.isa)) else { continue };
        // The loops of a function come one after the other.
        let pointers = match known.take() {
            Some((of, pointers)) if std::ptr::eq(of, *function) => pointers,
            _ => stack_pointers(&function.instructions, &any),
        };
        let with_pointers = |i: &usize| (function.instructions[*i].clone(), pointers[*i].clone());
        let body: Body = found.iter().map(with_pointers).collect();
        // Other loops bring sums from lanes to f64, once in a while.
        if kernel.machine().is_over_rows(&body) {
            kernels.entry(kernel).or_default().push(body);
        }
        known = Some((*function, pointers));
    }
    let mut faults = Vec::new();
    for isa in isas {
        let found = kernels.keys().filter(|kernel| kernel.isa == isa.name());
        faults.extend(missing(*isa, &found.copied().collect()));
    }
    let mut spilling = BTreeSet::new();
    for (kernel, loops) in &kernels {
        for (number, body) in loops.iter().enumerate() {
            dump(&format!("{kernel}-{number}"), body);
            for (fault, instructions) in kernel.machine().faults(body).0 {
                if fault == SPILLS && kernel.may_spill() {
                    spilling.insert((kernel.isa, kernel.dtype, kernel.algorithm));
                    continue;
                }
                if fault == NOT_FUSED && kernel.has_nothing_to_fuse() {
                    continue;
                }
                let (count, first) = (instructions.len(), &instructions[0]);
                faults.push(format!("{kernel}: {fault}, {count}, the first at: {first}"));
            }
        }
    }
    for (isa, dtype, algorithms) in SPILLING.iter().filter(|(isa, ..)| has(isas, isa)) {
        for algorithm in algorithms.iter().filter(|a| !spilling.contains(&(*isa, *dtype, **a))) {
            faults
                .push(format!("{isa} {dtype} {algorithm} no longer spills: take it off SPILLING"));
        }
    }
    println!("{}: {} kernels", library.display(), kernels.len());
    faults.extend(coded::check(library, tools, &functions, isas));
    faults
}

/// Whether an algorithm estimates `d`.
fn adapts(algorithm: &Algorithm) -> bool {
    algorithm.options().iter().any(|(key, _)| *key == Key::D0)
}

fn has(isas: &[Isa], name: &str) -> bool {
    isas.iter().any(|isa| isa.name() == name)
}

/// Kernels that there must be: of every algorithm and element type, and of each the same kinds.
fn missing(isa: Isa, found: &BTreeSet<Kernel>) -> Vec<String> {
    let mut faults = Vec::new();
    for algorithm in Algorithm::ALL {
        let module = algorithm.name().trim_start_matches("experimental_");
        let rows = format!("{module}_rows");
        let modules = [Some(module), algorithm.rows_state_names().next().map(|_| rows.as_str())];
        for module in modules.into_iter().flatten() {
            // LLVM merges kernels that come out the same, as where decay makes no difference to a pass
            // that only writes state or only parameters.
            let kinds = |dtype| -> BTreeSet<(u8, u8)> {
                let of = found.iter().filter(|k| k.algorithm == module && k.dtype == dtype);
                of.map(|k| (if k.pass & UPDATE == UPDATE { k.decay } else { 0 }, k.pass)).collect()
            };
            let (f32s, f64s) = (kinds("f32"), kinds("f64"));
            // In f32, state may be rounded, and the two halves of a step run one by one.
            let halves = f32s.difference(&f64s).all(|(_, pass)| HALVES.contains(pass));
            if !halves || !f64s.is_subset(&f32s) {
                faults.push(format!("{isa} {module}: f32 has kernels {f32s:?}, f64 {f64s:?}"));
            }
            for pass in [UPDATE, ALL].into_iter().take(if adapts(algorithm) { 2 } else { 1 }) {
                if !f32s.contains(&(0, pass)) {
                    faults.push(format!("{isa} {module}: no loop over rows of pass {pass}"));
                }
            }
        }
    }
    faults
}

/// Writes a loop to a file, where the environment asks for it, as llvm-mca takes it.
fn dump(name: &str, body: &Body) {
    let Some(folder) = std::env::var_os("DADAPT_CODEGEN_DUMP") else { return };
    std::fs::create_dir_all(&folder).expect("a folder that can be written");
    let lines = body.iter().map(|(instruction, _)| {
        // Where a branch goes to means nothing outside of the library.
        match instruction.operands.last().is_some_and(|operand| operand.contains('<')) {
            true => format!("\t{} .\n", instruction.name),
            false => format!("\t{instruction}\n"),
        }
    });
    let file = Path::new(&folder).join(format!("{name}.s"));
    std::fs::write(file, lines.collect::<String>()).expect("a folder that can be written");
}

fn assert_none(faults: &[String]) {
    let advice =
        "docs/codegen.md says what is checked, and DADAPT_CODEGEN_DUMP=folder shows the loops";
    assert!(faults.is_empty(), "{} faults:\n{}\n{advice}", faults.len(), faults.join("\n"));
}

/// Whether the compiler is the one that the loops were last read with; says so where it is not.
fn is_known(rustc: Option<&Path>, known: &str) -> bool {
    let ours = library::compiler(rustc);
    if !ours.starts_with(known) {
        println!("SKIPPED: the loops were last read with {known}and this is {ours}");
        println!("To go on with it, put it in COMPILER or NEON_COMPILER, tests/codegen/main.rs");
    }
    ours.starts_with(known)
}

#[cfg(target_arch = "x86_64")]
const NATIVE: [Isa; 2] = [Isa::Avx2, Isa::Avx512];
#[cfg(target_arch = "aarch64")]
const NATIVE: [Isa; 1] = [Isa::Neon];

#[test]
fn loops_of_this_machine_are_wide_fused_and_do_not_spill() {
    let known = if cfg!(target_arch = "aarch64") { NEON_COMPILER } else { COMPILER };
    if is_known(None, known) {
        assert_none(&check(&library::native(), "", &NATIVE));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn loops_of_neon_are_wide_fused_and_do_not_spill() {
    use std::process::Command;
    const TOOLS: &str = "aarch64-linux-gnu-";
    let there =
        |tool: &str| Command::new(format!("{TOOLS}{tool}")).arg("--version").output().is_ok();
    let rustc = neon_rustc();
    let missing = ["objdump", "addr2line", "gcc"].into_iter().find(|tool| !there(tool));
    if let (Some(rustc), None) = (&rustc, missing) {
        if is_known(Some(rustc), NEON_COMPILER) {
            assert_none(&check(&library::aarch64(rustc), TOOLS, &[Isa::Neon]));
        }
        return;
    }
    let why = missing.map_or("rustc for AArch64".into(), |tool| format!("{TOOLS}{tool}"));
    let required = std::env::var("DADAPT_REQUIRE_CODEGEN").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "neon"), "neon is required: no {why}");
    println!("SKIPPED neon: no {why}");
}

#[cfg(target_arch = "x86_64")]
fn neon_rustc() -> Option<std::path::PathBuf> {
    let variable = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    let rustc = variable("DADAPT_NEON_RUSTC").unwrap_or(cache.join("dadapt/neon/rustc"));
    rustc.exists().then_some(rustc)
}
