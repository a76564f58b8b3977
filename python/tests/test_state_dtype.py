"""State in fewer bits: trained close to full, resumed to the bit, and what cannot be is an error."""

import copy
import io

import numpy as np
import pytest
import torch

import dadapt
import dadapt.numpy

from common import (
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
    two_groups,
)

LOW = ["compact", torch.bfloat16, "q8"]
ROUNDED = ["adam", "lion", "adan", "prodigy", "adam_preprint", "adan_ip"]
FADING = ("adam", "adan", "prodigy", "adam_preprint", "adan_ip")
EXACT = ("p0", "pre_grad")
OPTIONS = {"d0": 1e-3, "weight_decay": 0.01}


def expected_dtype(key, state_dtype):
    if key in EXACT:
        return torch.float32
    if state_dtype == "q8" or (state_dtype == "compact" and key == "s"):
        return torch.uint8
    return torch.bfloat16


def record_of(name, parameters, steps=40, dtype=torch.float32):
    """With a tensor whose first gradient comes late, and one that never has any."""
    record = gradients(parameters, steps, dtype, name in FADING)
    for step, given in enumerate(record):
        given[4] = None
        if step < steps // 2 + 5:
            given[2] = None
    return record


def through_a_file(state_dict):
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer)


@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ROUNDED)
def test_state_is_of_the_type_and_is_the_librarys_memory(name, state_dtype):
    ours = new_parameters(shapes=[(3, 11), (2500,), (1024,), (0,)])
    optimizer = OURS[name](ours, state_dtype=state_dtype, **OPTIONS)
    record = gradients(ours, 3, fading=True)
    run(optimizer, ours, record[:2])
    pointers = {}
    for p in ours:
        for key, value in optimizer.state[p].items():
            if key == "step":
                assert value == 2
                continue
            assert value.dtype == expected_dtype(key, state_dtype)
            if value.dtype == torch.uint8:
                assert value.shape == (p.numel() + -(-p.numel() // 256),)
            else:
                assert value.numel() == p.numel()
            pointers[id(p), key] = value.data_ptr(), value.clone()
    run(optimizer, ours, record[2:])
    for p in ours[:2]:
        for key in optimizer.spec.slots:
            pointer, before = pointers[id(p), key]
            assert optimizer.state[p][key].data_ptr() == pointer
            if key != "p0":
                assert not torch.equal(optimizer.state[p][key], before)


@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ROUNDED)
def test_training_comes_close_to_full(name, state_dtype):
    ends = []
    for kept in (None, state_dtype):
        model, x, y = classification()
        options = {"d0": 1e-4, "growth_rate": 1.2, "d_cap": 1e-2, "state_dtype": kept}
        losses = train(model, OURS[name](model.parameters(), **options), x, y, 150)
        ends.append(losses[-1])
        assert losses[-1] < 0.7 * losses[0]
    full, low = ends
    assert low != full, "MISTRUSTED: nothing was rounded"
    assert abs(low - full) < 0.1


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_full_is_the_default(name):
    ends = []
    for options in ({}, {"state_dtype": None}, {"state_dtype": "full", "seed": 5}):
        ours = new_parameters()
        run(OURS[name](ours, **OPTIONS, **options), ours, gradients(ours, 10, fading=True))
        ends.append(bits(ours))
    assert same(ends[0], ends[1]) and same(ends[0], ends[2])


def test_the_seed_decides_the_bits():
    ends = []
    for seed in (0, 0, 1):
        ours = new_parameters()
        optimizer = OURS["adam"](ours, state_dtype="q8", seed=seed, **OPTIONS)
        run(optimizer, ours, gradients(ours, 10, fading=True))
        ends.append(bits(ours))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])
    with pytest.raises(dadapt.OptionError, match="seed"):
        OURS["adam"](new_parameters(), seed=-1)


def test_bf16_has_a_torch_type_and_a_name():
    ends = []
    for kept in (torch.bfloat16, "bf16"):
        ours = new_parameters()
        optimizer = OURS["adam"](ours, state_dtype=kept, **OPTIONS)
        run(optimizer, ours, gradients(ours, 10, fading=True))
        ends.append(bits(ours))
    assert same(*ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ROUNDED)
