"""What a CPU-second costs on this machine: measured and fitted."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from .intervals import Interval, fit_line
from .ledger import Ledger
from .loads import busy_cores, machine_busy_seconds
from .record import Record
from .source import Capability
from .sources.cpu_time import CpuCoefficients

#: Families of measured components that a calibration may trust, best first.
REFERENCES = ("cpu", "wall")
#: No calibration is better than this: cores, clocks and instructions differ from the load that was measured.
LEAST_GAIN_U = 0.1
#: Loads closer together than this many busy cores say nothing about a core.
LEAST_SPREAD = 0.5


@dataclass(frozen=True)
class CpuPoint:
    """One calibration window.

    Attributes:
        busy_cores: Mean number of busy logical CPUs of the whole machine.
        watts: Mean power of the reference.
        seconds: Length of the window.
    """

    busy_cores: float
    watts: float
    seconds: float


@dataclass(frozen=True)
class CpuCalibration:
    """Watts per busy logical CPU of one machine.

    Attributes:
        hardware_id: The machine; a calibration is used on no other.
        core_watts: Watts above idle per busy logical CPU, with its interval.
        idle_watts: Watts of the idle reference, with its interval.
        gain_u: Relative standard uncertainty of `core_watts`.
        reference: Source that was trusted: ``rapl`` or ``wall``.
        t_utc: When, ISO 8601.
        points: The windows.
    """

    hardware_id: str
    core_watts: Interval
    idle_watts: Interval
    gain_u: float
    reference: str
    t_utc: str
    points: tuple[CpuPoint, ...]

    def to_text(self) -> str:
        """Say the result in three lines."""
        core, idle = self.core_watts, self.idle_watts
        lines = [
            f"one busy logical CPU: {core.value:.3g} W (95 %: {core.low:.3g} to {core.high:.3g}), scale ±{100 * self.gain_u:.2g} %",
            f"idle: {idle.value:.3g} W (95 %: {idle.low:.3g} to {idle.high:.3g}), of what {self.reference} covers",
            f"calibrated against {self.reference}, {len(self.points)} windows, {self.t_utc}, hardware {self.hardware_id}",
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return JSON text; a bound that is not known is null."""
        data = asdict(self)
        for name in ("core_watts", "idle_watts"):
            data[name] = {key: value if math.isfinite(value) else None for key, value in data[name].items()}
        return json.dumps(data, indent=1)

    def coefficients(self) -> CpuCoefficients:
        """Return what ``cpu_time`` needs; a wall meter's idle power is the whole machine's, not the CPU's, and is left out."""
        idle = None if self.reference == "wall" else max(self.idle_watts.value, 0.0)
        origin = f"calibrated against {self.reference} on {self.t_utc[:10]}"
        return CpuCoefficients(self.core_watts.value, idle, self.gain_u, origin)


def fit_cpu(points: Sequence[CpuPoint], *, hardware_id: str, reference: str, reference_gain_u: float = 0.05) -> CpuCalibration:
    """Fit ``watts = idle + core_watts * busy_cores``.

    The uncertainty takes three parts: the fit's, the reference's scale, and how much a core costs less when all are busy (shared
    clocks and power limits bend the line).

    Raises:
        ValueError: The loads do not differ enough, or power does not grow with load.
    """
    least, most = (pick(point.busy_cores for point in points) for pick in (min, max))
    if most - least < LEAST_SPREAD:
        raise ValueError(
            f"loads must differ by at least half a core, got {least:.2f} to {most:.2f} busy cores: something else keeps the machine busy; "
            "calibrate again when it is at rest"
        )
    line = fit_line([point.busy_cores for point in points], [point.watts for point in points])
    if not line.slope.value > 0:
        raise ValueError(
            f"power must grow with load, got {line.slope.value:.3g} W per busy core; calibrate again while nothing else runs on the machine"
        )
    ordered = sorted(points, key=lambda point: point.busy_cores)
    idle = statistics.fmean(point.watts for point in ordered if point.busy_cores < least + 0.5)
    single = [(point.watts - idle) / (point.busy_cores - least) for point in ordered if point.busy_cores >= least + 0.5]
    bend = (max(single) - min(single)) / (2 * math.sqrt(3) * line.slope.value) if len(single) > 1 else 0.0
    fit = (line.slope.half / 2 / line.slope.value) if math.isfinite(line.slope.half) else 0.3
    gain_u = max(math.hypot(fit, bend, reference_gain_u), LEAST_GAIN_U)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return CpuCalibration(hardware_id, line.slope, line.intercept, gain_u, reference, now, tuple(points))


def reference_for(capabilities: Iterable[Capability]) -> Capability:
    """Return the measured component that a CPU calibration may trust.

    Raises:
        LookupError: Nothing here is measured; the default with its wide uncertainty stays.
    """
    measured = [item for item in capabilities if item.available and item.quality == "measured"]
    for family in REFERENCES:
        for item in measured:
            if item.component.split(":", 1)[0] == family:
                return item
    raise LookupError(
        "calibration needs a measured reference (RAPL counters or a wall meter) and this machine has none that can be read: "
        "the default per busy CPU stays, with its wide uncertainty; name a wall meter (--meter auto,wall=...) or give --cpu-watts"
    )


def calibrate_cpu(
    ledger: Ledger,
    reference: Capability,
    *,
    seconds: float = 10.0,
    rounds: int = 2,
    cores: int | None = None,
    hardware_id: str | None = None,
    load: Callable[[int], AbstractContextManager[object]] = busy_cores,
    busy_seconds: Callable[[], float] = machine_busy_seconds,
    sleep: Callable[[float], None] = time.sleep,
) -> CpuCalibration:
    """Measure idle, one core and all cores, several rounds in mirrored order so that a drift cancels, and fit the line.

    Args:
        ledger: A running ledger whose sources hold the reference.
        reference: From `reference_for`.
        seconds: Length of each window.
        rounds: Rounds of the three loads.
        cores: Logical CPUs to load at most; None for those that this process may use.
        hardware_id: What the result is kept under; None for the ledger's.
        load: Keeps n logical CPUs busy inside a ``with``.
        busy_seconds: CPU-seconds that the whole machine has spent so far.
        sleep: Waits.

    Raises:
        ValueError: The reference gave no energy, or the result is not physical.
    """
    count = cores or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    steps = sorted({0, 1, count})
    points = []
    for turn in range(rounds):
        for busy in steps if turn % 2 == 0 else reversed(steps):
            with load(busy), ledger.window(f"calibration, {busy} busy", kind="idle" if busy == 0 else "setup") as window:
                begin = busy_seconds()
                sleep(seconds)
                spent = busy_seconds() - begin
                # Closed while the load goes on: a plug that answers once a second places the edge by the answer that follows it.
                record = window.close(settle=True)
            points.append(CpuPoint(spent / record.seconds, _joules(record, reference) / record.seconds, record.seconds))
    return fit_cpu(points, hardware_id=hardware_id or ledger.hardware_id, reference=reference.source, reference_gain_u=reference.gain_u)


def _joules(record: Record, reference: Capability) -> float:
    """Return what the reference saw: all packages of the CPU, or the wall."""
    family = reference.component.split(":", 1)[0]
    parts = [part for part in record.components if part.source == reference.source and part.name.split(":", 1)[0] == family]
    lost = next((part for part in parts if part.joules is None), None)
    if not parts or lost is not None:
        reason = lost.reason if lost is not None else "it is not among the ledger's sources"
        raise ValueError(f"the reference {reference.component} gave no energy in a calibration window: {reason}")
    return math.fsum(part.joules for part in parts if part.joules is not None)
