"""Ours through the C ABI, and the loops of loops.c."""

import ctypes
import os
from collections import Counter
from ctypes import (
    POINTER,
    byref,
    c_char_p,
    c_double,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)

from worker import D0, LR, WEIGHT_DECAY, Case, vector

ALL_GROUPS = c_uint32(0xFFFFFFFF)
F32 = 1
PROPAGATE = 2
SWEEPS = {0: "none", 1: "one", 2: "mended", 3: "two"}


class Tensor(ctypes.Structure):
    """dadapt_tensor."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("id", c_uint64),
        ("len", c_size_t),
        ("dtype", c_int32),
        ("reserved", c_int32),
        ("p", c_void_p),
        ("g", c_void_p),
        ("state", c_void_p),
        ("state_count", c_size_t),
        ("rows", c_void_p),
        ("row_count", c_size_t),
        ("row_type", c_int32),
        ("reserved2", c_int32),
    ]


class Report(ctypes.Structure):
    """dadapt_report."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("k", c_uint64),
        ("d", c_double),
        ("d_hat", c_double),
        ("dlr", c_double),
        ("numerator", c_double),
        ("denominator", c_double),
        ("grad_norm", c_double),
        ("applied", c_int32),
        ("movement", c_int32),
        ("sweeps", c_int32),
        ("reserved", c_int32),
    ]


class Ours(Case):
    """An optimizer of the library: the algorithm's name, with `_checked` for its default check."""

    def __init__(self, name, lens):
        super().__init__(lens)
        self.optimizer = None
        self.lib = library()
        algorithm = name.removesuffix("_checked")
        self.adaptive = not algorithm.startswith("plain_")
        options = {"num_threads": int(os.environ["PEERS_THREADS"])}
        if algorithm == name:
            options["non_finite"] = PROPAGATE
        if self.adaptive:
            options["d0"] = D0
        else:
            options["lr"] = LR
        if algorithm == "plain_sgd":
            options["momentum"] = 0.9
        if algorithm == "plain_adam":
            options |= {"weight_decay": WEIGHT_DECAY, "decouple": 1}
        self.optimizer = self.new(algorithm, options)
        ids = [self.add(n) for n in lens]
        self.tensors = [
            (Tensor * len(lens))(
                *(
                    Tensor(ctypes.sizeof(Tensor), i, len(p), F32, 0, p.ctypes.data, g.ctypes.data)
                    for i, p, g in zip(ids, self.p, gradients, strict=True)
                )
            )
            for gradients in self.g
        ]
        self.report = Report(ctypes.sizeof(Report))
        self.sweeps = Counter()
        self.given = None

    def new(self, algorithm, options):
        """An optimizer of that algorithm."""
        code, config, optimizer = c_int32(), c_void_p(), c_void_p()
        self.ok(self.lib.dadapt_algorithm_from_name(algorithm.encode(), byref(code)))
        self.ok(self.lib.dadapt_config_new(code, byref(config)))
        for key, value in options.items():
            self.ok(
                self.lib.dadapt_config_set_f64_by_name(
                    config, ALL_GROUPS, key.encode(), c_double(value)
                )
            )
        self.ok(self.lib.dadapt_optimizer_new(config, byref(optimizer)))
        self.lib.dadapt_config_free(config)
        return optimizer

    def add(self, n):
        """Registers a tensor."""
        number = c_uint64()
        self.ok(
            self.lib.dadapt_optimizer_add_tensor(
                self.optimizer, c_uint32(0), None, c_int32(F32), c_size_t(n), byref(number)
            )
        )
        return number.value

    def ok(self, status):
        """Raises what the library says was wrong."""
        if status != 0:
            raise RuntimeError(self.lib.dadapt_last_error().decode())

    def prepare(self, which):
        if self.given is not None:
            self.sweeps[SWEEPS[self.report.sweeps]] += 1
        self.given = self.tensors[which]

    def step(self):
        status = self.lib.dadapt_optimizer_step(
            self.optimizer, self.given, len(self.given), byref(self.report)
        )
        if status != 0:
            self.ok(status)

    def hold(self):
        if self.adaptive:
            self.ok(self.lib.dadapt_optimizer_set_lr(self.optimizer, ALL_GROUPS, c_double(LR)))
            # Lion has no such option.
            self.lib.dadapt_optimizer_set_f64_by_name(
                self.optimizer, ALL_GROUPS, b"growth_rate", c_double(1)
            )

    def begin(self):
        self.given = None
        self.sweeps.clear()

    def note(self):
        steps = sum(self.sweeps.values())
        sweeps = ", ".join(f"{name} {count / steps:.0%}" for name, count in self.sweeps.items())
        return f"sweeps: {sweeps}" + (f"; d {self.report.d:.3g}" if self.adaptive else "")

    def __del__(self):
        self.lib.dadapt_optimizer_free(self.optimizer)


def library():
    """libdadapt.so, with the types of what is used of it."""
    lib = ctypes.CDLL(os.environ["PEERS_LIBDADAPT"])
    lib.dadapt_last_error.restype = c_char_p
    lib.dadapt_optimizer_step.argtypes = [c_void_p, POINTER(Tensor), c_size_t, POINTER(Report)]
    lib.dadapt_config_free.restype = lib.dadapt_optimizer_free.restype = None
    return lib


class LoopTensor(ctypes.Structure):
    """`tensor` of loops.c."""

    _fields_ = [("len", c_size_t), ("p", c_void_p), ("g", c_void_p), ("state", c_void_p * 4)]


class Loop(Case):
    """A function of loops.c; the ceilings take a factor that changes next to nothing."""

    STATES = {"adamw": 2, "ceiling_adamw": 2, "ceiling_dadapt_adam": 3, "ceiling_prodigy": 4}

    def __init__(self, name, lens):
        super().__init__(lens)
        which = "PEERS_LOOPS_OPENMP" if name.endswith("_openmp") else "PEERS_LOOPS"
        name = name.removesuffix("_openmp").removeprefix("c_")
        self.loop = getattr(ctypes.CDLL(os.environ[which]), name)
        self.loop.argtypes = [POINTER(LoopTensor), c_size_t, c_double, c_double]
        self.loop.restype = None
        self.ceiling = name.startswith("ceiling_")
        self.state = [
            [vector(n, seed=2 + slot, slot=2 + slot) for slot in range(self.STATES[name])]
            for n in lens
        ]
        if not self.ceiling:
            for slot in (array for arrays in self.state for array in arrays):
                slot[:] = 0
        self.tensors = [
            (LoopTensor * len(lens))(
                *(
                    LoopTensor(
                        len(p),
                        p.ctypes.data,
                        g.ctypes.data,
                        (c_void_p * 4)(*(a.ctypes.data for a in s)),
                    )
                    for p, g, s in zip(self.p, gradients, self.state, strict=True)
                )
            )
            for gradients in self.g
        ]
        self.k = 0

    def prepare(self, which):
        self.k += 1
        self.given = self.tensors[which]

    def step(self):
        self.loop(self.given, len(self.given), 1e-6 if self.ceiling else self.k, LR)


def make(name, lens):
    """The case of that name."""
    kind = Loop if name.startswith(("c_", "ceiling_")) else Ours
    return kind(name, lens)
