"""When to train: the clean hours of a forecast that are enough for the work until a deadline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from .forecast import STEP_HOURS, Forecast, moment_of

#: Least share of the grams that must be saved by waiting. It also avoids waiting from one equal valley to the next.
LEAST_SAVING = 0.05
#: Most starts that a timetable compares.
_MOST_STARTS = 2000


@dataclass(frozen=True)
class Timetable:
    """Which hours before a deadline are clean enough to train in.

    The rule: a training of ``training_hours`` may start when the mean intensity while it would run is among the lowest that the starts
    before the deadline offer, of which so many count as low as are needed for ``needed_hours`` of work. The lowest starts that add up to
    the work minimise the grams of work at constant power: it is a knapsack whose pieces can be cut. One training alone waits
    for its cleanest start. When what is left of the time only just holds the work, every hour is good enough.

    Times are hours since 1970-01-01 UTC.

    Attributes:
        forecast: It covers now to the deadline.
        needed_hours: Length of the trainings that are still expected; ``training_hours`` of one of them.

    Source:
        Cheap evaluations whenever, costly ones in hours of low intensity: Zhao et al. 2024, "CE-NAS: An end-to-end carbon-efficient
        neural architecture search framework", arXiv 2406.01414. There reinforcement learning divides the devices; this is a rule.
    """

    forecast: Forecast
    now_hour: float
    deadline_hour: float
    needed_hours: float
    training_hours: float = 0.0

    def __post_init__(self) -> None:
        if not (self.needed_hours >= 0 and self.training_hours >= 0):
            raise ValueError(f"hours of work must be >= 0, got needed_hours={self.needed_hours}, training_hours={self.training_hours}")

    @property
    def hurry(self) -> bool:
        """Whether the time that is left only just holds the work, or the deadline has passed."""
        return self.now_hour + max(self.needed_hours, self.training_hours) >= self.deadline_hour

    @cached_property
    def _starts(self) -> tuple[tuple[float, float], ...]:
        """Starts on a grid with the mean intensity of a training that begins there."""
        room = self.deadline_hour - self.training_hours - self.now_hour
        count = min(_MOST_STARTS, max(1, math.ceil(room / STEP_HOURS)))
        length = max(self.training_hours, room / count)
        starts = (self.now_hour + room * k / count for k in range(count))
        return tuple((start, self.forecast.mean(start, min(start + length, self.deadline_hour))) for start in starts)

    @cached_property
    def threshold(self) -> float:
        """Highest mean intensity, in gCO2e/kWh, of a training that may start; infinite in a hurry."""
        if self.hurry:
            return math.inf
        starts = self._starts
        width = (self.deadline_hour - self.training_hours - self.now_hour) / len(starts)
        # Trainings one after another need starts that span the work without the last of them.
        count = math.ceil(max(self.needed_hours - self.training_hours, 0.0) / width - 1e-9) + 1
        return sorted(mean for _, mean in starts)[count - 1] * (1 + LEAST_SAVING) if count < len(starts) else math.inf

    @property
    def clean(self) -> bool:
        """Whether a training may start now."""
        return self.next_clean_hour == self.now_hour

    @property
    def next_clean_hour(self) -> float:
        """When a training may start: now, or later."""
        if self.hurry:
            return self.now_hour
        return next((start for start, mean in self._starts if mean <= self.threshold), self.now_hour)


def check_cover(forecast: Forecast, now_hour: float, deadline_hour: float | None) -> None:
    """Refuse a deadline that has passed, and a forecast that does not reach it.

    Raises:
        ValueError: The message names it and the remedy.
    """
    first, last = forecast.span
    if deadline_hour is not None and deadline_hour <= now_hour:
        raise ValueError(
            f"--deadline {text_of(deadline_hour)} has passed, it is {text_of(now_hour)}; give a later one, e.g. --deadline 24h"
        )
    if now_hour < first:
        raise ValueError(f"--forecast ({forecast.source}) begins at {text_of(first)}, it is {text_of(now_hour)}; give one that covers now")
    end = now_hour if deadline_hour is None else deadline_hour
    if end > last:
        what = "it is" if deadline_hour is None else "the deadline is"
        raise ValueError(
            f"--forecast ({forecast.source}) ends at {text_of(last)}, {what} {text_of(end)}; give a longer one or an earlier --deadline"
        )


def deadline_of(text: str, now: datetime) -> datetime:
    """Read a deadline: ``24h``, ``2d`` or ``90m`` from now, or an ISO 8601 instant (UTC when no zone is written).

    >>> deadline_of("36h", datetime(2026, 3, 1, tzinfo=UTC)).isoformat()
    '2026-03-02T12:00:00+00:00'

    Raises:
        ValueError: If it is neither.
    """
    hours = {"m": 1 / 60, "h": 1.0, "d": 24.0}.get(text[-1:])
    try:
        if hours is not None:
            amount = float(text[:-1]) * hours
            if 0 < amount < math.inf:
                return now + timedelta(hours=amount)
        else:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"--deadline must be a positive time with m, h or d, or an ISO 8601 instant, got {text!r}; for example 24h or 2026-03-02T06:00"
    )


def text_of(hour: float) -> str:
    """Return an hour for people, in UTC, to the minute.

    >>> text_of(datetime(2026, 3, 1, 6, tzinfo=UTC).timestamp() / 3600)
    '2026-03-01 06:00 UTC'
    """
    return moment_of(hour).strftime("%Y-%m-%d %H:%M UTC")
