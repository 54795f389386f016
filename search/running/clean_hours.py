"""When to train: the clean hours of a forecast that are enough for the work until a deadline, and the trainings that wait for them.

Large trainings wait while there is time; small ones wait only when they are not worth their energy.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..carbon.forecast import STEP_HOURS, Forecast, forecast_of, hours_of, moment_of, read_forecast
from ..carbon.intensity import Intensity
from ..energy import SECONDS_PER_HOUR
from ..samplers import FreezeThawSampler
from ..samplers.marginal_gain import passes_cost_gate
from ..stopping.rules import Limits

if TYPE_CHECKING:
    import optuna

#: Least share of the grams that must be saved by waiting. It also avoids waiting from one equal valley to the next.
LEAST_SAVING = 0.05
#: Most starts that a timetable compares.
_MOST_STARTS = 2000
#: A training is large above this share of a median complete one: with rungs in threes that is the step to the last rung.
LARGE = 0.25


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


@dataclass
class Postponer:
    """Decides whether the next training starts now or waits.

    In clean hours (`Timetable`) everything is trained, in the order of the sampler. In other hours our
    sampler proposes small trainings only, as long as one is worth it (`joulefront.search.samplers.marginal_gain`); with other samplers a
    large training that was proposed waits before it starts. Nothing waits before a first training has shown how long trainings take,
    nor once the time to the deadline only just holds the work.

    The deadline is in hours since 1970-01-01 UTC; ``last_rung`` is the number of epochs of a complete training.
    """

    forecast: Forecast
    deadline_hour: float
    last_rung: int
    workers: int = 1
    _hours: float = 0.0
    _joules: float | None = 0.0
    _epochs: int = 0
    _trainings: int = 0

    def learn(self, hours: float, joules: float | None, epochs: int) -> None:
        """Take note of how long a training took, what it paid, and of how many epochs it made."""
        self._hours += hours
        self._joules = None if joules is None or self._joules is None else self._joules + joules
        self._epochs += epochs
        self._trainings += 1

    def timetable(self, now_hour: float, left: Limits) -> Timetable | None:
        """Return the clean hours for what is left to do; None while that is not known."""
        if not self._hours or not self._epochs:
            return None
        work = []
        if left.joules is not None and self._joules:
            work.append(left.joules * self._hours / self._joules)
        if left.trials is not None:
            work.append(left.trials * self._hours / self._trainings)
        if not work:
            return None
        complete = self.last_rung * self._hours / self._epochs
        return Timetable(self.forecast, now_hour, self.deadline_hour, max(0.0, min(work)) / self.workers, complete)

    def until(self, study: optuna.Study, now_hour: float, left: Limits, epochs: int | None = None) -> float | None:
        """Return the hour to wait for before the next training is chosen or started; None to continue now.

        A sampler of ours is held to small trainings, or set free; ``left`` is what the study may still do, and ``epochs`` are those of a
        training that was proposed, None before the sampler proposes one.
        """
        table = self.timetable(now_hour, left)
        free = table is None or table.clean
        sampler = study.sampler
        if isinstance(sampler, FreezeThawSampler):
            if epochs is not None:
                return None  # it was held to what may be trained now
            sampler.largest_step = None if free else LARGE
            return None if free or passes_cost_gate(sampler, study, LARGE) else table.next_clean_hour  # type: ignore[union-attr]  # not free: there is a table
        waits = not free and epochs is not None and epochs > LARGE * self.last_rung
        return table.next_clean_hour if waits and table is not None else None


class WallClock:
    """The clock of this machine, which tells the time of day and waits; tests and simulations have others."""

    def hour(self) -> float:
        """Return hours since 1970-01-01 UTC."""
        return time.time() / SECONDS_PER_HOUR

    def wait(self, hours: float, broken_off: threading.Event) -> None:
        """Sleep, or return early when the event is set."""
        broken_off.wait(max(0.0, hours) * SECONDS_PER_HOUR)


@dataclass(frozen=True)
class CarbonTime:
    """Price joules by the hour, and train in clean hours.

    Attributes:
        forecast: A curve (`joulefront.search.carbon.forecast.read_forecast`), or a function that takes an instant in UTC and returns
            gCO2e/kWh.
        deadline: Until when large trainings may wait for clean hours, with a time zone; None lets nothing wait.
        clock: Tells the time; another one for tests and simulations.
    """

    forecast: Forecast | Callable[[datetime], float]
    deadline: datetime | None = None
    clock: WallClock = field(default_factory=WallClock)

    def check(self) -> None:
        """Refuse a deadline that has passed, and a forecast that does not reach it, with a ``ValueError`` that names the remedy."""
        check_cover(forecast_of(self.forecast), self.clock.hour(), None if self.deadline is None else hours_of(self.deadline))

    def nominal(self) -> Intensity:
        """Return the mean intensity until the deadline, or now: what a budget in grams is worth before anything is spent."""
        forecast, now = forecast_of(self.forecast), self.clock.hour()
        return forecast.over(now, now if self.deadline is None else max(now, hours_of(self.deadline)))


def carbon_time_of(
    forecast: Path | None, deadline: str | None, *, carbon_aware: bool, zone: str | None, grams_per_kwh: float | None, network: bool
) -> CarbonTime | None:
    """Read the options of the command line about carbon over time.

    Raises:
        ValueError: If options are missing, contradict each other or cannot be read.
    """
    if carbon_aware and forecast is None:
        raise ValueError(
            "--carbon-aware needs a forecast of the intensity: add --forecast FILE.csv (columns hour or datetime, and g_per_kwh)"
        )
    if carbon_aware and deadline is None:
        raise ValueError("--carbon-aware needs to know how long trainings may wait: add --deadline 24h")
    if deadline is not None and not carbon_aware:
        raise ValueError(f"--deadline {deadline} says how long trainings may wait for clean hours: add --carbon-aware")
    if forecast is None:
        return None
    if grams_per_kwh is not None or network:
        other = "--network" if grams_per_kwh is None else f"--intensity {grams_per_kwh:g}"
        raise ValueError(f"--forecast {str(forecast)!r} and {other} exclude each other: grams follow one of them")
    found = CarbonTime(read_forecast(forecast, zone), None if deadline is None else deadline_of(deadline, datetime.now(UTC)))
    found.check()
    return found
