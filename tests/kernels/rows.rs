//! Gradients of single rows: AdaGrad of embeddings.
//!
//! Golden bounds are those of `golden.rs`: `2*4*u*k*cancellation` for d and
//! `2*4*u*k*(1 + cancellation*travel)` for p, relative to the tensor's largest element.

use crate::golden_files::{Golden, SparseProblem};
use crate::isas::{each_isa, scaled, scaled_part};
use crate::recurrences::{self, Gradient, Oracle};
use crate::run::{Random, bits, config, distance, largest, rounded, unit_roundoff};
use dadapt::{
    Algorithm, DType, Element, Error, GroupId, Isa, Key, Optimizer, RowIndex, StateOwner, TensorId,
    TensorStep,
};

const MULTIPLE: f64 = 8.0;

#[test]
fn f64_rows_agree_with_reference() {
    let cases = Golden::sparse("f64");
    each_isa(|isa| cases.iter().for_each(|case| _ = check_golden::<f64>(case, isa)));
}

#[test]
fn f32_rows_agree_with_reference() {
    let cases = Golden::sparse("f32");
    each_isa(|isa| cases.iter().for_each(|case| _ = check_golden::<f32>(case, isa)));
}

/// The worst errors of p, relative to its tensor's largest element, and of d.
pub fn check_golden<E: Element>(case: &Golden, isa: Isa) -> (f64, f64) {
    let problem = SparseProblem::load();
    let mut optimizer = Optimizer::new(&config(Algorithm::AdaGrad, isa)).unwrap();
    let mut oracle = Oracle::new(recurrences::Algorithm::named("adagrad"), case.groups.len());
    (1..case.groups.len()).for_each(|_| _ = optimizer.add_group().unwrap());
    let set = |optimizer: &mut Optimizer, group: Option<usize>, option: &str, value: f64| {
        let key = Key::from_name(option).unwrap();
        match group.filter(|_| key.scope() == dadapt::Scope::Group) {
            Some(group) => optimizer.set_group(GroupId::new(group), key, value).unwrap(),
            None => optimizer.set(key, value).unwrap(),
        }
    };
    for (group, option, value) in case.options() {
        set(&mut optimizer, Some(group), option, value);
        oracle.set(Some(group), option, value);
    }
    let (mut ids, mut p): (Vec<TensorId>, Vec<Vec<E>>) = (Vec::new(), Vec::new());
    for (group, name) in case.tensors() {
        let initial = problem.initial(name);
        let group_id = GroupId::new(group);
        ids.push(match name {
            "table" => {
                let rows = initial.len() / 7;
                let owner = StateOwner::Library;
                optimizer.add_rows(group_id, name, E::DTYPE, rows, 7, owner).unwrap()
            }
            _ => optimizer.add_tensor(group_id, name, E::DTYPE, initial.len()).unwrap(),
        });
        p.push(rounded(initial));
        oracle.add(group, initial.to_vec());
    }
    let u = unit_roundoff(E::DTYPE);
    let mut travelled = vec![0.0; ids.len()];
    let mut snapshots = case.snapshots.iter().enumerate().peekable();
    let (mut worst_p, mut worst_d): (f64, f64) = (0.0, 0.0);
    let name = format!("{} {} {isa}", case.name, case.dtype);
    for step in 0..case.steps {
        for change in case.changes_at(step) {
            set(&mut optimizer, change.group, &change.option, change.value);
            oracle.set(change.group, &change.option, change.value);
        }
        let drawn = problem.rows(step);
        let rows: Vec<u32> = drawn.iter().flat_map(|(rows, _)| rows).map(|x| *x as u32).collect();
        let values = rounded::<E>(drawn.as_ref().map_or(&[], |(_, values)| values));
        let head = rounded::<E>(problem.head(step));
        let before: Vec<Vec<f64>> = oracle.tensors.iter().map(|t| t.p.clone()).collect();
        let mut tensors = p.iter_mut();
        let mut given = Vec::new();
        let table = tensors.next().unwrap();
        if drawn.is_some() {
            given.push(TensorStep::rows(ids[0], table, &rows, &values));
        }
        given.extend(tensors.map(|p| TensorStep::new(ids[1], p, &head)));
        let report = optimizer.step(&mut given).unwrap();
        let mut exact = vec![drawn.as_ref().map(|(rows, values)| Gradient::Rows { rows, values })];
        exact.extend((1..ids.len()).map(|_| Some(Gradient::Dense(problem.head(step)))));
        oracle.step_with(&exact);
        for (i, before) in before.iter().enumerate() {
            travelled[i] += distance(&oracle.tensors[i].p, before);
        }
        assert_eq!(report.k as f64, case.k()[step], "{name}: k after step {step}");
        let unit = MULTIPLE * u * report.k.max(1) as f64;
        let error = (report.d / case.d()[step] - 1.0).abs();
        worst_d = worst_d.max(error);
        let law = unit * oracle.cancellation;
        assert!(error <= law, "{name}: d after step {step} off by {error:e}, law {law:e}");
        let Some((index, _)) = snapshots.next_if(|(_, count)| **count == step + 1) else {
            continue;
        };
        for (i, (_, tensor)) in case.tensors().iter().enumerate() {
            let expected = case.parameter(tensor, index);
            let scale = largest(expected);
            let found: Vec<f64> = p[i].iter().map(|x| x.to_f64()).collect();
            let error = distance(&found, expected) / scale;
            let law = unit * (1.0 + oracle.cancellation * travelled[i] / scale);
            assert!(error <= law, "{name}: {tensor} off by {error:e}, law {law:e}");
            worst_p = worst_p.max(error);
        }
    }
    let bound = if E::DTYPE == DType::F64 { 1e-10 } else { 1e-4 };
    assert!(worst_p <= bound && worst_d <= bound, "{name}: p {worst_p:e}, d {worst_d:e}");
    println!("{name:40} p {worst_p:.1e}  d {worst_d:.1e}");
    assert!(optimizer.d() > 1.5 * oracle.shared.d0, "MISTRUSTED: {name}: d did not grow");
    (worst_p, worst_d)
}

