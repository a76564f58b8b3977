"""Side by side with the packages: the same gradients, every option, both types.

f64: d and parameters (relative to the largest of their tensor) within 1e-10, the bound of the golden
vectors; Prodigy, whose ``p0 - p`` cancels while d is near d0 = 1e-6, within 1e-8 here, since its
gradients are other ones. f32: the packages sum in f32, and d is a quotient of such sums; 1e-4 for
d, and for parameters what 4 roundings a step may come to, 4 * 2^-24 * steps * (1 + travel), with the
travel relative to the tensor's largest element, besides what the difference of d makes of the
travel. (No tolerance would do for a loop through a model: there errors grow. See test_training.)
"""

import pytest
import torch

from common import NAMES, PAIRS, copied, gradients, new_parameters, set_gradients, two_groups

STEPS = 80
INF = float("inf")

# Options of the constructors, by the packages' names; d0 of its own where 1e-6 tests next to nothing.
CASES = {
    "adam": [
        {},
        {"betas": (0.8, 0.99), "eps": 1e-6, "growth_rate": 1.3},
        {"weight_decay": 0.02},
        {"weight_decay": 0.02, "decouple": True, "use_bias_correction": True},
        {"lr": 0.5, "d0": 1e-4},
    ],
    "sgd": [
        {},
        {"momentum": 0.9, "growth_rate": 1.2},
        {"weight_decay": 0.01, "lr": 0.5},
        {"d0": 1e-3},
    ],
    "adagrad": [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.01, "eps": 1e-4},
        {"growth_rate": 1.02, "d0": 1e-3},
    ],
    "lion": [{}, {"betas": (0.8, 0.95), "lr": 0.5}, {"weight_decay": 0.05}, {"d0": 1e-3}],
    "adan": [
        {},
        {"weight_decay": 0.05, "no_prox": True},
        {"betas": (0.9, 0.8, 0.95), "eps": 1e-6, "growth_rate": 1.2},
        {"lr": 0.5, "d0": 1e-4, "weight_decay": 0.0},
    ],
    "prodigy": [
        {},
        {"d0": 1e-3, "weight_decay": 0.02},
        {"d0": 1e-3, "weight_decay": 0.02, "decouple": False, "use_bias_correction": True},
        {"d0": 1e-3, "betas": (0.8, 0.99), "beta3": 0.9, "eps": 1e-6, "d_coef": 2.0},
        {"d0": 1e-3, "growth_rate": 1.1, "safeguard_warmup": True},
        {"d0": 1e-3, "slice_p": 3},
        {"d0": 1e-3, "betas": (0.0, 0.999)},
    ],
    "adam_preprint": [
        {},
        {"weight_decay": 0.02, "decouple": True},
        {"weight_decay": 0.02, "growth_rate": 1.2},
    ],
    "adan_ip": [{}, {"no_prox": True, "weight_decay": 0.05}, {"growth_rate": 1.2}],
}
FADING = ("adam", "adan", "prodigy", "adam_preprint", "adan_ip")
ALL = [(name, options) for name in NAMES for options in CASES[name]]


def bound(name, options, dtype):
    """How far d may be off, relatively."""
    if dtype == torch.float64:
        return 1e-8 if name == "prodigy" and "d0" not in options else 1e-10
    return 5e-3 if name == "prodigy" and "d0" not in options else 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name, options", ALL, ids=lambda value: str(value).replace(" ", ""))
def test_trajectory_is_the_packages(name, options, dtype):
    ours_class, reference_class = PAIRS[name]
    ours, theirs = new_parameters(dtype), new_parameters(dtype)
    start = copied(ours)
    a = ours_class(two_groups(ours), **options)
    b = reference_class(two_groups(theirs), **options)
    d_bound, unit = bound(name, options, dtype), torch.finfo(dtype).eps / 2
    d0 = options.get("d0", 1e-6)
    for step, given in enumerate(gradients(ours, STEPS, dtype, name in FADING), 1):
        if step % 7 == 0:
            given[1] = None
        set_gradients(ours, given)
        set_gradients(theirs, given)
        a.step()
        b.step()
        d, expected = a.param_groups[0]["d"], float(b.param_groups[0]["d"])
        assert d == pytest.approx(expected, rel=d_bound), f"d after step {step}"
        assert [group["k"] for group in a.param_groups] == [group["k"] for group in b.param_groups]
        assert all(group["d"] == d for group in a.param_groups)
        for index, (p, q, p0) in enumerate(zip(ours, theirs, start)):
            largest = float(max(q.detach().abs().max(), p0.detach().abs().max())) or 1.0
            travel = float((q - p0).detach().abs().max()) / largest
            allowed = 4 * unit * step * (1 + travel) + d_bound * travel
            error = float((p - q).detach().abs().max()) / largest
            assert error <= allowed, f"tensor {index} after step {step}: {error} > {allowed}"
    grows_slowly = "growth_rate" in options or name == "adagrad"
    assert expected > d0 * (1.0 if grows_slowly else 5.0), "MISTRUSTED: d has not moved"


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_groups_and_state_are_the_packages(name):
    ours_class, reference_class = PAIRS[name]
    ours, theirs = new_parameters(), new_parameters()
    a, b = ours_class(ours), reference_class(theirs)
    assert set(b.param_groups[0]) <= set(a.param_groups[0])
    assert set(b.defaults) <= set(a.defaults)
    for key, value in b.defaults.items():
        assert a.defaults[key] == value, key
    record = gradients(ours, 2)
    for given in record:
        set_gradients(ours, given)
        set_gradients(theirs, given)
        a.step()
        b.step()
    assert set(b.param_groups[0]) <= set(a.param_groups[0])
    assert [group["k"] for group in a.param_groups] == [2]
    left, right = a.state_dict()["state"], b.state_dict()["state"]
    assert left.keys() == right.keys()
    for number in left:
        assert left[number].keys() == right[number].keys()
        for key, value in right[number].items():
            if not isinstance(value, torch.Tensor):
                assert left[number][key] == value, key
            elif value.dim():
                assert left[number][key].shape == value.shape, key


