"""What the package calls experimental: ``dadaptation.experimental``."""

from . import _spec
from ._algorithms import INF, DAdaptAdan, check_rates
from ._optimizer import Optimizer

__all__ = ["DAdaptAdamPreprint", "DAdaptAdanIP"]


class DAdaptAdamPreprint(Optimizer):
    """D-Adapt Adam as in the first versions of the paper, as
    ``dadaptation.experimental.DAdaptAdamPreprint``.

    Arguments: as :class:`dadapt.DAdaptAdam`, without bias correction.
    """

    spec = _spec.ADAM_PREPRINT

    def __init__(
        self,
        params,
        lr=1.0,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        log_every=0,
        decouple=False,
        d0=1e-6,
        growth_rate=INF,
        fsdp_in_use=False,
        **extras,
    ):
        check_rates(lr, eps, betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "log_every": log_every,
            "decouple": decouple,
            "d0": d0,
            "growth_rate": growth_rate,
            "fsdp_in_use": fsdp_in_use,
        }
        super().__init__(params, defaults, **extras)


class DAdaptAdanIP(DAdaptAdan):
    """D-Adapt Adan by inner products, as ``dadaptation.experimental.DAdaptAdanIP``, whose state calls the
    mean of differences ``exp_avg_sq`` and the mean of squares ``exp_avg_diff``; so does this.

    Arguments: as :class:`dadapt.DAdaptAdan`.
    """

    spec = _spec.ADAN_IP
