"""What PyTorch asks of optimizers in its own tests (test/test_optim.py), of ours."""

import copy

import pytest
import torch
from torch.optim import lr_scheduler

from common import (
    NAMES,
    OURS,
    PAIRS,
    bits,
    classification,
    copied,
    gradients,
    new_parameters,
    run,
    same,
    set_gradients,
    train,
)

# Small steps that do not grow: what is tested is what PyTorch does around them.
CALM = {"d0": 1e-2, "growth_rate": 1.0}
each = pytest.mark.parametrize("name", NAMES)


def problem():
    """|W b + bias - y|^2, as PyTorch's tests have it."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(10, 5))
    bias = torch.nn.Parameter(torch.randn(10))
    x = torch.randn(5)

    def loss():
        return (weight.mv(x) + bias).pow(2).sum()

    return weight, bias, loss


@each
def test_closure_is_evaluated_with_gradients_and_its_loss_returned(name):
    weight, bias, loss = problem()
    optimizer = OURS[name]([weight, bias], **CALM)
    calls = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        value = loss()
        value.backward()
        calls.append(value)
        return value

    first = loss().item()
    with torch.no_grad():
        returned = [optimizer.step(closure) for _ in range(60)]
    assert returned == calls
    assert loss().item() < first


@each
def test_groups_given_in_any_way_are_the_same_step(name):
    """As PyTorch's `_test_basic_cases`: one list, groups with defaults, groups with overrides."""
    results = []
    for groups in (
        lambda w, b: [w, b],
        lambda w, b: [{"params": [w]}, {"params": b}],
        lambda w, b: iter([{"params": [w], "weight_decay": 0.0}, {"params": [b], "lr": 1.0}]),
    ):
        weight, bias, loss = problem()
        optimizer = OURS[name](groups(weight, bias), weight_decay=0.0, **CALM)
        for _ in range(20):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        results.append(bits([weight, bias]))
    assert same(results[0], results[1]) and same(results[0], results[2])


@each
def test_group_added_in_between_is_stepped(name):
    ours, theirs = new_parameters(), new_parameters()
    record = gradients(ours, 20)
    late = OURS[name](ours[:2], **CALM)
    for step, given in enumerate(record):
        if step == 10:
            late.add_param_group({"params": ours[2:], "weight_decay": 0.01})
            assert late.param_groups[1]["lr"] == 1.0
        set_gradients(ours, given)
        late.step()
    # The same as parameters whose gradients come late.
    split = [{"params": theirs[:2]}, {"params": theirs[2:], "weight_decay": 0.01}]
    whole = OURS[name](split, **CALM)
    for step, given in enumerate(record):
        set_gradients(theirs, given if step >= 10 else given[:2] + [None] * 3)
        whole.step()
    assert same(bits(ours), bits(theirs))
    assert [group["k"] for group in late.param_groups] == [20, 20]


