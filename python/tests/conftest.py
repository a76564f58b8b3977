"""Finds the package beside the tests where none is installed, and says what is tested."""

import sys
from pathlib import Path

try:
    import dadapt
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import dadapt

import torch

# Threads of PyTorch's own kernels would make the packages' last digits differ from run to run.
torch.set_num_threads(1)


def pytest_report_header():
    return f"torch {torch.__version__}, dadapt {dadapt.__version__} from {dadapt.__file__}"
