"""A parameter as the library sees it: plain where it lies, or a copy of it for the step."""

from typing import NamedTuple, Optional

import torch

from ._library import Error
from ._memory import empty
from ._native import BF16, F16, F32, F64, Q8

# What parameters may be of, and the library's codes.
CODES = {
    torch.float32: F32,
    torch.float64: F64,
    torch.bfloat16: BF16,
    torch.float16: F16,
}
SHORT = (torch.bfloat16, torch.float16)
# What state is kept in. The tensor of 8-bit state has its bytes: codes, then exponents.
KEPT = {**{code: dtype for dtype, code in CODES.items()}, Q8: torch.uint8}
#: Copies of the parameter as it was, in its type, or in that of its master copy.
ORIGINS = ("x0", "p0")
MASTER = "master"

PLAIN, PERMUTED, COPIED, ROWS = "plain", "permuted", "copied", "rows"


def check_parameter(p, name):
    """Raises why the library cannot step a parameter."""
    if p.device.type != "cpu":
        raise Error(
            f"{name} is on {p.device}: dadapt steps on the CPU. Move the model there, or keep a "
            "copy of it on the CPU and step that"
        )
    if p.layout != torch.strided:
        raise Error(f"{name} has the layout {p.layout}: dadapt steps dense parameters")
    if p.is_neg():
        raise Error(f"{name} is a view with the signs of other memory: give its resolve_neg()")
    if p.dtype not in CODES:
        known = ", ".join(map(str, CODES))
        raise Error(f"{name} is of {p.dtype}: dadapt steps parameters of {known}")


def is_dense(p):
    """Whether the elements fill their memory without gaps, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(p.stride(), p.shape)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def is_plain(tensor, dtype, size):
    """Whether the library can use a tensor where it lies, in the order of its indices."""
    return (
        tensor.dtype == dtype
        and tensor.device.type == "cpu"
        and tensor.numel() == size
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and (size == 0 or tensor.data_ptr() != 0)
    )


class Slot(NamedTuple):
    """An array of a parameter's state; key is None where there is none."""

    key: Optional[str]
    dtype: torch.dtype = torch.float32
    #: Elements of the tensor.
    size: int = 0
    #: Values in it, which are fewer in 8 bits.
    values: int = 0

    def is_zero(self, tensor):
        """Whether all of it is 0."""
        if self.dtype != torch.uint8:
            return not (tensor != 0).any()
        codes, exponents = tensor[: self.values], tensor[self.values :]
        return not (codes & 0x7F).any() and not (exponents == 255).any()


