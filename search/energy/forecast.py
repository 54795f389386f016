"""A forecast of carbon intensity, from a file or from a function: the same questions to both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from .carbon import Intensity
from .intensity_curve import SECONDS_PER_HOUR, IntensityCurve, read_curve

#: A function is asked at least so often, in hours; grids publish a value every 5 to 60 minutes.
STEP_HOURS = 1 / 12


class Forecast(Protocol):
    """Grams of CO2 equivalent per kWh as a function of time, in hours since 1970-01-01 UTC."""

    @property
    def source(self) -> str:
        """Who forecasts, in words."""
        ...

    @property
    def span(self) -> tuple[float, float]:
        """First and last hour that it covers."""
        ...

    def mean(self, start_hour: float, stop_hour: float) -> float:
        """Return the mean over a window of constant power."""
        ...

    def over(self, start_hour: float, stop_hour: float) -> Intensity:
        """Return the mean over a window as an intensity."""
        ...


@dataclass(frozen=True)
class CalledForecast:
    """A forecast that a function gives.

    Attributes:
        grams_per_kwh: Takes an instant with the time zone UTC, returns gCO2e/kWh.
        source: Who forecasts, in words.
        zone: Code of the place, or None.
    """

    grams_per_kwh: Callable[[datetime], float]
    source: str = "a function given by the user"
    zone: str | None = None

    @property
    def span(self) -> tuple[float, float]:
        """A function answers for every hour."""
        return -math.inf, math.inf

    def at(self, hour: float) -> float:
        """Return the value at an hour.

        Raises:
            ValueError: The function returned no finite number >= 0.
        """
        return Intensity(float(self.grams_per_kwh(moment_of(hour)))).grams_per_kwh

    def mean(self, start_hour: float, stop_hour: float) -> float:
        """Return the mean over a window, by the trapezoid rule on pieces of at most five minutes.

        Raises:
            ValueError: The window is reversed.
        """
        if stop_hour < start_hour:
            raise ValueError(f"stop_hour must be >= start_hour, got {start_hour} to {stop_hour}")
        pieces = max(1, math.ceil((stop_hour - start_hour) / STEP_HOURS))
        width = (stop_hour - start_hour) / pieces
        ends = (self.at(start_hour) + self.at(stop_hour)) / 2
        return (ends + math.fsum(self.at(start_hour + k * width) for k in range(1, pieces))) / pieces

    def over(self, start_hour: float, stop_hour: float) -> Intensity:
        """Return the mean over a window as an intensity."""
        return over(self, start_hour, stop_hour, self.zone)


def over(forecast: Forecast, start_hour: float, stop_hour: float, zone: str | None = None) -> Intensity:
    """Return the mean of a forecast over a window as an intensity that says so."""
    source = f"forecast: {forecast.source}, mean of hours {start_hour:.6g} to {stop_hour:.6g}"
    return Intensity(forecast.mean(start_hour, stop_hour), zone, source)


def read_forecast(path: Path, zone: str | None = None) -> IntensityCurve:
    """Read a forecast from a CSV file, see `joulefront.search.energy.intensity_curve.read_curve`.

    Each value holds until the next, as grids publish them; hours of the day repeat daily.

    Raises:
        ValueError: The file cannot be read as a curve; the message names file, rule and remedy.
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
    return given if hasattr(given, "mean") else CalledForecast(given)  # type: ignore[return-value]  # told apart by hasattr


def moment_of(hour: float) -> datetime:
    """Return the instant of hours since 1970-01-01 UTC; the inverse of ``hours_of``."""
    return datetime.fromtimestamp(hour * SECONDS_PER_HOUR, UTC)
