"""One short load under every meter of this machine, side by side: do they agree, and within what?"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from .intervals import Interval
from .ledger import Ledger
from .loads import gpu_matmul, spin
from .record import Component, Record
from .source import Capability, Source

#: All meters of the components, best first; a wall meter is added by name.
EVERY = "nvml,rapl,cpu_time,codecarbon"
#: Longest wait after a load for the slowest meter's next refresh.
LONGEST_REFRESH_SECONDS = 3.0


@dataclass(frozen=True)
class Meter:
    """What one meter said of one part of the machine under one load.

    Attributes:
        source: Name of the meter.
        part: ``gpu:...``, ``cpu``, ``dram``, ``wall`` ...
        quality: ``measured``, ``estimated`` or ``absent``.
        boundary: What its number covers.
        joules: Energy, or None.
        u_joules: Standard uncertainty, random and systematic together, or None.
        watts: Mean power, or None.
        ratio: This over the reference of the same part (for the wall: over the sum of the components), 95 % interval; or None.
        reference: The meter it is compared with, or None for the reference itself.
        reason: Why there is no number, or what restricts it.
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
    """One load and what the meters said of it."""

    name: str
    seconds: float
    meters: tuple[Meter, ...]


@dataclass(frozen=True)
class Comparison:
    """All loads, and the meters that could not be had."""

    loads: tuple[Load, ...]
    absent: tuple[Capability, ...]

    def to_json(self) -> str:
        """Return JSON text, stable in its keys."""
        names = ("source", "component", "reason", "remedy")
        absent = [{name: getattr(item, name) for name in names} for item in self.absent]
        return json.dumps({"loads": [asdict(load) for load in self.loads], "absent": absent}, indent=2)

    def to_text(self) -> str:
        """Return a table for a terminal."""
        lines = []
        head = f"  {'meter':<12}{'part':<18}{'quality':<11}{'joules ± 2u':>20}{'watts':>9}   ratio"
        for load in self.loads:
            lines += [f"{load.name}, {load.seconds:.1f} s", head]
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
        lines += [f"not here: {item.source} ({item.component}): {item.reason}" for item in self.absent]
        return "\n".join(lines)


def compare_meters(
    meter: str = "auto",
    *,
    sources: Sequence[Source] | None = None,
    absent: Iterable[Capability] = (),
    seconds: float = 5.0,
    loads: Sequence[tuple[str, Callable[[], object]]] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    ledger: Ledger | None = None,
) -> Comparison:
    """Run each load once under all meters at the same time.

    Args:
        meter: As for ``discover``; here ``auto`` means every meter of the components, e.g. ``auto,wall=http://...``.
        sources: The meters themselves, instead of `meter`.
        absent: With `sources`: what could not be had.
        seconds: Length of each load, >= 1; CodeCarbon looks once a second, so a few seconds are needed to compare.
        loads: Names and functions; None takes a busy loop of this thread, and a matrix multiplication where there is a CUDA device.
        sleep: Waits for the slowest meter's last refresh.
        ledger: A ledger over `sources` that is not yet started, for a clock of one's own.

    Raises:
        ValueError: `seconds` is below 1, or no meter works here.
    """
    if seconds < 1:
        raise ValueError(f"seconds must be >= 1, got {seconds}: the slowest meter looks once a second")
    if sources is None:
        from .discover import discover

        found = discover(",".join(EVERY if part.strip() == "auto" else part for part in meter.split(",")))
        sources, absent = found.sources, found.absent
    if not sources:
        raise ValueError("no meter works on this machine, so there is nothing to compare; joulefront doctor says why")
    capabilities = [item for source in sources for item in source.probe() if item.available]
    refresh = min(max((item.tick_seconds or 0.1 for item in capabilities), default=0.1), LONGEST_REFRESH_SECONDS)
    windows = []
    absent = tuple(absent)
    with ledger or Ledger(sources, absent=absent) as running:
        for name, run in loads or _usual(seconds):
            sleep(1.5 * refresh)  # every meter has a reading before the load
            with running.window(name, kind="setup") as window:
                run()
            windows.append(window)
            sleep(1.5 * refresh)
            running.sample()
    gone = {(item.source, item.component) for item in absent}
    return Comparison(tuple(compared(window.record, gone) for window in windows), absent)


def compared(record: Record, gone: Collection[tuple[str, str]] = ()) -> Load:
    """Put the meters of one record side by side: one row per meter and part, the most trusted of each part as its reference.

    Args:
        record: Of a window under all meters.
        gone: Sources and components that were never there, to be left out.
    """
    groups: dict[tuple[str, str], list[Component]] = {}
    for part in (part for part in record.components if (part.source, part.name) not in gone):
        family = part.name.split(":", 1)[0]
        groups.setdefault((part.source, part.name if family == "gpu" and part.source != "codecarbon" else family), []).append(part)
    rows = [_row(source, name, parts, record.seconds) for (source, name), parts in groups.items()]
    rows.sort(key=lambda row: (row.part.split(":")[0], row.joules is None, row.quality != "measured"))
    references: dict[str, Meter] = {}
    for row in rows:
        if row.joules is not None:
            references.setdefault(row.part.split(":")[0], row)
    whole = Meter("the components", "", "", "", record.joules, _u(record.u_random_joules, record.u_systematic_joules), None)
    found = []
    for row in rows:
        family = row.part.split(":")[0]
        reference = whole if family == "wall" else references.get(family)
        compare = reference is not None and reference is not row and not (row.part.startswith("gpu:") and reference.source == row.source)
        ratio = _ratio(row, reference) if compare and reference is not None else None
        name = reference.source if ratio is not None and reference is not None else None
        found.append(Meter(**{**vars(row), "ratio": ratio, "reference": name}))
    return Load(record.name, record.seconds, tuple(found))


def _usual(seconds: float) -> list[tuple[str, Callable[[], object]]]:
    loads: list[tuple[str, Callable[[], object]]] = [("one busy CPU, this process", partial(spin, seconds))]
    if (device := gpu_matmul(0.2)) is not None:  # also wakes the device, so its context is not part of the load
        loads.append((f"matrix products on {device}", partial(gpu_matmul, seconds)))
    return loads


def _row(source: str, name: str, parts: Sequence[Component], seconds: float) -> Meter:
    lost = [part.reason for part in parts if part.joules is None]
    boundary = parts[0].boundary
    if lost:
        return Meter(source, name, "absent", boundary, None, None, None, reason=lost[0])
    joules = math.fsum(part.joules or 0.0 for part in parts)
    random = math.hypot(*(part.u_random_joules or 0.0 for part in parts))
    scale = math.fsum(part.u_systematic_joules or 0.0 for part in parts)  # one meter, one scale: its errors go together
    watts = joules / seconds if seconds > 0 else None
    reason = next((part.reason for part in parts if part.reason), None)
    return Meter(source, name, parts[0].quality, boundary, joules, _u(random, scale), watts, reason=reason)


def _u(random: float | None, scale: float | None) -> float | None:
    return None if random is None or scale is None else math.hypot(random, scale)


def _ratio(row: Meter, reference: Meter) -> Interval | None:
    if row.joules is None or not reference.joules or row.u_joules is None or reference.u_joules is None:
        return None
    value = row.joules / reference.joules
    half = 2 * math.hypot(row.u_joules / reference.joules, value * reference.u_joules / reference.joules)
    return Interval(value, max(value - half, 0.0), value + half)
