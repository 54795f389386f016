"""The machine beside its meters: what it is, what it draws at rest, how busy its devices are and who else uses it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index, itemgetter
from pathlib import Path
from typing import Any, cast

from .background import Warnings
from .curve import Curve
from .journal import plain_facts
from .record import Record
from .sources.cpu_coefficients import PROC, identify
from .sources.cpu_time import STEP, CpuTime, Machine, Tree, stat_fields
from .sources.source import NANO, Busy, Observer, Source


def describe(
    devices: Mapping[str, Mapping[str, Any]] | None = None, *, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> dict[str, Any]:
    """Return the facts about this machine that energy depends on."""
    info = _read(proc / "cpuinfo")
    fields = [line.partition(":")[::2] for line in info.splitlines()]
    values: dict[str, list[str]] = {}
    for key, value in fields:
        values.setdefault(key.strip(), []).append(value.strip())
    return {
        "cpu_model": next(iter(values.get("model name", [])), "") or _model_without_name(values, proc),
        "sockets": len(set(values.get("physical id", []))) or 1,
        "logical_cpus": os.cpu_count() or 1,
        "memory_bytes": _memory(_read(proc / "meminfo")),
        "machine": platform.machine(),
        "system": platform.system(),
        "virtualised": "hypervisor" in next(iter(values.get("flags", [])), "").split(),
        "cpu_limit": _cpu_limit(cgroup),
        "devices": {name: dict(facts) for name, facts in (devices or {}).items()},
    }


def fingerprint(hardware: Mapping[str, Any]) -> str:
    """Return a short hash of what decides on energy.

    Serial numbers and UUIDs stay out: equal machines of a cluster compare. Driver versions stay out too: they are in the record.
    """
    kept = {key: hardware.get(key) for key in ("cpu_model", "sockets", "logical_cpus", "machine", "virtualised", "cpu_limit")}
    kinds = ("name", "power_limit_watts", "mig")
    devices = hardware.get("devices", {}).values()
    # What a module's counter saw does not compare with what a GPU's did.
    kept["devices"] = sorted(json.dumps([*map(facts.get, kinds), *filter(None, [facts.get("boundary")])]) for facts in devices)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _memory(meminfo: str) -> int | None:
    return next((int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemTotal:")), None)


def _model_without_name(values: Mapping[str, list[str]], proc: Path) -> str:
    """Name a processor that Linux does not: ARM's by maker and kinds of cores, else by what another system says."""
    numbers = [" ".join(dict.fromkeys(values.get(key, ()))) for key in ("CPU implementer", "CPU part", "CPU variant")]
    if numbers[1]:
        return f"ARM {' '.join(numbers)}"
    return identify(proc).brand or platform.processor() or platform.machine()


