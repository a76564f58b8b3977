"""What each algorithm calls its options, state and totals, there and here."""

from dataclasses import dataclass, field

from ._native import NON_FINITE


def beta3(value):
    """None stands for the root of beta2, which the library calls 0."""
    return 0.0 if value is None else value


def non_finite(value):
    """The library's code of a policy."""
    if value not in NON_FINITE:
        raise ValueError(f"non_finite={value!r}: it is one of {', '.join(map(repr, NON_FINITE))}")
    return NON_FINITE[value]


#: What state may be kept in, and the library's codes; torch.bfloat16 by its name, since there may be no
#: PyTorch.
STATES = {"full": 0.0, "compact": 1.0, "bf16": 2.0, "q8": 3.0}
OTHER_NAMES = {"None": "full", "torch.bfloat16": "bf16"}


def state_name(value):
    """The library's name of what state is kept in."""
    name = OTHER_NAMES.get(str(value), value)
    if not isinstance(name, str) or name not in STATES:
        raise ValueError(
            f"state_dtype={value!r}: it is None or one of {', '.join(map(repr, STATES))}; "
            "torch.bfloat16 is 'bf16'"
        )
    return name


def state(value):
    """The library's code of that."""
    return value if isinstance(value, (int, float)) else STATES[state_name(value)]


# Options that need more than float().
CONVERT = {"beta3": beta3, "non_finite": non_finite, "state": state}

# Read from the first group, as the packages do.
COMMON = ("growth_rate", "d_cap", "d0", "non_finite", "seed")
# Each group's own.
GROUPED = ("lr", "weight_decay", "layer_scale", "master")


@dataclass(frozen=True)
class Spec:
    """An algorithm of the library, by the names of the packages' state dicts."""

    #: The library's name.
    algorithm: str
    #: Keys of the state, in the library's order.
    slots: tuple
    #: Keys of the groups that hold the library's running totals, in its order.
    totals: tuple
    #: Options of the optimizer, beside the betas.
    common: tuple = COMMON
    #: Options of a group.
    grouped: tuple = GROUPED
    #: Whether the package counts a tensor's steps in its state.
    counts: bool = True
    #: Which of the slots is not 0 once a gradient was not.
    statistic: str = "s"
    #: Slots that are flat even where they are as long as the parameter.
    flat: frozenset = frozenset()
    #: More keys of the groups that an estimate is made of.
    carried: tuple = ()
    #: Whether there is slice_p.
    sliced: bool = True
    #: Keys of the state that only the package needs.
    derived: frozenset = field(default=frozenset())

    def common_options(self, group, defaults):
        """Options of the optimizer as the library has them."""
        options = {key: number(key, group[key]) for key in self.common}
        if "betas" in group:
            for index, beta in enumerate(group["betas"], 1):
                options[f"beta{index}"] = float(beta)
        options["d_per_group"] = float(defaults["d_per_group"])
        return options

    def group_options(self, group):
        """Options of a group as the library has them."""
        options = {key: number(key, group[key]) for key in self.grouped}
        options["state"] = STATES[state_name(group["state_dtype"])]
        return options


def number(key, value):
    """An option's value as the library has it."""
    return float(CONVERT.get(key, float)(value))


ADAM_SLOTS = ("exp_avg", "exp_avg_sq", "s")
ADAN_SLOTS = ("exp_avg", "exp_avg_sq", "exp_avg_diff", "pre_grad", "s")

ADAM = Spec(
    "adam",
    ADAM_SLOTS,
    ("numerator_weighted",),
    common=(*COMMON, "use_bias_correction"),
    grouped=(*GROUPED, "eps", "decouple", "slice_p"),
)
SGD = Spec(
    "sgd",
    ("s", "x0"),
    ("numerator_weighted",),
    grouped=(*GROUPED, "momentum"),
    counts=False,
    carried=("g0_norm",),
    sliced=False,
    derived=frozenset({"z"}),
)
ADAGRAD = Spec(
    "adagrad",
    ("alphak", "sk", "x0"),
    ("sksq_weighted", "gsq_weighted", "skl1"),
    grouped=(*GROUPED, "eps", "momentum"),
    counts=False,
    statistic="sk",
    sliced=False,
)
ADAGRAD_ROWS = (*ADAGRAD.slots, "weighted_sk")
LION = Spec(
    "lion",
    ("exp_avg", "s"),
    ("numerator_weighted",),
    grouped=(*GROUPED, "slice_p"),
    counts=False,
)
ADAN = Spec(
    "adan",
    ADAN_SLOTS,
    ("gsq_weighted",),
    grouped=(*GROUPED, "eps", "no_prox", "slice_p"),
)
PRODIGY = Spec(
    "prodigy",
    ("exp_avg", "exp_avg_sq", "s", "p0"),
    ("d_numerator", "d_max"),
    common=(*COMMON, "use_bias_correction", "d_coef", "beta3"),
    grouped=(*GROUPED, "eps", "decouple", "safeguard_warmup", "slice_p"),
    flat=frozenset({"s", "p0"}),
    carried=("d_moved",),
)
ADAM_PREPRINT = Spec(
    "experimental_adam_preprint",
    ADAM_SLOTS,
    ("gsq_weighted",),
    grouped=(*GROUPED, "eps", "decouple", "slice_p"),
)
# The package's state dict calls the mean of differences exp_avg_sq, and the mean of squares
# exp_avg_diff; so do we, and the library gets what it means.
ADAN_IP = Spec(
    "experimental_adan_ip",
    ("exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad", "s"),
    ("numerator_weighted",),
    grouped=(*GROUPED, "eps", "no_prox", "slice_p"),
)
