"""Memory for large state: in huge pages where the system gives them, and staggered.

PyTorch's allocator knows neither. Arrays that start at the same place of a page fall into the same sets
of the cache, and small pages miss the TLB: together worth some 10 % of a step that does not fit
the cache.
"""

import ctypes
import mmap

import torch

HUGE_PAGE = 2 << 20
STAGGER = 640
#: Private, so that a forked child has its own; the default of Python is shared.
FLAGS = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


def empty(count, size, dtype, slot):
    """A flat tensor of `count` elements of `size` bytes, the state of that slot."""
    if count * size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count, dtype=dtype)
    start = (slot + 1) * STAGGER
    try:
        pages = mmap.mmap(-1, count * size + start + HUGE_PAGE, flags=FLAGS)
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return torch.empty(count, dtype=dtype)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    # The tensor keeps the mapping alive.
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=start - address % -HUGE_PAGE)