def test_groups_that_cannot_be_are_refused_and_not_kept():
    p, q = new_parameters()[:2]
    optimizer = OURS["adam"]([p])
    for group, error, words in [
        ({"params": [p]}, ValueError, "more than one parameter group"),
        ({"params": [q], "weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"params": [q], "layer_scale": 0.0}, ValueError, "layer_scale"),
        ({"params": [torch.zeros(2) * p.sum()]}, ValueError, "non-leaf"),
        ({"params": ["no tensor"]}, TypeError, "[Tt]ensor"),
    ]:
        with pytest.raises(error, match=words):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [q]})


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"lr": 0.0}, "Invalid learning rate: 0.0"),
        ({"lr": -1.0}, "Invalid learning rate"),
        ({"d0": 0.0}, "Invalid d0 value"),
        ({"eps": -1e-8}, "Invalid epsilon"),
        ({"eps": 1e-30}, "eps = 1e-30 is not within its bounds"),
        ({"betas": (0.9, 1.0)}, "Invalid beta parameter at index 1"),
        ({"growth_rate": float("nan")}, "growth_rate"),
        ({"slice_p": 0}, "slice_p"),
        ({"non_finite": "ignore"}, "'reject', 'skip', 'propagate'"),
        ({"fsdp_in_use": True}, "sharded"),
        ({"state_dtype": "int4"}, "state_dtype"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        OURS["adam"](new_parameters(), **arguments)


def test_unknown_arguments_and_empty_lists_are_refused():
    with pytest.raises(TypeError, match="'momentum'"):
        OURS["adam"](new_parameters(), momentum=0.9)
    with pytest.raises(TypeError, match="'slice_p'"):
        OURS["sgd"](new_parameters(), slice_p=2)
    with pytest.raises(ValueError, match="empty parameter list"):
        OURS["adam"]([])
    with pytest.raises(TypeError):
        OURS["adam"](new_parameters()[0])


SCHEDULES = {
    "step": lambda o: [lr_scheduler.StepLR(o, 5, gamma=0.5)],
    "chain": lambda o: [
        lr_scheduler.ExponentialLR(o, 0.95),
        lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=6),
    ],
    "sequence": lambda o: [
        lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.ConstantLR(o, factor=0.1, total_iters=3),
                lr_scheduler.CosineAnnealingLR(o, T_max=10),
            ],
            milestones=[4],
        )
    ],
    "one_cycle": lambda o: [
        lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=20, cycle_momentum=False)
    ],
    "lambda": lambda o: [lr_scheduler.LambdaLR(o, lambda step: 0.0 if step < 3 else 1.0)],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@each
def test_schedulers_are_followed(name, schedule):
    """A scheduler's lr is what a step takes, as the report says; lr 0 changes nothing."""
    ours = new_parameters()
    optimizer = OURS[name](ours, **CALM)
    schedulers = SCHEDULES[schedule](optimizer)
    for given in gradients(ours, 18):
        lr, d = optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["d"]
        before = bits(ours)
        set_gradients(ours, given)
        optimizer.step()
        report = optimizer.report
        if lr == 0.0:
            assert not report.applied and same(bits(ours), before)
        else:
            norm = optimizer.param_groups[0].get("g0_norm", 1.0)
            # One rounding or two in f64.
            assert report.dlr * norm == pytest.approx(d * lr, rel=1e-14)
        for scheduler in schedulers:
            scheduler.step()


def test_momentum_of_a_schedule_is_followed():
    """OneCycleLR moves betas: as with the package, to the bound of test_reference."""
    ours, theirs = new_parameters(torch.float64), new_parameters(torch.float64)
    runs = []
    for kind, parameters in zip(PAIRS["adam"], (ours, theirs)):
        optimizer = kind(parameters, d0=1e-3)
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20)
        for given in gradients(parameters, 18, torch.float64, fading=True):
            set_gradients(parameters, given)
            optimizer.step()
            scheduler.step()
        runs.append(optimizer.param_groups[0])
    assert runs[0]["betas"] == runs[1]["betas"] != (0.9, 0.999)
    assert runs[0]["d"] == pytest.approx(runs[1]["d"], rel=1e-10)
    for p, q in zip(ours, theirs):
        assert float((p - q).detach().abs().max()) < 1e-10


def test_lr_of_a_tensor_is_read_in_every_step():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, **CALM)
    rate = torch.tensor(1.0)
    optimizer.param_groups[0]["lr"] = rate
    for given in gradients(ours, 4):
        set_gradients(ours, given)
        optimizer.step()
        assert optimizer.report.dlr == pytest.approx(1e-2 * rate.item(), rel=1e-7)
        rate.mul_(0.5)


