"""What the optimizers for PyTorch have in common."""

import logging
from collections import defaultdict
from itertools import chain

import torch

from . import _entries
from ._library import Error
from ._native import StepReport, check_options
from ._session import Session, Stale
from ._spec import ADAGRAD_ROWS, state_name

LOG = logging.getLogger("dadapt")

#: Keyword arguments that the packages lack, of every optimizer.
EXTRAS = {
    "layer_scale": 1.0,
    "growth_rate": float("inf"),
    "d_cap": float("inf"),
    "non_finite": "reject",
    "d_per_group": False,
    "num_threads": None,
    "state_dtype": None,
    "master": True,
    "seed": 0,
    "log_every": 0,
}


class Optimizer(torch.optim.Optimizer):
    """Base of the optimizers. The library does the steps, on the tensors of ``params`` and ``state``
    where they lie.

    Keyword arguments of every optimizer that the packages lack: ``layer_scale``, ``growth_rate``,
    ``slice_p`` (where the algorithm has it), ``log_every`` in all; ``d_cap``, what ``d`` does not grow
    beyond; ``non_finite``, what a NaN or an infinity in a gradient does: ``"reject"`` the step with
    an error that changes nothing, ``"skip"`` it, or ``"propagate"``; ``d_per_group=True`` for an estimate a
    group; ``num_threads``, else DADAPT_NUM_THREADS or ``torch.get_num_threads()``; ``state_dtype``,
    what state is kept in: ``None`` or ``"full"``, the type that steps are computed in; ``"compact"``, 8 bits
    for ``s`` and bf16 for the rest; ``torch.bfloat16`` or ``"bf16"``; ``"q8"``, 8 bits; ``master``,
    whether parameters of 16 bits have a copy of f32 among their state, or are rounded stochastically;
    ``seed``, of the noise of stochastic rounding.
    """

    spec = None
    #: Class-wide so that the base class's __init__, which adds groups, finds them.
    _session = None
    _report = None
    _loading = None
    _in_backward = False

    def __init__(self, params, defaults, **extras):
        unknown = set(extras) - set(EXTRAS) - {"slice_p"}
        if unknown or ("slice_p" in extras and not self.spec.sliced):
            names = ", ".join(map(repr, sorted(unknown or {"slice_p"})))
            raise TypeError(f"{type(self).__name__} has no argument {names}")
        settings = {**EXTRAS, **({"slice_p": 1} if self.spec.sliced else {}), **defaults, **extras}
        check_settings(settings)
        totals = dict.fromkeys(self.spec.totals, 0.0)
        if "d_max" in totals:
            totals["d_max"] = settings["d0"]
        self.d0 = settings["d0"]
        super().__init__(params, {**settings, "d": settings["d0"], "k": 0, **totals})
        self.check_groups(self.param_groups, self.defaults)

    @property
    def supports_memory_efficient_fp16(self):
        """For fairseq: no."""
        return False

    @property
    def supports_flat_params(self):
        """For fairseq: yes."""
        return True

    def check_groups(self, groups, defaults):
        """Raises what is wrong with the options of groups."""
        common = self.spec.common_options(groups[0], defaults)
        check_options(self.spec.algorithm, common, list(map(self.spec.group_options, groups)))

    def add_param_group(self, param_group):
        """Adds a group, as PyTorch's optimizers do; parameters must be on the CPU."""
        before = len(self.param_groups)
        self.refuse_open("add_param_group")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for place, p in enumerate(group["params"]):
                _entries.check_parameter(p, f"parameter {place} of group {before}")
            first = self.param_groups[0]
            self.check_groups([first, group], self.defaults)
        except BaseException:
            del self.param_groups[before:]
            raise
        self._session = None

    # ---- Steps ----

    def step(self, closure=None):
        """One step: updates parameters and state, then the estimate ``d`` of the groups.

        Arguments:
            closure (callable, optional): computes the loss again, with gradients, and returns it.

        An error leaves parameters, state and groups as they were. With
        :func:`dadapt.step_in_backward` the parameters have been updated by ``backward`` already, and
        this ends the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        session = self._session
        if session is not None and session.given is not None:
            self._report = session.end(self)
        elif self._in_backward:
            self._report = self.with_session(Session.begin).end(self)
        else:
            self._report = self.with_session(Session.step)
        every = self.param_groups[0]["log_every"]
        if every > 0:
            self.log(every)
        return loss

    def with_session(self, do):
        """Does something with the library's side, which is made anew where parameters, groups or state
        have become others."""
        if self._session is None or not self._session.is_current(self):
            self._session = None
            self._session = Session(self)
        try:
            return do(self._session, self)
        except Stale:
            self._session = None
            self._session = Session(self)
        try:
            return do(self._session, self)
        except Stale:
            self._session = None
            what = "the memory of a parameter or of its state cannot be read, or another thread moves it"
            raise Error(what) from None

    @property
    def report(self):
        """What the last step did, a :class:`dadapt.StepReport`; None before the first."""
        return None if self._report is None else StepReport.of(self._report)

    def group_report(self, index):
        """What the last step did to a group, which has a ``d`` of its own with ``d_per_group``."""
        if self._session is None:
            raise Error("there has been no step yet, or groups or state have changed since")
        return StepReport.of(self._session.native.group_report(index))

    def log(self, every):
        """Logs a line on d every so many steps."""
        report = self.report
        k = report.k - 1 if report.applied else report.k
        if k % every == 0:
            LOG.info(
                "(k=%d) lr: %s dlr: %.3e d_hat: %.3e, d: %.3e (%s). numerator=%.1e denominator=%.1e",
                k,
                self.param_groups[0]["lr"],
                report.dlr,
                report.d_hat,
                report.d,
                report.movement,
                report.numerator,
                report.denominator,
            )

    def freeze(self):
        """Stops estimating, for good: ``d`` stays, and the state that only estimates need is freed."""
        self.refuse_open("freeze")
        for group in self.param_groups:
            group["frozen"] = True
        if self.spec.statistic == "s" and self.spec.sliced:  # not where parameters follow from it
            for state in self.state.values():
                for key in ("s", "p0"):
                    state.pop(key, None)
        self._session = None

    def refuse_open(self, what):
        """Raises where a step in parts has not ended."""
        if self._session is not None and self._session.given is not None:
            raise Error(f"{what}: a step in parts is open; call step() first, which ends it")

    # ---- State ----

    def state_dict(self):
        """The state, as the package's ``state_dict`` has it, and as its ``load_state_dict`` takes it."""
        self.refuse_open("state_dict")
        packed = super().state_dict()
        parameters = list(chain.from_iterable(group["params"] for group in self.param_groups))
        numbers = chain.from_iterable(group["params"] for group in packed["param_groups"])
        of_number = dict(zip(numbers, parameters))
        packed["state"] = {
            number: exported(state, of_number.get(number))
            for number, state in packed["state"].items()
        }
        return packed

    def load_state_dict(self, state_dict):
        """Loads a state of this class's or of the package's, and goes on from there."""
        self.refuse_open("load_state_dict")
        self._loading = state_dict
        hook = None
        if hasattr(self, "register_load_state_dict_pre_hook"):
            # The last of the hooks: it sees what the others have made of the state.
            hook = self.register_load_state_dict_pre_hook(Optimizer.note_loading)
        try:
            super().load_state_dict(state_dict)
        finally:
            self._loading = None
            if hook is not None:
                hook.remove()

    def note_loading(self, state_dict):
        self._loading = state_dict

    def __setstate__(self, state):
        # Called to unpickle and to copy too, without self._loading.
        if self._loading is not None:
            state = self.loaded(state)
        self.__dict__.update(_session=None, _report=None)
        super().__setstate__(state)
        self.d0 = self.param_groups[0]["d0"] if self.param_groups else self.defaults["d0"]

    def loaded(self, new):
        """Checked groups and state in place of those that PyTorch has made of a state dict: it has
        rounded state to the parameters' type."""
        groups = new["param_groups"]
        for index, (group, before) in enumerate(zip(groups, self.param_groups)):
            given, own = group.get("state_dtype", before["state_dtype"]), before["state_dtype"]
            if state_name(given) != state_name(own):
                raise Error(
                    f"the state dict has state_dtype={given!r} in group {index}, and this optimizer "
                    f"{own!r}: state is not converted; make the optimizer with state_dtype={given!r}"
                )
            for key, value in before.items():
                group.setdefault(key, value)  # what the package lacks
            group["master"] = before["master"]  # of either kind, the other goes on
        check_settings(groups[0])
        self.check_groups(groups, self.defaults)
        saved = self._loading
        numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in groups)
        of_number = dict(zip(numbers, parameters))
        state = defaultdict(dict)
        for number, held in saved["state"].items():
            p = of_number.get(number)
            if p is None:
                state[number] = held
            else:
                state[p] = imported(held, self.spec.derived)
        # A session that is made of them checks the rest.
        trial = Trial(self.spec, self.defaults, state, groups)
        Session(trial).follow(groups)
        return {**new, "state": state, "param_groups": groups}

    @torch.no_grad()
    def restart_opt(self):
        """Adan's restart: forgets all state, and starts it anew with the next gradient; ``d``, ``k``
        and master copies of parameters stay."""
        if "pre_grad" not in self.spec.slots:
            raise Error(
                f"{type(self).__name__} has no restart: DAdaptAdan and DAdaptAdanIP have one"
            )
        self.refuse_open("restart_opt")
        for group in self.param_groups:
            group.update(dict.fromkeys(self.spec.totals, 0.0))
            for p in group["params"]:
                if p in self.state:
                    for key in self.spec.slots:
                        if key in self.state[p]:
                            self.state[p][key].zero_()
                    self.state[p]["step"] = 0
        self._session = None


