//! What objdump and addr2line say of a library: its innermost loops, and whose they are.

use crate::flow::innermost_loops;
use crate::library::run;
use std::path::Path;
use std::process::Command;

/// One instruction as objdump prints it; x86 in AT&T's order, in which the last operand is written.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub address: u64,
    pub name: String,
    pub operands: Vec<String>,
}

impl std::fmt::Display for Instruction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\t{}", self.name, self.operands.join(", "))
    }
}

/// A function's instructions, and its innermost loops as indices of theirs.
#[derive(Debug)]
pub struct Function {
    pub instructions: Vec<Instruction>,
    pub loops: Vec<Vec<usize>>,
}

/// The functions of a library that have loops.
pub fn functions(library: &Path, tools: &str) -> Vec<Function> {
    let text = run(Command::new(format!("{tools}objdump"))
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(library));
    let mut functions = vec![Vec::new()];
    for line in text.lines() {
        match instruction(line) {
            Some(instruction) => functions.last_mut().expect("there is one").push(instruction),
            None if line.ends_with(">:") => functions.push(Vec::new()),
            None => {}
        }
    }
    let functions = functions.into_iter().map(|instructions| {
        let loops = innermost_loops(&instructions);
        Function { instructions, loops }
    });
    functions.filter(|function| !function.loops.is_empty()).collect()
}

/// `  4c1a0:\tvmovups 0x20(%rax),%ymm1        # a comment`
fn instruction(line: &str) -> Option<Instruction> {
    let (address, rest) = line.trim_start().split_once(":\t")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    // Comments: "#" on x86, "//" on AArch64.
    let rest = rest.split(" # ").next()?.split("//").next()?.trim();
    let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Instruction { address, name: name.into(), operands: split(operands.trim()) })
}

/// At the commas outside of brackets.
fn split(operands: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in operands.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("there is one").push(c),
        }
    }
    let parts = parts.into_iter().map(|part| part.trim().to_string());
    parts.filter(|part| !part.is_empty()).collect()
}

/// For each address, the functions that it was compiled from: the innermost first, then those it was
/// inlined into, as the line tables name them.
pub fn frames(library: &Path, tools: &str, addresses: &[u64]) -> Vec<Vec<String>> {
    let text = run(Command::new(format!("{tools}addr2line"))
        .args(["--functions", "--inlines", "--addresses", "--exe"])
        .arg(library)
        .args(addresses.iter().map(|address| format!("{address:#x}"))));
    let mut all = Vec::new();
    for line in text.lines() {
        if line.starts_with("0x") {
            all.push(Vec::new());
        } else if let Some(frames) = all.last_mut() {
            frames.push(line.into());
        }
    }
    assert_eq!(all.len(), addresses.len(), "addr2line answers each address");
    all
}
