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
    """`n` numbers between -0.01 and 0.01; arrays of a step start at different cache lines."""
    space = np.empty(n + 2048, np.float32)
    start = (-space.ctypes.data % 64) // 4 + 272 * slot
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


def main():
    """Serves the driver until it closes the pipe."""
    # Libraries print what they like: the pipe to the driver is no longer theirs.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    case = before = None
    try:
        importlib.import_module(sys.argv[1])
    except Exception:  # noqa: BLE001  setup comes to it again, and says so
        pass
    bind()
    for line in sys.stdin:
        try:
            match line.split():
                case ["setup", name, lens]:
                    case = None
                    gc.collect()
                    family = importlib.import_module(sys.argv[1])
                    case, before = setup(family, name, [int(n) for n in lens.split(",")])
                    gc.collect()
                    answer = "ready"
                case ["run", untimed, steps]:
                    run(case, int(untimed))
                    answer = repr(run(case, int(steps)))
                case ["check"]:
                    answer = check(case, before)
                case ["drop"]:
                    case = None
                    gc.collect()
                    answer = "ok"
                case _:
                    answer = "error not a command"
        except Exception as error:  # noqa: BLE001  whatever it is, the driver is to know
            answer = f"error {type(error).__name__}: {error}"
        answers.write(answer.replace("\n", " ")[:500] + "\n")


if __name__ == "__main__":
    main()
