"""Parameters of every kind, wherever they are, and whatever PyTorch does around a step."""

import copy
import multiprocessing
import sys
import threading

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

each = pytest.mark.parametrize("name", NAMES)
OPTIONS = {"d0": 1e-3}
FADING = ("adam", "adan", "prodigy", "adam_preprint", "adan_ip")

# Parameter and gradient of the same values in other places of the memory.
LAYOUTS = {
    "transposed": lambda t: t.t().contiguous().t() if t.dim() == 2 else t,
    "channels_last": lambda t: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "every_second": lambda t: torch.stack([t, t], dim=-1)[..., 0],
}
SHAPES = [(6, 5), (2, 3, 4, 5), (9,)]


@pytest.mark.parametrize("gradient_too", [True, False], ids=["both", "parameter"])
@pytest.mark.parametrize("layout", LAYOUTS)
@each
def test_non_contiguous_parameters_are_the_same_step(name, layout, gradient_too):
    plain = new_parameters(shapes=SHAPES, zero=None)
    other = [torch.nn.Parameter(LAYOUTS[layout](p.detach().clone())) for p in plain]
    assert not all(p.is_contiguous() for p in other)
    record = gradients(plain, 20, fading=name in FADING)
    a, b = OURS[name](plain, **OPTIONS), OURS[name](other, **OPTIONS)
    found = run(a, plain, record)
    for given in record:
        for p, g in zip(other, given):
            p.grad = LAYOUTS[layout](g.clone()) if gradient_too else g.clone()
        strides = [p.stride() for p in other]
        b.step()
        assert [p.stride() for p in other] == strides
    # Sums in the order of the memory round differently, beyond runs of 32 in f64 only.
    assert b.param_groups[0]["d"] == pytest.approx(found[-1], rel=1e-4)
    for p, q in zip(plain, other):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"slice_p": 3}], ids=["all", "sliced"])
def test_flat_state_is_in_the_order_of_the_indices(options):
    """As the package's: its checkpoint goes on here although the axes lie in another order."""
    ours_class, reference_class = PAIRS["prodigy"]
    start = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, crossing = (torch.nn.Parameter(start.t().contiguous().t()) for _ in range(2))
    record = gradients([whole], 12, torch.float64, fading=True)
    a = reference_class([whole], d0=1e-3, **options)
    b = reference_class([crossing], d0=1e-3, **options)
    expected = run(a, [whole], record)
    found = run(b, [crossing], record[:6])
    c = ours_class([crossing], d0=1e-3, **options)
    c.load_state_dict(b.state_dict())
    found += run(c, [crossing], record, 6)
    # As in test_reference.
    assert found == pytest.approx(expected, rel=1e-10)
    assert float((whole - crossing).detach().abs().max()) < 1e-10


@each
def test_non_contiguous_gradients_are_the_same_step_to_the_bit(name):
    plain, other = new_parameters(shapes=SHAPES), new_parameters(shapes=SHAPES)
    a, b = OURS[name](plain, **OPTIONS), OURS[name](other, **OPTIONS)
    for given in gradients(plain, 5):
        set_gradients(plain, given)
        for p, g in zip(other, given):
            p.grad = torch.stack([g, g], dim=-1)[..., 0]
            assert not p.grad.is_contiguous()
        a.step()
        b.step()
    assert same(bits(plain), bits(other))


def test_expanded_gradients_are_taken():
    p = torch.nn.Parameter(torch.ones(4, 3))
    p.grad = torch.ones(1, 1).expand(4, 3)
    OURS["adam"]([p], d0=1e-2).step()
    assert torch.unique(p.detach()).numel() == 1 and p[0, 0] < 1


@each
def test_empty_and_scalar_parameters_are_stepped(name):
    shapes = [(0,), (), (3, 0, 2), (1,)]
    parameters = new_parameters(shapes=shapes, zero=None)
    optimizer = OURS[name](parameters, d0=1e-2, growth_rate=1.0)
    before = bits(parameters)
    for given in gradients(parameters, 3):
        set_gradients(parameters, given)
        optimizer.step()
    assert [p.shape for p in parameters] == [torch.Size(shape) for shape in shapes]
    assert parameters[1] != before[1] and parameters[3] != before[3]
    assert set(optimizer.state) == set(parameters)
    saved = optimizer.state_dict()
    again = OURS[name](copied(parameters))
    again.load_state_dict(saved)
    only_empty = OURS[name](new_parameters(shapes=[(0,)], zero=None))
    set_gradients(only_empty.param_groups[0]["params"], [torch.zeros(0)])
    only_empty.step()
    assert not only_empty.report.applied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each
