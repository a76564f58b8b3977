//! What depends on the instruction set: NEON, and registers of one element.

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

    /// Products modulo 2^32.
    #[inline(always)]
    pub(crate) fn mul(self, a: S::u32s, b: S::u32s) -> S::u32s {
        // SAFETY: as `load16`.
        unsafe {
            let (x, y) = (&a, &b);
            by_width!(
                16 => transmute_copy(&vmulq_u32(transmute_copy(x), transmute_copy(y)));
                _ => self.scalar_mul(a, b)
            )
        }
    }

    /// Entries of a table under a mask, by the lowest bits of numbers, where that is one operation.
    #[inline(always)]
    pub(crate) fn entries(self, _: &[u32; 16], _: u32, _: S::u32s) -> Option<S::u32s> {
        None
    }

    /// The largest of a register's elements.
    #[inline(always)]
    pub(crate) fn largest(self, x: S::u32s) -> u32 {
        // SAFETY: as `load16`.
        unsafe { by_width!(16 => vmaxvq_u32(transmute_copy(&x)); _ => transmute_copy(&x)) }
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

    /// Stores the upper halves of the words of [`PACKED`](Self::PACKED) registers.
    ///
    /// # Safety
    /// As many elements can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_upper16(self, to: *mut u16, words: &Packed<S>) {
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                16 => {
                    let [a, b] = upper::<S>(words);
                    vst1q_u16(to, a);
                    vst1q_u16(to.add(8), b);
                };
                _ => *to = (transmute_copy::<_, u32>(&words[0]) >> 16) as u16
            )
        }
    }

    /// Stores bits 20 to 27 of the words of [`PACKED`](Self::PACKED) registers, less those of a number whose lower half is
    /// 0, where no more is left above.
    ///
    /// # Safety
    /// As many elements can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_8_of_28(self, to: *mut u8, words: &Packed<S>, less: u32) {
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                16 => {
                    let less = vdupq_n_u16((less >> 16) as u16);
                    let [a, b] = upper::<S>(words).map(|halves| vsubq_u16(halves, less));
                    vst1q_u8(to, vshrn_high_n_u16::<4>(vshrn_n_u16::<4>(a), b));
                };
                _ => *to = (transmute_copy::<_, u32>(&words[0]).wrapping_sub(less) >> 20) as u8
            )
        }
    }

    /// Stores bits 20 to 26 of the words of [`PACKED`](Self::PACKED) registers, and the uppermost one above them. Bit 27 is 0.
    ///
    /// # Safety
    /// As many elements can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_7_of_27(self, to: *mut u8, words: &Packed<S>) {
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                16 => {
                    let [a, b] = upper::<S>(words);
                    let sign = vshrn_high_n_u16::<8>(vshrn_n_u16::<8>(a), b);
                    let size = vshrn_high_n_u16::<4>(vshrn_n_u16::<4>(a), b);
                    vst1q_u8(to, vbslq_u8(vdupq_n_u8(0x80), sign, size));
                };
                _ => {
                    let word: u32 = transmute_copy(&words[0]);
                    *to = (word >> 24 & 0x80 | word >> 20 & 0x7f) as u8;
                }
            )
        }
    }
}

/// The upper halves of the words of four registers.
///
/// # Safety
/// Registers are of 16 bytes.
#[inline(always)]
unsafe fn upper<S: Simd>(words: &Packed<S>) -> [uint16x8_t; 2] {
    let [a, b, c, d] = words;
    // SAFETY: this function's own contract; every AArch64 has NEON.
    unsafe {
        [
            vuzp2q_u16(transmute_copy(a), transmute_copy(b)),
            vuzp2q_u16(transmute_copy(c), transmute_copy(d)),
        ]
    }
}
