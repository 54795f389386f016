"""A study as it lies on disk, finished or not: what the front, the report and the export read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .repeats.plan import Repeats
from .trial import Trial


@dataclass(frozen=True)
class AtSocket:
    """What the whole machine took at the plug while the study ran: beside the components, never added to them.

    Attributes:
        joules: Energy.
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
        total_joules: Everything the ledger saw while the study ran, or None when nothing could be measured or estimated.
        by_state: Joules by state of the trials (``complete``; ``stopped`` at a limit, a cap or by the user; ``pruned`` by the safety
            net; ``failed``), ``repeats`` (finalists trained again), ``overhead`` (deciding, loading, storing), ``idle`` and
            ``unattributed`` (foreign work).
        by_component: Joules by component name, e.g. ``gpu:GPU-1a2b``, ``cpu:pkg0``, ``cpu``.
        quality_by_component: ``measured``, ``estimated`` or ``mixed`` by component name.
        source_by_component: Name of the meter by component name.
        absent: What could not be measured: component -> reason.
        u_joules: Standard uncertainty of the total (random and systematic), or None.
        seconds: Wall time that the ledger covered.
        unknown_seconds: Time of which a component's energy is not known (its meter was lost), by component: it is in no sum.
        at_socket: The whole machine at the plug; None unless every session knows it.
    """

    total_joules: float | None = None
    by_state: Mapping[str, float] = field(default_factory=dict)
    by_component: Mapping[str, float] = field(default_factory=dict)
    quality_by_component: Mapping[str, str] = field(default_factory=dict)
    source_by_component: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    u_joules: float | None = None
    seconds: float = 0.0
    unknown_seconds: Mapping[str, float] = field(default_factory=dict)
    at_socket: AtSocket | None = None

    def gaps(self) -> str | None:
        """Say in one sentence what is not in the sums, or None when everything is."""
        if not self.unknown_seconds:
            return None
        parts = ", ".join(f"{name} for {seconds:.1f} s" for name, seconds in sorted(self.unknown_seconds.items()))
        return f"Not in these sums, because its meter gave nothing then: {parts}; the energy of the search is at least this."


@dataclass(frozen=True)
class Run:
    """Everything known of one run of a study.

    Attributes:
        name: Name of the study.
        path: The run folder.
        objectives: Objective names, quality first.
        directions: ``maximize`` or ``minimize`` of each objective.
        rungs: Numbers of epochs at which models were measured.
        trials: All trials in the order of their numbers.
        bill: Where the energy of the search went.
        facts: ``study.json``: study description, options, versions, hardware, command, budget, sampler, seed, intensity
            (``{"grams_per_kwh", "zone", "source", "year", "kind"}`` or None).
        repeats: Trainings of finalists again; never trials, never points of the front.
    """

    name: str
    path: Path
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    rungs: tuple[int, ...]
    trials: tuple[Trial, ...]
    bill: Bill
    facts: Mapping[str, Any] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=Repeats)
