//! `make install`, and programs that know nothing but pkg-config. make, pkg-config, gcc (or `CC`),
//! nm and readelf must be there.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{
    exported, global, golden_symbols, here, program, repository, run, scratch, target_dir, tool,
};

fn make(target: &str, variables: &[(&str, &Path)]) {
    let mut make = program(Path::new("make"));
    make.arg(target).current_dir(repository()).env("CARGO_TARGET_DIR", target_dir());
    // An outer make's flags would be this one's.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    for (name, value) in variables {
        make.arg(format!("{name}={}", value.display()));
    }
    run(&mut make);
}

/// An empty folder.
fn fresh(name: &str) -> PathBuf {
    let folder = scratch("install").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target directory is writable");
    folder
}

/// Files and links under a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let list = run(Command::new("find").args([".", "!", "-type", "d"]).current_dir(folder));
    let mut files: Vec<String> = list.lines().map(String::from).collect();
    files.sort();
    files
}

const INSTALLED: [&str; 6] = [
    "include/dadapt.h",
    "lib/libdadapt.a",
    "lib/libdadapt.so",
    "lib/libdadapt.so.0",
    concat!("lib/libdadapt.so.", env!("CARGO_PKG_VERSION")),
    "lib/pkgconfig/dadapt.pc",
];

fn pkg_config(prefix: &Path, args: &[&str]) -> Vec<String> {
    let path = prefix.join("lib/pkgconfig");
    let mut command = Command::new("pkg-config");
    let flags = run(command.env("PKG_CONFIG_PATH", path).args(args).arg("dadapt"));
    flags.split_whitespace().map(String::from).collect()
}

/// Compiles a test program in an empty folder against what is installed.
fn compile(prefix: &Path, name: &str, libs: &[String]) -> PathBuf {
    let folder = fresh(name);
    for file in ["surface.c", "check.h"] {
        fs::copy(here("tests/c").join(file), folder.join(file)).expect("a copy of a program");
    }
    run(tool("CC", "gcc")
        .current_dir(&folder)
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "surface.c",
            "-o",
            "program",
        ])
        .args(pkg_config(prefix, &["--cflags"]))
        .args(libs));
    folder.join("program")
}

#[test]
fn install_programs_find_it_by_pkg_config() {
    let prefix = fresh("prefix");
    make("install", &[("PREFIX", &prefix)]);
    let mut expected: Vec<String> = INSTALLED.iter().map(|file| format!("./{file}")).collect();
    expected.sort();
    assert_eq!(files(&prefix), expected);
    let lib = prefix.join("lib");
    let library = lib.join("libdadapt.so");
    assert_eq!(exported(&library), golden_symbols());
    assert_eq!(global(&lib.join("libdadapt.a")), golden_symbols());
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("soname: [libdadapt.so.0]"), "{dynamic}");
    let abi = "#define DADAPT_ABI_VERSION 0\n";
    assert!(fs::read_to_string(prefix.join("include/dadapt.h")).expect("the header").contains(abi));
    assert_eq!(pkg_config(&prefix, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);

    let shared = compile(&prefix, "shared", &pkg_config(&prefix, &["--libs"]));
    let needed = run(Command::new("readelf").arg("-d").arg(&shared));
    assert!(needed.contains("Shared library: [libdadapt.so.0]"), "{needed}");
    run(program(&shared).env("LD_LIBRARY_PATH", &lib));

    // All of the program static, then only this library.
    let mut flags = pkg_config(&prefix, &["--static", "--libs"]);
    flags.push("-static".into());
    run(&mut program(&compile(&prefix, "static", &flags)));
    flags.pop();
    let library = flags.iter_mut().find(|flag| *flag == "-ldadapt").expect("-ldadapt");
    *library = "-l:libdadapt.a".into();
    let mixed = compile(&prefix, "mixed", &flags);
    let needed = run(Command::new("readelf").arg("-d").arg(&mixed));
    assert!(!needed.contains("libdadapt"), "{needed}");
    run(&mut program(&mixed));

    example_in_an_empty_folder(&prefix);
    make("uninstall", &[("PREFIX", &prefix)]);
    assert_eq!(files(&prefix), [""; 0]);
}

/// The C example with its own Makefile, which asks pkg-config too.
fn example_in_an_empty_folder(prefix: &Path) {
    let folder = fresh("example");
    for entry in fs::read_dir(repository().join("examples/c")).expect("examples/c") {
        let from = entry.expect("a file of examples/c").path();
        let is_source =
            from.extension().is_some_and(|extension| extension == "c" || extension == "h");
        if is_source || from.ends_with("Makefile") {
            fs::copy(&from, folder.join(from.file_name().expect("a file"))).expect("a copy");
        }
    }
    fs::copy(repository().join("examples/data/digits.csv"), folder.join("digits.csv"))
        .expect("a copy of digits.csv");
    let mut make = program(Path::new("make"));
    make.current_dir(&folder)
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    run(make.arg("DIGITS_CSV=digits.csv"));
    let table = run(program(&folder.join("digits")).args(["--epochs", "1"]).current_dir(&folder));
    assert!(table.contains("D-Adapt Adam") && table.contains("D-Adapt SGD"), "{table}");
}

#[test]
fn install_under_destdir_names_only_the_prefix() {
    let root = fresh("root");
    make("install", &[("DESTDIR", &root), ("PREFIX", Path::new("/opt/dadapt"))]);
    let mut expected: Vec<String> =
        INSTALLED.iter().map(|file| format!("./opt/dadapt/{file}")).collect();
    expected.sort();
    assert_eq!(files(&root), expected);
    let config = fs::read_to_string(root.join("opt/dadapt/lib/pkgconfig/dadapt.pc"));
    let config = config.expect("dadapt.pc");
    assert!(config.starts_with("prefix=/opt/dadapt\n"), "{config}");
    assert!(!config.contains(root.to_str().expect("the path is UTF-8")), "{config}");
}
