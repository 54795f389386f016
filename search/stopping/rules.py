"""When a study ends, and one of its trainings: limits of energy, carbon, money, trials and time, failures, no gain ahead, a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Protocol

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import JOULES_PER_KWH
from ..execution.watch import TimeLimit
from ..formatting import grams_text, joules_text
from ..records.trial import ATTRIBUTE, INTERRUPTED, counted
from ..samplers import FreezeThawSampler
from ..samplers.factory import energy_axis
from ..samplers.marginal_gain import remaining_gain
from ..study import UNCOUNTED, Budget, LimitReachedError, Study

if TYPE_CHECKING:
    import optuna

    from ..billing.account import Account

#: Why a session ended that did not come to its end.
BROKEN_OFF = "broken off by an error"
#: So many rejected or failed candidates in a row end a study, and so many first trials with the same error, which comes of its settings.
MAX_FAILURES_IN_A_ROW, ALIKE = 25, 3
#: How reasons begin that come of the settings; anything else that is unknown may come of a meter that will be back.
OF_SETTINGS = ("ValueError", "TypeError", UNCOUNTED)
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
#: How the reasons begin for which a study ends before its limits, and those where one is reached.
NOT_WORTH_IT, EXHAUSTED = "continuing is not worth it", "every combination"
REACHED = ("all ", "the budget of ")


@dataclass(frozen=True)
class Limits:
    """Totals of a study; None is no limit.

    The joules are those of the whole search, the seconds the wall time of this session; the label is the budget as the user wrote it.
    Those of a study that nothing else limits, its ``own``, grow when it goes on.
    """

    joules: float | None = None
    trials: int | None = None
    seconds: float | None = None
    label: str = ""
    own: bool = False

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

    def continued(self, spent_joules: float | None, finished: int) -> tuple[Limits, str | None]:
        """Return the limits of a session that goes on: a study that has reached its own may take as much again, as the sentence says.

        Raises:
            LimitReachedError: If one is reached already, and any was given for this session.
        """
        if (reached := self.reached(joules=spent_joules, trials=finished, seconds=0.0)) is None:
            return self, None
        if not self.own:
            raise LimitReachedError(f"{reached} already (limits count the whole study); give a larger one to continue")
        joules = None if self.joules is None else self.joules + (spent_joules or 0.0)
        trials = None if self.trials is None else self.trials + finished
        label = "" if joules is None else joules_text(joules)
        return replace(self, joules=joules, trials=trials, label=label), f"{reached}; continuing for as much again"


def joules_of(budget: Budget, *, grams_per_kwh: float | None, pue: float = 1.0, price_per_kwh: tuple[float, str] | None = None) -> float:
    """Turn a budget in energy, carbon or money into joules.

    Raises:
        ValueError: If the factor that is needed is unknown; the message names the option that gives it.
    """
    if budget.joules is not None:
        return budget.joules
    if budget.grams_co2e is not None:
        if not grams_per_kwh:
            said = f"--budget {budget.to_text()} needs the carbon intensity of the place, above 0"
            raise ValueError(f"{said}: add --zone FR or --intensity 56 (g/kWh)")
        return budget.grams_co2e / (grams_per_kwh * pue) * JOULES_PER_KWH
    assert budget.money is not None
    amount, currency = budget.money
    if price_per_kwh is None or price_per_kwh[1] != currency or not price_per_kwh[0] > 0:
        raise ValueError(f"--budget {budget.to_text()} needs a price above 0 per kWh in {currency}: add --price 0.25{currency}")
    return amount / (price_per_kwh[0] * pue) * JOULES_PER_KWH


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
    study: Study, budget: Budget | None, trials: int | None, timeout_seconds: float | None, worth: Callable[[Budget], float]
) -> Limits:
    """Return the limits of a session: the study's own hold for what was not given for it; ``worth`` tells the joules of a budget.

    Raises:
        ValueError: If there is no limit at all.
    """
    own = budget is None and trials is None
    budget, trials = study.limits(budget, trials)
    if budget is None and trials is None and timeout_seconds is None:
        raise ValueError("a study needs an end: give --budget 5Wh, --trials 40 or --timeout 30m, or set it in the study")
    joules, label = (None, "") if budget is None else (worth(budget), budget.to_text())
    return Limits(joules, trials, timeout_seconds, label, own)


def share_of(given: str | float, name: str = "--stop-gain") -> float:
    """Read a share, the value of ``name``: ``0.5%`` or ``0.005``.

    >>> share_of("0.5%")
    0.005

    Raises:
        ValueError: If it is not a share between 0 and 1.
    """
    text = str(given)
    try:
        value = float(text.rstrip()[:-1]) / 100 if text.rstrip().endswith("%") else float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be a share between 0 and 1 or a percentage, got {given!r}; for example 0.5%")
    return value


@dataclass
class StopGain:
    """The expected gain of the rest of a session; the study ends when it is below a share of the hypervolume, and never for None."""

    study: Study
    optuna_study: optuna.Study
    stop_gain: float | None
    _looked_at: int = 0

    def update_remaining(self, joules_left: float | None, intensity: Intensity | None, pue: float) -> None:
        """Pass what is left to a sampler that plans with it, in the unit of its energy objective, so that the last trainings fit."""
        sampler = self.optuna_study.sampler
        if hasattr(sampler, "remaining") and joules_left is not None:
            left = max(0.0, joules_left)
            sampler.remaining = left if self._in_joules else grams_co2e(left, intensity, pue=pue)

    def not_worth_it(self, trials_left: int | None) -> str | None:
        """Return why the rest of the budget is not worth spending; None when it is, or no ``stop_gain`` is set.

        ``trials_left`` are those that a limit on trials allows. Looking ahead costs as much as a decision, so it is done after ``LEAST``
        trials, and then every time that their number has grown by ``GROWTH``.
        """
        sampler = self.optuna_study.sampler
        if self.stop_gain is None or not isinstance(sampler, FreezeThawSampler):  # others cannot tell
            return None
        finished = sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))
        if finished < max(LEAST, self._looked_at * (1.0 + GROWTH)):
            return None
        self._looked_at = finished
        view = remaining_gain(sampler, self.optuna_study, self._rest(sampler.remaining, trials_left))
        if view is None or view.worth(self.stop_gain):
            return None
        return f"{NOT_WORTH_IT}: {view.why_not(self.stop_gain, self._text, '--stop-gain')}; --no-stop goes on"

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

    def _text(self, energy: float) -> str:
        return joules_text(energy) if self._in_joules else grams_text(energy)

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
        if failures >= ALIKE and (error := self._only_error()) is not None:
            return f"all trials failed of their settings: {error}; correct these and start anew"
        if getattr(self.optuna_study.sampler, "exhausted", False):
            return f"{EXHAUSTED} has been tried"
        reason = self._reached(self.finished()) or (self.carbon and self.carbon.ended())
        self.update_remaining()
        return reason or self.stop_gain.not_worth_it(None if self.limits.trials is None else self.limits.trials - self.finished())

    def _only_error(self) -> str | None:
        """Return the one error by which every trial of the study has failed so far, where it comes of the settings; else None."""
        done = [trial for trial in self.optuna_study.get_trials(deepcopy=False) if trial.state.is_finished()]
        errors = {str(trial.user_attrs.get(ATTRIBUTE, {}).get("reason")) if trial.state.name == "FAIL" else "" for trial in done}
        return next((error for error in errors if len(errors) == 1 and error.startswith(OF_SETTINGS)), None)

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


class Overdue(TimeLimit):
    """Whether a trial's training must end although its epoch has not; all other limits are looked at between two epochs.

    ``excused`` tells whether its end says nothing about its candidate.
    """

    def __init__(self, rules: StopRules, epochs: int) -> None:
        super().__init__(rules.study.max_trial_seconds, epochs, lambda: rules.epoch_seconds)
        self.rules, self.excused = rules, False

    def _found(self) -> str | None:
        outside = self._outside()
        self.excused = outside is not None
        return super()._found() if outside is None else outside

    def _outside(self) -> str | None:
        """Look at what ends the session; features have no epoch whose end could be waited for, and what is stored of them stays."""
        rules, at_once = self.rules, self._began is None or self._apart is not None
        if rules.at_once or (at_once and rules.interrupted.is_set()):
            return BROKEN_OFF if rules.reason == BROKEN_OFF else INTERRUPTED
        spent = None if self._apart is None or rules.limits.joules is None else rules.account.spent_joules()
        if (found := rules.limits.reached(joules=spent, trials=0, seconds=0.0)) is not None:
            return found
        return rules.timed_out(0.0 if at_once else max(TIMEOUT_GRACE_SECONDS, 2 * self._epoch_seconds()))
