"""Tables of comparison, with notes on what may be compared: several runs on a leaderboard, and one run priced for several places.

Runs keep their joules; grams and money follow the place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..carbon.intensity import Intensity, Price, cost, grams_co2e, scope_note
from ..carbon.zones import intensity_for
from ..energy import JOULES_PER_KWH, JOULES_PER_WH
from ..energy.sources.cpu_time import estimates_in
from ..formatting import digits, fitted, paragraphs, printable, unit_for
from ..front import Front
from ..records.run_folder import Run
from ..records.trial import Trial


@dataclass(frozen=True)
class LeaderboardRow:
    """One run on the leaderboard, with the hashes of its hardware and how its energies are known.

    ``hypervolume`` is taken in the box that all runs share, ``joint`` counts its trials on the front of all runs together; None where there
    is no such box or front.
    """

    run: Run
    front: Front
    hardware: tuple[str, ...]
    quality: tuple[str, ...]
    hypervolume: float | None = None
    joint: int | None = None

    @property
    def failed(self) -> int:
        """How many trials have failed."""
        return sum(trial.state == "failed" for trial in self.run.trials)

    def pick(self, rule: str) -> Trial | None:
        """Return the model that a rule names; None where there is no front."""
        return self.front.pick(rule) if len(self.front) else None


@dataclass(frozen=True)
class Leaderboard:
    """Several runs side by side.

    Attributes:
        rows: The best run first where the runs can be ranked, else in the order given.
        notes: What forbids or weakens the comparison, one sentence each.
        front: ``(run folder, trial)`` of the joint front, cheapest first; empty when it would mix energies of different machines.
    """

    rows: tuple[LeaderboardRow, ...]
    notes: tuple[str, ...]
    front: tuple[tuple[str, int], ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a run, units in the keys, None where unknown."""
        rows = []
        for one in self.rows:
            total, models = one.run.bill.search_joules, dict[str, float | None]()
            for name in ("best", "knee", "sensible"):
                trial = one.pick(name)
                models[name] = None if trial is None else trial.values[0]
                models[f"{name}_train_wh"] = None if trial is None else trial.train_wh
            rows.append(
                {
                    "run": str(one.run.path),
                    "study": one.run.name,
                    "objectives": list(one.run.objectives),
                    "hardware_id": list(one.hardware),
                    "quality": list(one.quality),
                    "trials": len(one.run.trials),
                    "failed": one.failed,
                    "front": len(one.front),
                    **models,
                    "search_wh": None if total is None else total / JOULES_PER_WH,
                    "hypervolume": one.hypervolume,
                    "on_joint_front": one.joint,
                }
            )
        return rows

    def to_text(self) -> str:
        """A table for people, then the notes."""
        named = [(one.pick("best"), one.pick("sensible")) for one in self.rows]
        trained = [[None if trial is None else trial.train_joules for trial in both] for both in named]
        unit = unit_for([*(joules for both in trained for joules in both), *(one.run.bill.search_joules for one in self.rows)])
        cells = [["run", "objective", "best", f"at {unit.name}", "sensible", f"at {unit.name}", f"search {unit.name}", "trials", "front"]]
        cells[0] += ["hypervolume", "joint front", "hardware"]
        for one, both, joules in zip(self.rows, named, trained, strict=True):
            best, sensible = ("-" if trial is None else one.front.quality_text(trial.values[0]) for trial in both)
            row = [str(one.run.path), one.run.objectives[0], best, unit.number(joules[0]), sensible, unit.number(joules[1])]
            row.append(unit.number(one.run.bill.search_joules))
            row += [f"{len(one.run.trials)}{f' ({one.failed} failed)' if one.failed else ''}", str(len(one.front))]
            row.append("-" if one.hypervolume is None else f"{one.hypervolume:.3f}")
            cells.append([*row, "-" if one.joint is None else str(one.joint), ", ".join(one.hardware) or "unknown"])
        table = fitted(cells, [False, False, *[True] * 9, False])
        text = "\n".join([table, *(["", *(paragraphs(f"Note: {note}") for note in self.notes)] if self.notes else [])])
        return printable(text)  # a folder may be called anything


