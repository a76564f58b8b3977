//! The correctly rounded operations that recurrences are written in, over one register of one
//! instruction set and element type.

use crate::dtype::Element;
use pulp::{MemMask, Simd};
use std::marker::PhantomData;

/// Elements in a row: the width of the virtual machine whose sums every instruction set reproduces.
pub(crate) const ROW: usize = 16;

/// pulp's registers of this element type and their operations.
pub(crate) trait LaneElement: Element {
    type Reg<S: Simd>: Copy;
    type Mask<S: Simd>: Copy;
    /// 1.5 times the number whose last place is twice the smallest normal.
    const FLUSH: Self;
    const ZERO: Self;
    const ONE: Self;
    const MAX: Self;

    fn plus(a: Self, b: Self) -> Self;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Reg<S>;
    fn add<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn sub<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn mul<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn div<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    fn sqrt<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
    fn abs<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
    fn mul_add<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>, c: Self::Reg<S>)
    -> Self::Reg<S>;
    fn negate_mul_add<S: Simd>(
        simd: S,
        a: Self::Reg<S>,
        b: Self::Reg<S>,
        c: Self::Reg<S>,
    ) -> Self::Reg<S>;
    fn sign<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
    fn at_most<S: Simd>(simd: S, a: Self::Reg<S>, most: Self::Reg<S>) -> Self::Reg<S>;
    fn first<S: Simd>(simd: S, len: usize) -> Self::Mask<S>;
    /// # Safety
    /// What the mask has can be read, aligned to elements.
    unsafe fn load<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Reg<S>;
    /// # Safety
    /// What the mask has can be written, aligned to elements.
    unsafe fn store<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: Self::Reg<S>);
}

macro_rules! lane_element {
    ($ty:ident, $reg:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $sqrt:ident, $abs:ident, $mul_add:ident, $negate_mul_add:ident, $less_than:ident,
     $min:ident, $select:ident, $and:ident, $or:ident,
     $mask:ident, $first:ident, $load:ident, $store:ident) => {
        impl LaneElement for $ty {
            type Reg<S: Simd> = S::$reg;
            type Mask<S: Simd> = S::$mask;
            const FLUSH: Self = 1.5 * (2.0 * <$ty>::MIN_POSITIVE / <$ty>::EPSILON);
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MAX: Self = <$ty>::MAX;

            #[inline(always)]
            fn plus(a: Self, b: Self) -> Self {
                a + b
            }
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
            fn negate_mul_add<S: Simd>(simd: S, a: S::$reg, b: S::$reg, c: S::$reg) -> S::$reg {
                simd.$negate_mul_add(a, b, c)
            }
            #[inline(always)]
            fn sign<S: Simd>(simd: S, a: S::$reg) -> S::$reg {
                // Bit operations, since comparing and selecting take the ports that multiply.
                let (zero, one, sign) = (simd.$splat(0.0), simd.$splat(1.0), simd.$splat(-0.0));
                let signed_one = simd.$or(simd.$and(a, sign), one);
                // NaN is not above 0, and so stays what it is.
                simd.$select(simd.$less_than(zero, simd.$abs(a)), signed_one, a)
            }
            #[inline(always)]
            fn at_most<S: Simd>(simd: S, a: S::$reg, most: S::$reg) -> S::$reg {
                if size_of::<S::$reg>() == size_of::<$ty>() {
                    // Not a number's own minimum, which is never NaN.
                    return simd.$select(simd.$less_than(most, a), most, a);
                }
                simd.$min(most, a)
            }
            #[inline(always)]
            fn first<S: Simd>(simd: S, len: usize) -> S::$mask {
                simd.$first(0, len as _).mask()
            }
            #[inline(always)]
            unsafe fn load<S: Simd>(simd: S, mask: S::$mask, from: *const Self) -> S::$reg {
                // Of the bare mask: pulp's own goes through a table of functions.
                // SAFETY: the caller vouches for the memory.
                unsafe { simd.$load(MemMask::new(mask), from) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(simd: S, mask: S::$mask, to: *mut Self, x: S::$reg) {
                // SAFETY: the caller vouches for the memory.
                unsafe { simd.$store(MemMask::new(mask), to, x) }
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
    negate_mul_add_f32s,
    less_than_f32s,
    min_f32s,
    select_f32s,
    and_f32s,
    or_f32s,
    m32s,
    mask_between_m32s,
    mask_load_ptr_f32s,
    mask_store_ptr_f32s
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
    negate_mul_add_f64s,
    less_than_f64s,
    min_f64s,
    select_f64s,
    and_f64s,
    or_f64s,
    m64s,
    mask_between_m64s,
    mask_load_ptr_f64s,
    mask_store_ptr_f64s
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
    /// `c - a*b`, rounded once.
    #[inline(always)]
    pub(crate) fn negate_mul_add(self, a: E::Reg<S>, b: E::Reg<S>, c: E::Reg<S>) -> E::Reg<S> {
        E::negate_mul_add(self.0, a, b, c)
    }
    /// -1, 1, or the value itself where that is 0 or NaN.
    #[inline(always)]
    pub(crate) fn sign(self, a: E::Reg<S>) -> E::Reg<S> {
        E::sign(self.0, a)
    }
    /// The largest finite number in place of infinity.
    #[inline(always)]
    pub(crate) fn saturate(self, a: E::Reg<S>) -> E::Reg<S> {
        self.at_most(a, E::MAX)
    }
    /// That in place of what is above it. NaN stays NaN, since it comes second: of two operands x86
    /// takes the second where one is NaN, and NEON the one that is.
    #[inline(always)]
    pub(crate) fn at_most(self, a: E::Reg<S>, most: E) -> E::Reg<S> {
        E::at_most(self.0, a, self.splat(most))
    }
    /// `beta*x + a*g`: how state decays, without ever becoming subnormal.
    ///
    /// A multiple of twice the smallest normal, or 0. Both roundings happen beside a number `FLUSH`
    /// whose last place is that, and which is absorbed where the result is 2^25 times as large:
    /// there this is `mul_add(beta, x, a*g)`, at the cost of one subtraction. (Comparing and
    /// selecting costs three operations, on the ports that also divide.) Rounding to nearest, a mean
    /// that only decays stops below `1/(1-beta)` times the smallest normal, not always at 0.
    #[inline(always)]
    pub(crate) fn decay(
        self,
        beta: E::Reg<S>,
        x: E::Reg<S>,
        a: E::Reg<S>,
        g: E::Reg<S>,
    ) -> E::Reg<S> {
        let flush = self.splat(E::FLUSH);
        self.sub(self.mul_add(beta, x, self.mul_add(a, g, flush)), flush)
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
    /// The first `len <= LEN` elements of a register.
    #[inline(always)]
    pub(crate) fn first(self, len: usize) -> E::Mask<S> {
        E::first(self.0, len)
    }
    /// Zeros where the mask has none.
    ///
    /// # Safety
    /// The elements that the mask has can be read at `from`, which is aligned to them.
    #[inline(always)]
    pub(crate) unsafe fn load_some(self, mask: E::Mask<S>, from: *const E) -> E::Reg<S> {
        // SAFETY: this function's own contract.
        unsafe { E::load(self.0, mask, from) }
    }
    /// # Safety
    /// The elements that the mask has can be written at `to`, which is aligned to them; no others are.
    #[inline(always)]
    pub(crate) unsafe fn store_some(self, mask: E::Mask<S>, to: *mut E, x: E::Reg<S>) {
        // SAFETY: this function's own contract.
        unsafe { E::store(self.0, mask, to, x) }
    }
}