def test_adam_layer_scale_of_a_group_is_the_packages():
    ours_class, reference_class = PAIRS["adam"]
    ours, theirs = new_parameters(torch.float64), new_parameters(torch.float64)
    a = ours_class(two_groups(ours, layer_scale=0.3, weight_decay=0.01), decouple=True)
    b = reference_class(two_groups(theirs, layer_scale=0.3, weight_decay=0.01), decouple=True)
    for given in gradients(ours, STEPS, torch.float64, fading=True):
        set_gradients(ours, given)
        set_gradients(theirs, given)
        a.step()
        b.step()
    # f64 sums in another order: the bound of the golden vectors.
    assert a.param_groups[0]["d"] == pytest.approx(b.param_groups[0]["d"], rel=1e-10)
    for p, q in zip(ours, theirs):
        assert float((p - q).abs().max()) <= 1e-10 * float(q.abs().max())


def test_constructors_have_the_packages_arguments():
    import inspect

    for name, (ours, reference) in PAIRS.items():
        mine = inspect.signature(ours.__init__).parameters
        theirs = inspect.signature(reference.__init__).parameters
        order = [key for key in mine if key in theirs]
        assert order == list(theirs), name
        for key, parameter in theirs.items():
            assert mine[key].default == parameter.default, (name, key)


def test_restart_is_adans():
    for name in ("adan", "adan_ip"):
        ours_class, reference_class = PAIRS[name]
        ours, theirs = new_parameters(torch.float64), new_parameters(torch.float64)
        a, b = ours_class(ours, d0=1e-3), reference_class(theirs, d0=1e-3)
        for step, given in enumerate(gradients(ours, 40, torch.float64)):
            if step == 20:
                a.restart_opt()
                b.restart_opt()
            set_gradients(ours, given)
            set_gradients(theirs, given)
            a.step()
            b.step()
        # As above.
        assert a.param_groups[0]["d"] == pytest.approx(float(b.param_groups[0]["d"]), rel=1e-10)
        for p, q in zip(ours, theirs):
            assert float((p - q).abs().max()) <= 1e-10 * float(q.abs().max())
        assert a.state[ours[0]]["step"] == b.state[theirs[0]]["step"] == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_embedding_with_sparse_gradients_is_the_packages(dtype):
    ours_class, reference_class = PAIRS["adagrad"]
    tables = [torch.nn.Embedding(40, 7, sparse=True).to(dtype) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    heads = [torch.nn.Linear(7, 1).to(dtype) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    pairs = zip(tables, heads)
    a, b = (
        kind([*table.parameters(), *head.parameters()], d0=1e-2)
        for kind, (table, head) in zip((ours_class, reference_class), pairs)
    )
    generator = torch.Generator().manual_seed(3)
    untouched = tables[0].weight.detach()[38:].clone()
    for _ in range(30):
        rows = torch.randint(0, 38, (16,), generator=generator)
        for table, head, optimizer in zip(tables, heads, (a, b)):
            optimizer.zero_grad()
            (head(table(rows)) - 1.0).square().mean().backward()
            assert table.weight.grad.is_sparse
            optimizer.step()
    # d_hat is a difference of running totals, of f32 in the package: a few of its roundings.
    bound = 1e-10 if dtype == torch.float64 else 1e-4
    assert a.param_groups[0]["d"] == pytest.approx(b.param_groups[0]["d"], rel=bound)
    for p, q in zip(tables[0].parameters(), tables[1].parameters()):
        assert float((p - q).abs().max()) <= bound * float(q.abs().max())
    assert torch.equal(tables[0].weight.detach()[38:], untouched)
    left, right = a.state_dict()["state"][0], b.state_dict()["state"][0]
    assert left.keys() == right.keys()
    for key in right:
        assert torch.allclose(left[key], right[key], rtol=1e-3, atol=1e-6), key
