//! Reads the files of `tests/golden/data` (described in `tests/golden/README.md`).

#![allow(dead_code)] // every integration test includes this module and uses its own part of it

use std::{collections::BTreeMap, fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// What the reference did in one case and dtype.
pub struct Golden {
    /// The case, without the dtype.
    pub name: String,
    /// `adam`, `sgd`, ...
    pub algorithm: String,
    /// `f32` or `f64`; `bf16` or `f16`.
    pub dtype: String,
    /// Of the recorded gradients.
    pub steps: usize,
    pub groups: Vec<GoldenGroup>,
    pub changes: Vec<Change>,
    /// Counts of finished steps after which parameters were recorded. Empty for a closed loop.
    pub snapshots: Vec<usize>,
    gradients: String,
    presence: String,
    arrays: Arrays,
}

/// The tensors of a group and every option it has, by the reference's names.
pub struct GoldenGroup {
    pub tensors: Vec<String>,
    pub options: Vec<(String, f64)>,
}

/// An option that is set before the step with this index. No group means every group.
pub struct Change {
    pub step: usize,
    pub group: Option<usize>,
    pub option: String,
    pub value: f64,
}

impl Golden {
    /// Every open-loop file of a dtype: recorded gradients, recorded parameters.
    pub fn open(dtype: &str) -> Vec<Self> {
        Self::all("open", dtype)
    }

    /// Every closed-loop file of a dtype: gradients that depend on the parameters.
    pub fn closed(dtype: &str) -> Vec<Self> {
        Self::all("closed", dtype)
    }

    /// Every file of AdaGrad with row-sparse gradients: those of a [`SparseProblem`].
    pub fn sparse(dtype: &str) -> Vec<Self> {
        Self::all("sparse", dtype)
    }

    /// Every file of parameters in bf16 or f16: recorded gradients, few steps.
    pub fn half(dtype: &str) -> Vec<Self> {
        Self::all("half", dtype)
    }

    fn all(kind: &str, dtype: &str) -> Vec<Self> {
        let entries = fs::read_dir(directory()).expect("tests/golden/data exists");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let ending = format!(".{dtype}.safetensors");
        let found: Vec<Self> = paths
            .iter()
            .filter(|path| path.to_string_lossy().ends_with(&ending))
            .map(Arrays::read)
            .filter(|(_, about)| about["kind"] == kind)
            .map(|(arrays, about)| Self::parse(arrays, &about))
            .collect();
        assert!(!found.is_empty(), "no {kind} {dtype} file in tests/golden/data");
        found
    }

    fn parse(arrays: Arrays, about: &Value) -> Self {
        let groups = list(&about["groups"], |group| GoldenGroup {
            tensors: list(&group["tensors"], text),
            options: group["options"]
                .as_object()
                .expect("options")
                .iter()
                .map(|(name, value)| (name.clone(), number(value)))
                .collect(),
        });
        let changes = list(&about["changes"], |change| Change {
            step: count(&change["step"]),
            group: change["group"].as_u64().map(|index| index as usize),
            option: text(&change["option"]),
            value: number(&change["value"]),
        });
        Self {
            name: text(&about["name"]),
            algorithm: text(&about["algorithm"]),
            dtype: text(&about["dtype"]),
            steps: count(&about["steps"]),
            groups,
            changes,
            snapshots: list(&about["snapshots"], count),
            gradients: about["gradients"].as_str().unwrap_or_default().to_owned(),
            presence: text(&about["presence"]),
            arrays,
        }
    }

    /// The tensors in their order, each with the index of its group.
    pub fn tensors(&self) -> Vec<(usize, &str)> {
        let groups = self.groups.iter().enumerate();
        groups
            .flat_map(|(index, group)| group.tensors.iter().map(move |name| (index, name.as_str())))
            .collect()
    }

    /// Every option of every group, as (index of the group, the reference's name, value).
    pub fn options(&self) -> impl Iterator<Item = (usize, &str, f64)> {
        self.groups.iter().enumerate().flat_map(|(index, group)| {
            group.options.iter().map(move |(name, value)| (index, name.as_str(), *value))
        })
    }

    /// The changes to make before the step with this index.
    pub fn changes_at(&self, step: usize) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.step == step)
    }

    /// The options that change during the run.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// d after every step.
    pub fn d(&self) -> &[f64] {
        self.arrays.get("d")
    }

    /// Open loop: how many steps had made progress, after every step.
    pub fn k(&self) -> &[f64] {
        self.arrays.get("k")
    }

    /// Open loop: a tensor after `snapshots[index]` steps. Exact, whatever the dtype.
    pub fn parameter(&self, tensor: &str, index: usize) -> &[f64] {
        let all = self.arrays.get(&format!("p.{tensor}"));
        let len = all.len() / self.snapshots.len();
        &all[index * len..][..len]
    }

    /// bf16 and f16: d of the reference in f64, given the same gradients.
    pub fn exact_d(&self) -> &[f64] {
        self.arrays.get("exact.d")
    }

    /// The same of [`parameter`](Self::parameter).
    pub fn exact_parameter(&self, tensor: &str, index: usize) -> &[f64] {
        let all = self.arrays.get(&format!("exact.p.{tensor}"));
        let len = all.len() / self.snapshots.len();
        &all[index * len..][..len]
    }

    /// Closed loop: the loss before every step.
    pub fn loss(&self) -> &[f64] {
        self.arrays.get("loss")
    }

    /// Closed loop: how far d strays, relatively, when the reference is jittered by single ulps.
    pub fn d_budget(&self) -> &[f64] {
        self.arrays.get("d_budget")
    }

    /// Open loop: the same after a step, which is 0 unless d follows from the parameters.
    pub fn open_d_budget(&self, step: usize) -> f64 {
        self.arrays.find("d_budget").map_or(0.0, |all| all[step])
    }

    /// Open loop: how far a tensor strays by `snapshots[index]`, relative to its largest element.
    pub fn open_p_budget(&self, tensor: &str, index: usize) -> f64 {
        self.arrays.find(&format!("p_budget.{tensor}")).map_or(0.0, |all| all[index])
    }

    /// Closed loop: the same of the loss.
    pub fn loss_budget(&self) -> &[f64] {
        self.arrays.get("loss_budget")
    }
}

