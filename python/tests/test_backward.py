"""Steps within backward: the numbers of the usual order, and gradients freed."""

import pytest
import torch

import dadapt

from common import NAMES, OURS, bits, classification, same, train

HOOKS = hasattr(torch.Tensor, "register_post_accumulate_grad_hook")
needs_hooks = pytest.mark.skipif(not HOOKS, reason="hooks after gradients: PyTorch 2.1 or later")
OPTIONS = {"d0": 1e-3, "growth_rate": 1.1}
EACH = pytest.mark.parametrize("name", [name for name in NAMES if name != "prodigy"])


def backward(model, x, y):
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    return loss.item()


@needs_hooks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@EACH
def test_steps_in_backward_are_the_usual_ones_to_the_bit(name, dtype):
    results = []
    for within in (False, True):
        model, x, y = classification(dtype=dtype)
        optimizer = OURS[name](model.parameters(), **OPTIONS)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        if within:
            dadapt.step_in_backward(optimizer)
        losses = []
        for _ in range(12):
            losses.append(backward(model, x, y))
            assert all((p.grad is None) == within for p in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        state = [optimizer.state[p] for p in model.parameters()]
        results.append((losses, bits(model.parameters()), optimizer.param_groups[0]["d"], state))
    (losses, p, d, state), (losses_within, p_within, d_within, state_within) = results
    assert losses == losses_within and d == d_within and same(p, p_within)
    assert d > 2e-3 or name == "adagrad"
    for left, right in zip(state, state_within):
        assert left.keys() == right.keys()
        for key in left:
            if torch.is_tensor(left[key]):
                assert torch.equal(left[key], right[key]), key
            else:
                assert left[key] == right[key] == 12


@needs_hooks
def test_gradients_are_found_where_they_were_before_a_step_in_backward():
    results = []
    for within in (False, True):
        model, x, y = classification()
        parameters = list(model.parameters())
        optimizer = OURS["adam"](parameters, **OPTIONS)
        backward(model, x, y)
        optimizer.step()
        kept = [p.grad for p in parameters]
        optimizer.zero_grad(set_to_none=True)
        hooks = dadapt.step_in_backward(optimizer) if within else None
        backward(model, x, y)
        optimizer.step()
        if hooks:
            hooks.remove()
        for p, g in zip(parameters, kept):
            p.grad = g
        optimizer.step()
        results.append((bits(parameters), optimizer.param_groups[0]["d"]))
    (p, d), (p_within, d_within) = results
    assert d == d_within and same(p, p_within)


@needs_hooks
def test_whole_steps_go_on_after_a_step_in_backward_that_failed(monkeypatch):
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    backward(model, x, y)
    optimizer.step()
    optimizer.zero_grad()
    hooks = dadapt.step_in_backward(optimizer)

    def fail(*_):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(dadapt._entries.Entry, "gradient", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            backward(model, x, y)
    hooks.remove()
    optimizer.zero_grad()
    backward(model, x, y)
    optimizer.step()
    assert optimizer.report.applied


@needs_hooks
def test_gradients_do_not_pile_up():
    """Of twelve layers there is a gradient of one at a time."""
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(12)))
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    most = 0

    def count(p):
        nonlocal most
        most = max(most, sum(q.grad is not None for q in model.parameters()))

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(count)
    dadapt.step_in_backward(optimizer)
    model(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    assert most <= 2 and optimizer.report.applied
    assert all(p in optimizer.state for p in model.parameters())


@needs_hooks
def test_hooks_can_be_removed_and_nothing_is_half_done():
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    hooks = dadapt.step_in_backward(optimizer)
    optimizer.step()  # no backward, no progress
    assert not optimizer.report.applied and not optimizer.state
    backward(model, x, y)
    for call in (optimizer.state_dict, optimizer.freeze, hooks.remove):
        with pytest.raises(RuntimeError, match="a step in parts is open"):
            call()
    optimizer.step()
    hooks.remove()
    train(model, optimizer, x, y, 3)
    assert optimizer.param_groups[0]["k"] == 4


@needs_hooks
def test_errors_within_backward_end_the_step():
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    dadapt.step_in_backward(optimizer)
    backward(model, x, y)
    optimizer.step()
    d, counts = (
        optimizer.param_groups[0]["d"],
        lambda: [optimizer.state[p]["step"] for p in model.parameters()],
    )
    assert counts() == [1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="NaN"):
        backward(model, x * float("nan"), y)
    assert optimizer.param_groups[0]["d"] == d and optimizer.param_groups[0]["k"] == 1
    optimizer.state_dict()  # no step is open
    for p in model.parameters():
        p.grad = None
    before = counts()
    backward(model, x, y)
    optimizer.step()
    assert optimizer.param_groups[0]["k"] == 2
    assert counts() == [count + 1 for count in before]


@needs_hooks
def test_models_may_change_type_between_steps():
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    dadapt.step_in_backward(optimizer)
    backward(model, x, y)
    optimizer.step()
    model.double()
    backward(model, x.double(), y)
    optimizer.step()
    assert optimizer.param_groups[0]["k"] == 2
    assert all(optimizer.state[p]["s"].dtype == torch.float64 for p in model.parameters())


@needs_hooks
def test_two_backwards_in_a_step_are_refused():
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    dadapt.step_in_backward(optimizer)
    backward(model, x, y)
    with pytest.raises(RuntimeError, match="twice"):
        backward(model, x, y)


def test_who_cannot_step_in_backward_says_so():
    model, _, _ = classification()
    with pytest.raises(RuntimeError, match="wait for the new d" if HOOKS else "PyTorch 2.1"):
        dadapt.step_in_backward(OURS["prodigy"](model.parameters()))
    if HOOKS:
        with pytest.raises(RuntimeError, match="non_finite"):
            dadapt.step_in_backward(OURS["adam"](model.parameters(), non_finite="skip"))
