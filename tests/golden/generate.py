#!/usr/bin/env python3
"""Runs the reference packages on recorded problems and writes what they do to `data/`.

    python generate.py            write every file
    python generate.py --check    write nothing; fail if any file would change
    python generate.py --summary  also print how far d and the parameters travelled

README.md, beside this file, describes the files. A new algorithm is an entry of ALGORITHMS; a new
case is an entry of OPEN_CASES, CLOSED_CASES, SPARSE_CASES or HALF_CASES.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
import pathlib
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import safetensors.numpy
import torch
from dadaptation import DAdaptAdaGrad, DAdaptAdam, DAdaptAdan, DAdaptLion, DAdaptSGD
from dadaptation.experimental import DAdaptAdamPreprint, DAdaptAdanIP
from prodigyopt import Prodigy

DATA = pathlib.Path(__file__).parent / "data"
DTYPES = {"f32": (np.float32, torch.float32), "f64": (np.float64, torch.float64)}
# numpy has no bf16: what these hold is exact in wider arrays.
HALVES = {"bf16": (np.float64, torch.bfloat16), "f16": (np.float64, torch.float16)}
STEPS = 120
SNAPSHOTS = [1, *range(10, STEPS + 1, 10)]  # counts of finished steps
FEW_SNAPSHOTS = [1, 30, 120]
TENSORS = {"t0": 1, "t1": 7, "t2": 33, "t3": 130, "t4": 257}
TWO_GROUPS = (("t0", "t1", "t2"), ("t3", "t4"))
JITTER_SEEDS = range(8)


@dataclass(frozen=True)
class Algorithm:
    """A reference class, and what must be known to give it the options of a case."""

    build: Callable
    defaults: Mapping
    # Options the package takes from its constructor or its first group, whatever others say.
    first_group_only: frozenset
    # None: the package implements layer_scale. Otherwise the case is run on x' = x / r**power.
    layer_scale_power: float | None
    # Whether weight decay enters the gradient, given the options.
    coupled: Callable
    # How many betas the package takes together, as `betas`.
    betas: int = 2
    # Options that the package lacks and this script does for it (layer_scale aside).
    lacks: frozenset = frozenset()
    # Called with (optimizer, tensor, factor) before a tensor's first step with a gradient.
    prepare: Callable | None = None
    snapshots: tuple = tuple(FEW_SNAPSHOTS)
    # Whether d follows from the parameters even when gradients are recorded. Then rounding feeds
    # back in open loops too, and they get budgets.
    feeds_back: bool = False


def adagrad_accumulator(optimizer, tensor, factor):
    """DAdaptAdaGrad's first state, but with its 1e-6 translated to x' = x / factor."""
    optimizer.state[tensor] = {
        "alphak": torch.full_like(tensor, 1e-6).mul_(float(factor) ** 2),
        "sk": torch.zeros_like(tensor),
        "x0": tensor.clone(),
        "weighted_sk": torch.zeros_like(tensor),
    }


def plain_adam(groups, d0):
    """torch's Adam or AdamW; a group knows itself which."""
    decouple = groups[0].pop("decouple")
    assert all(group.pop("decouple") == decouple for group in groups[1:])
    build = torch.optim.AdamW if decouple else torch.optim.Adam
    return build(groups, foreach=False)


ADAN = {
    "lr": 1.0,
    "beta1": 0.98,
    "beta2": 0.92,
    "beta3": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.02,
    "no_prox": False,
    "growth_rate": None,
    "layer_scale": 1.0,
    "d0": 1e-6,
}
ADAN_FIRST_GROUP = frozenset(["beta1", "beta2", "beta3", "no_prox", "growth_rate", "d0"])
PLAIN = frozenset(["d0", "growth_rate"])

