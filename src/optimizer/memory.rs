//! Memory for state of our own: zeroed, one tensor's after another's, in huge pages where the system has
//! them.

use crate::algorithm::MAX_SLOTS;
use std::ptr::{self, NonNull};

/// A page of the processor's larger kind.
const HUGE_PAGE: usize = 2 << 20;
/// Distance between the page offsets at which slots start, and of the first from where large
/// parameters and gradients tend to: just past the start of a page. At equal offsets the streams of a
/// step fall into the same sets of the cache, and a load waits for an earlier store whose address
/// differs in the page alone. (Worth 15 % of Adam in cache.)
const STAGGER: usize = 640;
const CACHE_LINE: usize = 64;

/// One array of an [`Arena`], which it must not outlive: it starts at a cache line, and is valid for reads
/// and writes of `bytes` bytes.
#[derive(Debug)]
pub(super) struct StateMemory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nobody else has the array, as with a `Vec<u8>`.
unsafe impl Send for StateMemory {}
// SAFETY: through `&self` it gives only addresses.
unsafe impl Sync for StateMemory {}

/// The arrays of a tensor whose state is the library's, by slot: where they start lies side by side, as
/// each step copies it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct OwnState {
    starts: [*mut u8; MAX_SLOTS],
    bytes: [usize; MAX_SLOTS],
}

// SAFETY: as of `StateMemory`, of which it is several.
unsafe impl Send for OwnState {}
// SAFETY: as above.
unsafe impl Sync for OwnState {}

impl OwnState {
    pub(super) const NONE: Self =
        OwnState { starts: [ptr::null_mut(); MAX_SLOTS], bytes: [0; MAX_SLOTS] };

    /// Null where a slot has no memory.
    #[inline]
    pub(super) fn starts(&self) -> [*mut u8; MAX_SLOTS] {
        self.starts
    }

    pub(super) fn has(&self, slot: usize) -> bool {
        !self.starts[slot].is_null()
    }

    /// Starts and bytes of those that have memory.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (*mut u8, usize)> {
        self.starts.into_iter().zip(self.bytes).filter(|(start, _)| !start.is_null())
    }

    pub(super) fn put(&mut self, slot: usize, memory: StateMemory) {
        (self.starts[slot], self.bytes[slot]) = (memory.start.as_ptr(), memory.bytes);
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<StateMemory> {
        let start = NonNull::new(std::mem::replace(&mut self.starts[slot], ptr::null_mut()))?;
        Some(StateMemory { start, bytes: self.bytes[slot] })
    }
}

/// The arrays of one slot of all tensors, in the order in which they were asked for: those of small
/// tensors are neighbours, which the processor's prefetching takes for one, and share huge pages.
#[derive(Debug)]
pub(super) struct Arena {
    slot: usize,
    /// Arrays are taken from the last.
    chunks: Vec<Chunk>,
    /// Bytes that arrays have had from chunks that they share.
    taken: usize,
    /// Given back.
    free: Vec<StateMemory>,
}

/// Memory from the system.
#[derive(Debug)]
struct Chunk {
    start: NonNull<u8>,
    size: usize,
    /// Bytes from the start on that arrays have had, and that are in huge pages.
    taken: usize,
    huge: usize,
    /// Bytes of arrays that have not been given back.
    live: usize,
}

// SAFETY: it owns its memory, as a `Vec<u8>` does.
unsafe impl Send for Chunk {}
// SAFETY: through `&self` it gives nothing.
unsafe impl Sync for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: `map` gave it, with this size; arrays do not outlive their arena.
        unsafe { pages::unmap(self.start, self.size) }
    }
}

impl Arena {
    pub(super) fn new(slot: usize) -> Self {
        Arena { slot, chunks: Vec::new(), taken: 0, free: Vec::new() }
    }

    /// A zeroed array; as an error, the bytes that cannot be had.
    ///
    /// On Linux it is not touched yet, but where it had been given back: the threads of the first step
    /// do that. Huge pages are asked for as arrays fill them. A large array to which access is
    /// `scattered`, where every first touch would fill one, has a chunk to itself without them.
    pub(super) fn take(&mut self, bytes: usize, scattered: bool) -> Result<StateMemory, usize> {
        let size = bytes.checked_next_multiple_of(CACHE_LINE).ok_or(bytes)?;
        let skipped = (self.slot + 1) * STAGGER;
        let least = size.checked_add(skipped).ok_or(bytes)?;
        if scattered && size >= HUGE_PAGE {
            let mut chunk = Chunk::new(least, skipped).ok_or(bytes)?;
            let start = chunk.take(size);
            chunk.taken = chunk.size;
            self.chunks.insert(0, chunk);
            return Ok(StateMemory { start, bytes });
        }
        if let Some(found) = self.free.iter().position(|free| free.bytes == bytes) {
            let memory = self.free.swap_remove(found);
            // SAFETY: the array was given back, so nobody else has it.
            unsafe { memory.start.write_bytes(0, bytes) };
            let chunk = self.chunk_of(&memory);
            self.chunks[chunk].live += size;
            return Ok(memory);
        }
        let has_room = |chunk: &Chunk| chunk.size - chunk.taken >= size;
        if !self.chunks.last().is_some_and(has_room) {
            let ahead = pages::ahead(self.taken);
            let chunk =
                Chunk::new(least.max(ahead), skipped).or_else(|| Chunk::new(least, skipped));
            self.chunks.push(chunk.ok_or(bytes)?);
        }
        self.taken += size;
        let chunk = self.chunks.last_mut().expect("one was pushed if there was none");
        let start = chunk.take(size);
        if self.taken >= HUGE_PAGE {
            chunk.use_huge_pages();
        }
        Ok(StateMemory { start, bytes })
    }

