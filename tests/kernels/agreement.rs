//! The table of `docs/agreement.md`: every golden case and how far the kernels are from it.
//!
//! `UPDATE_DOCS=1 cargo test --test kernels agreement` writes it. The errors are the same on every
//! machine and instruction set, since the kernels' bits are and the references' are files.

use crate::golden::check_open;
use crate::golden_files::Golden;
use crate::rows::check_golden;
use crate::run::reference_name;
use dadapt::{Algorithm, Isa, Key};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::{env, fs};

const HEAD: &str = "# Agreement with the reference packages

Written by a test (`UPDATE_DOCS=1 cargo test --test kernels agreement`), which also fails if it is not
up to date. Every golden case: recorded gradients, replayed through the kernels. `p` is the worst error
of a parameter at any snapshot, relative to the largest element of its tensor, `d` the worst relative
error of the estimate after any step. The same on every instruction set. The f32 packages sum in
f32, so f32 columns show their roundings as well; `docs/numerics.md` says what bounds the tests hold.

`plain_lion` and `plain_adan` have no reference among the packages that pip installs and PyTorch: they
are compared with the f64 oracle in `tests/oracle` only. `slice_p` of algorithms other than Prodigy,
`layer_scale` of those other than Adam and Lion's `growth_rate` are this library's own; the oracle is their
truth, or a change of variables around the package (`tests/golden/README.md`).

";

#[test]
fn table_is_up_to_date() {
    let mut table = String::from(HEAD);
    table.push_str("| algorithm | options that are not the default | reference | steps | f64 p | f64 d | f32 p | f32 d |\n");
    table.push_str("|---|---|---|--:|--:|--:|--:|--:|\n");
    let dense = Golden::open("f64").into_iter().zip(Golden::open("f32"));
    let mut rows: Vec<_> = dense
        .map(|(double, single)| {
            let f64 = check_open::<f64>(&double, Isa::Scalar);
            (row(&double), f64, check_open::<f32>(&single, Isa::Scalar))
        })
        .collect();
    let sparse = Golden::sparse("f64").into_iter().zip(Golden::sparse("f32"));
    rows.extend(sparse.map(|(double, single)| {
        let f64 = check_golden::<f64>(&double, Isa::Scalar);
        (row(&double), f64, check_golden::<f32>(&single, Isa::Scalar))
    }));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    for (row, (p64, d64), (p32, d32)) in rows {
        writeln!(table, "{row} {p64:.0e} | {d64:.0e} | {p32:.0e} | {d32:.0e} |").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agreement.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, &table).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap();
    assert!(committed == table, "docs/agreement.md is not up to date: set UPDATE_DOCS=1");
}

fn row(case: &Golden) -> String {
    let named = |algorithm: &&Algorithm| reference_name(**algorithm) == case.algorithm;
    let algorithm = Algorithm::ALL.iter().find(named).unwrap();
    let default = |name: &str| {
        let key = Key::from_name(name).ok()?;
        algorithm.options().iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    };
    let set = case.options().filter(|(_, name, value)| default(name) != Some(*value));
    let mut options: BTreeSet<String> =
        set.map(|(_, name, value)| format!("{name} {value}")).collect();
    options.extend(case.changes().map(|change| format!("{} changes", change.option)));
    if case.name.contains("gaps") {
        options.insert("tensors without gradients".into());
    }
    let rows = if case.name.starts_with("sparse") { ", rows" } else { "" };
    let options = Vec::from_iter(options).join(", ");
    let reference = match case.algorithm.as_str() {
        "prodigy" => "prodigyopt 1.1.2",
        name if name.starts_with("plain") => "torch 2.15.0",
        _ => "dadaptation 3.2",
    };
    format!("| {algorithm}{rows} | {options} | {reference} | {} |", case.steps)
}