def leaderboard(runs: Sequence[Run]) -> Leaderboard:
    """Put runs side by side; rank them and join their fronts only where their numbers mean the same.

    All hypervolumes are taken in the box of the first run. Energies of different machines never share a front: then
    every run keeps its own, and a note explains why.

    Raises:
        ValueError: If fewer than two runs are given.
    """
    if len(runs) < 2:
        raise ValueError(f"compare needs at least two runs, got {len(runs)}")
    rows = [_row(run) for run in runs]
    notes = []
    goals = {(one.run.objectives, one.run.directions) for one in rows}
    if len(goals) > 1:
        each = "; ".join(f"{one.run.path}: {', '.join(one.run.objectives)}" for one in rows)
        notes.append(f"the runs have different objectives ({each}), so they are listed and not ranked.")
    seen = [data for one in rows if (data := (one.run.facts.get("fingerprint") or {}).get("data"))]
    shared = set.intersection(*map(set, seen)) if seen else set()  # earlier versions noted less
    others = len({json.dumps({key: data[key] for key in shared}, sort_keys=True) for data in seen}) > 1
    if others:
        notes.append("the runs learnt from different data or splits: their qualities do not compare, so they are listed and not ranked.")
    machines = {name for one in rows for name in one.hardware}
    unknown = [str(one.run.path) for one in rows if len(one.front) and not one.hardware]
    if len(machines) > 1:
        notes.append(
            f"the runs were measured on different hardware ({', '.join(sorted(machines))}): their energies are not "
            "put on one front or ranked. Run the studies on one machine to compare them."
        )
    elif unknown and machines:
        notes.append(f"the hardware of {', '.join(unknown)} is unknown: its energies are not put on one front with the others.")
    estimates = {found for one in rows for trial in one.run.trials for found in estimates_in(trial.energy.record)}
    if len(estimates) > 1:
        notes.append(
            f"the energies were estimated by different coefficients ({', '.join(sorted(estimates))}): they are not put on one front or "
            "ranked. Give the later study the --cpu-watts of the earlier one to compare them."
        )
    if len({one.run.name for one in rows}) > 1 and len(seen) < len(rows):
        notes.append("the studies have different names: their ranks mean something only if they learnt from the same data.")
    if len({one.quality for one in rows if one.quality}) > 1:
        each = "; ".join(f"{one.run.path}: {' and '.join(one.quality) or 'absent'}" for one in rows)
        notes.append(f"the energies are known in different ways ({each}).")
    notes += [f"{one.run.path}: {gaps}" for one in rows if (gaps := one.run.bill.gaps()) is not None]
    if others or len(goals) > 1 or len(machines) > 1 or len(estimates) > 1 or (unknown and machines):
        return Leaderboard(tuple(rows), tuple(notes), ())
    return _ranked(rows, notes)


def _ranked(rows: list[LeaderboardRow], notes: list[str]) -> Leaderboard:
    box = next((one.front.box for one in rows if one.front.box), ())
    first = rows[0].run
    owner: list[tuple[str, int]] = []
    pool: list[Trial] = []
    for one in rows:
        for trial in one.front:
            owner.append((str(one.run.path), trial.number))
            pool.append(replace(trial, number=len(pool)))
    joint = Front(tuple(pool), first.objectives, first.directions)
    members = tuple(owner[trial.number] for trial in joint)
    scored = [
        replace(one, hypervolume=one.front.hypervolume(box), joint=sum(path == str(one.run.path) for path, _ in members)) for one in rows
    ]
    scored.sort(key=lambda one: -(one.hypervolume or 0.0))
    return Leaderboard(tuple(scored), tuple(notes), members)


def _row(run: Run) -> LeaderboardRow:
    front = Front.of(run)
    hardware = tuple(sorted({trial.hardware_id for trial in run.trials if trial.hardware_id}))
    return LeaderboardRow(run, front, hardware, tuple(sorted({trial.energy_quality for trial in front})))


# -- one run in several places -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PriceRow:
    """A study priced for one place.

    Energy is that at the machine, without PUE; grams and money include it. They are those of the whole search, and of training once the
    model at the knee and the sensible one; None when unknown. ``front`` numbers the trials on the front of quality against grams here.
    """

    intensity: Intensity
    search_kwh: float | None
    search_grams_co2e: float | None
    search_cost: float | None
    currency: str | None
    knee_grams_co2e: float | None
    sensible_grams_co2e: float | None
    front: tuple[int, ...]


