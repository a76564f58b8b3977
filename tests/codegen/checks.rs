//! What must hold of a loop over rows, on each instruction set.

use crate::assembly::Instruction;
use crate::flow::{Pointers, Registers};
use dadapt::{DType, Isa};
use std::collections::BTreeMap;

/// The names of an instruction set: of its registers, and of what it does.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub isa: Isa,
    pub dtype: DType,
}

/// A loop's instructions, each with the registers that point into the stack before it.
pub type Body = Vec<(Instruction, Pointers)>;

/// What is wrong with a loop: kinds of faults, and the instructions that have them.
#[derive(Debug, Default)]
pub struct Faults(pub BTreeMap<&'static str, Vec<String>>);

/// Vector registers are put on the stack: slow, and with some kernels not to be helped.
pub const SPILLS: &str = "spills";
/// Of a sum of products, which few kernels have none of.
pub const NOT_FUSED: &str = "no fused multiply-adds";
const NARROW: &str = "narrow registers";

impl Faults {
    fn add(&mut self, kind: &'static str, instruction: &Instruction) {
        self.0.entry(kind).or_default().push(instruction.to_string());
    }
}

impl Machine {
    fn is_arm(self) -> bool {
        self.isa == Isa::Neon
    }

    /// An operand that is a floating-point or vector register, or part of one.
    fn is_vector(self, operand: &str) -> bool {
        if self.is_arm() {
            // "v12.4s" and "d3", but not the address "d3a40".
            let name = operand.trim_start_matches('{').split(['.', ' ', '}']).next();
            let number = name.and_then(|name| name.strip_prefix(['v', 'q', 'd', 's', 'h', 'b']));
            return number.is_some_and(|text| text.len() <= 2 && text.parse::<u8>().is_ok());
        }
        operand.starts_with("%xmm") || operand.starts_with("%ymm") || operand.starts_with("%zmm")
    }

    /// A vector register at its full width.
    fn is_wide(self, operand: &str) -> bool {
        match self.isa {
            Isa::Avx2 => operand.starts_with("%ymm"),
            Isa::Avx512 => operand.starts_with("%zmm"),
            // Lanes may have any size where bits are moved; see `is_packed` for arithmetic.
            _ => operand.trim_start_matches('{').starts_with(['q', 'v']),
        }
    }

    /// Arithmetic on floats, scalar or packed.
    pub fn is_arithmetic(self, instruction: &Instruction) -> bool {
        const X86: [&str; 8] = ["vadd", "vsub", "vmul", "vdiv", "vsqrt", "vfm", "vfnm", "vmax"];
        const ARM: [&str; 8] = ["fadd", "fsub", "fmul", "fdiv", "fsqrt", "fml", "fmadd", "fmsub"];
        let starts = if self.is_arm() { ARM } else { X86 };
        starts.iter().any(|start| instruction.name.starts_with(start))
    }

    fn is_packed(self, instruction: &Instruction) -> bool {
        if self.is_arm() {
            let lanes = if self.dtype == DType::F32 { ".4s" } else { ".2d" };
            return instruction.operands[0].ends_with(lanes);
        }
        instruction.name.ends_with(if self.dtype == DType::F32 { "ps" } else { "pd" })
    }

    fn is_fused(self, instruction: &Instruction) -> bool {
        let starts: &[&str] = if self.is_arm() { &["fmla", "fmls"] } else { &["vfm", "vfnm"] };
        starts.iter().any(|start| instruction.name.starts_with(start))
    }

    fn is_call(self, instruction: &Instruction) -> bool {
        instruction.name.starts_with("call") || ["bl", "blr"].contains(&instruction.name.as_str())
    }

    fn memory(self, instruction: &Instruction) -> Option<&str> {
        let is_memory = |operand: &&str| match self.is_arm() {
            true => operand.starts_with('['),
            false => operand.contains('('),
        };
        instruction.operands.iter().map(String::as_str).find(is_memory)
    }

    /// Whether memory is written, and not read.
    fn is_store(self, instruction: &Instruction) -> bool {
        if self.is_arm() {
            return instruction.name.starts_with("st");
        }
        // Compares and tests have no destination; "lea" has memory first.
        let reads =
            ["cmp", "test", "prefetch"].iter().any(|name| instruction.name.starts_with(name));
        !reads && instruction.operands.last().is_some_and(|operand| operand.contains('('))
    }

    /// The registers that an address is made of.
    fn base(self, memory: &str) -> Vec<&str> {
        let inner = memory.split(['(', '[']).nth(1).unwrap_or_default();
        let inner = inner.split([')', ']']).next().unwrap_or_default();
        inner.split(',').map(str::trim).collect()
    }

    /// Whether the loop writes arrays, a full register at a time, and so goes over rows.
    pub fn is_over_rows(self, body: &Body) -> bool {
        body.iter().any(|(instruction, stack)| {
            self.is_store(instruction)
                && self.has_full_register(instruction)
                && !self.is_on(stack, instruction)
        })
    }

    /// Whether some operand is a vector register at its full width.
    pub fn has_full_register(self, instruction: &Instruction) -> bool {
        instruction.operands.iter().any(|operand| self.is_wide(operand))
    }

    fn is_on(self, stack: &Pointers, instruction: &Instruction) -> bool {
        let memory = self.memory(instruction).unwrap_or_default();
        self.base(memory).iter().any(|register| stack.contains(*register))
    }

    /// What is wrong with a loop that has codecs too, which are of integers, and pack into narrower
    /// registers what has fewer bits.
    pub fn codec_faults(self, body: &Body) -> Faults {
        let mut faults = self.faults(body);
        faults.0.retain(|kind, _| *kind != NARROW && *kind != NOT_FUSED);
        for (instruction, _) in
            body.iter().filter(|(instruction, _)| self.is_of_one_lane(instruction))
        {
            faults.add("lanes one by one", instruction);
        }
        faults
    }

    /// Whether one lane of a vector goes to or comes from elsewhere.
    fn is_of_one_lane(self, instruction: &Instruction) -> bool {
        const X86: [&str; 4] = ["vpextr", "vpinsr", "vextractps", "vinsertps"];
        const ARM: [&str; 4] = ["umov", "smov", "ins", "fmov"];
        let starts = if self.is_arm() { ARM } else { X86 };
        // Not a constant to all lanes.
        let constant = instruction.operands.last().is_some_and(|operand| operand.starts_with('#'));
        starts.iter().any(|start| instruction.name.starts_with(start)) && !constant
    }

    /// What is wrong with a loop over rows.
    pub fn faults(self, body: &Body) -> Faults {
        let mut faults = Faults::default();
        for (instruction, stack) in body {
            let operands = &instruction.operands;
            let narrow = |operand: &String| self.is_vector(operand) && !self.is_wide(operand);
            if self.is_call(instruction) {
                faults.add("calls", instruction);
            }
            if self.is_arithmetic(instruction) && !self.is_packed(instruction) {
                faults.add("scalar arithmetic", instruction);
            }
            // A register is set to 0 by its narrow name.
            if operands.iter().any(narrow) && !instruction.name.starts_with("vxor") {
                faults.add(NARROW, instruction);
            }
            if !self.is_on(stack, instruction) {
                continue;
            }
            if !operands.iter().any(|operand| self.is_vector(operand)) {
                faults.add("pointers or counts on the stack", instruction);
            } else if self.is_store(instruction) {
                // Loads are by design where coefficients are there.
                faults.add(SPILLS, instruction);
            }
        }
        if !body.iter().any(|(instruction, _)| self.is_fused(instruction)) {
            faults.add(NOT_FUSED, &body[0].0);
        }
        faults
    }
}

impl Registers for Machine {
    fn stack_pointer(&self) -> &'static str {
        if self.is_arm() { "sp" } else { "%rsp" }
    }

    fn step(&self, pointers: &mut Pointers, instruction: &Instruction) {
        let operands = &instruction.operands;
        let (to, from) = match self.is_arm() {
            true => (operands.first(), operands.get(1)),
            false => (operands.last(), operands.first()),
        };
        let (Some(to), Some(from)) = (to, from) else { return };
        let derived = match instruction.name.as_str() {
            "mov" => pointers.contains(from),
            "lea" => self.base(from).iter().any(|register| pointers.contains(*register)),
            "add" | "sub" if self.is_arm() => pointers.contains(from),
            // What is moved or aligned points where it did.
            "add" | "sub" | "and" => pointers.contains(to),
            "cmp" | "test" => return,
            _ => false,
        };
        if self.is_store(instruction) || to == self.stack_pointer() {
            return;
        }
        if derived {
            pointers.insert(to.clone());
        } else {
            pointers.remove(to);
            if instruction.name == "ldp" {
                pointers.remove(from);
            }
        }
    }
}
