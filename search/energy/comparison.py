"""The same loads under several meters, side by side, with ratios and their intervals."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial

from .calibrate import MatrixProducts, busy_cores, first_gpu, spin, usable_cpus
from .calibrations import WallCalibration, calibrate_wall
from .intervals import Interval, mean_interval
from .ledger import Ledger
from .record import Component, Record
from .sources.source import Capability, Source
from .windows import Window


@dataclass(frozen=True)
class MeterResult:
    """What one meter gave for one part of the machine under one load.

    Attributes:
        joules: Mean energy of the repeats, or None.
        u_joules: Its standard uncertainty, random and systematic together, or None.
        ratio: This over the reference of the same part (for the wall: over the sum of the components), or None. Its 95 % interval
            holds the spread of the repeats and both meters' uncertainties.
        reference: The meter it is compared with, or None for the reference itself.
    """

    source: str
    part: str
    quality: str
    boundary: str
    joules: float | None
    u_joules: float | None
    watts: float | None
    ratio: Interval | None = None
    reference: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Load:
    """One load, its mean length, and what the meters gave for it: one row per meter and part."""

    name: str
    seconds: float
    meters: tuple[MeterResult, ...]
    repeats: int = 1


@dataclass(frozen=True)
class Comparison:
    """All loads, and the meters that could not be had.

    Attributes:
        wall: The line of the wall meter over the components; None without a wall meter, or when no line could be fitted.
        why_no_line: Why there is a wall meter and no line.
    """

    loads: tuple[Load, ...]
    absent: tuple[Capability, ...]
    wall: WallCalibration | None = None
    why_no_line: str | None = None

    def to_json(self) -> str:
        """Return JSON text, stable in its keys."""
        names = ("source", "component", "reason", "remedy")
        absent = [{name: getattr(item, name) for name in names} for item in self.absent]
        line = None if self.wall is None else self.wall.to_json()
        loads = [asdict(load) for load in self.loads]
        return json.dumps({"loads": loads, "absent": absent, "wall": line, "why_no_line": self.why_no_line}, indent=2)

    def to_text(self) -> str:
        """Return a table for a terminal."""
        lines = []
        head = f"  {'meter':<12}{'part':<18}{'quality':<11}{'joules ± 2u':>20}{'watts':>9}   ratio"
        for load in self.loads:
            lines += [f"{load.name}, {load.seconds:.1f} s, {load.repeats} times", head]
            for row in load.meters:
                start = f"  {row.source:<12}{row.part:<18}{row.quality:<11}"
                if row.joules is None:
                    lines.append(f"{start}{'-':>20}{'-':>9}   {row.reason or ''}")
                    continue
                energy = f"{row.joules:.4g} ± {2 * (row.u_joules or 0.0):.2g}"
                ratio = "nothing to compare with" if row.part == "wall" else "reference"
                if row.ratio:
                    ratio = f"{row.ratio.value:.3g} ({row.ratio.low:.2g} to {row.ratio.high:.2g}) of {row.reference}"
                lines.append(f"{start}{energy:>20}{row.watts or 0.0:>9.4g}   {ratio}")
            lines += dict.fromkeys(f"  {row.source}: {row.boundary}" for row in load.meters if row.joules is not None and row.boundary)
            lines.append("")
        if self.wall is not None:
            lines += [self.wall.to_text(), ""]
        elif self.why_no_line:
            lines += [f"no line of the wall meter over the components: {self.why_no_line}", ""]
        lines += [f"not here: {item.source} ({item.component}): {item.reason}" for item in self.absent]
        return "\n".join(lines)


def compared(records: Sequence[Record], gone: Collection[tuple[str, str]] = ()) -> Load:
    """Put the meters side by side: one row per meter and part but for the ``gone`` ones, the most trusted as its part's reference."""
    windows = [_readings(record, gone) for record in records]
    found = [_Reading.mean([each[key] for each in windows if key in each]) for key in windows[0]]
    found.sort(key=lambda row: (row.family, row.joules is None, row.quality != "measured"))
    references = {"wall": _Reading.mean([_whole(record) for record in records])}
    for row in found:
        if row.joules is not None:
            references.setdefault(row.family, row)
    seconds = math.fsum(record.seconds for record in records) / len(records)
    return Load(records[0].name, seconds, tuple(row.result(references.get(row.family), seconds) for row in found), len(records))