def test_resumed_run_is_the_same_to_the_bit(name, state_dtype, dtype):
    ours = new_parameters(dtype)
    record = record_of(name, ours, dtype=dtype)
    optimizer = OURS[name](two_groups(ours), state_dtype=state_dtype, seed=3, **OPTIONS)
    run(optimizer, ours, record[:20])
    saved, again = through_a_file(optimizer.state_dict()), copied(ours)
    resumed = OURS[name](two_groups(again), state_dtype=state_dtype, d0=0.5)
    resumed.load_state_dict(saved)
    expected = run(optimizer, ours, record, 20)
    assert run(resumed, again, record, 20) == expected
    assert expected[-1] != optimizer.d0, "MISTRUSTED: d has not moved"
    assert same(bits(again), bits(ours))
    left, right = optimizer.state_dict(), resumed.state_dict()
    assert left["param_groups"] == right["param_groups"]
    for number, held in left["state"].items():
        for key, value in held.items():
            other = right["state"][number][key]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other


@pytest.mark.parametrize("options", [{"slice_p": 3}, {}], ids=str)
@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ["lion", "prodigy"])
def test_copies_and_layouts_go_on_to_the_bit(name, state_dtype, options):
    def start():
        made = new_parameters(shapes=[(5, 2, 13), (8, 300)])
        made[1].data = made[1].detach().t().contiguous().t()
        return torch.nn.ParameterList(made)

    model = start()
    ours = list(model)
    optimizer = OURS[name](model.parameters(), state_dtype=state_dtype, **options, **OPTIONS)
    record = gradients(ours, 20, fading=True)
    run(optimizer, ours, record[:10])
    _, twin = copy.deepcopy((model, optimizer))
    theirs = twin.param_groups[0]["params"]
    for given in record[10:]:
        for parameters, one in ((ours, optimizer), (theirs, twin)):
            set_gradients(parameters, given)
            one.step()
    assert same(bits(ours), bits(theirs))


def test_large_state_lies_in_huge_pages():
    p = torch.nn.Parameter(torch.randn(1 << 21, generator=torch.Generator().manual_seed(1)))
    for kept in LOW:
        optimizer = OURS["prodigy"]([p], state_dtype=kept, **OPTIONS)
        for _ in range(2):
            p.grad = p.detach().clone()
            optimizer.step()
        assert optimizer.state[p]["s"].dtype == expected_dtype("s", kept)
        assert torch.isfinite(p).all()


def test_adan_restarts():
    ours = new_parameters()
    optimizer = OURS["adan"](ours, state_dtype="q8", **OPTIONS)
    record = gradients(ours, 6, fading=True)
    run(optimizer, ours, record[:3])
    optimizer.restart_opt()
    run(optimizer, ours, record, 3)
    assert all(torch.isfinite(p).all() for p in ours)
    assert optimizer.state[ours[0]]["step"] == 3


