//! Folders and commands of the tests that compile C.

#![allow(dead_code)] // each test program uses some

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a static `libdadapt.a` needs besides.
pub const SYSTEM_LIBS: [&str; 5] = ["-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

pub fn repository() -> PathBuf {
    here("..")
}

/// A path in this package.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder for a test's files, in cargo's target directory.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the target directory is writable");
    folder
}

/// cargo's target directory.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is target/tmp").into()
}

/// A command that the environment may replace: `CC`, `CXX`, `CARGO`.
pub fn tool(variable: &str, default: &str) -> Command {
    program(Path::new(&std::env::var_os(variable).unwrap_or(default.into())))
}

/// A command without what these variables would force upon its library.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("DADAPT_ISA").env_remove("DADAPT_NUM_THREADS");
    command
}

/// Runs it to its good end and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The functions that the golden list has, in its order.
pub fn golden_symbols() -> Vec<String> {
    let list = std::fs::read_to_string(here("symbols.txt")).expect("symbols.txt");
    list.lines().map(String::from).collect()
}

/// What a shared library exports, sorted.
pub fn exported(library: &Path) -> Vec<String> {
    defined(&["-D"], library)
}

/// What a static library shows to programs, sorted.
pub fn global(library: &Path) -> Vec<String> {
    defined(&["-g"], library)
}

fn defined(table: &[&str], library: &Path) -> Vec<String> {
    let table = run(Command::new("nm").arg("--defined-only").args(table).arg(library));
    let name = |line: &str| line.split_whitespace().nth(2).map(String::from);
    let mut symbols: Vec<String> = table.lines().filter_map(name).collect();
    symbols.sort();
    symbols
}