@dataclass(frozen=True)
class _Reading:
    """What one meter gave for one part in a window, or in the mean of all ``windows`` of a load."""

    source: str
    part: str
    quality: str
    boundary: str
    joules: float | None
    random: float
    scale: float
    reason: str | None
    windows: tuple[_Reading, ...] = ()

    @classmethod
    def mean(cls, windows: Sequence[_Reading]) -> _Reading:
        first, n, known = windows[0], len(windows), [one.joules for one in windows if one.joules is not None]
        reason = next((one.reason for one in (*(one for one in windows if one.joules is None), *windows) if one.reason), None)
        if len(known) < n:
            return replace(first, quality="absent", joules=None, reason=reason, windows=tuple(windows))
        # What the meter admits, or what the repeats differ by if that is more: the load itself is never twice the same.
        random = max(math.hypot(*(one.random for one in windows)) / n, statistics.stdev(known) / math.sqrt(n) if n > 1 else 0.0)
        scale = math.fsum(one.scale for one in windows) / n
        return replace(first, joules=math.fsum(known) / n, random=random, scale=scale, reason=reason, windows=tuple(windows))

    @property
    def family(self) -> str:
        return self.part.split(":")[0]

    def result(self, reference: _Reading | None, seconds: float) -> MeterResult:
        found = MeterResult(self.source, self.part, self.quality, self.boundary, self.joules, None, None, reason=self.reason)
        if self.joules is None:
            return found
        own = reference is None or reference is self or (self.part.startswith("gpu:") and reference.source == self.source)
        ratio = None if own or reference is None else self.ratio(reference)
        name = None if ratio is None or reference is None else reference.source
        watts = self.joules / seconds if seconds > 0 else None
        return replace(found, u_joules=math.hypot(self.random, self.scale), watts=watts, ratio=ratio, reference=name)

    def ratio(self, reference: _Reading) -> Interval | None:
        """Return this over another: the mean of the windows' ratios, 95 %, from their spread and from both meters' uncertainties."""
        pairs = list(zip(self.windows, reference.windows, strict=True))
        ratios = [one.joules / other.joules for one, other in pairs if one.joules is not None and other.joules]
        if len(ratios) < len(pairs) or not self.joules or not reference.joules:
            return None
        value = math.fsum(ratios) / len(ratios)
        within = [math.hypot(one.random / (one.joules or 1.0), other.random / (other.joules or 1.0)) for one, other in pairs]
        spread = mean_interval(ratios).half if len(ratios) > 1 else 0.0
        random = max(spread, 2 * value * math.hypot(*within) / len(within))
        half = math.hypot(random, 2 * value * math.hypot(self.scale / self.joules, reference.scale / reference.joules))
        return Interval(value, max(value - half, 0.0), value + half)


def _readings(record: Record, gone: Collection[tuple[str, str]]) -> dict[tuple[str, str], _Reading]:
    groups: dict[tuple[str, str], list[Component]] = {}
    for part in (part for part in record.components if (part.source, part.name) not in gone):
        family = part.name.split(":", 1)[0]
        name = part.name if family == "gpu" and part.source != "codecarbon" else family
        groups.setdefault((part.source, name), []).append(part)
    return {key: _reading(*key, parts) for key, parts in groups.items()}


def _reading(source: str, name: str, parts: Sequence[Component]) -> _Reading:
    lost = [part.reason for part in parts if part.joules is None]
    boundary = parts[0].boundary
    if lost:
        return _Reading(source, name, "absent", boundary, None, 0.0, 0.0, lost[0])
    joules = math.fsum(part.joules or 0.0 for part in parts)
    random = math.hypot(*(part.u_random_joules or 0.0 for part in parts))
    scale = math.fsum(part.u_systematic_joules or 0.0 for part in parts)  # one meter, one scale: its errors go together
    reason = next((part.reason for part in parts if part.reason), None)
    return _Reading(source, name, parts[0].quality, boundary, joules, random, scale, reason)


def _whole(record: Record) -> _Reading:
    random, scale = record.u_random_joules or 0.0, record.u_systematic_joules or 0.0
    return _Reading("the components", "", "", "", record.joules, random, scale, None)


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
    line = why_not = None
    try:
        line = calibrate_wall([record for several in records.values() for record in several]) if wall else None
    except ValueError as error:  # the table of the meters stands without the line
        why_not = str(error)
    return Comparison(tuple(compared(several, gone) for several in records.values()), absent, line, why_not)


def _usual(seconds: float, wall: bool) -> list[tuple[str, Callable[[], object]]]:
    loads: list[tuple[str, Callable[[], object]]] = [("idle", partial(time.sleep, seconds))] if wall else []
    loads.append(("one busy CPU, this process", partial(spin, seconds)))
    count = usable_cpus()
    if wall and count > 1:
        loads.append((f"{count} busy CPUs", partial(_during, partial(busy_cores, count), seconds)))
    if (device := first_gpu()) is not None:
        loads.append((f"matrix products on {device}", partial(_during, MatrixProducts("cuda:0"), seconds)))
    return loads


def _during(load: Callable[[], AbstractContextManager[object]], seconds: float) -> None:
    with load():
        time.sleep(seconds)
