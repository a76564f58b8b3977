"""Where the tensors of a step lie, written into its descriptors."""

import ctypes
from array import array
from itertools import count
from operator import attrgetter, itemgetter
from typing import NamedTuple, Optional

import torch

from ._entries import KEPT, SHORT, is_plain
from ._library import LOCKED, Array, exchange_of, ok

CODE_OF = {dtype: code for code, dtype in KEPT.items()}
DATA_PTR, NUMEL = torch.Tensor.data_ptr, torch.Tensor.numel
IS_CONTIGUOUS = torch.Tensor.is_contiguous
DTYPE = attrgetter("dtype")
NBYTES = attrgetter("nbytes") if hasattr(torch.Tensor, "nbytes") else None
#: PyTorch's answer to where a tensor lies that takes no call of Python's, from 2.10 on; else None.
FROM_TENSOR = exchange_of(torch.Tensor)
ITEM = ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p)
DATA = LOCKED.dadapt_dlpack_data
VALUE = ctypes.cast(ctypes.pythonapi.PyDict_GetItemWithError, ctypes.c_void_p)


class Column(NamedTuple):
    """An address of each descriptor: the parameter's, the gradient's, or that of a state array."""

    #: An array of 8 bytes each, and the place of the first address in it, and from one to the next.
    words: array
    first: int
    step: int
    #: What the tensors must be, beside contiguous and on the CPU.
    dtypes: list
    sizes: list
    #: Where they are in a parameter's state, if they are.
    key: Optional[str] = None


class Shared:
    """The columns of parameters, of state arrays, and of gradients, in that order.

    ``read(parameters, states, gradients)``, or without gradients, writes where their tensors lie. It returns
    how many columns there are before the first with a tensor that is not as it must be; what is in
    that column counts for nothing. Nothing tells when a tensor moves, so every step reads.

    This one asks in one call of the library, by DLPack's C exchange API.
    """

    #: Whether parameters lie elsewhere than they did; only Listed knows.
    moved = False

    def __init__(self, columns):
        self.n, self.found = len(columns[0].sizes), ctypes.c_size_t()
        self.keys = [column.key for column in columns]
        self.lists = (ctypes.c_void_p * len(columns))()
        keys = [key and id(key) for key in self.keys]
        arrays = [
            Array(size, CODE_OF[dtype], 0, column.words.buffer_info()[0] + 8 * place)
            for column in columns
            for dtype, size, place in zip(
                column.dtypes, column.sizes, count(column.first, column.step)
            )
        ]
        self.arrays = (Array * len(arrays))(*arrays)
        self.of_keys = (ctypes.c_void_p * len(keys))(*keys)
        self.found_at = ctypes.byref(self.found)

    def read(self, parameters, states, *gradients):
        # The interpreter names objects by their addresses; the arguments keep them alive.
        lists = [id(parameters), *[id(states)] * (len(self.keys) - 2), *map(id, gradients)]
        self.lists[: len(lists)] = lists
        self.found.value = 0
        functions, sizes = (FROM_TENSOR, ITEM, VALUE), (len(lists), self.n)
        try:
            status = DATA(*functions, self.lists, self.of_keys, *sizes, self.arrays, self.found_at)
        except (TypeError, RuntimeError):  # None, or sparse
            status = 0
        ok(status)
        return self.found.value // self.n if self.n else len(lists)

    def forget(self):
        """Notes that somebody else has written some."""


class Listed:
    """As above, by calls of PyTorch's for each tensor. Other tensors than gradients, which stay the same, are
    looked at where they lie elsewhere than they did."""

    def __init__(self, columns):
        self.columns, self.known, self.moved = columns, [None] * len(columns), False
        of_gradients = columns[-1]
        self.look, self.seen = sizes_and_types, (of_gradients.sizes, of_gradients.dtypes)
        # PyTorch sees to it that a gradient has its parameter's shape when it is assigned, so that bytes
        # tell f32 from f64.
        if NBYTES and not any(dtype in SHORT for dtype in of_gradients.dtypes):
            bytes_each = [torch.finfo(dtype).bits // 8 for dtype in of_gradients.dtypes]
            self.look = lambda tensors: list(map(NBYTES, tensors))
            self.seen = [size * each for size, each in zip(of_gradients.sizes, bytes_each)]

    def read(self, parameters, states, *gradients):
        plain, self.moved = iter((parameters, *gradients)), False
        for index, column in enumerate(self.columns):
            key = column.key
            try:
                tensors = list(map(itemgetter(key), states)) if key else next(plain, None)
            except KeyError:
                return index
            if tensors is None or not self.place(index, column, tensors):
                return index
        return len(self.columns)

    def place(self, index, column, tensors):
        """Writes where the tensors of a column lie; whether they are what they must be."""
        try:
            pointers = list(map(DATA_PTR, tensors))
            moved = pointers != self.known[index]
            if index == len(self.columns) - 1:
                fit = self.look(tensors) == self.seen and all(map(IS_CONTIGUOUS, tensors))
            else:
                fit = not moved or all(map(is_plain, tensors, column.dtypes, column.sizes))
            if fit and 0 in pointers:
                fit = all(at or not size for at, size in zip(pointers, column.sizes))
        except (TypeError, RuntimeError):  # None, or sparse
            fit = False
        if fit and moved:
            self.known[index] = None  # until all are written, whatever interrupts this
            end = column.first + column.step * len(pointers)
            column.words[column.first : end : column.step] = array("Q", pointers)
            self.known[index] = pointers
            self.moved |= index == 0
        return fit

    def forget(self):
        """Notes that somebody else has written some."""
        self.known = [None] * len(self.columns)


def sizes_and_types(tensors):
    """What tells tensors of the right size and type from others."""
    return list(map(NUMEL, tensors)), list(map(DTYPE, tensors))


Addresses = Shared if FROM_TENSOR else Listed
