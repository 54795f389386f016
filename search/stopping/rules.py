"""When a study ends, and one of its trainings after its present epoch or inside of it: limits, failures, the gain that is left, a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Protocol

from ..carbon.intensity import Intensity, grams_co2e
from ..formatting import grams_text, joules_text
from ..records.trial import ATTRIBUTE, INTERRUPTED, Trial, counted
from ..samplers import FreezeThawSampler
from ..samplers.factory import energy_axis
from ..samplers.marginal_gain import RemainingGain, remaining_gain
from ..study import Study
from .limits import Limits

if TYPE_CHECKING:
    import optuna

    from ..billing.account import Account

#: Why a session ended that did not come to its end.
BROKEN_OFF = "broken off by an error"
#: So many rejected or failed candidates in a row end a study: the space holds nothing that can be trained.
MAX_FAILURES_IN_A_ROW = 25
#: Share of an energy budget that the default model may take; then it is measured as it is. Then that of the first of another family.
DEFAULT_SHARE, BEGINNER_SHARE = 0.1, 0.03
#: After the timeout, an epoch has this long, or twice what an epoch takes, to end by itself.
TIMEOUT_GRACE_SECONDS = 10.0
#: A study ends by itself when the rest of its limits is expected to add less than this share of the hypervolume.
STOP_GAIN = 0.005
#: So many trials come before the first look ahead, and so much larger is their number at each further one.
LEAST, GROWTH = 24, 0.1
#: What is left of a limit on trials is reckoned by the energy of so many of the latest.
LATEST = 12
#: How the reason begins.
NOT_WORTH_IT = "continuing is not worth it"


@dataclass(frozen=True)
class StopGain:
    """The expected gain of the rest of a session; the study ends when it is below a share of the hypervolume, and never for None."""

    study: Study
    optuna_study: optuna.Study
    stop_gain: float | None
    _looked: dict[str, int] = field(default_factory=dict)

    def update_remaining(self, joules_left: float | None, intensity: Intensity | None, pue: float) -> None:
        """Pass what is left to a sampler that plans with it, in the unit of its energy objective, so that the last trainings fit."""
        sampler = self.optuna_study.sampler
        if hasattr(sampler, "remaining") and joules_left is not None:
            left = max(0.0, joules_left)
            sampler.remaining = left if self._in_joules else grams_co2e(left, intensity, pue=pue)

    def not_worth_it(self, trials_left: int | None = None) -> str | None:
        """Return why the rest of the budget is not worth spending; None when it is, or no ``stop_gain`` is set.

        ``trials_left`` are those that a limit on trials allows. Looking ahead costs as much as a decision, so it is done after ``LEAST``
        trials, and then every time that their number has grown by ``GROWTH``.
        """
        if self.stop_gain is None:
            return None
        finished = sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))
        if finished < max(LEAST, self._looked.get("at", 0) * (1.0 + GROWTH)):
            return None
        self._looked["at"] = finished
        view = self.look_ahead(trials_left)
        if view is None or view.worth(self.stop_gain):
            return None
        noisy = view.noise > self.stop_gain
        limit = f"what the noise of validation makes of it ({view.noise:.2%})" if noisy else f"--stop-gain {self.stop_gain:.2%}"
        return f"{NOT_WORTH_IT}: {self.describe(view)}, less than {limit}; --no-stop goes on"

    def look_ahead(self, trials_left: int | None = None) -> RemainingGain | None:
        """Return what the rest of the budget is expected to add; None for samplers that cannot tell, and at the start."""
        sampler = self.optuna_study.sampler
        if not isinstance(sampler, FreezeThawSampler):
            return None
        return remaining_gain(sampler, self.optuna_study, self._rest(sampler.remaining, trials_left))

    def _rest(self, remaining: float | None, trials_left: int | None) -> float | None:
        """Return the energy that is left, in the unit of the sampler: by the budget, or by the latest trials and how many are left."""
        if trials_left is None:
            return remaining
        trials = [trial for trial in self.optuna_study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        paid = [trial.user_attrs.get(ATTRIBUTE, {}).get("increment_joules") for trial in trials[-LATEST:]]
        each = [joules for joules in paid if joules is not None]  # copies, which cost nothing, count as trials
        if not any(each) or not self._in_joules:
            return remaining
        rest = trials_left * float(mean(each))
        return rest if remaining is None else min(rest, remaining)

    def describe(self, view: RemainingGain) -> str:
        """Describe what continuing would cost and gain; the sampler's expectation is usually too high, see ``recent_gain``."""
        text = joules_text if self._in_joules else grams_text
        step = "" if view.next_step is None else f" (the next training alone {text(view.next_step)})"
        return f"{text(view.energy)} more{step} would add {view.share:.2%} to the hypervolume at most"

    @property
    def _in_joules(self) -> bool:
        return self.study.objectives[energy_axis(self.study)] == "train_energy"


class HourlyLimits(Protocol):
    """Limits that move with the hour: grams of CO2e buy fewer joules when the grid is dirty."""

    def limits(self, limits: Limits) -> Limits:
        """Return the limits with what the grams that are left would buy now."""

    def ended(self) -> str | None:
        """Return why grams are not known any more though the study needs them, or None."""

    def now(self) -> Intensity | None:
        """Return the intensity of this moment; None when it is unknown."""


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
        """Number of finished trials that count."""
        return counted(trial for trial in self.optuna_study.get_trials(deepcopy=False) if trial.state.is_finished())

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
            return f"the trial has paid its cap of {joules_text(cap)}"
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


#: A training is ended when it takes so many times as long as the slowest one so far would have taken, and longer than this.
TIMES_EXPECTED, LEAST_SECONDS = 10.0, 60.0
#: The same before anything is known: a first epoch may take hours.
LEAST_SECONDS_UNKNOWN = 6 * 3600.0


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
