"""What readings tell of the time between them: how a power comes and goes, and when a counter was refreshed.

A driver updates its energy counter periodically (NVML: about every 100 ms); in between a read returns the old number. A read
that finds a new number says only that the refresh fell between it and the read before. Refreshes are periodic, so the narrow
bounds of a few of them place all the others: bounds are intersected, nothing is fitted. Where they contradict one another, the driver is
less regular than was thought: the tolerance grows until they agree, or the rhythm is taken for a new one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from itertools import pairwise
from operator import itemgetter, mul, or_

from .sources.source import NANO

#: Readings further apart than this leave a gap in the record.
GAP_SECONDS = 2.0
#: Irregularity of a driver that is granted from the start, between two refreshes.
JITTER_NS = 500_000
#: After so many refreshes seen sharply the rhythm is trusted to say when the next one comes.
ENOUGH = 12
#: A driver whose irregularity is more than this share of its period has no rhythm to be learnt.
REGULAR = 1 / 6
#: A rhythm that is learnt anew within this share of the old one was none.
SAME = 0.45


class UpdatePeriod:
    """Bounds on the period and the phase of a counter; ``period_ns`` is assumed until it is learnt."""

    def __init__(self, period_ns: int) -> None:
        self.assumed_ns = period_ns
        self.low_ns = 0.0
        self.high_ns = 0.0
        self.jitter_ns = float(JITTER_NS)
        self.sharp: deque[tuple[int, int, int]] = deque(maxlen=64)  # bounds, and the periods since the one before (0: not known)
        self.contradictions = 0
        self._chained = False  # whether the last refresh seen is also the last one in `sharp`
        self._forgotten_ns = 0.0

    @property
    def learnt(self) -> bool:
        """Whether the period is known from reads."""
        return self.high_ns > 0

    @property
    def settled(self) -> bool:
        """Whether the rhythm was confirmed often enough to be looked for at its own times only."""
        return self.learnt and len(self.sharp) >= ENOUGH

    @property
    def period_ns(self) -> float:
        """Best guess of the period in nanoseconds."""
        return (self.low_ns + self.high_ns) / 2 if self.learnt else float(self.assumed_ns)

    @property
    def longest_ns(self) -> int:
        """Period that is not exceeded, as far as is known."""
        return int(self.high_ns + self.jitter_ns) if self.learnt else self.assumed_ns

    def observe(self, low_ns: int, high_ns: int, *, unbroken: bool) -> None:
        """Learn from a refresh that fell into ``(low_ns, high_ns]``: after the last read of the old number, by the first of the new one.

        Wide bounds teach only what they contradict. ``unbroken`` if reads since the refresh before were so close that none can be missed.
        """
        if high_ns - low_ns > self.period_ns / 4:
            self._chained = False
            if self.learnt and not self._possible(low_ns, high_ns):
                self.jitter_ns = min(1.5 * self.jitter_ns, self.period_ns / 2)  # it came when none was due
            return
        count = 0
        if self.sharp:
            before = self.sharp[-1]
            shortest, longest = low_ns - before[1] - self.jitter_ns, high_ns - before[0] + self.jitter_ns
            count = 1 if unbroken and self._chained else self._count(shortest, longest)
        self.sharp.append((low_ns, high_ns, count))
        self._chained = True
        if count:
            self._learn()

    def _count(self, shortest_ns: float, longest_ns: float) -> int:
        """Return how many periods fit between two refreshes, or 0 when several numbers would do."""
        if not self.learnt:
            return 0
        fewest, most = -(-shortest_ns // self.high_ns), longest_ns // self.low_ns
        return int(fewest) if fewest == most else 0

    def _learn(self) -> None:
        was, granted = self.period_ns, self.jitter_ns
        while (bounds := self._bounds()) is None and self.jitter_ns <= REGULAR * was:
            self.jitter_ns *= 1.5
        if bounds is not None and self.jitter_ns > granted:
            self.jitter_ns *= 1.5  # what agrees just now will be exceeded again
            bounds = self._bounds()
        if bounds is None:
            # Another rhythm: start again from the latest read.
            self.contradictions += 1
            self.sharp.clear()
            self.low_ns, self.high_ns, self.jitter_ns, self._forgotten_ns = 0.0, 0.0, granted, was
            return
        self.low_ns, self.high_ns = bounds
        if self._forgotten_ns and abs(self.period_ns - self._forgotten_ns) < SAME * self._forgotten_ns:
            self.jitter_ns = max(self.jitter_ns, self._forgotten_ns / 2)

    def _possible(self, low_ns: int, high_ns: int) -> bool:
        """Return whether any refresh of the rhythm may lie within ``(low_ns, high_ns]``."""
        if high_ns - low_ns > self.high_ns or not self.sharp:
            return True
        a, b = self._nearest(low_ns)
        middle = round(((low_ns + high_ns) - (a + b)) / (2 * self.period_ns))
        for n in (middle - 1, middle, middle + 1):
            step = (self.low_ns * n, self.high_ns * n) if n >= 0 else (self.high_ns * n, self.low_ns * n)
            if a + step[0] - self.jitter_ns < high_ns and b + step[1] + self.jitter_ns > low_ns:
                return True
        return False

    def _nearest(self, t_ns: int) -> tuple[int, int]:
        """Return the bounds of the refresh that begin nearest to an instant: mostly the last ones."""
        after = len(self.sharp) if t_ns >= self.sharp[-1][0] else bisect_left(self.sharp, t_ns, key=itemgetter(0))
        found = self.sharp[max(after - 1, 0)]
        if 0 < after < len(self.sharp) and self.sharp[after][0] - t_ns < t_ns - found[0]:
            found = self.sharp[after]
        return found[0], found[1]

    def _bounds(self) -> tuple[float, float] | None:
        """Return the periods that agree with every refresh against the one before and against the first of its chain, or None."""
        low, high = 1.0, float("inf")
        first, away = self.sharp[0], 0
        for before, after in pairwise(self.sharp):
            if not after[2]:
                first, away = after, 0
                continue
            away += after[2]
            for other, count in ((before, after[2]), (first, away)):
                low = max(low, (after[0] - other[1] - self.jitter_ns) / count)
                high = min(high, (after[1] - other[0] + self.jitter_ns) / count)
        return (low, high) if low <= high else None

    def locate(self, low_ns: int, high_ns: int) -> tuple[int, int]:
        """Return the bounds of a refresh, narrowed by the refreshes that are known better.

        The refresh meant is the last one in ``(low_ns, high_ns]``. Bounds that contradict what was learnt come back as they were.
        """
        if not self.learnt or not self.sharp:
            return low_ns, high_ns
        a, b = self._nearest(low_ns)
        latest = int((high_ns - a) // self.low_ns) + 1
        found: tuple[int, int] | None = None
        for n in range(latest, latest - 4, -1):
            step = (self.low_ns * n, self.high_ns * n) if n >= 0 else (self.high_ns * n, self.low_ns * n)
            slack = int(self.jitter_ns) if n else 0
            low, high = int(a + step[0]) - slack, int(b + step[1]) + slack
            if high <= low_ns:
                break
            if low >= high_ns:
                continue
            found = (max(low, low_ns), min(high, high_ns) if found is None else found[1])
            if low >= low_ns and high <= high_ns:
                break  # this one was surely refreshed before the read, so the last one is not earlier
        return found if found is not None and found[0] < found[1] else (low_ns, high_ns)


#: Readings closer together than this see one state of a fast load twice.
APART_NS = NANO // 25
#: A change between two readings as close as this is seen sharply.
SHARP_NS = NANO // 100
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
#: Less than this share of the power is the sensor's own noise. Found with `tests/benchmarks/sensor_matrix.py`.
NOISE = 0.004


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
