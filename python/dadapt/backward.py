"""Steps within ``backward``: each gradient is used and freed as soon as it is there."""

import torch

from ._library import Error
from ._session import Session


class StepInBackward:
    """The hooks of :func:`step_in_backward`; ``remove`` takes them off."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.handles = [
            p.register_post_accumulate_grad_hook(self.take) for p in parameters if p.requires_grad
        ]
        optimizer._in_backward = True

    def take(self, p):
        """Updates the parameter that has its gradient, and frees that."""
        optimizer = self.optimizer
        session = optimizer._session
        if session is None or session.given is None:
            session = optimizer.with_session(Session.begin)
        try:
            session.give(p)
        except BaseException:
            session.abort(optimizer)
            raise
        p.grad = None

    def remove(self):
        """Takes the hooks off: ``step`` is the usual one again."""
        self.optimizer.refuse_open("remove")
        for handle in self.handles:
            handle.remove()
        self.optimizer._in_backward = False


def step_in_backward(optimizer):
    """Lets ``loss.backward()`` update each parameter as its gradient is ready and free the gradient;
    ``optimizer.step()`` then only ends the step. The numbers are those of the usual order.

    Not for Prodigy, whose parameters wait for the new ``d``; one ``backward`` a step. Needs PyTorch 2.1. An
    error within ``backward`` leaves the parameters that came before it updated.

    Returns an object whose ``remove()`` takes it back.
    """
    if not hasattr(torch.Tensor, "register_post_accumulate_grad_hook"):
        raise Error(f"step_in_backward needs PyTorch 2.1 or later; this is {torch.__version__}")
    if optimizer.spec.algorithm == "prodigy":
        raise Error("Prodigy cannot step in backward: its parameters wait for the new d")
    if optimizer.param_groups[0]["non_finite"] == "skip":
        raise Error(
            "non_finite='skip' needs all gradients at once: make it 'reject' or 'propagate'"
        )
    return StepInBackward(optimizer)
