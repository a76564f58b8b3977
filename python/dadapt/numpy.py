"""The optimizers over NumPy arrays, without PyTorch; JAX's arrays serve as gradients.

>>> import numpy as np
>>> from dadapt.numpy import DAdaptAdam
>>> w = np.ones(3, np.float32)
>>> optimizer = DAdaptAdam([w])
>>> for _ in range(100):
...     report = optimizer.step([w.copy()])  # the gradient of |w|^2/2
>>> optimizer.d > 1e-6
True
"""

import ctypes
from ctypes import byref, c_int32, c_size_t, c_void_p

import numpy as np

from ._library import ALL_GROUPS, LIB, Error, Progress, ok, sized
from ._native import BF16, F32, F64, Q8, Native, StepReport
from ._spec import number

__all__ = [
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdamPreprint",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
]

CODES = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}
#: What state is kept in. NumPy has no bf16, whose bits are uint16; 8-bit state is bytes.
KEPT = {F32: ctypes.c_float, F64: ctypes.c_double, BF16: ctypes.c_uint16, Q8: ctypes.c_uint8}


class Tensor(ctypes.Structure):
    """dadapt_tensor."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("id", ctypes.c_uint64),
        ("len", c_size_t),
        ("dtype", c_int32),
        ("g_dtype", c_int32),
        ("p", c_void_p),
        ("g", c_void_p),
        ("state", c_void_p),
        ("state_count", c_size_t),
        ("rows", c_void_p),
        ("row_count", c_size_t),
        ("row_type", c_int32),
        ("reserved", c_int32),
    ]


class Optimizer:
    """Steps arrays where they lie.

    Arguments:
        params: arrays of float32 or float64, contiguous and writable, in a list or a dict of names;
            or a list of groups: dicts with ``params`` and the options of the group.
        options: those of the library by its names (``lr``, ``weight_decay``, ``growth_rate``, ``d0``,
            ``num_threads``, ``state`` ("full", "compact", "bf16" or "q8") ...), or ``betas``; the defaults
            are the packages'.
    """

    algorithm = None

    def __init__(self, params, **options):
        groups = params if is_groups(params) else [{"params": params}]
        self.arrays, self.names = [], []
        listed = []
        for index, group in enumerate(groups):
            options_of_group = {key: value for key, value in group.items() if key != "params"}
            listed.append(native_options(options_of_group))
            named = group["params"]
            pairs = named.items() if isinstance(named, dict) else enumerate(named)
            for name, array in pairs:
                check_array(array, name)
                self.arrays.append(array)
                self.names.append(name if len(groups) == 1 else (index, name))
        self.native = Native(self.algorithm, native_options(options), listed)
        self.tensors = (Tensor * max(1, len(self.arrays)))()
        sizes = [len(group["params"]) for group in groups]
        owners = [index for index, size in enumerate(sizes) for _ in range(size)]
        for tensor, array, name, group in zip(self.tensors, self.arrays, self.names, owners):
            code = CODES[array.dtype]
            number_of = self.native.add_tensor(group, str(name), code, array.size, own=True)
            tensor.struct_size, tensor.id = ctypes.sizeof(Tensor), number_of
            tensor.len, tensor.dtype, tensor.p = array.size, code, array.ctypes.data

    @property
    def d(self):
        """The estimate as of the last step."""
        return self.native.estimate().d

    @property
    def k(self):
        """Steps that made progress."""
        return self.native.estimate().k

    def step(self, grads):
        """One step. ``grads`` is as ``params`` was, without the groups: a list in their order, or a dict by
        name; None where there is none. Returns a :class:`dadapt.StepReport`."""
        if isinstance(grads, dict):
            unknown = set(grads) - set(self.names)
            if unknown:
                raise Error(f"there is no parameter {sorted(map(str, unknown))[0]!r}")
            grads = [grads.get(name) for name in self.names]
        if len(grads) != len(self.arrays):
            raise Error(f"{len(grads)} gradients for {len(self.arrays)} parameters")
        kept = []
        for tensor, array, name, g in zip(self.tensors, self.arrays, self.names, grads):
            if g is not None:
                g = np.ascontiguousarray(g, dtype=array.dtype).reshape(np.shape(g))
                if g.shape != array.shape:
                    raise Error(
                        f"the gradient of {name} has the shape {g.shape}, not {array.shape}"
                    )
                kept.append(g)
            tensor.g = None if g is None else g.ctypes.data
        report = self.native.step(ctypes.addressof(self.tensors), len(self.arrays))
        return StepReport.of(report)

    def set(self, key, value, group=ALL_GROUPS):
        """Sets an option, of all groups or of one: a schedule sets ``lr``."""
        self.native.set(group, key, number(key, value))

    def state_dict(self):
        """Copies of the state, and what else an optimizer goes on from."""
        estimate = self.native.estimate()
        return {
            "k": estimate.k,
            "d": estimate.d,
            "totals": list(estimate.totals),
            "g0_norm": estimate.g0_norm,
            "d_moved": bool(estimate.d_moved),
            "state": [
                {"progress": progress(self.native, tensor.id), **copies(self.views(tensor))}
                for tensor in self.tensors[: len(self.arrays)]
            ],
        }

    def load_state_dict(self, state_dict):
        """Goes on from what :meth:`state_dict` gave, which an optimizer of the same arrays and options made."""
        held = state_dict["state"]
        if len(held) != len(self.arrays):
            raise Error(f"the state is of {len(held)} parameters, not of {len(self.arrays)}")
        places = []
        for tensor, one, name in zip(self.tensors, held, self.names):
            if len(one["progress"]) != 4:
                raise Error(f"the progress of {name} is of another version: {one['progress']}")
            for key, view in self.views(tensor).items():
                given = one.get(key)
                if given is None or given.shape != view.shape or given.dtype != view.dtype:
                    zero = key == "p0" and one["progress"][2]
                    if not zero:
                        raise Error(f"state {key!r} of {name} does not fit")
                else:
                    places.append((view, given))
        names = ("k", "d", "totals", "g0_norm", "d_moved")
        self.native.set_estimate(0, *(state_dict[name] for name in names))
        for view, given in places:
            view[...] = given
        for tensor, one in zip(self.tensors, held):
            self.native.set_progress(tensor.id, *one["progress"])

    def views(self, tensor):
        """The state of a tensor, by name, where it lies."""
        found = {}
        for slot in range(self.native.state_count(tensor.id)):
            name, code, _, size = self.native.state_info(tensor.id, slot)
            if size:
                start, at = c_void_p(), (self.native.handle, tensor.id, slot)
                ok(LIB.dadapt_optimizer_state(*at, byref(start), None, None))
                kind = KEPT[code]
                array = (kind * (size // ctypes.sizeof(kind))).from_address(start.value)
                found[name] = np.ctypeslib.as_array(array)
        return found


def copies(views):
    return {name: view.copy() for name, view in views.items()}


def progress(native, number_of):
    found = sized(Progress)
    ok(LIB.dadapt_optimizer_tensor_progress(native.handle, number_of, byref(found)))
    flags = (found.moved, found.started_at_zero, found.master_is_set)
    return (found.steps, *(bool(flag) for flag in flags))


def is_groups(params):
    """Whether it is a list of groups."""
    return isinstance(params, (list, tuple)) and bool(params) and isinstance(params[0], dict)


def native_options(options):
    """Options by the library's names."""
    options = dict(options)
    betas = options.pop("betas", ())
    options.update({f"beta{index}": beta for index, beta in enumerate(betas, 1)})
    return {key: number(key, value) for key, value in options.items()}


def check_array(array, name):
    if not isinstance(array, np.ndarray) or array.dtype not in CODES:
        raise Error(f"{name} is not a NumPy array of float32 or float64")
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise Error(f"{name} is not contiguous and writable: make it so with np.array(...)")


class DAdaptAdam(Optimizer):
    """Adam with D-Adaptation."""

    algorithm = "adam"


class DAdaptSGD(Optimizer):
    """SGD with D-Adaptation."""

    algorithm = "sgd"


class DAdaptAdaGrad(Optimizer):
    """AdaGrad with D-Adaptation, of dense gradients."""

    algorithm = "adagrad"


class DAdaptLion(Optimizer):
    """Lion with D-Adaptation."""

    algorithm = "lion"


class DAdaptAdan(Optimizer):
    """Adan with D-Adaptation."""

    algorithm = "adan"


class Prodigy(Optimizer):
    """Prodigy."""

    algorithm = "prodigy"


class DAdaptAdamPreprint(Optimizer):
    """Adam with D-Adaptation as in the preprint; experimental."""

    algorithm = "experimental_adam_preprint"


class DAdaptAdanIP(Optimizer):
    """Adan with D-Adaptation by inner products; experimental."""

    algorithm = "experimental_adan_ip"
