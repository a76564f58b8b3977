//! The table of `docs/dtypes.md`: bytes that the state of a parameter takes, and that a step moves.
//!
//! `UPDATE_DOCS=1 cargo test --test api bytes` writes it.

use dadapt::{Algorithm, Config, DType, Error, GroupId, Key, Optimizer, State};
use std::fmt::Write;
use std::{env, fs};

const START: &str = "<!-- From here on: UPDATE_DOCS=1 cargo test --test api bytes -->\n";
const END: &str = "<!-- To here. -->\n";

/// Long enough for the ends of tiles not to count.
const LEN: usize = 1 << 20;

/// The kinds of parameter, each with a gradient of its own type.
const KINDS: [(&str, DType, bool); 3] = [
    ("f32", DType::F32, true),
    ("bf16, master copy", DType::Bf16, true),
    ("bf16 alone", DType::Bf16, false),
];

/// State that is set up once and then only read.
const READ_ONLY: [&str; 2] = ["x0", "p0"];

/// Bytes kept and moved a parameter; `None` where the algorithm keeps no state that may be rounded.
fn bytes(algorithm: Algorithm, state: State, dtype: DType, master: bool) -> Option<(f64, f64)> {
    let mut config = Config::new(algorithm);
    config.set(Key::Master, master).unwrap();
    match config.set(Key::State, state) {
        Err(Error::NothingToRound { .. }) => return None,
        set => set.unwrap(),
    };
    if algorithm == Algorithm::PlainSgd {
        config.set(Key::Momentum, 0.9).unwrap();
    }
    let mut optimizer = Optimizer::new(&config).unwrap();
    // Of the caller's, so that nothing is allocated.
    let id = optimizer.add_tensor_with_state_of_caller(GroupId::FIRST, "w", dtype, LEN).unwrap();
    // The parameter is read and written, the gradient read.
    let (mut kept, mut moved) = (0, 3 * LEN * dtype.size());
    for slot in optimizer.state_names(id).unwrap() {
        let (_, bytes) = optimizer.state_bytes(id, slot).unwrap();
        kept += bytes;
        moved += if READ_ONLY.contains(&slot) { bytes } else { 2 * bytes };
    }
    Some((kept as f64 / LEN as f64, moved as f64 / LEN as f64))
}

fn table() -> String {
    let mut table = String::from(
        "| algorithm | parameter and gradient | `full` | `compact` | `bf16` | `q8` |\n\
         |---|---|--:|--:|--:|--:|\n",
    );
    for algorithm in Algorithm::ALL {
        for (kind, dtype, master) in KINDS {
            write!(table, "| `{algorithm}` | {kind} |").unwrap();
            for state in State::ALL {
                match bytes(*algorithm, state, dtype, master) {
                    // To whole bytes: the exponents of 8-bit state are 1/256.
                    Some((kept, moved)) => write!(table, " {kept:.0} / {moved:.0} |").unwrap(),
                    None => table.push_str(" |"),
                }
            }
            table.push('\n');
        }
    }
    table
}

#[test]
fn dtypes_table_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dtypes.md");
    let mut page = fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once(START).expect("the page has the table's start");
    let (_, tail) = rest.split_once(END).expect("the page has the table's end");
    let written = [head, START, "\n", &table(), "\n", END, tail].concat();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, &written).unwrap();
        page = written.clone();
    }
    assert!(page == written, "docs/dtypes.md is not up to date: set UPDATE_DOCS=1");
}

/// What the README says of f32, and arithmetic by hand for some others.
#[test]
fn dtypes_bytes_are_those_counted_by_hand() {
    let f32 = |algorithm| bytes(algorithm, State::Full, DType::F32, true).unwrap();
    assert_eq!(f32(Algorithm::Adam), (12.0, 36.0));
    assert_eq!(f32(Algorithm::Sgd), (8.0, 24.0));
    assert_eq!(f32(Algorithm::AdaGrad), (12.0, 32.0));
    assert_eq!(f32(Algorithm::Prodigy), (16.0, 40.0));
    assert_eq!(f32(Algorithm::PlainSgd), (4.0, 20.0));
    // exp_avg and exp_avg_sq 2 each, s 1 and its exponents, the master copy 4; p and g 2 each.
    let s = 1.0 + 1.0 / 256.0;
    let compact = bytes(Algorithm::Adam, State::Compact, DType::Bf16, true).unwrap();
    assert_eq!(compact, (8.0 + s, 3.0 * 2.0 + 2.0 * (8.0 + s)));
    // p0 is a copy of the parameter, in its type, and only read.
    let q8 = bytes(Algorithm::Prodigy, State::Q8, DType::Bf16, false).unwrap();
    assert_eq!(q8, (3.0 * s + 2.0, 3.0 * 2.0 + 2.0 * 3.0 * s + 2.0));
    assert_eq!(bytes(Algorithm::Sgd, State::Bf16, DType::F32, true), None);
}

/// State by slot: what is set can be read back, and read as values by parts.
#[test]
fn dtypes_state_is_read_by_parts_as_whole() {
    use dadapt::{TensorStep, bf16};
    let mut config = Config::new(Algorithm::Adam);
    config.set_state_dtype(None, "s", Some(DType::Q8)).unwrap();
    assert_eq!(config.get_state_dtype(None, "s").unwrap(), Some(DType::Q8));
    assert_eq!(config.get_state_dtype(Some(GroupId::FIRST), "exp_avg").unwrap(), None);
    config.set(Key::SliceP, 3.0).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let len = 5000;
    let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::Bf16, len).unwrap();
    let fixed = optimizer.set_state_dtype(None, "s", None).unwrap_err();
    assert_eq!(
        fixed.to_string(),
        "state can be set only before tensors are added whose state it decides"
    );
    assert_eq!(optimizer.get_state_dtype(None, "s").unwrap(), Some(DType::Q8));
    let mut p: Vec<bf16> = (0..len).map(|i| bf16::from_f64((i % 17) as f64 - 8.5)).collect();
    for _ in 0..3 {
        let g = p.clone();
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
    }
    for slot in ["exp_avg", "exp_avg_sq", "s", "master"] {
        let whole = optimizer.state_values(id, slot).unwrap();
        assert_eq!(whole.len(), optimizer.state_len(id, slot).unwrap());
        assert!(whole.iter().filter(|x| **x != 0.0).count() * 10 > 9 * whole.len(), "{slot}");
        for part in [1, 255, 256, 257, 341, 342, 1024, 1365] {
            let mut parts = vec![f64::NAN; whole.len()];
            for (i, to) in parts.chunks_mut(part).enumerate() {
                optimizer.read_state(id, slot, None, i * part, to).unwrap();
            }
            assert_eq!(parts, whole, "{slot} by {part}");
        }
        let beyond = optimizer.read_state(id, slot, None, whole.len(), &mut [0.0]);
        assert!(matches!(beyond, Err(Error::Length { .. })), "{beyond:?}");
        let given = optimizer.read_state(id, slot, Some(&[]), 0, &mut [0.0]);
        assert!(matches!(given, Err(Error::StateCount { .. })), "{given:?}");
    }
}
