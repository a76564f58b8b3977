"""The front for arrays: the same numbers, without PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import dadapt.numpy

from common import NAMES, OURS, gradients, new_parameters, run

CLASSES = {
    "adam": dadapt.numpy.DAdaptAdam,
    "sgd": dadapt.numpy.DAdaptSGD,
    "adagrad": dadapt.numpy.DAdaptAdaGrad,
    "lion": dadapt.numpy.DAdaptLion,
    "adan": dadapt.numpy.DAdaptAdan,
    "prodigy": dadapt.numpy.Prodigy,
    "adam_preprint": dadapt.numpy.DAdaptAdamPreprint,
    "adan_ip": dadapt.numpy.DAdaptAdanIP,
}


def arrays_of(parameters):
    return [np.array(p.detach().numpy()) for p in parameters]


def test_no_pytorch_is_needed():
    code = "import sys, dadapt.numpy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_stepped_as_tensors_are_to_the_bit(name):
    ours = new_parameters()
    record = gradients(ours, 10)
    arrays = arrays_of(ours)
    a = OURS[name](ours, d0=1e-3, weight_decay=0.01)
    b = CLASSES[name](arrays, d0=1e-3, weight_decay=0.01)
    run(a, ours, record)
    for given in record:
        report = b.step([g.numpy() for g in given])
    assert (report.d, report.k) == (a.param_groups[0]["d"], 10) == (b.d, b.k)
    assert all(np.array_equal(p.detach().numpy(), q) for p, q in zip(ours, arrays))


@pytest.mark.parametrize("name", NAMES)
def test_state_is_saved_and_loaded_to_the_bit(name):
    ours = new_parameters()
    record = [[g.numpy() for g in given] for given in gradients(ours, 12)]
    arrays = arrays_of(ours)
    optimizer = CLASSES[name](arrays, d0=1e-3)
    for given in record[:6]:
        optimizer.step(given)
    saved, again = optimizer.state_dict(), [array.copy() for array in arrays]
    resumed = CLASSES[name](again, d0=1e-3)
    resumed.load_state_dict(saved)
    for given in record[6:]:
        assert optimizer.step(given).d == resumed.step(given).d
    assert all(map(np.array_equal, arrays, again))


def test_dicts_groups_and_missing_gradients():
    w, b = np.ones((2, 3)), np.ones(3)
    named = dadapt.numpy.Prodigy({"w": w, "b": b}, d0=1e-2, betas=(0.8, 0.99), beta3=None)
    named.step({"w": np.full((2, 3), 2.0)})
    assert (w < 1).all() and (b == 1).all()
    named.set("lr", 0.0)
    assert not named.step({"w": np.ones((2, 3))}).applied
    groups = [{"params": [w]}, {"params": [b], "lr": 0.0, "weight_decay": 0.1}]
    grouped = dadapt.numpy.DAdaptAdam(groups, d0=1e-2)
    grouped.step([np.ones((2, 3)), np.ones(3)])
    assert (b == 1).all()


def test_what_cannot_be_is_refused_and_changes_nothing():
    w = np.ones((4, 3), np.float32)
    for bad in (w.astype(int), w.T, [1.0], np.broadcast_to(w, (4, 3))):
        with pytest.raises(dadapt.Error, match="array|contiguous"):
            dadapt.numpy.DAdaptAdam([bad])
    optimizer = dadapt.numpy.DAdaptAdam({"w": w})
    for grads, words in [
        ([np.ones((3, 4), np.float32)], "shape"),
        ([], "0 gradients"),
        ({"v": w}, "no parameter 'v'"),
        ([np.full((4, 3), np.nan, np.float32)], "NaN"),
        ([w], "overlap"),
    ]:
        with pytest.raises(dadapt.Error, match=words):
            optimizer.step(grads)
        assert (w == 1).all() and optimizer.k == 0
    with pytest.raises(ValueError, match="no option"):
        dadapt.numpy.DAdaptAdam([w], nonsense=1.0)
    other = dadapt.numpy.DAdaptAdam([np.ones(5, np.float32)])
    with pytest.raises(dadapt.Error, match="does not fit"):
        other.load_state_dict(optimizer.state_dict())
    optimizer.step([np.ones((4, 3), np.float32)])
    stepped, saved = w.copy(), optimizer.state_dict()
    (held,) = saved["state"]
    held["progress"] = held["progress"][:3]
    held["s"] = held["s"] + 1
    with pytest.raises(dadapt.Error, match="progress of .* another version"):
        optimizer.load_state_dict(saved)
    assert optimizer.k == 1 and (w == stepped).all()
    assert not np.array_equal(optimizer.state_dict()["state"][0]["s"], held["s"])


def test_gradients_of_other_kinds_are_taken():
    w = np.ones((4, 3), np.float32)
    optimizer = dadapt.numpy.DAdaptAdam([w], d0=1e-2)
    optimizer.step([torch.ones(3, 4).t()])  # whatever NumPy takes, as JAX's arrays
    optimizer.step([np.ones((4, 3))])
    assert (w < 1).all()
