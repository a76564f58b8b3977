"""A process that holds one optimizer at a time and times its steps when the driver says so.

Lines on stdin, each answered by one on stdout:

    setup NAME LEN,LEN,...   ready          makes the case and warms it up
    run UNTIMED STEPS        SECONDS        of STEPS steps, after UNTIMED ones
    check                    ok NOTE        or: bad NOTE
    drop                     ok             frees the case

Whatever goes wrong is answered by: error WHY.
"""

import gc
import importlib
import os
import sys
import time

import numpy as np

# Steps at the rate 1 that give adaptive methods an estimate of their own. From then on the rate is
# LR and growth_rate, where there is one, 1: gradients which follow no loss would drive d off. It is
# then as in training when d has found its place.
GROWING = 3
D0 = 1e-3
LR = 1e-4
WEIGHT_DECAY = 0.01

# The second gradient starts so many elements after the first, in the same array: every element has
# another value in the next step, and no step has to read more than one gradient's memory.
SHIFT = 16


class Case:
    """One optimizer over tensors `p`; a subclass has `prepare`, `step` and perhaps the rest."""

    def __init__(self, lens):
        self.p = [vector(n, seed=0, slot=0) for n in lens]
        buffers = [vector(n + SHIFT, seed=1, slot=1) for n in lens]
        self.g = [
            [b[start : start + n] for b, n in zip(buffers, lens, strict=True)]
            for start in (0, SHIFT)
        ]

    def prepare(self, which):
        """Hands over gradient 0 or 1; not timed."""

    def step(self):
        """One step; timed."""
        raise NotImplementedError

    def hold(self):
        """Sets the rate to LR where it was 1, and growth_rate to 1."""

    def begin(self):
        """The warm-up is over."""

    def first(self):
        """Up to 1,000 parameters."""
        return np.array(self.p[0][:1000])

    def note(self):
        """What is worth knowing about the steps, for the record."""
        return ""


def vector(n, seed, slot):
    """`n` numbers between -0.01 and 0.01; large arrays of a step start at different cache lines."""
    apart = 272 * slot if n >= 100_000 else 0
    space = np.empty(n + 16 + apart, np.float32)
    start = (-space.ctypes.data % 64) // 4 + apart
    out = space[start : start + n]
    pattern = np.float32(2e-5) * ((np.arange(1009) * 541 + seed * 97) % 1009) - np.float32(1e-2)
    whole = n - n % 1009
    out[:whole].reshape(-1, 1009)[:] = pattern
    out[whole:] = pattern[: n - whole]
    return out


def run(case, steps):
    """Seconds of `steps` steps, without what hands over the gradients."""
    seconds = 0.0
    for step in range(steps):
        case.prepare(step % 2)
        start = time.perf_counter()
        case.step()
        seconds += time.perf_counter() - start
    return seconds


def check(case, before):
    """Whether the steps did something, and nothing absurd."""
    after = case.first()
    moved = int(np.count_nonzero(after != before))
    if not np.isfinite(after).all():
        return "bad parameters are not finite"
    if moved < 0.9 * len(after):
        return f"bad only {moved} of {len(after)} parameters moved"
    return f"ok {case.note()}"


def setup(family, name, lens):
    """A case that has made its first steps, and its first parameters before them."""
    case = family.make(name, lens)
    before = case.first()
    run(case, GROWING)
    case.hold()
    run(case, 2)
    case.begin()
    return case, before


def bind():
    """Binds all threads of the process, and those to come, to its processors."""
    processors = {int(cpu) for cpu in os.environ["PEERS_CPUS"].split(",")}
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), processors)


def answer(state, command):
    """Does what a command says."""
    match command:
        case ["setup", name, lens]:
            family = importlib.import_module(sys.argv[1])
            state.extend(setup(family, name, [int(n) for n in lens.split(",")]))
            gc.collect()
            return "ready"
        case ["run", untimed, steps]:
            run(state[0], int(untimed))
            return repr(run(state[0], int(steps)))
        case ["check"]:
            return check(*state)
    return "error not a command"


def serve(line, answers):
    """Serves the driver from a setup on until it drops the case."""
    state = []
    while line and line != "drop\n":
        try:
            said = answer(state, line.split())
        except Exception as error:  # noqa: BLE001  whatever it is, the driver is to know
            said = f"error {type(error).__name__}: {error}"
        answers.write(said.replace("\n", " ")[:500] + "\n")
        line = sys.stdin.readline()


def main():
    """Imports what is slow to import, and forks for each case.

    No case then meets the memory that another left behind.
    """
    # Libraries print what they like: the pipe to the driver is no longer theirs.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        importlib.import_module(sys.argv[1])
    except Exception:  # noqa: BLE001  setup comes to it again, and says so
        pass
    bind()
    # The driver writes a line when it has the answer to the one before: nothing is read ahead.
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            serve(line, answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        answers.write("ok\n" if status == 0 else f"error the process ended, status {status}\n")


if __name__ == "__main__":
    main()
