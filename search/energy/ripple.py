"""How far power comes and goes faster than it is read: training steps take milliseconds, readings come every tenth of a second."""

from __future__ import annotations

import math
from collections import deque

from .clock import NANO

#: Readings closer together than this see one state of a fast load twice.
APART_NS = NANO // 25
#: Readings further apart than this are no neighbours.
NEIGHBOURS_NS = NANO
#: Number of readings that tell of now, and of the load as such: rare bursts are seen rarely.
NOW, LONG = 16, 256


class Ripple:
    """Standard deviation of the power around its slow course, from readings alone.

    Two steps of power that follow each other, up and down again, multiply to a negative number; for readings that have nothing to do with
    their neighbours its mean is minus their variance. A lasting change, a slow wave or a ramp gives zero or a positive number: those the
    integration follows by itself.

    Source: the autocovariance of a differenced series of independent values, e.g. Box and Jenkins, Time Series Analysis, MA(1).
    """

    def __init__(self) -> None:
        #: Standard deviation in watts, or None while fewer than three readings are known.
        self.watts: float | None = None
        self._last: tuple[int, float] | None = None
        self._step: float | None = None
        self._now: deque[float] = deque(maxlen=NOW)
        self._long, self._count = 0.0, 0

    def add(self, t_ns: int, watts: float) -> None:
        """Enter a reading; one that comes right after another is left out."""
        if self._last is None or t_ns - self._last[0] > NEIGHBOURS_NS:
            self._last, self._step = (t_ns, watts), None
            return
        if t_ns - self._last[0] < APART_NS:
            return
        step = watts - self._last[1]
        if self._step is not None:
            product = -step * self._step
            self._now.append(product)
            self._count = min(self._count + 1, LONG)
            self._long += (product - self._long) / self._count
            self.watts = math.sqrt(max(sum(self._now) / len(self._now), self._long, 0.0))
        self._last, self._step = (t_ns, watts), step
