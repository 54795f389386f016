"""Fair conditions for trials: idle power, warm-up, cool-down, and an anchor that shows a drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .intervals import Interval, fit_line, mean_interval
from .ledger import Ledger
from .record import Record

#: A trial starts when the device is at most this much warmer than before the first one.
MARGIN_CELSIUS = 3.0


def measure_idle(ledger: Ledger, seconds: float = 10.0, name: str = "idle", *, sleep: Callable[[float], None] = time.sleep) -> Record:
    """Open an idle window and wait; the ledger then knows the idle power of its components.

    Raises:
        ValueError: `seconds` is below 1: no meter knows an idle power that fast.
    """
    if seconds < 1:
        raise ValueError(f"seconds must be >= 1, got {seconds}; 10 to 30 are usual")
    with ledger.window(name, kind="idle") as window:
        sleep(seconds)
        # Closed in here, and once: the ledger learns the idle power from a record that is final.
        return window.close(settle=True)


@dataclass(frozen=True)
class Wait:
    """How a warm-up or a cool-down went.

    Attributes:
        seconds: How long it took.
        reached: The aim was reached; False when the time ran out; None when there is no sensor to tell.
        celsius: Last temperature, or None.
        steps: Steps of work that were made.
    """

    seconds: float
    reached: bool | None
    celsius: float | None
    steps: int = 0


def cool_down(
    celsius: Callable[[], float | None],
    start_celsius: float | None,
    *,
    margin_celsius: float = MARGIN_CELSIUS,
    limit_seconds: float = 300.0,
    poll_seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Wait:
    """Wait until the device is at most `margin_celsius` warmer than at the start, or the time is up.

    A hot predecessor makes the next trial look worse: leakage grows with temperature.

    Args:
        celsius: Reads the temperature; None when there is no sensor.
        start_celsius: Temperature before the first trial; None when it is unknown, and then nothing is waited for.
        margin_celsius: How much warmer is cool enough.
        limit_seconds: Longest wait.
        poll_seconds: Time between two looks.
        clock: Seconds that never go back.
        sleep: Waits.
    """
    begin = clock()
    now = celsius()
    while start_celsius is not None and now is not None and now > start_celsius + margin_celsius:
        left = limit_seconds - (clock() - begin)
        if left <= 0:
            return Wait(clock() - begin, False, now)
        sleep(min(poll_seconds, left))
        now = celsius()
    return Wait(clock() - begin, None if start_celsius is None or now is None else True, now)


def warm_up(
    step: Callable[[], object],
    *,
    celsius: Callable[[], float | None] = lambda: None,
    steady_celsius: float = 1.0,
    steady_seconds: float = 10.0,
    limit_seconds: float = 120.0,
    clock: Callable[[], float] = time.monotonic,
) -> Wait:
    """Do work until the temperature stands still, or the time is up; without a sensor the whole time is worked.

    Args:
        step: A little of the work to come, e.g. one training step whose result is thrown away.
        celsius: Reads the temperature; None when there is no sensor.
        steady_celsius: Standing still means to move by at most this much ...
        steady_seconds: ... over this time.
        limit_seconds: Longest warm-up.
        clock: Seconds that never go back.
    """
    begin = clock()
    seen: list[tuple[float, float]] = []
    steps = 0
    while (elapsed := clock() - begin) < limit_seconds:
        step()
        steps += 1
        now = celsius()
        if now is None:
            continue
        seen.append((elapsed, now))
        recent = [value for at, value in seen if at >= elapsed - steady_seconds]
        if elapsed - seen[0][0] >= steady_seconds and max(recent) - min(recent) <= steady_celsius:
            return Wait(clock() - begin, True, now, steps)
    return Wait(clock() - begin, False if seen else None, seen[-1][1] if seen else None, steps)


def hottest(edges: Mapping[str, Mapping[str, object]]) -> float | None:
    """Return the highest temperature in what a ledger's sources say at an edge, or None without a sensor."""
    known = [value for facts in edges.values() for key, value in facts.items() if "celsius" in key and isinstance(value, int | float)]
    return max(map(float, known), default=None)


@dataclass(frozen=True)
class Drift:
    """One configuration, measured again and again through a study.

    Attributes:
        n: Number of measurements.
        mean_joules: Mean with its interval.
        sd_joules: Standard deviation, or None with one measurement: what repeats differ by without any reason.
        slope_joules_per_hour: Change with time, with its interval; None with fewer than three measurements.
        significant: The interval of the slope leaves out zero; None when there is no slope.
    """

    n: int
    mean_joules: Interval
    sd_joules: float | None
    slope_joules_per_hour: Interval | None
    significant: bool | None

    @property
    def relative_sd(self) -> float | None:
        """Return the standard deviation over the mean."""
        return None if self.sd_joules is None or self.mean_joules.value == 0 else self.sd_joules / self.mean_joules.value

    @property
    def relative_slope_per_hour(self) -> float | None:
        """Return the slope over the mean, per hour."""
        slope = self.slope_joules_per_hour
        return None if slope is None or self.mean_joules.value == 0 else slope.value / self.mean_joules.value

    def describe(self) -> str:
        """Say it in one line."""
        line = f"{self.n} anchors, mean {self.mean_joules.value:.4g} J"
        if self.relative_sd is not None:
            line += f", sd {100 * self.relative_sd:.2g} %"
        slope = self.slope_joules_per_hour
        if slope is not None and self.mean_joules.value:
            low, high = (100 * bound / self.mean_joules.value for bound in (slope.low, slope.high))
            verdict = "a drift" if self.significant else "no drift shown"
            line += f", {100 * slope.value / self.mean_joules.value:+.2g} % per hour (95 %: {low:+.2g} to {high:+.2g}), {verdict}"
        return line


def anchor_drift(seconds: Sequence[float], joules: Sequence[float], confidence: float = 0.95) -> Drift:
    """Tell how the energy of an anchor configuration changed through a study.

    Args:
        seconds: When each measurement was made, from any origin, shape ``(n,)``.
        joules: What it took, shape ``(n,)``.
        confidence: Confidence of the intervals.

    Raises:
        ValueError: No measurements, or different lengths.
    """
    if len(seconds) != len(joules):
        raise ValueError(f"seconds and joules must have one length, got {len(seconds)} and {len(joules)}")
    mean = mean_interval(joules, confidence)
    sd = statistics.stdev(joules) if len(joules) > 1 else None
    if len(joules) < 3 or len(set(seconds)) < 2:
        return Drift(len(joules), mean, sd, None, None)
    line = fit_line([second / 3600 for second in seconds], joules, confidence)
    return Drift(len(joules), mean, sd, line.slope, 0.0 not in line.slope)


def anchor_drift_of(records: Iterable[Record]) -> Drift | None:
    """Tell the drift from the anchor's records; those without an energy are left out. None when none is left."""
    known = sorted((record.t0_ns / 1e9, record.joules) for record in records if record.joules is not None)
    return anchor_drift([at for at, _ in known], [joules for _, joules in known]) if known else None
