//! The codecs: state and parameters from and to f32. Their source is of one element, so that vectors
//! are LLVM's choice, which this holds it to.

use crate::assembly::{Function, frames};
use crate::checks::{Body, Machine};
use crate::flow::stack_pointers;
use crate::{dump, has};
use dadapt::{DType, Isa};
use std::collections::BTreeSet;
use std::path::Path;

/// What must be there in full registers, by the functions that have it; f16 is converted by half, but
/// where it is rounded stochastically.
const WIDE: [(&str, &[&str]); 4] = [
    ("Bf16", &["decode", "stochastic", "nearest"]),
    ("F16", &["stochastic"]),
    ("Signed8", &["decode", "stochastic", "largest_magnitude"]),
    ("Unsigned8", &["decode", "stochastic", "largest_magnitude"]),
];

/// What is not, and goes element by element.
const NOT_WIDE: [(Isa, &str, &str); 0] = [];

/// Reads a library's codecs and says what is wrong with them.
pub fn check(library: &Path, tools: &str, functions: &[Function], isas: &[Isa]) -> Vec<String> {
    let any = Machine { isa: isas[0], dtype: DType::F32 };
    // Functions of which some loop is a codec's.
    let firsts: Vec<_> = functions
        .iter()
        .flat_map(|function| function.loops.iter().map(move |found| (function, found[0])))
        .collect();
    let addresses: Vec<u64> =
        firsts.iter().map(|(function, i)| function.instructions[*i].address).collect();
    let mut faults = Vec::new();
    let mut wide = BTreeSet::new();
    let mut last = None;
    for ((function, _), frames_of_first) in firsts.iter().zip(frames(library, tools, &addresses)) {
        let known = last.is_some_and(|last| std::ptr::eq(last, *function));
        if known || codec_of(&frames_of_first).is_none_or(|(isa, _)| !has(isas, isa.name())) {
            continue;
        }
        last = Some(*function);
        let addresses: Vec<u64> = function.instructions.iter().map(|i| i.address).collect();
        let names = frames(library, tools, &addresses);
        let pointers = stack_pointers(&function.instructions, &any);
        // Groups are so short that LLVM may unroll their loops: then there is none.
        for (instruction, names) in function.instructions.iter().zip(&names) {
            let Some((isa, codec)) = codec_of(names) else { continue };
            let machine = Machine { isa, dtype: DType::F32 };
            if has(isas, isa.name()) && machine.has_full_register(instruction) {
                wide.extend(whats(codec, names).map(|what| (isa.name(), codec, what)));
            }
        }
        for found in &function.loops {
            let names: Vec<String> = found.iter().flat_map(|i| names[*i].clone()).collect();
            let Some((isa, codec)) = codec_of(&names) else { continue };
            let machine = Machine { isa, dtype: DType::F32 };
            let with = |i: &usize| (function.instructions[*i].clone(), pointers[*i].clone());
            let body: Body = found.iter().map(with).collect();
            // Others are of the last few elements.
            let is_wide = body.iter().any(|(i, _)| machine.has_full_register(i));
            let what: Vec<_> = whats(codec, &names).collect();
            if !is_wide || what.is_empty() {
                continue;
            }
            let name = format!("{isa}-{codec}-{}-{}", what.join("-"), found[0]);
            dump(&name, &body);
            for (fault, instructions) in machine.codec_faults(&body).0 {
                let (count, first) = (instructions.len(), &instructions[0]);
                faults.push(format!("{name}: {fault}, {count}, the first at: {first}"));
            }
        }
    }
    for isa in isas {
        for (codec, what) in WIDE.iter().flat_map(|(codec, all)| all.iter().map(|x| (*codec, *x))) {
            match (wide.contains(&(isa.name(), codec, what)), is_excused(*isa, codec, what)) {
                (false, false) => faults.push(format!("{isa} {codec} {what}: no full registers")),
                (true, true) => {
                    faults.push(format!("{isa} {codec} {what} is wide: take it off NOT_WIDE"));
                }
                _ => {}
            }
        }
    }
    println!("{}: {} functions of codecs in full registers", library.display(), wide.len());
    faults
}

fn is_excused(isa: Isa, codec: &str, what: &str) -> bool {
    NOT_WIDE.contains(&(isa, codec, what))
}

/// From frames like `call<dadapt::kernel::codec::Encode<dadapt::kernel::codec::Bf16>>`, and another that
/// names the instruction set: that of `with_simd` is not always named.
fn codec_of(frames: &[String]) -> Option<(Isa, &'static str)> {
    let one_has = |text: &str| frames.iter().any(|frame| frame.contains(text));
    let (codec, _) = WIDE.into_iter().find(|(codec, _)| {
        ["Encode", "Decode"]
            .iter()
            .any(|way| one_has(&format!("codec::{way}<dadapt::kernel::codec::{codec}>")))
    })?;
    let isas = [
        ("pulp::x86::v3::", Isa::Avx2),
        ("pulp::x86::v4::", Isa::Avx512),
        ("pulp::aarch64::", Isa::Neon),
    ];
    isas.into_iter().find(|(text, _)| one_has(text)).map(|(_, isa)| (isa, codec))
}

/// Which of a codec's functions these frames are of.
fn whats(codec: &str, frames: &[String]) -> impl Iterator<Item = &'static str> {
    let all = WIDE.into_iter().find(|(name, _)| *name == codec).map_or(&[][..], |(_, all)| all);
    all.iter().copied().filter(|what| frames.iter().any(|frame| frame == what))
}
