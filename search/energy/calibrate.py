"""Loads of known size, and the procedures that measure this machine under them: what a CPU-second costs, how far its meters agree."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from .calibrations import CpuCalibration, CpuPoint, WallCalibration, calibrate_wall
from .comparison import Comparison, compared
from .intervals import fit_line
from .ledger import Ledger
from .record import Record
from .sources.cpu_time import Machine
from .sources.source import Capability, Source
from .windows import Window

#: Families of measured components that a calibration may trust, best first.
REFERENCES = ("cpu", "wall")
#: No calibration is better than this: cores, clocks and instructions differ from the load that was measured.
LEAST_GAIN_U = 0.1
#: Loads closer together than this many busy cores say nothing about a core.
LEAST_SPREAD = 0.5
#: Spins until its standard input closes, so it ends with its parent, however that ends. Its first output shows that it runs.
SPIN = (
    "import select, sys\n"
    "sys.stdout.write('.'); sys.stdout.flush()\n"
    "while not select.select([sys.stdin], [], [], 0)[0]:\n"
    "    for _ in range(50_000): pass\n"
)


def usable_cpus() -> int:
    """Return how many logical CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` logical CPUs busy with one spinning process each; on entry all of them run.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}")
    pipe = subprocess.PIPE
    spinners = [subprocess.Popen([sys.executable, "-S", "-P", "-c", SPIN], stdin=pipe, stdout=pipe) for _ in range(count)]
    try:
        for spinner in spinners:
            assert spinner.stdout is not None
            spinner.stdout.read(1)
        yield
    finally:
        for spinner in spinners:
            assert spinner.stdin is not None
            spinner.stdin.close()
        for spinner in spinners:
            spinner.wait()
            spinner.stdout.close()  # type: ignore[union-attr]  # opened with a pipe


def machine_busy_seconds() -> float:
    """Return the CPU-seconds that all CPUs of the machine have spent on work since the boot.

    Raises:
        OSError: The machine has no ``/proc/stat`` (macOS, Windows).
    """
    found = Machine().seconds()
    if found is None:
        raise FileNotFoundError("calibration needs /proc/stat, which this machine does not have")
    return found


def spin(seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
    """Keep this thread busy for a while and return how many rounds it made."""
    until, rounds = clock() + seconds, 0
    while clock() < until:
        for _ in range(10_000):
            pass
        rounds += 1
    return rounds


def gpu_matmul(seconds: float, *, size: int = 4096) -> str | None:
    """Multiply matrices on the first CUDA device for a while; return its name, or None without a device."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    a: Any = torch.randn(size, size, device="cuda")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(8):
            a = (a @ a) * (1 / size)  # keeps the numbers finite
        torch.cuda.synchronize()
    return str(torch.cuda.get_device_name(0))


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
        LookupError: Nothing here is measured; the estimate with its wide uncertainty stays.
    """
    measured = [item for item in capabilities if item.available and item.quality == "measured"]
    for family in REFERENCES:
        for item in measured:
            if item.component.split(":", 1)[0] == family:
                return item
    raise LookupError(
        "calibration needs a measured reference (RAPL counters or a wall meter) and this machine has none that can be read: "
        "the estimate per busy CPU stays, with its wide uncertainty; name a wall meter (--meter auto,wall=...) or give --cpu-watts"
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

    The ledger runs, and its sources hold the reference, which is from `reference_for`. At most ``cores`` logical CPUs are loaded, by
    default those that this process may use, for ``seconds`` per window; the result is kept under ``hardware_id``, by default the
    ledger's. ``load`` keeps n logical CPUs busy inside a ``with``, and ``busy_seconds`` returns what the whole machine has spent so far.

    Raises:
        ValueError: The reference gave no energy, or the result is not physical.
    """
    count = cores or usable_cpus()
    steps = sorted({0, 1, count})
    points = []
    for turn in range(rounds):
        for busy in steps if turn % 2 == 0 else reversed(steps):
            with load(busy), ledger.window(f"calibration, {busy} busy", kind="idle" if busy == 0 else "setup") as window:
                begin = busy_seconds()
                sleep(seconds)
                spent = busy_seconds() - begin
                # Closed while the load still runs: a plug that answers once a second places the edge by the answer that follows it.
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


#: All meters of the components, best first; a wall meter is added by name.
EVERY = "nvml,rapl,grace,cpu_time,codecarbon"
#: Longest wait after a load for the slowest meter's next refresh.
LONGEST_REFRESH_SECONDS = 3.0


def compare_meters(
    meter: str = "auto",
    *,
    sources: Sequence[Source] | None = None,
    absent: Iterable[Capability] = (),
    seconds: float = 5.0,
    repeats: int = 3,
    loads: Sequence[tuple[str, Callable[[], object]]] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    ledger: Ledger | None = None,
) -> Comparison:
    """Run each load a few times under all meters at the same time, in an order that is mirrored each time so that a drift cancels.

    ``meter`` is as for ``discover``, but that ``auto`` means every meter of the components; ``sources`` and what is ``absent`` besides
    replace it, and ``ledger`` is one over them that is not yet started, for a clock of one's own. CodeCarbon measures once a second, so
    each load needs a few ``seconds``. ``loads`` are names and functions; None takes a busy loop of this thread, and a matrix
    multiplication where there is a CUDA device. With a wall meter idle time and a load of all cores come besides: a line needs loads of
    different size. How long it takes is printed on stderr.

    Raises:
        ValueError: `seconds` or `repeats` is below 1, or no meter works here.
    """
    if seconds < 1:
        raise ValueError(f"seconds must be >= 1, got {seconds}: the slowest meter is refreshed once a second")
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    if sources is None:
        from .discover import discover

        found = discover(",".join(EVERY if part.strip() == "auto" else part for part in meter.split(",")))
        sources, absent = found.sources, found.absent
    if not sources:
        raise ValueError("no meter works on this machine, so there is nothing to compare; see joulefront doctor for the reasons")
    capabilities = [item for source in sources for item in source.probe() if item.available]
    refresh = min(max((item.tick_seconds or 0.1 for item in capabilities), default=0.1), LONGEST_REFRESH_SECONDS)
    wall = any(item.component == "wall" for item in capabilities)
    chosen = list(loads or _usual(seconds, wall))
    absent = tuple(absent)
    whole = repeats * len(chosen) * (seconds + 3 * refresh)
    print(f"{repeats} rounds of {len(chosen)} loads, about {whole:.0f} s: leave the machine alone", file=sys.stderr)
    windows: dict[str, list[Window]] = {name: [] for name, _ in chosen}
    with ledger or Ledger(sources, absent=absent) as running:
        for turn in range(repeats):
            for name, run in chosen if turn % 2 == 0 else reversed(chosen):
                sleep(1.5 * refresh)  # every meter has a reading before the load
                with running.window(name, kind="setup") as window:
                    run()
                sleep(1.5 * refresh)
                running.sample()
                window.close(settle=True)  # a plug may report the end seconds later
                windows[name].append(window)
    gone = {(item.source, item.component) for item in absent}
    records = {name: [window.record for window in several] for name, several in windows.items()}
    line, why_not = _line([record for several in records.values() for record in several]) if wall else (None, None)
    return Comparison(tuple(compared(several, gone) for several in records.values()), absent, line, why_not)


def _line(records: Sequence[Record]) -> tuple[WallCalibration | None, str | None]:
    try:
        return calibrate_wall(records), None
    except ValueError as error:  # the table of the meters stands without the line
        return None, str(error)


def _usual(seconds: float, wall: bool) -> list[tuple[str, Callable[[], object]]]:
    loads: list[tuple[str, Callable[[], object]]] = [("idle", partial(time.sleep, seconds))] if wall else []
    loads.append(("one busy CPU, this process", partial(spin, seconds)))
    count = usable_cpus()
    if wall and count > 1:
        loads.append((f"{count} busy CPUs", partial(_spin_all, count, seconds)))
    if (device := gpu_matmul(0.2)) is not None:  # also wakes the device, so its context is not part of the load
        loads.append((f"matrix products on {device}", partial(gpu_matmul, seconds)))
    return loads


def _spin_all(count: int, seconds: float) -> None:
    with busy_cores(count):
        time.sleep(seconds)
