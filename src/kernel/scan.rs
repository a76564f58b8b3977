//! Passes over gradients before a step: is every value finite, and what is their norm.

use super::isa::Token;
use super::lanes::{LaneElement, Lanes, ROW};
use super::sums::{Wide, fold};
use crate::dtype::{DType, Element, bf16, f16};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::slice;

/// A pass over one block of a gradient that yields one number.
///
/// # Safety
/// `g` holds `len` elements of the kernel's type, which nobody writes meanwhile.
pub(crate) type ScanFn = unsafe fn(Token, g: *const u8, len: usize) -> f64;

/// Yields 0 where all values are finite, else NaN.
pub(crate) fn finite_fn(dtype: DType) -> ScanFn {
    match dtype {
        DType::F32 => scan::<f32, Finite>,
        DType::F64 => scan::<f64, Finite>,
        DType::Bf16 => scan_halves::<0x7f80>,
        DType::F16 => scan_halves::<0x7c00>,
        DType::Q8 => unreachable!("a gradient"),
    }
}

/// Yields the sum of squares, formed in f64, of f32 or f64.
pub(crate) fn sum_sq_fn(dtype: DType) -> ScanFn {
    match dtype {
        DType::F64 => scan::<f64, SumSq>,
        _ => scan::<f32, SumSq>,
    }
}

/// Index and value of the first that is not finite.
///
/// # Safety
/// As [`ScanFn`], with elements of type `dtype`.
pub(crate) unsafe fn first_non_finite(
    dtype: DType,
    g: *const u8,
    len: usize,
) -> Option<(usize, f64)> {
    fn find<E: Element>(g: &[E]) -> Option<(usize, f64)> {
        g.iter().map(|x| x.to_f64()).enumerate().find(|(_, x)| !x.is_finite())
    }
    match dtype {
        // SAFETY: this function's own contract.
        DType::F32 => find(unsafe { elements::<f32>(g, len) }),
        // SAFETY: this function's own contract.
        DType::F64 => find(unsafe { elements::<f64>(g, len) }),
        // SAFETY: this function's own contract.
        DType::Bf16 => find(unsafe { elements::<bf16>(g, len) }),
        // SAFETY: this function's own contract.
        DType::F16 => find(unsafe { elements::<f16>(g, len) }),
        DType::Q8 => unreachable!("a gradient"),
    }
}

/// Whether some value is not 0. Stops at the first.
///
/// # Safety
/// As [`ScanFn`], with elements of type `dtype`.
pub(crate) unsafe fn any_nonzero(dtype: DType, x: *const u8, len: usize) -> bool {
    match dtype {
        // SAFETY: this function's own contract.
        DType::F32 => unsafe { elements::<f32>(x, len) }.iter().any(|x| *x != 0.0),
        // SAFETY: this function's own contract.
        DType::F64 => unsafe { elements::<f64>(x, len) }.iter().any(|x| *x != 0.0),
        // SAFETY: this function's own contract.
        DType::Bf16 | DType::F16 => unsafe { elements::<u16>(x, len) }.iter().any(|x| x << 1 != 0),
        DType::Q8 => unreachable!("a parameter or a gradient"),
    }
}

/// Puts the largest finite number in place of infinity, in f32 or f64.
///
/// # Safety
/// As [`ScanFn`], with elements of type `dtype`; nobody else reads or writes them meanwhile.
pub(crate) unsafe fn saturate(dtype: DType, x: *mut u8, len: usize) {
    fn clamp<E: LaneElement>(x: &mut [E], largest: E) {
        x.iter_mut().filter(|x| x.to_f64() == f64::INFINITY).for_each(|x| *x = largest);
    }
    match dtype {
        // SAFETY: this function's own contract.
        DType::F64 => clamp(unsafe { slice::from_raw_parts_mut(x.cast(), len) }, f64::MAX),
        // SAFETY: this function's own contract.
        _ => clamp(unsafe { slice::from_raw_parts_mut(x.cast(), len) }, f32::MAX),
    }
}

/// # Safety
/// `from` is aligned and holds `len` elements of type `E` that nobody writes during `'a`.
unsafe fn elements<'a, E>(from: *const u8, len: usize) -> &'a [E] {
    if len == 0 {
        return &[]; // of which the pointer may be null
    }
    // SAFETY: this function's own contract.
    unsafe { slice::from_raw_parts(from.cast::<E>(), len) }
}

