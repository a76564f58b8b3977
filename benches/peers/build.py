"""Builds what is measured, and the environment that a worker gets."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
SCRATCH = TARGET / "peers"
VENV = SCRATCH / "venv"
LIBRARY = TARGET / "release" / "libdadapt.so"
LOOPS = SCRATCH / "loops.so"
LOOPS_OPENMP = SCRATCH / "loops-openmp.so"
RUST = SCRATCH / "rust" / "release" / "peers"


def attempt(what, command, **options):
    """Runs a command; what it said last if it failed, else None."""
    print(f"building {what}", flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else f"exit {done.returncode}")


def install(python):
    """Puts the Python peers into a virtual environment, the difficult one last and by itself."""
    run = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([python, "-m", "venv", VENV], check=True)
    subprocess.run([*run, "-r", HERE / "requirements.txt"], check=True)
    environment = os.environ | {"DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu"}
    deepspeed = [*run, "--no-build-isolation", "-r", HERE / "requirements-deepspeed.txt"]
    if subprocess.run(deepspeed, env=environment, check=False).returncode != 0:
        print("DeepSpeed cannot be installed: its row will be absent")


def build_all():
    """Builds ours, the C loops and the Rust peers; why the Rust ones are absent, or None."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
    ours = ["cargo", "build", "--release", "--locked", "--package", "dadapt-capi"]
    compile_loops = [
        *("gcc", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-std=c11"),
        *("-Wall", "-Wextra", HERE / "loops.c", "-lm", "-o"),
    ]
    for what, command in [
        ("libdadapt.so", ours),
        ("the C loops", [*compile_loops, LOOPS]),
        ("the C loops with OpenMP", [*compile_loops, LOOPS_OPENMP, "-fopenmp"]),
    ]:
        if why := attempt(what, command, cwd=ROOT, env=environment):
            raise SystemExit(f"{what} cannot be built: {why}")
    # Their crates come without dispatch in places: everybody gets this machine's instructions.
    environment |= {
        "CARGO_TARGET_DIR": str(SCRATCH / "rust"),
        "RUSTFLAGS": "-C target-cpu=native",
    }
    rust = ["cargo", "build", "--release", "--locked"]
    what = "candle and burn (minutes, the first time)"
    return attempt(what, rust, cwd=HERE / "rust", env=environment, timeout=3600)


def environment(threads, tuned, tunables, python):
    """Environment of a worker: the same number of threads for everybody."""
    count = str(threads)
    names = ("OMP", "MKL", "OPENBLAS", "RAYON", "DADAPT")
    values = {f"{name}_NUM_THREADS": count for name in names}
    values |= {
        "PEERS_THREADS": count,
        "PEERS_LIBDADAPT": str(LIBRARY),
        "PEERS_LOOPS": str(LOOPS if threads == 1 else LOOPS_OPENMP),
        "PEERS_LOOPS_OPENMP": str(LOOPS_OPENMP),
        "JAX_PLATFORMS": "cpu",
        "DS_ACCELERATOR": "cpu",
        "TORCH_EXTENSIONS_DIR": str(SCRATCH / "extensions"),
        "MAX_JOBS": str(os.cpu_count()),
        "PYTHONDONTWRITEBYTECODE": "1",
        # ninja of the packages, for DeepSpeed's kernel.
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
    }
    if tuned:
        values["GLIBC_TUNABLES"] = tunables
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    return kept | values