/// A table, its optimizer, and what a step did to every bit of them.
struct Table<E> {
    optimizer: Optimizer,
    id: TensorId,
    p: Vec<E>,
}

impl<E: Element> Table<E> {
    fn new(isa: Isa, threads: usize, rows: usize, width: usize) -> Self {
        let mut config = config(Algorithm::AdaGrad, isa);
        config.set(Key::D0, 1e-2).unwrap().set(Key::NumThreads, threads as f64).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let owner = StateOwner::Library;
        let id = optimizer.add_rows(GroupId::FIRST, "t", E::DTYPE, rows, width, owner).unwrap();
        let p = rounded(&Random(3).values(rows * width, 1.0));
        Table { optimizer, id, p }
    }

    fn step<I: RowIndex>(&mut self, rows: &[I], values: &[E]) -> Result<(), Error> {
        let given = TensorStep::rows(self.id, &mut self.p, rows, values);
        self.optimizer.step(&mut [given]).map(|_| ())
    }

    fn bits(&self) -> Vec<u64> {
        let mut all = vec![self.optimizer.d().to_bits(), self.optimizer.k()];
        all.extend(bits(&self.p));
        for slot in Algorithm::AdaGrad.rows_state_names() {
            all.extend(bits(self.optimizer.state::<E>(self.id, slot).unwrap()));
        }
        all
    }
}

/// Rows drawn with repeats, and gradients about a direction that stays.
fn draw(random: &mut Random, rows: usize, width: usize, count: usize) -> (Vec<i64>, Vec<f64>) {
    let drawn = (0..count).map(|_| random.below(rows) as i64).collect();
    (drawn, (0..count * width).map(|i| random.between(-0.2, 1.0) + (i % 5) as f64).collect())
}

#[test]
fn threads_and_instruction_sets_give_the_same_bits() {
    fn check<E: Element>() {
        // Rows shorter than a register, a tile of several, longer than a tile, and enough for threads.
        for (rows, width, count) in [(50, 1, 40), (300, 16, 200), (9, 2500, 12), (9000, 16, 8000)] {
            let run = |isa, threads| {
                let mut table = Table::<E>::new(isa, threads, rows, width);
                let mut random = Random(5);
                let mut sums = Vec::new();
                for _ in 0..4 {
                    let (drawn, values) = draw(&mut random, rows, width, count);
                    table.step(&drawn, &rounded(&values)).unwrap();
                    let report = table.optimizer.report(GroupId::FIRST).unwrap();
                    assert!(report.denominator != 0.0, "MISTRUSTED: no sums");
                    sums.extend([report.numerator.to_bits(), report.denominator.to_bits()]);
                }
                sums.extend(table.bits());
                sums
            };
            let expected = run(Isa::Scalar, 1);
            each_isa(|isa| {
                for &threads in scaled_part(&[3, 1, 2]) {
                    assert!(run(isa, threads) == expected, "{} {isa} {threads} {width}", E::DTYPE);
                }
            });
        }
    }
    check::<f32>();
    check::<f64>();
}

