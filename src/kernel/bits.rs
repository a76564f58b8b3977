//! The integers of a register: what codecs compute with, and elements of 8 and 16 bits to and from it.

use pulp::Simd;
use std::mem::transmute_copy;

/// Operations on registers of u32, each one instruction or two.
#[derive(Clone, Copy)]
pub(crate) struct Bits<S>(pub(crate) S);

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
    /// `x*by + shift`, of floats and a power of two, rounded once.
    #[inline(always)]
    pub(crate) fn scaled(self, x: S::u32s, by: f32, shift: f32) -> S::u32s {
        let (x, splat) = (self.float(x), |x| self.0.splat_f32s(x));
        if Self::LEN == 1 {
            // The same where no processor's operation does it: only the sum is rounded.
            let sum = self.0.add_f32s(x, splat(shift / by));
            return self.of(self.0.mul_f32s(sum, splat(by)));
        }
        self.of(self.0.mul_add_f32s(x, splat(by), splat(shift)))
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

#[cfg(target_arch = "x86_64")]
mod narrow {
    use super::*;
    use std::arch::x86_64::*;

    impl<S: Simd> Bits<S> {
        /// # Safety
        /// A register's worth of elements can be read at `from`.
        #[inline(always)]
        pub(crate) unsafe fn load16(self, from: *const u16) -> S::u32s {
            // SAFETY: this function's own contract; `S` is proof of what has registers of that size, which
            // are what is copied.
            unsafe {
                by_width!(
                    64 => transmute_copy(&_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))),
                    32 => transmute_copy(&_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
                    _ => self.splat(u32::from(*from))
                )
            }
        }

        /// # Safety
        /// As [`load16`](Self::load16).
        #[inline(always)]
        pub(crate) unsafe fn load8(self, from: *const u8) -> S::u32s {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    64 => transmute_copy(&_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))),
                    32 => transmute_copy(&_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())));
                    _ => self.splat(u32::from(*from))
                )
            }
        }

        /// The same with the upper bit in all those above.
        ///
        /// # Safety
        /// As [`load16`](Self::load16).
        #[inline(always)]
        pub(crate) unsafe fn load_signed8(self, from: *const u8) -> S::u32s {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    64 => transmute_copy(&_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))),
                    32 => transmute_copy(&_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
                    _ => self.splat(*from as i8 as u32)
                )
            }
        }

        /// Stores numbers below 2^16.
        ///
        /// # Safety
        /// A register's worth of elements can be written at `to`.
        #[inline(always)]
        pub(crate) unsafe fn store16(self, to: *mut u16, x: S::u32s) {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    64 => _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(transmute_copy(&x))),
                    32 => {
                        let x: __m256i = transmute_copy(&x);
                        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(x, x));
                        _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
                    };
                    _ => *to = transmute_copy::<_, u32>(&x) as u16
                )
            }
        }

        /// Stores numbers below 2^8.
        ///
        /// # Safety
        /// As [`store16`](Self::store16).
        #[inline(always)]
        pub(crate) unsafe fn store8(self, to: *mut u8, x: S::u32s) {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    64 => _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(transmute_copy(&x))),
                    32 => {
                        let x: __m256i = transmute_copy(&x);
                        let halves = _mm_packus_epi32(
                            _mm256_castsi256_si128(x),
                            _mm256_extracti128_si256::<1>(x),
                        );
                        _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves));
                    };
                    _ => *to = transmute_copy::<_, u32>(&x) as u8
                )
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod narrow {
    use super::*;
    use std::arch::aarch64::*;

    impl<S: Simd> Bits<S> {
        /// # Safety
        /// A register's worth of elements can be read at `from`.
        #[inline(always)]
        pub(crate) unsafe fn load16(self, from: *const u16) -> S::u32s {
            // SAFETY: this function's own contract; `S` is proof of what has registers of that size, which
            // are what is copied.
            unsafe {
                by_width!(
                    16 => transmute_copy(&vmovl_u16(vld1_u16(from)));
                    _ => self.splat(u32::from(*from))
                )
            }
        }

        /// # Safety
        /// As [`load16`](Self::load16).
        #[inline(always)]
        pub(crate) unsafe fn load8(self, from: *const u8) -> S::u32s {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    16 => {
                        // Twice, which is one instruction.
                        let four = vdup_n_u32(from.cast::<u32>().read_unaligned());
                        let halves = vmovl_u8(vreinterpret_u8_u32(four));
                        transmute_copy(&vmovl_u16(vget_low_u16(halves)))
                    };
                    _ => self.splat(u32::from(*from))
                )
            }
        }

        /// The same with the upper bit in all those above.
        ///
        /// # Safety
        /// As [`load16`](Self::load16).
        #[inline(always)]
        pub(crate) unsafe fn load_signed8(self, from: *const u8) -> S::u32s {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    16 => {
                        let four = vdup_n_s32(from.cast::<i32>().read_unaligned());
                        let halves = vmovl_s8(vreinterpret_s8_s32(four));
                        transmute_copy(&vmovl_s16(vget_low_s16(halves)))
                    };
                    _ => self.splat(*from as i8 as u32)
                )
            }
        }

        /// Stores numbers below 2^16.
        ///
        /// # Safety
        /// A register's worth of elements can be written at `to`.
        #[inline(always)]
        pub(crate) unsafe fn store16(self, to: *mut u16, x: S::u32s) {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    16 => vst1_u16(to, vmovn_u32(transmute_copy(&x)));
                    _ => *to = transmute_copy::<_, u32>(&x) as u16
                )
            }
        }

        /// Stores numbers below 2^8.
        ///
        /// # Safety
        /// As [`store16`](Self::store16).
        #[inline(always)]
        pub(crate) unsafe fn store8(self, to: *mut u8, x: S::u32s) {
            // SAFETY: as `load16`.
            unsafe {
                by_width!(
                    16 => {
                        let halves = vmovn_u32(transmute_copy(&x));
                        let bytes = vmovn_u16(vcombine_u16(halves, halves));
                        let four = vget_lane_u32::<0>(vreinterpret_u32_u8(bytes));
                        to.cast::<u32>().write_unaligned(four);
                    };
                    _ => *to = transmute_copy::<_, u32>(&x) as u8
                )
            }
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod narrow {
    use super::*;

    impl<S: Simd> Bits<S> {
        /// # Safety
        /// An element can be read at `from`.
        #[inline(always)]
        pub(crate) unsafe fn load16(self, from: *const u16) -> S::u32s {
            // SAFETY: this function's own contract.
            self.splat(u32::from(unsafe { *from }))
        }

        /// # Safety
        /// An element can be read at `from`.
        #[inline(always)]
        pub(crate) unsafe fn load8(self, from: *const u8) -> S::u32s {
            // SAFETY: this function's own contract.
            self.splat(u32::from(unsafe { *from }))
        }

        /// # Safety
        /// An element can be read at `from`.
        #[inline(always)]
        pub(crate) unsafe fn load_signed8(self, from: *const u8) -> S::u32s {
            // SAFETY: this function's own contract.
            self.splat(unsafe { *from } as i8 as u32)
        }

        /// Stores a number below 2^16.
        ///
        /// # Safety
        /// An element can be written at `to`.
        #[inline(always)]
        pub(crate) unsafe fn store16(self, to: *mut u16, x: S::u32s) {
            // SAFETY: this function's own contract; registers are of one element.
            unsafe { *to = transmute_copy::<_, u32>(&x) as u16 }
        }

        /// Stores a number below 2^8.
        ///
        /// # Safety
        /// An element can be written at `to`.
        #[inline(always)]
        pub(crate) unsafe fn store8(self, to: *mut u8, x: S::u32s) {
            // SAFETY: this function's own contract; registers are of one element.
            unsafe { *to = transmute_copy::<_, u32>(&x) as u8 }
        }
    }
}
