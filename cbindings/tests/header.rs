//! `include/dadapt.h` is what the sources say. `UPDATE_HEADER=1 cargo test -p dadapt-capi --test
//! header` writes it anew.

mod support;

use cbindgen::{Builder, Config, DocumentationStyle, EnumConfig, Language, Style};
use dadapt::{Algorithm, DType, Isa, Key, State};
use std::fs;
use support::{golden_symbols, here};

/// The sections, each a source file, in the order in which they read best.
const SECTIONS: [&str; 13] = [
    "version",
    "status",
    "algorithm",
    "keys",
    "config",
    "optimizer",
    "tensors",
    "step",
    "parts",
    "state",
    "resume",
    "threads",
    "dlpack",
];

fn read(path: &str) -> String {
    fs::read_to_string(here(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn cbindgen_config() -> Config {
    Config {
        language: Language::C,
        style: Style::Both,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 100,
        tab_width: 4,
        usize_is_size_t: true,
        no_includes: true,
        enumeration: EnumConfig::default(),
        ..Config::default()
    }
}

/// One source file as a section: its title, then constants, types and functions.
fn section(name: &str) -> String {
    let path = format!("src/{name}.rs");
    let title =
        read(&path).lines().next().and_then(|line| line.strip_prefix("//! ")).map(String::from);
    let title = title.unwrap_or_else(|| panic!("{path} starts with its title"));
    let mut bytes = Vec::new();
    Builder::new()
        .with_config(cbindgen_config())
        .with_src(here(&path))
        .generate()
        .unwrap_or_else(|e| panic!("{path}: {e}"))
        .write(&mut bytes);
    let body = String::from_utf8(bytes).expect("cbindgen writes UTF-8");
    format!("\n/* ---- {title} ---- */\n\n{}\n", tidy(body.trim()))
}

/// Comments on one line where they fit, one-line constants without blank lines between, and no
/// "# Safety": the top of the header says of all pointers what those sections say to Rust.
fn tidy(text: &str) -> String {
    let mut lines = text.lines();
    let mut out: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() != "/**" {
            out.push(line.into());
            continue;
        }
        let comment = lines.by_ref().take_while(|line| line.trim() != "*/");
        let mut comment: Vec<&str> = comment.collect();
        comment
            .truncate(comment.iter().position(|l| l.contains("* # Safety")).unwrap_or(usize::MAX));
        comment.truncate(comment.iter().rposition(|l| l.trim() != "*").map_or(0, |last| last + 1));
        let indent = &line[..line.len() - line.trim_start().len()];
        let short = format!("{indent}/** {} */", comment[0].trim().trim_start_matches("* "));
        if comment.len() > 1 || short.len() > 100 {
            out.push(line.into());
            out.extend(comment.into_iter().map(String::from));
            out.push(format!("{indent} */"));
            continue;
        }
        let constant = |line: Option<&str>| line.is_some_and(|line| line.starts_with("#define"));
        if let [.., above, blank] = &out[..]
            && blank.is_empty()
            && constant(Some(above))
            && constant(lines.clone().next())
        {
            out.pop();
        }
        out.push(short);
    }
    out.join("\n")
}

fn render() -> String {
    let mut header = read("header/top.h")
        .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"));
    for name in SECTIONS {
        header += &section(name);
    }
    header + &read("header/bottom.h")
}

#[test]
fn header_sources_rendered_is_the_committed_one() {
    let rendered = render();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(here("../include/dadapt.h"), &rendered).expect("include/dadapt.h is writable");
    }
    assert!(
        read("../include/dadapt.h") == rendered,
        "include/dadapt.h is not current: UPDATE_HEADER=1 cargo test -p dadapt-capi --test header"
    );
}

/// Functions declared, sorted.
fn declared(header: &str) -> Vec<String> {
    let no_comments = header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
    let mut functions: Vec<String> = no_comments
        .flat_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("dadapt_"))
        .map(String::from)
        .collect();
    functions.sort();
    functions
}

#[test]
fn header_functions_are_the_golden_list() {
    assert_eq!(declared(&render()), golden_symbols());
}

#[test]
fn header_constants_cover_what_rust_has() {
    let header = render();
    let keys = Key::ALL.iter().map(|key| ("KEY", key.name(), *key as i32));
    let algorithms = Algorithm::ALL.iter().map(|a| ("ALGORITHM", a.name(), *a as i32));
    let isas = Isa::ALL.iter().map(|isa| ("ISA", isa.name(), *isa as i32));
    let dtypes = DType::ALL.iter().map(|dtype| ("DTYPE", dtype.name(), *dtype as i32));
    for (family, name, code) in keys.chain(algorithms).chain(isas).chain(dtypes) {
        let line = format!("#define DADAPT_{family}_{} {code}\n", name.to_uppercase());
        assert!(header.contains(&line), "the header lacks {line}");
    }
    for state in State::ALL {
        let line = format!(
            "#define DADAPT_STATE_{} {}\n",
            format!("{state:?}").to_uppercase(),
            state as i32
        );
        assert!(header.contains(&line), "the header lacks {line}");
    }
}