def test_16_bit_parameters_are_stepped_in_f32_and_rounded(name, dtype):
    """They are f32 parameters, rounded to nearest, which are among their state; state is f32."""
    low = new_parameters(dtype)
    optimizer = OURS[name](low, d0=1e-2)
    high = [torch.nn.Parameter(p.detach().float()) for p in low]
    twin = OURS[name](high, d0=1e-2)
    for given in gradients(low, 6, dtype, name in FADING):
        set_gradients(low, given)
        set_gradients(high, [g.float() for g in given])
        optimizer.step()
        twin.step()
        assert optimizer.param_groups[0]["d"] == twin.param_groups[0]["d"]
        assert same(bits(low), [p.to(dtype) for p in bits(high)])
        assert same([optimizer.state[p]["master"] for p in low], bits(high))
    assert all(p.dtype == dtype for p in low)
    state = optimizer.state[low[0]]
    assert all(v.dtype == torch.float32 for v in state.values() if torch.is_tensor(v))


@each
def test_16_bit_parameters_without_gradient_may_lie_anywhere(name):
    """Side by side, at odd addresses: they are not what the library would take them for."""
    flat = torch.zeros(40, dtype=torch.bfloat16)
    parameters = [torch.nn.Parameter(flat[i : i + 5]) for i in range(1, 26, 5)]
    optimizer = OURS[name](parameters, d0=1e-2)
    for present in ([0, 1, 2, 3, 4], [3], [0, 4], [2]):
        for place, p in enumerate(parameters):
            p.grad = torch.ones_like(p) if place in present else None
        before = bits(parameters)
        optimizer.step()
        moved = [not torch.equal(p, b) for p, b in zip(parameters, before)]
        assert moved == [place in present for place in range(5)]
    if "step" in optimizer.state[parameters[0]]:
        assert [optimizer.state[p]["step"] for p in parameters] == [2, 1, 2, 2, 2]


@each
def test_types_are_mixed(name):
    parameters = new_parameters(torch.float64)[:2] + new_parameters(torch.bfloat16)[2:]
    optimizer = OURS[name](parameters, d0=1e-2)
    before = bits(parameters)
    run(
        optimizer,
        parameters,
        [[g.to(p.dtype) for g, p in zip(given, parameters)] for given in gradients(parameters, 3)],
    )
    assert not any(torch.equal(p, b) for p, b in zip(parameters[:3], before))


def test_other_types_are_refused_by_name():
    for dtype in (torch.complex64, torch.int64):
        p = torch.zeros(3, dtype=dtype, requires_grad=dtype.is_complex)
        with pytest.raises(RuntimeError, match=str(dtype)):
            OURS["adam"]([p])


def test_parameters_without_requires_grad_stay_unless_they_have_a_gradient():
    moving, still = new_parameters()[:2]
    still.requires_grad_(False)
    optimizer = OURS["adam"]([moving, still], d0=1e-2)
    before = still.clone()
    moving.grad = torch.ones_like(moving)
    optimizer.step()
    assert torch.equal(still, before) and still not in optimizer.state
    still.grad = torch.ones_like(still)
    optimizer.step()
    assert not torch.equal(still, before)


def test_shared_parameters_are_refused_as_pytorch_does():
    p, q = new_parameters()[:2]
    with pytest.raises(ValueError, match="more than one parameter group"):
        OURS["adam"]([{"params": [p]}, {"params": [q, p]}])
    tied = torch.nn.Parameter(q.detach())
    optimizer = OURS["adam"]([q, tied], d0=1e-2)
    q.grad, tied.grad = torch.ones_like(q), torch.ones_like(q)
    before = q.clone()
    with pytest.raises(RuntimeError, match="overlap"):
        optimizer.step()
    assert torch.equal(q, before) and not optimizer.state


