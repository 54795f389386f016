"""How late a GPU's energy counter is: a load that begins and ends at known instants, and where the counter's lines bend.

While the power is constant a counter runs along a straight line. It bends where the load begins and ends, but as much later as it is late.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .intervals import Line, fit_line
from .sources.source import NANO, Clock, Source

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
    repeats: int = REPEATS,
    clock: Clock = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[float, float]:
    """Return how many seconds the counter of a component is late, and the standard uncertainty of that.

    The source was probed. Rest, load and rest again last ``seconds`` each, ``repeats`` times.

    Raises:
        ValueError: The load does not show in the counter, or its edges differ too much.
    """
    found: list[float] = []
    for _ in range(repeats):
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
