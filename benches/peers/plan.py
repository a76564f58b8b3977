"""What is measured: rows, sizes, and the ratios that are asked for."""

from dataclasses import dataclass

# GPT-2 124M: embeddings, twelve blocks, the last norm; 148 tensors.
_WIDTH = 768
_BLOCK = [
    *(_WIDTH, _WIDTH),
    *(_WIDTH * 3 * _WIDTH, 3 * _WIDTH, _WIDTH * _WIDTH, _WIDTH),
    *(_WIDTH, _WIDTH),
    *(_WIDTH * 4 * _WIDTH, 4 * _WIDTH, 4 * _WIDTH * _WIDTH, _WIDTH),
]
GPT2 = [50257 * _WIDTH, 1024 * _WIDTH, *_BLOCK * 12, _WIDTH, _WIDTH]

# In the order of measuring.
SIZES = {
    "1e5": [100_000],
    "1e6": [1_000_000],
    "1000x1000": [1000] * 1000,
    "1e7": [10_000_000],
    "gpt2": GPT2,
    "5e7": [50_000_000],
}

# A malloc that keeps what it has: temporaries are then neither mapped nor unmapped in each step.
TUNED = "glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    label: str
    worker: str  # a module of Python beside this one, or "rust"
    arrays: int  # as large as the parameters, in all: for the budget of memory
    bytes: int | None = None  # that a step must move for a parameter
    threads: tuple[int, ...] | None = None  # None: any number
    gpt2: bool = False  # also at the GPT-2 shapes, where slow ones take minutes
    many: bool = True  # also with 1,000 tensors, which jit takes minutes to compile
    large: bool = False  # also at 5e7

    @property
    def tuned(self):
        """Whether glibc's thresholds are raised."""
        return self.name.endswith("_tuned")


def _ours(name, label, arrays, size, **more):
    return Row(name, f"ours: {label}", "native", arrays, size, large=True, **more)


def _ceiling(name, label, arrays, size):
    label = f"memory: streams of {label}"
    return Row(f"ceiling_{name}", label, "native", arrays, size, gpt2=True, large=True)


def _both(worker, name, label, arrays, **more):
    return [
        Row(name, f"{label}, as installed", worker, arrays, **more),
        Row(f"{name}_tuned", f"{label}, malloc tuned", worker, arrays, **more),
    ]


def _reference(name, label, arrays, **more):
    return _both("torch_peers", name, label, arrays, **more)


ROWS = [
    _ceiling("adamw", "AdamW", 4, 28),
    _ceiling("dadapt_adam", "D-Adapt Adam", 5, 36),
    _ceiling("prodigy", "Prodigy", 6, 40),
    _ours("adam", "D-Adapt Adam", 5, 36, gpt2=True),
    _ours("adam_checked", "D-Adapt Adam, gradients checked", 5, 40, gpt2=True),
    _ours("prodigy", "Prodigy", 6, 40, gpt2=True),
    _ours("sgd", "D-Adapt SGD", 4, 24),
    _ours("adagrad", "D-Adapt AdaGrad", 5, 32),
    _ours("lion", "D-Adapt Lion", 4, 28),
    _ours("adan", "D-Adapt Adan", 7, 52),
    _ours("plain_adam", "AdamW, fixed rate", 4, 28, gpt2=True),
    _ours("plain_sgd", "SGD with momentum, fixed rate", 3, 20),
    *_reference("dadaptation_adam", "dadaptation DAdaptAdam", 7, gpt2=True),
    *_reference("prodigyopt", "prodigyopt Prodigy", 8, gpt2=True),
    *_reference("dadaptation_sgd", "dadaptation DAdaptSGD", 6),
    *_reference("dadaptation_adagrad", "dadaptation DAdaptAdaGrad", 9),
    *_reference("dadaptation_lion", "dadaptation DAdaptLion", 6),
    *_reference("dadaptation_adan", "dadaptation DAdaptAdan", 10),
    Row("optax_dadapt_adamw", "optax dadapt_adamw, jit", "jax_peers", 9, gpt2=True, many=False),
    *_both("jax_peers", "optax_prodigy", "optax prodigy, jit", 10, gpt2=True, many=False),
    Row("optax_adamw", "optax adamw, jit", "jax_peers", 8, 28, gpt2=True, many=False),
    Row("torch_adamw", "PyTorch AdamW, fused", "torch_peers", 4, 28, gpt2=True, large=True),
    Row("torch_sgd", "PyTorch SGD with momentum, fused", "torch_peers", 3, 20, large=True),
    Row("deepspeed_adamw", "DeepSpeed CPU Adam (AdamW)", "torch_peers", 4, 28, gpt2=True),
    Row("c_adamw", "C loop, AdamW, -ffast-math", "native", 4, 28, threads=(1,), gpt2=True),
    Row("c_adamw_openmp", "the same with OpenMP", "native", 4, 28, gpt2=True),
    *_both("rust", "candle_adamw", "candle AdamW", 14),
    *_both("rust", "burn_flex_adamw", "burn AdamW (flex)", 9),
    *_both("rust", "burn_ndarray_adamw", "burn AdamW (ndarray)", 9),
]


def row(name):
    """The row of that name."""
    return next(row for row in ROWS if row.name == name)


def rows(size, threads, everything):
    """The rows of a table's column: all, or those that do not take too long."""
    fast = {"gpt2": lambda row: row.gpt2, "1000x1000": lambda row: row.many}
    for row in ROWS:
        if row.threads is not None and threads not in row.threads:
            continue
        if row.large if size == "5e7" else everything or fast.get(size, lambda _: True)(row):
            yield row


# Measured again with every part of the rows, where memory does not hold them all at once.
ANCHORS = ("adam", "prodigy")


@dataclass(frozen=True)
class Goal:
    """The time of `a` over that of `b`, and the bound: "<" for at most, ">" for at least."""

    a: str
    b: str
    size: str
    threads: int
    relation: str
    bound: float


def goals(threads):
    """What ours is held against."""
    slower = [
        ("dadaptation_adam", "adam", 12.0),
        ("dadaptation_adam_tuned", "adam", 5.0),
        ("prodigyopt", "prodigy", 8.0),
        ("prodigyopt_tuned", "prodigy", 4.0),
        ("optax_prodigy", "prodigy", 2.0),
        ("optax_prodigy_tuned", "prodigy", 2.0),
    ]
    for a, b, bound in slower:
        yield Goal(a, b, "1e7", threads, ">", bound)
    for peer in ("torch_adamw", "deepspeed_adamw"):
        for size, bound in (("1e7", 1.25), ("1e5", 1.0), ("1e6", 1.0), ("gpt2", 1.25)):
            yield Goal("adam", peer, size, threads, "<", bound)
    for size in ("1e5", "1e6", "1e7", "gpt2"):
        yield Goal("adam_checked", "adam", size, threads, "<", 40 / 36)