@dataclass(frozen=True)
class PriceTable:
    """A study priced for several places, in the given order, and why the rows cannot be compared directly, or None.

    ``front`` numbers the trials on the front of quality against joules; ``pue`` entered grams and money.
    """

    rows: tuple[PriceRow, ...]
    front: tuple[int, ...]
    pue: float
    note: str | None

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a place, units in the keys, None where unknown."""
        costs = ("search_kwh", "search_grams_co2e", "search_cost", "currency", "knee_grams_co2e", "sensible_grams_co2e")
        return [
            {
                "zone": row.intensity.zone,
                "region": row.intensity.region,
                "grams_co2e_per_kwh": row.intensity.grams_per_kwh,
                **{name: getattr(row.intensity, name) for name in ("kind", "scope", "year", "source", "fallback")},
                "pue": self.pue,
                **{name: getattr(row, name) for name in costs},
                "front": list(row.front),
                "same_front_as_energy": row.front == self.front,
            }
            for row in self.rows
        ]

    def to_text(self) -> str:
        """A table for people, with its assumptions."""
        money = any(row.search_cost is not None for row in self.rows)
        searches = [None if row.search_kwh is None else row.search_kwh * JOULES_PER_KWH for row in self.rows]
        energy, mass = unit_for(searches), unit_for([row.search_grams_co2e for row in self.rows], "gCO2e")
        costs = ["cost"] if money else []
        head = ["zone", "g/kWh", f"search {energy.name}", f"search {mass.name}", f"sensible {mass.name}", *costs, "year", "source"]
        cells = [head]
        for row, joules in zip(self.rows, searches, strict=True):
            cost = "-" if row.search_cost is None else f"{digits(row.search_cost)} {row.currency}"
            place = row.intensity
            cells.append(
                [
                    place.zone or "-",
                    digits(place.grams_per_kwh),
                    energy.number(joules),
                    mass.number(row.search_grams_co2e),
                    mass.number(row.sensible_grams_co2e),
                    *([cost] if money else []),
                    str(place.year or "-"),
                    place.source + (f" ({place.fallback})" if place.fallback else ""),
                ]
            )
        right = [False, *[True] * (len(head) - 2), False]
        lines = [fitted(cells, right), "", f"Grams and money include the PUE of {self.pue:g}, energy does not."]
        if all(row.front == self.front for row in self.rows):
            lines.append(f"The front is the same {len(self.front)} trials in every zone: in one place carbon is energy times a constant.")
        else:
            lines.append("The front differs in: " + ", ".join(str(r.intensity.zone) for r in self.rows if r.front != self.front) + ".")
        if any(row.intensity.grams_per_kwh == 0 for row in self.rows):
            lines.append("At 0 g/kWh every training emits the same, so that the front there is the best model alone.")
        table, *rest = [*lines, *([f"Note: {self.note}."] if self.note else [])]
        return "\n".join([table, *map(paragraphs, rest)])


def price_table(run: Run, zones: Sequence[str | Intensity], *, pue: float | None = None, price: Price | None = None) -> PriceTable:
    """Price a study for several places without training again.

    Zones are codes such as ``FR``, ``US-OR`` or ``TW``, or intensities of your own; without a price per kWh there is no money. The power
    usage effectiveness is the run's own by default.

    Raises:
        ValueError: If there is no zone or a zone is unknown; the message names similar ones.
    """
    if not zones:
        raise ValueError("--zones needs at least one zone, for example --zones FR,US,TW")
    places = [zone if isinstance(zone, Intensity) else intensity_for(zone) for zone in zones]
    front, pue = Front.of(run), run.pue if pue is None else pue
    knee, sensible = (front.knee().train_joules, front.sensible().train_joules) if len(front) else (None, None)
    search_joules = run.bill.search_joules
    paid = cost(search_joules, price, pue)
    rows = tuple(
        PriceRow(
            intensity=place,
            search_kwh=None if search_joules is None else search_joules / JOULES_PER_KWH,
            search_grams_co2e=grams_co2e(search_joules, place, pue),
            search_cost=paid,
            currency=price.currency if price is not None and paid is not None else None,
            knee_grams_co2e=grams_co2e(knee, place, pue),
            sensible_grams_co2e=grams_co2e(sensible, place, pue),
            front=tuple(trial.number for trial in front_at(front, place, pue)),
        )
        for place in places
    )
    notes = [note.rstrip(".") for note in (scope_note(places), run.bill.gaps()) if note is not None]
    return PriceTable(rows, tuple(trial.number for trial in front), pue, "; ".join(notes) or None)


#: Places that the page prices a run for, from clean to dirty grids on every inhabited continent.
PLACES = ("NO", "SE", "FR", "BR", "CA", "GB", "US", "DE", "JP", "AU", "CN", "TW", "PL", "ZA", "IN")


def places(run: Run) -> list[dict[str, Any]]:
    """Return the run's own place first, then `PLACES`: what a kWh emits there, with its source."""
    own = [] if run.intensity is None else [run.intensity]
    found = own + [one for one in map(intensity_for, PLACES) if one.zone not in [mine.zone for mine in own]]
    return [
        {"zone": one.zone, "region": one.region, "grams_per_kwh": one.grams_per_kwh, "year": one.year, "describe": one.describe()}
        for one in found
    ]


def hours(run: Run) -> list[list[Any]]:
    """Return ``[hour, joules, grams per kWh]`` of the hours in which a run with a forecast trained, as far as they are known."""
    found: dict[str, list[float]] = {}
    for session in run.facts.get("carbon") or []:
        for one in session.get("hours") or []:
            if one["joules"] and one["grams"] is not None:
                before = found.setdefault(str(one["hour"]), [0.0, 0.0])
                found[str(one["hour"])] = [before[0] + one["joules"], before[1] + one["grams"]]
    return [[hour, joules, grams / (joules / JOULES_PER_KWH * run.pue)] for hour, (joules, grams) in sorted(found.items())]


def front_at(front: Front, place: Intensity, pue: float = 1.0) -> Front:
    """Return the front of quality against grams at a place; the objectives that are energy become carbon there."""
    where = {i for i, name in enumerate(front.objectives) if name in ("train_energy", "train_co2")}
    trials = []
    for trial in front.trials:
        if front.why_not(trial) is None:
            grams = grams_co2e(trial.train_joules, place, pue) or 0.0
            values = tuple(grams if i in where else value for i, value in enumerate(trial.values))
            trials.append(replace(trial, values=values, energy=replace(trial.energy, grams_co2e=grams)))
    names = tuple("train_co2" if i in where else name for i, name in enumerate(front.objectives))
    return Front(tuple(trials), names, front.directions, front.complete_only, front.name, front.quality_floor)
