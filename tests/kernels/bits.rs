//! One outcome, to the last bit: whatever the threads, the instruction set, the order of tensors
//! and where blocks begin.

use crate::isas::{each_isa, scaled};
use crate::run::{Random, Run, config, rounded};
use dadapt::{Algorithm, Element, Isa, Key, TensorStep};
use rayon::ThreadPoolBuilder;

const STEPS: usize = 3;
/// Elements of a block, at whose boundaries a tensor may be cut.
const BLOCK: usize = 4096;

/// From one element to more than fits any cache, and enough in all for threads to be woken.
fn lens() -> [usize; 8] {
    [1, 15, 257, 4095, 4097, 3 * BLOCK, 70_001, scaled(1_000_000)]
}

#[test]
fn f32_threads_and_instruction_sets_give_the_same_bits() {
    check_threads::<f32>();
}

#[test]
fn f64_threads_and_instruction_sets_give_the_same_bits() {
    check_threads::<f64>();
}

fn check_threads<E: Element>() {
    for &algorithm in Algorithm::ALL {
        let data = Data::<E>::new(&lens(), STEPS);
        let expected = data.run(algorithm, Isa::Scalar, 1);
        each_isa(|isa| {
            for threads in [1, 2, 3, 8] {
                let found = data.run(algorithm, isa, threads);
                assert!(found == expected, "{algorithm} {} {isa} {threads} threads", E::DTYPE);
            }
            for threads in [1, 3] {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| data.run(algorithm, isa, 0));
                assert!(found == expected, "{algorithm} {} {isa} pool of {threads}", E::DTYPE);
            }
        });
    }
}

/// Gradients of several tensors in several steps.
struct Data<E> {
    p: Vec<Vec<E>>,
    g: Vec<Vec<Vec<E>>>,
}

impl<E: Element> Data<E> {
    fn new(lens: &[usize], steps: usize) -> Self {
        let mut random = Random(7);
        // Sizes are so far apart from lane to lane that their sums round in f64 too, where sums of
        // like sizes would be exact and their order no matter.
        let size = |i: usize| (0.5f64).powi((i % 16 * 3 + i % 5) as i32);
        let mut draw = |len: usize, shift: f64| -> Vec<E> {
            let values = random.values(len, 1.0).into_iter().enumerate();
            rounded(&values.map(|(i, x)| (x + shift) * size(i)).collect::<Vec<_>>())
        };
        let p = lens.iter().map(|len| draw(*len, 0.0)).collect();
        // Noise about a direction that stays, so that d grows.
        let g = (0..steps).map(|_| lens.iter().map(|len| draw(*len, 1.0)).collect());
        let g = g.collect();
        Data { p, g }
    }

    /// Every bit of the run, with the sums of each step at the end: `d` shows only some of theirs.
    /// No number of threads takes rayon's current pool.
    fn run(&self, algorithm: Algorithm, isa: Isa, threads: usize) -> Vec<u64> {
        let mut config = config(algorithm, isa);
        config.set(Key::NumThreads, threads as f64).unwrap();
        config.set(Key::D0, 1e-3).unwrap().set(Key::WeightDecay, 0.01).unwrap();
        let mut run = Run::new(&config);
        self.p.iter().for_each(|p| run.add(0, p.clone()));
        let mut sums = Vec::new();
        for g in &self.g {
            let g: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
            let report = run.step(&g).unwrap();
            sums.extend([report.numerator.to_bits(), report.denominator.to_bits()]);
        }
        assert!(run.optimizer.d() > 1.3e-3, "MISTRUSTED: {algorithm}: d did not grow");
        let mut all = run.bits();
        all.extend(sums);
        all
    }
}

/// The bits themselves, so that they are the same on every machine and in every version.
///
/// A change that moves them is for the changelog, under "Numerics"; the failure prints the new ones.
#[test]
fn bits_are_those_of_every_other_machine() {
    const PINNED: [(&str, u64, u64); 2] = [
        ("adam", 0x7f89_352b_ab6b_d58b, 0xaf2d_043d_21f4_3091),
        ("sgd", 0xcdad_cf84_2555_c56d, 0xca53_9650_e39f_3c0e),
    ];
    each_isa(|isa| {
        let found: Vec<_> = Algorithm::ALL
            .iter()
            .map(|&algorithm| {
                let lens = [1, 35, 600, 4097];
                let single = Data::<f32>::new(&lens, STEPS).run(algorithm, isa, 1);
                let double = Data::<f64>::new(&lens, STEPS).run(algorithm, isa, 1);
                (algorithm.name(), fnv(&single), fnv(&double))
            })
            .collect();
        assert!(found == PINNED, "{isa}: these bits are new: {found:#x?}");
    });
}

