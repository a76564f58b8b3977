"""One optimizer of the library: options by name, tensors, estimates, steps."""

from ctypes import byref, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import NamedTuple

from ._library import ALL_GROUPS, LIB, Estimate, Progress, Report, fail, ok, sized

F32, F64, BF16, F16, Q8 = 1, 2, 3, 4, 5
INDEX_I64 = 2
NON_FINITE = {"reject": 0.0, "skip": 1.0, "propagate": 2.0}
SWEEPS = {0: "none", 1: "one", 2: "mended", 3: "two"}


class StepReport(NamedTuple):
    """What a step did.

    ``k`` steps made progress so far; ``d`` is the estimate after the step and ``d_hat`` the one that this
    step alone argues for, ``numerator / denominator`` (with a factor, in some algorithms); ``dlr`` scaled the
    step; ``grad_norm`` is NaN but in SGD's first step; ``applied`` says whether parameters were
    updated, ``movement`` why ``d`` did or did not grow, ``sweeps`` in what order Prodigy went over the
    memory; ``overflows`` counts parameters of 16 bits that became infinite by rounding.
    """

    k: int
    d: float
    d_hat: float
    dlr: float
    numerator: float
    denominator: float
    grad_norm: float
    applied: bool
    movement: str
    sweeps: str
    overflows: int

    @classmethod
    def of(cls, report):
        """From the library's struct."""
        names = ("k", "d", "d_hat", "dlr", "numerator", "denominator", "grad_norm")
        name = LIB.dadapt_movement_name(report.movement)
        return cls(
            *(getattr(report, field) for field in names),
            bool(report.applied),
            name.decode() if name else "",
            SWEEPS.get(report.sweeps, ""),
            report.overflows,
        )


def new_config(algorithm, common, groups):
    """A configuration with those options; the caller frees it."""
    code, config = c_int32(), c_void_p()
    ok(LIB.dadapt_algorithm_from_name(algorithm.encode(), byref(code)))
    ok(LIB.dadapt_config_new(code, byref(config)))
    try:
        for key, value in common.items():
            ok(LIB.dadapt_config_set_f64_by_name(config, ALL_GROUPS, key.encode(), value))
        for index, options in enumerate(groups):
            if index > 0:
                ok(LIB.dadapt_config_add_group(config, None))
            for key, value in options.items():
                ok(LIB.dadapt_config_set_f64_by_name(config, index, key.encode(), value))
    except BaseException:
        LIB.dadapt_config_free(config)
        raise
    return config


def check_options(algorithm, common, groups):
    """Raises what is wrong with the options, of which nothing is kept."""
    LIB.dadapt_config_free(new_config(algorithm, common, groups))


class Native:
    """An optimizer of the library."""

    #: None in what was never initialised: torch.compile makes such objects.
    handle = None

    def __init__(self, algorithm, common, groups):
        self.handle = c_void_p()
        self.report = sized(Report)
        self._report = byref(self.report)
        self._estimate = sized(Estimate)
        config = new_config(algorithm, common, groups)
        try:
            ok(LIB.dadapt_optimizer_new(config, byref(self.handle)))
        finally:
            LIB.dadapt_config_free(config)

    def __del__(self):
        # At the interpreter's end the module may be gone; the process's memory goes too.
        if LIB is not None and self.handle:
            LIB.dadapt_optimizer_free(self.handle)
            self.handle = None

    def set(self, group, key, value):
        """Sets an option of a group, or with ALL_GROUPS of the optimizer."""
        ok(LIB.dadapt_optimizer_set_f64_by_name(self.handle, group, key.encode(), value))

    def set_openmp(self, parallel, thread_num):
        """Takes the threads of an OpenMP runtime for large steps."""
        ok(LIB.dadapt_optimizer_set_openmp(self.handle, parallel, thread_num))

    def add_tensor(self, group, name, dtype, length, own=False):
        """Registers a tensor whose state the caller keeps, or with `own` the library."""
        add = LIB.dadapt_optimizer_add_tensor_with_state_of_caller
        add = LIB.dadapt_optimizer_add_tensor if own else add
        number = c_uint64()
        ok(add(self.handle, group, name.encode(), dtype, length, byref(number)))
        return number.value

    def add_rows(self, group, name, dtype, rows, width):
        """Registers a table whose state the caller keeps."""
        number = c_uint64()
        ok(
            LIB.dadapt_optimizer_add_rows(
                self.handle, group, name.encode(), dtype, rows, width, 1, byref(number)
            )
        )
        return number.value

    def estimate(self, group=0):
        """What a group's estimate carries on; good until the next call."""
        status = LIB.dadapt_optimizer_estimate(self.handle, group, byref(self._estimate))
        if status:
            fail(status)
        return self._estimate

    def set_estimate(self, group, k, d, totals, g0_norm, d_moved):
        """Puts back what a group's estimate had come to."""
        estimate = sized(Estimate, k=k, d=d, g0_norm=g0_norm, d_moved=d_moved)
        estimate.totals[: len(totals)] = totals
        ok(LIB.dadapt_optimizer_set_estimate(self.handle, group, byref(estimate)))

    def state_count(self, number):
        """How many state arrays a tensor has."""
        count = c_size_t()
        ok(LIB.dadapt_optimizer_state_count(self.handle, number, byref(count)))
        return count.value

    def state_info(self, number, slot):
        """Name, type, elements and bytes of a tensor's state."""
        name, code, length, size = c_char_p(), c_int32(), c_size_t(), c_size_t()
        at = (self.handle, number, slot)
        ok(LIB.dadapt_optimizer_state_info(*at, byref(name), byref(code), byref(length)))
        ok(LIB.dadapt_optimizer_state_bytes(*at, byref(size)))
        return name.value.decode(), code.value, length.value, size.value

    def set_progress(self, number, steps, moved, started_at_zero, master_is_set):
        """Puts back what was known of a tensor."""
        known = {"moved": moved, "started_at_zero": started_at_zero, "master_is_set": master_is_set}
        progress = sized(Progress, steps=steps, **known)
        ok(LIB.dadapt_optimizer_set_tensor_progress(self.handle, number, byref(progress)))

    def group_report(self, group):
        """What the last step did to a group."""
        report = sized(Report)
        ok(LIB.dadapt_optimizer_group_report(self.handle, c_uint32(group), byref(report)))
        return report

    def step(self, tensors, n):
        """One step over the descriptors at that address."""
        status = LIB.dadapt_optimizer_step(self.handle, tensors, n, self._report)
        if status:
            fail(status)
        return self.report

    def begin(self):
        """Begins a step in parts."""
        ok(LIB.dadapt_optimizer_step_begin(self.handle))

    def step_tensor(self, tensor):
        """Updates the tensor of the descriptor at that address."""
        status = LIB.dadapt_optimizer_step_tensor(self.handle, tensor)
        if status:
            fail(status)

    def end(self):
        """Ends the step in parts."""
        ok(LIB.dadapt_optimizer_step_end(self.handle, self._report))
        return self.report

    def abort(self, given):
        """Ends the step in parts without an estimate; the tensors that have been updated, of those
        that were given."""
        numbers, count = (c_uint64 * max(1, given))(), c_size_t()
        ok(LIB.dadapt_optimizer_step_abort(self.handle, numbers, given, byref(count)))
        return numbers[: count.value]

    def freeze(self):
        """Stops estimating."""
        ok(LIB.dadapt_optimizer_freeze(self.handle))
