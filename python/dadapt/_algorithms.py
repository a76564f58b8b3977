"""The optimizers of the packages ``dadaptation`` and ``prodigyopt``, with their arguments."""

from . import _spec
from ._optimizer import Optimizer

INF = float("inf")


def check_rates(lr, eps=1.0, betas=(), least=None):
    """Raises what the packages raise, in their words."""
    if not (lr > 0.0 or lr == least):
        raise ValueError(f"Invalid learning rate: {lr}")
    if not eps > 0.0:
        raise ValueError(f"Invalid epsilon value: {eps}")
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")


class DAdaptAdam(Optimizer):
    """Adam with D-Adaptation, as ``dadaptation.DAdaptAdam``. Leave ``lr`` at 1 unless there is a schedule.

    Arguments:
        params (iterable): parameters, or dicts of groups; a group's ``layer_scale`` is its rate relative
            to that of the others.
        lr (float): a factor on ``d``.
        betas (Tuple[float, float]): decays of the means of gradients and of their squares.
        eps (float): added to the root of the mean of squares.
        weight_decay (float): weight decay, coupled (added to the gradient) unless ``decouple``.
        log_every (int): a line on ``d`` to the logger ``dadapt``, every so many steps.
        decouple (bool): AdamW's weight decay.
        use_bias_correction (bool): Adam's bias correction.
        d0 (float): the first ``d``.
        growth_rate (float): the most that ``d`` grows by in a step, as a factor; 1.02 is a warm-up.
        fsdp_in_use (bool): must be False.
        extras: those of every optimizer, see ``Optimizer``, and ``slice_p``.
    """

    spec = _spec.ADAM

    def __init__(
        self,
        params,
        lr=1.0,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        log_every=0,
        decouple=False,
        use_bias_correction=False,
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
            "use_bias_correction": use_bias_correction,
            "d0": d0,
            "growth_rate": growth_rate,
            "fsdp_in_use": fsdp_in_use,
        }
        super().__init__(params, defaults, **extras)


class DAdaptSGD(Optimizer):
    """SGD with momentum and D-Adaptation, as ``dadaptation.DAdaptSGD``.

    Arguments: as :class:`DAdaptAdam`, and ``momentum`` (float), at least 0 and below 1. The state lacks ``z``,
    which is ``x0 - s``; ``state_dict`` has it.
    """

    spec = _spec.SGD

    def __init__(
        self,
        params,
        lr=1.0,
        momentum=0.0,
        weight_decay=0,
        log_every=0,
        d0=1e-6,
        growth_rate=INF,
        fsdp_in_use=False,
        **extras,
    ):
        check_rates(lr)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "log_every": log_every,
            "d0": d0,
            "growth_rate": growth_rate,
            "fsdp_in_use": fsdp_in_use,
        }
        super().__init__(params, defaults, **extras)


class DAdaptAdaGrad(Optimizer):
    """AdaGrad with D-Adaptation, as ``dadaptation.DAdaptAdaGrad``, of dense gradients and of an
    embedding's sparse ones, for which only touched rows cost anything.

    Arguments: as :class:`DAdaptAdam`, and ``momentum`` (float). A group with sparse gradients has neither weight
    decay nor momentum, which the package ignores there.
    """

    spec = _spec.ADAGRAD

    def __init__(
        self,
        params,
        lr=1.0,
        momentum=0,
        log_every=0,
        weight_decay=0.0,
        eps=1e-6,
        d0=1e-6,
        growth_rate=INF,
        **extras,
    ):
        check_rates(lr, eps)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "log_every": log_every,
            "weight_decay": weight_decay,
            "eps": eps,
            "d0": d0,
            "growth_rate": growth_rate,
        }
        super().__init__(params, defaults, **extras)


class DAdaptLion(Optimizer):
    """Lion with D-Adaptation, as ``dadaptation.DAdaptLion``. Weight decay is decoupled.

    Arguments: as :class:`DAdaptAdam`.
    """

    spec = _spec.LION

    def __init__(
        self,
        params,
        lr=1.0,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        log_every=0,
        d0=1e-6,
        fsdp_in_use=False,
        **extras,
    ):
        check_rates(lr, betas=betas, least=0.0)
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "log_every": log_every,
            "d0": d0,
            "fsdp_in_use": fsdp_in_use,
        }
        super().__init__(params, defaults, **extras)


class DAdaptAdan(Optimizer):
    """Adan with D-Adaptation, as ``dadaptation.DAdaptAdan``; ``restart_opt`` restarts it.

    Arguments: as :class:`DAdaptAdam`, with three ``betas``, of gradients, their differences and squares, and
    ``no_prox`` (bool): weight decay before the step, as AdamW's, and not by a division after it.
    """

    spec = _spec.ADAN

    def __init__(
        self,
        params,
        lr=1.0,
        betas=(0.98, 0.92, 0.99),
        eps=1e-8,
        weight_decay=0.02,
        no_prox=False,
        log_every=0,
        d0=1e-6,
        growth_rate=INF,
        **extras,
    ):
        check_rates(lr, eps, betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
            "log_every": log_every,
            "d0": d0,
            "growth_rate": growth_rate,
        }
        super().__init__(params, defaults, **extras)


class Prodigy(Optimizer):
    """Prodigy, as ``prodigyopt.Prodigy``. Anneal ``lr`` from 1.

    Arguments: as :class:`DAdaptAdam`, and
        beta3 (float): decay of ``s`` and the numerator; None for the root of beta2.
        d_coef (float): a factor on the estimate, the way to tune it.
        safeguard_warmup (bool): weights ``s`` without ``lr``, against too large a ``d`` in a warm-up.
        slice_p (int): the estimate follows every so many elements only, to save memory.
    """

    spec = _spec.PRODIGY

    def __init__(
        self,
        params,
        lr=1.0,
        betas=(0.9, 0.999),
        beta3=None,
        eps=1e-8,
        weight_decay=0,
        decouple=True,
        use_bias_correction=False,
        safeguard_warmup=False,
        d0=1e-6,
        d_coef=1.0,
        growth_rate=INF,
        fsdp_in_use=False,
        slice_p=1,
        **extras,
    ):
        check_rates(lr, eps, betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "beta3": beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "decouple": decouple,
            "use_bias_correction": use_bias_correction,
            "safeguard_warmup": safeguard_warmup,
            "d0": d0,
            "d_coef": d_coef,
            "growth_rate": growth_rate,
            "fsdp_in_use": fsdp_in_use,
            "slice_p": slice_p,
        }
        super().__init__(params, defaults, **extras)
