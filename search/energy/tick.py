"""When a counter was refreshed, learnt from the reads that saw it change.

A driver updates its energy counter now and then (NVML: about every 100 ms); in between a read returns the old number. A read
that finds a new number says only that the refresh fell between it and the read before. Refreshes are periodic, so the narrow
bounds of a few of them place all the others: bounds are intersected, nothing is fitted, and a contradiction is noticed.
"""

from __future__ import annotations

from collections import deque

#: Tolerance for a driver's own irregularity before the learnt period is thrown away.
JITTER_NS = 500_000


class Tick:
    """Bounds on the period and the phase of a counter.

    Args:
        period_ns: Period that is assumed until it is learnt.
    """

    def __init__(self, period_ns: int) -> None:
        self.assumed_ns = period_ns
        self.low_ns = 0.0
        self.high_ns = 0.0
        self.sharp: deque[tuple[int, int]] = deque(maxlen=64)
        self.contradictions = 0
        self._chained = False  # whether the last refresh seen is also the last one in `sharp`

    @property
    def learnt(self) -> bool:
        """Whether the period is known from reads."""
        return self.high_ns > 0

    @property
    def period_ns(self) -> float:
        """Best guess of the period in nanoseconds."""
        return (self.low_ns + self.high_ns) / 2 if self.learnt else float(self.assumed_ns)

    @property
    def longest_ns(self) -> int:
        """Period that is not exceeded, as far as is known."""
        return int(self.high_ns) + JITTER_NS if self.learnt else self.assumed_ns

    def observe(self, low_ns: int, high_ns: int, *, unbroken: bool) -> None:
        """Learn from a refresh that fell into ``(low_ns, high_ns]``; only narrow bounds teach anything.

        Args:
            low_ns: Time of the last read that still saw the old number.
            high_ns: Time of the first read that saw the new one.
            unbroken: Whether reads since the refresh before were so close that none can have been missed.
        """
        if high_ns - low_ns > self.period_ns / 4:
            self._chained = False
            return
        if self.sharp:
            before = self.sharp[-1]
            shortest, longest = low_ns - before[1] - JITTER_NS, high_ns - before[0] + JITTER_NS
            count = 1 if unbroken and self._chained else self._count(shortest, longest)
            if count and shortest > 0:
                self._narrow(shortest / count, longest / count)
        self.sharp.append((low_ns, high_ns))
        self._chained = True

    def _count(self, shortest_ns: float, longest_ns: float) -> int:
        """Return how many periods fit between two refreshes, or 0 when several numbers would do."""
        if not self.learnt:
            return 0
        fewest, most = -(-shortest_ns // self.high_ns), longest_ns // self.low_ns
        return int(fewest) if fewest == most else 0

    def _narrow(self, low_ns: float, high_ns: float) -> None:
        if not self.learnt:
            self.low_ns, self.high_ns = max(low_ns, 1.0), high_ns
            return
        low, high = max(low_ns, self.low_ns), min(high_ns, self.high_ns)
        if low > high:
            # The driver changed its rhythm: start again from the latest look.
            self.contradictions += 1
            self.sharp.clear()
            self.low_ns = self.high_ns = 0.0
            return
        self.low_ns, self.high_ns = low, high

    def locate(self, low_ns: int, high_ns: int) -> tuple[int, int]:
        """Return the bounds of a refresh, narrowed by the refreshes that are known better.

        The refresh meant is the last one in ``(low_ns, high_ns]``. Bounds that contradict what was learnt come back as they were.
        """
        if not self.learnt or not self.sharp:
            return low_ns, high_ns
        a, b = min(self.sharp, key=lambda bounds: abs(bounds[0] - low_ns))
        latest = int((high_ns - a) // self.low_ns) + 1
        found: tuple[int, int] | None = None
        for n in range(latest, latest - 4, -1):
            step = (self.low_ns * n, self.high_ns * n) if n >= 0 else (self.high_ns * n, self.low_ns * n)
            slack = JITTER_NS if n else 0
            low, high = int(a + step[0]) - slack, int(b + step[1]) + slack
            if high <= low_ns:
                break
            if low >= high_ns:
                continue
            found = (max(low, low_ns), min(high, high_ns) if found is None else found[1])
            if low >= low_ns and high <= high_ns:
                break  # this one was surely refreshed before the read, so the last one is not earlier
        return found if found is not None and found[0] < found[1] else (low_ns, high_ns)
