"""The cumulative energy of one component over time: where every joule of a window comes from.

A curve is a list of nodes ``(time, joules)`` that only grows; between nodes energy runs straight. A window is the difference
of two values of it, so windows nest, overlap and add up by themselves. A node that arrives after a window was closed refines it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from typing import NamedTuple

from .readings import GAP_SECONDS, NOISE, Ripple, UpdatePeriod
from .sources.source import NANO, Capability

#: A window's end may lie this far beyond the last node (seconds); further out the energy is unknown.
REACH_SECONDS = 1.0
#: Share of the power that may change unseen between two nodes, whatever the neighbouring nodes say.
UNSEEN = 0.05
#: Marks a node of which nobody knows how the power swings between it and the next.
UNKNOWN = -1.0
#: Number of segments that count as recent.
RECENT = 10
#: Share of the power that may come and go between two readings of it without being seen.
UNSAMPLED = 0.02
#: What is held for longer (seconds) may stay at one phase of a load that pulses as slowly.
HELD = 0.04
#: What is held for longer than this (seconds) meets one phase of any load with a whole number of steps in it, for minutes, and nothing
#: shows it: so much more is taken to come and go. Found with `tests/benchmarks/sensor_matrix.py` (held 1 s, jagged: steps of 7.01 Hz).
LONG_HELD, IN_STEP = 0.5, 1.5
#: Steps as long as a mean leave so little of their swing in it when their lengths differ by a few percent; more than this share of
#: the power is not taken to come and go. Found with `tests/benchmarks/sensor_matrix.py`.
LEFT, MOST = 1 / 20, 0.6


class Point(NamedTuple):
    """The value of a curve at one instant; a tuple, since every question to a curve makes some and a frozen dataclass takes longer.

    Attributes:
        variance: Squared standard uncertainty of the instant's place on the curve, in J^2.
        grown: Accumulated variance of the curve's own integration up to here, in J^2.
        segment: Index of the node before.
    """

    joules: float
    variance: float
    grown: float
    segment: int


class Curve:
    """Nodes of one component.

    A day at 10 Hz is 28 MB: nodes are kept in flat arrays and never thinned out, since a worker may ask for any past window.

    Args:
        period: What is known of the refreshes of the counter, or None for a quantity that is exact when read.
        shape: A finer but less exact curve of the same energy. Between two nodes energy is spread as it says: the counter knows how
            much, the power sensor knows when. The uncertainty does not rely on it, since a sensor may lag, and it moves no value by
            more than the power's swing allows, since a load that pulses faster than the sensor is read has no shape.
        lag_ns: The power that was integrated may have been drawn so much earlier.
    """

    def __init__(self, period: UpdatePeriod | None = None, resolution: float = 0.0, shape: Curve | None = None, lag_ns: int = 0) -> None:
        self.shape = shape
        self.lag_ns = lag_ns
        self.period = period
        self.resolution = resolution
        self.t = array("q")
        self.half = array("q")
        self.joules = array("d")
        self.grown = array("d")
        self.ripple = array("f")

    def __len__(self) -> int:
        return len(self.t)

    def append(self, low_ns: int, high_ns: int, joules: float, *, variance: float = 0.0, ripple: float | None = None) -> None:
        """Add the node that lies somewhere in ``(low_ns, high_ns]``, with the energy since the curve began.

        ``variance`` is what the way from the node before adds to the uncertainty, in J^2; ``ripple`` the standard deviation of the power
        that comes and goes between nodes, in watts, or None when it is not read.
        """
        if self.period is not None:
            low_ns, high_ns = self.period.locate(low_ns, high_ns)
        t = (low_ns + high_ns) // 2
        if self.t and t <= self.t[-1]:
            if joules <= self.joules[-1]:
                return
            t = self.t[-1] + 1
        if len(self.half) > len(self.t):  # a Ctrl-C came between two of the lines below
            for column in (self.half, self.grown, self.joules, self.ripple):
                del column[len(self.t) :]
        self.half.append(max((high_ns - low_ns) // 2, 0))
        self.grown.append((self.grown[-1] if self.t else 0.0) + variance)
        self.joules.append(max(joules, self.joules[-1]) if self.t else joules)
        self.ripple.append(UNKNOWN if ripple is None else ripple)
        self.t.append(t)  # last: it counts the nodes

    def refine(self) -> None:
        """Place the last 32 nodes again, now that the refreshes around them are known better."""
        if self.period is None:
            return
        for i in range(max(0, len(self.t) - 32), len(self.t)):
            low, high = self.period.locate(self.t[i] - self.half[i], self.t[i] + self.half[i])
            t = (low + high) // 2
            if high - low < 2 * self.half[i] and (i == 0 or t > self.t[i - 1]) and (i + 1 == len(self.t) or t < self.t[i + 1]):
                self.t[i], self.half[i] = t, (high - low) // 2

    def cut(self, since_ns: int) -> None:
        """Forget every node after an instant."""
        keep = bisect_right(self.t, since_ns)
        for column in (self.t, self.half, self.joules, self.grown, self.ripple):
            del column[keep:]

    def graft(self, other: Curve, since_ns: int) -> None:
        """Replace everything after ``since_ns`` by what another curve saw.

        A counter that froze is found out only later: its place is then taken by the integrated power from the moment on
        at which it was last seen to move.
        """
        self.cut(since_ns)
        start = self.t[-1] if self.t else since_ns
        at_start = other.at(start)
        offset = (self.joules[-1] if self.t else 0.0) - (at_start.joules if at_start else 0.0)
        grown = (self.grown[-1] if self.t else 0.0) - (at_start.grown if at_start else 0.0)
        self.period = self.shape = None
        self.lag_ns = other.lag_ns
        for i in range(bisect_right(other.t, start), len(other.t)):
            before = self.grown[-1] if self.t else 0.0
            t, half = other.t[i], other.half[i]
            variance, ripple = max(other.grown[i] + grown - before, 0.0), other.ripple[i]
            self.append(t - half, t + half, other.joules[i] + offset, variance=variance, ripple=None if ripple < 0 else ripple)

    def watts(self, segment: int) -> float:
        """Return the mean power between a node and the next."""
        span = self.t[segment + 1] - self.t[segment]
        return (self.joules[segment + 1] - self.joules[segment]) / span * NANO

    def spread(self, segment: int, reach: int = 1) -> float:
        """Return how far the power may swing inside a segment, in watts: by its neighbours, ``reach`` of them, and by its ripple.

        Where nobody reads the power, its mean is taken for its standard deviation too: a load that is off for half of the time.
        """
        t, joules = self.t, self.joules
        least = (t[segment + 1] - t[segment]) / 4  # without slivers: two misplaced refreshes that nearly meet give any power
        low, high = math.inf, 0.0
        for i in range(max(segment - reach, 0), min(segment + reach, len(t) - 2) + 1):
            span = t[i + 1] - t[i]
            if span >= least:
                watts = (joules[i + 1] - joules[i]) / span * NANO
                low, high = watts if watts < low else low, watts if watts > high else high
        return max(high - low, UNSEEN * high, 2 * self.ripple_watts(segment))

    def ripple_watts(self, segment: int) -> float:
        """Return the standard deviation of the power that comes and goes inside of a segment."""
        ripple = max(self.ripple[segment], self.ripple[segment + 1])
        return self._level(segment) if ripple < 0 else ripple

    def _level(self, segment: int) -> float:
        """Return the mean power of a segment with its neighbours, in watts: what a misplaced node is worth."""
        first, last = max(segment - 1, 0), min(segment + 2, len(self.t) - 1)
        return (self.joules[last] - self.joules[first]) / (self.t[last] - self.t[first]) * NANO

    def watts_around(self, t_ns: int, reach_ns: int) -> tuple[float, float] | None:
        """Return the least and the greatest power around an instant, as far as they surely were: misplaced nodes make none of a constant.

        Each segment's power has two bounds; returned are the least upper and the greatest lower one. The first is the greater one where no
        change is sure. None where there are no nodes.
        """
        t, half, joules = self.t, self.half, self.joules
        first, last = bisect_right(t, t_ns - reach_ns) - 1, bisect_right(t, t_ns + reach_ns)
        most, least = math.inf, 0.0
        for i in range(max(first, 0), min(last, len(t) - 1)):
            span, doubt = t[i + 1] - t[i], half[i] + half[i + 1]
            if span > doubt:
                gained = (joules[i + 1] - joules[i]) * NANO
                high, low = gained / (span - doubt), gained / (span + doubt)
                if high < most:
                    most = high
                if low > least:
                    least = low
        return None if math.isinf(most) else (most, least)

    def change(self, segment: int) -> float:
        """Return by how much the power surely differs between a segment and the one before, in watts."""
        bounds = []
        for i in (segment - 1, segment):
            joules, doubt = (self.joules[i + 1] - self.joules[i]) * NANO, self.half[i] + self.half[i + 1]
            span = self.t[i + 1] - self.t[i]
            bounds.append((joules / (span + doubt), joules / max(span - doubt, span / 4)))
        return max(bounds[0][0] - bounds[1][1], bounds[1][0] - bounds[0][1], 0.0)

    def _bend(self, segment: int, t_ns: int, share: float) -> float:
        """Return by how much the shape lies above the straight line at an instant, in joules; 0.0 where there is no shape."""
        if self.shape is None or not 0.0 < share < 1.0:
            return 0.0
        a, b, c = (self.shape._value(t, 0.0) for t in (self.t[segment], t_ns, self.t[segment + 1]))
        if a is None or b is None or c is None or c <= a:
            return 0.0
        return ((b - a) / (c - a) - share) * (self.joules[segment + 1] - self.joules[segment])

    def _place(self, t_ns: int, reach_seconds: float) -> tuple[int, float, float] | None:
        """Return the segment of an instant, how far through it and how many seconds beyond the nodes it lies; None out of reach."""
        t = self.t
        i = min(max(bisect_right(t, t_ns) - 1, 0), len(t) - 2)
        share = (t_ns - t[i]) / (t[i + 1] - t[i])
        if 0.0 <= share <= 1.0:
            return i, share, 0.0
        away = (t[i] - t_ns if share < 0 else t_ns - t[i + 1]) / NANO
        return None if away > reach_seconds + self.half[i if share < 0 else i + 1] / NANO else (i, share, away)

    def at(self, t_ns: int, reach_seconds: float = REACH_SECONDS) -> Point | None:
        """Return the value at an instant, or None more than ``reach_seconds`` beyond the nodes: so far the power there may continue.

        The uncertainty has three parts. A power sensor trails its load by up to a lag L: where the power changes by D, the energy is off by
        up to D·L. A node's own time is known to ± half, which is worth power × half / √3. Between two nodes a share f
        of the way, the power is unknown within its spread D. Whatever it does in a segment of length T, with a standard deviation of at
        most D/2 (Popoviciu), the energy is off the straight line by at most D/2·T·√(f(1-f)) (Cauchy and Schwarz): the half-width of a
        uniform distribution (GUM 4.3.7).
        """
        if len(self.t) < 2:
            known = len(self.t) == 1 and abs(t_ns - self.t[0]) <= max(self.half[0], 1)
            return Point(self.joules[0], self.resolution**2 / 12, 0.0, 0) if known else None
        place = self._place(t_ns, reach_seconds)
        if place is None:
            return None
        i, share, away = place
        gained = self.joules[i + 1] - self.joules[i]
        joules = self.joules[i] + share * gained
        grown = self.grown[i] + min(max(share, 0.0), 1.0) * (self.grown[i + 1] - self.grown[i])
        if away == 0.0:
            room = self.spread(i) * (self.t[i + 1] - self.t[i]) / NANO * math.sqrt(share * (1 - share))
            inside = room**2 / 12
            if self.shape:
                joules += min(max(self._bend(i, t_ns, share), -room), room)
            near, far, level = self.half[i] / NANO, self.half[i + 1] / NANO, self._level(i)
            placed = (level * near * (1 - share)) ** 2 / 3 + (level * far * share) ** 2 / 3
        else:
            # Beyond the nodes nothing bounds the power: it may have gone to any recent level, or to half or double.
            watts = gained / (self.t[i + 1] - self.t[i]) * NANO
            inside = (max(self.spread(i, RECENT), 0.5 * watts) * away) ** 2
            placed = (watts * self.half[i if share < 0 else i + 1] / NANO) ** 2 / 3
        around = self.watts_around(t_ns, 2 * self.lag_ns) if self.lag_ns else None  # the sensor may be behind its load
        lagging = (max(around[1] - around[0], 0.0) * self.lag_ns / NANO) ** 2 / 3 if around else 0.0
        return Point(joules, inside + placed + lagging + self.resolution**2 / 12, grown, i)

    def _value(self, t_ns: int, reach_seconds: float) -> float | None:
        """Return what `at` gives without the uncertainty, which takes most of the time where nothing gives a shape."""
        if self.shape or len(self.t) < 2:
            point = self.at(t_ns, reach_seconds)
            return None if point is None else point.joules
        place = self._place(t_ns, reach_seconds)
        return None if place is None else self.joules[place[0]] + place[1] * (self.joules[place[0] + 1] - self.joules[place[0]])

    def between(self, t0_ns: int, t1_ns: int, reach_seconds: float = REACH_SECONDS) -> float | None:
        """Return the energy between two instants, or None where one of them is out of reach."""
        begin, end = self._value(t0_ns, reach_seconds), self._value(t1_ns, reach_seconds)
        return None if begin is None or end is None else max(end - begin, 0.0)


class PowerIntegral:
    """The energy that follows from readings of the power, and its ripple between them: None where each is a mean, which shows none."""

    def __init__(self, capability: Capability) -> None:
        # A mean stands for its middle. Inside of it the power is smeared: an eighth of its length for one change of power, twice that here.
        self._middle_ns = int(capability.mean_seconds / 2 * NANO)
        lag_ns = int((capability.lag_seconds + capability.mean_seconds / 4) * NANO)
        self.curve = Curve(resolution=capability.resolution_joules, lag_ns=lag_ns)
        self.ripple = None if capability.mean_seconds else Ripple(capability.sees < 1)
        self._learns, self._smooths = capability.lag_seconds > 0, capability.smooths
        self._last: tuple[int, float] | None = None

    @property
    def swing_watts(self) -> float | None:
        """Standard deviation of the power that comes and goes between readings: more than is seen where a reading may be a mean."""
        if self.ripple is None or self.ripple.watts is None:
            return None
        seen = self.ripple.bent_watts
        if self.ripple.part_time:  # it may have met one phase of the load of late; the mean of both variances holds in the benchmark
            seen = math.hypot(seen, max(seen, self.ripple.wide_watts)) / math.sqrt(2)
        if not self._smooths:
            return seen
        level, usual = self.ripple.level_watts, self.ripple.usual_watts
        return max(seen, min(math.sqrt(max(usual**2 - (NOISE * level) ** 2, 0.0)) / LEFT, MOST * level))

    @property
    def learning(self) -> bool:
        """Whether close looks may still tell for how long the sensor holds a value."""
        return self._learns and self.ripple is not None and not self.ripple.settled

    def add(self, read_ns: int, watts: float, onto: Curve) -> None:
        """Extend a curve by a trapezoid; every reading counts, also one equal to the last."""
        t_ns, hold = read_ns - self._middle_ns, 0.0
        if self.ripple is not None:
            self.ripple.add(t_ns, watts)
            if self._learns:
                hold = self.ripple.hold_ns / NANO
                onto.lag_ns = max(onto.lag_ns, self.ripple.hold_ns)
        swing = 0.0 if self.ripple is None or self.ripple.watts is None else self.ripple.wide_watts if hold > HELD else self.ripple.watts
        swing *= IN_STEP if hold > LONG_HELD else 1.0
        if self._last is None:
            onto.append(t_ns, t_ns, onto.joules[-1] if len(onto) else 0.0)
        else:
            before_ns, before = self._last
            seconds = (t_ns - before_ns) / NANO
            mean = (watts + before) / 2
            # The power may have changed anywhere between the two: uniform over ± half of the rectangle between them would be 1/12. A
            # long window may hold few changes, and power may also come and go, so a third more. What a sensor holds, it holds wrongly.
            variance = ((watts - before) ** 2 / 9 + (UNSAMPLED * mean) ** 2) * seconds**2 + swing**2 * seconds * max(seconds, hold)
            if seconds > GAP_SECONDS:
                variance += (0.5 * mean * seconds) ** 2
            onto.append(t_ns, t_ns, onto.joules[-1] + mean * seconds, variance=variance, ripple=self.swing_watts)
        self._last = (t_ns, watts)
