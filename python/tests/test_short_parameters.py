"""Parameters of bf16 and f16: with a master copy, and without."""

import copy
import io

import pytest
import torch

import dadapt

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

FADING = ("adam", "adan", "prodigy", "adam_preprint", "adan_ip")
OPTIONS = {"d0": 1e-3}
SHORT = [torch.bfloat16, torch.float16]
each = pytest.mark.parametrize("name", NAMES)
each_type = pytest.mark.parametrize("dtype", SHORT, ids=str)


def record_of(name, parameters, dtype, steps=20):
    """One tensor has its first gradient late."""
    record = gradients(parameters, steps, dtype, name in FADING)
    for given in record[: steps // 2 + 2]:
        given[2] = None
    return record


def through_a_file(state_dict):
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer)


@each
@each_type
def test_without_a_master_copy_rounding_is_stochastic(name, dtype):
    ends = []
    for seed in (0, 0, 1):
        ours = new_parameters(dtype)
        optimizer = OURS[name](ours, master=False, seed=seed, **OPTIONS)
        run(optimizer, ours, gradients(ours, 10, dtype, name in FADING))
        ends.append(bits(ours))
        held = optimizer.state[ours[0]]
        assert "master" not in held
        for key, value in held.items():
            if key != "step":
                assert value.dtype == (dtype if key in ("x0", "p0") else torch.float32)
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


@each
@pytest.mark.parametrize("options", [{"master": False, "seed": 7}, {"master": True}], ids=str)
@each_type
def test_resumed_run_is_the_same_to_the_bit(name, options, dtype):
    ours = new_parameters(dtype)
    record = record_of(name, ours, dtype)
    optimizer = OURS[name](ours, **options, **OPTIONS)
    run(optimizer, ours, record[:10])
    saved, again = through_a_file(optimizer.state_dict()), copied(ours)
    resumed = OURS[name](again, master=options["master"])
    resumed.load_state_dict(saved)
    assert run(resumed, again, record, 10) == run(optimizer, ours, record, 10)
    assert same(bits(again), bits(ours))


def test_small_updates_add_up():
    for master in (True, False):
        p = torch.nn.Parameter(torch.ones(20000, dtype=torch.bfloat16))
        # Without growth, 300 steps of 1e-5, each far below the half of 2^-8.
        optimizer = OURS["lion"]([p], d0=1e-5, d_cap=1e-5, master=master)
        for _ in range(300):
            p.grad = torch.ones_like(p)
            optimizer.step()
        assert optimizer.param_groups[0]["d"] == 1e-5
        mean = p.detach().double().mean().item()
        assert abs(mean - (1 - 300e-5)) < (4e-4 if not master else 2e-3)
        assert mean < 1


def test_what_is_written_into_the_parameter_counts():
    ours = new_parameters(torch.bfloat16)
    optimizer = OURS["adam"](ours, **OPTIONS)
    record = gradients(ours, 4, torch.bfloat16, True)
    run(optimizer, ours, record[:2])
    before = optimizer.state[ours[4]]["master"].clone()
    with torch.no_grad():
        ours[4][:3] = 5.0
    run(optimizer, ours, record, 2)
    master = optimizer.state[ours[4]]["master"]
    assert torch.equal(ours[4], master.bfloat16())
    assert ((master[:3] - 5).abs() < 0.5).all() and ((master - before)[3:].abs() < 0.5).all()


@each
def test_types_side_by_side_do_not_mix(name):
    """Long and short ones in one optimizer; rounded to nearest, the long ones are not changed by it."""
    ours = new_parameters(torch.float32)[:2] + new_parameters(torch.bfloat16)[2:4]
    ours += new_parameters(torch.float16)[4:]
    twins = [torch.nn.Parameter(p.detach().clone().float()) for p in ours]
    a, b = OURS[name](ours, **OPTIONS), OURS[name](twins, **OPTIONS)
    for given in gradients(ours, 8, torch.bfloat16, name in FADING):
        given = [g.to(p.dtype) for g, p in zip(given, ours)]
        set_gradients(ours, given)
        set_gradients(twins, [g.float() for g in given])
        a.step()
        b.step()
        assert a.param_groups[0]["d"] == b.param_groups[0]["d"]
        assert same(bits(ours), [q.to(p.dtype) for p, q in zip(ours, bits(twins))])
    assert [("master" in a.state[p]) for p in ours] == [False, False, True, True, True]
    again = copied(ours)
    resumed = OURS[name](again)
    resumed.load_state_dict(through_a_file(a.state_dict()))
    record = [[g.to(p.dtype) for g, p in zip(one, ours)] for one in gradients(ours, 3)]
    assert run(a, ours, record) == run(resumed, again, record)
    assert same(bits(ours), bits(again))