def test_other_devices_are_named():
    p = torch.nn.Parameter(torch.empty(3, device="meta"))
    with pytest.raises(
        RuntimeError, match="parameter 0 of group 0 is on meta: dadapt steps on the CPU"
    ):
        OURS["adam"]([p])
    ours = new_parameters()
    optimizer = OURS["adam"](ours, d0=1e-2)
    run(optimizer, ours, gradients(ours, 2))
    with pytest.raises(RuntimeError, match="group 1 is on meta"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1
    if hasattr(torch.utils, "swap_tensors"):  # what Module.to may do from PyTorch 2.2 on
        fresh = new_parameters()
        optimizer = OURS["adam"](fresh, d0=1e-2)
        torch.utils.swap_tensors(fresh[1], torch.nn.Parameter(fresh[1].to("meta")))
        set_gradients(fresh, [torch.ones_like(p) for p in fresh])
        before = bits(fresh[:1])
        with pytest.raises(RuntimeError, match="parameter 1 of group 0 is on meta"):
            optimizer.step()
        assert same(bits(fresh[:1]), before)


@pytest.mark.parametrize("where", ["step", "everything"])
@each
def test_inference_mode_makes_no_difference(name, where):
    ours, theirs = new_parameters(), new_parameters()
    record = gradients(ours, 6)
    a, b = OURS[name](ours, **OPTIONS), OURS[name](theirs, **OPTIONS)
    run(a, ours, record)
    with torch.inference_mode(where == "everything"):
        for given in record:
            set_gradients(theirs, given)
            with torch.inference_mode():
                b.step()
    assert same(bits(ours), bits(theirs))
    # State made there is no inference tensor, which could not be used elsewhere.
    held = b.state[theirs[0]]
    assert not any(v.is_inference() for v in held.values() if torch.is_tensor(v))
    run(b, theirs, record)


def test_versions_are_bumped_so_that_autograd_notices():
    for dtype in (torch.float32, torch.bfloat16):
        w = torch.nn.Parameter(torch.ones(4, 4, dtype=dtype))
        still = torch.nn.Parameter(torch.ones(2))
        optimizer = OURS["adam"]([w, still], d0=1e-2)
        x = torch.ones(4, dtype=dtype, requires_grad=True)
        loss = (w @ (w @ x)).sum()
        loss.backward(retain_graph=True)
        before, of_still = w._version, still._version
        optimizer.step()
        assert w._version > before and still._version == of_still
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_versions_stay_where_nothing_is_written():
    w = torch.nn.Parameter(torch.ones(4))
    w.grad = torch.full_like(w, float("nan"))
    optimizer = OURS["adam"]([w])
    before = w._version
    with pytest.raises(RuntimeError, match="NaN"):
        optimizer.step()
    w.grad.zero_()
    optimizer.step()
    assert w._version == before


def test_non_finite_policies():
    for policy, moves in (("skip", False), ("propagate", True)):
        w = torch.nn.Parameter(torch.ones(2))
        optimizer = OURS["adam"]([w], d0=1e-2, non_finite=policy)
        w.grad = torch.tensor([1.0, float("inf")])
        optimizer.step()
        assert bool((w != 1).any()) == moves
        assert optimizer.report.applied == moves


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="torch.compile: PyTorch 2.0 or later")
def test_compiled_models_are_trained():
    """Compiled by the backend without a compiler, which is all that matters to an optimizer."""
    results = []
    for compiled in (False, True):
        model, x, y = classification()
        optimizer = OURS["adam"](model.parameters(), d0=1e-3, growth_rate=1.05)
        used = torch.compile(model, backend="aot_eager") if compiled else model
        losses = train(used, optimizer, x, y, 12)
        results.append((losses, bits(model.parameters())))
    # The compiler may order what it computes otherwise: some roundings of f32.
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    for p, q in zip(results[0][1], results[1][1]):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="torch.compile: PyTorch 2.0 or later")
def test_steps_within_compiled_functions_are_taken():
    model, x, y = classification()
    twin = copy.deepcopy(model)
    optimizer = OURS["adam"](model.parameters(), d0=1e-2, growth_rate=1.0)
    other = OURS["adam"](twin.parameters(), d0=1e-2, growth_rate=1.0)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    compiled = torch.compile(step, backend="eager")
    losses = [compiled().item() for _ in range(3)]
    assert losses == pytest.approx(train(twin, other, x, y, 3), rel=1e-4)