    /// Gives an array back, and its memory to the system where that is whole pages, or all that a chunk
    /// had.
    pub(super) fn give_back(&mut self, memory: StateMemory) {
        let found = self.chunk_of(&memory);
        let chunk = &mut self.chunks[found];
        chunk.live -= memory.bytes.next_multiple_of(CACHE_LINE);
        if chunk.live == 0 {
            let chunk = self.chunks.remove(found);
            self.free.retain(|free| !chunk.has(free));
            return;
        }
        // SAFETY: the array is a part of a chunk, and nobody has it any more.
        unsafe { pages::discard(memory.start, memory.bytes) };
        self.free.push(memory);
    }

    fn chunk_of(&self, memory: &StateMemory) -> usize {
        let found = self.chunks.iter().position(|chunk| chunk.has(memory));
        found.expect("arrays are given back to the arena that they are of")
    }
}

impl Chunk {
    fn new(size: usize, taken: usize) -> Option<Self> {
        let size = pages::rounded(size)?;
        Some(Chunk { start: pages::map(size)?, size, taken, huge: 0, live: 0 })
    }

    /// The next so many bytes, for which there is room.
    fn take(&mut self, size: usize) -> NonNull<u8> {
        debug_assert!(self.size - self.taken >= size);
        // SAFETY: the chunk has them from there on.
        let start = unsafe { self.start.add(self.taken) };
        self.taken += size;
        self.live += size;
        start
    }

    fn has(&self, memory: &StateMemory) -> bool {
        (self.start..self.start.map_addr(|start| start.saturating_add(self.size)))
            .contains(&memory.start)
    }

    /// Asks for huge pages where arrays fill most of them: half of one at most is not filled.
    fn use_huge_pages(&mut self) {
        let until = (self.taken + HUGE_PAGE / 2).min(self.size) / HUGE_PAGE * HUGE_PAGE;
        if until > self.huge {
            // SAFETY: the range is a part of the chunk.
            unsafe { pages::use_huge(self.start.add(self.huge), until - self.huge) };
            self.huge = until;
        }
    }
}

/// Mappings of our own: an allocator would touch the memory, which must be advised about before.
#[cfg(target_os = "linux")]
mod pages {
    use super::HUGE_PAGE;
    use std::ptr::{self, NonNull};

    /// The largest page that a system has: what is given back must be whole pages.
    const LARGEST_PAGE: usize = 64 << 10;

    /// What is mapped ahead of need, beside so much: addresses, and no memory.
    pub(super) fn ahead(taken: usize) -> usize {
        let most = if cfg!(target_pointer_width = "64") { 32 * HUGE_PAGE } else { HUGE_PAGE };
        if taken == 0 { LARGEST_PAGE } else { taken.clamp(HUGE_PAGE, most) }
    }

    pub(super) fn rounded(size: usize) -> Option<usize> {
        let size = size.checked_next_multiple_of(LARGEST_PAGE)?;
        isize::try_from(size).is_ok().then_some(size)
    }

    /// Zeroed pages, untouched and small, from a multiple of a huge page on where they could be one.
    pub(super) fn map(size: usize) -> Option<NonNull<u8>> {
        let align = if size < HUGE_PAGE { LARGEST_PAGE } else { HUGE_PAGE };
        let reserved = size.checked_add(align)?;
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
        let before = start.addr().next_multiple_of(align) - start.addr();
        let base = start.wrapping_add(before);
        let after = reserved - before - size;
        // SAFETY: `before` and `after` are whole pages at the ends of the mapping, which nobody has
        // seen yet; the advice changes no content, and a refusal costs speed or memory only.
        unsafe {
            if before > 0 {
                libc::munmap(start.cast(), before);
            }
            if after > 0 {
                libc::munmap(base.wrapping_add(size).cast(), after);
            }
            libc::madvise(base.cast(), size, libc::MADV_NOHUGEPAGE);
        }
        NonNull::new(base)
    }

