"""Loads of known size, and what they teach of this machine: what a CPU-second costs, and how late a GPU's energy counter is.

While the power is constant a counter runs along a straight line. It bends where the load begins and ends, but as much later as it is late.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from .calibrations import CpuCalibration, CpuPoint
from .intervals import Line, fit_line
from .ledger import Ledger
from .record import Record
from .sources.cpu_time import Machine
from .sources.source import NANO, Capability, Clock, Source

#: Families of measured components that a calibration may trust, best first.
REFERENCES = ("cpu", "wall")
#: No calibration is better than this: cores, clocks and instructions differ from the load that was measured.
LEAST_GAIN_U = 0.1
#: Loads closer together than this many busy cores say nothing about a core.
LEAST_SPREAD = 0.5
#: No lag is known better than this (seconds): what the power itself takes to rise and to fall is in it.
LEAST_U_SECONDS = 0.01
#: Estimates that lie further apart than this (seconds, as a standard uncertainty) say nothing.
MOST_U_SECONDS = 0.05
#: A load must draw this much more than rest (watts), or its edges do not show.
LEAST_STEP_WATTS = 10.0
#: Rest and load are repeated so often.
REPEATS = 3
#: Time between two looks at the counter (seconds).
LOOK_SECONDS = 0.002
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


def spin(seconds: float) -> int:
    """Keep this thread busy for a while and return how many rounds it made."""
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for _ in range(10_000):
            pass
        rounds += 1
    return rounds


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


@dataclass
class Step:
    """A load's first and last instants; the last one is known when it has ended."""

    on_ns: int
    off_ns: int = 0


#: Makes a load that runs inside of a ``with``.
Load = Callable[[], AbstractContextManager[Step]]


class MatrixProducts:
    """Products of square matrices on a device of PyTorch, e.g. ``cuda:0``, in a thread of its own.

    Making it pays the device's context and first kernels, so that a load draws what products draw from its first instant on.
    """

    def __init__(self, device: str, size: int = 4096) -> None:
        import torch

        self._wait: Callable[[], Any] = (lambda: torch.cuda.synchronize(device)) if device.startswith("cuda") else lambda: None
        self._matrix: Any = torch.randn(size, size, device=device) / math.sqrt(size)
        self._multiply()

    def _multiply(self) -> None:
        for _ in range(4):  # some milliseconds: so long the end may take
            self._matrix @ self._matrix
        self._wait()

    @contextmanager
    def __call__(self) -> Iterator[Step]:
        """Multiply until the ``with`` ends; its device has nothing left to do then."""
        over, step = threading.Event(), Step(0)

        def work() -> None:
            while not over.is_set():
                self._multiply()
            step.off_ns = time.monotonic_ns()

        worker = threading.Thread(target=work, name="matrix products", daemon=True)
        step.on_ns = time.monotonic_ns()
        worker.start()
        try:
            yield step
        finally:
            over.set()
            worker.join()


def first_gpu() -> str | None:
    """Return the name of PyTorch's first CUDA device, or None without one."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def torch_device(component: str) -> str | None:
    """Return PyTorch's name for a GPU, e.g. ``cuda:0`` for ``gpu:GPU-1a2b``; None where it does not show it to this process."""
    try:
        import torch
    except ImportError:
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    uuids = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(count)]
    wanted = component.removeprefix("gpu:").removeprefix("GPU-")
    found = [index for index, uuid in enumerate(uuids) if uuid.removeprefix("GPU-") == wanted]
    return f"cuda:{found[0]}" if found else None


def measure_lag(
    source: Source,
    component: str,
    load: Load,
    *,
    seconds: float = 2.0,
    clock: Clock = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[float, float]:
    """Return how many seconds the counter of a component is late, and the standard uncertainty of that.

    The source was probed. Rest, load and rest again last ``seconds`` each, ``REPEATS`` times.

    Raises:
        ValueError: The load does not show in the counter, or its edges differ too much.
    """
    found: list[float] = []
    for _ in range(REPEATS):
        looks: list[tuple[int, float]] = []

        def look(for_seconds: float, looks: list[tuple[int, float]] = looks) -> None:
            end_ns = clock() + round(for_seconds * NANO)
            while clock() < end_ns:
                readings = (one for one in source.read() if one.component == component and one.counter_joules is not None)
                looks += [(one.t_ns, one.counter_joules) for one in readings if one.counter_joules is not None]
                sleep(LOOK_SECONDS)

        look(seconds)
        with load() as step:
            look(seconds)
        look(seconds)
        found += _edges(looks, step)
    lag, u = statistics.fmean(found), max(statistics.stdev(found), LEAST_U_SECONDS)
    if u > MOST_U_SECONDS or lag < -2 * u:
        raise ValueError(
            f"the edges of a load must show in the counter at or soon after their time, got {min(found):.3f} to {max(found):.3f} s after; "
            "calibrate again while nothing else uses the GPU"
        )
    return max(lag, 0.0), u


def _edges(looks: Sequence[tuple[int, float]], step: Step) -> list[float]:
    """Return how many seconds after a load's beginning and end the counter's lines cross."""
    # A new number came between the look before and this one; where the two are far apart nobody knows when.
    moves = [((a[0] + b[0]) / 2 - step.on_ns, b[1]) for a, b in pairwise(looks) if b[1] > a[1] and b[0] - a[0] < 5 * LOOK_SECONDS * NANO]
    length = step.off_ns - step.on_ns
    begin, end = (looks[place][0] - step.on_ns for place in (0, -1)) if looks else (0, 0)
    # The first third of load and rest are left out: so late it may be, and so long the power may take to settle.
    before = _line(moves, 2 * begin / 3, 0.0)
    during = _line(moves, length / 3, length)
    after = _line(moves, length + (end - length) / 3, end)
    rise, fall = during.slope.value - before.slope.value, during.slope.value - after.slope.value
    if min(rise, fall) < LEAST_STEP_WATTS:
        raise ValueError(
            f"the load must draw at least {LEAST_STEP_WATTS:g} W more than rest, got {min(rise, fall):.3g} W: is it this GPU that works?"
        )
    first = (before.intercept.value - during.intercept.value) / rise
    last = (after.intercept.value - during.intercept.value) / fall
    return [first, last - length / NANO]


def _line(moves: Sequence[tuple[float, float]], low_ns: float, high_ns: float) -> Line:
    chosen = [(t / NANO, joules) for t, joules in moves if low_ns < t < high_ns]
    if len(chosen) < 3:
        raise ValueError(f"the counter must move at least 3 times during rest and load, got {len(chosen)}; give each more seconds")
    return fit_line([t for t, _ in chosen], [joules for _, joules in chosen])
