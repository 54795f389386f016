"""What a window cost, as an immutable fact that JSON can hold, and the sum of such records: quality never improves by adding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from .sources.source import Capability, Quality

T = TypeVar("T")
SCHEMA = 1
KINDS = ("trial", "setup", "features", "compile", "epoch", "eval", "analysis", "inference", "overhead", "idle", "total", "sum")
#: What of a component is an energy, or unknown with it.
NUMBERS = ("joules", "u_random_joules", "u_systematic_joules", "net_joules", "u_net_joules")
STATES = ("ok", "failed", "stopped", "pruned", "killed", "partial", "open")


@dataclass(frozen=True)
class Component:
    """The energy of one part of the machine in one window.

    Attributes:
        name: E.g. ``gpu:GPU-1a2b``, ``cpu:pkg0``, ``cpu``, ``wall``.
        joules: Energy, or None when it is not known; 0.0 only when a meter really did not move.
        boundary: Which parts of the machine the number covers, in words.
        counts: Whether it enters the sum; never for wall meters and cross-checks.
        tick_seconds: Period at which the meter is refreshed; None when unknown.
        wraps: Times that the counter ran over its range and was corrected.
        resets: Times that the counter started again for another reason.
        gap_seconds: Time inside the window without readings.
        u_random_joules: Standard uncertainty that differs from window to window: what matters for ranking.
        u_systematic_joules: Standard uncertainty of the scale, common to all windows: what matters for kWh and CO2.
        idle_watts: Power of this component while nothing is done, or None when no idle window was measured.
        net_joules: ``joules`` without ``idle_watts`` over the window, or None.
        u_net_joules: Standard uncertainty of ``net_joules``: of the window, of the idle power as far as idle windows differ, and of the
            scale; None until there are two idle windows.
        attribution: ``exclusive``, or how a shared component was split.
        below_resolution: The window is too short for this meter: only the interval means anything.
        reason: Why it is absent, or what restricts it; None when there is nothing to add.
        cross_check: This account over the meter's second quantity (NVML: counter over integrated power); None without one.
    """

    name: str
    joules: float | None
    source: str
    quality: Quality = "measured"
    boundary: str = ""
    counts: bool = True
    reads: int = 0
    tick_seconds: float | None = None
    wraps: int = 0
    resets: int = 0
    gap_seconds: float = 0.0
    u_random_joules: float | None = None
    u_systematic_joules: float | None = None
    idle_watts: float | None = None
    net_joules: float | None = None
    u_net_joules: float | None = None
    attribution: str = "exclusive"
    below_resolution: bool = False
    reason: str | None = None
    cross_check: float | None = None

    @classmethod
    def absent(cls, found: Capability) -> Component:
        """Return the component of something that could not be read: no number, and the reason."""
        reason = found.reason or f"{found.source} is not available"
        return cls(found.component, None, found.source, "absent", found.boundary, counts=False, reason=reason)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Component:
        """Read a component back; what a later version wrote besides is left out."""
        return cls(**{key: value for key, value in data.items() if key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Record:
    """What is known of one window.

    Attributes:
        id: Name of the window that no other of this ledger has.
        parent: Id of the window around it, or None.
        kind: One of ``KINDS``; ``state`` one of ``STATES``.
        t0_ns: Start on the machine's monotonic clock, ``t1_ns`` the end; ``t0_utc`` is the start in UTC, ISO 8601.
        components: One per component that was looked for, the absent ones included.
        hardware_id: Short hash of the hardware; records of different hardware do not compare.
        cpu_seconds: CPU-seconds of the window's own processes, or None when unknown.
        utilisation: Mean share of the time in which each device worked, 0 to 1, by component; a device that does not report it is left out.
        contended: Who else used the machine (``foreign_cpu_seconds``, ``foreign_gpu_pids``), or None.
        edges: Temperature, clocks and throttling of devices at ``begin`` and ``end``.
        meter: Version of the schema, what measuring cost (``overhead_seconds``) and what went wrong beside the readings (``troubles``).
    """

    id: str
    name: str
    parent: str | None
    kind: str
    state: str
    t0_utc: str
    t0_ns: int
    t1_ns: int
    seconds: float
    components: tuple[Component, ...] = ()
    hardware_id: str = ""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float | None = None
    utilisation: Mapping[str, float] = field(default_factory=dict)
    contended: Mapping[str, Any] | None = None
    edges: Mapping[str, Any] = field(default_factory=dict)
    meter: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counting(self) -> tuple[Component, ...]:
        """Return the components that make up the sum."""
        return tuple([part for part in self.components if part.counts])

    @property
    def joules(self) -> float | None:
        """Return the energy of all counting components, or None.

        None when there is none, and also when one of them was lost in this window: the rest would pass for the whole.
        ``known_joules`` has the rest.
        """
        return sum_known([part.joules for part in self.counting])

    @property
    def known_joules(self) -> float:
        """Return what is known, 0.0 when nothing is; a lower bound, not for ranking."""
        return math.fsum(part.joules for part in self.counting if part.joules is not None)

    @property
    def net_joules(self) -> float | None:
        """Return the energy above idle, or None when a counting component has no idle power."""
        return sum_known([part.net_joules for part in self.counting])

    @property
    def u_random_joules(self) -> float | None:
        """Return the random standard uncertainty of ``joules``; components are independent."""
        parts = self.counting
        known = [part.u_random_joules for part in parts if part.u_random_joules is not None]
        return math.hypot(*known) if known and len(known) == len(parts) else None

    @property
    def u_systematic_joules(self) -> float | None:
        """Return the systematic standard uncertainty of ``joules``; one meter's parts share one scale."""
        return _by_source([(part.source, part.u_systematic_joules) for part in self.counting])

    @property
    def u_net_joules(self) -> float | None:
        """Return the standard uncertainty of ``net_joules``, or None when it is not known."""
        return _by_source([(part.source, part.u_net_joules) for part in self.counting])

    @property
    def quality(self) -> Quality:
        """Return the worst quality of the sum; ``mixed`` when measured and estimated parts are added."""
        return combined_quality(["absent" if part.joules is None else part.quality for part in self.counting])

    @property
    def coverage(self) -> tuple[str, ...]:
        """Return the kinds of parts in the sum, e.g. ``("cpu", "dram", "gpu")``."""
        return tuple(sorted({part.name.split(":", 1)[0] for part in self.counting if part.joules is not None}))

    @property
    def below_resolution(self) -> bool:
        """Whether the window is too short for a meter that makes up most of the sum."""
        short = math.fsum(part.joules or 0.0 for part in self.counting if part.below_resolution)
        return any(part.below_resolution for part in self.counting) and 2 * short >= self.known_joules

    def component(self, name: str) -> Component | None:
        """Return the component of that name, or None."""
        return next((part for part in self.components if part.name == name), None)

    def facts(self) -> dict[str, Any]:
        """Return its entries as a plain dictionary that shares their values; ``from_json`` reads it back."""
        # dataclasses.asdict copies deeply, which costs more than the window
        return vars(self) | {"components": [vars(part) for part in self.components]}

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, with the totals besides; ``from_json`` reads it back."""
        totals = ("joules", "net_joules", "u_net_joules", "u_random_joules", "u_systematic_joules", "quality")
        return {
            **self.facts(),
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in totals},
            "coverage": list(self.coverage),
            "components": [dict(vars(part)) for part in self.components],
            "hardware": dict(self.hardware),
            "edges": dict(self.edges),
            "meter": dict(self.meter),
            "utilisation": dict(self.utilisation),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: If it was written by a later schema.
        """
        version = data.get("schema", SCHEMA)
        if not isinstance(version, int) or version > SCHEMA:
            raise ValueError(f"record has schema {version}, this version reads up to {SCHEMA}: update joulefront")
        own = {key: value for key, value in data.items() if key in cls.__dataclass_fields__ and key != "components"}
        return cls(components=tuple(Component.from_json(part) for part in data.get("components", ())), **own)