/// Random tables against the oracle, in f64, where a law of 4*u*k says all that there is to say.
#[test]
fn random_tables_agree_with_oracle() {
    each_isa(|isa| {
        for seed in 0..scaled(40) as u64 {
            let mut random = Random(seed);
            let (rows, width) = (1 + random.below(40), 1 + random.below(20));
            let mut table = Table::<f64>::new(isa, 1, rows, width);
            let mut oracle = Oracle::new(recurrences::Algorithm::named("adagrad"), 1);
            oracle.set(None, "d0", 1e-2);
            for (option, values) in [
                ("layer_scale", [1.0, 0.5, 2.0]),
                ("eps", [1e-6, 1e-3, 1e-8]),
                ("lr", [1.0, 0.5, 0.1]),
            ] {
                let value = random.pick(&values);
                table.optimizer.set(Key::from_name(option).unwrap(), value).unwrap();
                oracle.set(None, option, value);
            }
            oracle.add(0, table.p.clone());
            let mut travel = 0.0;
            for step in 0..30 {
                let count = random.below(3 * rows);
                let (drawn, values) = draw(&mut random, rows, width, count);
                let was = oracle.tensors[0].p.clone();
                table.step(&drawn, &values).unwrap();
                let drawn: Vec<usize> = drawn.iter().map(|row| *row as usize).collect();
                oracle.step_with(&[Some(Gradient::Rows { rows: &drawn, values: &values })]);
                travel += distance(&was, &oracle.tensors[0].p);
                assert_eq!(table.optimizer.k(), oracle.k, "{isa} seed {seed} step {step}");
                let unit = 4.0 * f64::EPSILON / 2.0 * oracle.k.max(1) as f64 * oracle.cancellation;
                let off = (table.optimizer.d() / oracle.d - 1.0).abs();
                assert!(off <= unit, "{isa} seed {seed} step {step}: d off by {off:e} of {unit:e}");
                let scale = largest(&oracle.tensors[0].p);
                let off = distance(&table.p, &oracle.tensors[0].p) / scale;
                let law = unit * (1.0 + travel / scale);
                assert!(off <= law, "{isa} seed {seed} step {step}: p off by {off:e} of {law:e}");
            }
        }
    });
}

/// Duplicates are summed in the order given: equal to the sums given once, in any order of rows.
#[test]
fn duplicates_are_summed_first() {
    each_isa(|isa| {
        let mut several = Table::<f32>::new(isa, 1, 10, 3);
        let mut once = Table::<f32>::new(isa, 1, 10, 3);
        let g = [1.0f32, 2.0, 3.0, 1e-8, 1e-8, 1e-8, -4.0, 5.0, 6.0, 0.5, 0.5, 0.5];
        let sum = |i: usize| (g[i] + g[3 + i]) + g[9 + i];
        several.step(&[7u32, 7, 2, 7], &g).unwrap();
        once.step(&[2i64, 7], &[-4.0, 5.0, 6.0, sum(0), sum(1), sum(2)]).unwrap();
        assert_eq!(several.bits(), once.bits(), "{isa}");
    });
}

#[test]
fn untouched_rows_are_not_written() {
    each_isa(|isa| {
        let mut table = Table::<f32>::new(isa, 1, 100, 5);
        let before = table.bits();
        table.step(&[3u32, 97], &[1.0; 10]).unwrap();
        let after = table.bits();
        let changed: Vec<usize> = (2..before.len())
            .filter(|i| before[*i] != after[*i])
            .map(|i| (i - 2) % 500 / 5)
            .collect();
        assert!(changed.iter().all(|row| [3, 97].contains(row)), "{changed:?}");
        assert!(changed.contains(&3) && changed.contains(&97), "MISTRUSTED: nothing changed");
        // Zeros touch nothing, and neither do no rows at all.
        table.step(&[5u32], &[0.0; 5]).unwrap();
        table.step::<u32>(&[], &[]).unwrap();
        assert_eq!(table.bits()[2..], after[2..]);
    });
}

