"""The bill of a study: the energy of each session of the ledger, by state of the trials and by component, and their sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..energy import Component, Record
from ..energy.record import combined_quality, summed
from ..energy.sources.cpu_time import CpuTime, estimates_in
from ..formatting import digits
from .files import BillFile, read_json
from .trial import ComponentEnergy

#: Kinds of the ledger's windows: a training of the search, and one of a finalist that is trained again.
TRIAL, REPEAT = "trial", "repeat"
#: State under which trainings of finalists are billed, whatever their outcome.
REPEATS = "repeats"
#: State under which the bill has what frozen backbones took: it is paid once by the study, not by the trial that happens to come first.
FEATURES = "features"


@dataclass(frozen=True)
class AtWall:
    """Energy of the whole machine at the wall while the study ran: beside the components, never added to them.

    Attributes:
        u_joules: Its standard uncertainty, random and systematic, or None.
        quality: ``measured``, ``estimated`` or ``mixed``.
        source: The meter, or ``wall line`` for what followed from the components.
        reason: How it was estimated, or None.
    """

    joules: float
    u_joules: float | None
    quality: str
    source: str
    reason: str | None = None


@dataclass(frozen=True)
class Bill:
    """Where the joules of a search went; the parts add up to the ledger's total.

    Attributes:
        total_joules: Everything that the ledger measured while the study ran, or None when nothing could be measured or estimated.
        by_state: Joules by state of the trials (``complete``; ``stopped`` at a limit, a cap or by the user; ``pruned`` when
            dominated; ``failed``), ``repeats`` (finalists trained again), ``overhead`` (deciding, loading, storing), ``idle`` and
            ``unattributed`` (work of other programs).
        components: What is known of each component that is in the sums, by its name, e.g. ``gpu:GPU-1a2b``, ``cpu:pkg0``, ``cpu``.
        absent: What could not be measured: component -> reason.
        u_joules: Standard uncertainty of the total (random and systematic), or None.
        seconds: Wall time that the ledger covered.
        unknown_seconds: Time of which a component's energy is not known (its meter was lost), by component: it is in no sum.
        at_wall: The whole machine at the wall; None unless every session knows it.
        overhead_parts: What of the overhead is known by what it was for, see `SessionBill`; the rest of it is other.
        unknown_cpu_seconds: CPU-seconds of processes before their meters ran, of which no energy is known: they are in no sum.
        rebuilt: Sessions whose bill was lost: of these counts what the ledger's file or else their trainings' own records say.
        again_joules: What sessions took that trained finalists again, their start included; ``again_seconds`` of ``seconds`` are theirs.
    """

    total_joules: float | None = None
    by_state: Mapping[str, float] = field(default_factory=dict)
    components: Mapping[str, ComponentEnergy] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    u_joules: float | None = None
    seconds: float = 0.0
    unknown_seconds: Mapping[str, float] = field(default_factory=dict)
    at_wall: AtWall | None = None
    unknown_cpu_seconds: float = 0.0
    overhead_parts: Mapping[str, float] = field(default_factory=dict)
    again_joules: float = 0.0
    again_seconds: float = 0.0
    rebuilt: int = 0

    @property
    def search_joules(self) -> float | None:
        """What the search itself took, without the sessions that trained finalists again; None when nothing is known."""
        return None if self.total_joules is None else self.total_joules - self.again_joules

    @property
    def by_component(self) -> dict[str, float | None]:
        """Joules by component name."""
        return {name: part.joules for name, part in self.components.items()}

    def gaps(self) -> str | None:
        """Return one sentence on what is not in the sums, or None when everything is."""
        parts = [f"{name} for {digits(seconds)} s" for name, seconds in sorted(self.unknown_seconds.items())]
        if self.unknown_cpu_seconds:
            parts.append(f"{digits(self.unknown_cpu_seconds)} CPU-seconds of the start, before it ran")
        said = [f"because its meter gave nothing then: {', '.join(parts)}"] if parts else []
        if self.rebuilt:
            said.append(f"because the bill of {self.rebuilt} session(s) was lost: what no record of a training or of the meters has")
        return f"Not in these sums, {'; and, '.join(said)}; the energy of the search is at least this." if said else None


@dataclass
class SessionBill:
    """One session of a run: from the start of its ledger to now. The only mutable record of a run.

    Attributes:
        started: UTC time of the start, ISO 8601; names the session.
        by_state: Joules billed so far, by the states of a `Bill`.
        open_trials: Joules so far of trials that are still training, by number: what a killed session leaves behind; ``open_repeats`` are
            those of finalists that are being trained again.
        total: The ledger's own total, a record.
        ledger_session: Name of the session in the ledger's journal.
        closed: Whether the session ended by itself; a killed one is settled from the journal.
        by_component: Joules so far that are known, by component; what ``by_state`` and the open trainings add up to.
        unknown_seconds: Time of which a component's energy is not known, by component: it is in no sum.
        parts: Of the overhead by what it was for, ``start`` (imports, data, warm-up of the first kind of model), ``warm-up`` (of the other
            kinds, before their first training), ``deciding``, ``storing`` and ``showing``, in joules; shared out by the meters' curves
            between two edges. With several workers only ``start`` and ``showing`` can be told apart.
        before: What the session's process took before its ledger ran, ``{"cpu_seconds", "joules"}``: overhead of ``cpu``, unless the joules
            are None, unknown; None where the process does other work, too.
        refused: Why its start was refused: a command that could not begin is no work of the study, and nothing of it is billed.
        rebuilt: What a lost bill was made again from; None for one as it was written.
    """

    started: str
    by_state: dict[str, float] = field(default_factory=dict)
    open_trials: dict[int, float | None] = field(default_factory=dict)
    total: Record | None = None
    ledger_session: str = ""
    closed: bool = False
    open_repeats: dict[int, float | None] = field(default_factory=dict)
    by_component: dict[str, float] = field(default_factory=dict)
    unknown_seconds: dict[str, float] = field(default_factory=dict)
    before: Mapping[str, float | None] | None = None
    refused: str | None = None
    rebuilt: str | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def before_joules(self) -> float:
        """What is known of the energy before the ledger."""
        return (self.before or {}).get("joules") or 0.0

    def with_before(self, joules: Mapping[str, float], name: str) -> dict[str, float]:
        """Return some joules by name with those from before the ledger under one of them."""
        return {**joules, name: joules.get(name, 0.0) + self.before_joules} if self.before_joules else dict(joules)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        total = self.total
        return {
            "started": self.started,
            "by_state_joules": dict(self.by_state),
            "by_component_joules": dict(self.by_component),
            "unknown_seconds": dict(self.unknown_seconds),
            "open_trials_joules": {str(number): joules for number, joules in self.open_trials.items()},
            "open_repeats_joules": {str(number): joules for number, joules in self.open_repeats.items()},
            "ledger_session": self.ledger_session,
            "before": None if self.before is None else dict(self.before),
            "overhead_parts_joules": self.with_before(self.parts, "start"),
            "closed": self.closed,
            "total": None if total is None else total.to_json(),
            **{name: why for name, why in (("refused", self.refused), ("rebuilt", self.rebuilt)) if why is not None},
        }


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """Return the sessions of a bill file, oldest first; none when there is no file.

    Raises:
        ValueError: If the file is damaged: taken for empty, it would be overwritten and its joules would be spent again.
    """
    if not path.is_file():
        return []
    remedy = "restore it from a copy, or delete it: the next run adds the sessions up again from the ledger's file"
    return cast(list[dict[str, Any]], read_json(path, BillFile, remedy, check_bill)["sessions"])


def check_bill(bill: BillFile) -> None:
    """Raise ValueError where the parts of a session do not belong together, or are none that a meter gives."""
    for session in bill["sessions"]:
        whole, known = session.get("total"), session.get("by_component_joules")
        if known and (whole is None or known_joules({"total": whole}).keys() - known):
            raise ValueError("total and by_component_joules must have the same components")
        if negative := [f"{name}: {joules}" for name, joules in (known or {}).items() if joules < 0]:
            raise ValueError(f"by_component_joules must not be negative, got {negative[0]}")


def read_bill(path: Path) -> Bill:
    """Add up the sessions of a run."""
    return add_up(read_sessions(path))


def add_up(sessions: Iterable[Mapping[str, Any]]) -> Bill:
    """Add sessions; a component that any session could not measure has the quality ``mixed``.

    A component that was lost on the way is in the sums with what is known of it, and its unknown time is named beside them.
    """
    every = list(sessions)
    metered = [(one, Record.from_json(one["total"]), known_joules(one)) for one in every if one.get("total") is not None]
    joules = summed(known for _, _, known in metered)
    parts: dict[str, list[Component]] = {name: [] for name in joules}
    absent: dict[str, str] = {}
    for _, record, known in metered:
        for part in record.components:
            if part.name in known:
                parts[part.name].append(part)
            elif part.joules is None and part.name not in joules:
                absent[part.name] = part.reason or "unknown"
    again = [(record, known) for one, record, known in metered if REPEATS in one["by_state_joules"]]
    before = [one["before"] for one, _, _ in metered if one.get("before")]
    return Bill(
        total_joules=sum(joules.values()) if joules else None,
        by_state=summed(one["by_state_joules"] for one in every),
        components={name: _known(joules[name], found) for name, found in parts.items()},
        absent=absent,
        u_joules=_u_joules(metered) if joules else None,
        seconds=sum((record.seconds for _, record, _ in metered), 0.0),
        unknown_seconds=summed({n: t for n, t in one.get("unknown_seconds", {}).items() if t > 0} for one, _, _ in metered),
        at_wall=_at_wall([record.component("wall") for _, record, _ in metered]),
        unknown_cpu_seconds=sum((one["cpu_seconds"] for one in before if one["joules"] is None), 0.0),
        overhead_parts=summed(one.get("overhead_parts_joules") or {} for one in every),
        again_joules=sum((sum(known.values()) for _, known in again), 0.0),
        again_seconds=sum((record.seconds for record, _ in again), 0.0),
        rebuilt=sum(one.get("rebuilt") is not None for one, _, _ in metered),
    )


def _known(joules: float, parts: Sequence[Component]) -> ComponentEnergy:
    """Return what is known of a component in some sessions; one that was lost in a part of them is ``mixed``."""
    if not parts:
        return ComponentEnergy(joules, "unknown", "unknown")
    quality = combined_quality("mixed" if part.joules is None else part.quality for part in parts)
    return ComponentEnergy(joules, quality, parts[-1].source)


def _u_joules(metered: Sequence[tuple[Mapping[str, Any], Record, Mapping[str, float]]]) -> float | None:
    """Return the standard uncertainty of the sum of some sessions, with their records and what is known of them; None where one is unknown.

    That of a component that was lost is lost with it. One gain error is that of all sessions.
    """
    random_squares = systematic = 0.0
    for session, record, known in metered:
        if record.joules is None and not known:
            continue
        random, scale = record.u_random_joules, record.u_systematic_joules
        if record.joules is None or random is None or scale is None:
            return None
        random_squares, systematic = random_squares + random**2, systematic + scale
        before, cpu = (session.get("before") or {}).get("joules"), record.component("cpu")
        if before and cpu is not None and cpu.joules:
            systematic += before / cpu.joules * (cpu.u_systematic_joules or 0.0)
    return float((random_squares + systematic**2) ** 0.5)


def _at_wall(walls: Sequence[Component | None]) -> AtWall | None:
    """Add up what each session knows of the whole machine; None unless every session knows it."""
    known = [part for part in walls if part is not None and part.joules is not None]
    if not known or len(known) < len(walls):
        return None
    random = math.hypot(*(part.u_random_joules or 0.0 for part in known))
    systematic = math.fsum(part.u_systematic_joules or 0.0 for part in known)
    sources = dict.fromkeys(part.source for part in known)
    return AtWall(
        joules=math.fsum(part.joules or 0.0 for part in known),
        u_joules=None
        if any(None in (part.u_random_joules, part.u_systematic_joules) for part in known)
        else math.hypot(random, systematic),
        quality=combined_quality(part.quality for part in known),
        source=", ".join(sources),
        reason=next((part.reason for part in known if part.quality != "measured"), None),
    )


def known_joules(session: Mapping[str, Any]) -> dict[str, float]:
    """Return what one session knows of each component that counts, in joules."""
    if known := session.get("by_component_joules"):
        return dict(known)
    # Written before components were kept in the bill: only what was known from end to end.
    whole = {part.name: part.joules for part in Record.from_json(session["total"]).counting if part.joules is not None}
    return SessionBill("", before=session.get("before")).with_before(whole, "cpu")


def meters_of(record: Record) -> dict[str, str]:
    """How each component that counts is known: the meter, and for an estimate its coefficients."""
    coefficients = sorted(estimates_in(record.to_json()))
    return {
        part.name: f"{part.source} {', '.join(coefficients)}".strip() if part.source == CpuTime.name else part.source
        for part in record.components
        if part.counts and part.joules is not None
    }
