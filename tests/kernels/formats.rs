//! Shorter types: one outcome to the last bit, whatever the threads, the instruction set, the order of
//! tensors, who keeps the state, and whether a step is taken whole or in parts.

use crate::bits::{fnv, steps};
use crate::isas::{each_isa, scaled_len, scaled_part};
use crate::run::{Random, adapts, config, has};
use dadapt::{
    Algorithm, Config, DType, Element, GroupId, Isa, Key, NonFinite, Optimizer, State, Sweeps,
    TensorId, TensorStep, bf16, f16,
};

/// Types of parameter and gradient, what state is kept in, and options that an algorithm may lack.
struct Mode {
    p: DType,
    g: DType,
    state: State,
    options: &'static [(Key, f64)],
}

const fn mode(p: DType, g: DType, state: State, options: &'static [(Key, f64)]) -> Mode {
    Mode { p, g, state, options }
}

const MODES: [Mode; 8] = [
    mode(DType::F32, DType::F32, State::Bf16, &[]),
    mode(DType::F32, DType::Bf16, State::Q8, &[(Key::WeightDecay, 0.01)]),
    mode(DType::Bf16, DType::Bf16, State::Compact, &[(Key::Decouple, 1.0), (Key::Momentum, 0.9)]),
    mode(DType::Bf16, DType::F32, State::Full, &[(Key::Master, 0.0), (Key::WeightDecay, 0.01)]),
    mode(DType::F16, DType::Bf16, State::Bf16, &[(Key::Master, 0.0), (Key::NoProx, 1.0)]),
    mode(DType::F32, DType::F32, State::Q8, &[(Key::SliceP, 5.0), (Key::SliceByLine, 1.0)]),
    mode(DType::Bf16, DType::F16, State::Compact, &[(Key::SliceP, 11.0), (Key::Beta1, 0.0)]),
    mode(DType::F16, DType::F16, State::Q8, &[(Key::SliceP, 3.0), (Key::Momentum, 0.9)]),
];

/// Bf16 beside a master copy and without one, which kernels of their own decode.
const PAIRS: [Mode; 4] = [
    mode(DType::Bf16, DType::Bf16, State::Full, &[(Key::WeightDecay, 0.01), (Key::Decouple, 1.0)]),
    mode(DType::Bf16, DType::Bf16, State::Bf16, &[(Key::WeightDecay, 0.01), (Key::Momentum, 0.9)]),
    mode(DType::Bf16, DType::Bf16, State::Full, &[(Key::Master, 0.0), (Key::WeightDecay, 0.01)]),
    mode(DType::Bf16, DType::Bf16, State::Bf16, &[(Key::Master, 0.0), (Key::Decouple, 1.0)]),
];

/// A number in whose memory arrays of any type are kept, aligned to all of them.
type Word = u64;

/// Values in memory, rounded to their type.
fn array(values: &[f64], dtype: DType) -> Vec<Word> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|x| match dtype {
            DType::F32 => (*x as f32).to_ne_bytes().to_vec(),
            DType::Bf16 => bf16::from_f64(*x).to_ne_bytes().to_vec(),
            // Of `half`, what depends on no machine: nor on an emulated one, whose VCVTPS2PH is wrong in Bochs.
            _ => f16::from_f32_const(*x as f32).to_ne_bytes().to_vec(),
        })
        .collect();
    let words = bytes.chunks(size_of::<Word>()).map(|chunk| {
        let mut word = [0; size_of::<Word>()];
        word[..chunk.len()].copy_from_slice(chunk);
        Word::from_ne_bytes(word)
    });
    words.collect()
}

/// The bytes of elements of a type as a little-endian machine has them.
fn little_endian(bytes: &[u8], dtype: DType) -> Vec<u8> {
    let elements = bytes.chunks(dtype.size());
    let turned = |element: &[u8]| element.iter().rev().copied().collect::<Vec<_>>();
    let one = |x: &[u8]| if cfg!(target_endian = "big") { turned(x) } else { x.to_vec() };
    elements.flat_map(one).collect()
}

/// How a run is made, beside what it computes.
#[derive(Clone, Copy)]
struct How {
    isa: Isa,
    threads: usize,
    in_parts: bool,
    state_of_caller: bool,
    backwards: bool,
}

const PLAINLY: How =
    How { isa: Isa::Scalar, threads: 1, in_parts: false, state_of_caller: false, backwards: false };