def cpu_scaler():
    """A GradScaler that scales on the CPU, of PyTorch 2.3 or later."""
    if not hasattr(torch, "amp") or not hasattr(torch.amp, "GradScaler"):
        pytest.skip("GradScaler on the CPU: PyTorch 2.3 or later")
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)


@each
def test_scaler_skips_what_is_not_finite(name):
    scaler = cpu_scaler()
    ours, theirs = new_parameters(), new_parameters()
    a, b = OURS[name](ours, **OPTIONS), OURS[name](theirs, **OPTIONS)
    for step, given in enumerate(gradients(ours, 6)):
        loss = sum((p * g).sum() for p, g in zip(ours, given))
        a.zero_grad()
        scaler.scale(loss).backward()
        overflows = step == 3
        if overflows:
            ours[0].grad.fill_(float("inf"))
        before = bits(ours)
        scaler.step(a)
        scaler.update()
        if overflows:
            assert same(bits(ours), before)
            continue
        set_gradients(theirs, given)
        b.step()
        # Scales are powers of two, which cost no digit.
        assert same(bits(ours), bits(theirs))
    assert scaler.get_scale() == 2.0**9
    assert a.param_groups[0]["k"] == 5


def child(optimizer, parameters, record, queue):
    run(optimizer, parameters, record)
    queue.put([p.detach().numpy() for p in parameters])


@each
def test_forked_children_step_to_the_same_bits(name):
    # Large enough for the library's threads, which a fork does not copy,
    # and for state in pages of its own.
    shapes = [(600_000,), (30,)]
    ours = new_parameters(shapes=shapes, zero=None)
    optimizer = OURS[name](ours, num_threads=2, **OPTIONS)
    record = gradients(ours, 4)
    run(optimizer, ours, record[:2])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(optimizer, ours, record[2:], queue))
    process.start()
    theirs = [torch.from_numpy(p) for p in queue.get(timeout=60)]
    process.join(timeout=60)
    assert process.exitcode == 0
    assert not same(bits(ours), theirs)
    run(optimizer, ours, record[2:])
    assert same(bits(ours), theirs)


def test_workers_of_a_data_loader_do_no_harm():
    model, x, y = classification()
    data = torch.utils.data.TensorDataset(x, y)
    optimizer = OURS["prodigy"](model.parameters(), d0=1e-3, growth_rate=1.05, num_threads=2)
    losses = []
    for _ in range(3):
        loader = torch.utils.data.DataLoader(data, batch_size=32, num_workers=2)
        losses += [train(model, optimizer, a, b, 1)[0] for a, b in loader]
    assert len(losses) == 6 and losses[-1] < losses[0]


def test_parameters_may_move_change_type_and_be_replaced():
    ours, theirs = new_parameters(), new_parameters()
    record = gradients(ours, 12)
    a, b = OURS["adam"](ours, **OPTIONS), OURS["adam"](theirs, **OPTIONS)
    run(b, theirs, record)
    for step, given in enumerate(record):
        for p in ours:
            p.data = p.data.clone()  # elsewhere in each step
        if step == 5:
            for p in ours:
                a.state[p]["s"] = a.state[p]["s"].clone()
                a.state[p]["exp_avg"] = a.state[p]["exp_avg"].double()
        if step == 7:
            for p in ours:
                a.state[p]["exp_avg_sq"].share_memory_()
        set_gradients(ours, given)
        a.step()
    assert same(bits(ours), bits(theirs))
    for p in ours:
        p.grad = None
        p.data = p.data.double()
    set_gradients(ours, [g.double() for g in record[0]])
    a.step()
    assert a.state[ours[0]]["s"].dtype == torch.float64
    a.state[ours[0]]["s"] = torch.zeros(2)
    with pytest.raises(RuntimeError, match="'s' of parameter 0 of group 0 has 2 elements, not 1"):
        a.step()


