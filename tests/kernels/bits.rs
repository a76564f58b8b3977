//! One outcome, to the last bit: whatever the threads, the instruction set, the order of tensors
//! and where blocks begin.

use crate::isas::{each_isa, scaled, scaled_len, scaled_part};
use crate::run::{Random, Run, adapts, config, rounded, set_if_there};
use dadapt::{Algorithm, Element, Isa, Key, TensorStep};
use rayon::ThreadPoolBuilder;

/// Elements of a block, at whose boundaries a tensor may be cut.
const BLOCK: usize = 4096;
const MOST_STEPS: usize = 12;

/// So many that d grows. AdaGrad's and Lion's start to after some five with one direction, noise
/// delays it, and so does bias correction Prodigy's.
pub fn steps(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::AdaGrad | Algorithm::Lion | Algorithm::Prodigy => MOST_STEPS,
        _ => 3,
    }
}

/// Options that choose other kernels than the first does. What an algorithm lacks is left out.
const KINDS: [(&str, &[(&str, f64)]); 8] = [
    ("decay", &[("weight_decay", 0.01)]),
    ("no decay", &[("weight_decay", 0.0)]),
    ("coupled", &[("weight_decay", 0.01), ("decouple", 0.0)]),
    ("decoupled", &[("weight_decay", 0.01), ("decouple", 1.0), ("use_bias_correction", 1.0)]),
    ("no prox", &[("weight_decay", 0.01), ("no_prox", 1.0)]),
    ("sliced", &[("weight_decay", 0.01), ("slice_p", 3.0)]),
    ("moment", &[("beta1", 0.0), ("momentum", 0.9), ("dampening", 0.1)]),
    ("frozen", &[]),
];

/// From one element to more than the first caches hold, and enough in all for threads to be woken.
fn lens() -> [usize; 8] {
    [1, 15, 257, 4095, 4097, 3 * BLOCK, 70_001, scaled(250_000)]
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
    let data = Data::<E>::new(&lens(), MOST_STEPS);
    for &algorithm in Algorithm::ALL {
        let expected = data.run(algorithm, Isa::Scalar, 1, 0);
        each_isa(|isa| {
            for &threads in scaled_part(&[3, 1, 2, 8]) {
                let found = data.run(algorithm, isa, threads, 0);
                assert!(found == expected, "{algorithm} {} {isa} {threads} threads", E::DTYPE);
            }
            for &threads in scaled_part(&[3, 1]) {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| data.run(algorithm, isa, 0, 0));
                assert!(found == expected, "{algorithm} {} {isa} pool of {threads}", E::DTYPE);
            }
        });
    }
}

#[test]
fn f32_kinds_give_the_same_bits() {
    check_kinds::<f32>();
}

#[test]
fn f64_kinds_give_the_same_bits() {
    check_kinds::<f64>();
}

