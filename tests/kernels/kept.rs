//! State as it is kept, read by the definitions of its types.

use crate::recurrences::formats::{BF16, BLOCK, F16, Grid, q8, unpack};
use crate::run::Run;
use dadapt::{DType, Element, bf16, f16};

/// State as it is kept: by element what its type can hold, or nothing of f32; empty where there is
/// no memory for it.
pub struct Kept {
    pub values: Vec<f64>,
    pub grids: Vec<Option<Grid>>,
    /// Of 8 bits, by element: its group, and by group its exponent.
    pub groups: Option<(Vec<usize>, Vec<i32>)>,
}

/// A slot that is about these elements of a tensor, read by the definitions of its type.
pub fn kept<P: Element>(run: &mut Run<P>, i: usize, slot: &str, elements: &[usize]) -> Kept {
    let (id, blocks) = (run.ids[i], run.p[i].len().div_ceil(BLOCK));
    let (dtype, bytes) = run.optimizer.state_bytes(id, slot).unwrap();
    let decoded = run.optimizer.state_values(id, slot).unwrap();
    let len = if bytes == 0 { 0 } else { elements.len() };
    assert_eq!(decoded.len(), len, "{slot} of tensor {i}");
    let raw = run.optimizer.raw_state_mut(id, slot).unwrap();
    assert_eq!(raw.len(), bytes);
    let all = |grid| vec![grid; len];
    let wide = |one: fn([u8; 2]) -> f64| -> Vec<f64> {
        raw.chunks(2).map(|b| one(b.try_into().unwrap())).collect()
    };
    let bf16_value = |b| bf16::from_le_bytes(b).to_f64();
    let f16_value = |b| f16::from_le_bytes(b).to_f64();
    let kept = match dtype {
        DType::Bf16 => Kept { values: wide(bf16_value), grids: all(Some(BF16)), groups: None },
        DType::F16 => Kept { values: wide(f16_value), grids: all(Some(F16)), groups: None },
        DType::Q8 if len > 0 => {
            let in_block = |block: usize| elements.iter().filter(|i| **i / BLOCK == block).count();
            let signed = !["exp_avg_sq", "sum"].contains(&slot);
            let packed = unpack(raw, signed, &(0..blocks).map(in_block).collect::<Vec<_>>());
            let tops = packed.groups.iter().map(|group| packed.tops[*group]);
            let grids = tops.map(|top| Some(q8(signed, top))).collect();
            Kept { values: packed.values, grids, groups: Some((packed.groups, packed.tops)) }
        }
        _ => Kept { values: decoded.clone(), grids: all(None), groups: None },
    };
    assert!(kept.values == decoded, "{slot} of tensor {i} is read otherwise");
    kept
}
