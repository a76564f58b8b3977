"""Large steps on PyTorch's own threads, whose bits are those of one thread."""

import os
import signal

import pytest
import torch

from dadapt import _session

from common import NAMES, OURS

LARGE = 300_001


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def gradients(steps):
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(LARGE, generator=generator) for _ in range(steps)]


def start():
    generator = torch.Generator().manual_seed(5)
    return torch.nn.Parameter(torch.randn(LARGE, generator=generator))


def train(p, optimizer, given):
    for g in given:
        p.grad = g
        optimizer.step()
    return p.detach().numpy().tobytes()


def trained(cls, given, **options):
    """The bits of a large parameter after some steps."""
    p = start()
    return train(p, cls([p], d0=1e-3, **options), given)


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_those_of_one_thread(name, two_threads):
    assert "OpenMP" in torch.__config__.parallel_info() and _session.OPENMP
    given = gradients(3)
    alone = trained(OURS[name], given, num_threads=1)
    assert trained(OURS[name], given) == alone
    assert trained(OURS[name], given, num_threads=2) == alone


def in_child(check):
    """What a forked child has come to; False where it takes longer than half a minute."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_forked_children_do_not_wait_for_their_parents_threads(two_threads):
    # Of PyTorch's own work a child could do none that is large: it would wait for those threads.
    given = gradients(4)
    expected = trained(OURS["adam"], given)
    old, new = start(), start()
    optimizer = OURS["adam"]([old], d0=1e-3)
    train(old, optimizer, given[:3])
    assert in_child(lambda: train(old, optimizer, given[3:]) == expected)
    assert in_child(lambda: train(new, OURS["adam"]([new], d0=1e-3), given) == expected)