/// # Safety
/// As [`ScanFn`], with elements of type `E`.
unsafe fn scan<E: LaneElement, P: Pass>(token: Token, g: *const u8, len: usize) -> f64 {
    // SAFETY: this function's own contract.
    let g = unsafe { elements::<E>(g, len) };
    token.dispatch(Run::<E, P>(g, PhantomData))
}

/// As [`finite_fn`], of 16-bit elements whose exponent has these bits.
///
/// # Safety
/// As [`ScanFn`].
unsafe fn scan_halves<const EXPONENT: u16>(token: Token, g: *const u8, len: usize) -> f64 {
    // SAFETY: this function's own contract.
    token.dispatch(Halves::<EXPONENT>(unsafe { elements::<u16>(g, len) }))
}

struct Halves<'a, const EXPONENT: u16>(&'a [u16]);

impl<const EXPONENT: u16> WithSimd for Halves<'_, EXPONENT> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let largest = self.0.iter().fold(0, |most, x| (x & EXPONENT).max(most));
        if largest == EXPONENT { f64::NAN } else { 0.0 }
    }
}

struct Run<'a, E, P>(&'a [E], PhantomData<P>);

impl<E: LaneElement, P: Pass> WithSimd for Run<'_, E, P> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        P::run(Lanes::<S, E>::new(simd), self.0)
    }
}

trait Pass {
    fn run<S: Simd, E: LaneElement>(lanes: Lanes<S, E>, g: &[E]) -> f64;
}

/// Places at which a gradient is read at once: one stream alone does not saturate the memory.
const STREAMS: usize = 4;
/// Elements from one such place to the next, a multiple of two registers.
const STREAM: usize = 4096;

struct Finite;

impl Pass for Finite {
    /// `0*g` is 0 for a finite `g` and NaN for any other, and a sum keeps a NaN.
    #[inline(always)]
    fn run<S: Simd, E: LaneElement>(lanes: Lanes<S, E>, g: &[E]) -> f64 {
        let zero = lanes.splat(E::ZERO);
        let mut sums = [zero; 2 * STREAMS];
        let step = 2 * Lanes::<S, E>::LEN;
        let mut chunks = g.chunks_exact(STREAMS * STREAM);
        for chunk in &mut chunks {
            for at in (0..STREAM).step_by(step) {
                for stream in 0..STREAMS {
                    for i in 0..2 {
                        let at = stream * STREAM + at + i * Lanes::<S, E>::LEN;
                        // SAFETY: `STREAM` is a multiple of `step`, so two registers from
                        // `stream * STREAM + at` on lie within the chunk.
                        let x = unsafe { lanes.load(chunk.as_ptr().add(at)) };
                        sums[2 * stream + i] = lanes.mul_add(x, zero, sums[2 * stream + i]);
                    }
                }
            }
        }
        let rest = chunks.remainder();
        let mut registers = rest.chunks_exact(Lanes::<S, E>::LEN);
        for (i, register) in (&mut registers).enumerate() {
            // SAFETY: the chunk is one register's worth.
            let x = unsafe { lanes.load(register.as_ptr()) };
            sums[i % 2] = lanes.mul_add(x, zero, sums[i % 2]);
        }
        let mut total = zero;
        for sum in sums {
            total = lanes.add(total, sum);
        }
        let mut row = [E::ZERO; ROW];
        // SAFETY: a register has at most 16 elements (`Lanes::new` asserts it).
        unsafe { lanes.store(row.as_mut_ptr(), total) };
        row.iter().chain(registers.remainder()).map(|x| x.to_f64() * 0.0).sum()
    }
}

struct SumSq;

impl Pass for SumSq {
    /// Plain multiplications and additions in f64, which compile to the same roundings everywhere.
    #[inline(always)]
    fn run<S: Simd, E: LaneElement>(_: Lanes<S, E>, g: &[E]) -> f64 {
        let mut wide: Wide = [0.0; ROW];
        let mut rows = g.chunks_exact(ROW);
        for row in &mut rows {
            for lane in 0..ROW {
                let x = row[lane].to_f64();
                wide[lane] += x * x;
            }
        }
        for (lane, x) in rows.remainder().iter().enumerate() {
            let x = x.to_f64();
            wide[lane] += x * x;
        }
        fold(&wide)
    }
}
