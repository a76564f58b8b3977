#!/usr/bin/env python3
"""Runs the reference packages on recorded problems and writes what they do to `data/`.

    python generate.py            write every file
    python generate.py --check    write nothing; fail if any file would change
    python generate.py --summary  also print how far d and the parameters travelled

README.md, beside this file, describes the files. A new algorithm is an entry of ALGORITHMS; a new
case is an entry of OPEN_CASES or CLOSED_CASES.
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
from dadaptation import DAdaptAdam, DAdaptSGD

DATA = pathlib.Path(__file__).parent / "data"
DTYPES = {"f32": (np.float32, torch.float32), "f64": (np.float64, torch.float64)}
STEPS = 120
SNAPSHOTS = [1, *range(10, STEPS + 1, 10)]  # counts of finished steps
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
        return {**ALGORITHMS[self.algorithm].defaults, **self.options, **self.per_group[index]}


def change(step, option, value, group=None):
    return {"step": step, "option": option, "value": value, "group": group}


LR_SCHEDULE = (change(30, "lr", 0.5), change(70, "lr", 1.5))
LR_LOW_SCHEDULE = (change(30, "lr", 0.1), change(70, "lr", 0.3))
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
]


class Runner:
    """The reference optimizer of one case, stepped with gradients given as arrays."""

    def __init__(self, case, dtype, initial):
        self.case, self.algorithm = case, ALGORITHMS[case.algorithm]
        self.array_type, tensor_type = DTYPES[dtype]
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
        for option in self.algorithm.first_group_only - {"d0"}:
            name = "betas" if option.startswith("beta") else option
            assert len({group[name] for group in param_groups}) == 1, (case.name, option)
        with contextlib.redirect_stdout(io.StringIO()):  # DAdaptAdam announces `decouple`
            self.optimizer = self.algorithm.build(param_groups, d0=case.group_options(0)["d0"])

    def package_options(self, index, options):
        """The options of one group in the package's own words."""
        words = {key: value for key, value in options.items() if key != "d0"}
        if "beta1" in words:
            words["betas"] = (words.pop("beta1"), words.pop("beta2"))
        if words["growth_rate"] is None:
            words["growth_rate"] = math.inf
        if index in self.case.decay_by_caller:
            words["weight_decay"] = 0.0
            if "decouple" in words:
                words["decouple"] = self.case.group_options(0)["decouple"]
        if self.algorithm.layer_scale_power is not None:
            scale = words.pop("layer_scale")
            if self.algorithm.coupled(options):
                words["weight_decay"] *= scale ** (2 * self.algorithm.layer_scale_power)
        return words

    def apply_changes(self, step):
        for item in self.case.changes:
            if item["step"] == step:
                for index, group in enumerate(self.optimizer.param_groups):
                    if item["group"] in (None, index):
                        assert item["option"] in group
                        group[item["option"]] = item["value"]

    def step(self, gradients):
        """One step. `gradients` maps the tensors that have one to an array of the case's dtype."""
        for index, names in enumerate(self.case.groups):
            for name in names:
                tensor = self.tensors[name]
                if name not in gradients:
                    tensor.grad = None
                    continue
                # A copy: coupled weight decay is written into it.
                tensor.grad = torch.tensor(gradients[name] * self.factor[name], dtype=tensor.dtype)
                if index in self.case.decay_by_caller:
                    decay = self.case.group_options(index)["weight_decay"]
                    tensor.grad.add_(tensor, alpha=decay)
        self.optimizer.step()

    def parameters(self):
        return {name: tensor.numpy() * self.factor[name] for name, tensor in self.tensors.items()}

    def state(self):
        group = self.optimizer.param_groups[0]
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


def run_open(case, dtype, problem):
    initial = {name: problem[f"initial.{name}"] for name in TENSORS}
    runner = Runner(case, dtype, initial)
    mask = problem[f"presence.{case.presence}"].astype(bool)
    columns = list(TENSORS)
    d, k, snapshots = [], [], []
    for step in range(STEPS):
        runner.apply_changes(step)
        runner.step(
            {
                name: problem[f"{case.gradients}.{name}"][step].astype(runner.array_type)
                for name in columns
                if mask[step, columns.index(name)]
            }
        )
        now = runner.state()
        d.append(now[0])
        k.append(now[1])
        if step + 1 in SNAPSHOTS:
            snapshots.append(runner.parameters())
    tensors = {f"p.{name}": np.stack([at[name] for at in snapshots]) for name in columns}
    return {**tensors, "d": np.array(d), "k": np.array(k, dtype=np.int64)}


def jitter(rng, array):
    """Moves every element by -1, 0 or +1 unit in the last place."""
    towards = rng.choice([-np.inf, 0.0, np.inf], array.shape).astype(array.dtype)
    return np.where(towards == 0, array, np.nextafter(array, towards))


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


def provenance():
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "dadaptation": importlib.metadata.version("dadaptation"),
    }


def encode(tensors, description):
    # One metadata key only: with several, safetensors writes them in random order.
    text = json.dumps({**description, "provenance": provenance()})
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
        "gradients": case.gradients if kind == "open" else None,
        "presence": case.presence if kind == "open" else "all",
        "snapshots": SNAPSHOTS if kind == "open" else [],
    }


def all_files(summary):
    recorded, regression = recorded_problem(), regression_problem()
    yield "problem.safetensors", encode(recorded, {"kind": "problem", "steps": STEPS})
    yield "regression.safetensors", encode(regression, {"kind": "regression", "steps": STEPS})
    for kind, cases, run, problem in (
        ("open", OPEN_CASES, run_open, recorded),
        ("closed", CLOSED_CASES, run_closed, regression),
    ):
        for case in cases:
            for dtype in DTYPES:
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
    line = f"{case.name:26} {dtype} d {d[0]:.1e} {d[STEPS // 2]:.2e} {d[-1]:.2e}"
    if kind == "closed":
        budgets = f"{result['d_budget'][-1]:.1e} {result['loss_budget'][-1]:.1e}"
        return f"{line} loss {result['loss'][0]:.3f} {result['loss'][-1]:.3f} budgets {budgets}"
    grew = int((np.diff(d) > 0).sum())
    moved = []
    for name in TENSORS:
        p = result[f"p.{name}"]
        moved.append(np.abs(p[-1] - problem[f"initial.{name}"]).max() / np.abs(p[-1]).max())
    return f"{line} grew {grew} moved {' '.join(f'{m:.1e}' for m in moved)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--summary", action="store_true", help="print a line per run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

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
