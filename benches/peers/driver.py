"""Workers, and the rounds in which they take turns."""

import os
import random
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field

import build
import plan

# Between two samples: threads of the one before may spin for some milliseconds, as OpenMP's do.
PAUSE = 0.008
# A first setup may compile a kernel.
FIRST_SETUP = 900
SETUP = 180
RUN = 120


class Absent(Exception):
    """Why a row cannot be measured."""


class Worker:
    """The process of a row."""

    def __init__(self, row, threads, python):
        program = [build.RUST] if row.worker == "rust" else [python, build.HERE / "worker.py"]
        self.lens = None
        self.new = True
        self.lasting = row.worker != "rust"
        logs = build.SCRATCH / "log"
        logs.mkdir(exist_ok=True)
        self.log = logs / f"{row.name}-{threads}.txt"
        # The last processors: the first are where interrupts tend to go. Python's workers bind
        # themselves, once they have imported what they need.
        allowed = sorted(os.sched_getaffinity(0))
        bound = allowed[-threads:]
        environment = build.environment(threads, row.tuned, plan.TUNED, python)
        environment["PEERS_CPUS"] = ",".join(map(str, bound))
        first = bound if row.worker == "rust" else allowed
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*program, row.worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=build.SCRATCH,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, first),
            )

    def ask(self, line, seconds):
        """The answer to a line, which must come in time."""
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Absent(f"{line.split()[0]} took more than {seconds:.0f} s")
        answer = self.process.stdout.readline().decode().strip()
        if not answer:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise Absent(f"ended in {line.split()[0]}: {said[-1] if said else 'without a word'}")
        if answer.startswith("error "):
            raise Absent(answer.removeprefix("error "))
        return answer

    def setup(self, row, lens):
        """Makes the case, if it is not there."""
        if self.lens is not lens:
            seconds = FIRST_SETUP if self.new else SETUP
            self.ask(f"setup {row.name} {','.join(map(str, lens))}", seconds)
            self.lens, self.new = lens, False

    def drop(self):
        """Frees the case; whether the process can take another."""
        if self.lens is not None and self.lasting:
            self.lens = None
            self.ask("drop", SETUP)
        return self.lens is None

    def stop(self):
        """Ends the process."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@dataclass(frozen=True)
class Pace:
    """How long a run may take."""

    rounds: int
    fewest: int  # rounds of a row that has used up its time
    seconds: float  # of a row in a cell
    sample: float  # seconds that a sample takes, if two steps do not take longer


NORMAL = Pace(rounds=11, fewest=5, seconds=5.0, sample=0.02)
QUICK = Pace(rounds=5, fewest=3, seconds=1.0, sample=0.01)


@dataclass
class Record:
    """What was measured: samples by (size, threads), row and (part, round)."""

    samples: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)
    missing: dict = field(default_factory=dict)

    def add(self, cell, row, turn, nanoseconds):
        """One sample, in nanoseconds a parameter."""
        self.samples.setdefault(cell, {}).setdefault(row, {})[turn] = nanoseconds


class Driver:
    """Measures cells: all rows of one size and number of threads, in turn."""

    def __init__(self, python, pace, everything, rust_missing):
        self.python = python
        self.pace = pace
        self.everything = everything
        self.record = Record()
        self.workers = {}
        self.shuffle = random.Random(1)
        if rust_missing:
            for row in plan.ROWS:
                if row.worker == "rust":
                    self.lose(row, f"cannot be built: {rust_missing}")

    def lose(self, row, why):
        """The row is not measured any more."""
        print(f"    absent: {row.label}: {why}", flush=True)
        self.record.missing[row.name, None] = why

    def cell(self, size, threads):
        """Measures a size, in parts where memory does not hold all rows at once."""
        elements = sum(plan.SIZES[size])
        rows = [
            row
            for row in plan.rows(size, threads, self.everything)
            if (row.name, None) not in self.record.missing
        ]
        for number, part in enumerate(parts(rows, elements)):
            self.part(size, threads, number, part)
        self.drop([])

    def part(self, size, threads, number, rows):
        """Measures rows in turn, in a new order each time."""
        cell, elements = (size, threads), sum(plan.SIZES[size])
        untimed = 2 if elements <= 3_000_000 else 0
        self.drop(rows)
        steps = self.begin(rows, cell)
        left = dict.fromkeys(steps, self.pace.seconds)
        for turn in range(self.pace.rounds):
            order = [row for row in steps if self.goes_on(left[row], turn)]
            self.shuffle.shuffle(order)
            for row in order:
                time.sleep(PAUSE)
                worker = self.workers[row.name, threads]
                try:
                    seconds = float(worker.ask(f"run {untimed} {steps[row]}", RUN))
                except Absent as why:
                    self.fail(row, cell, str(why))
                    del steps[row]
                    continue
                left[row] -= seconds * (1 + untimed / steps[row])
                nanoseconds = seconds / steps[row] / elements * 1e9
                self.record.add(cell, row.name, (number, turn), nanoseconds)
        for row in steps:
            try:
                answer = self.workers[row.name, threads].ask("check", SETUP)
            except Absent as why:
                answer = f"bad {why}"
            self.record.notes[row.name, cell] = answer

    def goes_on(self, left, turn):
        """Whether a row with so many seconds left takes part in the turn."""
        few = turn < self.pace.fewest and left > -3 * self.pace.seconds
        return left > 0 or few or turn == 0

    def begin(self, rows, cell):
        """Sets up the rows that are not there yet; how many steps make a sample of each."""
        size, threads = cell
        # All at once, since importing takes seconds.
        for row in rows:
            if (row.name, threads) not in self.workers:
                self.workers[row.name, threads] = Worker(row, threads, self.python)
        steps = {}
        # In any order: of equal cases beyond the cache the one that is there first is some percent slower.
        for row in self.shuffle.sample(rows, len(rows)):
            worker = self.workers[row.name, threads]
            try:
                worker.setup(row, plan.SIZES[size])
                once = max(float(worker.ask("run 0 2", RUN)) / 2, 1e-6)
                steps[row] = max(2, round(self.pace.sample / once))
            except Absent as why:
                self.fail(row, cell, str(why))
        return steps

    def fail(self, row, cell, why):
        """The row is absent from the cell, and from all if it was never there."""
        self.workers.pop((row.name, cell[1])).stop()
        if any(row.name in samples for samples in self.record.samples.values()):
            print(f"    failed: {row.label}: {why}", flush=True)
            self.record.missing[row.name, cell] = why
        else:
            self.lose(row, why)

    def drop(self, kept):
        """Frees the cases of all rows but those."""
        names = {row.name for row in kept}
        for (name, count), worker in list(self.workers.items()):
            if name not in names:
                try:
                    lasts = worker.drop()
                except Absent:
                    lasts = False
                if not lasts:
                    self.workers.pop((name, count)).stop()

    def stop(self):
        """Ends all workers."""
        for worker in self.workers.values():
            worker.stop()
        self.workers.clear()


def parts(rows, elements):
    """Rows that memory holds at once; each part has the anchors, so that ratios can be taken."""
    budget = 0.6 * available() / (4 * elements)
    if sum(row.arrays for row in rows) <= budget:
        return [rows]
    anchors = [row for row in rows if row.name in plan.ANCHORS]
    parts, room = [], 0
    for row in rows:
        if row in anchors:
            continue
        if row.arrays > room:
            parts.append(list(anchors))
            room = budget - sum(anchor.arrays for anchor in anchors)
        parts[-1].append(row)
        room -= row.arrays
    return parts


def available():
    """Bytes of memory that programs can have."""
    with open("/proc/meminfo") as lines:
        return 1024 * next(
            int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
        )
