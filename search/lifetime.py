"""The front over a model's life: quality against the energy of its training and of so many predictions."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .energy.record import sum_known
from .formatting import energies, fitted, paragraphs, plain, read_number
from .front import Front
from .records.trial import Trial

#: What a spreadsheet would compute: an objective of somebody else may be called anything.
_FORMULA = re.compile(r"\A[=+@\t\r-](?=.*[(|!])", re.DOTALL)
_SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def read_predictions(text: str) -> int:
    """Read a number of predictions: ``2000``, ``10k``, ``10M``, ``1.5e6`` or ``10,000,000``.

    Raises:
        ValueError: If it is none.

    >>> read_predictions("10M"), read_predictions("1,500")
    (10000000, 1500)
    """
    found = re.fullmatch(r"\s*([\d.,_eE+]+)\s*([kKmMgGbB]?)\s*", text)
    number = None if found is None else read_number(found[1].replace("_", ""))
    count = math.nan if found is None or number is None else number * _SIZES[found[2].lower()]
    if not 0 <= count < math.inf:
        comma = "; write the decimals with a point" if re.search(r"\d,\d", text) else ""
        raise ValueError(f"--predictions must be a number of predictions, got {text!r}{comma}; for example 10k, 10M or 2000")
    return round(count)


def with_use(front: Front, predictions: int) -> Front:
    """Return the front in which the energy of a trial, and of its repeats, is that of its training and of so many predictions with it.

    Trials whose predictions were not measured, or read as 0 J, have no place on it.

    Raises:
        ValueError: If those of no trial were.
    """
    trials = tuple(_with_use(trial, predictions) for trial in front.trials)
    use = {trial.number: per_1000 * predictions / 1000 for trial in front.trials if (per_1000 := _per_1000(trial)) is not None}
    run = front.run
    if run is not None:
        trained = (replace(one, train_joules=sum_known((one.train_joules, use.get(one.trial)))) for one in run.repeats.trainings)
        run = replace(run, repeats=replace(run.repeats, trainings=tuple(trained)))
    names, directions = (front.objectives[0], "train_energy"), (front.directions[0], "minimize")
    found = replace(front, trials=trials, objectives=names, directions=directions, run=run)
    if not any(_per_1000(trial) is not None and trial.values for trial in front.trials):
        raise ValueError(
            "--predictions needs the energy of predictions, which this run did not measure (0 J is below the meter's resolution); "
            "run the study with --objectives accuracy,train_energy,inference_energy"
        )
    return found


def original(front: Front, trial: Trial) -> Trial:
    """Return the trial as it was measured, of one that ``with_use`` made."""
    return next(one for one in front.trials if one.number == trial.number)


def to_rows(front: Front, predictions: int, only: Trial | None = None) -> list[dict[str, Any]]:
    """Return the members of the front over the life of a model, or one trial, least energy first, as JSON with units in the keys."""
    used = with_use(front, predictions)
    return [_row(front, used, trial, predictions) for trial in (used.members if only is None else (original(used, only),))]


def to_csv(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> str:
    """Return rows, such as those of ``to_rows``, as CSV with a header of their keys; unknown is empty, a spreadsheet's formula a text."""
    text, names = io.StringIO(), keys or list(rows[0] if rows else ["trial"])
    cells = [names, *([row.get(name) for name in names] for row in rows)]
    shown = ([_FORMULA.sub(r"'\g<0>", one) if isinstance(one, str) else one for one in row] for row in cells)
    csv.writer(text, lineterminator="\n").writerows(shown)
    return text.getvalue()


def to_text(front: Front, predictions: int, rows: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return rows, by default those of the front, as a table with the sensible one and what it would be without use."""
    used = with_use(front, predictions)
    rows = to_rows(front, predictions) if rows is None else rows
    if not rows:
        raise ValueError("the front is empty: no trial has all energies known; run more trials")
    name, keys = front.objectives[0], ("train_joules", "inference_joules", "total_joules")
    numbers, unit = energies([row[key] for row in rows for key in keys])
    known = [(row["u_total_joules"], row["total_joules"]) for row in rows]
    spread = ["-" if u_joules is None or joules is None else f"±{plain(200 * u_joules / joules, 2)} %" for u_joules, joules in known]
    cells = [["trial", name, f"train {unit}", f"use {unit}", f"sum {unit}", "2 u", ""]]
    for k, row in enumerate(rows):
        shown = [str(row["trial"]), front.quality_text(row["value"]), *numbers[3 * k : 3 * k + 3], spread[k]]
        cells.append([*shown, "sensible" if row["sensible"] else ""])
    pick, before = used.sensible(), front.sensible() if len(front) else None
    said = f"Energy of the training and of {predictions:,} predictions, as measured. sensible: trial {pick.number}, {used.choice.why}."
    if before is not None and before.number != pick.number:
        said += f" By training alone it is trial {before.number}."
    missing = sum(1 for trial in front.members if _per_1000(trial) is None)
    if missing:
        said += f" {missing} of {len(front)} members have no measured predictions and are left out."
    return fitted(cells, [*[True] * 6, False]) + "\n\n" + paragraphs(said)


def _per_1000(trial: Trial) -> float | None:
    """Joules of 1,000 predictions; None when unknown or below the resolution of the meter: no prediction is free."""
    joules = trial.energy.inference_joules_per_1000
    return None if joules is None or joules <= 0 else joules


def _with_use(trial: Trial, predictions: int) -> Trial:
    energy, per_1000 = trial.energy, _per_1000(trial)
    if not trial.values:
        return trial
    if energy.train_joules is None or energy.train_joules <= 0 or per_1000 is None:
        return replace(trial, energy=replace(energy, train_joules=None), values=(trial.values[0], math.nan))
    total = energy.train_joules + per_1000 * predictions / 1000
    parts = energy.train_u_joules, energy.inference_u_joules_per_1000
    known = None if None in parts else math.hypot(parts[0] or 0.0, (parts[1] or 0.0) * predictions / 1000)
    return replace(trial, energy=replace(energy, train_joules=total, train_u_joules=known), values=(trial.values[0], total))


def _row(front: Front, used: Front, trial: Trial, predictions: int) -> dict[str, Any]:
    own = original(front, trial)
    per_1000 = _per_1000(own)
    return {
        "trial": own.number,
        "metric": front.objectives[0],
        "value": own.values[0],
        "predictions": predictions,
        "train_joules": own.train_joules,
        "inference_joules": None if per_1000 is None else per_1000 * predictions / 1000,
        "total_joules": trial.train_joules,
        "u_total_joules": trial.energy.train_u_joules,
        "sensible": own.number == used.choice.pick,
    }
