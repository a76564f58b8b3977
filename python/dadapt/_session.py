"""The library's side of an optimizer: made from its groups and state when a step needs it.

Groups and state are what counts, as in every PyTorch optimizer: whoever changes, loads, pickles or
clears them needs no more than that. A session follows them from step to step, and where they have
become something else a new one takes its place.
"""

import ctypes
import multiprocessing
import os
from array import array
from collections import Counter
from operator import attrgetter, is_, itemgetter
from threading import Lock

import torch

from . import _entries as entries
from ._addresses import Addresses, Column
from ._entries import KEPT, MASTER, SHORT, Entry, Slot
from ._library import ALL_GROUPS, Error
from ._native import INDEX_I64, Native
from ._spec import ADAGRAD_ROWS
from ._versions import Versions

GRAD = attrgetter("grad")
# dadapt_tensor in words of 8 bytes.
WORDS = 11
SIZE, ID, LEN, TYPE, P, G, STATE, STATE_COUNT, ROW_NUMBERS, ROW_COUNT, ROW_TYPE = range(WORDS)


def openmp():
    """The functions of the OpenMP runtime whose threads PyTorch computes on; None where it has none.

    After its work they spin for milliseconds, in which other threads find no processor free.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    if multiprocessing.parent_process() is not None and method != "spawn":
        return None  # as below, where the parent has not imported this
    linked = ctypes.CDLL(torch._C.__file__)
    try:
        functions = linked.GOMP_parallel, linked.omp_get_thread_num
    except AttributeError:
        return None
    return tuple(ctypes.cast(function, ctypes.c_void_p) for function in functions)


OPENMP = openmp()
#: A forked child does not have its parent's threads, and the runtime would wait for them.
PROCESS = os.getpid()


class Stale(Exception):
    """Groups or state are not what the session was made from."""


def is_rounded(group, options):
    """Whether something of a group is rounded stochastically."""
    short = any(p.dtype in SHORT for p in group["params"])
    return bool(options["state"]) or (short and not options["master"])


class Session:
    """An optimizer of the library and the parameters that it has been given."""

    def __init__(self, optimizer):
        self.spec, self.defaults = optimizer.spec, optimizer.defaults
        groups = optimizer.param_groups
        self.groups = len(groups)
        self.state = optimizer.state
        # As many threads as PyTorch has, unless somebody says another number.
        self.threads = self.defaults["num_threads"] or 0
        self.shares_threads = not self.threads and not os.environ.get("DADAPT_NUM_THREADS")
        if self.shares_threads:
            self.threads = torch.get_num_threads()
        # Python's threads may step at once; the library's handles are for one at a time.
        self.lock = Lock()
        common = self.spec.common_options(groups[0], self.defaults)
        common["num_threads"] = float(self.threads)
        options = [self.spec.group_options(group) for group in groups]
        self.native = Native(self.spec.algorithm, common, options)
        if self.shares_threads and OPENMP and os.getpid() == PROCESS:
            self.native.set_openmp(*OPENMP)
        if groups[0].get("frozen"):
            self.native.freeze()
        self.common, self.options = common, options
        # The noise of stochastic rounding follows from the tensor's steps.
        self.counts = self.spec.counts or any(map(is_rounded, groups, options))
        self.raw = [None] * self.groups
        common_keys = (*self.spec.common, *(["betas"] if "betas" in groups[0] else []))
        self.raw_of = [itemgetter(*self.spec.grouped, "state_dtype")] * self.groups
        self.raw_of[0] = itemgetter(*self.spec.grouped, "state_dtype", *common_keys)
        self.estimate_keys = ("k", "d", *self.spec.totals, *self.spec.carried)
        self.estimates = [None] * (self.groups if self.defaults["d_per_group"] else 1)
        self.parameters = [list(group["params"]) for group in groups]
        self.names = set()
        self.entries, self.waiting, self.by_id = [], [], {}
        #: What a step in parts has been given, while one is open.
        self.given = None
        self.committed = 0
        for index, group in enumerate(groups):
            for place, p in enumerate(group["params"]):
                name = self.name(group, index, place)
                held = self.state.get(p)
                if held and any(key in held for key in self.spec.slots):
                    self.resume(self.register(p, index, name, "weighted_sk" in held), held)
                else:
                    self.waiting.append((p, index, name))
        self.arrange()

    def name(self, group, index, place):
        """What messages call a parameter."""
        named = group.get("param_names")
        name = named[place] if named else f"parameter {place} of group {index}"
        if name in self.names:
            name = f"{name} (parameter {place} of group {index})"
        self.names.add(name)
        return name

    def is_current(self, optimizer):
        """Whether the optimizer has the groups and the state that this was made from."""
        groups = optimizer.param_groups
        return (
            optimizer.state is self.state
            and len(self.state) >= self.committed
            and len(groups) == self.groups
            and all(
                len(group["params"]) == len(known) and all(map(is_, group["params"], known))
                for group, known in zip(groups, self.parameters)
            )
            and not (self.shares_threads and torch.get_num_threads() != self.threads)
        )

    # ---- Registering ----

    def register(self, p, group, name, rows):
        """Gives a parameter to the library, without its state."""
        flat = bool(self.spec.flat) or self.options[group].get("slice_p", 1) != 1
        entry = Entry(p, group, name, rows, flat)
        if rows:
            width = p[0].numel() if p.dim() > 1 and p.shape[0] else 1
            entry.number = self.native.add_rows(group, name, entry.code, p.shape[0], width)
        else:
            entry.number = self.native.add_tensor(group, name, entry.code, p.numel())
        entry.slots = []
        keys = ADAGRAD_ROWS if rows else self.spec.slots
        for slot in range(self.native.state_count(entry.number)):
            name, code, values, size = self.native.state_info(entry.number, slot)
            key = MASTER if name == MASTER else keys[slot]
            dtype = KEPT[code]
            count = size if dtype == torch.uint8 else values
            there = values or not p.numel()
            entry.slots.append(Slot(key, dtype, count, values) if there else Slot(None))
        self.entries.append(entry)
        self.by_id[id(p)] = entry
        return entry

    def set_up(self, entry):
        """State for a parameter that has none yet."""
        entry.state = {"step": 0} if self.counts else {}
        for slot in entry.slots:
            if slot.key:
                entry.state[slot.key] = entry.new_state(slot, slot.key in self.spec.flat)

    def resume(self, entry, held):
        """Goes on with the state that a parameter has."""
        steps, moved = int(held.get("step", 1)), True
        for slot in entry.slots:
            key = slot.key
            if not key:
                continue
            flat = key in self.spec.flat
            if key in held:
                held[key] = entry.fit(slot, held[key], flat)
            elif key == MASTER:
                held[key] = entry.converted(slot, entry.p.detach(), flat)
            elif steps:
                raise Error(f"the state of {entry.name} lacks {key!r}")
            else:  # the library sets it up anew
                held[key] = entry.new_state(slot, flat)
            if key == self.spec.statistic:
                moved = not slot.is_zero(held[key])
        if all(slot.key != MASTER for slot in entry.slots):
            held.pop(MASTER, None)
        if self.counts:
            held.setdefault("step", steps)
        entry.state, entry.pending = held, False
        self.committed += 1
        zero = self.spec.algorithm == "prodigy" and "p0" in held and not held["p0"].any()
        # A master copy is one of the parameter by now, whatever the steps: also after a restart.
        self.native.set_progress(entry.number, steps, steps > 0 and moved, steps > 0 and zero, True)

    def register_waiting(self, groups, everything=False):
        """Registers the parameters that have their first gradient."""
        left = []
        for p, group, name in self.waiting:
            g = p.grad
            if (g is None and not (everything and p.requires_grad)) or not groups[group]["lr"]:
                left.append((p, group, name))
                continue
            rows = g is not None and g.layout == torch.sparse_coo
            if rows and self.spec.statistic != "sk":
                raise Error(
                    f"{name} has a sparse gradient, which {self.spec.algorithm} does not take: "
                    "DAdaptAdaGrad does"
                )
            self.set_up(self.register(p, group, name, rows))
        if len(left) != len(self.waiting):
            self.waiting = left
            self.arrange()

    def arrange(self):
        """Lays out the descriptors: those first that need nothing but pointers."""
        # Of those, the ones that have the arrays that most have: some may have master copies.
        kinds = [
            tuple(slot.key for slot in entry.slots) if entry.kind == entries.PLAIN else None
            for entry in self.entries
        ]
        counts = Counter(filter(None, kinds))
        keys = counts.most_common(1)[0][0] if counts else ()
        plain = [entry for entry, kind in zip(self.entries, kinds) if kind == keys]
        self.plain = plain
        self.others = [entry for entry, kind in zip(self.entries, kinds) if kind != keys]
        self.entries = self.plain + self.others
        self.slots = max([len(self.spec.slots), *(len(entry.slots) for entry in self.entries)])
        self.words = array("Q", [0] * (WORDS * max(1, len(self.entries))))
        self.state_words = array("Q", [0] * (self.slots * max(1, len(self.entries))))
        self.address = self.words.buffer_info()[0]
        self.state_address = self.state_words.buffer_info()[0]
        for place, entry in enumerate(self.entries):
            entry.place = place
            self.describe(entry, place)
        self.plain_p = [entry.p for entry in plain]
        self.plain_states = [entry.state for entry in plain]
        kinds = [entry.dtype for entry in plain], [entry.p.numel() for entry in plain]
        columns = [Column(self.words, P, WORDS, *kinds)]
        for slot, key in enumerate(keys):
            if key:
                slots = [entry.slots[slot] for entry in plain]
                of_slots = [of.dtype for of in slots], [of.size for of in slots]
                columns.append(Column(self.state_words, slot, self.slots, *of_slots, key))
        columns.append(Column(self.words, G, WORDS, *kinds))
        self.columns, self.addresses = len(columns), Addresses(columns)
        # z.conj().imag, whose memory has other signs, is contiguous where it has one element.
        self.single = [place for place, entry in enumerate(plain) if entry.p.numel() == 1]
        self.versions = Versions(self.plain_p)

    def describe(self, entry, place):
        """Fills a descriptor with what does not change from step to step."""
        at = place * WORDS
        self.words[at : at + WORDS] = array("Q", [0] * WORDS)
        self.words[at + SIZE] = 8 * WORDS
        self.words[at + ID] = entry.number
        self.words[at + LEN] = entry.p.numel()
        self.words[at + TYPE] = entry.code
        self.words[at + STATE] = self.state_address + 8 * self.slots * entry.place
        self.words[at + STATE_COUNT] = len(entry.slots)
        if entry.kind == entries.ROWS:
            self.words[at + ROW_TYPE] = INDEX_I64

    # ---- Following the groups ----

    def follow(self, groups):
        """Tells the library what has changed in the groups' options and estimates."""
        for index, group in enumerate(groups):
            raw = self.raw_of[index](group)
            if raw != self.raw[index] or any(isinstance(value, torch.Tensor) for value in raw):
                self.set_options(index, group)
                self.raw[index] = raw
        for index, known in enumerate(self.estimates):
            if tuple(map(groups[index].get, self.estimate_keys)) != known:
                self.set_estimate(index, groups[index])

    def set_options(self, index, group):
        if index == 0:
            common = self.spec.common_options(group, self.defaults)
            for key, value in common.items():
                # d0 counts at the start only, but in Prodigy, where it stays as it was.
                if value != self.common[key] and key != "d0":
                    self.native.set(ALL_GROUPS, key, value)
                    self.common[key] = value
        for key, value in self.spec.group_options(group).items():
            if value != self.options[index][key]:
                self.native.set(index, key, value)
                self.options[index][key] = value

    def set_estimate(self, index, group):
        totals = [float(group[key]) for key in self.spec.totals]
        g0_norm = float(group.get("g0_norm") or 0.0)
        moved = bool(group.get("d_moved", False))
        self.native.set_estimate(index, int(group["k"]), float(group["d"]), totals, g0_norm, moved)
        self.estimates[index] = tuple(map(group.get, self.estimate_keys))

    def write_estimates(self, groups, report):
        """Writes what the step has made of the estimates into the groups."""
        per_group = self.defaults["d_per_group"]
        for index in range(len(self.estimates)):
            estimate = self.native.estimate(index)
            new = {"k": estimate.k, "d": estimate.d}
            new.update(zip(self.spec.totals, estimate.totals))
            if "g0_norm" in self.spec.carried and estimate.g0_norm:
                new["g0_norm"] = estimate.g0_norm
            if "d_moved" in self.spec.carried:
                of_group = self.native.group_report(index) if per_group else report
                new["d_moved"] = bool(estimate.d_moved)
                new["d_hat"], new["d_denom"] = of_group.d_hat, of_group.denominator
            for group in [groups[index]] if per_group else groups:
                group.update(new)
            self.estimates[index] = tuple(map(groups[index].get, self.estimate_keys))

    # ---- Stepping ----

    def place_plain(self, *gradients):
        """Writes where plain parameters and their state are, and a list of their gradients. Whether all of
        those could be used."""
        found = self.addresses.read(self.plain_p, self.plain_states, *gradients)
        if found < self.columns - 1:
            raise Stale
        if self.addresses.moved:
            self.versions = Versions(self.plain_p)
        return found == self.columns and not any(gradients[0][at].is_neg() for at in self.single)

    def place_gradients(self, grads, copies):
        """Writes where the gradients of plain parameters are of which some are missing or elsewhere; the
        entries of the others."""
        self.addresses.forget()
        for place, (entry, g) in enumerate(zip(self.plain, grads)):
            self.words[place * WORDS + G] = entry.gradient(g, copies)
        return [entry for entry, g in zip(self.plain, grads) if g is not None]

    def state_fits(self, entry):
        return all(entry.fits(slot, entry.state[slot.key]) for slot in entry.slots if slot.key)

    def place_other(self, entry, place, g, copies):
        """Fills a descriptor of any kind of parameter, which has a gradient; its copy, if it needs one."""
        p, copy = entry.p, None
        if not (entry.still_fits() and self.state_fits(entry)):
            raise Stale
        self.describe(entry, place)
        at = place * WORDS
        if entry.kind == entries.ROWS:
            rows, values, count = entry.rows_of(g, copies)
            self.words[at + G], self.words[at + ROW_NUMBERS] = values, rows
            self.words[at + ROW_COUNT] = count
        else:
            self.words[at + G] = entry.gradient(g, copies)
        if entry.kind == entries.COPIED:
            copy = torch.empty(p.shape, dtype=entry.dtype).copy_(p.detach())
            copies.append(copy)
        self.words[at + P] = (p if copy is None else copy).data_ptr()
        for number, slot in enumerate(entry.slots):
            pointer = entry.state[slot.key].data_ptr() if slot.key else 0
            self.state_words[entry.place * self.slots + number] = pointer
        return copy

    def step(self, optimizer):
        """One step over all parameters that have gradients."""
        with self.lock:
            return self.locked_step(optimizer.param_groups)

    def locked_step(self, groups):
        self.follow(groups)
        if self.waiting:
            self.register_waiting(groups)
        n, copies, written = len(self.plain), [], []
        grads = list(map(GRAD, self.plain_p))
        all_plain = self.place_plain(grads)
        updated = [] if all_plain else self.place_gradients(grads, copies)
        if self.others:
            with torch.no_grad():
                for entry in self.others:
                    g = entry.p.grad
                    if g is None:
                        continue  # not even named: where it lies is not where the library would look
                    written.append((entry, self.place_other(entry, n + len(written), g, copies)))
                    updated.append(entry)
        report = self.native.step(self.address, n + len(written))
        if self.is_applied(report):
            self.commit(groups, updated, written, all_plain)
        self.write_estimates(groups, report)
        return report

    def is_applied(self, report):
        """Whether a step may have updated something; where each group has its d, `commit` looks."""
        return report.applied or self.defaults["d_per_group"]

    def commit(self, groups, updated, written, all_plain):
        """Notes in PyTorch's terms what a step has updated: copies, versions, counts, new state."""
        moving = [bool(options["lr"]) for options in self.options]
        if self.defaults["d_per_group"]:
            reports = map(self.native.group_report, range(self.groups))
            moving = [on and bool(report.applied) for on, report in zip(moving, reports)]
        if all_plain and not all(moving):
            updated, all_plain = updated + self.plain, False
        if not all(moving):
            updated = [entry for entry in updated if moving[entry.group]]
        if written:
            with torch.no_grad():
                for entry, copy in written:
                    if copy is not None and moving[entry.group]:
                        entry.p.copy_(copy)
        self.versions.bump(updated, all_plain)
        if self.counts:
            for entry in updated:
                entry.state["step"] += 1
            if all_plain:
                for state in self.plain_states:
                    state["step"] += 1
        if self.committed < len(self.entries):
            for entry in updated + (self.plain if all_plain else []):
                if entry.pending:
                    self.expose(entry)

    def expose(self, entry):
        """Puts the state of a parameter where the optimizer shows it."""
        held = self.state[entry.p]
        held.update(entry.state)
        if entry.place < len(self.plain):
            self.plain_states[entry.place] = held
        entry.state, entry.pending = held, False
        self.committed += 1

    # ---- A step in parts ----

    def begin(self, optimizer):
        """Begins a step that is given parameters one at a time. All must be registered before it."""
        groups = optimizer.param_groups
        self.follow(groups)
        if self.waiting:
            self.register_waiting(groups, everything=True)
        self.place_plain()
        self.native.begin()
        self.given = []
        return self

    def give(self, p):
        """Updates a parameter by its gradient, in the step that has begun."""
        entry = self.by_id.get(id(p))
        g = p.grad
        if entry is None or g is None:
            return
        temporary = []
        try:
            with torch.no_grad():
                copy = self.place_other(entry, entry.place, g, temporary)
        except Stale:
            raise Error(f"{entry.name} or its state has changed within a step") from None
        finally:
            self.addresses.forget()
        self.native.step_tensor(self.address + 8 * WORDS * entry.place)
        self.given.append((entry, copy))

    def end(self, optimizer):
        """Ends the step."""
        groups = optimizer.param_groups
        given, self.given = self.given, None
        report = self.native.end()
        if self.is_applied(report):
            self.commit(groups, [entry for entry, _ in given], given, all_plain=False)
        self.write_estimates(groups, report)
        return report

    def abort(self, optimizer):
        """Ends the step without an estimate; what has been updated stays so."""
        given, self.given = self.given, None
        numbers = set(self.native.abort(len(given)))
        done = [(entry, copy) for entry, copy in given if entry.number in numbers]
        self.commit(optimizer.param_groups, [entry for entry, _ in done], done, all_plain=False)
        self.write_estimates(optimizer.param_groups, self.native.group_report(0))