/// FNV-1a, which no library changes.
fn fnv(bits: &[u64]) -> u64 {
    let bytes = bits.iter().flat_map(|word| word.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn order_of_tensors_does_not_matter() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let data = Data::<f32>::new(&[33, 5000, 1, 70_000, 16], STEPS);
            let mut outcomes = Vec::new();
            for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
                let mut config = config(algorithm, isa);
                config.set(Key::NumThreads, 2).unwrap().set(Key::D0, 1e-3).unwrap();
                let mut run = Run::new(&config);
                data.p.iter().for_each(|p| run.add(0, p.clone()));
                for g in &data.g {
                    let mut p: Vec<_> = run.p.iter_mut().map(Some).collect();
                    let mut tensors: Vec<_> = order
                        .iter()
                        .map(|&i| TensorStep::new(run.ids[i], p[i].take().unwrap(), &g[i]))
                        .collect();
                    run.optimizer.step(&mut tensors).unwrap();
                }
                outcomes.push(run.bits());
            }
            assert!(outcomes.iter().all(|bits| *bits == outcomes[0]), "{algorithm} {isa}");
        }
    });
}

#[test]
fn cuts_at_block_boundaries_do_not_matter() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let len = 5 * BLOCK + 123;
            let whole = Data::<f32>::new(&[len], STEPS);
            let expected = whole.run(algorithm, isa, 1);
            let cuts = [0, BLOCK, BLOCK, 4 * BLOCK, len];
            let cut = |from: &[f32]| -> Vec<Vec<f32>> {
                cuts.windows(2).map(|ends| from[ends[0]..ends[1]].to_vec()).collect()
            };
            let g = whole.g.iter().map(|g| cut(&g[0])).collect();
            let parts = Data { p: cut(&whole.p[0]), g }.run(algorithm, isa, 1);
            // d and k, then parameter and state of each part: slot by slot in the whole.
            assert_eq!(parts[..2], expected[..2], "{algorithm} {isa}: d");
            let slots = 1 + algorithm.state_names().count();
            let mut at = 2;
            for ends in cuts.windows(2) {
                let n = ends[1] - ends[0];
                for slot in 0..slots {
                    let same = parts[at..at + n] == expected[2 + slot * len + ends[0]..][..n];
                    assert!(same, "{algorithm} {isa}: slot {slot} from {}", ends[0]);
                    at += n;
                }
            }
            assert_eq!(
                parts[at..],
                expected[expected.len() - 2 * STEPS..],
                "{algorithm} {isa}: sums"
            );
            assert_eq!(parts.len(), at + 2 * STEPS);
        }
    });
}

/// Types side by side in one step: each tensor's bits are those of its own type alone would be,
/// with the same d, and d is the same on every instruction set.
#[test]
fn mixed_types_in_one_step_give_scalar_bits() {
    for &algorithm in Algorithm::ALL {
        let singles = Data::<f32>::new(&[100, 4100], STEPS);
        let doubles = Data::<f64>::new(&[50, 4097], STEPS);
        let mut expected = None;
        each_isa(|isa| {
            let mut config = config(algorithm, isa);
            config.set(Key::D0, 1e-3).unwrap();
            let mut single = Run::<f32>::new(&config);
            singles.p.iter().for_each(|p| single.add(0, p.clone()));
            let mut p = doubles.p.clone();
            let optimizer = &mut single.optimizer;
            let ids: Vec<_> = p
                .iter()
                .map(|p| {
                    let name = format!("f64 {}", p.len());
                    optimizer.add_tensor(dadapt::GroupId::FIRST, &name, f64::DTYPE, p.len())
                })
                .map(Result::unwrap)
                .collect();
            for step in 0..STEPS {
                let mut tensors = Vec::new();
                for ((id, p), g) in single.ids.iter().zip(&mut single.p).zip(&singles.g[step]) {
                    tensors.push(TensorStep::new(*id, p, g));
                }
                for ((id, p), g) in ids.iter().zip(&mut p).zip(&doubles.g[step]) {
                    tensors.push(TensorStep::new(*id, p, g));
                }
                single.optimizer.step(&mut tensors).unwrap();
            }
            let mut found = single.bits();
            p.iter().for_each(|p| found.extend(crate::run::bits(p)));
            assert!(single.optimizer.d() > 1.3e-3, "MISTRUSTED: {algorithm}: d did not grow");
            assert!(*expected.get_or_insert_with(|| found.clone()) == found, "{algorithm} {isa}");
        });
    }
}
