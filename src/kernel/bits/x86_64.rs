//! What depends on the instruction set: AVX-512, AVX2, and registers of one element.

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

    /// Products modulo 2^32.
    #[inline(always)]
    pub(crate) fn mul(self, a: S::u32s, b: S::u32s) -> S::u32s {
        // SAFETY: as `load16`.
        unsafe {
            let (x, y) = (&a, &b);
            by_width!(
                64 => transmute_copy(&_mm512_mullo_epi32(transmute_copy(x), transmute_copy(y))),
                32 => transmute_copy(&_mm256_mullo_epi32(transmute_copy(x), transmute_copy(y)));
                _ => self.scalar_mul(a, b)
            )
        }
    }

    /// Entries of a table under a mask, by the lowest bits of numbers, where that is one operation.
    #[inline(always)]
    pub(crate) fn entries(self, table: &[u32; 16], mask: u32, x: S::u32s) -> Option<S::u32s> {
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                64 => {
                    let table = _mm512_loadu_si512(table.as_ptr().cast());
                    let table = _mm512_and_si512(table, _mm512_set1_epi32(mask as i32));
                    Some(transmute_copy(&_mm512_permutexvar_epi32(transmute_copy(&x), table)))
                };
                _ => None
            )
        }
    }

    /// The largest of a register's elements.
    #[inline(always)]
    pub(crate) fn largest(self, x: S::u32s) -> u32 {
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                64 => _mm512_reduce_max_epu32(transmute_copy(&x)),
                32 => {
                    let x: __m256i = transmute_copy(&x);
                    let upper = _mm256_extracti128_si256::<1>(x);
                    let x = _mm_max_epu32(_mm256_castsi256_si128(x), upper);
                    let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b1110>(x));
                    let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b01>(x));
                    _mm_cvtsi128_si32(x) as u32
                };
                _ => transmute_copy(&x)
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

    /// Stores the upper halves of the words of [`PACKED`](Self::PACKED) registers.
    ///
    /// # Safety
    /// As many elements can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_upper16(self, to: *mut u16, words: &Packed<S>) {
        let [a, b, ..] = words;
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                64 => _mm512_storeu_si512(to.cast(), upper_512(transmute_copy(a), transmute_copy(b))),
                32 => {
                    let packed = upper_256(transmute_copy(a), transmute_copy(b));
                    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
                    _mm256_storeu_si256(to.cast(), packed);
                };
                _ => *to = (transmute_copy::<_, u32>(a) >> 16) as u16
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
        let [a, b, ..] = words;
        // SAFETY: as `load16`.
        unsafe {
            let less = (less >> 16) as i16;
            by_width!(
                64 => {
                    let halves = upper_512(transmute_copy(a), transmute_copy(b));
                    let halves = _mm512_sub_epi16(halves, _mm512_set1_epi16(less));
                    let codes = _mm512_cvtepi16_epi8(_mm512_srli_epi16::<4>(halves));
                    _mm256_storeu_si256(to.cast(), codes);
                },
                32 => {
                    let halves = upper_256(transmute_copy(a), transmute_copy(b));
                    let halves = _mm256_sub_epi16(halves, _mm256_set1_epi16(less));
                    store_bytes_256(to, _mm256_srli_epi16::<4>(halves));
                };
                _ => *to = (transmute_copy::<_, u32>(a).wrapping_sub(u32::from(less as u16) << 16) >> 20) as u8
            )
        }
    }

    /// Stores bits 20 to 26 of the words of [`PACKED`](Self::PACKED) registers, and the uppermost one above them. Bit 27 is 0.
    ///
    /// # Safety
    /// As many elements can be written at `to`.
    #[inline(always)]
    pub(crate) unsafe fn store_7_of_27(self, to: *mut u8, words: &Packed<S>) {
        let [a, b, ..] = words;
        // SAFETY: as `load16`.
        unsafe {
            by_width!(
                64 => {
                    let halves = upper_512(transmute_copy(a), transmute_copy(b));
                    let sign = _mm512_and_si512(_mm512_srli_epi16::<8>(halves), _mm512_set1_epi16(0x80));
                    let codes = _mm512_or_si512(_mm512_srli_epi16::<4>(halves), sign);
                    _mm256_storeu_si256(to.cast(), _mm512_cvtepi16_epi8(codes));
                },
                32 => {
                    let halves = upper_256(transmute_copy(a), transmute_copy(b));
                    let sign = _mm256_and_si256(_mm256_srli_epi16::<8>(halves), _mm256_set1_epi16(0x80));
                    let size = _mm256_and_si256(_mm256_srli_epi16::<4>(halves), _mm256_set1_epi16(0x7f));
                    store_bytes_256(to, _mm256_or_si256(size, sign));
                };
                _ => {
                    let word: u32 = transmute_copy(a);
                    *to = (word >> 24 & 0x80 | word >> 20 & 0x7f) as u8;
                }
            )
        }
    }
}

/// The upper halves of the words of two registers.
///
/// # Safety
/// There is AVX-512 BW.
#[inline(always)]
unsafe fn upper_512(a: __m512i, b: __m512i) -> __m512i {
    const UPPER: [u16; 32] = {
        let (mut upper, mut i) = ([0; 32], 0);
        while i < 32 {
            upper[i] = 2 * i as u16 + 1;
            i += 1;
        }
        upper
    };
    // SAFETY: this function's own contract.
    unsafe { _mm512_permutex2var_epi16(a, _mm512_loadu_si512(UPPER.as_ptr().cast()), b) }
}

/// The upper halves of the words of two registers, a half of each at a time.
///
/// # Safety
/// There is AVX2.
#[inline(always)]
unsafe fn upper_256(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: this function's own contract.
    unsafe { _mm256_packus_epi32(_mm256_srli_epi32::<16>(a), _mm256_srli_epi32::<16>(b)) }
}

/// Stores numbers below 2^8, which are in the order of [`upper_256`].
///
/// # Safety
/// There is AVX2, and 16 bytes can be written at `to`.
#[inline(always)]
unsafe fn store_bytes_256(to: *mut u8, x: __m256i) {
    // SAFETY: this function's own contract.
    unsafe {
        let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(x, x), order);
        _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
    }
}