ALGORITHMS = {
    "adam": Algorithm(
        build=DAdaptAdam,
        defaults={
            "lr": 1.0,
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "decouple": False,
            "use_bias_correction": False,
            "growth_rate": None,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(
            ["beta1", "beta2", "decouple", "use_bias_correction", "growth_rate", "d0"]
        ),
        layer_scale_power=None,
        coupled=lambda options: not options["decouple"],
        snapshots=tuple(SNAPSHOTS),
    ),
    "sgd": Algorithm(
        build=DAdaptSGD,
        defaults={
            "lr": 1.0,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "growth_rate": None,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(["momentum", "weight_decay", "growth_rate", "d0"]),
        layer_scale_power=0.5,
        coupled=lambda options: True,
        snapshots=tuple(SNAPSHOTS),
    ),
    "adagrad": Algorithm(
        build=DAdaptAdaGrad,
        defaults={
            "lr": 1.0,
            "momentum": 0.0,
            "eps": 1e-6,
            "weight_decay": 0.0,
            "growth_rate": None,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(["momentum", "growth_rate", "d0"]),
        layer_scale_power=1.0,
        coupled=lambda options: True,
        prepare=adagrad_accumulator,
    ),
    "lion": Algorithm(
        build=DAdaptLion,
        defaults={
            "lr": 1.0,
            "beta1": 0.9,
            "beta2": 0.99,
            "weight_decay": 0.0,
            "growth_rate": None,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(["beta1", "beta2", "growth_rate", "d0"]),
        layer_scale_power=1.0,
        coupled=lambda options: False,
        lacks=frozenset(["growth_rate"]),
    ),
    "adan": Algorithm(
        build=DAdaptAdan,
        defaults=ADAN,
        first_group_only=ADAN_FIRST_GROUP,
        layer_scale_power=1.0,
        coupled=lambda options: False,
        betas=3,
    ),
    "adan_ip": Algorithm(
        build=DAdaptAdanIP,
        defaults=ADAN,
        first_group_only=ADAN_FIRST_GROUP,
        layer_scale_power=1.0,
        coupled=lambda options: False,
        betas=3,
    ),
    "adam_preprint": Algorithm(
        build=DAdaptAdamPreprint,
        defaults={
            "lr": 1.0,
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "decouple": False,
            "growth_rate": None,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(["beta1", "beta2", "decouple", "growth_rate", "d0"]),
        layer_scale_power=1.0,
        coupled=lambda options: not options["decouple"],
    ),
    "prodigy": Algorithm(
        build=Prodigy,
        defaults={
            "lr": 1.0,
            "beta1": 0.9,
            "beta2": 0.999,
            "beta3": None,  # the root of beta2
            "eps": 1e-8,
            "weight_decay": 0.0,
            "decouple": True,
            "use_bias_correction": False,
            "safeguard_warmup": False,
            "d_coef": 1.0,
            "growth_rate": None,
            "slice_p": 1,
            "layer_scale": 1.0,
            "d0": 1e-6,
        },
        first_group_only=frozenset(
            [
                "beta1",
                "beta2",
                "beta3",
                "decouple",
                "use_bias_correction",
                "d_coef",
                "growth_rate",
                "d0",
            ]
        ),
        layer_scale_power=1.0,
        coupled=lambda options: not options["decouple"],
        feeds_back=True,
    ),
    # At a rate set by hand, where d is no more than a constant 1.
    "plain_sgd": Algorithm(
        build=lambda groups, d0: torch.optim.SGD(groups, foreach=False),
        defaults={
            "lr": 1e-3,
            "momentum": 0.0,
            "dampening": 0.0,
            "weight_decay": 0.0,
            "layer_scale": 1.0,
        },
        first_group_only=frozenset(),
        layer_scale_power=0.5,
        coupled=lambda options: True,
        lacks=PLAIN,
    ),
    "plain_adam": Algorithm(
        build=plain_adam,
        defaults={
            "lr": 1e-3,
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "decouple": False,
            "layer_scale": 1.0,
        },
        first_group_only=frozenset(["beta1", "beta2"]),
        layer_scale_power=1.0,
        coupled=lambda options: not options["decouple"],
        lacks=PLAIN,
    ),
    "plain_adagrad": Algorithm(
        build=lambda groups, d0: torch.optim.Adagrad(groups, foreach=False),
        defaults={
            "lr": 1e-2,
            "eps": 1e-10,
            "weight_decay": 0.0,
            "layer_scale": 1.0,
        },
        first_group_only=frozenset(),
        layer_scale_power=1.0,
        coupled=lambda options: True,
        lacks=PLAIN,
    ),
}


@dataclass(frozen=True)
class Case:
    """One run. `per_group` overrides `options`; `changes` happen before the step they name."""

    name: str
    algorithm: str
    options: Mapping = field(default_factory=dict)
    groups: tuple = TWO_GROUPS
    per_group: tuple = ({}, {})
    gradients: str = "lasting"
    presence: str = "all"
    changes: tuple = ()
    # Groups whose coupled weight decay this script adds to the gradient, because the package has
    # no such option for one group alone. It is then told that their decay is 0.
    decay_by_caller: tuple = ()

    def group_options(self, index):
        """All that have a value: a beta3 that is not given follows from beta2."""
        algorithm = ALGORITHMS[self.algorithm]
        options = {**algorithm.defaults, **self.options, **self.per_group[index]}
        assert options.keys() == algorithm.defaults.keys(), self.name
        return {key: value for key, value in options.items() if key != "beta3" or value is not None}

    def snapshots(self):
        return ALGORITHMS[self.algorithm].snapshots


def change(step, option, value, group=None):
    return {"step": step, "option": option, "value": value, "group": group}


LR_SCHEDULE = (change(30, "lr", 0.5), change(70, "lr", 1.5))
LR_LOW_SCHEDULE = (change(30, "lr", 0.1), change(70, "lr", 0.3))
RESTARTS = (change(25, "restart", 1), change(70, "restart", 1))
# Scales that a change of variables costs no digit.
POWERS_OF_TWO = ({"layer_scale": 0.25}, {"layer_scale": 2.0})
LR_PAUSE = (change(40, "lr", 0.0), change(45, "lr", 0.2), change(80, "lr", 0.1))

OPEN_CASES = [
    Case("adam", "adam", gradients="fading"),
    Case("adam_lr", "adam", {"lr": 0.2}),
    Case("adam_lr_schedule", "adam", {"lr": 0.2}, changes=LR_LOW_SCHEDULE),
    Case("adam_lr_pause", "adam", {"lr": 0.2}, changes=LR_PAUSE),
    Case("adam_betas", "adam", {"beta1": 0.8, "beta2": 0.95}),
    Case("adam_beta1_zero", "adam", {"beta1": 0.0}, gradients="fading"),
    Case("adam_eps", "adam", {"eps": 1e-2}, gradients="fading"),
    Case("adam_coupled", "adam", {"weight_decay": 0.1}, gradients="fading"),
    Case("adam_decoupled", "adam", {"weight_decay": 0.1, "decouple": True}, gradients="fading"),
    Case("adam_bias", "adam", {"use_bias_correction": True}),
    Case("adam_growth", "adam", {"growth_rate": 1.02, "d0": 1e-3}),
    Case("adam_d0", "adam", {"d0": 1e-5}, gradients="fading"),
    Case(
        "adam_layer_scale",
        "adam",
        per_group=({"layer_scale": 0.3}, {"layer_scale": 2.5}),
        gradients="fading",
    ),
    Case(
        "adam_layer_scale_coupled",
        "adam",
        {"weight_decay": 0.05},
        per_group=({"layer_scale": 0.3}, {"layer_scale": 2.5}),
        gradients="fading",
    ),
    Case(
        "adam_group_options",
        "adam",
        {"decouple": True},
        per_group=({"weight_decay": 0.2, "eps": 1e-3}, {"weight_decay": 0.01}),
        gradients="fading",
    ),
    Case(
        "adam_group_decouple",
        "adam",
        {"decouple": True},
        per_group=({"weight_decay": 0.2}, {"weight_decay": 0.1, "decouple": False}),
        decay_by_caller=(1,),
        gradients="fading",
    ),
    Case("adam_gaps", "adam", presence="gaps_and_pause", gradients="fading"),
    Case(
        "adam_gaps_decoupled_bias",
        "adam",
        {"weight_decay": 0.1, "decouple": True, "use_bias_correction": True, "d0": 1e-4},
        gradients="fading",
        presence="gaps_and_pause",
    ),
    Case(
        "adam_everything",
        "adam",
        {
            "lr": 0.7,
            "beta1": 0.85,
            "beta2": 0.99,
            "eps": 1e-6,
            "decouple": True,
            "use_bias_correction": True,
            "growth_rate": 1.3,
            "d0": 1e-4,
        },
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.05},
            {"layer_scale": 1.7, "weight_decay": 0.02},
        ),
        presence="gaps",
        changes=(*LR_SCHEDULE, change(90, "weight_decay", 0.3, group=0)),
    ),
    Case("sgd", "sgd"),
    Case("sgd_lr", "sgd", {"lr": 0.6, "d0": 1e-3}),
    Case("sgd_lr_schedule", "sgd", changes=LR_SCHEDULE),
    Case("sgd_momentum", "sgd", {"momentum": 0.9}),
    Case("sgd_decay", "sgd", {"weight_decay": 0.1}),
    Case("sgd_growth", "sgd", {"growth_rate": 1.02, "d0": 1e-2}),
    Case("sgd_d0", "sgd", {"d0": 1e-3}),
    Case("sgd_gaps", "sgd", presence="gaps"),
    Case(
        "sgd_gaps_momentum_decay", "sgd", {"momentum": 0.8, "weight_decay": 0.05}, presence="gaps"
    ),
    # Scales whose root is a power of two, so that the change of variables costs no digit.
    Case(
        "sgd_layer_scale",
        "sgd",
        {"momentum": 0.5},
        per_group=({"layer_scale": 4.0}, {"layer_scale": 0.25}),
    ),
    Case("sgd_layer_scale_decay", "sgd", {"layer_scale": 4.0, "weight_decay": 0.1}),
    # g0 leaves decay out and the gradient given to the package does not, so the decayed group
    # has to start at zero.
    Case(
        "sgd_group_decay",
        "sgd",
        groups=(("t0", "t1", "t2", "t4"), ("t3",)),
        per_group=({}, {"weight_decay": 0.3}),
        decay_by_caller=(1,),
    ),
    Case(
        "sgd_everything",
        "sgd",
        {"lr": 0.8, "momentum": 0.7, "growth_rate": 1.5, "d0": 1e-3},
        per_group=({"layer_scale": 0.25}, {"layer_scale": 4.0}),
        presence="gaps",
        changes=LR_SCHEDULE,
    ),
    Case("adagrad", "adagrad", gradients="steady"),
    Case("adagrad_lr", "adagrad", {"lr": 0.5, "d0": 1e-4}, gradients="steady"),
    Case("adagrad_lr_schedule", "adagrad", {"d0": 1e-4}, changes=LR_SCHEDULE, gradients="steady"),
    Case("adagrad_momentum", "adagrad", {"momentum": 0.9, "d0": 1e-4}, gradients="steady"),
    Case("adagrad_decay", "adagrad", {"weight_decay": 0.1, "d0": 1e-4}, gradients="steady"),
    Case("adagrad_eps", "adagrad", {"eps": 1e-2, "d0": 1e-4}, gradients="steady"),
    Case("adagrad_growth", "adagrad", {"growth_rate": 1.02, "d0": 1e-3}, gradients="steady"),
    # A pause is progress too: what divides is a total over all steps.
    Case("adagrad_gaps", "adagrad", {"d0": 1e-4}, presence="gaps_and_pause", gradients="steady"),
    Case(
        "adagrad_group_options",
        "adagrad",
        {"d0": 1e-4},
        per_group=({"weight_decay": 0.2, "eps": 1e-3}, {"weight_decay": 0.01}),
        gradients="steady",
    ),
    Case(
        "adagrad_layer_scale", "adagrad", {"d0": 1e-4}, per_group=POWERS_OF_TWO, gradients="steady"
    ),
    Case(
        "adagrad_everything",
        "adagrad",
        {"lr": 0.8, "momentum": 0.7, "eps": 1e-4, "growth_rate": 1.3, "d0": 1e-4},
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.05},
            {"layer_scale": 2.0, "weight_decay": 0.02},
        ),
        gradients="steady",
        presence="gaps",
        changes=LR_SCHEDULE,
    ),
    Case("lion", "lion"),
    Case("lion_lr", "lion", {"lr": 0.5}, gradients="steady"),
    Case("lion_lr_schedule", "lion", changes=LR_SCHEDULE),
    Case("lion_betas", "lion", {"beta1": 0.8, "beta2": 0.95}),
    Case("lion_beta1_zero", "lion", {"beta1": 0.0}),
    Case("lion_decay", "lion", {"weight_decay": 0.1}),
    Case("lion_growth", "lion", {"growth_rate": 1.02, "d0": 1e-3}),
    Case("lion_d0", "lion", {"d0": 1e-4}),
    Case("lion_gaps", "lion", presence="gaps_and_pause"),
    Case(
        "lion_layer_scale_group_decay",
        "lion",
        per_group=(
            {"layer_scale": 0.25, "weight_decay": 0.1},
            {"layer_scale": 4.0, "weight_decay": 0.3},
        ),
    ),
    Case(
        "lion_everything",
        "lion",
        {"lr": 0.7, "beta1": 0.95, "beta2": 0.98, "growth_rate": 1.3, "d0": 1e-4},
        per_group=({"layer_scale": 0.5, "weight_decay": 0.05}, {"weight_decay": 0.02}),
        presence="gaps",
        changes=(*LR_SCHEDULE, change(90, "weight_decay", 0.3, group=0)),
    ),
    *(
        Case(f"{algorithm}{suffix}", algorithm, options, **more)
        for algorithm in ("adan", "adan_ip")
        for suffix, options, more in (
            ("", {}, {"gradients": "fading"}),
            ("_lr", {"lr": 0.3}, {}),
            ("_lr_schedule", {"lr": 0.3}, {"changes": LR_LOW_SCHEDULE, "gradients": "steady"}),
            ("_betas", {"beta1": 0.9, "beta2": 0.8, "beta3": 0.95, "lr": 0.5}, {}),
            ("_eps", {"eps": 1e-2}, {"gradients": "fading"}),
            ("_decay_zero", {"weight_decay": 0.0}, {"gradients": "fading"}),
            ("_no_prox", {"no_prox": True, "weight_decay": 0.1}, {"gradients": "fading"}),
            ("_growth", {"growth_rate": 1.02, "d0": 1e-3}, {"gradients": "steady"}),
            ("_d0", {"d0": 1e-4}, {"gradients": "fading"}),
            ("_gaps", {}, {"gradients": "fading", "presence": "gaps_and_pause"}),
            ("_restart", {"lr": 0.3}, {"changes": RESTARTS}),
            ("_restart_gaps", {"lr": 0.3}, {"changes": RESTARTS, "presence": "gaps"}),
            (
                "_group_options",
                {},
                {
                    "per_group": (
                        {"weight_decay": 0.2, "eps": 1e-3},
                        {"weight_decay": 0.0, "eps": 1e-6},
                    ),
                    "gradients": "fading",
                },
            ),
            ("_layer_scale", {}, {"gradients": "fading", "per_group": POWERS_OF_TWO}),
            (
                "_everything",
                {
                    "lr": 0.7,
                    "beta1": 0.95,
                    "beta2": 0.9,
                    "beta3": 0.98,
                    "eps": 1e-6,
                    "no_prox": True,
                    "growth_rate": 1.3,
                    "d0": 1e-4,
                },
                {
                    "per_group": (
                        {"layer_scale": 0.5, "weight_decay": 0.05},
                        {"layer_scale": 2.0, "weight_decay": 0.02},
                    ),
                    "gradients": "fading",
                    "presence": "gaps",
                    "changes": (
                        *LR_SCHEDULE,
                        change(75, "restart", 1),
                        change(90, "weight_decay", 0.3, group=0),
                    ),
                },
            ),
        )
    ),
    Case("adam_preprint", "adam_preprint", gradients="fading"),
    Case("adam_preprint_lr", "adam_preprint", {"lr": 0.3}, gradients="fading"),
    Case(
        "adam_preprint_lr_pause", "adam_preprint", {"lr": 0.3}, changes=LR_PAUSE, gradients="fading"
    ),
    Case("adam_preprint_betas", "adam_preprint", {"beta1": 0.8, "beta2": 0.95}, gradients="fading"),
    Case("adam_preprint_beta1_zero", "adam_preprint", {"beta1": 0.0}, gradients="fading"),
    Case("adam_preprint_eps", "adam_preprint", {"eps": 1e-2}, gradients="fading"),
    Case("adam_preprint_coupled", "adam_preprint", {"weight_decay": 0.1}, gradients="fading"),
    Case(
        "adam_preprint_decoupled",
        "adam_preprint",
        {"weight_decay": 0.1, "decouple": True},
        gradients="fading",
    ),
    Case(
        "adam_preprint_growth",
        "adam_preprint",
        {"growth_rate": 1.02, "d0": 1e-3},
        gradients="steady",
    ),
    Case("adam_preprint_d0", "adam_preprint", {"lr": 0.3, "d0": 1e-4}, gradients="fading"),
    Case("adam_preprint_gaps", "adam_preprint", presence="gaps_and_pause", gradients="fading"),
    Case(
        "adam_preprint_group_options",
        "adam_preprint",
        {"decouple": True},
        per_group=({"weight_decay": 0.2, "eps": 1e-3}, {"weight_decay": 0.01}),
        gradients="fading",
    ),
    Case(
        "adam_preprint_layer_scale",
        "adam_preprint",
        {"weight_decay": 0.05},
        per_group=POWERS_OF_TWO,
        gradients="fading",
    ),
    Case(
        "adam_preprint_everything",
        "adam_preprint",
        {
            "lr": 0.7,
            "beta1": 0.85,
            "beta2": 0.99,
            "eps": 1e-6,
            "decouple": True,
            "growth_rate": 1.3,
            "d0": 1e-4,
        },
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.05},
            {"layer_scale": 2.0, "weight_decay": 0.02},
        ),
        gradients="fading",
        presence="gaps",
        changes=(*LR_SCHEDULE, change(90, "weight_decay", 0.3, group=0)),
    ),
    Case("prodigy", "prodigy"),
    Case("prodigy_lr", "prodigy", {"lr": 0.5, "d0": 1e-3}),
    Case("prodigy_lr_schedule", "prodigy", {"d0": 1e-3}, changes=LR_SCHEDULE),
    Case("prodigy_lr_pause", "prodigy", {"lr": 0.3, "d0": 1e-3}, changes=LR_PAUSE),
    Case("prodigy_betas", "prodigy", {"beta1": 0.8, "beta2": 0.95, "d0": 1e-3}),
    Case(
        "prodigy_beta1_zero", "prodigy", {"lr": 0.3, "beta1": 0.0, "d0": 1e-3}, gradients="fading"
    ),
    Case("prodigy_beta1_zero_d0", "prodigy", {"lr": 0.3, "beta1": 0.0}, gradients="fading"),
    Case("prodigy_beta3", "prodigy", {"beta3": 0.9, "d0": 1e-3}, gradients="fading"),
    Case("prodigy_eps", "prodigy", {"eps": 1e-2, "d0": 1e-3}, gradients="fading"),
    Case("prodigy_coupled", "prodigy", {"weight_decay": 0.1, "decouple": False, "d0": 1e-3}),
    Case("prodigy_decoupled", "prodigy", {"weight_decay": 0.1, "d0": 1e-3}),
    Case("prodigy_bias", "prodigy", {"use_bias_correction": True, "d0": 1e-3}),
    Case(
        "prodigy_bias_safeguard",
        "prodigy",
        {"use_bias_correction": True, "safeguard_warmup": True, "d0": 1e-3},
        gradients="steady",
        changes=LR_SCHEDULE,
    ),
    Case("prodigy_safeguard", "prodigy", {"safeguard_warmup": True, "lr": 0.5, "d0": 1e-3}),
    Case("prodigy_d_coef", "prodigy", {"d_coef": 0.5, "d0": 1e-3}),
    Case("prodigy_growth", "prodigy", {"growth_rate": 1.02, "d0": 1e-3}),
    Case("prodigy_growth_fast", "prodigy", {"growth_rate": 1.5}, gradients="fading"),
    Case("prodigy_slice", "prodigy", {"slice_p": 5, "d0": 1e-3}, gradients="fading"),
    Case(
        "prodigy_slice_beta1_zero",
        "prodigy",
        {"lr": 0.1, "slice_p": 11, "beta1": 0.0, "d0": 1e-3},
        gradients="fading",
    ),
    Case("prodigy_gaps", "prodigy", {"d0": 1e-3}, presence="gaps_and_pause"),
    Case(
        "prodigy_gaps_bias_coupled",
        "prodigy",
        {
            "use_bias_correction": True,
            "weight_decay": 0.05,
            "decouple": False,
            "slice_p": 2,
            "d0": 1e-3,
        },
        presence="gaps",
    ),
    Case(
        "prodigy_group_options",
        "prodigy",
        {"lr": 0.5, "d0": 1e-3},
        per_group=(
            {"weight_decay": 0.2, "eps": 1e-3, "slice_p": 3},
            {"weight_decay": 0.01, "safeguard_warmup": True},
        ),
    ),
    Case(
        "prodigy_layer_scale",
        "prodigy",
        {"weight_decay": 0.05, "d0": 1e-3},
        per_group=POWERS_OF_TWO,
    ),
    Case(
        "prodigy_layer_scale_coupled",
        "prodigy",
        {"weight_decay": 0.05, "decouple": False, "beta1": 0.0, "d0": 1e-3},
        per_group=POWERS_OF_TWO,
        gradients="fading",
    ),
    Case(
        "prodigy_everything",
        "prodigy",
        {
            "lr": 0.7,
            "beta1": 0.8,
            "beta3": 0.99,
            "eps": 1e-6,
            "use_bias_correction": True,
            "d_coef": 2.0,
            "growth_rate": 1.3,
            "d0": 1e-3,
        },
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.05, "slice_p": 4},
            {"layer_scale": 2.0, "weight_decay": 0.02, "safeguard_warmup": True},
        ),
        gradients="steady",
        presence="gaps",
        changes=(*LR_SCHEDULE, change(90, "weight_decay", 0.3, group=0)),
    ),
    Case("plain_sgd", "plain_sgd", {"lr": 0.1}),
    Case("plain_sgd_momentum", "plain_sgd", {"momentum": 0.9}),
    Case("plain_sgd_dampening", "plain_sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}),
    Case("plain_sgd_decay", "plain_sgd", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1}),
    Case(
        "plain_sgd_everything",
        "plain_sgd",
        {"lr": 0.05},
        per_group=(
            {"momentum": 0.8, "dampening": 0.5, "layer_scale": 4.0},
            {"weight_decay": 0.1, "layer_scale": 0.25},
        ),
        presence="gaps_and_pause",
        changes=(change(30, "lr", 0.02), change(70, "lr", 0.1)),
    ),
    Case("plain_adam", "plain_adam"),
    Case("plain_adam_lr", "plain_adam", {"lr": 0.05}),
    Case("plain_adam_betas", "plain_adam", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95}),
    Case("plain_adam_beta1_zero", "plain_adam", {"lr": 0.01, "beta1": 0.0}),
    Case("plain_adam_eps", "plain_adam", {"lr": 0.01, "eps": 1e-2}),
    Case("plain_adam_coupled", "plain_adam", {"lr": 0.01, "weight_decay": 0.1}),
    Case("plain_adam_decoupled", "plain_adam", {"lr": 0.01, "weight_decay": 0.1, "decouple": True}),
    # torch counts the steps of every tensor, and so its bias correction.
    Case("plain_adam_gaps", "plain_adam", {"lr": 0.01}, presence="gaps_and_pause"),
    Case(
        "plain_adam_everything",
        "plain_adam",
        {"lr": 0.01, "beta1": 0.85, "beta2": 0.99, "decouple": True},
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.1},
            {"layer_scale": 2.0, "weight_decay": 0.02, "eps": 1e-3},
        ),
        presence="gaps",
        changes=(change(30, "lr", 0.02), change(70, "lr", 0.005)),
    ),
    Case("plain_adagrad", "plain_adagrad"),
    Case("plain_adagrad_lr", "plain_adagrad", {"lr": 0.1}),
    Case("plain_adagrad_eps", "plain_adagrad", {"eps": 1e-2}),
    Case("plain_adagrad_decay", "plain_adagrad", {"weight_decay": 0.1}),
    Case(
        "plain_adagrad_everything",
        "plain_adagrad",
        per_group=(
            {"layer_scale": 0.5, "weight_decay": 0.1},
            {"layer_scale": 2.0, "eps": 1e-4},
        ),
        presence="gaps_and_pause",
        changes=(change(30, "lr", 0.02), change(70, "lr", 0.1)),
    ),
]

