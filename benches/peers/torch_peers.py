"""PyTorch's optimizers, and those built on PyTorch: dadaptation, prodigyopt, DeepSpeed."""

import os

import torch

from worker import D0, LR, WEIGHT_DECAY, Case


def torch_adamw(p):
    """One fused kernel a tensor."""
    return torch.optim.AdamW(p, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)


def torch_sgd(p):
    """The same, with momentum."""
    return torch.optim.SGD(p, lr=LR, momentum=0.9, fused=True)


def deepspeed_adamw(p):
    """DeepSpeed's kernel, which it compiles at its first use."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam(p, lr=LR, weight_decay=WEIGHT_DECAY)


def prodigyopt(p):
    """Prodigy of its authors' package."""
    from prodigyopt import Prodigy

    return Prodigy(p, d0=D0)


def dadaptation(name):
    """An optimizer of the package dadaptation."""

    def new(p):
        package = __import__("dadaptation")
        return getattr(package, name)(p, d0=D0)

    return new


OPTIMIZERS = {
    "torch_adamw": torch_adamw,
    "torch_sgd": torch_sgd,
    "deepspeed_adamw": deepspeed_adamw,
    "prodigyopt": prodigyopt,
    "dadaptation_adam": dadaptation("DAdaptAdam"),
    "dadaptation_sgd": dadaptation("DAdaptSGD"),
    "dadaptation_lion": dadaptation("DAdaptLion"),
    "dadaptation_adan": dadaptation("DAdaptAdan"),
    "dadaptation_adagrad": dadaptation("DAdaptAdaGrad"),
}


class TorchCase(Case):
    """An optimizer with PyTorch's interface, over the same arrays as ours."""

    def __init__(self, name, lens):
        super().__init__(lens)
        torch.set_num_threads(int(os.environ["PEERS_THREADS"]))
        self.parameters = [torch.nn.Parameter(torch.from_numpy(p)) for p in self.p]
        self.gradients = [[torch.from_numpy(g) for g in gradients] for gradients in self.g]
        self.optimizer = OPTIMIZERS[name](self.parameters)

    def prepare(self, which):
        for p, g in zip(self.parameters, self.gradients[which], strict=True):
            p.grad = g

    def step(self):
        self.optimizer.step()

    def hold(self):
        for group in self.optimizer.param_groups:
            group["lr"] = LR
            if "growth_rate" in group:
                group["growth_rate"] = 1.0

    def note(self):
        d = self.optimizer.param_groups[0].get("d")
        return "" if d is None else f"d {float(d):.3g}"


def make(name, lens):
    """The case of that name, `_tuned` after it or not: the difference is in the environment."""
    return TorchCase(name.removesuffix("_tuned"), lens)
