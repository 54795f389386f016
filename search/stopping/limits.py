"""When a study ends, and when one of its trainings does: what may be spent, how many trials may run, how long all of it may take."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..carbon.intensity import Intensity
from ..energy import JOULES_PER_KWH, JOULES_PER_WH, SECONDS_PER_HOUR
from ..formatting import energy_text, read_number
from ..records.trial import INTERRUPTED, Trial
from ..study import Budget, LimitReachedError, Study

if TYPE_CHECKING:
    import optuna

    from ..billing.account import Account
    from .stop_gain import StopGain

#: Why a session ended that did not come to its end.
BROKEN_OFF = "broken off by an error"
#: So many rejected or failed candidates in a row end a study: the space holds nothing that can be trained.
MAX_FAILURES_IN_A_ROW = 25
#: A training is ended when it takes so many times as long as the slowest one so far would have taken, and longer than this.
TIMES_EXPECTED, LEAST_SECONDS = 10.0, 60.0
#: The same before anything is known: a first epoch may take hours.
LEAST_SECONDS_UNKNOWN = 6 * 3600.0
#: Share of an energy budget that the default model may take; then it is measured as it is. Then that of the first of another family.
DEFAULT_SHARE, BEGINNER_SHARE = 0.1, 0.03
#: After the timeout, an epoch has this long, or twice what an epoch takes, to end by itself.
TIMEOUT_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Limits:
    """Totals of a study; None is no limit.

    The joules are those of the whole search, the seconds the wall time of this session; the label is the budget as the user wrote it.
    """

    joules: float | None = None
    trials: int | None = None
    seconds: float | None = None
    label: str = ""

    def reached(self, *, joules: float | None, trials: int, seconds: float) -> str | None:
        """Return which limit is reached, or None.

        ``joules`` are those spent so far by all sessions, None when they cannot be measured; ``seconds`` are those of this session.
        """
        if self.joules is not None and joules is not None and joules >= self.joules:
            return f"the budget of {self.label} is spent"
        if self.trials is not None and trials >= self.trials:
            return f"all {self.trials} trials are done"
        if self.seconds is not None and seconds >= self.seconds:
            return f"the timeout of {self.seconds:g} s has passed"
        return None


def joules_of(budget: Budget, *, grams_per_kwh: float | None, pue: float = 1.0, price_per_kwh: tuple[float, str] | None = None) -> float:
    """Turn a budget in energy, carbon or money into joules.

    Raises:
        ValueError: If the factor that is needed is unknown; the message names the option that gives it.
    """
    if budget.joules is not None:
        return budget.joules
    if budget.grams_co2e is not None:
        if not grams_per_kwh:
            raise ValueError(
                f"--budget {budget.to_text()} needs the carbon intensity of the place, above 0: add --zone FR or --intensity 56 (g/kWh)"
            )
        return budget.grams_co2e / (grams_per_kwh * pue) * JOULES_PER_KWH
    assert budget.money is not None
    amount, currency = budget.money
    if price_per_kwh is None or price_per_kwh[1] != currency or not price_per_kwh[0] > 0:
        raise ValueError(f"--budget {budget.to_text()} needs a price above 0 per kWh in {currency}: add --price 0.25{currency}")
    return amount / (price_per_kwh[0] * pue) * JOULES_PER_KWH


#: Units of time -> seconds.
_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": SECONDS_PER_HOUR, "d": 24 * SECONDS_PER_HOUR}


def seconds_of(text: str, name: str = "--timeout") -> float:
    """Read a duration, the value of the option ``name``: ``90s``, ``30 min``, ``2h``, or ``1:30:00`` as progress prints it.

    >>> seconds_of("30m"), seconds_of("1:30:00")
    (1800.0, 5400.0)

    Raises:
        ValueError: If it is not a positive number with a unit.
    """
    amount: float | None = None
    if clock := re.fullmatch(r"\s*(?:(\d+):)?(\d+):(\d\d)\s*", text):
        amount = int(clock[1] or 0) * SECONDS_PER_HOUR + int(clock[2]) * 60.0 + int(clock[3])
    elif found := re.fullmatch(r"(.*?)\s*([a-z]+)\s*", text, re.DOTALL):
        number, factor = read_number(found[1]), _SECONDS.get(found[2])
        amount = None if number is None or factor is None else number * factor
    if amount is None or not 0 < amount < math.inf:
        raise ValueError(f"{name} must be a positive number with s, m, h or d, got {text!r}; for example {name} 30m")
    return amount


def refuse_wrong_limits(
    trials: int | None, timeout_seconds: float | None, stop_gain: float | None, warm_start: Sequence[str | Path] = ()
) -> None:
    """Refuse what no session can run with, before a folder is made.

    Raises:
        ValueError: If an argument breaks its rule; the message names it, its value and the rule.
    """
    if trials is not None and not trials >= 1:
        raise ValueError(f"trials (--trials) must be >= 1, got {trials!r}; None is no limit")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds (--timeout) must be > 0, got {timeout_seconds!r}; None is no limit")
    if stop_gain is not None and not 0 <= stop_gain < 1:
        raise ValueError(f"stop_gain (--stop-gain) must be a share >= 0 and < 1, got {stop_gain!r}; 0.005 is half a percent")
    if isinstance(warm_start, str | Path):
        raise ValueError(f"warm_start (--warm-start) must be a list of run folders, got {str(warm_start)!r}; write [{str(warm_start)!r}]")


def limits_of(
    study: Study,
    budget: Budget | None,
    trials: int | None,
    timeout_seconds: float | None,
    spent_joules: float | None,
    finished: int,
    grams_per_kwh: float | None,
    pue: float,
    price_per_kwh: tuple[float, str] | None,
) -> tuple[Limits, str | None]:
    """Return the limits of a session, which are totals of the study, and a sentence for the user when they were raised.

    A study that has reached its own limits continues for as much again, unless a limit was given for this session.

    Raises:
        ValueError: If there is no limit at all, or a limit that was given is reached already.
    """
    given = budget is not None or trials is not None
    chosen = budget if budget is not None else None if trials is not None else study.budget
    count = trials if trials is not None else None if budget is not None else study.trials
    joules = None if chosen is None else joules_of(chosen, grams_per_kwh=grams_per_kwh, pue=pue, price_per_kwh=price_per_kwh)
    if joules is None and count is None and timeout_seconds is None:
        raise ValueError("a study needs an end: give --budget 5Wh, --trials 40 or --timeout 30m, or set it in the study")
    limits = Limits(joules, count, timeout_seconds, "" if chosen is None else chosen.to_text())
    reached = limits.reached(joules=spent_joules, trials=finished, seconds=0.0)
    if reached is None:
        return limits, None
    if given:
        raise LimitReachedError(f"{reached} already (limits count the whole study); give a larger one to continue")
    further = replace(
        limits,
        joules=None if joules is None else joules + (spent_joules or 0.0),
        trials=None if count is None else count + finished,
        label="" if joules is None else energy_text((joules + (spent_joules or 0.0)) / JOULES_PER_WH),
    )
    return further, f"{reached}; continuing for as much again"


def share_of(text: str) -> float:
    """Read a share: ``0.5%`` or ``0.005``.

    >>> share_of("0.5%")
    0.005

    Raises:
        ValueError: If it is not a share between 0 and 1.
    """
    try:
        value = float(text.rstrip()[:-1]) / 100 if text.rstrip().endswith("%") else float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1:
        raise ValueError(f"--stop-gain must be a share between 0 and 1 or a percentage, got {text!r}; for example 0.5%")
    return value


class HourlyLimits(Protocol):
    """Limits that move with the hour: grams of CO2e buy fewer joules when the grid is dirty."""

    def limits(self, limits: Limits) -> Limits:
        """Return the limits with what the grams that are left would buy now."""
        ...

    def ended(self) -> str | None:
        """Return why grams are not known any more though the study needs them, or None."""
        ...

    def now(self) -> Intensity | None:
        """Return the intensity of this moment; None when it is unknown."""
        ...


@dataclass
class StopRules:
    """The rules of one session; its workers share them under the session's lock.

    Attributes:
        limits: When to end; what a budget in grams is worth in joules changes from hour to hour.
        interrupted: Set by Ctrl-C, and by an error in a worker.
        stop_gain: Ends the study when the rest of its budget is expected to add too little.
        carbon: Moves the limits with the hour; None without a forecast.
        reason: Why the study ended; None while it has not.
        epoch_seconds: What an epoch of the slowest training so far has taken, validation and all else included; None before the first.
        at_once: Whether trainings end without waiting for their epoch: after the second Ctrl-C.
        stopped: Returns why the study was stopped for all its workers, or None.
    """

    study: Study
    optuna_study: optuna.Study
    limits: Limits
    account: Account
    interrupted: threading.Event
    stop_gain: StopGain
    intensity: Intensity | None = None
    pue: float = 1.0
    carbon: HourlyLimits | None = None
    reason: str | None = None
    epoch_seconds: float | None = None
    at_once: bool = False
    stopped: Callable[[], str | None] = lambda: None
    _started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Wall time of this session."""
        return time.monotonic() - self._started

    def finished(self) -> int:
        """Number of finished trials."""
        return sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))

    def end_of_study(self, failures: int) -> str | None:
        """Return why no further trial should begin, or None; failures are trials in a row that measured nothing new."""
        self.reason = self.reason or self._end_of_study(failures)
        return self.reason

    def _end_of_study(self, failures: int) -> str | None:
        if self.interrupted.is_set():
            return "interrupted"
        if failures >= MAX_FAILURES_IN_A_ROW:
            return f"{failures} candidates in a row failed or were refused; see the reasons with joulefront report"
        if getattr(self.optuna_study.sampler, "exhausted", False):
            return "every combination has been tried"
        reason = self._reached(self.finished()) or (self.carbon and self.carbon.ended())
        self.update_remaining()
        return reason or self.stop_gain.not_worth_it(None if self.limits.trials is None else self.limits.trials - self.finished())

    def is_full(self, under_way: int) -> bool:
        """Whether the trials under way are the last ones that the limits allow."""
        return self.limits.trials is not None and self.finished() + under_way >= self.limits.trials

    def end_of_training(self, joules: float | None, *, default: bool = False, beginner: bool = False, seconds: float = 0.0) -> str | None:
        """Return why a training should end after its present epoch, or None; its joules are None when unknown, or before its start.

        The ``default`` model may take ``DEFAULT_SHARE`` of a budget, and of a timeout, another ``beginner`` ``BEGINNER_SHARE``.
        """
        if self.interrupted.is_set():
            return BROKEN_OFF if self.reason == BROKEN_OFF else INTERRUPTED
        cap = self.study.max_trial_joules
        if cap is not None and joules is not None and joules >= cap:
            return f"the trial has paid its cap of {energy_text(cap / JOULES_PER_WH)}"
        share, who = (DEFAULT_SHARE, "the default model") if default else (BEGINNER_SHARE if beginner else 1.0, "the first of a family")
        most = self.limits.joules
        if share < 1 and joules is not None and most is not None and joules >= share * most:
            return f"{who} may take {share:.0%} of the budget"
        if share < 1 and self.limits.seconds is not None and seconds >= share * self.limits.seconds:
            return f"{who} may take {share:.0%} of the timeout"
        return self._reached(trials=0)

    def timed_out(self, grace_seconds: float = TIMEOUT_GRACE_SECONDS) -> str | None:
        """Return that what is under way is to end at once, when the timeout has passed by more than so long, or None."""
        timeout = self.limits.seconds
        if timeout is None or self.seconds() <= timeout + grace_seconds:
            return None
        return f"the timeout of {timeout:g} s has passed" + (f", and {grace_seconds:.0f} s more" if grace_seconds else "")

    def took(self, seconds: float | None, epochs: int) -> None:
        """Take note of what a training has taken."""
        self.epoch_seconds = slowest_epoch(self.epoch_seconds, seconds, epochs)

    def break_off(self, error: BaseException) -> None:
        """End the study for all workers because one of them failed."""
        self.reason = "interrupted" if isinstance(error, KeyboardInterrupt) else BROKEN_OFF
        self.interrupted.set()

    def update_remaining(self) -> None:
        """Give the sampler what remains of the budget."""
        spent = self.account.spent_joules()
        left = None if self.limits.joules is None or spent is None else self.limits.joules - spent
        self.stop_gain.update_remaining(left, self.intensity if self.carbon is None else self.carbon.now(), self.pue)

    def _reached(self, trials: int) -> str | None:
        if self.carbon is not None:  # a budget in grams is worth fewer joules in dirty hours
            self.limits = self.carbon.limits(self.limits)
        return self.stopped() or self.limits.reached(joules=self.account.spent_joules(), trials=trials, seconds=self.seconds())