ONE_GROUP = (("weight", "bias"),)
CLOSED_CASES = [
    Case("closed_adam", "adam", groups=ONE_GROUP, per_group=({},)),
    Case(
        "closed_adam_bias_decoupled",
        "adam",
        {"use_bias_correction": True, "decouple": True, "weight_decay": 0.1},
        groups=ONE_GROUP,
        per_group=({},),
    ),
    Case("closed_sgd", "sgd", groups=ONE_GROUP, per_group=({},)),
    Case("closed_sgd_momentum", "sgd", {"momentum": 0.9}, groups=ONE_GROUP, per_group=({},)),
    *(
        Case(f"closed_{name}", algorithm, options, groups=ONE_GROUP, per_group=({},))
        for name, algorithm, options in (
            ("adagrad", "adagrad", {"d0": 1e-2}),
            ("lion", "lion", {"lr": 0.5}),
            ("adan", "adan", {}),
            ("adan_ip", "adan_ip", {}),
            ("adam_preprint", "adam_preprint", {}),
            ("prodigy", "prodigy", {}),
            ("prodigy_beta1_zero", "prodigy", {"beta1": 0.0, "d0": 1e-3}),
            ("plain_sgd", "plain_sgd", {"lr": 0.1, "momentum": 0.8}),
            ("plain_adam", "plain_adam", {"lr": 0.1}),
            ("plain_adagrad", "plain_adagrad", {"lr": 0.5}),
        )
    ),
]


