//! The programs in `tests/c`, compiled strictly against `include/dadapt.h` and run: with the static
//! library, under valgrind, and with the shared library. gcc, g++ (or `CC`, `CXX`), valgrind and nm
//! must be there.

mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use support::{
    SYSTEM_LIBS, exported, golden_symbols, here, program, repository, run, scratch, target_dir,
    tool,
};

/// The folder with the libraries, built with the hook for faults and kept apart from what users build.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Where what they consist of has been compiled for other tests.
        let (built, kept) = (target_dir(), scratch("capi"));
        let cargo = ["build", "--locked", "--lib", "--package", "dadapt-capi", "--profile", "test"];
        run(tool("CARGO", "cargo")
            .args(cargo)
            .args(["--features", "fault-injection", "--target-dir"])
            .arg(&built)
            .current_dir(repository()));
        for name in ["libdadapt.a", "libdadapt.so"] {
            std::fs::copy(built.join("debug").join(name), kept.join(name)).expect("a library");
        }
        kept
    })
}

#[derive(Clone, Copy)]
enum Link {
    Static,
    Shared,
}

/// Compiles a file, of `tests/c` where it has no path, and returns the program.
///
/// `purpose` keeps tests that run at once from writing the same file.
fn compile(file: &str, link: Link, purpose: &str) -> PathBuf {
    let (mut compiler, standard) = match file.ends_with(".cpp") {
        true => (tool("CXX", "g++"), "-std=c++11"),
        false => (tool("CC", "gcc"), "-std=c99"),
    };
    let source =
        if Path::new(file).is_absolute() { file.into() } else { here("tests/c").join(file) };
    let name = source.file_name().expect("a file").to_string_lossy().into_owned();
    let program = scratch("c").join(format!("{name}.{purpose}"));
    compiler
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"])
        .arg("-ffp-contract=off")
        .arg("-I")
        .arg(here("../include"))
        .arg("-I")
        .arg(here("tests/c"))
        .arg(source)
        .arg("-o")
        .arg(&program);
    match link {
        Link::Static => compiler.arg(library().join("libdadapt.a")),
        Link::Shared => {
            // Programs ask for the soname, which cargo gives no file.
            let soname = library().join("libdadapt.so.0");
            let _ = std::fs::remove_file(&soname);
            std::os::unix::fs::symlink("libdadapt.so", &soname).expect("a link to the library");
            compiler
                .arg("-L")
                .arg(library())
                .arg("-ldadapt")
                .arg(format!("-Wl,-rpath,{}", library().display()))
        }
    };
    run(compiler.args(SYSTEM_LIBS));
    program
}

fn run_plainly(file: &str) {
    run(&mut program(&compile(file, Link::Static, "plain")));
}

fn run_under_valgrind(file: &str) {
    run(tool("VALGRIND", "valgrind")
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--read-inline-info=no"])
        // Threads of a pool that is going may still hold what is theirs: only "possibly" lost.
        .args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"])
        .arg(compile(file, Link::Static, "valgrind")));
}