def _cpu_limit(root: Path) -> float | None:
    """Return how many CPUs a container's control group of either version allows, or None without a limit."""
    parts = _read(root / "cpu.max").split() or [_read(root / f"cpu/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() else None


@dataclass(frozen=True)
class Idle:
    """What one component draws while nothing is done: the median over so many idle windows.

    Its standard uncertainty holds the spread between the windows and the meter's random part.
    """

    watts: float
    u_watts: float
    windows: int


def idle_watts(records: Iterable[Record]) -> dict[str, Idle]:
    """Summarise the idle windows of a study, before, between and after its trials, by component.

    Windows that a meter cannot resolve and components without energy are left out; a component that no window knows is absent.
    """
    watts: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for part in record.components:
            if record.kind == "idle" and part.joules is not None and not part.below_resolution and record.seconds > 0:
                watts.setdefault(part.name, []).append((part.joules / record.seconds, (part.u_random_joules or 0.0) / record.seconds))
    found = {}
    for name, pairs in watts.items():
        values = [value for value, _ in pairs]
        meter = math.sqrt(math.fsum(u * u for _, u in pairs)) / len(pairs)
        spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        found[name] = Idle(statistics.median(values), math.hypot(meter, spread), len(values))
    return found


#: NVIDIA's driver refreshes the rate every sixth of a second to every second, by model. Polling as often as it may refresh costs more than
#: the mean over a training gains. Source: NVML API reference, nvmlUtilization_t.
EVERY_NS = NANO // 2
#: A reading speaks for the time since the one before, but not for longer than this.
REACH_NS = 2 * NANO
#: A mean is given where readings speak for at least this share of a window.
LEAST_KNOWN = 0.5


class Utilisation:
    """Adds up the busy time of devices, and the time for which it is known."""

    def __init__(self, sources: Iterable[Source], warnings: Warnings | None = None) -> None:
        self._warnings = warnings or Warnings()
        self._sources = [cast(Busy, source) for source in sources if hasattr(source, "utilisation")]
        self._lock = threading.Lock()
        #: When the drivers are to be polled again.
        self.due_ns = 0 if self._sources else math.inf
        self._lines: dict[str, _Line] = {}

    def sample(self, t_ns: int) -> None:
        """Poll the drivers, unless that was done a moment ago."""
        if t_ns < self.due_ns:
            return
        found = self._warnings.ask(self._sources, "utilisation", _share)
        with self._lock:
            self.due_ns = t_ns + EVERY_NS
            for name in found.keys() | self._lines.keys():
                self._lines.setdefault(name, _Line()).add(t_ns, found.get(name))

    def mean(self, t0_ns: int, t1_ns: int) -> dict[str, float]:
        """Return the mean share of busy time between two instants by component; one that is not known is left out."""
        with self._lock:
            means = {name: line.mean(t0_ns, t1_ns) for name, line in self._lines.items()}
        return {name: mean for name, mean in means.items() if mean is not None}


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"must be a share from 0 to 1, got {value!r}")
    return float(value)


class _Line:
    """Busy and known nanoseconds of one device, cumulated over time; until the next reading the last one holds."""

    def __init__(self) -> None:
        self.t, self.busy, self.known = array("q"), array("d"), array("d")
        self.share: float | None = None

    def add(self, t_ns: int, share: float | None) -> None:
        self.share = share
        since = t_ns - self.t[-1] if self.t else 0
        known = 0 if share is None or since > REACH_NS else since
        self.busy.append((self.busy[-1] if self.t else 0.0) + (share or 0.0) * known)
        self.known.append((self.known[-1] if self.t else 0.0) + known)
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


#: What the meter has counted is not counted again so soon.
FRESH_NS = NANO // 1000
#: Foreign work above this share of the machine's CPU time is worth a note: it takes turns, heat and memory bandwidth. On a large machine
#: above this share of our own, where it keeps a quarter of a CPU busy at least: counters see all of the machine's work.
FOREIGN_SHARE, FOREIGN_OF_OWN = 0.05, 0.25


class HostMonitor:
    """Follows the machine's CPU-seconds beside our own, and the other processes on each device."""

    def __init__(self, sources: Sequence[Source], proc: Path = PROC, warnings: Warnings | None = None) -> None:
        self._warnings = warnings or Warnings()
        self._observers = [cast(Observer, source) for source in sources if hasattr(source, "edges") and hasattr(source, "foreign")]
        self.utilisation = Utilisation(sources, self._warnings)
        self._machine, self._metered = Machine(proc), next((source for source in sources if isinstance(source, CpuTime)), None)
        self.tree = self._metered.tree if self._metered and isinstance(self._metered.tree, Tree) else Tree(proc)
        self._proc = str(proc)
        self._cpus = os.cpu_count() or 1
        self._lock = threading.Lock()
        self.busy, self.own = Curve(), Curve()
        self._foreign: dict[str, list[tuple[int, tuple[int, ...]]]] = {}  # by component, each change

    def sample(self, t_ns: int, *, every_ns: int = 0) -> None:
        """Note how busy the devices are, and the CPU-seconds by now unless that was done less than ``every_ns`` ago."""
        if t_ns >= self.utilisation.due_ns:
            self.utilisation.sample(t_ns)
            self.note_foreign(t_ns)
        last_ns = self.own.t[-1] if self.own.t else -NANO
        if t_ns - last_ns < every_ns:
            return
        # The kernel shows the machine's time in steps: asked again within one, it has nothing to add.
        stale = not self.busy.t or t_ns - self.busy.t[-1] >= STEP * NANO
        busy, counted = self._machine.seconds() if stale else None, None if self._metered is None else self._metered.counted
        if counted is None or t_ns - counted[0] > FRESH_NS or counted[0] <= last_ns:
            counted = t_ns, self.tree.seconds()
        with self._lock:
            self.own.append(counted[0], counted[0], counted[1])
            if busy is not None:
                self.busy.append(t_ns, t_ns, busy)

    def note_foreign(self, t_ns: int) -> None:
        """Note which foreign processes use the devices.

        In a container the driver may name processes by numbers of the host, our own among them: what ``/proc`` does not show here
        cannot be told from ourselves and is left out.
        """
        for component, pids in self._warnings.ask(self._observers, "foreign", lambda pids: tuple(map(index, pids))).items():
            others = tuple(pid for pid in pids if stat_fields(pid, self._proc) is not None and pid not in self.tree)
            with self._lock:
                known = self._foreign.setdefault(component, [])
                if not known or known[-1][1] != others:
                    known.append((max(t_ns, known[-1][0]) if known else t_ns, others))

    def edges(self, t_ns: int) -> dict[str, dict[str, Any]]:
        """Return temperature, clocks and throttling of every device at an edge of a window, and note who else uses them."""
        self.note_foreign(t_ns)
        return self._warnings.ask(self._observers, "edges", plain_facts)

    def cpu_seconds(self, t0_ns: int, t1_ns: int) -> tuple[float | None, float | None]:
        """Return CPU-seconds of the machine and of this process tree between two instants."""
        with self._lock:
            return self.busy.between(t0_ns, t1_ns), self.own.between(t0_ns, t1_ns)

    def contended(
        self, t0_ns: int, t1_ns: int, busy: float | None, own: float | None, devices: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return who else used the machine between two instants, whose ``cpu_seconds`` are given, or None when nobody was seen.

        Of the ``devices`` alone that the window holds, where it holds some.
        """
        found: dict[str, Any] = {}
        if busy is not None and own is not None:
            foreign = max(busy - own, 0.0)
            # /proc/stat counts in steps of 10 ms per CPU, so short windows say nothing.
            seconds = (t1_ns - t0_ns) / NANO
            if foreign > max(min(FOREIGN_SHARE * seconds * self._cpus, FOREIGN_OF_OWN * max(own, seconds)), 0.1):
                found["foreign_cpu_seconds"] = round(foreign, 3)
        with self._lock:
            for component, seen in self._foreign.items() if devices is None else [(one, self._foreign.get(one, [])) for one in devices]:
                first, end = (bisect_right(seen, t_ns, key=itemgetter(0)) for t_ns in (t0_ns, t1_ns))
                # What was there before the window is there at its start.
                if pids := sorted({pid for _, others in seen[max(first - 1, 0) : end] for pid in others}):
                    found.setdefault("foreign_gpu_pids", {})[component] = pids
        return found or None