class Runner:
    """The reference optimizer of one case, stepped with gradients given as arrays."""

    def __init__(self, case, dtype, initial):
        self.case, self.algorithm = case, ALGORITHMS[case.algorithm]
        self.array_type, tensor_type = {**DTYPES, **HALVES}[dtype]
        self.tensors, self.factor, param_groups = {}, {}, []
        for index, names in enumerate(case.groups):
            options = case.group_options(index)
            power = self.algorithm.layer_scale_power
            factor = 1.0 if power is None else options["layer_scale"] ** power
            for name in names:
                start = initial[name].astype(self.array_type) / self.array_type(factor)
                self.tensors[name] = torch.tensor(start, dtype=tensor_type)
                self.factor[name] = self.array_type(factor)
            params = [self.tensors[name] for name in names]
            param_groups.append({"params": params, **self.package_options(index, options)})
            for option in self.algorithm.first_group_only:
                first = case.group_options(0)
                assert options.get(option) == first.get(option) or index in case.decay_by_caller
        first = case.group_options(0)
        self.growth_rate = None
        if "growth_rate" in self.algorithm.lacks:
            self.growth_rate = first.get("growth_rate")
        self.started, self.steps = set(), 0
        with contextlib.redirect_stdout(io.StringIO()):  # `decouple` is announced
            self.optimizer = self.algorithm.build(param_groups, d0=first.get("d0"))

    def package_options(self, index, options):
        """The options of one group in the package's own words."""
        lacking = self.algorithm.lacks | {"d0"}
        words = {key: value for key, value in options.items() if key not in lacking}
        if "beta1" in words:
            names = ("beta1", "beta2", "beta3")[: self.algorithm.betas]
            words["betas"] = tuple(words.pop(name) for name in names)
        if "growth_rate" in words and words["growth_rate"] is None:
            words["growth_rate"] = math.inf
        if index in self.case.decay_by_caller:
            words["weight_decay"] = 0.0
            if "decouple" in words:
                words["decouple"] = self.case.group_options(0)["decouple"]
        if self.algorithm.layer_scale_power is not None:
            scale = words.pop("layer_scale")
            power = self.algorithm.layer_scale_power
            if self.algorithm.coupled(options):
                words["weight_decay"] *= scale ** (2 * power)
            if "eps" in words:
                # A table's gradients are sparse, and its eps is inside the root.
                inside = "table" in self.case.groups[index]
                words["eps"] *= scale ** (2 * power if inside else power)
        return words

    def apply_changes(self, step):
        for item in self.case.changes:
            if item["step"] == step and item["option"] == "restart":
                self.restart()
            elif item["step"] == step:
                for index, group in enumerate(self.optimizer.param_groups):
                    if item["group"] in (None, index):
                        assert item["option"] in group
                        group[item["option"]] = item["value"]

    def restart(self):
        """Adan's own method, which passes over tensors that need no gradient."""
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)
        self.optimizer.restart_opt()
        for tensor in self.tensors.values():
            tensor.requires_grad_(False)

    def step(self, gradients):
        """One step. `gradients` maps the tensors that have one to an array of the case's dtype."""
        for index, names in enumerate(self.case.groups):
            for name in names:
                tensor = self.tensors[name]
                if name not in gradients:
                    tensor.grad = None
                    continue
                if name not in self.started and self.algorithm.prepare is not None:
                    self.algorithm.prepare(self.optimizer, tensor, self.factor[name])
                self.started.add(name)
                if torch.is_tensor(gradients[name]):  # sparse
                    tensor.grad = gradients[name]
                    continue
                # A copy: coupled weight decay is written into it.
                tensor.grad = torch.tensor(gradients[name] * self.factor[name], dtype=tensor.dtype)
                if index in self.case.decay_by_caller:
                    decay = self.case.group_options(index)["weight_decay"]
                    tensor.grad.add_(tensor, alpha=decay)
        before = self.state()[0]
        self.optimizer.step()
        self.steps += bool(gradients)
        if self.growth_rate is not None:
            for group in self.optimizer.param_groups:
                group["d"] = min(group["d"], before * self.growth_rate)

    def parameters(self):
        def array(tensor):
            wide = tensor.double() if tensor.dtype.itemsize == 2 else tensor
            return wide.numpy().copy()

        return {name: array(tensor) * self.factor[name] for name, tensor in self.tensors.items()}

    def state(self):
        group = self.optimizer.param_groups[0]
        if "d" not in group:
            return 1.0, self.steps
        return float(group["d"]), int(group["k"])


