"""Energy counters: what one that went down means, and when one was refreshed, learnt from the reads that saw it change.

A driver updates its energy counter periodically (NVML: about every 100 ms); in between a read returns the old number. A read
that finds a new number says only that the refresh fell between it and the read before. Refreshes are periodic, so the narrow
bounds of a few of them place all the others: bounds are intersected, nothing is fitted. Where they contradict one another, the driver is
less regular than was thought: the tolerance grows until they agree, or the rhythm is taken for a new one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

from .sources.source import NANO

#: Readings further apart than this leave a gap in the record.
GAP_SECONDS = 2.0
#: A package may go from idle to this power between two readings; more between them is no wrap.
SUDDEN_WATTS = 1000.0
#: Over a gap the mean power may be so many times the last one.
RISE = 10.0
#: No component draws so much over a second: a counter that gains more is another one.
MOST_WATTS = 1e6
#: Relative standard uncertainty of the power over a gap, by the one before it.
GAP_U = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a component's readings.

    Attributes:
        t_ns: When it was noticed; a gap ends then.
        kind: ``wrap``, ``reset``, ``gap``, ``error`` or ``switch``.
        seconds: How long the readings were missing, where that applies.
    """

    t_ns: int
    kind: str
    seconds: float = 0.0
    text: str = ""

    def overlap(self, t0_ns: int, t1_ns: int) -> float:
        """Return for how many seconds of a window the readings were missing."""
        begin_ns = self.t_ns - int(self.seconds * NANO)
        return max(min(t1_ns, self.t_ns) - max(t0_ns, begin_ns), 0) / NANO


@dataclass(frozen=True, slots=True)
class Fall:
    """The increment behind a counter that went down or jumped, its squared standard uncertainty in J^2 and what a record shows of it."""

    joules: float
    variance: float
    events: tuple[Event, ...]


def fall(
    source: str, before: float, after: float, now_ns: int, seconds: float, watts: float | None, reach: float | None, tick_seconds: float
) -> Fall:
    """Tell a wrap from a counter that started again, as after a suspend or a reload of the driver, and both from another counter.

    Wrap and restart are taken for granted only where the power that they imply is one. A virtual machine that was moved goes on with a
    counter that has nothing to do with the one before, and what a laptop draws while it sleeps is counted in a moment of the monotonic
    clock, which stands still meanwhile: the last power is then all that is known. The reading ``before`` and the smaller
    one ``after``, or one that is impossibly larger, are in joules and so many seconds apart; ``watts`` is the power before, or None when
    it is not known yet; ``reach`` is the range of the counter in joules, or None when it does not wrap; ``tick_seconds`` is the refresh
    period.
    """
    usual = watts or 0.0
    # Lost at a restart is what was drawn since the last refresh before, and what the restarted counter has not shown yet.
    restarted = (usual * (seconds + tick_seconds)) ** 2
    wrapped = None if reach is None else after - before + reach
    likely = SUDDEN_WATTS * (seconds if watts is None else min(seconds, GAP_SECONDS))
    if reach is None or wrapped is None or wrapped > max(likely, RISE * usual * seconds) or after > before:
        text = "at zero" if wrapped is None else f"for a wrap it would have counted {wrapped / seconds:.0f} W"
        text, joules = f"{source} counter started again{' ' if wrapped is None else ': '}{text}", after
        if after > before or after > max(SUDDEN_WATTS, RISE * usual) * (seconds + tick_seconds):
            text = (
                f"{source} counter went from {before:.0f} to {after:.0f} J within {seconds:.2g} s: another machine's, "
                "or this one slept; by its last power"
            )
            joules = usual * seconds
        return Fall(joules, restarted, (Event(now_ns, "reset", seconds, text),))
    return turned(Fall(wrapped, 0.0, (Event(now_ns, "wrap"),)), now_ns, seconds, usual, reach)


def turned(seen: Fall, now_ns: int, seconds: float, watts: float, reach: float | None) -> Fall:
    """Return an increment over so many seconds with the wraps in it that nobody saw: as many as the last power ``watts`` says.

    Where they are to be expected, what was drawn meanwhile may be as different as over any gap, see `GAP_U`.
    """
    if reach is None or watts * seconds <= reach / 2:
        return seen
    missed = max(round((watts * seconds - seen.joules) / reach), 0)
    wraps = missed + len(seen.events)
    text = f"{seconds:.0f} s without a reading: the counter wrapped more than once, {wraps} times by its last power"
    if wraps < 2:
        text = f"{seconds:.0f} s without a reading: the counter may have wrapped unseen, by its last power it did not"
    events = (*seen.events, *(Event(now_ns, "wrap") for _ in range(missed)), Event(now_ns, "gap", text=text))
    return Fall(seen.joules + missed * reach, max(reach**2 / 12, (GAP_U * watts * seconds) ** 2), events)


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