class Entry:
    """A registered parameter.

    ``state`` is its dict in the optimizer's ``state`` once it has been updated, and one of our own
    until then: an error, or a step that changes nothing, leaves nothing behind.
    """

    __slots__ = ("dtype", "group", "kind", "name", "number", "p", "place", "pending", "slots", "state")

    def __init__(self, p, group, name, rows, flat):
        check_parameter(p, name)
        self.p, self.dtype, self.group, self.name = p, p.dtype, group, name
        self.state, self.pending = None, True
        self.number = self.place = self.slots = None
        if rows:
            self.kind = ROWS
        elif p.is_contiguous():
            self.kind = PLAIN
        # Slices, and flat state of a state dict, follow the order of the indices.
        elif is_dense(p) and not flat:
            self.kind = PERMUTED
        else:
            self.kind = COPIED
        if rows and (p.dim() < 1 or not p.is_contiguous() or p.dtype in SHORT):
            raise Error(f"{name}: sparse gradients need a contiguous table of f32 or f64")

    @property
    def code(self):
        """The library's code of its type."""
        return CODES[self.dtype]

    def still_fits(self):
        """Whether the parameter is what it was registered as, wherever it is now."""
        p = self.p
        if p.dtype != self.dtype:
            return False
        kind = Entry(p, self.group, self.name, self.kind == ROWS, self.kind == COPIED).kind
        return kind == self.kind or (kind, self.kind) == (PERMUTED, COPIED)

    def new_state(self, slot, flat):
        """An array of the state, in the order of the parameter's memory. The library sets it up, but
        for tables, which want zeros."""
        p = self.p
        with torch.inference_mode(False):
            if self.kind == ROWS:
                return torch.zeros(p.shape, dtype=self.dtype)
            bytes_each = 1 if slot.dtype == torch.uint8 else torch.finfo(slot.dtype).bits // 8
            new = empty(slot.size, bytes_each, slot.dtype, self.slots.index(slot))
            if slot.size != p.numel() or slot.dtype == torch.uint8 or flat:
                return new
            if self.kind == PERMUTED:
                return new.as_strided(p.shape, p.stride())
            return new.view(p.shape)

    def fit(self, slot, tensor, flat):
        """An array of the state that came from elsewhere, as the library needs it."""
        key = slot.key
        if not isinstance(tensor, torch.Tensor) or tensor.is_complex():
            raise Error(f"state {key!r} of {self.name} is not a tensor of real numbers")
        low = slot.dtype in (torch.bfloat16, torch.uint8) and key not in ORIGINS
        # State of bf16 may be of a parameter of that, in the package.
        if tensor.dtype != slot.dtype and (low or tensor.dtype == torch.uint8):
            raise Error(
                f"state {key!r} of {self.name} is of {tensor.dtype}, and the optimizer's state_dtype "
                f"keeps it in {slot.dtype}: state is not converted; give the optimizer the "
                "state_dtype of the state"
            )
        if key == "p0" and tensor.dim() == 0 and not tensor.any():
            # A parameter that starts at 0: the package keeps no more than this.
            tensor = tensor.new_zeros(slot.size)
        if tensor.numel() != slot.size:
            raise Error(
                f"state {key!r} of {self.name} has {tensor.numel()} elements, not {slot.size}: "
                "it is of another parameter, or of another slice_p"
            )
        return tensor if self.fits(slot, tensor) else self.converted(slot, tensor, flat)

    def fits(self, slot, tensor):
        """Whether an array of the state can be used as it is."""
        if self.kind == PERMUTED and tensor.shape == self.p.shape and slot.dtype != torch.uint8:
            right = tensor.dtype == slot.dtype and tensor.device.type == "cpu"
            return right and tensor.layout == torch.strided and tensor.stride() == self.p.stride()
        return is_plain(tensor, slot.dtype, slot.size)

    def converted(self, slot, tensor, flat):
        """A copy that fits."""
        new = self.new_state(slot, flat)
        with torch.no_grad():
            new.copy_(tensor.reshape(new.shape))
        return new

    def gradient(self, g, copies):
        """Where the gradient is, in the order of the parameter's memory; 0 where there is none. A copy, if
        one is needed, lives as long as `copies`."""
        if g is None:
            return 0
        p = self.p
        if g.layout != torch.strided:
            if g.layout == torch.sparse_coo:
                raise Error(
                    f"{self.name} has a sparse gradient: only DAdaptAdaGrad takes them, and only of "
                    "parameters whose first gradient is sparse. Make the layer's gradients dense "
                    "(Embedding(..., sparse=False)), or sparse from the start"
                )
            raise Error(f"the gradient of {self.name} has the layout {g.layout}")
        if g.device.type != "cpu":
            raise Error(f"the gradient of {self.name} is on {g.device}: dadapt steps on the CPU")
        if g.shape != p.shape:
            raise Error(
                f"the gradient of {self.name} has the shape {tuple(g.shape)}, not {tuple(p.shape)}"
            )
        if self.kind == PERMUTED:
            usable = g.stride() == p.stride()
        else:
            usable = g.is_contiguous()
        if not usable or g.dtype != self.dtype or g.is_neg():
            with torch.no_grad():
                copy = torch.empty(p.shape, dtype=self.dtype)
                if self.kind == PERMUTED:
                    copy = torch.empty_strided(p.shape, p.stride(), dtype=self.dtype)
                g = copy.copy_(g)
            copies.append(g)
        if g.numel() and not g.data_ptr():
            raise Error(f"the gradient of {self.name} has no memory")
        return g.data_ptr()

    def rows_of(self, g, copies):
        """Where a sparse gradient's rows and values are, and how many there are."""
        if g.layout == torch.strided:
            raise Error(
                f"{self.name} had sparse gradients and has a dense one now: keep to one kind"
            )
        if g.layout != torch.sparse_coo or g.sparse_dim() != 1:
            raise Error(
                f"the gradient of {self.name} is sparse in another way than by rows: "
                f"{g.layout}, {g.sparse_dim() if g.layout == torch.sparse_coo else 0} dimensions"
            )
        if g.shape != self.p.shape:
            raise Error(f"the gradient of {self.name} has another shape than the parameter")
        rows = g._indices()[0].contiguous()
        values = g._values().to(self.dtype).contiguous()
        copies += (rows, values)
        return rows.data_ptr(), values.data_ptr(), rows.numel()