def f32_values(array):
    """Rounds to values that f32 holds, so that one record serves every dtype."""
    return array.astype(np.float32)


def recorded_problem():
    """Initial parameters, gradients that do not depend on them, and masks of presence.

    How fast d grows depends on how long gradients keep their direction, and plain Adam is far more
    easily moved than Adam with bias correction or SGD. So there are two records: in "fading" the
    waves below die out early and noise remains, in "lasting" they go on.
    """
    rng = np.random.default_rng(20230118)
    time = np.arange(STEPS)[:, None]
    files = {}
    scales = {"t0": 0.1, "t1": 1e-3, "t2": 10.0, "t3": 1.0, "t4": 1e-2}
    spread = {"t0": 0.5, "t1": 0.3, "t2": 1.0, "t3": 0.0, "t4": 0.1}
    for name, length in TENSORS.items():
        files[f"initial.{name}"] = f32_values(spread[name] * rng.standard_normal(length))
    for record, periods, life in (("fading", (12, 40), 20), ("lasting", (24, 60), 120)):
        for name, length in TENSORS.items():
            wave = np.cos(2.0 * math.pi * time / rng.uniform(*periods, length))
            wave *= rng.standard_normal(length) * np.exp(-time / life)
            gradient = scales[name] * (wave + rng.standard_normal((STEPS, length)))
            gradient[rng.random((STEPS, length)) < 0.04] = 0.0
            gradient[:, 5::29] = 0.0  # elements that never have a gradient
            gradient[:20, 6::31] = 0.0  # and some whose first comes late
            files[f"{record}.{name}"] = f32_values(gradient)

    present = np.ones((STEPS, len(TENSORS)), dtype=np.uint8)
    files["presence.all"] = present.copy()
    present[:15, 4] = 0  # t4 starts late, when others have moved
    present[50:60, 0] = 0
    present[:, 2] = rng.random(STEPS) < 0.7
    present[:3, 2] = (1, 0, 1)
    files["presence.gaps"] = present.copy()
    present[33:36, :] = 0  # steps without any gradient (the reference's SGD divides by zero there)
    files["presence.gaps_and_pause"] = present

    # A generator of its own: the records above stay what they are.
    rng = np.random.default_rng(20230901)
    for name, length in TENSORS.items():
        direction = rng.choice([-1.0, 1.0], length) * rng.uniform(0.5, 1.5, length)
        noise = 0.5 * rng.standard_normal((STEPS, length))
        gradient = scales[name] * (direction * np.exp(-((time / 50.0) ** 2)) + noise)
        gradient[rng.random((STEPS, length)) < 0.04] = 0.0
        gradient[:, 5::29] = 0.0
        gradient[:20, 6::31] = 0.0
        files[f"steady.{name}"] = f32_values(gradient)
    return files


