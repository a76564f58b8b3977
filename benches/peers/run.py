#!/usr/bin/env python3
"""Measures ours and the peers side by side: prints the table and writes it, with a plot."""

import argparse
import datetime
import re
import subprocess
import sys
import time
from pathlib import Path

import build
import plan
import report
from driver import NORMAL, QUICK, Driver


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds (10 minutes), written to target/peers"
    )
    parser.add_argument(
        "--install", action="store_true", help="first puts the Python peers into target/peers/venv"
    )
    parser.add_argument(
        "--python",
        type=Path,
        help="whose packages to use; default: that of --install, else this one",
    )
    parser.add_argument(
        "--machine", help="what the record's files are called by; default: the processor"
    )
    parser.add_argument("--out", type=Path, help="where the record goes; default: benches/record")
    parser.add_argument("--sizes", help="comma separated; default: all but gpt2 if quick, and 5e7")
    parser.add_argument("--threads", default="1,2", help="default: 1,2")
    parser.add_argument("--large", action="store_true", help="5e7 too, for the fast ones")
    parser.add_argument(
        "--all", action="store_true", help="every row at every size but 5e7: many minutes more"
    )
    return parser.parse_args()


def sizes(args):
    """The sizes to measure."""
    if args.sizes:
        return [size for size in plan.SIZES if size in args.sizes.split(",")]
    left_out = {"5e7"} if not args.large else set()
    if args.quick:
        left_out.add("gpt2")
    return [size for size in plan.SIZES if size not in left_out]


def name_of(args):
    """What the record's files start with."""
    machine = args.machine or report.machine(sys.executable, build.ROOT)[0].split(",")[0]
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    return f"{datetime.date.today()}-{slug}-peers"


def main():
    """Builds, measures, reports."""
    args = arguments()
    if args.install:
        build.install(sys.executable)
    own = build.VENV / "bin" / "python"
    python = (
        args.python.absolute() if args.python else own if own.exists() else Path(sys.executable)
    )
    machine = report.machine(python, build.ROOT)
    threads = [int(count) for count in args.threads.split(",")]
    driver = Driver(python, QUICK if args.quick else NORMAL, args.all, build.build_all())
    began = time.monotonic()
    try:
        for count in threads:
            for size in sizes(args):
                print(
                    f"{size}, {count} threads, after {time.monotonic() - began:.0f} s", flush=True
                )
                driver.cell(size, count)
            driver.stop()
    finally:
        driver.stop()
    record = driver.record
    text = "\n".join(
        [
            f"# {' '.join(['benches/peers/run.py', *sys.argv[1:]])}, {datetime.date.today()}, "
            f"{time.monotonic() - began:.0f} s",
            *(f"# {line}" for line in machine),
            "# Nanoseconds a parameter and step, f32: medians [quartiles] of interleaved samples.",
            "# 1,000 tensors of 1,000 are a million: theirs are milliseconds a step, too.",
            "# ?: see the remarks.",
            "",
            *(report.table(record, sizes(args), count) + "\n" for count in threads),
            "Quotients of times in the same round, medians [quartiles]:",
            report.ratios(record, threads),
            "",
            "Remarks:",
            report.remarks(record),
            "",
        ]
    )
    print(f"\n{text}")
    folder = args.out or (build.SCRATCH if args.quick else build.ROOT / "benches" / "record")
    path = folder / name_of(args)
    path.with_suffix(".txt").write_text(text)
    path.with_suffix(".csv").write_text(report.csv_text(record))
    plot = [python, build.HERE / "plot.py", path.with_suffix(".csv"), path.with_suffix(".svg")]
    drawn = subprocess.run(plot, check=False, capture_output=True, text=True)
    if drawn.returncode != 0:
        print(f"no plot: {drawn.stderr.strip().splitlines()[-1]}")
    print(f"written: {path}.txt, .csv" + ", .svg" * (drawn.returncode == 0))


if __name__ == "__main__":
    main()
