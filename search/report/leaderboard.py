"""A leaderboard of several runs, with notes on what may be compared and what may not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..energy import JOULES_PER_KWH, JOULES_PER_WH
from ..energy.sources.cpu_time import estimates_in
from ..formatting import fitted, paragraphs, plain, printable, unit_for
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
    apart = []  # why they are not ranked
    goals = {(one.run.objectives, one.run.directions) for one in rows}
    if len(goals) > 1:
        each = "; ".join(f"{one.run.path}: {', '.join(one.run.objectives)}" for one in rows)
        apart.append(f"the runs have different objectives ({each}), so they are listed and not ranked.")
    seen = [data for one in rows if (data := (one.run.facts.get("fingerprint") or {}).get("data"))]
    shared = set.intersection(*map(set, seen)) if seen else set()  # earlier versions noted less
    if len({json.dumps({key: data[key] for key in shared}, sort_keys=True) for data in seen}) > 1:
        apart.append("the runs learnt from different data or splits: their qualities do not compare, so they are listed and not ranked.")
    machines = {name for one in rows for name in one.hardware}
    unknown = [str(one.run.path) for one in rows if len(one.front) and not one.hardware]
    if len(machines) > 1:
        apart.append(
            f"the runs were measured on different hardware ({', '.join(sorted(machines))}): their energies are not "
            "put on one front or ranked. Run the studies on one machine to compare them."
        )
    elif unknown and machines:
        apart.append(f"the hardware of {', '.join(unknown)} is unknown: its energies are not put on one front with the others.")
    estimates = {found for one in rows for trial in one.run.trials for found in estimates_in(trial.energy.record)}
    if len(estimates) > 1:
        apart.append(
            f"the energies were estimated by different coefficients ({', '.join(sorted(estimates))}): they are not put on one front or "
            "ranked. Give the later study the --cpu-watts of the earlier one to compare them."
        )
    in_grams = [one.run for one in rows if "train_co2" in one.run.objectives and not one.run.facts.get("carbon")]
    factors = {run.grams_co2e(JOULES_PER_KWH) for run in in_grams}
    if len(factors) > 1:
        each = ", ".join(plain(one) for one in sorted(filter(None, factors)))
        apart.append(
            f"the grams are of different places ({each} g/kWh, PUE included): they are not put on one front or ranked. "
            "joulefront price gives what a search emits elsewhere."
        )
    notes = list(apart)
    if len({one.run.name for one in rows}) > 1 and len(seen) < len(rows):
        notes.append("the studies have different names: their ranks mean something only if they learnt from the same data.")
    if len({one.quality for one in rows if one.quality}) > 1:
        each = "; ".join(f"{one.run.path}: {' and '.join(one.quality) or 'absent'}" for one in rows)
        notes.append(f"the energies are known in different ways ({each}).")
    notes += [f"{one.run.path}: {gaps}" for one in rows if (gaps := one.run.bill.gaps()) is not None]
    return Leaderboard(tuple(rows), tuple(notes), ()) if apart else _ranked(rows, notes)


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
