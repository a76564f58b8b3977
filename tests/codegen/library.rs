//! The C library as users build it: cargo's release profile, default features.

use std::path::{Path, PathBuf};
use std::process::Command;

/// cargo's target directory.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is target/tmp").into()
}

/// What the compiler that cargo runs, or another, calls itself.
pub fn compiler(rustc: Option<&Path>) -> String {
    let cargos = || std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut rustc = Command::new(rustc.map_or_else(cargos, |path| path.as_os_str().to_owned()));
    run(rustc.arg("--version")).trim().into()
}

/// `libdadapt.so` for this machine, where `make install` builds it too.
pub fn native() -> PathBuf {
    build(&target_dir(), &[], &[]).join("release/libdadapt.so")
}

/// `libdadapt.so` for AArch64, by a rustc of its own.
#[allow(dead_code)] // not every test program builds it
pub fn aarch64(rustc: &Path) -> PathBuf {
    const TRIPLE: &str = "aarch64-unknown-linux-gnu";
    let environment = [
        ("RUSTC", rustc.to_str().expect("the path is UTF-8")),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
    ];
    build(&target_dir().join("cross"), &["--target", TRIPLE], &environment)
        .join(TRIPLE)
        .join("release/libdadapt.so")
}

fn build(target: &Path, args: &[&str], environment: &[(&str, &str)]) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "--lib", "--package", "dadapt-capi", "--locked"])
        .args(args)
        .arg("--target-dir")
        .arg(target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .envs(environment.iter().copied());
    run(&mut cargo);
    target.into()
}

/// Runs it to its good end and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
