"""Optimizers in pairs, ours and the package's, and problems to run them on."""

import copy

# Not skipped where they are missing: what is tested is that ours are as theirs.
import dadaptation
import dadaptation.experimental
import prodigyopt
import torch

import dadapt
from dadapt import experimental

PAIRS = {
    "adam": (dadapt.DAdaptAdam, dadaptation.DAdaptAdam),
    "sgd": (dadapt.DAdaptSGD, dadaptation.DAdaptSGD),
    "adagrad": (dadapt.DAdaptAdaGrad, dadaptation.DAdaptAdaGrad),
    "lion": (dadapt.DAdaptLion, dadaptation.DAdaptLion),
    "adan": (dadapt.DAdaptAdan, dadaptation.DAdaptAdan),
    "prodigy": (dadapt.Prodigy, prodigyopt.Prodigy),
    "adam_preprint": (
        experimental.DAdaptAdamPreprint,
        dadaptation.experimental.DAdaptAdamPreprint,
    ),
    "adan_ip": (experimental.DAdaptAdanIP, dadaptation.experimental.DAdaptAdanIP),
}
NAMES = list(PAIRS)
OURS = {name: ours for name, (ours, _) in PAIRS.items()}
#: Steps that in the package and here begin with the norm of all gradients.
SHAPES = [(1,), (7,), (3, 11), (5, 2, 13), (257,)]


def new_parameters(dtype=torch.float32, shapes=SHAPES, zero=3):
    """Parameters that look random; one of them starts at 0."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for index, shape in enumerate(shapes):
        start = torch.randn(shape, generator=generator, dtype=torch.float64)
        start = start * (0.0 if index == zero else 1.0)
        made.append(torch.nn.Parameter(start.to(dtype)))
    return made


def gradients(parameters, steps, dtype=torch.float32, fading=False):
    """A record of gradients: each element keeps its direction for long, with noise; exact in f32. Those
    that fade do so soon: for d that grows fast, there and here, without leaving all bounds."""
    generator = torch.Generator().manual_seed(11)
    record = []
    bases = [torch.randn(p.shape, generator=generator) for p in parameters]
    for step in range(steps):
        turn = 0.8**step if fading else 1.0 if (step // 40) % 2 == 0 else -0.5
        noise = [0.3 * torch.randn(p.shape, generator=generator) for p in parameters]
        record.append([(turn * b + n).to(dtype) for b, n in zip(bases, noise)])
    return record


def set_gradients(parameters, given):
    """Copies, since the packages write weight decay into gradients."""
    for p, g in zip(parameters, given):
        p.grad = None if g is None else g.clone()


def two_groups(parameters, **second):
    """Groups of the first three and of the rest."""
    return [{"params": parameters[:3]}, {"params": parameters[3:], **second}]


def classification(seed=0, dtype=torch.float32):
    """A small network and data to fit."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5)
    ).to(dtype)
    return model, torch.randn(64, 20, dtype=dtype), torch.randint(0, 5, (64,))


def train(model, optimizer, x, y, steps, scheduler=None):
    """Full-batch steps; the losses before each."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def bits(parameters):
    """Copies, to be compared with `same`."""
    return [p.detach().clone() for p in parameters]


def same(left, right):
    """Whether all are equal to the bit (a NaN is equal to none)."""
    return len(left) == len(right) and all(map(torch.equal, left, right))


def run(optimizer, parameters, record, start=0):
    """Steps with recorded gradients; d after each."""
    found = []
    for given in record[start:]:
        set_gradients(parameters, given)
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["d"]))
    return found


def copied(parameters):
    """The same parameters again."""
    return copy.deepcopy(parameters)
