//! Gradients are never written: they may lie in memory that cannot be.

use crate::isas::each_isa;
use dadapt::{Algorithm, Config, Element, GroupId, Key, Optimizer, TensorStep, bf16, f16};
use std::ptr;
use std::slice;

/// Values in pages of their own that a write to would end the program by.
fn read_only<E: Element>(len: usize) -> &'static [E] {
    let bytes = len * size_of::<E>();
    // SAFETY: a new private mapping, large enough, which is never given back.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0);
        assert!(start != libc::MAP_FAILED);
        for i in 0..len {
            start.cast::<E>().add(i).write(E::from_f64(0.25 + 0.125 * (i % 5) as f64));
        }
        assert_eq!(libc::mprotect(start, bytes, libc::PROT_READ), 0);
        slice::from_raw_parts(start.cast(), len)
    }
}

fn steps<P: Element, G: Element>(config: &Config, len: usize) {
    let g = read_only::<G>(len);
    let mut optimizer = Optimizer::new(config).unwrap();
    let id = optimizer.add_tensor(GroupId::FIRST, "w", P::DTYPE, len).unwrap();
    let mut p = vec![P::from_f64(1.0); len];
    for _ in 0..2 {
        optimizer.step(&mut [TensorStep::new(id, &mut p, g)]).unwrap();
    }
    let parts = optimizer.step_begin().unwrap();
    parts.step_tensor(TensorStep::new(id, &mut p, g)).unwrap();
    parts.step_end().unwrap();
    assert_eq!(optimizer.k(), 3, "MISTRUSTED: it does not step");
}

#[test]
fn gradients_in_pages_that_cannot_be_written() {
    each_isa(|isa| {
        // One in which parameters move with the sums, and those that keep a gradient or look at it first.
        let (adam, sgd, adan) = (Algorithm::Adam, Algorithm::Sgd, Algorithm::Adan);
        for (algorithm, slice) in [(adam, 1.0), (adam, 3.0), (sgd, 1.0), (adan, 1.0), (adan, 3.0)] {
            let mut config = Config::new(algorithm);
            config.set(Key::Isa, isa).unwrap().set(Key::NumThreads, 1).unwrap();
            config.set(Key::D0, 1e-2).unwrap();
            if slice > 1.0 {
                config.set(Key::SliceP, slice).unwrap();
            }
            for len in [1, 5, 16, 23, 67, 261] {
                steps::<f32, f32>(&config, len);
                steps::<f64, f64>(&config, len);
                steps::<f32, bf16>(&config, len);
                steps::<f32, f16>(&config, len);
                steps::<bf16, bf16>(&config, len);
            }
        }
    });
}