def test_freezing_keeps_the_moments():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, state_dtype="compact", **OPTIONS)
    record = gradients(ours, 6, fading=True)
    d = run(optimizer, ours, record[:3])[-1]
    optimizer.freeze()
    assert run(optimizer, ours, record, 3) == [d] * 3
    assert set(optimizer.state[ours[0]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_groups_may_differ():
    ours = new_parameters()
    optimizer = OURS["lion"](two_groups(ours, state_dtype="q8"), **OPTIONS)
    record = gradients(ours, 10)
    run(optimizer, ours, record[:5])
    assert optimizer.state[ours[0]]["s"].dtype == torch.float32
    assert optimizer.state[ours[4]]["s"].dtype == torch.uint8
    again = copied(ours)
    resumed = OURS["lion"](two_groups(again, state_dtype="q8"), **OPTIONS)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert run(resumed, again, record, 5) == run(optimizer, ours, record, 5)
    assert same(bits(again), bits(ours))


@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_what_has_nothing_to_round_says_so(name, state_dtype):
    ours = new_parameters()
    with pytest.raises(dadapt.Error, match="state"):
        optimizer = OURS[name](ours, state_dtype=state_dtype)
        run(optimizer, ours, gradients(ours, 1))


def test_f64_parameters_have_full_state_only():
    ours = new_parameters(torch.float64)
    optimizer = OURS["adam"](ours, state_dtype="q8")
    before = bits(ours)
    with pytest.raises(dadapt.Error, match="f64"):
        run(optimizer, ours, gradients(ours, 1, torch.float64))
    assert same(bits(ours), before) and not optimizer.state


@pytest.mark.parametrize("wrong", ["int4", torch.float16, 3, "q8 "], ids=str)
def test_unknown_types_are_named(wrong):
    with pytest.raises(ValueError, match="state_dtype.*'compact'"):
        OURS["adam"](new_parameters(), state_dtype=wrong)
    with pytest.raises(ValueError, match="state_dtype.*'compact'"):
        OURS["adam"](two_groups(new_parameters(), state_dtype=wrong))


def test_the_type_is_fixed_while_there_is_state():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, **OPTIONS)
    record = gradients(ours, 2)
    run(optimizer, ours, record[:1])
    optimizer.param_groups[0]["state_dtype"] = "q8"
    with pytest.raises(dadapt.Error, match="state"):
        run(optimizer, ours, record, 1)
    optimizer.param_groups[0]["state_dtype"] = None
    run(optimizer, ours, record, 1)


@pytest.mark.parametrize("state_dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ["adam", "lion", "prodigy"])
def test_state_of_another_type_is_refused(name, state_dtype):
    ours, theirs = PAIRS[name]
    parameters = new_parameters()
    record = gradients(parameters, 2, fading=True)

    packages = theirs(parameters, d0=1e-3)
    run(packages, parameters, record)
    low = ours(parameters, state_dtype=state_dtype, **OPTIONS)
    with pytest.raises(dadapt.Error, match="is of torch.float32.*state_dtype"):
        low.load_state_dict(packages.state_dict())
    assert not low.state

    full = ours(new_parameters(), **OPTIONS)
    run(low, parameters, record)
    with pytest.raises(dadapt.Error, match=r"has state_dtype=.* in group 0, and this optimizer None"):
        full.load_state_dict(through_a_file(low.state_dict()))
    assert not full.state
    run(full, full.param_groups[0]["params"], record)
    before = dict(low.state[parameters[0]])
    with pytest.raises(dadapt.Error, match="has state_dtype=None in group 0"):
        low.load_state_dict(full.state_dict())
    after = low.state[parameters[0]]
    assert len(after) == len(before) and all(after[key] is value for key, value in before.items())

    # A state dict that does not say what it is kept in.
    for group in (saved := low.state_dict())["param_groups"]:
        del group["state_dtype"]
    with pytest.raises(dadapt.Error, match="state_dtype"):
        if state_dtype == torch.bfloat16:  # as the package has it of bf16 parameters
            ours(new_parameters(), state_dtype="q8").load_state_dict(saved)
        else:
            ours(new_parameters()).load_state_dict(saved)


@pytest.mark.parametrize("state", ["compact", "bf16", "q8"])
@pytest.mark.parametrize("kind", ["DAdaptAdam", "DAdaptLion", "Prodigy"])
def test_numpy_goes_on_to_the_bit(kind, state):
    generator = np.random.default_rng(3)
    w = generator.standard_normal(1500).astype(np.float32)
    grads = [w + generator.standard_normal(1500).astype(np.float32) for _ in range(10)]
    first = getattr(dadapt.numpy, kind)({"w": w}, state=state, d0=1e-3)
    for g in grads[:5]:
        first.step({"w": g})
    saved, v = first.state_dict(), w.copy()
    held = saved["state"][0]["s"]
    assert held.dtype == (np.uint16 if state == "bf16" else np.uint8)
    # A scale for every 256 elements.
    assert held.size == (1500 if state == "bf16" else 1500 + -(-1500 // 256))
    again = getattr(dadapt.numpy, kind)({"w": v}, state=state, d0=1e-3)
    again.load_state_dict(saved)
    for g in grads[5:]:
        assert first.step({"w": g}).d == again.step({"w": g}).d
    assert np.array_equal(w, v)
    full = getattr(dadapt.numpy, kind)({"w": v}, d0=1e-3)
    with pytest.raises(dadapt.Error, match="does not fit"):
        full.load_state_dict(saved)
    with pytest.raises(ValueError, match="'compact'"):
        getattr(dadapt.numpy, kind)({"w": v}, state="int4")
