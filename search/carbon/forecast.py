"""Carbon intensity that changes with the hour: a curve from a file or a function, its value at an hour and its mean over a window."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median_low
from typing import Literal, Protocol

from ..energy import SECONDS_PER_HOUR
from .intensity import GRAMS_PER_POUND, Intensity

#: What a column of times is called, but for a zone behind it: ``Datetime (UTC)``, ``timestamp_utc``.
_HOUR_NAMES = ("hour", "time", "timestamp", "datetime", "date")
#: What stands where there is no value.
_NOTHING = ("", "nan", "na", "n/a", "null", "none", "-")
#: Which column is taken where a file has several, by its scope.
_SCOPES = ("lifecycle", "unknown", "direct")
#: Units of mass and energy in a column's name -> grams, kWh.
_GRAMS = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6, "lb": GRAMS_PER_POUND, "lbs": GRAMS_PER_POUND}
_KWH = {"kwh": 1.0, "mwh": 1e3}
_UNIT = re.compile(rf"(?<![a-z])({'|'.join(_GRAMS)})\s*(?:co[2₂]\w*?)?\s*(?:/|per)?\s*({'|'.join(_KWH)})")


@dataclass(frozen=True)
class IntensityCurve:
    """Grams of CO2 equivalent per kWh as a function of time.

    Attributes:
        hours: Times of the values in hours, strictly increasing, shape ``(n,)``: hours of the day in UTC when `period_hours` is
            set, else hours since 1970-01-01 UTC.
        grams_per_kwh: Values, shape ``(n,)``.
        period_hours: The curve repeats after this many hours (24 for a typical day); None when it covers one stretch of time.
        shape: ``linear`` between the values, or ``step``: each value holds until the next one, as hourly means are published.
        last_hours: How long the last value of steps holds; None for as long as the one before.
        kind: ``average`` or ``marginal``, as `scope`, `zone` and `year` those of an ``Intensity``.
    """

    hours: tuple[float, ...]
    grams_per_kwh: tuple[float, ...]
    period_hours: float | None = 24.0
    shape: Literal["linear", "step"] = "linear"
    zone: str | None = None
    source: str = "given by the user"
    year: int | None = None
    kind: str = "average"
    scope: str = "unknown"
    last_hours: float | None = None

    def __post_init__(self) -> None:
        if len(self.hours) != len(self.grams_per_kwh) or not self.hours:
            raise ValueError(f"hours and grams_per_kwh must have one length >= 1, got {len(self.hours)} and {len(self.grams_per_kwh)}")
        if not all(math.isfinite(value) for value in self.hours) or any(b <= a for a, b in pairwise(self.hours)):
            raise ValueError(f"hours must be finite and strictly increasing, got {self.hours[:6]}; sort the rows and drop double ones")
        if self.shape not in ("linear", "step"):
            raise ValueError(f"shape must be 'linear' or 'step', got {self.shape!r}")
        if self.period_hours is not None and (self.hours[0] < 0 or self.hours[-1] >= self.period_hours):
            raise ValueError(f"hours must lie in [0, {self.period_hours}), got {self.hours[0]} to {self.hours[-1]}")
        for value in self.grams_per_kwh:
            Intensity(value, kind=self.kind, scope=self.scope)  # refuses what a constant would refuse

    @property
    def span(self) -> tuple[float, float]:
        """First and last hour that the curve covers; infinite when it repeats."""
        if self.period_hours is not None:
            return -math.inf, math.inf
        return self.hours[0], self.hours[-1] + (self._last_step() if self.shape == "step" else 0.0)

    def at(self, hour: float) -> float:
        """Return the value at an hour.

        Raises:
            ValueError: `hour` lies outside a curve that does not repeat.
        """
        hour = self._inside(hour)
        index = bisect_right(self.hours, hour) - 1
        if index < 0 and self.period_hours is not None:
            hour += self.period_hours  # in the last piece, which runs over the end of the period
        return self.grams_per_kwh[index] + self._pieces[0][index] * (hour - self.hours[index])

    def mean(self, start_hour: float, stop_hour: float) -> float:
        """Return the mean over a window of constant power, exactly (the integral of the pieces).

        Raises:
            ValueError: The window is reversed, or lies outside a curve that does not repeat.
        """
        if stop_hour < start_hour:
            raise ValueError(f"stop_hour must be >= start_hour, got {start_hour} to {stop_hour}")
        self._inside(start_hour), self._inside(stop_hour)
        length = stop_hour - start_hour
        if length == 0:
            return self.at(start_hour)
        if stop_hour <= self._piece_end(start_hour):
            # Within one piece the middle is the mean. The difference of two long integrals would lose the digits of a short window.
            return self.at((start_hour + stop_hour) / 2)
        return (self._integral(stop_hour) - self._integral(start_hour)) / length

    def over(self, start_hour: float, stop_hour: float) -> Intensity:
        """Return the mean over a window as an intensity, so that it can price joules."""
        source = f"{self.source}, mean of hours {start_hour:.6g} to {stop_hour:.6g}"
        return Intensity(self.mean(start_hour, stop_hour), self.zone, source, self.year, self.kind, self.scope)

    def _inside(self, hour: float) -> float:
        if self.period_hours is not None:
            return hour % self.period_hours
        first, last = self.span
        if not first <= hour <= last:
            raise ValueError(f"the curve covers hours {first} to {last}, got {hour}; give a longer curve or one that repeats")
        return hour

    def _last_step(self) -> float:
        if self.last_hours is not None:
            return self.last_hours
        return self.hours[-1] - self.hours[-2] if len(self.hours) > 1 else 0.0

    def _piece_end(self, hour: float) -> float:
        """Return where the piece ends in which an hour lies."""
        period = self.period_hours
        turn = 0.0 if period is None else math.floor((hour - self.hours[0]) / period) * period
        index = bisect_right(self.hours, hour - turn)
        last = self.hours[-1] + self._last_step() if period is None else self.hours[0] + period
        return turn + (self.hours[index] if index < len(self.hours) else last)

    def _integral(self, hour: float) -> float:
        """Return the integral from the first value's hour of the first period to an hour."""
        if self.period_hours is None:
            return self._within(hour)
        whole, rest = divmod(hour - self.hours[0], self.period_hours)
        return whole * self._within(self.hours[0] + self.period_hours) + self._within(self.hours[0] + rest)

    @cached_property
    def _pieces(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Slope of each piece, and the integral from the first value's hour to the start of each, with the whole at the end."""
        ends = [*self.hours[1:], self.hours[0] + self.period_hours if self.period_hours is not None else self.hours[-1] + self._last_step()]
        following = [*self.grams_per_kwh[1:], self.grams_per_kwh[0] if self.period_hours is not None else self.grams_per_kwh[-1]]
        lengths = [stop - start for start, stop in zip(self.hours, ends, strict=True)]
        linear = self.shape == "linear"
        slopes = [
            (right - left) / length if linear and length > 0 else 0.0
            for left, right, length in zip(self.grams_per_kwh, following, lengths, strict=True)
        ]
        areas = (length * (left + slope * length / 2) for left, slope, length in zip(self.grams_per_kwh, slopes, lengths, strict=True))
        return tuple(slopes), tuple(accumulate(areas, initial=0.0))

    def _within(self, hour: float) -> float:
        """Return the integral from the first value's hour to an hour of the same period, by bisection: a forecast may have many rows."""
        slopes, before = self._pieces
        index = max(bisect_right(self.hours, hour) - 1, 0)
        length = max(hour - self.hours[index], 0.0)
        return before[index] + length * (self.grams_per_kwh[index] + slopes[index] * length / 2)


def hours_of(moment: datetime) -> float:
    """Return hours since 1970-01-01 UTC; a curve that repeats daily takes them too.

    Raises:
        ValueError: `moment` has no time zone, so it names no instant.
    """
    if moment.tzinfo is None:
        raise ValueError(f"moment must have a time zone, got {moment!r}; use datetime.now(timezone.utc)")
    return moment.astimezone(UTC).timestamp() / SECONDS_PER_HOUR


def read_curve(path: Path, *, shape: Literal["linear", "step"] = "linear", zone: str | None = None) -> IntensityCurve:
    """Read a curve from a CSV file: a column of times and one of gCO2e/kWh.

    Times are hours of the day in UTC (``0`` to ``23.75``; the curve then repeats daily) or ISO 8601 instants (UTC when no zone is
    written). The value column is the one whose name has a mass per energy (``g_per_kwh``, ``kgCO2/kWh``, ``lbs_per_mwh``) or else
    ``intensity``, then in g/kWh, in it; Electricity Maps' downloads fit. Of their two columns the life-cycle one is taken, and a name
    that says its scope, or that it is marginal, gives the curve's. Hours between others
    that are missing or have no value are named in the source.

    Raises:
        ValueError: A column is missing or a row is not a number; the message names the file and the line.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        time_name = next((name for name in names if re.sub(r"[^a-z]", "", name.casefold()).removesuffix("utc") in _HOUR_NAMES), None)
        known = [name for name in names if _grams_per_kwh(name) is not None]
        value_name = min(known, key=lambda name: _SCOPES.index(_scope(name)), default=None)
        if time_name is None or value_name is None:
            raise ValueError(f"{path}: the header must name a time ('hour' or 'datetime') and 'g_per_kwh', got {names}")
        rows, listed = [], []  # those with a value, and the times of all: how far apart they are
        for row in reader:
            empty = (row[value_name] or "").strip().casefold() in _NOTHING
            with suppress(ValueError) if empty else nullcontext():  # behind the hours a note may stand
                listed.append(_number(path, reader.line_num, row[time_name]))
            if not empty:
                rows.append((listed[-1], _number(path, reader.line_num, row[value_name])))
    if not rows:
        raise ValueError(f"{path}: a curve needs at least one row with a value, got {len(listed)} without; give another file")
    daily = not any(instant for (_, instant), _ in rows)
    unit = _grams_per_kwh(value_name) or 1.0
    hours, grams = zip(*((time, value * unit) for (time, _), (value, _) in rows), strict=True)
    year, kind = None if daily else moment_of(hours[0]).year, "marginal" if "marginal" in value_name.casefold() else "average"
    usual = median_low([after - before for (before, _), (after, _) in pairwise(listed)] or [0.0])
    bridged = () if daily and len(rows) == len(listed) else pairwise(hours)  # a day of few values has no missing ones
    missing = math.fsum(after - before - usual for before, after in bridged if after - before > 1.5 * usual)
    source = f"file {path.name}" + (f" ({missing:.3g} hours are missing in it, bridged)" if missing else "")
    return IntensityCurve(hours, grams, 24.0 if daily else None, shape, zone, source, year, kind, _scope(value_name), usual or None)


def _grams_per_kwh(name: str) -> float | None:
    """Return what one of a column's unit is in g/kWh, 1 of an intensity that names none; None of a column that is no intensity."""
    text = name.casefold().replace("_", " ")
    found = _UNIT.search(text)
    return _GRAMS[found[1]] / _KWH[found[2]] if found else 1.0 if "intensity" in text else None


def _scope(name: str) -> str:
    text = re.sub(r"[^a-z]", "", name.casefold())
    return "lifecycle" if "lifecycle" in text or text.endswith("lca") else "direct" if "direct" in text else "unknown"


def _number(path: Path, line: int, text: str | None) -> tuple[float, bool]:
    """Return a number and whether it was written as an instant."""
    try:
        return float(text or ""), False
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat((text or "").strip().removesuffix(" UTC"))
    except ValueError:
        raise ValueError(f"{path}, line {line}: expected a number or an ISO 8601 instant, got {text!r}") from None
    return hours_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC)), True