def at_once(kind: type[T], /, **entries: Any) -> T:
    """Return a frozen dataclass of all its entries, in a third of the time that its own ``__init__`` takes."""
    made = object.__new__(kind)
    vars(made).update(entries)
    return made


def scaled(record: Record, factor: float) -> Record:
    """Return a record of ``factor`` times as much work of the same kind: energies, uncertainties and times in proportion."""

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    def part(of: Component) -> Component:
        values: dict[str, Any] = {name: times(getattr(of, name)) for name in NUMBERS}
        return replace(of, **values)

    return replace(
        record, components=tuple(map(part, record.components)), seconds=record.seconds * factor, cpu_seconds=times(record.cpu_seconds)
    )


def sum_known(values: Iterable[float | None]) -> float | None:
    """Return the sum of values, or None when there is none or one of them is not known: the rest would pass for the whole."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) if known and len(known) == len(found) else None


def summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums of numbers by name; a name that is missing adds nothing."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def combined_quality(kinds: Iterable[str]) -> Quality:
    """Return the quality of a sum whose parts have these: ``absent`` without parts or when one is absent, ``mixed`` when they differ."""
    found = set(kinds)
    if not found or "absent" in found:
        return "absent"
    return cast(Quality, found.pop()) if len(found) == 1 else "mixed"


def _by_source(parts: Iterable[tuple[str, float | None]]) -> float | None:
    """Add uncertainties: those of one meter go together, those of different meters are independent."""
    sums: dict[str, float] = {}
    for source, u in parts:
        if u is None:
            return None
        sums[source] = sums.get(source, 0.0) + u
    return math.hypot(*sums.values()) if sums else None


def _common(values: Iterable[Any], otherwise: Any) -> Any:
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else otherwise


def _add_component(name: str, parts: list[Component], expected: int) -> Component:
    # What is in the sum of one record and not in another's, as a device that another trial held meanwhile, adds nothing there.
    summed = [part for part in parts if part.counts] or parts
    lost = [part for part in summed if part.joules is None]
    known = [part for part in summed if part.joules is not None]
    complete = not lost and len(parts) == expected
    sure = complete and all(part.u_random_joules is not None and part.u_systematic_joules is not None for part in known)
    reason = next((part.reason for part in lost if part.reason), None) or _common((part.reason for part in parts), None)
    if len(parts) < expected:
        reason = f"only {len(parts)} of {expected} records have {name}"
    idle = _common((part.idle_watts for part in parts), None)
    return Component(
        name=name,
        joules=sum_known(part.joules for part in known) if complete else None,
        source=_common((part.source for part in parts), "several"),
        quality=combined_quality(part.quality for part in summed) if complete else "absent",
        boundary=_common((part.boundary for part in parts), "differs"),
        counts=any(part.counts for part in parts),
        reads=sum(part.reads for part in parts),
        tick_seconds=_common((part.tick_seconds for part in parts), None),
        wraps=sum(part.wraps for part in parts),
        resets=sum(part.resets for part in parts),
        gap_seconds=math.fsum(part.gap_seconds for part in parts),
        u_random_joules=math.hypot(*(part.u_random_joules or 0.0 for part in known)) if sure else None,
        u_systematic_joules=math.fsum(part.u_systematic_joules or 0.0 for part in known) if sure else None,
        idle_watts=idle,
        net_joules=sum_known(part.net_joules for part in summed) if complete else None,
        u_net_joules=sum_known(part.u_net_joules for part in summed) if complete else None,  # one idle power and one scale for all
        attribution=_common((part.attribution for part in parts), "differs"),
        below_resolution=complete and all(part.below_resolution for part in summed),
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
        cpu_seconds=sum_known(record.cpu_seconds for record in chosen),
        utilisation=_utilisation(chosen),
        contended={"records": len(foreign)} if foreign else None,
        edges={},
    )