struct Data {
    p: Vec<Vec<f64>>,
    g: Vec<Vec<Vec<f64>>>,
}

impl Data {
    fn new(lens: &[usize], steps: usize) -> Self {
        let mut random = Random(11);
        let mut draw = |len: usize, shift: f64| -> Vec<f64> {
            let values = random.values(len, 1.0).into_iter().enumerate();
            values.map(|(i, x)| (x + shift) * 0.5f64.powi((i % 16 + i % 5) as i32 / 2)).collect()
        };
        let p = lens.iter().map(|len| draw(*len, 0.0)).collect();
        let g = (0..steps).map(|_| lens.iter().map(|len| draw(*len, 1.0)).collect());
        Data { p, g: g.collect() }
    }

    /// Every bit of the run: parameters, state as it is kept, `d`, `k`, and each step's sums.
    fn run(&self, algorithm: Algorithm, mode: &Mode, how: How) -> Vec<u8> {
        let mut optimizer = Optimizer::new(&configured(algorithm, mode, how)).unwrap();
        let count = self.p.len();
        let order: Vec<usize> =
            if how.backwards { (0..count).rev().collect() } else { (0..count).collect() };
        let mut ids = vec![TensorId::from_code(0); count];
        for &i in &order {
            let (name, len) = (format!("tensor {i}"), self.p[i].len());
            let first = GroupId::FIRST;
            ids[i] = if how.state_of_caller {
                optimizer.add_tensor_with_state_of_caller(first, &name, mode.p, len)
            } else {
                optimizer.add_tensor(first, &name, mode.p, len)
            }
            .unwrap();
        }
        let mut p: Vec<_> = self.p.iter().map(|p| array(p, mode.p)).collect();
        // Of the caller's: with rubbish in it, which the first step must not read.
        let mut state: Vec<Vec<Vec<Word>>> = Vec::new();
        for id in &ids {
            let names: Vec<_> = optimizer.state_names(*id).unwrap().collect();
            let words = |name| optimizer.state_bytes(*id, name).unwrap().1.div_ceil(8);
            let arrays = names.into_iter().map(|name| vec![0x7f6f_5f4f_3f2f_1f0f; words(name)]);
            state.push(if how.state_of_caller { arrays.collect() } else { Vec::new() });
        }
        let mut outcome = Vec::new();
        for g in self.g.iter().take(steps(algorithm)) {
            let g: Vec<_> = g.iter().map(|g| array(g, mode.g)).collect();
            let mut tensors: Vec<_> = order
                .iter()
                .map(|&i| {
                    let states: Vec<_> =
                        state[i].iter_mut().map(|slot| slot.as_mut_ptr().cast()).collect();
                    let (p, g) = (p[i].as_mut_ptr().cast(), g[i].as_ptr().cast());
                    // SAFETY: the arrays hold `len` elements of these types, and outlive the step.
                    unsafe {
                        TensorStep::from_raw(ids[i], mode.p, self.p[i].len(), p, g, &states)
                            .with_raw_gradient_dtype(mode.g)
                    }
                })
                .collect();
            let report = if how.in_parts {
                let parts = optimizer.step_begin().unwrap();
                tensors.into_iter().for_each(|tensor| parts.step_tensor(tensor).unwrap());
                parts.step_end()
            } else {
                optimizer.step(&mut tensors)
            };
            let report = report.unwrap();
            for sum in [report.numerator, report.denominator, report.d] {
                outcome.extend(sum.to_bits().to_le_bytes());
            }
        }
        let grew = optimizer.d() > 1.3e-3 || !adapts(algorithm);
        assert!(grew, "MISTRUSTED: {algorithm}: d did not grow");
        for (i, id) in ids.iter().enumerate() {
            let words = p[i].iter().flat_map(|word| word.to_ne_bytes());
            let bytes = words.take(self.p[i].len() * mode.p.size());
            outcome.extend(little_endian(&bytes.collect::<Vec<_>>(), mode.p));
            let names: Vec<String> =
                optimizer.state_names(*id).unwrap().map(str::to_owned).collect();
            for (slot, name) in names.iter().enumerate() {
                let (dtype, bytes) = optimizer.state_bytes(*id, name).unwrap();
                let found = if how.state_of_caller {
                    let words = state[i][slot].iter().flat_map(|word| word.to_ne_bytes());
                    words.take(bytes).collect()
                } else {
                    optimizer.raw_state_mut(*id, name).unwrap().to_vec()
                };
                outcome.extend(little_endian(&found, dtype));
            }
        }
        outcome
    }
}