@pytest.mark.parametrize("master", [True, False])
@each
def test_layouts(name, master):
    def start(kind):
        torch.manual_seed(0)
        value = torch.randn(6, 40).bfloat16()
        if kind == "gaps":
            value = torch.stack([value, value], 2)[:, :, 0]
        elif kind == "permuted":
            value = value.t().contiguous().t()
        return torch.nn.Parameter(value)

    ends = {}
    for kind in ("plain", "gaps", "permuted"):
        p = start(kind)
        optimizer = OURS[name]([p], master=master, d_cap=1e-3, **OPTIONS)
        run(optimizer, [p], gradients([p], 8, torch.bfloat16))
        ends[kind] = p.detach().clone()
        held = optimizer.state[p].get("master")
        assert (held is not None) == master
        if master:
            assert torch.equal(held.bfloat16(), p)
    assert torch.equal(ends["plain"], ends["gaps"])
    if master:
        assert torch.equal(ends["plain"], ends["permuted"])


@each
def test_checkpoints_of_the_package_and_of_either_kind_go_on(name):
    ours, theirs = PAIRS[name]
    parameters = new_parameters(torch.bfloat16)
    record = gradients(parameters, 8, torch.bfloat16, name in FADING)
    packages = theirs(parameters, d0=1e-2)
    run(packages, parameters, record[:4])
    first = ours(parameters, d0=1e-2)
    first.load_state_dict(packages.state_dict())
    run(first, parameters, record[:6], 4)
    assert all("master" in held for held in first.state.values())
    second = ours(parameters, master=False)
    second.load_state_dict(first.state_dict())
    run(second, parameters, record[:7], 6)
    assert not any("master" in held for held in second.state.values())
    third = ours(parameters)
    third.load_state_dict(second.state_dict())
    run(third, parameters, record, 7)
    assert all("master" in held for held in third.state.values())
    assert all(torch.isfinite(p).all() for p in parameters)


@pytest.mark.parametrize("state_dtype", [None, "compact", "bf16", "q8"])
@pytest.mark.parametrize("master", [True, False])
@pytest.mark.parametrize("name", ["adam", "prodigy"])
def test_training_comes_close_to_f32(name, master, state_dtype):
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        model, x, y = classification()
        model, x = model.to(dtype), x.to(dtype)
        options = {"d0": 1e-4, "growth_rate": 1.2, "d_cap": 1e-2}
        options.update({"master": master, "state_dtype": state_dtype})
        losses = train(model, OURS[name](model.parameters(), **options), x, y, 150)
        assert losses[-1] < 0.7 * losses[0]
        ends.append(losses[-1])
    assert abs(ends[0] - ends[1]) < 0.15


def test_the_model_may_change_its_type():
    model, x, y = classification()
    optimizer = OURS["adam"](model.parameters(), **OPTIONS)
    train(model, optimizer, x, y, 3)
    model.bfloat16()
    train(model, optimizer, x.bfloat16(), y, 3)
    p = next(model.parameters())
    assert torch.equal(optimizer.state[p]["master"].bfloat16(), p)
    model.half()
    for q in model.parameters():
        q.grad = torch.ones_like(q)
    optimizer.step()
    assert torch.equal(optimizer.state[p]["master"].half(), p)
    model.float()
    train(model, optimizer, x, y, 3)
    assert "master" not in optimizer.state[p]
    assert optimizer.state[p]["step"] == 10


def test_overflows_are_counted():
    p = torch.nn.Parameter(torch.full((4,), 65504.0, dtype=torch.float16))
    optimizer = OURS["lion"]([p], d0=1000.0)
    p.grad = -torch.ones_like(p)
    optimizer.step()
    assert optimizer.report.overflows == 4
    assert torch.isinf(p).all() and torch.isfinite(optimizer.state[p]["master"]).all()


def test_copies_go_on():
    model = torch.nn.ParameterList(new_parameters(torch.bfloat16))
    optimizer = OURS["prodigy"](model.parameters(), master=False, state_dtype="q8", **OPTIONS)
    ours = list(model)
    record = gradients(ours, 8, torch.bfloat16, True)
    run(optimizer, ours, record[:4])
    _, twin = copy.deepcopy((model, optimizer))
    theirs = twin.param_groups[0]["params"]
    assert run(twin, theirs, record, 4) == run(optimizer, ours, record, 4)
    assert same(bits(ours), bits(theirs))


def test_a_restart_leaves_master_copies():
    p = torch.nn.Parameter(torch.ones(50, dtype=torch.bfloat16))
    optimizer = dadapt.DAdaptAdan([p], d0=1e-12, growth_rate=1.0)
    p.grad = torch.ones_like(p)
    optimizer.step()
    # Between two numbers of bf16; steps are less than an ulp of it.
    between = 1.0 + 2.0**-10
    optimizer.state[p]["master"].fill_(between)
    optimizer.restart_opt()
    optimizer.step()
    assert (optimizer.state[p]["master"] == between).all()


def test_master_is_a_switch():
    with pytest.raises(dadapt.OptionError, match="master"):
        OURS["adam"](new_parameters(), master=2)
