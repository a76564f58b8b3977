"""The table, the ratios, and the file for plots."""

import csv
import io
import os
import platform
import statistics
import subprocess

import plan

FIELDS = ("row", "label", "bytes", "size", "parameters", "threads", "samples", "median", "q1", "q3")


def quartiles(values):
    """First quartile, median, third quartile."""
    values = sorted(values)
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, median, q3


def number(x):
    """Three digits or so."""
    return f"{x:.3f}" if x < 10 else f"{x:.2f}"


def table(record, sizes, threads):
    """Nanoseconds a parameter: medians, with quartiles."""
    cells = [(size, threads) for size in sizes if (size, threads) in record.samples]
    lines = [
        f"{f'{threads} thread' + 's' * (threads > 1):38} bytes"
        + "".join(f"{size:>24}" for size, _ in cells)
    ]
    for row in plan.ROWS:
        if row.threads is not None and threads not in row.threads:
            continue
        line = f"{row.label:38} {row.bytes or '':>5}"
        if (row.name, None) in record.missing:
            lines.append(f"{line}   absent: {record.missing[row.name, None]}")
            continue
        for cell in cells:
            line += f"{value(record, row, cell):>24}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def value(record, row, cell):
    """What stands in the table."""
    samples = record.samples[cell].get(row.name)
    if (row.name, cell) in record.missing:
        return "failed"
    if not samples:
        return "-"
    q1, median, q3 = map(number, quartiles(samples.values()))
    doubt = "" if record.notes.get((row.name, cell), "bad").startswith("ok") else "?"
    return f"{doubt}{median} [{q1}, {q3}]"


def ratio(record, goal):
    """The quotients of the two rows' times in each round that has both."""
    samples = record.samples.get((goal.size, goal.threads), {})
    a, b = samples.get(goal.a, {}), samples.get(goal.b, {})
    return [a[turn] / b[turn] for turn in a if turn in b]


def ratios(record, threads):
    """What was asked for, and what came of it."""
    lines = []
    for goal in (goal for n in threads for goal in plan.goals(n)):
        relation = "at least" if goal.relation == ">" else "at most"
        name = f"{plan.row(goal.a).label} / {plan.row(goal.b).label}"
        line = f"{name:75} {goal.size:>5} {goal.threads}T  {relation:8} {goal.bound:<5.3g}"
        quotients = ratio(record, goal)
        if quotients:
            q1, median, q3 = quartiles(quotients)
            met = median >= goal.bound if goal.relation == ">" else median <= goal.bound
            line += f" {median:7.3f} [{q1:.3f}, {q3:.3f}]  {'yes' if met else 'NO'}"
        else:
            line += "  not measured"
        lines.append(line)
    many = record.samples.get(("1000x1000", 1), {}).get("adam")
    if many:
        median = quartiles(many.values())[1]
        met = "yes" if median <= 0.8 else "NO"
        name = "ours: D-Adapt Adam, 1,000 tensors of 1,000, milliseconds"
        lines.append(f"{name:87} 1T  at most  0.8   {median:7.3f}  {met}")
    return "\n".join(lines)


def remarks(record):
    """How ours went over the memory, what failed, what looks wrong."""
    lines = []
    for (name, cell), why in record.missing.items():
        if cell is not None:
            lines.append(f"failed: {plan.row(name).label}, {cell[0]}, {cell[1]} threads: {why}")
    for (name, cell), note in record.notes.items():
        if note.startswith("bad") or (
            name == "prodigy" and not note.startswith("ok sweeps: one 100%")
        ):
            lines.append(f"{plan.row(name).label}, {cell[0]}, {cell[1]} threads: {note}")
    return "\n".join(lines) or "nothing failed; Prodigy took one sweep in all timed steps"


def csv_text(record):
    """One line for each number of the table."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for (size, threads), rows in record.samples.items():
        for row in plan.ROWS:
            if row.name in rows:
                q1, median, q3 = (f"{x:.5g}" for x in quartiles(rows[row.name].values()))
                parameters = sum(plan.SIZES[size])
                start = (row.name, row.label, row.bytes or "", size, parameters, threads)
                writer.writerow((*start, len(rows[row.name]), median, q1, q3))
    return out.getvalue()


def said(command, **options):
    """The first line of what a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except OSError:
        return ""
    return (done.stdout.strip().splitlines() or [""])[0]


def machine(python, root):
    """Lines that describe the machine and what is measured."""
    with open("/proc/cpuinfo") as lines:
        cpu = dict(line.rstrip().split("\t: ", 1) for line in map(tidy, lines) if "\t: " in line)
    with open("/proc/meminfo") as lines:
        memory = int(next(lines).split()[1]) // 2**20
    cache = said(["cat", "/sys/devices/system/cpu/cpu0/cache/index3/size"])
    commit = said(["git", "rev-parse", "--short", "HEAD"], cwd=root)
    changed = said(
        ["git", "status", "--porcelain", "--", "src", "cbindings", "Cargo.lock"], cwd=root
    )
    packages = ("torch", "dadaptation", "prodigyopt", "deepspeed", "jax", "optax", "numpy")
    versions = (
        "import importlib.metadata as m, sys\n"
        "print('Python', sys.version.split()[0], end='')\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(',', name, m.version(name), end='')\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    load = os.getloadavg()[0]
    return [
        f"{cpu.get('model name', platform.machine())}, family {cpu.get('cpu family', '?')}, model "
        f"{cpu.get('model', '?')}, {os.cpu_count()} processors, "
        f"L3 {cache or '?'}, {memory} GiB; "
        f"{platform.system()} {platform.release()}, load {load:.1f} before the run",
        f"commit {commit}{' with changes' if changed else ''}; {said(['rustc', '-V'])}; "
        f"{said(['gcc', '--version'])}",
        said([str(python), "-c", versions, *packages]) + "; candle-nn 0.11.1, burn 0.22.0",
    ]


def tidy(line):
    """A line of /proc/cpuinfo with one tab before the colon."""
    name, colon, rest = line.partition(":")
    return f"{name.strip()}\t{colon}{rest}"