fn configured(algorithm: Algorithm, mode: &Mode, how: How) -> Config {
    let mut config = config(algorithm, how.isa);
    config.set(Key::NumThreads, how.threads as f64).unwrap();
    for (key, value) in [(Key::D0, 1e-3)].iter().chain(mode.options) {
        // Adam's m is kept whatever its decay, Prodigy's is not.
        let pointless = *key == Key::Beta1 && algorithm != Algorithm::Prodigy;
        if (has(algorithm, *key) || *key == Key::Master) && !pointless {
            config.set(*key, *value).unwrap();
        }
    }
    // SGD and AdaGrad have nothing that may be rounded, and say so.
    let _ = config.set(Key::State, mode.state);
    config
}

/// Whether it steps tensor by tensor.
fn in_parts(algorithm: Algorithm) -> bool {
    algorithm != Algorithm::Prodigy
}

#[test]
fn instruction_sets_and_owners_give_the_same_bits() {
    // Rows at the end that are shorter, and whole ones that are packed with none.
    let lens = [1, 15, 16, 48, 240, 257, 272, 1023, 1025, 4095, 4112, 8209];
    let data = Data::new(&lens, 12);
    for &algorithm in Algorithm::ALL {
        for (number, mode) in MODES.iter().chain(&PAIRS).enumerate() {
            let expected = data.run(algorithm, mode, PLAINLY);
            each_isa(|isa| {
                let plainly = How { isa, ..PLAINLY };
                let mut hows = vec![
                    How { state_of_caller: true, ..plainly },
                    How { in_parts: in_parts(algorithm), backwards: true, ..plainly },
                ];
                if isa != Isa::Scalar {
                    hows.insert(0, plainly);
                }
                for (i, how) in scaled_part(&hows).iter().enumerate() {
                    let same = data.run(algorithm, mode, *how) == expected;
                    assert!(same, "{algorithm} mode {number} {isa}, way {i}");
                }
            });
        }
    }
}

/// Of as many elements as threads start for; the scalar kernels, which take long, in one mode.
#[test]
fn threads_give_the_same_bits() {
    let data = Data::new(&[4097, scaled_len(140_001, 9000), 35], 5);
    for &algorithm in Algorithm::ALL {
        for (number, mode) in MODES.iter().chain(&PAIRS).enumerate() {
            each_isa(|isa| {
                if isa == Isa::Scalar && number != 1 {
                    return;
                }
                let plainly = How { isa, ..PLAINLY };
                let expected = data.run(algorithm, mode, plainly);
                let hows = [
                    How { threads: 3, backwards: true, ..plainly },
                    How { threads: 2, in_parts: in_parts(algorithm), ..plainly },
                ];
                for (i, how) in hows.iter().enumerate() {
                    let same = data.run(algorithm, mode, *how) == expected;
                    assert!(same, "{algorithm} mode {number} {isa}, way {i}");
                }
            });
        }
    }
}

/// Compares the bits of these modes with those that every machine has found.
fn compare_bits(modes: &[Mode], pinned: [(&str, u64); 13]) {
    let data = Data::new(&[1, 35, 600, 4097], 12);
    each_isa(|isa| {
        let found = Algorithm::ALL.iter().map(|&algorithm| {
            let runs = modes.iter().flat_map(|mode| {
                data.run(algorithm, mode, How { isa, ..PLAINLY }).into_iter().map(u64::from)
            });
            (algorithm.name(), fnv(&runs.collect::<Vec<_>>()))
        });
        let found: Vec<_> = found.collect();
        assert!(found == pinned, "{isa}: these bits are new: {found:#x?}");
    });
}

/// The bits themselves, as in [`bits`](crate::bits), so that they are the same on every machine.
#[test]
fn bits_of_shorter_types_are_those_of_every_other_machine() {
    let pinned = [
        ("adam", 0xbb09_f4a4_1c34_35b9),
        ("sgd", 0xf300_4543_ca12_5baa),
        ("adagrad", 0xae84_4541_7868_1841),
        ("lion", 0xf92d_62ee_cfea_825f),
        ("adan", 0xd891_293c_fb15_6bf9),
        ("prodigy", 0xe49a_c697_da9b_9411),
        ("experimental_adam_preprint", 0x30ea_8584_46b7_f32e),
        ("experimental_adan_ip", 0x278b_2eaa_aedb_0c6b),
        ("plain_sgd", 0xd578_8e8d_9dbc_2754),
        ("plain_adam", 0x09df_a943_0a35_fcfb),
        ("plain_adagrad", 0x15e0_a724_befc_4d38),
        ("plain_lion", 0x45f8_b309_a134_147a),
        ("plain_adan", 0x1c5c_ca8b_923f_886f),
    ];
    compare_bits(&MODES[..7], pinned);
}