#: Longest step between two calls of a function, in hours; grids publish a value every 5 to 60 minutes.
STEP_HOURS = 1 / 12


class Forecast(Protocol):
    """Grams of CO2 equivalent per kWh as a function of time, in hours since 1970-01-01 UTC."""

    @property
    def source(self) -> str:
        """Who forecasts, in words."""

    @property
    def span(self) -> tuple[float, float]:
        """First and last hour that it covers."""

    def mean(self, start_hour: float, stop_hour: float) -> float:
        """Return the mean over a window of constant power."""

    def over(self, start_hour: float, stop_hour: float) -> Intensity:
        """Return the mean over a window as an intensity."""


@dataclass(frozen=True)
class CalledForecast:
    """A forecast that a function gives: it takes an instant with the time zone UTC and returns gCO2e/kWh."""

    grams_per_kwh: Callable[[datetime], float]
    source: str = "a function given by the user"
    zone: str | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Every hour: a function has no end."""
        return -math.inf, math.inf

    def at(self, hour: float) -> float:
        """Return the value at an hour.

        Raises:
            ValueError: The function returned no finite number >= 0.
        """
        return Intensity(float(self.grams_per_kwh(moment_of(hour)))).grams_per_kwh

    def mean(self, start_hour: float, stop_hour: float) -> float:
        """Return the mean over a window, by the middles of pieces that end at the clock's five minutes: there, grids change their values.

        Raises:
            ValueError: The window is reversed.
        """
        if stop_hour < start_hour:
            raise ValueError(f"stop_hour must be >= start_hour, got {start_hour} to {stop_hour}")
        if stop_hour == start_hour:
            return self.at(start_hour)
        steps = range(math.floor(start_hour / STEP_HOURS) + 1, math.ceil(stop_hour / STEP_HOURS))
        ends = pairwise((start_hour, *(step * STEP_HOURS for step in steps), stop_hour))
        return math.fsum((stop - start) * self.at((start + stop) / 2) for start, stop in ends) / (stop_hour - start_hour)

    def over(self, start_hour: float, stop_hour: float) -> Intensity:
        """Return the mean over a window as an intensity."""
        source = f"forecast: {self.source}, mean of hours {start_hour:.6g} to {stop_hour:.6g}"
        return Intensity(self.mean(start_hour, stop_hour), self.zone, source)


def read_forecast(path: Path, zone: str | None = None) -> IntensityCurve:
    """Read a forecast from a CSV file by ``read_curve``; each value holds until the next, as grids publish them.

    Raises:
        ValueError: The file cannot be read as a curve.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"--forecast {str(path)!r}: there is no such file; give a CSV with the columns hour (or datetime) and g_per_kwh"
        )
    try:
        return read_curve(path, shape="step", zone=zone)
    except ValueError as error:
        text = str(error)
        raise ValueError(f"--forecast {text if text.startswith(str(path)) else f'{path}: {text}'}") from None


def forecast_of(given: Forecast | Callable[[datetime], float]) -> Forecast:
    """Accept a curve or a function."""
    return given if hasattr(given, "mean") else CalledForecast(given)  # type: ignore[return-value]  # distinguished by hasattr


def moment_of(hour: float) -> datetime:
    """Return the instant of hours since 1970-01-01 UTC; the inverse of ``hours_of``."""
    return datetime.fromtimestamp(hour * SECONDS_PER_HOUR, UTC)