    /// # Safety
    /// `start` is from [`map`] with this size, and nothing of it is used any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, size: usize) {
        // SAFETY: the range is what `map` kept of its mapping.
        unsafe { libc::munmap(start.as_ptr().cast(), size) };
    }

    /// # Safety
    /// The range is whole huge pages of a mapping of [`map`]'s.
    pub(super) unsafe fn use_huge(start: NonNull<u8>, size: usize) {
        // SAFETY: this function's own contract; the advice changes no content.
        unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
    }

    /// Whole pages of the range are given back to the system, and are zeros when touched again.
    ///
    /// # Safety
    /// The range is of a mapping of [`map`]'s, and nobody uses it.
    pub(super) unsafe fn discard(start: NonNull<u8>, size: usize) {
        let before = start.addr().get().next_multiple_of(LARGEST_PAGE) - start.addr().get();
        let size = size.saturating_sub(before) / LARGEST_PAGE * LARGEST_PAGE;
        if size > 0 {
            let start = start.as_ptr().wrapping_add(before);
            // SAFETY: whole pages of the range, which is this function's own contract.
            unsafe {
                // Huge pages would not let go of a part of theirs.
                libc::madvise(start.cast(), size, libc::MADV_NOHUGEPAGE);
                libc::madvise(start.cast(), size, libc::MADV_DONTNEED);
            }
        }
    }
}

/// The allocator's memory, which writes its zeros: little is taken ahead of need.
#[cfg(not(target_os = "linux"))]
mod pages {
    use super::CACHE_LINE;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size, CACHE_LINE).ok()
    }

    pub(super) fn ahead(taken: usize) -> usize {
        taken.clamp(16 << 10, 1 << 20)
    }

    pub(super) fn rounded(size: usize) -> Option<usize> {
        Some(size)
    }

    pub(super) fn map(size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0: a chunk's start is staggered.
        NonNull::new(unsafe { alloc_zeroed(layout(size)?) })
    }

    /// # Safety
    /// `start` is from [`map`] with this size, and nothing of it is used any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, size: usize) {
        let layout = layout(size).expect("`map` had it");
        // SAFETY: `map` allocated it with this layout.
        unsafe { dealloc(start.as_ptr(), layout) };
    }

    pub(super) unsafe fn use_huge(_: NonNull<u8>, _: usize) {}
    pub(super) unsafe fn discard(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrays of many lengths: parts of pages, pages, and more.
    fn arrays(arena: &mut Arena) -> Vec<StateMemory> {
        let lens = [1, 63, 64, 65, 4000, 4096, 70_000, HUGE_PAGE, 5_000_001];
        lens.iter().cycle().take(60).map(|bytes| arena.take(*bytes, false).unwrap()).collect()
    }

    fn contents(memory: &StateMemory) -> &'static mut [u8] {
        // SAFETY: the arena lives, and each test looks at one array at a time.
        unsafe { std::slice::from_raw_parts_mut(memory.start.as_ptr(), memory.bytes) }
    }

    #[test]
    fn arrays_are_zeroed_aligned_and_apart() {
        let mut arena = Arena::new(2);
        let arrays = arrays(&mut arena);
        for (i, memory) in arrays.iter().enumerate() {
            assert!(memory.start.as_ptr().addr().is_multiple_of(CACHE_LINE));
            assert!(contents(memory).iter().all(|byte| *byte == 0), "array {i}");
            contents(memory).fill(i as u8 + 1);
        }
        for (i, memory) in arrays.iter().enumerate() {
            assert!(contents(memory).iter().all(|byte| *byte == i as u8 + 1), "array {i}");
        }
    }

    #[test]
    fn what_is_given_back_is_zero_when_it_is_taken_again_and_harms_no_neighbour() {
        let mut arena = Arena::new(0);
        let mut kept = arrays(&mut arena);
        kept.iter().for_each(|memory| contents(memory).fill(7));
        let mut given_back = Vec::new();
        for i in (0..kept.len()).step_by(2).rev() {
            let memory = kept.swap_remove(i);
            given_back.push(memory.bytes);
            arena.give_back(memory);
        }
        for bytes in &given_back {
            let memory = arena.take(*bytes, false).unwrap();
            assert!(contents(&memory).iter().all(|byte| *byte == 0), "{bytes} bytes");
        }
        assert!(kept.iter().all(|memory| contents(memory).iter().all(|byte| *byte == 7)));
    }

    #[test]
    fn a_chunk_goes_with_the_last_of_its_arrays() {
        let mut arena = Arena::new(3);
        let small: Vec<_> = (0..1000).map(|_| arena.take(4000, false).unwrap()).collect();
        let table = arena.take(4 * HUGE_PAGE, true).unwrap();
        let next = arena.take(4000, false).unwrap();
        assert!(arena.chunks.iter().all(|chunk| chunk.huge == 0 || !chunk.has(&table)));
        small.into_iter().chain([table, next]).for_each(|memory| arena.give_back(memory));
        assert!(arena.chunks.is_empty() && arena.free.is_empty());
    }

    #[test]
    fn more_than_there_is_is_an_error_and_the_arena_goes_on() {
        let mut arena = Arena::new(1);
        for bytes in [usize::MAX, isize::MAX as usize] {
            assert_eq!(arena.take(bytes, false).err(), Some(bytes));
        }
        assert_eq!(contents(&arena.take(8, false).unwrap()), [0; 8]);
    }
}