/// Rounding to nearest f16 is an instruction of AVX-512 that Bochs gets wrong.
#[test]
fn f16_bits_with_a_master_are_those_of_every_other_machine() {
    let pinned = [
        ("adam", 0x4f4e_9c81_b753_0a79),
        ("sgd", 0xdbc2_6d24_f04d_214a),
        ("adagrad", 0x7ed9_148a_add2_fb46),
        ("lion", 0x0962_5ce1_825f_a280),
        ("adan", 0xd51d_dabb_9fbd_10f1),
        ("prodigy", 0xf20b_b23f_4952_1fd4),
        ("experimental_adam_preprint", 0x9979_5078_5a01_f911),
        ("experimental_adan_ip", 0x3448_d509_4702_bf2d),
        ("plain_sgd", 0x9e3d_de70_e7af_4599),
        ("plain_adam", 0xe4ae_e8a3_828a_9164),
        ("plain_adagrad", 0xf38f_56fe_2502_c51c),
        ("plain_lion", 0x73f4_0903_a2bd_95f5),
        ("plain_adan", 0xb8d7_6dd4_3388_96c1),
    ];
    compare_bits(&MODES[7..], pinned);
}

/// Several blocks, and a last row that is shorter.
const LEN: usize = 2 * 4096 + 1007;

/// Parameter and state, as values, of a tensor of f32 after its steps; before each, `prepare` sees the
/// optimizer and the gradient.
fn values_after(
    config: &Config,
    data: &Data,
    prepare: impl Fn(usize, &mut Optimizer, &mut [f32]),
) -> Vec<Vec<f64>> {
    let mut optimizer = Optimizer::new(config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", DType::F32, LEN).unwrap();
    let single = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let mut p = single(&data.p[0]);
    for (step, g) in data.g.iter().enumerate() {
        let mut g = single(&g[0]);
        prepare(step, &mut optimizer, &mut g);
        optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
    }
    let names: Vec<_> = optimizer.state_names(id).unwrap().map(str::to_owned).collect();
    let mut all = vec![p.into_iter().map(f64::from).collect::<Vec<_>>()];
    all.extend(names.iter().map(|name| optimizer.state_values(id, name).unwrap()));
    all
}

/// An optimizer without an estimate leaves the statistics out, in a pass of its own.
#[test]
fn frozen_optimizers_give_the_same_bits() {
    let data = Data::new(&[LEN], 6);
    for &algorithm in Algorithm::ALL.iter().filter(|algorithm| adapts(**algorithm)) {
        for state in [State::Bf16, State::Compact, State::Q8] {
            let run = |isa| {
                let mut config = config(algorithm, isa);
                config.set(Key::State, state).ok()?;
                let freeze = |step, optimizer: &mut Optimizer, _: &mut [f32]| {
                    if step == 3 {
                        optimizer.freeze().unwrap();
                    }
                };
                Some(values_after(&config, &data, freeze))
            };
            let expected = run(Isa::Scalar);
            each_isa(|isa| assert!(run(isa) == expected, "{algorithm} {state:?} {isa}"));
        }
    }
}

/// Of a gradient that is let through: its element of bf16, and its group of 8-bit state, but no other.
#[test]
fn what_is_not_finite_stays_where_it_is() {
    let bad = [
        (300, f32::NAN),
        (301, f32::MAX),
        (513, f32::INFINITY),
        (800, f32::NEG_INFINITY),
        // Of which the square alone is not finite.
        (1100, f32::MAX),
        (1400, 3e19),
        (LEN - 2, f32::NAN),
    ];
    let data = Data::new(&[LEN], 3);
    let run = |algorithm, state, isa| {
        let mut config = config(algorithm, isa);
        config.set(Key::NonFinite, NonFinite::Propagate).unwrap();
        config.set(Key::State, state).unwrap();
        values_after(&config, &data, |step, _, g| {
            bad.iter().filter(|_| step == 1).for_each(|(i, x)| g[*i] = *x);
        })
    };
    for &algorithm in Algorithm::ALL {
        for state in [State::Bf16, State::Compact, State::Q8] {
            // SGD and AdaGrad have nothing that may be rounded, and say so.
            if config(algorithm, Isa::Scalar).set(Key::State, state).is_err() {
                continue;
            }
            let expected = run(algorithm, state, Isa::Scalar);
            for (i, x) in expected[0].iter().enumerate() {
                let groups = (256..1024).contains(&i) || i >= LEN / 256 * 256;
                let beside = groups && state == State::Q8;
                let is_bad = |(at, x): &(usize, f32)| *at == i && !(x.is_finite());
                assert!(x.is_finite() || beside || bad.iter().any(is_bad), "{algorithm} {i}: {x}");
                assert!(i != 300 || x.is_nan(), "{algorithm} {state:?}: {x}");
            }
            each_isa(|isa| {
                for (array, (found, expected)) in
                    run(algorithm, state, isa).iter().zip(&expected).enumerate()
                {
                    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                        let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                        assert!(same, "{algorithm} {state:?} {isa} {array} {i}: {a}, {b}");
                    }
                }
            });
        }
    }
}

