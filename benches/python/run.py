"""Ours for PyTorch beside the packages and PyTorch's fused AdamW, and what Python costs a step.

    python3 benches/python/run.py                 # tables into benches/record, named by date and machine
    python3 benches/python/run.py --quick         # a look, written nowhere

Needs torch, dadaptation and prodigyopt (tests/golden/requirements.txt), and the library: the package is taken
from the repository. Each size is a process of its own, once as installed and once with malloc told to keep
what it has (of the packages' time at large sizes most is page faults). The cases of a size take turns, so
that what else the machine does falls on all alike; medians over rounds, and the least, which is what
a machine with nothing else to do would show.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
TUNABLES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184"
#: The goal: microseconds of Python a step, and a tensor.
FIXED, PER_TENSOR = 30.0, 0.7


def gpt2():
    """The 148 tensors of GPT-2 124M."""
    shapes = [(50257, 768), (1024, 768)]
    for _ in range(12):
        shapes += [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,)]
        shapes += [(768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    return [*shapes, (768,), (768,)]


SIZES = {"1e6": [(1000, 1000)], "1e7": [(10, 1000, 1000)], "gpt2": gpt2()}


def cases():
    """Name and maker of each."""
    import dadaptation
    import prodigyopt
    import torch

    import dadapt

    def adamw(p):
        return torch.optim.AdamW(p, lr=1e-4, fused=True)

    ours = {"non_finite": "propagate", "d0": 1e-4}
    return {
        "dadapt DAdaptAdam": lambda p: dadapt.DAdaptAdam(p, **ours),
        "dadapt DAdaptAdam, gradients checked": lambda p: dadapt.DAdaptAdam(p, d0=1e-4),
        "dadapt DAdaptAdam, state in bf16": lambda p: dadapt.DAdaptAdam(p, state_dtype="bf16", **ours),
        "dadapt DAdaptAdam, state in 8 bits": lambda p: dadapt.DAdaptAdam(p, state_dtype="q8", **ours),
        "dadaptation DAdaptAdam": lambda p: dadaptation.DAdaptAdam(p, d0=1e-4),
        "dadapt Prodigy": lambda p: dadapt.Prodigy(p, **ours),
        "prodigyopt Prodigy": lambda p: prodigyopt.Prodigy(p, d0=1e-4),
        "dadapt DAdaptSGD": lambda p: dadapt.DAdaptSGD(p, **ours),
        "dadaptation DAdaptSGD": lambda p: dadaptation.DAdaptSGD(p, d0=1e-4),
        "torch AdamW, fused": adamw,
    }


def parameters_of(shapes, gradients):
    import torch

    made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p, g in zip(made, gradients):
        p.grad = g
    return made


def settle(optimizer):
    """Steps to find d, then d stays, as in training after the first steps."""
    for _ in range(3):
        optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
        if "growth_rate" in group:
            group["growth_rate"] = 1.0
    optimizer.step()


def speed(size, threads, rounds):
    """Nanoseconds a parameter: median and least of each case. Cases of GPT-2 come one after the
    other, for memory's sake, each in turn with AdamW."""
    import torch

    torch.set_num_threads(threads)
    rounds = max(3, rounds // {"1e6": 1, "1e7": 2, "gpt2": 4}[size])
    shapes = SIZES[size]
    gradients = [torch.randn(shape) for shape in shapes]
    count, makers = sum(g.numel() for g in gradients), cases()
    names = list(makers)
    parts = [names] if size != "gpt2" else [[name, names[-1]] for name in names[:-1]]
    samples = {name: [] for name in names}
    for part in parts:
        optimizers = {name: makers[name](parameters_of(shapes, gradients)) for name in part}
        for optimizer in optimizers.values():
            settle(optimizer)
        steps = max(1, int(4e6 / count))
        for _ in range(rounds):
            for name, optimizer in optimizers.items():
                begin = time.perf_counter()
                for _ in range(steps):
                    optimizer.step()
                samples[name].append((time.perf_counter() - begin) / steps / count * 1e9)
    return {name: (statistics.median(values), min(values)) for name, values in samples.items()}


def overhead(rounds):
    """Microseconds a step of 1 to 1000 tensors of 10 elements: whole steps, and the library's call in them.
    The least of many, since what else runs only adds."""
    import torch

    torch.set_num_threads(1)
    makers, found = cases(), {}
    for count in (1, 10, 100, 1000):
        shapes = [(10,)] * count
        gradients = [torch.randn(shape) for shape in shapes]
        for name, make in makers.items():
            optimizer = make(parameters_of(shapes, gradients))
            settle(optimizer)
            whole = least(optimizer.step, rounds, count)
            native = None
            if name.startswith("dadapt "):
                session = optimizer._session
                call = session.native.step
                address, entries = session.address, len(session.entries)
                native = least(lambda c=call, a=address, e=entries: c(a, e), rounds, count)
            found[f"{count} {name}"] = (whole, native)
    return found


def least(call, rounds, count):
    """Microseconds of a call."""
    repeat, best = max(1, 30 // count), float("inf")
    stop = time.perf_counter() + rounds / 10
    while time.perf_counter() < stop:
        begin = time.perf_counter()
        for _ in range(repeat):
            call()
        best = min(best, (time.perf_counter() - begin) / repeat)
    return best * 1e6


def child(arguments, tuned, threads=1):
    """What a process of its own measures."""
    names = ("OMP", "MKL", "OPENBLAS")
    environment = {
        k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "DADAPT_NUM_THREADS")
    }
    environment.update({f"{name}_NUM_THREADS": str(threads) for name in names})
    if tuned:
        environment["GLIBC_TUNABLES"] = TUNABLES
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    print("measuring", arguments, "malloc tuned" if tuned else "", file=sys.stderr, flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    """What this runs on."""
    info = Path("/proc/cpuinfo")
    models = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    model = models[0].split(": ")[1] if models else platform.machine()
    return f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


def tables(rounds, sizes, threads):
    """Lines of the record."""
    import dadaptation  # noqa: F401  (missing packages are found before minutes are spent)
    import torch

    yield f"{datetime.date.today()}, {machine()}"
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    yield f"Python {platform.python_version()}, torch {torch.__version__}; load when it began: {load}"
    yield ""
    yield "Python's overhead: microseconds a step, one thread, n tensors of 10 elements; the least of many"
    yield f"{'n':>5} {'optimizer':40} {'step':>8} {'library':>8} {'Python':>8} {'goal':>8}"
    for key, (whole, native) in child(["overhead", rounds], False).items():
        count, name = key.split(" ", 1)
        line = f"{count:>5} {name:40} {whole:8.1f}"
        if native is not None:
            goal = FIXED + PER_TENSOR * int(count)
            met = "" if whole - native <= goal else "  MISSED"
            line += f" {native:8.1f} {whole - native:8.1f} {goal:8.1f}{met}"
        yield line
    for count in threads:
        yield ""
        yield f"Nanoseconds a parameter, f32, {count} thread{'s' if count > 1 else ''}: median (least)"
        yield f"{'size':>5} {'optimizer':40} {'as installed':>16} {'malloc tuned':>16}"
        for size in sizes:
            plain, tuned = (
                child(["speed", size, count, rounds], on, count) for on in (False, True)
            )
            for name in plain:
                cells = (f"{m:.2f} ({a:.2f})" for m, a in (plain[name], tuned[name]))
                yield f"{size:>5} {name:40} " + " ".join(f"{cell:>16}" for cell in cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, no GPT-2, no record")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--machine", default=platform.machine(), help="a name for the record's file"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *arguments = json.loads(options.child)
        print(json.dumps({"speed": speed, "overhead": overhead}[what](*arguments)))
        return
    rounds, sizes = (5, ["1e6"]) if options.quick else (20, list(SIZES))
    lines = []
    for line in tables(rounds, sizes, options.threads):
        print(line, flush=True)
        lines.append(line)
    if not options.quick:
        name = f"{datetime.date.today()}-{options.machine}-python.txt"
        (ROOT / "benches" / "record" / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
