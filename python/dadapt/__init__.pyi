from . import backward as backward
from . import experimental as experimental
from . import numpy as numpy
from ._algorithms import DAdaptAdaGrad, DAdaptAdam, DAdaptAdan, DAdaptLion, DAdaptSGD, Prodigy
from ._library import Error, OptionError
from ._native import StepReport
from .backward import step_in_backward

__version__: str
__all__ = [
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdan",
    "DAdaptLion",
    "DAdaptSGD",
    "Error",
    "OptionError",
    "Prodigy",
    "StepReport",
    "step_in_backward",
]