fn check_kinds<E: Element>() {
    // Blocks of 4096 shift a slice of every third, so that each phase of it begins a block.
    let lens = [2, 35, 4097, 2 * BLOCK + scaled_len(BLOCK + 2, 35), scaled_len(140_001, 600)];
    let data = Data::<E>::new(&lens, MOST_STEPS);
    for &algorithm in Algorithm::ALL {
        for (kind, (name, _)) in KINDS.iter().enumerate().skip(1) {
            let expected = data.run(algorithm, Isa::Scalar, 1, kind);
            each_isa(|isa| {
                for &threads in scaled_part(&[3, 1]) {
                    let found = data.run(algorithm, isa, threads, kind);
                    let what = format!("{algorithm} {} {isa} {threads} threads", E::DTYPE);
                    assert!(found == expected, "{what}: {name}");
                }
            });
        }
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
    fn run(&self, algorithm: Algorithm, isa: Isa, threads: usize, kind: usize) -> Vec<u64> {
        let mut config = config(algorithm, isa);
        config.set(Key::NumThreads, threads as f64).unwrap();
        set_if_there(&mut config, "d0", 1e-3);
        let (name, options) = KINDS[kind];
        let is_beta1_of_prodigy = |name| name != "beta1" || algorithm == Algorithm::Prodigy;
        for (option, value) in options.iter().filter(|(name, _)| is_beta1_of_prodigy(*name)) {
            set_if_there(&mut config, option, *value);
        }
        let mut run = Run::new(&config);
        self.p.iter().for_each(|p| run.add(0, p.clone()));
        let mut sums = Vec::new();
        for (step, g) in self.g[..steps(algorithm)].iter().enumerate() {
            let g: Vec<_> = g.iter().map(|g| Some(g.as_slice())).collect();
            let report = run.step(&g).unwrap();
            sums.extend([report.numerator.to_bits(), report.denominator.to_bits()]);
            // One step before the last, so that d has grown and a step runs without sums.
            if name == "frozen" && step + 2 == steps(algorithm) {
                run.optimizer.freeze().unwrap();
            }
        }
        let grew = run.optimizer.d() > 1.3e-3 || !adapts(algorithm);
        // In its first two steps, after which it is frozen, no inner product need be above d.
        assert!(grew || name == "frozen", "MISTRUSTED: {algorithm} {name}: d did not grow");
        let mut all = run.bits();
        all.extend(sums);
        all
    }
}

/// The bits themselves, so that they are the same on every machine and in every version: of the first
/// kind by type, then of all other kinds and both types.
///
/// A change that moves them is for the changelog, under "Numerics"; the failure prints the new ones.
#[test]
fn bits_are_those_of_every_other_machine() {
    #[rustfmt::skip]
    const PINNED: [(&str, u64, u64, u64); 13] = [
        ("adam", 0x7f89_352b_ab6b_d58b, 0xaf2d_043d_21f4_3091, 0xa1f3_d30c_b716_32e6),
        ("sgd", 0xcdad_cf84_2555_c56d, 0xca53_9650_e39f_3c0e, 0xdb79_8408_9e19_2924),
        ("adagrad", 0x8f23_c1e9_328c_82ad, 0xcb0e_d540_21f1_6e7b, 0x2793_32dd_d045_a52d),
        ("lion", 0x87b4_6f0a_a7a6_56e4, 0x5ebe_dd2d_e6db_d0f7, 0x5dc5_dd68_359d_439f),
        ("adan", 0x0949_2ad7_0839_2765, 0xb3ca_66ef_cd63_6973, 0xb7ff_5938_8208_3661),
        ("prodigy", 0x18f0_053a_a131_b8fa, 0x4ab4_3d16_fe63_2660, 0xe564_951f_360a_c19e),
        ("experimental_adam_preprint", 0x5b8a_e149_cbbb_a82e, 0x048d_b236_653f_9b47, 0x2004_7ccf_55cc_9bb9),
        ("experimental_adan_ip", 0x34dd_ad40_7212_e790, 0x8ab7_294c_ed55_91f7, 0xe700_8a4e_f47d_efd4),
        ("plain_sgd", 0x11a5_aa37_0bc1_e2fd, 0x9ce8_dee2_9cbc_38a6, 0x6bc4_a74b_78d1_1cb1),
        ("plain_adam", 0x9137_a65c_cf84_62a8, 0x2738_fb3b_ec6e_c734, 0x9e35_5afb_1737_d680),
        ("plain_adagrad", 0x9d5a_1b27_04cc_4a7d, 0x9e93_35c1_bf7b_ff26, 0xc484_867c_c563_5271),
        ("plain_lion", 0x2516_2a19_01d7_52c2, 0x92e2_3b69_3eb3_05e4, 0xe6e1_adce_4d06_2ff9),
        ("plain_adan", 0x251a_74aa_600b_7626, 0xb744_fb59_a03b_5cd5, 0x846e_a7d5_cf72_fb3d),
    ];
    let lens = [1, 35, 600, 4097];
    let singles = Data::<f32>::new(&lens, MOST_STEPS);
    let doubles = Data::<f64>::new(&lens, MOST_STEPS);
    each_isa(|isa| {
        let found = Algorithm::ALL.iter().map(|&algorithm| {
            let single = |kind| singles.run(algorithm, isa, 1, kind);
            let double = |kind| doubles.run(algorithm, isa, 1, kind);
            let others = (1..KINDS.len()).flat_map(|kind| [single(kind), double(kind)].concat());
            let others: Vec<_> = others.collect();
            (algorithm.name(), fnv(&single(0)), fnv(&double(0)), fnv(&others))
        });
        let found: Vec<_> = found.collect();
        assert!(found == PINNED, "{isa}: these bits are new: {found:#x?}");
    });
}

/// FNV-1a, which no library changes.
pub fn fnv(bits: &[u64]) -> u64 {
    let bytes = bits.iter().flat_map(|word| word.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn order_of_tensors_does_not_matter() {
    each_isa(|isa| {
        for &algorithm in Algorithm::ALL {
            let data =
                Data::<f32>::new(&[33, 5000, 1, scaled_len(140_000, 9000), 16], steps(algorithm));
            let mut outcomes = Vec::new();
            for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
                let mut config = config(algorithm, isa);
                config.set(Key::NumThreads, 2).unwrap();
                set_if_there(&mut config, "d0", 1e-3);
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
            let whole = Data::<f32>::new(&[len], steps(algorithm));
            let expected = whole.run(algorithm, isa, 1, 0);
            let cuts = [0, BLOCK, BLOCK, 4 * BLOCK, len];
            let cut = |from: &[f32]| -> Vec<Vec<f32>> {
                cuts.windows(2).map(|ends| from[ends[0]..ends[1]].to_vec()).collect()
            };
            let g = whole.g.iter().map(|g| cut(&g[0])).collect();
            let parts = Data { p: cut(&whole.p[0]), g }.run(algorithm, isa, 1, 0);
            // d and k, then parameter and state of each part: slot by slot in the whole.
            assert_eq!(parts[..2], expected[..2], "{algorithm} {isa}: d");
            let sums = 2 * steps(algorithm);
            // Plain SGD without momentum keeps none of its state.
            let slots = (expected.len() - 2 - sums) / len;
            assert!(
                slots == 1 + algorithm.state_names().count() || algorithm == Algorithm::PlainSgd
            );
            let mut at = 2;
            for ends in cuts.windows(2) {
                let n = ends[1] - ends[0];
                for slot in 0..slots {
                    let same = parts[at..at + n] == expected[2 + slot * len + ends[0]..][..n];
                    assert!(same, "{algorithm} {isa}: slot {slot} from {}", ends[0]);
                    at += n;
                }
            }
            assert_eq!(parts[at..], expected[expected.len() - sums..], "{algorithm} {isa}: sums");
        }
    });
}

/// Types side by side in one step: each tensor's bits are those of its own type alone would be,
/// with the same d, and d is the same on every instruction set.
#[test]
fn mixed_types_in_one_step_give_scalar_bits() {
    for &algorithm in Algorithm::ALL {
        let singles = Data::<f32>::new(&[100, 4100], steps(algorithm));
        let doubles = Data::<f64>::new(&[50, 4097], steps(algorithm));
        let mut expected = None;
        each_isa(|isa| {
            let mut config = config(algorithm, isa);
            set_if_there(&mut config, "d0", 1e-3);
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
            for step in 0..steps(algorithm) {
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
            let grew = single.optimizer.d() > 1.3e-3 || !adapts(algorithm);
            assert!(grew, "MISTRUSTED: {algorithm}: d did not grow");
            assert!(*expected.get_or_insert_with(|| found.clone()) == found, "{algorithm} {isa}");
        });
    }
}