def regression_problem():
    """Least squares with noise, whose smallest loss is above 0."""
    rng = np.random.default_rng(20230609)
    samples, features = 24, 17
    design = rng.standard_normal((samples, features)) * np.geomspace(1.0, 0.3, features)
    truth = rng.standard_normal(features)
    return {
        "design": f32_values(design).astype(np.float64),
        "target": f32_values(design @ truth + 0.7 + 0.5 * rng.standard_normal(samples)).astype(
            np.float64
        ),
        "initial.weight": f32_values(0.1 * rng.standard_normal(features)),
        "initial.bias": np.zeros(1, np.float32),
    }


def regression_loss(problem, parameters):
    """Mean of squares / 2 and its gradient in f64, every sum in the order of its index."""
    design, target = problem["design"], problem["target"]
    samples, features = design.shape
    weight = parameters["weight"].astype(np.float64)
    residual = parameters["bias"].astype(np.float64)[0] - target
    for j in range(features):
        residual = residual + design[:, j] * weight[j]
    loss, bias, gradient = 0.0, 0.0, np.zeros(features)
    for i in range(samples):
        loss += float(residual[i] * residual[i])
        bias += float(residual[i])
        gradient = gradient + design[i] * residual[i]
    return loss / (2 * samples), {"weight": gradient / samples, "bias": np.array([bias / samples])}


def jitter(rng, array):
    """Moves every element by -1, 0 or +1 unit in the last place."""
    towards = rng.choice([-np.inf, 0.0, np.inf], array.shape).astype(array.dtype)
    return np.where(towards == 0, array, np.nextafter(array, towards))