class Trial:
    """Groups and state that a session is made from to see whether it can be."""

    def __init__(self, spec, defaults, state, groups):
        self.spec, self.defaults, self.state, self.param_groups = spec, defaults, state, groups


def check_settings(settings):
    """Raises what the packages raise, in their words, and what only we can know."""
    if not settings["d0"] > 0.0:
        raise ValueError(f"Invalid d0 value: {settings['d0']}")
    if settings.get("fsdp_in_use"):
        raise ValueError(
            "fsdp_in_use=True: sharded parameters are not supported, since sums over ranks would "
            "be missing. Step whole parameters, or use the package for this"
        )
    state_name(settings["state_dtype"])


def exported(state, p):
    """A parameter's state as the package has it."""
    if not isinstance(p, torch.Tensor):
        return state
    if "x0" in state and "s" in state:
        return {**state, "z": (state["x0"] - state["s"]).detach()}
    if ADAGRAD_ROWS[-1] in state:
        # Rows that no gradient has touched are 0 here; there they are set up with the others.
        untouched = state["alphak"] == 0
        alphak = state["alphak"].masked_fill(untouched, 1e-6)
        x0 = torch.where(untouched, p.detach(), state["x0"])
        return {**state, "alphak": alphak, "x0": x0}
    return state


def imported(state, derived):
    """A copy of a parameter's state, as we have it."""
    return {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
        if key not in derived
    }