def test_unequal_rates_point_to_layer_scale_and_change_nothing():
    ours = new_parameters()
    optimizer = OURS["adam"]([{"params": ours[:2], "lr": 0.5}, {"params": ours[2:]}], **CALM)
    set_gradients(ours, gradients(ours, 1)[0])
    before = bits(ours)
    with pytest.raises(RuntimeError, match="layer_scale"):
        optimizer.step()
    assert same(bits(ours), before) and not optimizer.state
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert same(bits(ours[:2]), before[:2]) and not same(bits(ours[2:]), before[2:])
    assert set(optimizer.state) == set(ours[2:])


@each
def test_state_dict_across_groups_of_the_same_sizes(name):
    """As PyTorch's `_test_state_dict`: loaded in between, both go on alike."""
    ours = new_parameters()
    record = gradients(ours, 20)
    optimizer = OURS[name]([{"params": ours[:3]}, {"params": ours[3:]}], **CALM)
    run(optimizer, ours, record[:10])
    theirs = copied(ours)
    other = OURS[name]([{"params": theirs[:3]}, {"params": theirs[3:]}], lr=0.5)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.param_groups[0]["lr"] == 1.0
    run(optimizer, ours, record, 10)
    run(other, theirs, record, 10)
    assert same(bits(ours), bits(theirs))
    assert repr(optimizer) == repr(other)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        OURS[name](theirs).load_state_dict(optimizer.state_dict())


def test_zero_grad_and_missing_gradients():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, **CALM)
    optimizer.step()
    assert not optimizer.report.applied and not optimizer.state
    assert optimizer.report.movement
    set_gradients(ours, gradients(ours, 1)[0])
    ours[1].grad = None
    before = bits(ours)
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(ours, before)]
    assert moved == [True, False, True, True, True]
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in ours)
    set_gradients(ours, gradients(ours, 1)[0])
    optimizer.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in ours)


@pytest.mark.skipif(
    not hasattr(torch.optim.Optimizer, "register_step_post_hook"),
    reason="hooks of steps: PyTorch 2.0 or later",
)
@each
def test_step_hooks_are_called_in_order(name):
    ours = new_parameters()
    optimizer = OURS[name](ours, **CALM)
    calls = []
    first = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append(o.report.k))
    run(optimizer, ours, gradients(ours, 2))
    first.remove()
    run(optimizer, ours, gradients(ours, 1))
    assert calls == ["pre", 1, "pre", 2, 3]


def test_profiler_and_subclasses_see_the_step():
    class Mine(OURS["adam"]):
        pass

    model, x, y = classification()
    optimizer = Mine(model.parameters(), **CALM)
    losses = train(model, optimizer, x, y, 5)
    assert losses[-1] < losses[0]
    with torch.profiler.profile() as profile:
        optimizer.step()
    names = [event.key for event in profile.key_averages()]
    assert any("step#Mine.step" in name for name in names), names


@each
def test_named_parameters_are_named_in_errors(name):
    model, x, y = classification()
    model[2].weight.data[0, 0] = float("nan")
    torch.nn.functional.cross_entropy(model(x), y).backward()
    try:
        optimizer = OURS[name](model.named_parameters(), **CALM)
        words = "0.weight|2.weight"
    except TypeError:  # PyTorch before 2.6
        optimizer = OURS[name](model.parameters(), **CALM)
        words = "parameter 0 of group 0"
    before = bits(model.parameters())
    with pytest.raises(RuntimeError, match=words):
        optimizer.step()
    after = bits(model.parameters())
    assert same([p.nan_to_num() for p in after], [p.nan_to_num() for p in before])
    assert not optimizer.state and optimizer.param_groups[0]["k"] == 0


@each
def test_model_is_trained(name):
    """Through autograd, with d found from 1e-6 on: the loss falls to a fraction."""
    model, x, y = classification()
    options = {"growth_rate": 1.02, "d0": 1e-3}
    if name in ("sgd", "adagrad"):  # slower to find d
        options = {"d0": 1e-1}
    optimizer = OURS[name](model.parameters(), **options)
    steps = 150
    schedule = lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = train(model, optimizer, x, y, steps, schedule)
    assert min(losses) < 0.5 * losses[0], losses[-1]