def run_open_once(case, dtype, problem, seed=None):
    rng = None if seed is None else np.random.default_rng(seed)
    initial = {name: problem[f"initial.{name}"] for name in TENSORS}
    runner = Runner(case, dtype, initial)
    mask = problem[f"presence.{case.presence}"].astype(bool)
    columns = list(TENSORS)
    d, k, snapshots = [], [], []
    for step in range(STEPS):
        runner.apply_changes(step)
        present = [name for name in columns if mask[step, columns.index(name)]]
        gradients = {
            name: problem[f"{case.gradients}.{name}"][step].astype(runner.array_type)
            for name in present
        }
        if rng is not None:
            gradients = {name: jitter(rng, value) for name, value in gradients.items()}
        runner.step(gradients)
        if rng is not None:
            for name in present:
                tensor = runner.tensors[name]
                tensor.copy_(torch.from_numpy(jitter(rng, tensor.numpy())))
        now = runner.state()
        d.append(now[0])
        k.append(now[1])
        if step + 1 in case.snapshots():
            snapshots.append(runner.parameters())
    tensors = {f"p.{name}": np.stack([at[name] for at in snapshots]) for name in columns}
    return {**tensors, "d": np.array(d), "k": np.array(k, dtype=np.int64)}


def run_open(case, dtype, problem):
    result = run_open_once(case, dtype, problem)
    if not ALGORITHMS[case.algorithm].feeds_back:
        return result
    d_budget = np.zeros(STEPS)
    p_budget = {f"p.{name}": np.zeros(len(case.snapshots())) for name in TENSORS}
    for seed in JITTER_SEEDS:
        moved = run_open_once(case, dtype, problem, seed)
        d_budget = np.maximum(d_budget, np.abs(moved["d"] / result["d"] - 1.0))
        for name, most in p_budget.items():
            distance = np.abs(moved[name].astype(np.float64) - result[name]).max(axis=1)
            size = np.abs(result[name]).max(axis=1).astype(np.float64)
            # A tensor of zeros that waits for its first gradient does not stray.
            np.maximum(most, distance / np.where(size > 0.0, size, 1.0), out=most)
    budgets = {f"p_budget{name[1:]}": np.maximum.accumulate(p_budget[name]) for name in p_budget}
    return {**result, **budgets, "d_budget": np.maximum.accumulate(d_budget)}


def run_closed_once(case, dtype, problem, seed=None):
    rng = None if seed is None else np.random.default_rng(seed)
    initial = {name: problem[f"initial.{name}"] for name in ("weight", "bias")}
    runner = Runner(case, dtype, initial)
    d, losses = [], []
    for _ in range(STEPS):
        loss, gradients = regression_loss(problem, runner.parameters())
        gradients = {name: value.astype(runner.array_type) for name, value in gradients.items()}
        if rng is not None:
            gradients = {name: jitter(rng, value) for name, value in gradients.items()}
        runner.step(gradients)
        if rng is not None:
            for tensor in runner.tensors.values():
                tensor.copy_(torch.from_numpy(jitter(rng, tensor.numpy())))
        losses.append(loss)
        d.append(runner.state()[0])
    return np.array(d), np.array(losses)


SPARSE_ROWS, SPARSE_WIDTH, SPARSE_DRAWS = 40, 7, 9
SPARSE_CASES = [
    Case("sparse_adagrad", "adagrad", {"d0": 1e-4}, (("table",),), ({},)),
    Case(
        "sparse_adagrad_options",
        "adagrad",
        {"lr": 0.5, "eps": 1e-2, "growth_rate": 1.1, "d0": 1e-4},
        (("table",),),
        ({},),
    ),
    # A dense tensor beside it, which alone may have momentum or weight decay.
    Case(
        "sparse_adagrad_mixed",
        "adagrad",
        {"d0": 1e-4},
        (("table",), ("head",)),
        ({}, {"weight_decay": 0.1}),
    ),
    Case(
        "sparse_adagrad_layer_scale",
        "adagrad",
        {"d0": 1e-4},
        (("table",), ("head",)),
        ({"layer_scale": 0.5}, {"layer_scale": 2.0}),
    ),
]


def sparse_problem():
    """Row-sparse gradients of an embedding's table, with duplicate rows, and a dense tensor."""
    rng = np.random.default_rng(20231107)
    time = np.arange(STEPS)
    # A few rows are drawn often, some hardly ever, the last two never.
    weights = np.append(1.0 / np.arange(1, SPARSE_ROWS - 1), [0.0, 0.0])
    rows = rng.choice(SPARSE_ROWS, (STEPS, SPARSE_DRAWS), p=weights / weights.sum())
    draws = np.full(STEPS, SPARSE_DRAWS, dtype=np.int64)
    draws[20:40] = 2
    draws[[0, 60, 61]] = 0  # no gradient of the table at all
    direction = rng.choice([-1.0, 1.0], (SPARSE_ROWS, SPARSE_WIDTH))
    fade = np.exp(-((time / 60.0) ** 2))[:, None, None]
    noise = 0.4 * rng.standard_normal((STEPS, SPARSE_DRAWS, SPARSE_WIDTH))
    head = np.where(np.arange(9) % 2 == 0, 1.0, -1.0) * fade[:, :, 0]
    return {
        "initial.table": f32_values(rng.standard_normal((SPARSE_ROWS, SPARSE_WIDTH))),
        "initial.head": f32_values(rng.standard_normal(9)),
        "rows": rows.astype(np.int64),
        "draws": draws,
        "values": f32_values(0.1 * (direction[rows] * fade + noise)),
        "head": f32_values(head + 0.3 * rng.standard_normal((STEPS, 9))),
    }


def run_sparse(case, dtype, problem):
    names = [name for group in case.groups for name in group]
    runner = Runner(case, dtype, {name: problem[f"initial.{name}"] for name in names})
    d, k, snapshots = [], [], []
    for step in range(STEPS):
        gradients = {}
        draws = problem["draws"][step]
        if draws > 0:
            table = runner.tensors["table"]
            values = problem["values"][step, :draws].astype(runner.array_type)
            values = torch.from_numpy(values * runner.factor["table"])
            rows = torch.from_numpy(problem["rows"][step, :draws])[None]
            gradients["table"] = torch.sparse_coo_tensor(rows, values, table.shape)
        if "head" in names:
            gradients["head"] = problem["head"][step].astype(runner.array_type)
        runner.step(gradients)
        now = runner.state()
        d.append(now[0])
        k.append(now[1])
        if step + 1 in case.snapshots():
            snapshots.append(runner.parameters())
    tensors = {f"p.{name}": np.stack([at[name] for at in snapshots]) for name in names}
    return {**tensors, "d": np.array(d), "k": np.array(k, dtype=np.int64)}


