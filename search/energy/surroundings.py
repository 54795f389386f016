"""Who else used the machine, and in what state its devices were."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from .clock import NANO
from .curve import Curve
from .processes import PROC, Machine, Tree, stat_fields
from .source import Observer, Source
from .troubles import Troubles
from .utilisation import Utilisation

#: Foreign work above this share of the machine's CPU time is worth a word: it takes turns, heat and memory bandwidth.
FOREIGN_SHARE = 0.05


class Surroundings:
    """Follows the machine's CPU-seconds beside our own, and the other processes on each device.

    Args:
        sources: Sources; those that can tell of temperatures and of other processes are asked.
        proc: The process file system.
        troubles: Takes note of a source that fails.
    """

    def __init__(self, sources: Sequence[Source], proc: Path = PROC, troubles: Troubles | None = None) -> None:
        self._troubles = troubles or Troubles()
        self._observers = [cast(Observer, source) for source in sources if hasattr(source, "edges") and hasattr(source, "foreign")]
        self.utilisation = Utilisation(sources, self._troubles)
        self._machine, self.tree = Machine(proc), Tree(proc)
        self._proc = str(proc)
        self._cpus = os.cpu_count() or 1
        self._lock = threading.Lock()
        self.busy, self.own = Curve(), Curve()
        self._foreign: list[tuple[int, str, tuple[int, ...]]] = []

    def sample(self, t_ns: int, *, every_ns: int = 0) -> None:
        """Note how busy the devices are, and the CPU-seconds by now unless that was done less than ``every_ns`` ago."""
        self.utilisation.sample(t_ns)
        if len(self.own) and t_ns - self.own.t[-1] < every_ns:
            return
        busy, own = self._machine.seconds(), self.tree.seconds()
        with self._lock:
            self.own.append(t_ns, t_ns, own)
            if busy is not None:
                self.busy.append(t_ns, t_ns, busy)

    def look_around(self, t_ns: int) -> None:
        """Note which foreign processes use the devices; asks the driver, so it is not for the edges of windows.

        In a container the driver may name processes by numbers of the host, our own among them: what ``/proc`` does not show here
        cannot be told from ourselves and is left out.
        """
        for observer in self._observers:
            running: dict[str, tuple[int, ...]] = self._troubles.ask(observer, "foreign")
            for component, pids in running.items():
                others = tuple(pid for pid in pids if stat_fields(pid, self._proc) is not None and pid not in self.tree)
                with self._lock:
                    self._foreign.append((t_ns, component, others))

    def edges(self) -> dict[str, dict[str, Any]]:
        """Return temperature, clocks and throttling of every device."""
        found: dict[str, dict[str, Any]] = {}
        for observer in self._observers:
            found.update(self._troubles.ask(observer, "edges"))
        return found

    def cpu_seconds(self, t0_ns: int, t1_ns: int) -> tuple[float | None, float | None]:
        """Return CPU-seconds of the machine and of this process tree between two instants."""
        with self._lock:
            return _between(self.busy, t0_ns, t1_ns), _between(self.own, t0_ns, t1_ns)

    def contended(self, t0_ns: int, t1_ns: int) -> dict[str, Any] | None:
        """Return who else used the machine between two instants, or None when nobody was seen."""
        busy, own = self.cpu_seconds(t0_ns, t1_ns)
        found: dict[str, Any] = {}
        if busy is not None and own is not None:
            foreign = max(busy - own, 0.0)
            # /proc/stat counts in steps of 10 ms per CPU, so short windows say nothing.
            if foreign > max(FOREIGN_SHARE * (t1_ns - t0_ns) / NANO * self._cpus, 0.1):
                found["foreign_cpu_seconds"] = round(foreign, 3)
        pids: dict[str, set[int]] = {}
        with self._lock:
            # The last look before the window still tells of its begin.
            before = bisect_right(self._foreign, t0_ns, key=_instant)
            first = self._foreign[before - 1][0] if before else t0_ns
            begin, end = bisect_left(self._foreign, first, key=_instant), bisect_right(self._foreign, t1_ns, key=_instant)
            for _, component, others in self._foreign[begin:end]:
                if others:
                    pids.setdefault(component, set()).update(others)
        if pids:
            found["foreign_gpu_pids"] = {component: sorted(seen) for component, seen in pids.items()}
        return found or None


def _instant(look: tuple[int, str, tuple[int, ...]]) -> int:
    return look[0]


def _between(curve: Curve, t0_ns: int, t1_ns: int) -> float | None:
    begin, end = curve.at(t0_ns), curve.at(t1_ns)
    return None if begin is None or end is None else max(end.joules - begin.joules, 0.0)
