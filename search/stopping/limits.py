"""What a study may take at most (joules, from a budget in energy, carbon or money; trials; wall time), and what it will have taken then."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..energy import JOULES_PER_KWH, SECONDS_PER_HOUR
from ..formatting import energies, joules_text, read_number
from ..study import Budget, LimitReachedError, Study

#: The next trials are priced by the latest: a search moves from many short trainings to fewer long ones.
RECENT = 30
#: Fewer trials than this do not give a spread.
LEAST = 5
#: A search changes what it trains and decides: the mean cost of the trials to come differs from that of those so far by so much
#: (standard deviation as a share; 0.24 over four studies of 40 trials, forecast after each of their trials).
DRIFT = 0.25
#: 95 % quantile of the standard normal: the interval holds 90 %.
Z = 1.6449


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
        label="" if joules is None else joules_text(joules + (spent_joules or 0.0)),
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


@dataclass(frozen=True)
class Expected:
    """What a running study is expected to have cost at its end, in trials and joules; intervals hold 90 %.

    ``done`` are the trials that had finished by then.
    """

    trials: float
    low_trials: float
    high_trials: float
    joules: float
    low_joules: float
    high_joules: float
    done: int

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, units in the keys."""
        return asdict(self)

    def to_text(self) -> str:
        """Describe in a few words what the limit does not fix."""
        if self.low_joules < self.high_joules:
            (all_of_it, low, high), unit = energies((self.joules, self.low_joules, self.high_joules))
            return f"about {all_of_it} {unit} in all ({low} to {high})"
        return f"about {self.trials:.0f} trials in all ({self.low_trials:.0f} to {self.high_trials:.0f})"


def expected(
    increments: Sequence[float], spent_joules: float | None, limits: Limits, *, begun_joules: float = 0.0, before: int = 0
) -> Expected | None:
    """Extrapolate a study to the first of its limits in trials and energy.

    The sum of ``m`` trainings to come has the mean ``m * mean`` and the variance ``m * s^2 + m^2 * s^2 / n + (DRIFT * m * mean)^2``:
    their own spread, that of the mean that is known from ``n`` trainings only, and that the search moves on.

    The increments are what each finished trial has cost the search, in order, in joules. When the first trial of this session began,
    ``before`` trials had finished and the whole search had spent ``begun_joules``: earlier sessions, and a start that is paid once.

    None without a limit, without energy, before ``LEAST`` trials, and before the first trial of a session.
    """
    done = len(increments)
    recent = list(increments)[-RECENT:]
    if spent_joules is None or len(recent) < LEAST or done <= before:
        return None
    # What no trial pays for (deciding, storing) costs as much per trial as so far in this session.
    rest = max(0.0, spent_joules - begun_joules - sum(increments[before:])) / (done - before)
    mean, spread, n = fmean(recent) + rest, stdev(recent), len(recent)
    if not mean > 0:
        return None

    def doubt(count: float) -> float:
        return Z * math.hypot(spread * math.sqrt(max(count, 1.0) + count**2 / n), DRIFT * count * mean)

    left_trials = None if limits.trials is None else max(0, limits.trials - done)
    left_joules = None if limits.joules is None else max(0.0, limits.joules - spent_joules)
    if left_joules is not None and (left_trials is None or left_joules < left_trials * mean):
        count = left_joules / mean
        many = doubt(count) / mean
        most = spent_joules + left_joules
        return Expected(done + count, done + max(0.0, count - many), done + count + many, most, most, most, done)
    if left_trials is None:
        return None
    total = spent_joules + left_trials * mean
    wide = doubt(left_trials) if left_trials else 0.0
    low, high = max(spent_joules, total - wide), total + wide
    if limits.joules is not None:
        high = min(high, max(limits.joules, total))
    all_trials = float(done + left_trials)
    return Expected(all_trials, all_trials, all_trials, total, low, high, done)