def test_gradients_that_do_not_fit_are_refused():
    p, q = torch.nn.Parameter(torch.ones(6)), torch.nn.Parameter(torch.ones(3))
    optimizer = OURS["adam"]([p, q], d0=1e-2)
    p.grad, q.grad = torch.ones(6), torch.ones(3)
    optimizer.step()
    before = bits([p, q])
    p.grad.data = torch.ones(3)
    with pytest.raises(
        RuntimeError, match=r"gradient of parameter 0 of group 0 has the shape \(3,\)"
    ):
        optimizer.step()
    assert same(bits([p, q]), before)


def test_sparse_gradients_are_for_adagrad():
    for name in NAMES:
        table = torch.nn.Embedding(10, 3, sparse=True)
        optimizer = OURS[name](table.parameters(), d0=1e-2, weight_decay=0.0)
        table(torch.tensor([1, 4, 1])).sum().backward()
        before = table.weight.detach().clone()
        if name == "adagrad":
            optimizer.step()
            changed = (table.weight != before).any(dim=1)
            assert changed.nonzero().flatten().tolist() == [1, 4]
            continue
        with pytest.raises(RuntimeError, match="DAdaptAdaGrad does"):
            optimizer.step()
        assert torch.equal(table.weight, before) and not optimizer.state


