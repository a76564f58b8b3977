//! Memory for state of our own: zeroed, in huge pages where the system has them, staggered.

use std::alloc::Layout;
use std::ptr::NonNull;

/// State as large as this gets pages of its own, and huge ones where the system gives them.
const HUGE_PAGE: usize = 2 << 20;
/// Distance between the page offsets at which slots start, and of the first from where large
/// parameters and gradients tend to: just past the start of a page. At equal offsets the streams of a
/// step fall into the same sets of the cache, and a load waits for an earlier store whose address
/// differs in the page alone. (Worth 15 % of Adam in cache.)
const STAGGER: usize = 640;
const PAGE: usize = 4096;
const CACHE_LINE: usize = 64;

/// One zeroed array.
#[derive(Debug)]
pub(super) struct StateMemory {
    base: NonNull<u8>,
    layout: Layout,
    /// Where the array starts, in bytes from `base` on.
    start: usize,
}

// SAFETY: it owns its memory, as a `Vec<u8>` does.
unsafe impl Send for StateMemory {}
// SAFETY: through `&self` it gives only addresses.
unsafe impl Sync for StateMemory {}

impl StateMemory {
    /// The array of that slot; as an error, the bytes that cannot be had.
    ///
    /// What is as large as a huge page is not touched yet on Linux: the threads of the first step do
    /// that. Huge pages are asked for, or with `scattered` access refused: every first touch would
    /// fill one.
    pub(super) fn zeroed(bytes: usize, slot: usize, scattered: bool) -> Result<Self, usize> {
        // Staggering small arrays would only waste memory.
        let start = if bytes < PAGE { 0 } else { (slot + 1) * STAGGER };
        let size = bytes.checked_add(start).ok_or(bytes)?.max(1);
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        let layout = Layout::from_size_align(size, align).map_err(|_| bytes)?;
        let base = allocate(layout, scattered).ok_or(bytes)?;
        Ok(StateMemory { base, layout, start })
    }

    /// Where the array starts, aligned to a cache line. Valid for reads and writes of the bytes asked
    /// for while `self` lives and is not borrowed otherwise.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `zeroed` allocated what comes before and after it.
        unsafe { self.base.add(self.start) }.as_ptr()
    }

    /// The bytes asked for.
    pub(super) fn bytes(&self) -> usize {
        self.layout.size() - self.start
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        // SAFETY: `allocate` gave it for this layout.
        unsafe { release(self.base, self.layout) }
    }
}

/// Zeroed memory of a layout whose size is at least 1.
fn allocate(layout: Layout, scattered: bool) -> Option<NonNull<u8>> {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        return pages::map(layout.size(), scattered);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = scattered;
    // SAFETY: the caller's size is not 0.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}

/// # Safety
/// `base` is from [`allocate`] with this layout, and not used any more.
unsafe fn release(base: NonNull<u8>, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        // SAFETY: `allocate` mapped it with this size.
        return unsafe { pages::unmap(base, layout.size()) };
    }
    // SAFETY: `allocate` allocated it with this layout.
    unsafe { std::alloc::dealloc(base.as_ptr(), layout) }
}

/// A mapping of its own. The allocator would write the zeros of memory that is aligned so far, and
/// touch it before the advice to use huge pages (worth 4 to 17 % of a step) is given.
#[cfg(target_os = "linux")]
mod pages {
    use super::HUGE_PAGE;
    use std::ptr::{self, NonNull};

    /// The largest page that a system has: what is unmapped must be whole pages.
    const LARGEST_PAGE: usize = 64 << 10;

    /// Zeroed pages, untouched, from a multiple of a huge page on.
    pub(super) fn map(size: usize, scattered: bool) -> Option<NonNull<u8>> {
        let size = size.checked_next_multiple_of(LARGEST_PAGE)?;
        let reserved = size.checked_add(HUGE_PAGE)?;
        // SAFETY: a new private mapping wherever there is room.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = start.cast::<u8>();
        let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
        let base = start.wrapping_add(before);
        let after = reserved - before - size;
        // SAFETY: `before` and `after` are whole pages at the ends of the mapping, which nobody has
        // seen yet; the advice changes no content, and a refusal costs speed only.
        unsafe {
            if before > 0 {
                libc::munmap(start.cast(), before);
            }
            if after > 0 {
                libc::munmap(base.wrapping_add(size).cast(), after);
            }
            let advice = if scattered { libc::MADV_NOHUGEPAGE } else { libc::MADV_HUGEPAGE };
            libc::madvise(base.cast(), size, advice);
        }
        NonNull::new(base)
    }

    /// # Safety
    /// `base` is from [`map`] with this size, and not used any more.
    pub(super) unsafe fn unmap(base: NonNull<u8>, size: usize) {
        // SAFETY: the range is what `map` kept of its mapping.
        unsafe { libc::munmap(base.as_ptr().cast(), size.next_multiple_of(LARGEST_PAGE)) };
    }
}
