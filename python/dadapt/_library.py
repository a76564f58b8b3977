"""libdadapt, by ctypes: found, declared as dadapt.h has it, its errors raised."""

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

ABI_VERSION = 0
ALL_GROUPS = 0xFFFFFFFF

HERE = Path(__file__).resolve().parent


class Error(RuntimeError):
    """A call of the library that failed, in its words; it has changed nothing.

    ``status`` is the name that dadapt.h has for what was wrong.
    """

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class OptionError(Error, ValueError):
    """An option that does not exist or cannot have that value."""


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
        ("overflows", c_uint64),
    ]


class Estimate(ctypes.Structure):
    """dadapt_estimate."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("k", c_uint64),
        ("d", c_double),
        ("totals", c_double * 3),
        ("g0_norm", c_double),
        ("d_moved", c_int32),
        ("reserved", c_int32),
    ]


class Progress(ctypes.Structure):
    """dadapt_progress."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("steps", c_uint64),
        ("moved", c_int32),
        ("started_at_zero", c_int32),
        ("master_is_set", c_int32),
        ("reserved", c_int32),
    ]


def sized(kind, **fields):
    """A struct that says how large it is."""
    return kind(ctypes.sizeof(kind), **fields)


# Arguments of the functions that return a status.
TENSOR = [c_void_p, c_uint32, c_char_p, c_int32, c_size_t, POINTER(c_uint64)]
ROWS = [*TENSOR[:5], c_size_t, c_int32, POINTER(c_uint64)]
STATE = [c_void_p, c_uint64, c_size_t, POINTER(c_void_p), POINTER(c_size_t), POINTER(c_int32)]
INFO = [*STATE[:3], POINTER(c_char_p), POINTER(c_int32), POINTER(c_size_t)]
STATUS = {
    "dadapt_algorithm_from_name": [c_char_p, POINTER(c_int32)],
    "dadapt_config_new": [c_int32, POINTER(c_void_p)],
    "dadapt_config_add_group": [c_void_p, POINTER(c_uint32)],
    "dadapt_config_set_f64_by_name": [c_void_p, c_uint32, c_char_p, c_double],
    "dadapt_optimizer_new": [c_void_p, POINTER(c_void_p)],
    "dadapt_optimizer_set_openmp": [c_void_p, c_void_p, c_void_p],
    "dadapt_optimizer_set_f64_by_name": [c_void_p, c_uint32, c_char_p, c_double],
    "dadapt_optimizer_add_tensor": TENSOR,
    "dadapt_optimizer_add_tensor_with_state_of_caller": TENSOR,
    "dadapt_optimizer_add_rows": ROWS,
    "dadapt_optimizer_step": [c_void_p, c_void_p, c_size_t, POINTER(Report)],
    "dadapt_optimizer_group_report": [c_void_p, c_uint32, POINTER(Report)],
    "dadapt_optimizer_step_begin": [c_void_p],
    "dadapt_optimizer_step_tensor": [c_void_p, c_void_p],
    "dadapt_optimizer_step_end": [c_void_p, POINTER(Report)],
    "dadapt_optimizer_step_abort": [c_void_p, c_void_p, c_size_t, POINTER(c_size_t)],
    "dadapt_optimizer_state": STATE,
    "dadapt_optimizer_state_count": [c_void_p, c_uint64, POINTER(c_size_t)],
    "dadapt_optimizer_state_info": INFO,
    "dadapt_optimizer_state_bytes": [c_void_p, c_uint64, c_size_t, POINTER(c_size_t)],
    "dadapt_optimizer_estimate": [c_void_p, c_uint32, POINTER(Estimate)],
    "dadapt_optimizer_set_estimate": [c_void_p, c_uint32, POINTER(Estimate)],
    "dadapt_optimizer_tensor_progress": [c_void_p, c_uint64, POINTER(Progress)],
    "dadapt_optimizer_set_tensor_progress": [c_void_p, c_uint64, POINTER(Progress)],
    "dadapt_optimizer_freeze": [c_void_p],
    "dadapt_optimizer_restart": [c_void_p],
    "dadapt_isa": [POINTER(c_char_p)],
}
OTHERS = {
    "dadapt_version": (c_char_p, []),
    "dadapt_abi_version": (ctypes.c_int, []),
    "dadapt_algorithm_state_name": (c_char_p, [c_int32, c_size_t]),
    "dadapt_last_error": (c_char_p, []),
    "dadapt_status_name": (c_char_p, [c_int32]),
    "dadapt_movement_name": (c_char_p, [c_int32]),
    "dadapt_config_free": (None, [c_void_p]),
    "dadapt_optimizer_free": (None, [c_void_p]),
}

