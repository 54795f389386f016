"""What readings of the power say: energy by integration, and how far the power comes and goes between two of them."""

from __future__ import annotations

import math
from collections import deque
from operator import mul, or_

from .counter import GAP_SECONDS
from .curve import Curve
from .sources.source import NANO, Capability

#: Share of the power that may come and go between two readings of it without being seen.
UNSAMPLED = 0.02
#: Readings closer together than this see one state of a fast load twice.
APART_NS = NANO // 25
#: A change between two readings as close as this is seen sharply.
SHARP_NS = NANO // 100
#: What is held for longer (seconds) may stay at one phase of a load that pulses as slowly.
HELD = 0.04
#: What is held for longer than this (seconds) meets one phase of any load with a whole number of steps in it, for minutes, and nothing
#: shows it: so much more is taken to come and go. Found with `tests/benchmarks/sensor_matrix.py` (held 1 s, jagged: steps of 7.01 Hz).
LONG_HELD, IN_STEP = 0.5, 1.5
#: Readings further apart than this are no neighbours.
NEIGHBOURS_NS = NANO
#: Number of readings that stand for the present, and for the load as such: rare bursts are seen rarely.
NOW, LATELY, LONG = 16, 64, 256
#: A sensor that looks now and then is in step with some loads for longer than its latest readings show: so many times their variance.
#: Found with `tests/benchmarks/sensor_matrix.py`.
ALIKE = 4
#: So many bends come of a single change of the load, there and back.
FEW = 3
#: Readings are alike within this share of the range of late. Of a load that rests and works fewer than this share of readings lie between
#: two levels, of one that pulses more than twice as many do, if each is a mean of a part of the time. Found as above.
ALIKE_SHARE, UNSTEADY = 0.05, 0.06
#: So many new values, none of them among the latest, show that a sensor never repeats itself: between two it holds its value.
SEVERAL = 4
#: Steps as long as a mean leave so little of their swing in it when their lengths differ by a few percent; more than this share of
#: the power is not taken to come and go, and less than this is the sensor's own noise. Found with `tests/benchmarks/sensor_matrix.py`.
LEFT, MOST, NOISE = 1 / 20, 0.6, 0.004


