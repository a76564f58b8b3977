"""Closed loops: models that are trained beside the packages, so that each step's error moves the next
gradient.

How far two correct implementations may part is a property of the problem. The package itself says: it runs
again, six times, with every parameter moved by an ulp up or down before each step; the largest deviation
so far is the budget of a step. Ours may stray ten times as far (ulps in parameters do not stand for those in
state and sums; the worst seen is 3), and one part in 1e5 where a run is too short to have spread.
"""

import pytest
import torch

from common import NAMES, PAIRS

STEPS = 60
FACTOR, FLOOR = 10.0, 1e-5

# A schedule, decay and a limit on d keep problems from leaving all bounds, there and here.
OPTIONS = {
    "adam": {"growth_rate": 1.1, "weight_decay": 0.01, "decouple": True},
    "sgd": {"growth_rate": 1.3, "momentum": 0.5},
    "adagrad": {"d0": 1e-2},
    "lion": {"weight_decay": 0.01},
    "adan": {"growth_rate": 1.1},
    "prodigy": {"growth_rate": 1.1, "safeguard_warmup": True},
    "adam_preprint": {"growth_rate": 1.1},
    "adan_ip": {"growth_rate": 1.1},
}


def perceptron():
    model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    return model, torch.randn(64, 12)


def convolution():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(64, 4)
    )
    return model, torch.randn(48, 1, 6, 6)


def embedding():
    model = torch.nn.Sequential(
        torch.nn.Embedding(30, 6),
        torch.nn.Flatten(),
        torch.nn.LayerNorm(18),
        torch.nn.Linear(18, 4),
    )
    return model, torch.randint(0, 30, (64, 3))


def jitter(parameters, generator):
    """Moves every element to one of its neighbours."""
    with torch.no_grad():
        for p in parameters:
            up = torch.rand(p.shape, generator=generator) < 0.5
            towards = torch.where(up, torch.tensor(float("inf")), torch.tensor(-float("inf")))
            p.copy_(torch.nextafter(p, towards))


def trained(problem, kind, options, noise=None):
    """d after each step, and the losses before."""
    torch.manual_seed(5)
    model, x = problem()
    y = torch.randint(0, 4, (len(x),))
    parameters = list(model.parameters())
    optimizer = kind(parameters, **{"d0": 1e-3, **options})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / (2 * STEPS))
    generator = torch.Generator().manual_seed(noise or 0)
    ds, losses = [], []
    for _ in range(STEPS):
        if noise:
            jitter(parameters, generator)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        ds.append(float(optimizer.param_groups[0]["d"]))
    return torch.tensor(ds, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64)


def deviation(found, expected):
    """The largest so far, of d and of the loss, relatively."""
    return [((a - b).abs() / b.abs()).cummax(dim=0).values for a, b in zip(found, expected)]


@pytest.mark.parametrize("problem", [perceptron, convolution, embedding], ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_models_are_trained_as_by_the_packages(name, problem):
    ours, reference = PAIRS[name]
    expected = trained(problem, reference, OPTIONS[name])
    runs = [
        deviation(trained(problem, reference, OPTIONS[name], noise), expected)
        for noise in range(1, 7)
    ]
    found = deviation(trained(problem, ours, OPTIONS[name]), expected)
    for what, mine, theirs in zip(("d", "loss"), found, zip(*runs)):
        budget = FACTOR * torch.stack(theirs).amax(dim=0) + FLOOR
        worst = (mine / budget).max().item()
        assert worst <= 1, f"{what}: {FACTOR * worst:.1f} times the budget"
    ds, losses = expected
    # (SGD and Lion leave the table of embeddings again: their d is the packages'.)
    assert losses.min() < 0.9 * losses[0] and ds[-1] > 1.0001 * ds[0], "MISTRUSTED: nothing learnt"