def test_sparse_and_dense_gradients_do_not_mix_and_decay_is_refused():
    table = torch.nn.Embedding(10, 3, sparse=True)
    optimizer = OURS["adagrad"](table.parameters(), d0=1e-2)
    table(torch.tensor([1, 4])).sum().backward()
    optimizer.step()
    table.weight.grad = torch.ones_like(table.weight)
    with pytest.raises(RuntimeError, match="had sparse gradients"):
        optimizer.step()
    other = torch.nn.Embedding(10, 3, sparse=True)
    decaying = OURS["adagrad"](other.parameters(), weight_decay=0.1)
    other(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="weight_decay of group 0"):
        decaying.step()
    dense = OURS["adagrad"](other.parameters())
    other.weight.grad = torch.ones_like(other.weight)
    dense.step()
    other.zero_grad()
    other.weight.grad = None
    other(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse from the start"):
        dense.step()


@each
def test_frozen_optimizers_go_on_with_their_d_and_less_state(name):
    ours = new_parameters()
    optimizer = OURS[name](ours, d0=1e-2)
    record = gradients(ours, 10, fading=True)
    run(optimizer, ours, record[:5])
    d = optimizer.param_groups[0]["d"]
    optimizer.freeze()
    assert set(run(optimizer, ours, record[5:])) == {d}
    held = optimizer.state[ours[0]]
    assert ("s" in held) == (name == "sgd")
    theirs = copied(ours)
    other = OURS[name](theirs)
    other.load_state_dict(optimizer.state_dict())
    run(optimizer, ours, record)
    run(other, theirs, record)
    assert same(bits(ours), bits(theirs)) and optimizer.report.d == d


def test_each_group_finds_its_own_d():
    ours = new_parameters()
    groups = [{"params": ours[:2]}, {"params": ours[2:], "lr": 0.5}]
    optimizer = OURS["adam"](groups, d0=1e-3, d_per_group=True)
    record = gradients(ours, 12, fading=True)
    run(optimizer, ours, record[:6])
    first, second = optimizer.param_groups
    assert first["d"] != second["d"] and (first["k"], second["k"]) == (6, 6)
    assert optimizer.group_report(1).d == second["d"]
    twin = copy.deepcopy(optimizer)
    theirs = [p for group in twin.param_groups for p in group["params"]]
    for given in record[6:9]:
        given[2:] = [None] * 3
    run(optimizer, ours, record[6:])
    run(twin, theirs, record[6:])
    assert same(bits(ours), bits(theirs))
    assert (first["k"], second["k"]) == (12, 9)
    assert optimizer.state[ours[0]]["step"] == 12 and optimizer.state[ours[4]]["step"] == 9
    # The first group's report is the step's; the others' updates count without it.
    version = ours[2]._version
    set_gradients(ours, [None, None, *record[0][2:]])
    optimizer.step()
    assert not optimizer.report.applied and optimizer.group_report(1).applied
    assert (first["k"], second["k"]) == (12, 10) and ours[2]._version > version
    assert optimizer.state[ours[0]]["step"] == 12 and optimizer.state[ours[4]]["step"] == 10


def test_threads_follow_pytorch_and_bits_do_not_change():
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours = new_parameters(shapes=[(100_000,)], zero=None)
            optimizer = OURS["adam"](ours, **OPTIONS)
            run(optimizer, ours, gradients(ours, 3))
            assert optimizer._session.threads == threads
            results.append(bits(ours))
        torch.set_num_threads(1)
        run(optimizer, ours, gradients(ours, 1))
        assert optimizer._session.threads == 1
    finally:
        torch.set_num_threads(before)
    assert same(*results)


def test_threads_of_python_may_step_at_once():
    # Large enough that the library, which runs without Python's lock, is busy when the next comes.
    ours, theirs = (new_parameters(shapes=[(300_000,)], zero=None) for _ in range(2))
    calm = {"d0": 1e-3, "growth_rate": 1.0}
    a, b = OURS["adam"](ours, **calm), OURS["adam"](theirs, **calm)
    for optimizer, parameters in ((a, ours), (b, theirs)):
        set_gradients(parameters, gradients(parameters, 1)[0])
        optimizer.step()
    workers = [threading.Thread(target=lambda: [a.step() for _ in range(50)]) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # else each would run all its steps before the next gets a turn
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    for _ in range(200):
        b.step()
    assert a.param_groups[0]["k"] == a.report.k == 201
    assert same(bits(ours), bits(theirs))


def test_log_every_so_many_steps(caplog):
    ours = new_parameters()
    optimizer = OURS["adam"](ours, log_every=2)
    with caplog.at_level("INFO", logger="dadapt"):
        run(optimizer, ours, gradients(ours, 5))
    assert [line.getMessage()[:5] for line in caplog.records] == ["(k=0)", "(k=2)", "(k=4)"]
    assert "d_hat" in caplog.text


def test_report_is_of_the_last_step():
    ours = new_parameters()
    optimizer = OURS["sgd"](ours)
    assert optimizer.report is None
    run(optimizer, ours, gradients(ours, 2))
    report = optimizer.report
    assert isinstance(report, dadapt.StepReport)
    assert (report.k, report.d) == (2, optimizer.param_groups[0]["d"])
    assert report.d_hat == report.numerator / report.denominator
    assert "d_hat" in report.movement or report.movement


def test_gradients_of_another_type_are_converted():
    ours, theirs = (torch.nn.Parameter(torch.ones(6)) for _ in range(2))
    a, b = OURS["adam"]([ours], d0=1e-2), OURS["adam"]([theirs], d0=1e-2)
    for dtype in (torch.float64, torch.bfloat16):
        g = torch.arange(6.0)
        ours.grad, theirs.grad = g.clone(), g.clone()
        ours.grad.data = g.to(dtype)
        assert ours.grad.dtype == dtype
        a.step()
        b.step()
        assert torch.equal(ours, theirs)


def test_gradients_whose_memory_has_other_signs_are_read_right():
    steps = []
    for negative in (False, True):
        p = torch.nn.Parameter(torch.ones(1))
        optimizer = dadapt.DAdaptSGD([p], d0=1e-2)
        g = torch.full((1,), -0.5)
        p.grad = torch._neg_view(-g) if negative else g
        assert p.grad.is_neg() == negative
        optimizer.step()
        steps.append(p.detach().clone())
    assert torch.equal(*steps)
    with pytest.raises(dadapt.Error, match="resolve_neg"):
        dadapt.DAdaptSGD([torch.nn.Parameter(torch._neg_view(torch.ones(3)))])


def test_gradients_without_memory_are_refused_and_change_nothing():
    made = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = dadapt.DAdaptAdam(made)
    for p in made:
        p.grad = torch.ones(3)
    optimizer.step()
    before = [p.detach().clone() for p in made]
    storage = made[1].grad
    storage = storage.untyped_storage() if hasattr(storage, "untyped_storage") else storage.storage()
    storage.resize_(0)
    with pytest.raises(dadapt.Error, match="parameter 1 of group 0 has no memory"):
        optimizer.step()
    assert all(map(torch.equal, made, before))
    made[1].grad = torch.ones(3)
    optimizer.step()
