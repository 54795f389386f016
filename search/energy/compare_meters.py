"""One short load under every meter of this machine, side by side: do they agree, and within what?"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from .comparison import Comparison, compared
from .ledger import Ledger
from .loads import busy_cores, gpu_matmul, spin
from .record import Record
from .source import Capability, Source
from .wall_line import WallCalibration, calibrate_wall
from .window import Window

#: All meters of the components, best first; a wall meter is added by name.
EVERY = "nvml,rapl,cpu_time,codecarbon"
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
    progress: bool = False,
) -> Comparison:
    """Run each load a few times under all meters at the same time.

    Args:
        meter: As for ``discover``; here ``auto`` means every meter of the components, e.g. ``auto,wall=http://...``.
        sources: The meters themselves, instead of `meter`.
        absent: With `sources`: what could not be had.
        seconds: Length of each load, >= 1; CodeCarbon looks once a second, so a few seconds are needed to compare.
        repeats: How often each load is run, >= 1; the order is mirrored each time, so that a drift cancels.
        loads: Names and functions; None takes a busy loop of this thread, and a matrix multiplication where there is a CUDA device.
            With a wall meter idle time and a load of all cores come besides: a line needs loads of different size.
        sleep: Waits for the slowest meter's last refresh.
        ledger: A ledger over `sources` that is not yet started, for a clock of one's own.
        progress: Say on stderr how long it takes.

    Raises:
        ValueError: `seconds` or `repeats` is below 1, or no meter works here.
    """
    if seconds < 1:
        raise ValueError(f"seconds must be >= 1, got {seconds}: the slowest meter looks once a second")
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    if sources is None:
        from .discover import discover

        found = discover(",".join(EVERY if part.strip() == "auto" else part for part in meter.split(",")))
        sources, absent = found.sources, found.absent
    if not sources:
        raise ValueError("no meter works on this machine, so there is nothing to compare; joulefront doctor says why")
    capabilities = [item for source in sources for item in source.probe() if item.available]
    refresh = min(max((item.tick_seconds or 0.1 for item in capabilities), default=0.1), LONGEST_REFRESH_SECONDS)
    wall = any(item.component == "wall" for item in capabilities)
    chosen = list(loads or _usual(seconds, wall))
    absent = tuple(absent)
    if progress:
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
                window.close(settle=True)  # a plug may tell of the end seconds later
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
    count = len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    if wall and count > 1:
        loads.append((f"{count} busy CPUs", partial(_spin_all, count, seconds)))
    if (device := gpu_matmul(0.2)) is not None:  # also wakes the device, so its context is not part of the load
        loads.append((f"matrix products on {device}", partial(gpu_matmul, seconds)))
    return loads


def _spin_all(count: int, seconds: float) -> None:
    with busy_cores(count):
        time.sleep(seconds)
