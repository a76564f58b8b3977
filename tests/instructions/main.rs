//! Instructions that the library executes, counted under callgrind, against committed values: growth of
//! more than 2 % fails, and so does a fall of more than that until it is committed.
//!
//! What is counted is `libdadapt.so` as users link it, and of that only its own instructions: the C
//! library's depend on the machine. Counts belong to a compiler: with another rustc than the one that
//! made `counts.txt`, the test is skipped. `UPDATE_COUNTS=1` writes the file anew. gcc (or `CC`) and
//! valgrind (or `VALGRIND`) with its headers must be there.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../codegen/library.rs"]
mod library;

use dadapt::Isa;
use library::{compiler, native, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Growth and fall that are let pass, as a fraction.
const TOLERANCE: f64 = 0.02;

/// What was counted, and instructions for 1,000 elements in a step.
type Counts = BTreeMap<String, f64>;

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions").join(file)
}

fn tool(variable: &str, default: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or(default.into()))
}

/// Compiles the program that steps, and returns what callgrind counted.
fn count() -> Counts {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    std::fs::create_dir_all(&folder).expect("the target directory is writable");
    let library = native();
    // Programs ask for the soname, which cargo gives no file.
    let soname = folder.join("libdadapt.so.0");
    let _ = std::fs::remove_file(&soname);
    std::os::unix::fs::symlink(&library, &soname).expect("a link to the library");
    let program = folder.join("count");
    run(tool("CC", "gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(here("count.c"))
        .arg(&soname)
        .arg(format!("-Wl,-rpath,{}", folder.display()))
        .arg("-o")
        .arg(&program));
    let file = folder.join("callgrind.out");
    let isas = [Isa::Scalar, Isa::Avx2].into_iter().filter(|isa| isa.is_available());
    run(tool("VALGRIND", "valgrind")
        .args(["--tool=callgrind", "--combine-dumps=yes", "--compress-strings=no"])
        .args(["--dump-line=no", "--read-inline-info=no", "--instr-atstart=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(isas.map(Isa::name))
        .env_remove("DADAPT_ISA")
        .env_remove("DADAPT_NUM_THREADS"));
    let text = std::fs::read_to_string(file).expect("callgrind's file");
    counts_of(&text)
}

/// Reads callgrind's dumps: those that were asked for, each with its title, which ends in the number of
/// elements stepped. A line of cost after `calls=` is the callee's, which has lines of its own.
fn counts_of(text: &str) -> Counts {
    const TITLE: &str = "desc: Trigger: Client Request: ";
    let mut counts = Counts::new();
    let (mut title, mut ours, mut callee) = (None, false, false);
    for line in text.lines() {
        if let Some(trigger) = line.strip_prefix("desc: Trigger: ") {
            title = line.strip_prefix(TITLE).map(|title| {
                let (name, elements) = title.split_once(" / ").expect("a number of elements");
                (name.to_string(), elements.parse::<f64>().expect("a number of elements"))
            });
            assert!(title.is_some() || trigger.starts_with("Program"), "an unknown dump: {line}");
        } else if let Some(object) = line.strip_prefix("ob=") {
            ours = object.contains("libdadapt");
        } else if line.starts_with("calls=") {
            callee = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<f64>().ok());
            if let (Some((name, elements)), true, false) = (&title, ours, callee) {
                let instructions = cost.expect("a line of cost has a number");
                *counts.entry(name.clone()).or_default() += instructions * 1e3 / elements;
            }
            callee = false;
        }
    }
    counts
}

/// The file's counts, and the compiler that they belong to.
fn committed() -> (String, Counts) {
    let text = std::fs::read_to_string(here("counts.txt")).expect("tests/instructions/counts.txt");
    let compiler = text.lines().find_map(|line| line.strip_prefix("# compiler: "));
    let counts = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, count) = line.rsplit_once(' ').expect("a name and a count");
        (name.trim().into(), count.parse().expect("a count"))
    });
    (compiler.expect("a line that names the compiler").into(), counts.collect())
}

fn write(counts: &Counts) {
    let mut text = format!(
        "# Instructions of libdadapt.so for 1,000 elements in a step (`small`: in a step of one tensor of\n\
         # 1,000). `UPDATE_COUNTS=1 cargo test --test instructions` writes this file.\n\
         # compiler: {}\n",
        compiler(None)
    );
    let width = counts.keys().map(String::len).max().unwrap_or_default();
    for (name, count) in counts {
        writeln!(text, "{name:width$} {count:.0}").expect("writing to a string");
    }
    std::fs::write(here("counts.txt"), text).expect("the file can be written");
}

#[test]
fn counts_are_the_committed_ones() {
    if std::env::var_os("UPDATE_COUNTS").is_some_and(|value| value == "1") {
        return write(&count());
    }
    let (of, committed) = committed();
    let ours = compiler(None);
    if of != ours {
        println!("SKIPPED instruction counts: they are of {of}, and this is {ours}");
        println!("To count with it: UPDATE_COUNTS=1 cargo test --test instructions");
        return;
    }
    let counts = count();
    let names: BTreeSet<&String> = committed.keys().chain(counts.keys()).collect();
    let mut faults = Vec::new();
    for name in names {
        faults.extend(match (committed.get(name), counts.get(name)) {
            (Some(old), Some(new)) if *new > old * (1.0 + TOLERANCE) => {
                Some(format!("{name}: {old} instructions have become {new:.0}"))
            }
            (Some(old), Some(new)) if *new < old * (1.0 - TOLERANCE) => {
                Some(format!("{name}: {old} instructions are only {new:.0} now: commit that"))
            }
            (Some(_), Some(_)) => None,
            (Some(_), None) if name.ends_with("avx2") && !Isa::Avx2.is_available() => None,
            (Some(_), None) => Some(format!("{name}: not counted any more: take it off")),
            (None, _) => Some(format!("{name}: not committed yet")),
        });
    }
    let advice = "where that is meant: UPDATE_COUNTS=1 cargo test --test instructions";
    assert!(faults.is_empty(), "{}\n{advice}", faults.join("\n"));
    if !Isa::Avx2.is_available() {
        println!("SKIPPED avx2");
    }
}
