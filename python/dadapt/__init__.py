"""D-Adaptation and Prodigy for PyTorch on CPUs: no learning rate to find, and one pass over memory.

``from dadapt import DAdaptAdam`` takes the place of ``from dadaptation import DAdaptAdam``, and
``from dadapt import Prodigy`` that of ``from prodigyopt import Prodigy``. :mod:`dadapt.numpy` has the same for
arrays, without PyTorch.
"""

from ._library import Error, OptionError, version
from ._native import StepReport

__version__ = version()

_TORCH = {
    **dict.fromkeys(
        ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD", "Prodigy"),
        "_algorithms",
    ),
    "step_in_backward": "backward",
}

__all__ = ["Error", "OptionError", "StepReport", *_TORCH]


def __getattr__(name):
    # PyTorch is imported by who asks for what needs it.
    if name in _TORCH:
        from importlib import import_module

        value = getattr(import_module(f".{_TORCH[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in ("experimental", "backward", "numpy"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_TORCH])
