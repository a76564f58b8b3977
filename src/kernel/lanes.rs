//! The correctly rounded operations that recurrences are written in, over one register of one
//! instruction set and element type.

use crate::dtype::Element;
use pulp::Simd;
use std::marker::PhantomData;

/// Elements in a row: the width of the virtual machine whose sums every instruction set reproduces.
pub(crate) const ROW: usize = 16;

/// pulp's registers of this element type and their operations.
pub(crate) trait LaneElement: Element {
    type Reg<S: Simd>: Copy;
    const SMALLEST_NORMAL: Self;
    const ZERO: Self;
    const ONE: Self;

    fn splat<S: Simd>(simd: S, x: Self) -> Self::Reg<S>;
    fn add<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn sub<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn mul<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn div<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn sqrt<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
    fn abs<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
    fn mul_add<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>, c: Self::Reg<S>)
    -> Self::Reg<S>;
    fn zero_where_less<S: Simd>(
        simd: S,
        size: Self::Reg<S>,
        bound: Self::Reg<S>,
        x: Self::Reg<S>,
    ) -> Self::Reg<S>;
}

macro_rules! lane_element {
    ($ty:ident, $reg:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $sqrt:ident, $abs:ident, $mul_add:ident, $less_than:ident, $select:ident) => {
        impl LaneElement for $ty {
            type Reg<S: Simd> = S::$reg;
            const SMALLEST_NORMAL: Self = <$ty>::MIN_POSITIVE;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$reg {
                simd.$splat(x)
            }
            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$reg, b: S::$reg) -> S::$reg {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn sub<S: Simd>(simd: S, a: S::$reg, b: S::$reg) -> S::$reg {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$reg, b: S::$reg) -> S::$reg {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn div<S: Simd>(simd: S, a: S::$reg, b: S::$reg) -> S::$reg {
                simd.$div(a, b)
            }
            #[inline(always)]
            fn sqrt<S: Simd>(simd: S, a: S::$reg) -> S::$reg {
                simd.$sqrt(a)
            }
            #[inline(always)]
            fn abs<S: Simd>(simd: S, a: S::$reg) -> S::$reg {
                simd.$abs(a)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$reg, b: S::$reg, c: S::$reg) -> S::$reg {
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn zero_where_less<S: Simd>(
                simd: S,
                size: S::$reg,
                bound: S::$reg,
                x: S::$reg,
            ) -> S::$reg {
                simd.$select(simd.$less_than(size, bound), simd.$splat(0.0), x)
            }
        }
    };
}

lane_element!(
    f32,
    f32s,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    div_f32s,
    sqrt_f32s,
    abs_f32s,
    mul_add_f32s,
    less_than_f32s,
    select_f32s
);
lane_element!(
    f64,
    f64s,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    div_f64s,
    sqrt_f64s,
    abs_f64s,
    mul_add_f64s,
    less_than_f64s,
    select_f64s
);

/// What a lane function computes with. Each operation rounds once, to nearest; nothing is fused
/// but [`mul_add`](Lanes::mul_add), and that on every instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<S, E>(S, PhantomData<E>);

impl<S: Simd, E: LaneElement> Lanes<S, E> {
    /// Elements in a register.
    pub(crate) const LEN: usize = size_of::<E::Reg<S>>() / size_of::<E>();
    /// Registers in a row.
    pub(crate) const PER_ROW: usize = ROW / Self::LEN;

    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        const { assert!(ROW.is_multiple_of(Self::LEN)) }
        Lanes(simd, PhantomData)
    }
    #[inline(always)]
    pub(crate) fn splat(self, x: E) -> E::Reg<S> {
        E::splat(self.0, x)
    }
    #[inline(always)]
    pub(crate) fn add(self, a: E::Reg<S>, b: E::Reg<S>) -> E::Reg<S> {
        E::add(self.0, a, b)
    }
    #[inline(always)]
    pub(crate) fn sub(self, a: E::Reg<S>, b: E::Reg<S>) -> E::Reg<S> {
        E::sub(self.0, a, b)
    }
    #[inline(always)]
    pub(crate) fn mul(self, a: E::Reg<S>, b: E::Reg<S>) -> E::Reg<S> {
        E::mul(self.0, a, b)
    }
    #[inline(always)]
    pub(crate) fn div(self, a: E::Reg<S>, b: E::Reg<S>) -> E::Reg<S> {
        E::div(self.0, a, b)
    }
    #[inline(always)]
    pub(crate) fn sqrt(self, a: E::Reg<S>) -> E::Reg<S> {
        E::sqrt(self.0, a)
    }
    #[inline(always)]
    pub(crate) fn abs(self, a: E::Reg<S>) -> E::Reg<S> {
        E::abs(self.0, a)
    }
    /// `a*b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, a: E::Reg<S>, b: E::Reg<S>, c: E::Reg<S>) -> E::Reg<S> {
        E::mul_add(self.0, a, b, c)
    }
    /// `x`, or +0 where it is subnormal: what state that decays is stored as.
    #[inline(always)]
    pub(crate) fn flush(self, x: E::Reg<S>) -> E::Reg<S> {
        E::zero_where_less(self.0, self.abs(x), self.splat(E::SMALLEST_NORMAL), x)
    }

    /// # Safety
    /// [`Self::LEN`] elements can be read at `from`, at any alignment.
    #[inline(always)]
    pub(crate) unsafe fn load(self, from: *const E) -> E::Reg<S> {
        // SAFETY: the caller vouches for the memory; pulp's float registers are plain data.
        unsafe { from.cast::<E::Reg<S>>().read_unaligned() }
    }
    /// # Safety
    /// [`Self::LEN`] elements can be written at `to`, at any alignment.
    #[inline(always)]
    pub(crate) unsafe fn store(self, to: *mut E, x: E::Reg<S>) {
        // SAFETY: the caller vouches for the memory.
        unsafe { to.cast::<E::Reg<S>>().write_unaligned(x) }
    }
}