macro_rules! programs {
    ($($name:ident, $file:literal, $run:ident;)+) => {
        $(#[test] fn $name() { $run($file); })+
    };
}

programs! {
    surface_all_calls_behave, "surface.c", run_plainly;
    surface_under_valgrind_is_clean, "surface.c", run_under_valgrind;
    refusals_bad_steps_change_nothing, "refusals.c", run_plainly;
    refusals_under_valgrind_is_clean, "refusals.c", run_under_valgrind;
    training_changes_between_steps_agree, "training.c", run_plainly;
    training_under_valgrind_is_clean, "training.c", run_under_valgrind;
    parts_of_several_threads_are_a_whole_step, "parts.c", run_plainly;
    parts_under_valgrind_is_clean, "parts.c", run_under_valgrind;
    rows_touch_what_they_say, "rows.c", run_plainly;
    rows_under_valgrind_is_clean, "rows.c", run_under_valgrind;
    repeat_descriptors_of_before_give_the_same_bits, "repeat.c", run_plainly;
    repeat_under_valgrind_is_clean, "repeat.c", run_under_valgrind;
    resume_another_goes_on_to_the_bit, "resume.c", run_plainly;
    resume_under_valgrind_is_clean, "resume.c", run_under_valgrind;
    family_algorithms_by_number_train, "family.c", run_plainly;
    family_under_valgrind_is_clean, "family.c", run_under_valgrind;
    dtypes_short_ones_train_and_are_refused, "dtypes.c", run_plainly;
    dlpack_arrays_that_fit_are_found, "dlpack.c", run_plainly;
    dlpack_under_valgrind_is_clean, "dlpack.c", run_under_valgrind;
    dtypes_under_valgrind_is_clean, "dtypes.c", run_under_valgrind;
    executor_gives_the_same_bits, "executor.c", run_plainly;
    executor_under_valgrind_is_clean, "executor.c", run_under_valgrind;
    faults_panics_poison_the_handle, "faults.c", run_plainly;
    faults_under_valgrind_is_clean, "faults.c", run_under_valgrind;
    variables_forced_or_wrong_are_obeyed_or_refused, "variables.c", run_plainly;
    variables_under_valgrind_is_clean, "variables.c", run_under_valgrind;
    cplusplus_header_compiles_and_works, "cplusplus.cpp", run_plainly;
    cplusplus_under_valgrind_is_clean, "cplusplus.cpp", run_under_valgrind;
    // valgrind counts as lost what a child leaves of its parent's pool, needs address space, knows
    // neither flushing nor traps, and replaces malloc itself.
    fork_child_steps_to_the_same_bits, "fork.c", run_plainly;
    limits_no_threads_or_memory_changes_nothing, "limits.c", run_plainly;
    environment_callers_is_hidden_and_restored, "environment.c", run_plainly;
    allocations_small_steps_make_none, "allocations.c", run_plainly;
}

#[test]
fn shared_library_programs_run() {
    let files = [
        "surface.c",
        "refusals.c",
        "training.c",
        "parts.c",
        "family.c",
        "dtypes.c",
        "rows.c",
        "environment.c",
    ];
    for file in files.into_iter().chain(["cplusplus.cpp"]) {
        run(&mut program(&compile(file, Link::Shared, "shared")));
    }
}

/// Of a constant's family, the function that names its members; statuses are named in full.
const NAMES: [(&str, &str); 5] = [
    ("DADAPT_KEY_", "dadapt_key_name"),
    ("DADAPT_ALGORITHM_", "dadapt_algorithm_name"),
    ("DADAPT_DTYPE_", "dadapt_dtype_name"),
    ("DADAPT_ISA_", "dadapt_isa_name"),
    ("DADAPT_ERROR_", "dadapt_status_name"),
];

#[test]
fn constants_names_are_the_headers() {
    let header = std::fs::read_to_string(here("../include/dadapt.h")).expect("the header");
    let mut checks = String::new();
    let mut count = 0;
    for constant in header.lines().filter_map(|line| line.strip_prefix("#define ")) {
        let constant = constant.split_whitespace().next().unwrap_or_default();
        let family = NAMES.iter().find(|(prefix, _)| constant.starts_with(prefix));
        let Some((prefix, function)) = family else { continue };
        let name = match *prefix {
            "DADAPT_ERROR_" => constant.into(),
            prefix => constant[prefix.len()..].to_lowercase(),
        };
        checks += &format!("    CHECK(!strcmp({function}({constant}), \"{name}\"));\n");
        count += 1;
    }
    assert!(count > 50, "only {count} constants found");
    let source = scratch("c").join("constants.c");
    let text = format!("#include \"check.h\"\n\nint main(void)\n{{\n{checks}    return 0;\n}}\n");
    std::fs::write(&source, text).expect("the scratch folder is writable");
    run_plainly(source.to_str().expect("the path is UTF-8"));
}

#[test]
fn shared_library_exports_the_golden_list_and_the_hook() {
    let mut expected = golden_symbols();
    expected.push("dadapt_fault_inject".into());
    expected.sort();
    assert_eq!(exported(&library().join("libdadapt.so")), expected);
}
