"""Checkpoints: ours to the bit, the package's in both directions, and copies of every kind."""

import copy
import io
import pickle

import pytest
import torch

import dadapt

from common import (
    NAMES,
    OURS,
    PAIRS,
    bits,
    copied,
    gradients,
    new_parameters,
    run,
    same,
    set_gradients,
    two_groups,
)

FADING = ("adam", "adan", "prodigy", "adam_preprint", "adan_ip")
OPTIONS = {"d0": 1e-3, "weight_decay": 0.01}


def record_of(name, parameters, steps=40, dtype=torch.float32):
    """With a tensor whose first gradient comes late, and one that never has any."""
    record = gradients(parameters, steps, dtype, name in FADING)
    for step, given in enumerate(record):
        given[4] = None
        if step < steps // 2 + 5:
            given[2] = None
    return record


def through_a_file(state_dict):
    """Saved and loaded."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_resumed_run_is_the_same_to_the_bit(name, dtype):
    ours = new_parameters(dtype)
    record = record_of(name, ours, dtype=dtype)
    optimizer = OURS[name](two_groups(ours), **OPTIONS)
    run(optimizer, ours, record[:20])
    saved, again = through_a_file(optimizer.state_dict()), copied(ours)
    for value in saved["state"].values():
        assert all(
            v.dtype in (torch.float32, torch.float64) for v in value.values() if torch.is_tensor(v)
        )
    resumed = OURS[name](two_groups(again), d0=0.5)
    resumed.load_state_dict(saved)
    expected = run(optimizer, ours, record, 20)
    assert run(resumed, again, record, 20) == expected
    assert expected[-1] != optimizer.d0, "MISTRUSTED: d has not moved"
    assert same(bits(again), bits(ours))
    assert resumed.report.k == optimizer.report.k == 40
    left, right = optimizer.state_dict(), resumed.state_dict()
    assert left["param_groups"] == right["param_groups"]
    for number, held in left["state"].items():
        for key, value in held.items():
            other = right["state"][number][key]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other


@pytest.mark.parametrize("name", NAMES)
def test_loaded_state_is_a_copy(name):
    ours = new_parameters()
    optimizer = OURS[name](ours, **OPTIONS)
    run(optimizer, ours, gradients(ours, 3))
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved)
    again = copied(ours)
    resumed = OURS[name](again, **OPTIONS)
    resumed.load_state_dict(saved)
    run(resumed, again, gradients(ours, 3))
    for number, held in before["state"].items():
        for key, value in held.items():
            if torch.is_tensor(value):
                assert torch.equal(saved["state"][number][key], value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("way", ["package_to_ours", "ours_to_package"])
@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_crosses_over(name, way, dtype):
    """The run that changes hands agrees with one that does not as test_reference has it."""
    first, second = PAIRS[name] if way == "ours_to_package" else reversed(PAIRS[name])
    theirs, crossing = new_parameters(dtype), new_parameters(dtype)
    record = gradients(theirs, 40, dtype, name in FADING)
    whole = PAIRS[name][1](two_groups(theirs), **OPTIONS)
    expected = run(whole, theirs, record)
    before = first(two_groups(crossing), **OPTIONS)
    found = run(before, crossing, record[:20])
    after = second(two_groups(crossing), **OPTIONS)
    after.load_state_dict(through_a_file(before.state_dict()))
    found += run(after, crossing, record, 20)
    # As in test_reference, d0 not being 1e-6.
    bound = 1e-4 if dtype == torch.float32 else 1e-10
    assert found == pytest.approx(expected, rel=bound)
    assert expected[-1] > expected[20] or name == "adagrad" or expected[20] > 2e-3
    for p, q in zip(crossing, theirs):
        largest = float(q.detach().abs().max())
        assert float((p - q).detach().abs().max()) <= 4 * bound * largest
    assert after.param_groups[0]["k"] == 40


@pytest.mark.parametrize("way", ["package_to_ours", "ours_to_package"])
def test_table_checkpoint_crosses_over(way):
    first, second = PAIRS["adagrad"]
    if way == "package_to_ours":
        first, second = second, first
    generator = torch.Generator().manual_seed(3)
    # Rows of the second half come after the change of hands only.
    draws = [torch.randint(0, 20, (9,), generator=generator) for _ in range(15)]
    draws += [torch.randint(0, 40, (9,), generator=generator) for _ in range(15)]

    def steps(table, optimizer, draws):
        for rows in draws:
            optimizer.zero_grad()
            (table(rows) - 1.0).square().sum().backward()
            optimizer.step()

    tables = [torch.nn.Embedding(40, 7, sparse=True).double() for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    whole = PAIRS["adagrad"][1](tables[0].parameters(), d0=1e-2)
    steps(tables[0], whole, draws)
    before = first(tables[1].parameters(), d0=1e-2)
    steps(tables[1], before, draws[:15])
    after = second(tables[1].parameters(), d0=1e-2)
    after.load_state_dict(through_a_file(before.state_dict()))
    steps(tables[1], after, draws[15:])
    # f64: the bound of test_reference.
    assert after.param_groups[0]["d"] == pytest.approx(whole.param_groups[0]["d"], rel=1e-10)
    assert float((tables[1].weight - tables[0].weight).detach().abs().max()) < 1e-10


def test_sgd_state_dict_has_z_and_the_state_does_not():
    ours = new_parameters()
    optimizer = OURS["sgd"](ours)
    run(optimizer, ours, gradients(ours, 5))
    exported = optimizer.state_dict()["state"][0]
    assert torch.equal(exported["z"], exported["x0"] - exported["s"])
    assert set(optimizer.state[ours[0]]) == {"s", "x0"}
    optimizer.load_state_dict(optimizer.state_dict())
    assert set(optimizer.state[ours[0]]) == {"s", "x0"}


def test_state_tensors_are_the_librarys_memory():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, d0=1e-3)
    run(optimizer, ours, gradients(ours, 3))
    held = optimizer.state[ours[0]]["exp_avg"]
    before, pointer = held.clone(), held.data_ptr()
    run(optimizer, ours, gradients(ours, 1))
    assert optimizer.state[ours[0]]["exp_avg"].data_ptr() == pointer
    assert not torch.equal(held, before)
    # What a caller writes counts.
    other = copied(ours)
    twin = copy.deepcopy(optimizer)
    twin.param_groups[0]["params"]
    held.zero_()
    run(optimizer, ours, gradients(ours, 1))
    twin_p = twin.param_groups[0]["params"]
    run(twin, twin_p, gradients(ours, 1))
    assert not torch.equal(ours[0], twin_p[0])
    assert torch.equal(ours[1], twin_p[1]) and not torch.equal(ours[0], other[0])


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", NAMES)
def test_copies_go_on_by_themselves(name, how):
    ours = new_parameters()
    record = record_of(name, ours)
    optimizer = OURS[name](two_groups(ours), **OPTIONS)
    run(optimizer, ours, record[:20])
    copy_of = copy.deepcopy if how == "deepcopy" else lambda x: pickle.loads(pickle.dumps(x))
    twin = copy_of(optimizer)
    theirs = [p for group in twin.param_groups for p in group["params"]]
    frozen = bits(ours)
    found = run(twin, theirs, record, 20)
    assert same(bits(ours), frozen), "the original has been stepped too"
    assert run(optimizer, ours, record, 20) == found
    assert same(bits(ours), bits(theirs))
    assert twin.d0 == optimizer.d0


def test_wrong_states_are_refused_and_change_nothing():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, d0=1e-3)
    run(optimizer, ours, gradients(ours, 5))
    good = optimizer.state_dict()

    def spoilt(change):
        bad = copy.deepcopy(good)
        change(bad)
        return bad

    cases = {
        "has 3 elements, not 1": lambda s: s["state"][0].update(s=torch.zeros(3)),
        "lacks 'exp_avg'": lambda s: s["state"][0].pop("exp_avg"),
        "not a tensor": lambda s: s["state"][0].update(s=[0.0]),
        "d0 = -1.0": lambda s: s["param_groups"][0].update(d=-1.0),
        "running total": lambda s: s["param_groups"][0].update(numerator_weighted=float("nan")),
        "beta1": lambda s: s["param_groups"][0].update(betas=(1.5, 0.9)),
        "fsdp_in_use": lambda s: s["param_groups"][0].update(fsdp_in_use=True),
        "doesn't match the size": lambda s: s["param_groups"][0]["params"].pop(),
    }
    twin = copy.deepcopy(optimizer)
    for words, change in cases.items():
        with pytest.raises((dadapt.Error, ValueError), match=words):
            optimizer.load_state_dict(spoilt(change))
        assert optimizer.param_groups[0]["d"] == good["param_groups"][0]["d"]
    theirs = twin.param_groups[0]["params"]
    assert run(optimizer, ours, gradients(ours, 5)) == run(twin, theirs, gradients(ours, 5))


def test_estimate_written_into_the_groups_counts():
    for name in NAMES:
        ours, theirs = new_parameters(torch.float64), new_parameters(torch.float64)
        a, b = (kind(p, d0=1e-3) for kind, p in zip(PAIRS[name], (ours, theirs)))
        record = gradients(ours, 12, torch.float64, name in FADING)
        run(a, ours, record[:6])
        run(b, theirs, record[:6])
        for optimizer in (a, b):
            for group in optimizer.param_groups:
                group["d"] = 0.01
                if "d_max" in group:
                    group["d_max"] = 0.01
        # As in test_reference.
        assert run(a, ours, record, 6) == pytest.approx(run(b, theirs, record, 6), rel=1e-10), name


def test_cleared_state_starts_anew_and_keeps_d():
    ours, theirs = new_parameters(torch.float64), new_parameters(torch.float64)
    a, b = (kind(p, d0=1e-3) for kind, p in zip(PAIRS["adam"], (ours, theirs)))
    record = gradients(ours, 20, torch.float64, True)
    run(a, ours, record[:6])
    run(b, theirs, record[:6])
    for optimizer in (a, b):
        optimizer.state.clear()
    # As in test_reference.
    assert run(a, ours, record[6:12]) == pytest.approx(run(b, theirs, record[6:12]), rel=1e-10)
    for optimizer in (a, b):
        optimizer.state = type(optimizer.state)(dict)
    assert run(a, ours, record[12:]) == pytest.approx(run(b, theirs, record[12:]), rel=1e-10)
    assert a.state[ours[0]]["step"] == 8


@pytest.mark.skipif(
    not hasattr(torch.optim.Optimizer, "register_load_state_dict_pre_hook"),
    reason="hooks of state dicts: PyTorch 2.1 or later",
)
def test_hooks_of_state_dicts_are_called_and_heard():
    ours = new_parameters()
    optimizer = OURS["adam"](ours, d0=1e-3)
    run(optimizer, ours, gradients(ours, 3))
    saved, called = optimizer.state_dict(), []

    def before(optimizer, state_dict):
        called.append("before")
        state_dict["param_groups"][0]["d"] = 0.25
        state_dict["state"] = {0: state_dict["state"][0]}
        return state_dict

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(lambda optimizer: called.append("after"))
    optimizer.load_state_dict(copy.deepcopy(saved))
    assert called == ["before", "after"]
    assert optimizer.param_groups[0]["d"] == 0.25 and len(optimizer.state) == 1
    set_gradients(ours, gradients(ours, 1)[0])
    optimizer.step()
    assert optimizer.param_groups[0]["d"] >= 0.25
    assert [optimizer.state[p]["step"] for p in ours] == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_large_state_in_pages_of_its_own_is_saved_and_copied(name):
    ours = new_parameters(shapes=[(600_001,)], zero=None)
    record = gradients(ours, 4)
    optimizer = OURS[name](ours, **OPTIONS)
    run(optimizer, ours, record[:2])
    twins = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    again = copied(ours)
    resumed = OURS[name](again)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    found = run(optimizer, ours, record, 2)
    for twin in [*twins, resumed]:
        theirs = twin.param_groups[0]["params"]
        assert run(twin, theirs, record, 2) == found
        assert same(bits(theirs), bits(ours))
