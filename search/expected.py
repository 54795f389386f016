"""The estimate of a study's cost, refined while it runs from what its trials have cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from .limits import Limits

#: The latest trials tell what the next ones cost: a search moves from many short trainings to fewer long ones.
RECENT = 30
#: Fewer trials than this say nothing about the spread.
LEAST = 5
#: 95 % quantile of the standard normal: the interval holds 90 %.
Z = 1.6449


@dataclass(frozen=True)
class Expected:
    """What a running study is expected to have cost at its end; intervals hold 90 %.

    Attributes:
        trials: Expected number of trials.
        low_trials: Lower end.
        high_trials: Upper end.
        joules: Expected energy of the whole search.
        low_joules: Lower end.
        high_joules: Upper end.
        done: Finished trials when this was said.
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
        """Say what is not fixed by the limit, in a few words."""
        if self.low_joules < self.high_joules:
            return f"about {self.joules / 3600:.3g} Wh in all ({self.low_joules / 3600:.3g} to {self.high_joules / 3600:.3g})"
        return f"about {self.trials:.0f} trials in all ({self.low_trials:.0f} to {self.high_trials:.0f})"


def expected(increments: Sequence[float], spent_joules: float | None, limits: Limits) -> Expected | None:
    """Extrapolate a study to the first of its limits in trials and energy.

    The sum of ``m`` trainings to come has the mean ``m * mean`` and the variance ``m * s^2 + m^2 * s^2 / n``: their own spread, and that of
    the mean that is known from ``n`` trainings only.

    Args:
        increments: What each finished trial has cost the search, in order, in joules.
        spent_joules: Spent by the whole search so far.
        limits: When it ends.

    Returns:
        The expectation; None without a limit, without energy, and before ``LEAST`` trials.
    """
    done = len(increments)
    recent = list(increments)[-RECENT:]
    if spent_joules is None or len(recent) < LEAST or not (mean := fmean(recent)) > 0:
        return None
    spread, n = stdev(recent), len(recent)
    # What no trial pays for (deciding, storing) goes on as it went so far.
    scale = max(1.0, spent_joules / sum(increments)) if sum(increments) > 0 else 1.0
    mean, spread = mean * scale, spread * scale
    left_trials = None if limits.trials is None else max(0, limits.trials - done)
    left_joules = None if limits.joules is None else max(0.0, limits.joules - spent_joules)
    if left_joules is not None and (left_trials is None or left_joules < left_trials * mean):
        count = left_joules / mean
        doubt = Z * spread * sqrt(max(count, 1.0) + count**2 / n) / mean
        most = spent_joules + left_joules
        return Expected(done + count, done + max(0.0, count - doubt), done + count + doubt, most, most, most, done)
    if left_trials is None:
        return None
    doubt = Z * spread * sqrt(left_trials + left_trials**2 / n)
    total = spent_joules + left_trials * mean
    low, high = max(spent_joules, total - doubt), total + doubt
    if limits.joules is not None:
        high = min(high, max(limits.joules, total))
    all_trials = float(done + left_trials)
    return Expected(all_trials, all_trials, all_trials, total, low, high, done)