#[test]
fn state_of_the_callers_and_steps_in_parts_give_the_same_bits() {
    let (rows, width) = (60, 9);
    let mut random = Random(11);
    let mut owned = Table::<f32>::new(Isa::Scalar, 1, rows, width);
    let mut parts = Table::<f32>::new(Isa::Scalar, 1, rows, width);
    let mut config = config(Algorithm::AdaGrad, Isa::Scalar);
    config.set(Key::D0, 1e-2).unwrap();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let owner = StateOwner::Caller;
    let id = optimizer.add_rows(GroupId::FIRST, "t", DType::F32, rows, width, owner).unwrap();
    let mut p = owned.p.clone();
    let mut state = vec![vec![0.0f32; rows * width]; 4];
    for _ in 0..5 {
        let (drawn, values) = draw(&mut random, rows, width, 30);
        let values = rounded::<f32>(&values);
        owned.step(&drawn, &values).unwrap();
        let step = parts.optimizer.step_begin().unwrap();
        step.step_tensor(TensorStep::rows(parts.id, &mut parts.p, &drawn, &values)).unwrap();
        step.step_end().unwrap();
        let [a, b, c, d] = state.as_mut_slice() else { unreachable!() };
        let given = TensorStep::rows(id, &mut p, &drawn, &values).with_state([a, b, c, d]);
        optimizer.step(&mut [given]).unwrap();
    }
    assert_eq!(owned.bits(), parts.bits());
    let mut found = vec![optimizer.d().to_bits(), optimizer.k()];
    found.extend(bits(&p));
    state.iter().for_each(|slot| found.extend(bits(slot)));
    assert_eq!(owned.bits(), found);
}

#[test]
fn bad_rows_are_errors_that_change_nothing() {
    let mut table = Table::<f32>::new(Isa::Scalar, 1, 10, 2);
    table.step(&[1u32], &[1.0, 2.0]).unwrap();
    let before = table.bits();
    let refused = |table: &mut Table<f32>, outcome: Result<(), Error>, part: &str| {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
        assert_eq!(table.bits(), before, "{text}");
    };
    let outcome = table.step(&[1i64, 10], &[1.0; 4]);
    refused(
        &mut table,
        outcome,
        "row 10 of the gradient of tensor \"t\" (at place 1) is not below 10",
    );
    let outcome = table.step(&[-1i64], &[1.0; 2]);
    refused(&mut table, outcome, "row -1");
    let outcome = table.step(&[1u32, 2], &[1.0; 3]);
    refused(&mut table, outcome, "the gradient of tensor \"t\" has 3 elements, and 4");
    let outcome = table.step(&[4u32, 3], &[1.0, 2.0, f32::NAN, 0.0]);
    refused(&mut table, outcome, "is NaN at element 6");
    let outcome = table.step(&[3u32, 3], &[f32::MAX; 4]);
    refused(&mut table, outcome, "is inf at element 6");
    let g = [1.0f32; 20];
    let outcome = table.optimizer.step(&mut [TensorStep::new(table.id, &mut table.p, &g)]);
    refused(&mut table, outcome.map(|_| ()), "registered as rows, and the gradient is dense");
    for key in [Key::WeightDecay, Key::Momentum] {
        table.optimizer.set(key, 0.5).unwrap();
        let outcome = table.step(&[1u32], &[1.0, 2.0]);
        refused(&mut table, outcome, &format!("{key} of group 0 is set"));
        table.optimizer.set(key, 0.0).unwrap();
    }
    let dense = table.optimizer.add_tensor(GroupId::FIRST, "d", DType::F32, 4).unwrap();
    let mut p = [0.0f32; 4];
    let given = TensorStep::rows(dense, &mut p, &[0u32], &[1.0f32; 4]);
    let error = table.optimizer.step(&mut [given]).unwrap_err();
    assert!(matches!(error, Error::GradientKind { registered: "dense", .. }), "{error}");
    let mut adam = Optimizer::new(&config(Algorithm::Adam, Isa::Scalar)).unwrap();
    let error = adam.add_rows(GroupId::FIRST, "t", DType::F32, 2, 2, StateOwner::Library);
    assert_eq!(error, Err(Error::NoRows { algorithm: "adam" }));
    let huge = table.optimizer.add_rows(
        GroupId::FIRST,
        "huge",
        DType::F32,
        usize::MAX,
        2,
        StateOwner::Library,
    );
    assert!(matches!(huge, Err(Error::TooLong { .. })));
}
