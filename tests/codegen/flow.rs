//! The branches of a function: its innermost loops, and which registers point into the stack where.
//!
//! Neither follows from the order of addresses. A loop's blocks need not lie together; and a kernel may
//! be inlined beside twenty others, each with its own use of a register, so a register counts where it
//! points into the stack on every way that leads there.

use crate::assembly::Instruction;
use petgraph::algo::dominators::simple_fast;
use petgraph::graph::DiGraph;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names of registers that point into the stack.
pub type Pointers = BTreeSet<String>;

/// What a register is computed from, on one architecture.
pub trait Registers {
    fn stack_pointer(&self) -> &'static str;
    /// What holds after an instruction, given what holds before.
    fn step(&self, pointers: &mut Pointers, instruction: &Instruction);
}

/// Where control goes to from each instruction, as far as branches name it: calls return, and jumps
/// through tables lead nowhere.
fn successors(function: &[Instruction]) -> Vec<Vec<usize>> {
    const ENDS: [&str; 7] = ["jmp", "b", "br", "ret", "ud2", "brk", "udf"];
    let index: HashMap<u64, usize> =
        function.iter().enumerate().map(|(i, instruction)| (instruction.address, i)).collect();
    let of = |(i, instruction): (usize, &Instruction)| {
        let branch = target(instruction).and_then(|address| index.get(&address).copied());
        let ends = ENDS.contains(&instruction.name.as_str()) || i + 1 == function.len();
        branch.into_iter().chain((!ends).then_some(i + 1)).collect()
    };
    function.iter().enumerate().map(of).collect()
}

/// Where a branch goes to: its last operand is `4c1a0 <name+0x20>`.
fn target(branch: &Instruction) -> Option<u64> {
    let is_branch = match branch.name.as_str() {
        "b" | "cbz" | "cbnz" | "tbz" | "tbnz" => true,
        name => name.starts_with('j') || name.starts_with("b."),
    };
    let operand = branch.operands.last().filter(|_| is_branch)?;
    u64::from_str_radix(operand.split_whitespace().next()?, 16).ok()
}

/// The loops that contain no other, each as the indices of its instructions in order.
pub fn innermost_loops(function: &[Instruction]) -> Vec<Vec<usize>> {
    let successors = successors(function);
    let mut predecessors = vec![Vec::new(); function.len()];
    for (from, to) in successors.iter().enumerate() {
        to.iter().for_each(|to| predecessors[*to].push(from));
    }
    // Straight code is one node, numbered by its first instruction. What no branch is seen to reach may be
    // a table's target: each such place is an entry.
    let follows = |at: usize| at > 0 && predecessors[at] == [at - 1] && successors[at - 1] == [at];
    let mut node = Vec::new();
    for at in 0..function.len() {
        node.push(if follows(at) { node[at - 1] } else { at });
    }
    let root = function.len();
    let entries = (0..root).filter(|at| *at == 0 || predecessors[*at].is_empty());
    let edges = (0..root).flat_map(|from| successors[from].iter().map(move |to| (from, *to)));
    let edges = edges.filter(|(_, to)| node[*to] == *to).map(|(from, to)| (node[from], to));
    let mut graph = DiGraph::<(), (), usize>::from_edges(edges.chain(entries.map(|to| (root, to))));
    if function.is_empty() {
        graph.add_node(());
    }
    let dominators = simple_fast(&graph, root.into());
    // A loop's first node lies on every way to its others, some of which lead back to it.
    let mut loops = Vec::new();
    for start in (0..root).filter(|at| predecessors[*at].len() > 1) {
        let is_within = |at: &usize| {
            let mut all = dominators.dominators(node[*at].into()).into_iter().flatten();
            all.any(|dominator| dominator.index() == start)
        };
        let ends: Vec<usize> = predecessors[start].iter().copied().filter(is_within).collect();
        if !ends.is_empty() {
            loops.push(natural_loop(&predecessors, start, ends));
        }
    }
    let contains_another =
        |outer: &BTreeSet<usize>| loops.iter().any(|l| l.len() < outer.len() && l.is_subset(outer));
    let innermost = loops.iter().filter(|found| !contains_another(found));
    innermost.map(|found| found.iter().copied().collect()).collect()
}

/// What leads to the ends without passing `start`.
fn natural_loop(
    predecessors: &[Vec<usize>],
    start: usize,
    mut waiting: Vec<usize>,
) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([start]);
    while let Some(at) = waiting.pop() {
        if found.insert(at) {
            waiting.extend(&predecessors[at]);
        }
    }
    found
}

/// What holds before each instruction of a function.
pub fn stack_pointers(function: &[Instruction], registers: &impl Registers) -> Vec<Pointers> {
    let successors = successors(function);
    let mut before: Vec<Option<Pointers>> = vec![None; function.len()];
    let start = Pointers::from([registers.stack_pointer().to_string()]);
    // Lowest first, which follows straight code. What no branch is seen to reach (targets of tables,
    // landing pads) starts anew.
    let mut waiting = BTreeMap::from([(0, start.clone())]);
    let mut unseen = 0;
    loop {
        let Some((at, arriving)) = waiting.pop_first() else {
            while before.get(unseen).is_some_and(Option::is_some) {
                unseen += 1;
            }
            if unseen == function.len() {
                break;
            }
            waiting.insert(unseen, start.clone());
            continue;
        };
        let known = match &before[at] {
            Some(old) => old.intersection(&arriving).cloned().collect(),
            None => arriving,
        };
        if before[at].as_ref() == Some(&known) {
            continue;
        }
        let mut after = known.clone();
        before[at] = Some(known);
        registers.step(&mut after, &function[at]);
        for to in &successors[at] {
            let meet = |old: &mut Pointers| old.retain(|register| after.contains(register));
            waiting.entry(*to).and_modify(meet).or_insert_with(|| after.clone());
        }
    }
    before.into_iter().map(Option::unwrap_or_default).collect()
}