/// A copy of a parameter that started at zero has no memory: one block of zeros stands for it.
#[test]
fn a_start_at_zero_gives_the_same_bits() {
    let data = Data { p: vec![vec![0.0; LEN]], ..Data::new(&[LEN], 8) };
    for algorithm in [Algorithm::Prodigy, Algorithm::Sgd, Algorithm::AdaGrad] {
        for state in [State::Full, State::Bf16] {
            let run = |isa| {
                let mut config = config(algorithm, isa);
                config.set(Key::D0, 1e-3).unwrap();
                config.set(Key::State, state).ok()?;
                Some(values_after(&config, &data, |_, _, _| {}))
            };
            let expected = run(Isa::Scalar);
            each_isa(|isa| assert!(run(isa) == expected, "{algorithm} {state:?} {isa}"));
        }
    }
}

#[test]
fn f16_parameters_that_overflow_are_reported() {
    for master in [true, false] {
        let mut config = Config::new(Algorithm::PlainSgd);
        config.set(Key::Lr, 1.0).unwrap().set(Key::Master, master).unwrap();
        let mut optimizer = Optimizer::new(&config).unwrap();
        let id = optimizer.add_tensor(GroupId::FIRST, "w", f16::DTYPE, 1500).unwrap();
        let mut p = vec![f16::from_f64(64992.0); 1500];
        let mut g = vec![0.0f32; 1500];
        (g[3], g[1200]) = (-1000.0, -70000.0);
        let report = optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
        assert_eq!(report.overflows, 2);
        assert!(p[3] == f16::INFINITY && p[1200] == f16::INFINITY);
        if master {
            let values = optimizer.state_values(id, "master").unwrap();
            assert_eq!((values[3], values[1200]), (65992.0, 134992.0));
            // Back in range, from where it was.
            (g[3], g[1200]) = (1000.0, 0.0);
            let report = optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
            assert_eq!((p[3].to_f64(), p[1200]), (64992.0, f16::INFINITY));
            assert_eq!(report.overflows, 1);
        }
    }
}

/// The first sweep moves nothing, and so sends nothing to infinity.
#[test]
fn overflows_are_counted_once_where_there_are_two_sweeps() {
    each_isa(|isa| {
        for master in [true, false] {
            let mut config = Config::new(Algorithm::Prodigy);
            config.set(Key::D0, 1000.0).unwrap().set(Key::Master, master).unwrap();
            config.set(Key::Isa, isa).unwrap();
            let mut optimizer = Optimizer::new(&config).unwrap();
            let id = optimizer.add_tensor(GroupId::FIRST, "w", f16::DTYPE, 1500).unwrap();
            let mut p = vec![f16::from_f64(64992.0); 1500];
            let g: Vec<f32> = (0..1500).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
            let report = optimizer.step(&mut [TensorStep::new(id, &mut p, &g)]).unwrap();
            assert_eq!(report.sweeps, Sweeps::Two, "{isa}");
            let infinite = p.iter().filter(|p| p.is_infinite()).count();
            assert_eq!((infinite, report.overflows), (500, 500), "{isa}, master {master}");
        }
    });
}