OPTIONS = {"OUT_OF_BOUNDS", "UNKNOWN_KEY", "KEY_NOT_FOR_ALGORITHM", "NOT_PER_GROUP", "FIXED"}


def places():
    """Where the library may be: as DADAPT_LIBRARY says, or beside this file, or in the repository that
    this file is in, or installed in the system."""
    if forced := os.environ.get("DADAPT_LIBRARY"):
        return [forced]
    found = [*HERE.glob("_native_library/*.so")]
    repository = HERE.parent.parent
    if (repository / "include" / "dadapt.h").exists():
        target = Path(os.environ.get("CARGO_TARGET_DIR", repository / "target"))
        found.append(repository / target / "release" / "libdadapt.so")
    return [str(path) for path in found if path.exists()] + [f"libdadapt.so.{ABI_VERSION}"]


def load():
    """The library, with its functions declared."""
    tried = []
    for place in places():
        try:
            lib = ctypes.CDLL(place)
            break
        except OSError as error:
            tried.append(str(error))
    else:
        raise ImportError(
            "libdadapt cannot be loaded: install the wheel, or run `cargo build --release -p dadapt-capi` in the "
            f"repository, or let DADAPT_LIBRARY say where it is ({'; '.join(tried)})"
        )
    try:
        for name, arguments in STATUS.items():
            getattr(lib, name).argtypes = arguments
            getattr(lib, name).restype = c_int32
        for name, (result, arguments) in OTHERS.items():
            getattr(lib, name).argtypes = arguments
            getattr(lib, name).restype = result
    except AttributeError as error:
        raise ImportError(f"{place} is too old for this package: {error}") from None
    if lib.dadapt_abi_version() != ABI_VERSION:
        raise ImportError(
            f"{place} has ABI version {lib.dadapt_abi_version()}; this package needs {ABI_VERSION}"
        )
    return lib


LIB = load()
#: The same, by calls that keep the interpreter's lock: for what calls it back.
LOCKED = ctypes.PyDLL(LIB._name)


def fail(status):
    """Raises what the library said of that status."""
    name = LIB.dadapt_status_name(status).decode()
    words = LIB.dadapt_last_error().decode()
    short = name.replace("DADAPT_ERROR_", "")
    if short == "OUT_OF_MEMORY":
        raise MemoryError(words)
    raise (OptionError if short in OPTIONS else Error)(words, short)


def ok(status):
    """Raises what the library says was wrong, where something was."""
    if status:
        fail(status)


# ---- DLPack's C exchange API: where an object's array lies, without a call of Python's ----


class Array(ctypes.Structure):
    """dadapt_dlpack_array."""

    _fields_ = [
        ("len", c_size_t),
        ("dtype", c_int32),
        ("reserved", c_int32),
        ("data", c_void_p),
    ]


LOCKED.dadapt_dlpack_data.argtypes = [c_void_p] * 3 + [
    POINTER(c_void_p),
    POINTER(c_void_p),
    c_size_t,
    c_size_t,
    POINTER(Array),
    POINTER(c_size_t),
]
LOCKED.dadapt_dlpack_data.restype = c_int32


class Exchange(ctypes.Structure):
    """The start of DLPackExchangeAPI, of version 1."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("previous", c_void_p),
        ("allocator", c_void_p),
        ("managed_from_object", c_void_p),
        ("managed_to_object", c_void_p),
        ("tensor_from_object", c_void_p),
    ]


def exchange_of(kind):
    """How a class shares its arrays by that API; None where it does not."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    open_capsule = ctypes.pythonapi.PyCapsule_GetPointer
    open_capsule.argtypes, open_capsule.restype = [ctypes.py_object, c_char_p], c_void_p
    try:
        api = Exchange.from_address(open_capsule(capsule, b"dlpack_exchange_api"))
    except ValueError:  # a capsule of another name
        return None
    return api.tensor_from_object if api.major == 1 else None


def version():
    """The library's version."""
    return LIB.dadapt_version().decode()