class Ripple:
    """Standard deviation of the power around its slow course, from readings alone; each is None while fewer than three are known.

    Two steps of power that follow each other, up and down again, multiply to a negative number; for readings that have nothing to do with
    their neighbours its mean is minus their variance. A lasting change, a slow wave or a ramp gives zero or a positive number: those the
    integration follows by itself.

    Source: the autocovariance of a differenced series of independent values, e.g. Box and Jenkins, Time Series Analysis, MA(1).

    Attributes:
        watts: What alternates from reading to reading.
        bent_watts: What does not lie on a straight line through its neighbours: a load whose pulses last as long as two readings, too.
        wide_watts: What comes and goes at all of late, more where it does slowly: a sensor that looks now and then may meet one phase of a
            load for as long.
        level_watts: Mean of late.
        hold_ns: For how long the sensor holds a value, as far as its own noise shows it, or zero.
        part_time: Whether the sensor looks now and then only.
    """

    def __init__(self, part_time: bool = False) -> None:
        self.part_time = part_time
        self.watts: float | None = None
        self.bent_watts = self.wide_watts = self.level_watts = 0.0
        self.hold_ns = 0
        self._last: tuple[int, float] | None = None
        self._before: tuple[int, float] | None = None
        self._now: deque[float] = deque(maxlen=NOW)
        self._bends: deque[float] = deque(maxlen=LATELY)
        self._lately: deque[float] = deque(maxlen=LATELY)
        self._spans: deque[float] = deque(maxlen=LATELY - 2)  # of each three of them in a row
        self._long, self._count, self._pulsed = 0.0, 0, 0.0
        self._seen: tuple[int, float] | None = None
        self._since_ns: int | None = None
        self._values: deque[float] = deque(maxlen=NOW)
        self._runs: deque[int] = deque(maxlen=LATELY)
        self._sharp: deque[int] = deque(maxlen=LATELY)
        self._sharply = False
        self._new = self._same = 0

    @property
    def settled(self) -> bool:
        """Whether enough values were seen to come and to go by close looks."""
        return len(self._sharp) >= 2 * SEVERAL

    @property
    def usual_watts(self) -> float:
        """What three quarters of the readings bend by at most, of normal ones: a few steps of the load do not enter."""
        return math.sqrt(sorted(self._bends)[3 * len(self._bends) // 4] / 1.32)  # that quantile of chi-squared

    def add(self, t_ns: int, watts: float) -> None:
        """Enter a reading; one that comes right after another, or is still held, is left out."""
        self._hold(t_ns, watts)
        if self._last is None or t_ns - self._last[0] > NEIGHBOURS_NS + 2 * self.hold_ns:
            self._last, self._before = (t_ns, watts), None
            return
        if t_ns - self._last[0] < APART_NS or (self.hold_ns and watts == self._last[1]):
            return
        lately, bends = self._lately, self._bends
        lately.append(watts)
        if (count := len(lately)) > 2:
            three = lately[-3], lately[-2], watts
            self._spans.append(max(three) - min(three))
        if self._before is not None:
            (t0, before), (t1, last) = self._before, self._last
            product = (last - watts) * (last - before)
            bend = last - before - (watts - before) * (t1 - t0) / (t_ns - t0)
            self._now.append(product)
            bends.append(bend * bend / 1.5)  # of independent values, about
            self._count = min(self._count + 1, LONG)
            self._long += (product - self._long) / self._count
            bent = sum(bends)
            alternating, bent_each = sum(self._now) / len(self._now), bent / len(bends)
            self.watts = math.sqrt(max(alternating, self._long, 0.0))
            self.level_watts = sum(lately) / count
            room = max(lately) - min(lately)
            most = room**2 / 4  # no standard deviation is more than half of the range (Popoviciu)
            seen = max(min(max(alternating, bent_each), most), self._long)
            self.bent_watts = math.sqrt(seen)
            # As of a first-order process with this variance, and this one of its innovations; but a rest and a work are no pulses: so many
            # readings of about equal weight bend.
            slow = 2 * (sum(map(mul, lately, lately)) / count - self.level_watts**2) - seen
            fourth = sum(map(mul, bends, bends))
            several = bent**2 / fourth - FEW if fourth else 0.0
            pulses = slow > seen and several > FEW
            if slow > seen:
                slow = ALIKE * slow if pulses else min(slow, several * seen)
            wide, noise = max(seen, slow), (NOISE * self.level_watts) ** 2
            least = max(min(max(alternating, self._long), most), 0.0)
            unsteady = self._unsteady(ALIKE_SHARE * room) if pulses or (self.part_time and wide > least) else 0.0
            if self.part_time:
                wide = max(least, unsteady * wide) - noise
            # A load that pulsed before and looks constant now may have come in step with the sensor.
            level = self.level_watts**2
            self._pulsed = max(wide / level if unsteady == 1 and pulses and level else 0.0, self._pulsed * (1 - 1 / LONG))
            self.wide_watts = math.sqrt(max(wide, self._pulsed * level if self._pulsed * level > noise else 0.0, 0.0))
        self._before, self._last = self._last, (t_ns, watts)

    def _unsteady(self, room: float) -> float:
        """Return whether the load pulses, from 0 to 1: few readings of a mean belong to no run of three alike where it rests and works."""
        alike = [False, False, *[span <= room for span in self._spans], False, False]
        steady: int = sum(map(or_, map(or_, alike, alike[1:]), alike[2:]))
        return min(max((1 - steady / len(self._lately)) / UNSTEADY - 1, 0.0), 1.0)

    def _hold(self, t_ns: int, watts: float) -> None:
        """Learn for how long a value is held: no longer than from before it came until after it went.

        A load may rest and jump back by itself. Numbers that stay for a while and never come back are those of a sensor with its own noise.
        """
        if self._seen is not None and watts == self._seen[1]:
            self._same += 1
        elif self._seen is not None:
            self._new = 0 if watts in self._values else self._new + 1
            self._values.append(watts)
            sharp = t_ns - self._seen[0] < SHARP_NS
            if self._since_ns is not None:
                (self._sharp if sharp and self._sharply else self._runs).append(t_ns - self._since_ns)
            self._since_ns, self._sharply = self._seen[0], sharp
            if min(self._new, self._same) >= SEVERAL:
                runs = self._sharp if len(self._sharp) >= SEVERAL or not self._runs else self._runs
                self.hold_ns = min(sorted(runs)[len(runs) // 8], 2 * NEIGHBOURS_NS)
        self._seen = (t_ns, watts)


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
