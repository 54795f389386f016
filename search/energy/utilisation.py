"""How busy devices were: the mean over a window of what their drivers say now and then."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import cast

from .clock import NANO
from .source import Busy, Source
from .troubles import Troubles

#: NVIDIA's driver refreshes the rate every sixth of a second to every second, by model. Asking as often as it may refresh costs more than
#: the mean over a training gains. Source: NVML API reference, nvmlUtilization_t.
EVERY_NS = NANO // 2
#: A reading speaks for the time since the one before, but not for longer than this.
REACH_NS = 2 * NANO
#: A mean is given where readings speak for at least this share of a window.
LEAST_KNOWN = 0.5


class Utilisation:
    """Adds up the busy time of devices, and the time for which it is known.

    Args:
        sources: Sources; those that can tell how busy their devices are will be asked.
        troubles: Takes note of a source that fails.
    """

    def __init__(self, sources: Iterable[Source], troubles: Troubles | None = None) -> None:
        self._troubles = troubles or Troubles()
        self._sources = [cast(Busy, source) for source in sources if hasattr(source, "utilisation")]
        self._lock = threading.Lock()
        self._last_ns: int | None = None
        self._lines: dict[str, _Line] = {}

    def sample(self, t_ns: int) -> None:
        """Ask the drivers, unless that was done a moment ago."""
        if not self._sources or (self._last_ns is not None and t_ns - self._last_ns < EVERY_NS):
            return
        found: dict[str, float] = {}
        for source in self._sources:
            found.update(self._troubles.ask(source, "utilisation"))
        with self._lock:
            self._last_ns = t_ns
            for name in found.keys() | self._lines.keys():
                self._lines.setdefault(name, _Line()).add(t_ns, found.get(name))

    def mean(self, t0_ns: int, t1_ns: int) -> dict[str, float]:
        """Return the mean share of busy time between two instants by component; one that is not known is left out."""
        with self._lock:
            means = {name: line.mean(t0_ns, t1_ns) for name, line in self._lines.items()}
        return {name: mean for name, mean in means.items() if mean is not None}


class _Line:
    """Busy and known nanoseconds of one device, cumulated over time; until the next reading the last one goes on."""

    def __init__(self) -> None:
        self.t, self.busy, self.known = array("q"), array("d"), array("d")
        self.share: float | None = None

    def add(self, t_ns: int, share: float | None) -> None:
        self.share = share
        if not self.t:
            self.t.append(t_ns)
            self.busy.append(0.0)
            self.known.append(0.0)
            return
        told = 0 if share is None or t_ns - self.t[-1] > REACH_NS else t_ns - self.t[-1]
        self.busy.append(self.busy[-1] + (share or 0.0) * told)
        self.known.append(self.known[-1] + told)
        self.t.append(t_ns)

    def mean(self, t0_ns: int, t1_ns: int) -> float | None:
        known = self._at(self.known, t1_ns, 1.0) - self._at(self.known, t0_ns, 1.0)
        if known <= 0 or known < LEAST_KNOWN * (t1_ns - t0_ns):
            return None
        return (self._at(self.busy, t1_ns, self.share) - self._at(self.busy, t0_ns, self.share)) / known

    def _at(self, column: array[float], t_ns: int, beyond: float | None) -> float:
        i = bisect_right(self.t, t_ns) - 1
        if i < 0:
            return 0.0
        if i + 1 >= len(self.t):
            return column[-1] + (0.0 if self.share is None or beyond is None else beyond * min(t_ns - self.t[-1], REACH_NS))
        share = (t_ns - self.t[i]) / (self.t[i + 1] - self.t[i])
        return column[i] + share * (column[i + 1] - column[i])
