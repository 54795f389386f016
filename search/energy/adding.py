"""The sum of records: quality never improves by adding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .record import Component, Record, total
from .source import Quality


def _common(values: Iterable[Any], otherwise: Any) -> Any:
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else otherwise


def _add_component(name: str, parts: list[Component], expected: int) -> Component:
    lost = [part for part in parts if part.joules is None]
    known = [part for part in parts if part.joules is not None]
    complete = not lost and len(parts) == expected
    quality: Quality = _common((part.quality for part in parts), "mixed")
    reason = next((part.reason for part in lost if part.reason), None) or _common((part.reason for part in parts), None)
    if len(parts) < expected:
        reason = f"only {len(parts)} of {expected} records have {name}"
    idle = _common((part.idle_watts for part in parts), None)
    return Component(
        name=name,
        joules=total(part.joules for part in known) if complete else None,
        source=_common((part.source for part in parts), "several"),
        quality=quality if complete else "absent",
        boundary=_common((part.boundary for part in parts), "differs"),
        counts=any(part.counts for part in parts),
        reads=sum(part.reads for part in parts),
        tick_seconds=_common((part.tick_seconds for part in parts), None),
        wraps=sum(part.wraps for part in parts),
        resets=sum(part.resets for part in parts),
        gap_seconds=math.fsum(part.gap_seconds for part in parts),
        u_random_joules=math.hypot(*(part.u_random_joules or 0.0 for part in parts)) if complete else None,
        u_systematic_joules=math.fsum(part.u_systematic_joules or 0.0 for part in parts) if complete else None,
        idle_watts=idle,
        net_joules=total(part.net_joules for part in parts) if complete else None,
        u_net_joules=total(part.u_net_joules for part in parts) if complete else None,  # one idle power and one scale for all
        attribution=_common((part.attribution for part in parts), "differs"),
        below_resolution=complete and all(part.below_resolution for part in parts),
        reason=reason,
    )


def _utilisation(records: Sequence[Record]) -> dict[str, float]:
    """Mean over all records, by their duration; a device that one of them does not know is left out."""
    seconds = math.fsum(record.seconds for record in records)
    names = set(records[0].utilisation).intersection(*(record.utilisation for record in records))
    return {name: math.fsum(one.utilisation[name] * one.seconds for one in records) / seconds for name in sorted(names) if seconds > 0}


def add(records: Iterable[Record]) -> Record:
    """Return the sum of records of one machine, e.g. a lineage of trials or everything a study paid.

    A component that one of them lacks or lost is unknown in the sum: quality never improves by adding.

    Raises:
        ValueError: If there are no records, or they come from different hardware.
    """
    chosen = tuple(records)
    if not chosen:
        raise ValueError("add needs at least one record, got none")
    hardware = sorted({record.hardware_id for record in chosen})
    if len(hardware) > 1:
        raise ValueError(
            f"records must come from one hardware_id, got {', '.join(hardware)}: energy of different machines does not compare"
        )
    if len(chosen) == 1:
        return chosen[0]
    by_name: dict[tuple[str, str], list[Component]] = {}
    for record in chosen:
        for part in record.components:
            by_name.setdefault((part.name, part.source), []).append(part)
    first = min(chosen, key=lambda record: record.t0_ns)
    foreign = [record.contended for record in chosen if record.contended]
    return replace(
        first,
        id="+".join(record.id for record in chosen),
        name=_common((record.name for record in chosen), f"sum of {len(chosen)}"),
        parent=_common((record.parent for record in chosen), None),
        kind=_common((record.kind for record in chosen), "sum"),
        state=_common((record.state for record in chosen), "partial"),
        t1_ns=max(record.t1_ns for record in chosen),
        seconds=math.fsum(record.seconds for record in chosen),
        components=tuple(_add_component(name, parts, len(chosen)) for (name, _), parts in by_name.items()),
        cpu_seconds=total(record.cpu_seconds for record in chosen),
        utilisation=_utilisation(chosen),
        contended={"records": len(foreign)} if foreign else None,
        edges={},
    )
