//! Registers of one element.

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

    /// Products modulo 2^32.
    #[inline(always)]
    pub(crate) fn mul(self, a: S::u32s, b: S::u32s) -> S::u32s {
        self.scalar_mul(a, b)
    }

    /// Entries of a table under a mask, by the lowest bits of numbers, where that is one operation.
    #[inline(always)]
    pub(crate) fn entries(self, _: &[u32; 16], _: u32, _: S::u32s) -> Option<S::u32s> {
        None
    }

    /// The largest of a register's elements.
    #[inline(always)]
    pub(crate) fn largest(self, x: S::u32s) -> u32 {
        // SAFETY: registers are of one element.
        unsafe { transmute_copy(&x) }
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

    /// Stores the upper half of a word.
    ///
    /// # Safety
    /// An element can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_upper16(self, to: *mut u16, [word, ..]: &Packed<S>) {
        // SAFETY: this function's own contract; registers are of one element.
        unsafe { *to = (transmute_copy::<_, u32>(word) >> 16) as u16 }
    }

    /// Stores bits 20 to 27 of a word, less those of a number whose lower half is 0, where no more is left above.
    ///
    /// # Safety
    /// An element can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_8_of_28(self, to: *mut u8, [word, ..]: &Packed<S>, less: u32) {
        // SAFETY: this function's own contract; registers are of one element.
        unsafe { *to = (transmute_copy::<_, u32>(word).wrapping_sub(less) >> 20) as u8 }
    }

    /// Stores bits 20 to 26 of a word, and the uppermost one above them. Bit 27 is 0.
    ///
    /// # Safety
    /// An element can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_7_of_27(self, to: *mut u8, [word, ..]: &Packed<S>) {
        // SAFETY: this function's own contract; registers are of one element.
        let word: u32 = unsafe { transmute_copy(word) };
        // SAFETY: as above.
        unsafe { *to = (word >> 24 & 0x80 | word >> 20 & 0x7f) as u8 }
    }
}
