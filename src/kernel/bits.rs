//! The integers of a register: what codecs compute with, and elements of 8 and 16 bits to and from it.

use pulp::Simd;
use std::mem::transmute_copy;

/// Operations on registers of u32, each one instruction or two.
#[derive(Clone, Copy)]
pub(crate) struct Bits<S>(pub(crate) S);

/// Registers that are packed together, of which [`Bits::PACKED`] count.
pub(crate) type Packed<S> = [<S as Simd>::u32s; 4];

/// Two shifts of either direction.
macro_rules! shift {
    ($name:ident, $shift:ident) => {
        #[inline(always)]
        pub(crate) fn $name(self, a: S::u32s, by: u32) -> S::u32s {
            self.0.$shift(a, self.0.splat_u32s(by))
        }
    };
}

impl<S: Simd> Bits<S> {
    /// Elements in a register.
    pub(crate) const LEN: usize = size_of::<S::u32s>() / size_of::<u32>();
    /// Registers that are packed together: as many as two of 16 bits need, but 4 where they are of 16 bytes.
    pub(crate) const PACKED: usize = match Self::LEN {
        1 => 1,
        4 => 4,
        _ => 2,
    };

    #[inline(always)]
    pub(crate) fn splat(self, x: u32) -> S::u32s {
        self.0.splat_u32s(x)
    }
    #[inline(always)]
    pub(crate) fn of(self, x: S::f32s) -> S::u32s {
        self.0.transmute_u32s_f32s(x)
    }
    #[inline(always)]
    pub(crate) fn float(self, x: S::u32s) -> S::f32s {
        self.0.transmute_f32s_u32s(x)
    }
    #[inline(always)]
    pub(crate) fn and(self, a: S::u32s, b: u32) -> S::u32s {
        self.0.and_u32s(a, self.splat(b))
    }
    #[inline(always)]
    pub(crate) fn or(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.or_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn xor(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.xor_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn add(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.add_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn sub(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.sub_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn min(self, a: S::u32s, b: u32) -> S::u32s {
        self.min_of(a, self.splat(b))
    }
    #[inline(always)]
    pub(crate) fn max(self, a: S::u32s, b: u32) -> S::u32s {
        self.max_of(a, self.splat(b))
    }
    #[inline(always)]
    pub(crate) fn min_of(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.min_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn max_of(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.max_u32s(a, b)
    }
    /// `x*by + shift`, of floats and a power of two: a product that is exact, or nothing beside the shift.
    #[inline(always)]
    pub(crate) fn scaled(self, x: S::u32s, by: f32, shift: S::u32s) -> S::u32s {
        let (x, by, shift) = (self.float(x), self.0.splat_f32s(by), self.float(shift));
        if Self::LEN == 1 {
            // The same where no processor's operation does it: only the sum is rounded.
            return self.of(self.0.add_f32s(self.0.mul_f32s(x, by), shift));
        }
        self.of(self.0.mul_add_f32s(x, by, shift))
    }
    /// Products modulo 2^32 of registers of one element.
    #[inline(always)]
    fn scalar_mul(self, a: S::u32s, b: S::u32s) -> S::u32s {
        // SAFETY: they are of an element.
        let [a, b]: [u32; 2] = unsafe { [transmute_copy(&a), transmute_copy(&b)] };
        self.splat(a.wrapping_mul(b))
    }
    shift!(shl, wrapping_dyn_shl_u32s);
    shift!(shr, wrapping_dyn_shr_u32s);

    /// Which are less, of numbers below 2^31.
    #[inline(always)]
    pub(crate) fn is_less(self, a: S::u32s, b: S::u32s) -> S::m32s {
        let signed = |x| self.0.transmute_i32s_u32s(x);
        self.0.less_than_i32s(signed(a), signed(b))
    }
    #[inline(always)]
    pub(crate) fn is_equal(self, a: S::u32s, b: S::u32s) -> S::m32s {
        self.0.equal_u32s(a, b)
    }
    #[inline(always)]
    pub(crate) fn select(self, which: S::m32s, a: S::u32s, b: S::u32s) -> S::u32s {
        self.0.select_u32s(which, a, b)
    }

    /// # Safety
    /// A register's worth of elements can be read at `from`, at any alignment.
    #[inline(always)]
    pub(crate) unsafe fn load32(self, from: *const u32) -> S::u32s {
        // SAFETY: this function's own contract; pulp's integer registers are plain data.
        unsafe { from.cast::<S::u32s>().read_unaligned() }
    }

    /// # Safety
    /// A register's worth of elements can be written at `to`, at any alignment.
    #[inline(always)]
    pub(crate) unsafe fn store32(self, to: *mut u32, x: S::u32s) {
        // SAFETY: this function's own contract.
        unsafe { to.cast::<S::u32s>().write_unaligned(x) }
    }
}

/// f16 where the processor converts it: the same bits as in integers.
impl<S: Simd> Bits<S> {
    /// Values of f16, whose codes are numbers below 2^16.
    #[inline(always)]
    pub(crate) fn of_f16(self, codes: S::u32s) -> Option<S::f32s> {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `S` is proof of AVX-512 F where it has registers of that size, which are copied.
        unsafe {
            use std::arch::x86_64::*;
            if size_of::<S::u32s>() == 64 {
                let halves = _mm512_cvtepi32_epi16(transmute_copy(&codes));
                return Some(transmute_copy(&_mm512_cvtph_ps(halves)));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if size_of::<S::u32s>() == 16 {
            // SAFETY: NEON has registers of that size, and every AArch64 converts f16.
            unsafe {
                use std::arch::aarch64::*;
                let halves: uint16x4_t = vmovn_u32(transmute_copy(&codes));
                let values: float32x4_t;
                std::arch::asm!(
                    "fcvtl {values:v}.4s, {halves:v}.4h",
                    values = lateout(vreg) values,
                    halves = in(vreg) halves,
                    options(pure, nomem, nostack, preserves_flags)
                );
                return Some(transmute_copy(&values));
            }
        }
        let _ = codes;
        None
    }

    /// Codes of the nearest f16, ties to even.
    #[inline(always)]
    pub(crate) fn to_f16(self, values: S::f32s) -> Option<S::u32s> {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as `of_f16`.
        unsafe {
            use std::arch::x86_64::*;
            if size_of::<S::u32s>() == 64 {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                let halves = _mm512_cvtps_ph::<NEAREST>(transmute_copy(&values));
                return Some(transmute_copy(&_mm512_cvtepu16_epi32(halves)));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if size_of::<S::u32s>() == 16 {
            // SAFETY: as `of_f16`.
            unsafe {
                use std::arch::aarch64::*;
                let singles: float32x4_t = transmute_copy(&values);
                let halves: uint16x4_t;
                std::arch::asm!(
                    "fcvtn {halves:v}.4h, {singles:v}.4s",
                    halves = lateout(vreg) halves,
                    singles = in(vreg) singles,
                    options(pure, nomem, nostack, preserves_flags)
                );
                return Some(transmute_copy(&vmovl_u16(halves)));
            }
        }
        let _ = values;
        None
    }
}

/// The instruction set, by the size of its registers: no two that a target has are the same.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! by_width {
    ($($width:literal => $body:expr),+; _ => $scalar:expr) => {
        match size_of::<S::u32s>() {
            $($width => $body,)+
            _ => $scalar,
        }
    };
}

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other;
#[cfg(target_arch = "x86_64")]
mod x86_64;