def slowest_epoch(known: float | None, seconds: float | None, epochs: int) -> float | None:
    """Return what an epoch takes in the slowest training, after one more has taken so many seconds; None while no training is known."""
    return known if seconds is None or epochs < 1 else max(known or 0.0, seconds / epochs)


def pace_of(trials: Iterable[Trial], hardware_id: str) -> float | None:
    """Return what an epoch has taken in the slowest of some trials on this hardware; None when none of them is complete."""
    found = None
    for trial in trials:
        if trial.state == "complete" and trial.hardware_id in (None, hardware_id):
            found = slowest_epoch(found, trial.energy.record.get("seconds"), len(trial.curve))
    return found


class TimeLimit:
    """Whether one training takes too long: longer than its study allows, or many times what the slowest one would have taken.

    Attributes:
        most_seconds: The limit of the study, or None.
        epochs: Epochs that the training makes.
        expected: Returns what an epoch has taken in the slowest training so far, or None before the first.
        reason: Why it had to end; None while it has not.
    """

    def __init__(self, most_seconds: float | None, epochs: int, expected: Callable[[], float | None]) -> None:
        self.most_seconds, self.epochs, self.expected = most_seconds, epochs, expected
        self.reason: str | None = None
        self._began: float | None = None
        self._apart: float | None = None
        self._edge = self._slowest = 0.0

    def begin(self, kind: str = "") -> None:
        """Take note that a phase begins; before the first one a worker process starts.

        The time of ``features`` is left out: they are computed once, for many trainings that take a fraction of that.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = self._edge = now
        if self._apart is not None:
            self._began, self._edge = self._began + (now - self._apart), self._edge + (now - self._apart)
        self._apart = now if kind == "features" else None

    def epoch(self) -> None:
        """Take note that an epoch has ended."""
        now = time.monotonic()
        self._slowest, self._edge = max(self._slowest, now - self._edge), now

    def __call__(self) -> str | None:
        """Return why the training must end now, or None."""
        if (found := self._found()) is not None:
            self.reason = found
        return found

    def _found(self) -> str | None:
        limit = self.most_seconds
        if limit is None:
            least = LEAST_SECONDS_UNKNOWN if self.expected() is None or self._apart is not None else LEAST_SECONDS
            limit = max(least, TIMES_EXPECTED * self.epochs * self._epoch_seconds())
        if self._began is None or time.monotonic() - self._began <= limit:
            return None
        expected = "" if self.most_seconds else ", 10 times what was expected"
        remedy = "if it needs longer, give --trial-timeout (Python: max_trial_seconds of the study)"
        return f"the training was ended after {limit:.0f} s{expected}; {remedy}"

    def _epoch_seconds(self) -> float:
        return max(self._slowest, self.expected() or 0.0)


class Overdue(TimeLimit):
    """Whether a trial's training must end although its epoch has not; all other limits are looked at between two epochs.

    ``excused`` tells whether its end says nothing about its candidate.
    """

    def __init__(self, rules: StopRules, epochs: int) -> None:
        super().__init__(rules.study.max_trial_seconds, epochs, lambda: rules.epoch_seconds)
        self.rules, self.excused = rules, False

    def _found(self) -> str | None:
        self.excused = True
        if (outside := self._outside()) is not None:
            return outside
        self.excused = False
        return super()._found()

    def _outside(self) -> str | None:
        """Look at what ends the session; features have no epoch whose end could be waited for, and what is stored of them stays."""
        rules, at_once = self.rules, self._began is None or self._apart is not None
        if rules.at_once or (at_once and rules.interrupted.is_set()):
            return BROKEN_OFF if rules.reason == BROKEN_OFF else INTERRUPTED
        spent = None if self._apart is None or rules.limits.joules is None else rules.account.spent_joules()
        if (found := rules.limits.reached(joules=spent, trials=0, seconds=0.0)) is not None:
            return found
        return rules.timed_out(0.0 if at_once else max(TIMEOUT_GRACE_SECONDS, 2 * self._epoch_seconds()))