/// The initial parameters and the gradients of the open-loop cases, exact in f32.
pub struct Problem(Arrays);

impl Problem {
    pub fn load() -> Self {
        Self(Arrays::read(&directory().join("problem.safetensors")).0)
    }

    pub fn initial(&self, tensor: &str) -> &[f64] {
        self.0.get(&format!("initial.{tensor}"))
    }

    /// The gradient of a tensor in a step of a case, unless it has none there.
    pub fn gradient(&self, case: &Golden, step: usize, tensor: &str) -> Option<&[f64]> {
        let index = tensor[1..].parse::<usize>().expect("t and a number");
        let presence = self.0.get(&format!("presence.{}", case.presence));
        let tensors = presence.len() / case.steps;
        let all = self.0.get(&format!("{}.{tensor}", case.gradients));
        let len = all.len() / case.steps;
        (presence[step * tensors + index] != 0.0).then(|| &all[step * len..][..len])
    }
}

/// The least-squares problem of the closed-loop cases. Tensors are `weight` and `bias`.
pub struct Regression {
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    design: Vec<f64>,
    target: Vec<f64>,
}

impl Regression {
    pub fn load() -> Self {
        let arrays = Arrays::read(&directory().join("regression.safetensors")).0;
        let copy = |name| arrays.get(name).to_vec();
        Self {
            weight: copy("initial.weight"),
            bias: copy("initial.bias"),
            design: copy("design"),
            target: copy("target"),
        }
    }

    /// The start of a tensor, by name.
    pub fn initial(&self, tensor: &str) -> &[f64] {
        if tensor == "bias" { &self.bias } else { &self.weight }
    }

    /// Loss and its gradients by `weight` and `bias`, in the generator's order of operations.
    pub fn loss(&self, weight: &[f64], bias: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let samples = self.target.len() as f64;
        let (mut loss, mut by_bias) = (0.0, 0.0);
        let mut by_weight = vec![0.0; weight.len()];
        for (row, target) in self.design.chunks(weight.len()).zip(&self.target) {
            let mut residual = bias[0] - target;
            for (a, w) in row.iter().zip(weight) {
                residual += a * w;
            }
            loss += residual * residual;
            by_bias += residual;
            for (sum, a) in by_weight.iter_mut().zip(row) {
                *sum += a * residual;
            }
        }
        by_weight.iter_mut().for_each(|sum| *sum /= samples);
        (loss / (2.0 * samples), by_weight, vec![by_bias / samples])
    }
}

/// The start and the gradients of the row-sparse cases. Tensors are `table` and `head`, dense.
pub struct SparseProblem(Arrays);

impl SparseProblem {
    pub fn load() -> Self {
        Self(Arrays::read(&directory().join("sparse.safetensors")).0)
    }

    pub fn initial(&self, tensor: &str) -> &[f64] {
        self.0.get(&format!("initial.{tensor}"))
    }

    /// The rows of the table that a step draws, some of them several times, and their gradients.
    pub fn rows(&self, step: usize) -> Option<(Vec<usize>, &[f64])> {
        let draws = self.0.get("draws");
        let (rows, values) = (self.0.get("rows"), self.0.get("values"));
        let most = rows.len() / draws.len();
        let width = values.len() / rows.len();
        let count = draws[step] as usize;
        let drawn = rows[step * most..][..count].iter().map(|row| *row as usize).collect();
        (count > 0).then(|| (drawn, &values[step * most * width..][..count * width]))
    }

    pub fn head(&self, step: usize) -> &[f64] {
        let len = self.initial("head").len();
        &self.0.get("head")[step * len..][..len]
    }
}

/// The tensors of one file. f64 holds the values of every dtype in use exactly.
struct Arrays(BTreeMap<String, Vec<f64>>);

impl Arrays {
    fn read(path: &PathBuf) -> (Self, Value) {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
        let about = header.metadata().as_ref().and_then(|texts| texts.get("golden"));
        let about = serde_json::from_str(about.expect("metadata")).expect("JSON");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let arrays = file.iter().map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => decode(data, |b| f32::from_le_bytes(b).into()),
                Dtype::F64 => decode(data, f64::from_le_bytes),
                Dtype::I64 => decode(data, |b| i64::from_le_bytes(b) as f64),
                Dtype::U8 => decode(data, |b: [u8; 1]| b[0].into()),
                other => panic!("{name}: unexpected dtype {other:?}"),
            };
            (name.to_owned(), values)
        });
        (Self(arrays.collect()), about)
    }

    fn get(&self, name: &str) -> &[f64] {
        self.find(name).unwrap_or_else(|| panic!("the file has no {name:?}"))
    }

    fn find(&self, name: &str) -> Option<&[f64]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

fn decode<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.chunks_exact(N).map(|bytes| value(bytes.try_into().unwrap())).collect()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data")
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().expect("a list").iter().map(item).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn count(value: &Value) -> usize {
    value.as_u64().expect("a count") as usize
}

/// Flags are 0 and 1; null is infinity, which JSON cannot say.
fn number(value: &Value) -> f64 {
    match value {
        Value::Null => f64::INFINITY,
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        _ => value.as_f64().expect("a number"),
    }
}
