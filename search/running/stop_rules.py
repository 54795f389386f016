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