HALF_STEPS, HALF_SNAPSHOTS = 20, [1, 2, 5, 10, 20]
# With the types in which the package runs and moves anything. What keeps squares or an eps of 1e-8
# divides by 0 in f16, where both are 0, and so does SGD from a d0 of 1e-6.
HALF_CASES = [
    (Case("half_adam", "adam", {"use_bias_correction": True}), ["bf16"]),
    (Case("half_sgd", "sgd", {"d0": 1e-3}), ["bf16", "f16"]),
    (Case("half_sgd_momentum", "sgd", {"d0": 1e-3, "momentum": 0.9}), ["bf16", "f16"]),
    (Case("half_adagrad", "adagrad", {"d0": 1e-3}, gradients="steady"), ["bf16", "f16"]),
    (Case("half_lion", "lion", {"d0": 1e-3}, gradients="steady"), ["bf16", "f16"]),
    (Case("half_adan", "adan", {"d0": 1e-6}), ["bf16"]),
    (Case("half_adan_ip", "adan_ip", {"d0": 1e-6}), ["bf16"]),
    (Case("half_adam_preprint", "adam_preprint", {"d0": 1e-6}), ["bf16"]),
    (Case("half_prodigy", "prodigy", {"d0": 1e-3}), ["bf16"]),
    (Case("half_plain_sgd", "plain_sgd", {"momentum": 0.9}), ["bf16", "f16"]),
    (Case("half_plain_adam", "plain_adam"), ["bf16"]),
    (Case("half_plain_adagrad", "plain_adagrad"), ["bf16"]),
]


def run_half(case, dtype, problem):
    """The reference in the type itself, and in f64 on what the type makes of the same record."""

    def rounded(array):
        return torch.tensor(array).to(HALVES[dtype][1]).double().numpy()

    def once(dtype):
        runner = Runner(case, dtype, {n: rounded(problem[f"initial.{n}"]) for n in TENSORS})
        d, k, snapshots = [], [], []
        for step in range(HALF_STEPS):
            record = {n: problem[f"{case.gradients}.{n}"][step] for n in TENSORS}
            runner.step({n: rounded(g) for n, g in record.items()})
            now = runner.state()
            d.append(now[0])
            k.append(now[1])
            if step + 1 in HALF_SNAPSHOTS:
                snapshots.append(runner.parameters())
        tensors = {f"p.{n}": np.stack([at[n] for at in snapshots]) for n in TENSORS}
        return {**tensors, "d": np.array(d), "k": np.array(k, dtype=np.int64)}

    result, exact = once(dtype), once("f64")
    narrow = {n: a.astype(np.float32) for n, a in result.items() if n.startswith("p.")}
    return {**result, **narrow, **{f"exact.{n}": exact[n] for n in exact if n != "k"}}


def run_closed(case, dtype, problem):
    d, loss = run_closed_once(case, dtype, problem)
    d_budget, loss_budget = np.zeros(STEPS), np.zeros(STEPS)
    for seed in JITTER_SEEDS:
        d_moved, loss_moved = run_closed_once(case, dtype, problem, seed)
        d_budget = np.maximum(d_budget, np.abs(d_moved / d - 1.0))
        loss_budget = np.maximum(loss_budget, np.abs(loss_moved / loss - 1.0))
    # A deviation may pass through zero on its way; the budget does not.
    return {
        "d": d,
        "loss": loss,
        "d_budget": np.maximum.accumulate(d_budget),
        "loss_budget": np.maximum.accumulate(loss_budget),
    }


def provenance(algorithm):
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "dadaptation": importlib.metadata.version("dadaptation"),
    }
    if algorithm == "prodigy":
        versions["prodigyopt"] = importlib.metadata.version("prodigyopt")
    return versions


def encode(tensors, description):
    # One metadata key only: with several, safetensors writes them in random order.
    text = json.dumps({**description, "provenance": provenance(description.get("algorithm"))})
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return safetensors.numpy.save(ordered, metadata={"golden": text})


def describe(case, dtype, kind):
    return {
        "kind": kind,
        "name": case.name,
        "algorithm": case.algorithm,
        "dtype": dtype,
        "steps": STEPS,
        "groups": [
            {"tensors": list(names), "options": case.group_options(index)}
            for index, names in enumerate(case.groups)
        ],
        "changes": list(case.changes),
        "gradients": case.gradients if kind in ("open", "half") else None,
        "presence": case.presence if kind == "open" else "all",
        "snapshots": {"closed": [], "half": HALF_SNAPSHOTS}.get(kind, list(case.snapshots())),
    }


def all_files(summary):
    recorded, regression, sparse = recorded_problem(), regression_problem(), sparse_problem()
    yield "problem.safetensors", encode(recorded, {"kind": "problem", "steps": STEPS})
    yield "regression.safetensors", encode(regression, {"kind": "regression", "steps": STEPS})
    yield "sparse.safetensors", encode(sparse, {"kind": "sparse_problem", "steps": STEPS})
    for kind, cases, run, problem in (
        ("open", OPEN_CASES, run_open, recorded),
        ("closed", CLOSED_CASES, run_closed, regression),
        ("sparse", SPARSE_CASES, run_sparse, sparse),
        ("half", HALF_CASES, run_half, recorded),
    ):
        for case in cases:
            case, dtypes = case if kind == "half" else (case, DTYPES)
            for dtype in dtypes:
                result = run(case, dtype, problem)
                for name, array in result.items():
                    assert np.isfinite(array).all(), (case.name, dtype, name)
                if summary:
                    print(summarise(case, dtype, kind, result, problem))
                yield (
                    f"{case.name}.{dtype}.safetensors",
                    encode(result, describe(case, dtype, kind)),
                )


def summarise(case, dtype, kind, result, problem):
    d = result["d"]
    line = f"{case.name:26} {dtype} d {d[0]:.1e} {d[len(d) // 2]:.2e} {d[-1]:.2e}"
    if kind == "closed":
        budgets = f"{result['d_budget'][-1]:.1e} {result['loss_budget'][-1]:.1e}"
        return f"{line} loss {result['loss'][0]:.3f} {result['loss'][-1]:.3f} budgets {budgets}"
    grew = int((np.diff(d) > 0).sum())
    moved = []
    for name in (name for group in case.groups for name in group):
        p = result[f"p.{name}"]
        moved.append(np.abs(p[-1] - problem[f"initial.{name}"]).max() / np.abs(p[-1]).max())
    return f"{line} grew {grew} moved {' '.join(f'{m:.1e}' for m in moved)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--summary", action="store_true", help="print a line per run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.sparse.check_sparse_tensor_invariants.enable()

    DATA.mkdir(exist_ok=True)
    stale = {path.name for path in DATA.glob("*.safetensors")}
    changed, size = [], 0
    for name, data in all_files(arguments.summary):
        path = DATA / name
        stale.discard(name)
        size += len(data)
        if arguments.check:
            if not path.exists() or path.read_bytes() != data:
                changed.append(name)
        else:
            path.write_bytes(data)
    print(f"{size / 1e6:.2f} MB")
    if arguments.check and (changed or stale):
        sys.exit(f"differ: {changed}, not generated: {sorted(stale)}")
    for name in stale:
        (DATA / name).unlink()


if __name__ == "__main__":
    main()
