"""When a session of a study ends, and when one of its trainings does."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..billing.session_account import Account
from ..carbon.intensity import Intensity
from ..records.trial import INTERRUPTED
from ..stopping.limits import Limits
from ..stopping.stop_gain import StopGain
from ..study import Study
from .carbon_session import CarbonSession
from .session import BROKEN_OFF

if TYPE_CHECKING:
    import optuna

#: So many rejected or failed candidates in a row end a study: the space holds nothing that can be trained.
MAX_FAILURES_IN_A_ROW = 25
#: A training is ended when it takes so many times as long as the slowest one so far would have taken, and longer than this.
TIMES_EXPECTED, LEAST_SECONDS = 10.0, 60.0
#: The same before anything is known: a first epoch may take hours.
LEAST_SECONDS_UNKNOWN = 6 * 3600.0
#: After the timeout, an epoch has this long, or twice what an epoch takes, to end by itself.
TIMEOUT_GRACE_SECONDS = 10.0


@dataclass
class StopRules:
    """The rules of one session; its workers share them under the session's lock.

    Attributes:
        study: The study.
        optuna_study: Its trials, and the sampler.
        limits: When to end; what a budget in grams is worth in joules changes from hour to hour.
        account: Knows what was spent.
        interrupted: Set by Ctrl-C, and by an error in a worker.
        stop_gain: Ends the study when the rest of its budget is expected to add too little.
        intensity: Carbon per kWh, or None.
        pue: Power usage effectiveness.
        carbon: Prices joules by the hour and lets large trainings wait for clean hours; None without a forecast.
        reason: Why the study ended; None while it has not.
        epoch_seconds: What an epoch of the slowest training so far has taken, validation and all else included; None before the first.
        at_once: Whether trainings end without waiting for their epoch: after the second Ctrl-C.
    """

    study: Study
    optuna_study: optuna.Study
    limits: Limits
    account: Account
    interrupted: threading.Event
    stop_gain: StopGain
    intensity: Intensity | None = None
    pue: float = 1.0
    carbon: CarbonSession | None = None
    reason: str | None = None
    epoch_seconds: float | None = None
    at_once: bool = False
    _started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Wall time of this session."""
        return time.monotonic() - self._started

    def finished(self) -> int:
        """Number of finished trials."""
        return sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))

    def end_of_study(self, failures: int) -> str | None:
        """Return why no further trial should begin, or None.

        Args:
            failures: Trials in a row that measured nothing new.
        """
        if self.reason is None:
            self.reason = self._end_of_study(failures)
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
        return reason or self.stop_gain.not_worth_it()

    def is_full(self, under_way: int) -> bool:
        """Whether the trials under way are the last ones that the limits allow."""
        return self.limits.trials is not None and self.finished() + under_way >= self.limits.trials

    def end_of_training(self, joules: float | None) -> str | None:
        """Return why a training should end after its present epoch, or None.

        Args:
            joules: What it has taken so far; None when it is unknown, or before its start.
        """
        if self.interrupted.is_set():
            return BROKEN_OFF if self.reason == BROKEN_OFF else INTERRUPTED
        cap = self.study.max_trial_joules
        if cap is not None and joules is not None and joules >= cap:
            return f"the trial has paid its cap of {cap:g} J"
        return self._reached(trials=0)

    def timed_out(self, grace_seconds: float = TIMEOUT_GRACE_SECONDS) -> str | None:
        """Return that what is under way is to end at once, when the timeout has passed by more than so long, or None."""
        timeout = self.limits.seconds
        if timeout is None or self.seconds() <= timeout + grace_seconds:
            return None
        return f"the timeout of {timeout:g} s has passed" + (f", and {grace_seconds:.0f} s more" if grace_seconds else "")

    def took(self, seconds: float | None, epochs: int) -> None:
        """Take note of what a training has taken."""
        if seconds is not None and epochs > 0:
            self.epoch_seconds = max(self.epoch_seconds or 0.0, seconds / epochs)

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
        return self.limits.reached(joules=self.account.spent_joules(), trials=trials, seconds=self.seconds())


@dataclass
class Overdue:
    """Whether one training must end although its epoch has not; all other limits are looked at between two epochs.

    Attributes:
        rules: The rules of the session.
        epochs: Epochs that the training makes.
        reason: Why it had to end; None while it has not.
        excused: Whether that says nothing about its candidate.
    """

    rules: StopRules
    epochs: int
    reason: str | None = None
    excused: bool = False
    _began: float | None = None
    _edge: float = 0.0
    _slowest: float = 0.0

    def begin(self) -> None:
        """Take note that a phase begins; before the first one a worker process starts."""
        if self._began is None:
            self._began = self._edge = time.monotonic()

    def epoch(self) -> None:
        """Take note that an epoch has ended."""
        now = time.monotonic()
        self._slowest, self._edge = max(self._slowest, now - self._edge), now

    def __call__(self) -> str | None:
        """Return why the training must end now, or None."""
        if (found := self._outside() or self._too_long()) is not None:
            self.reason = found
        return found

    def _outside(self) -> str | None:
        """Look at what ends the session."""
        self.excused, rules = True, self.rules
        waiting = self._began is None
        if rules.at_once or (waiting and rules.interrupted.is_set()):
            return BROKEN_OFF if rules.reason == BROKEN_OFF else INTERRUPTED
        return rules.timed_out(0.0 if waiting else max(TIMEOUT_GRACE_SECONDS, 2 * self._epoch_seconds()))

    def _too_long(self) -> str | None:
        """Look at the limit of a training."""
        self.excused = False
        limit = self.rules.study.max_trial_seconds
        if limit is None:
            least = LEAST_SECONDS_UNKNOWN if self.rules.epoch_seconds is None else LEAST_SECONDS
            limit = max(least, TIMES_EXPECTED * self.epochs * self._epoch_seconds())
        if self._began is None or time.monotonic() - self._began <= limit:
            return None
        expected = "" if self.rules.study.max_trial_seconds else ", 10 times what was expected"
        return f"the training was ended after {limit:.0f} s{expected}; if it needs longer, set max_trial_seconds of the study"

    def _epoch_seconds(self) -> float:
        return max(self._slowest, self.rules.epoch_seconds or 0.0)
