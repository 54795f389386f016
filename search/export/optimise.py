"""What ``joulefront optimise`` does: a trained model, the tactics after training, what each saves, and when it has paid for itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ..energy import Ledger, discover
from ..formatting import digits
from ..front_text import grid
from ..records.trial import Trial
from ..study import Study
from ..training.task import Task
from .after_training import AfterTraining, Spent, compare_after_training
from .subject import ExportFailed, rebuild

#: A window of predictions runs at least this long, far above the resolution of every meter.
WINDOW_SECONDS = 0.5


def metered(ledger: Ledger) -> Callable[..., Spent]:
    """Return how to run work in a window of a ledger, as ``compare_after_training`` wants it."""

    def measure(work: Callable[[], int], *, repeat: bool) -> Spent:
        made = 0
        with ledger.window("predictions" if repeat else "optimisation", kind="inference") as window:
            end = time.monotonic() + WINDOW_SECONDS
            made += work()
            while repeat and time.monotonic() < end:
                made += work()
        record = window.close(settle=True)
        return Spent(record.joules, record.u_random_joules, made)

    return measure


def optimise(
    trial: Trial,
    *,
    study: Study,
    task: Task,
    weights: Path,
    meter: str = "auto",
    prune: Sequence[float] = (0.5,),
    compile_model: bool = True,
    rounds: int = 3,
) -> tuple[tuple[AfterTraining, ...], str]:
    """Quantise, compile and prune copies of a trial's model, and measure what each costs and saves on the validation data.

    Args:
        trial: A complete trial whose weights were kept.
        study: Its study.
        task: The data of the study.
        weights: File of the trained weights.
        meter: As for ``discover``.
        prune: Shares of the weights that global magnitude pruning sets to zero.
        compile_model: Whether to try ``torch.compile``.
        rounds: Windows of each tactic, in turns.

    Returns:
        A row for each tactic, the model as it is first, and the quality of the energies: measured, estimated, mixed or absent.

    Raises:
        ValueError: If the trial cannot be rebuilt, or a share or the rounds are out of range.
        ExportFailed: If the model is not a PyTorch module.
    """
    subject = rebuild(trial, study=study, task=task, weights=weights)
    if not subject.is_torch:
        raise ExportFailed(f"trial {trial.number} is a {subject.type_name}: quantising, compiling and pruning are for PyTorch models")
    with Ledger(discover(meter)) as ledger:
        rows = compare_after_training(
            subject.model,
            task,
            task.validation,
            recipe=subject.candidate.recipe,
            measure=metered(ledger),
            prune=prune,
            compile_model=compile_model,
            rounds=rounds,
        )
        quality = ledger.total().quality
    return rows, quality


def to_text(rows: Sequence[AfterTraining], metric: str, quality: str) -> str:
    """Return the comparison as a table with its reading."""
    header = ["tactic", metric, "J per 1,000", "± 2u", "saves", "optimising J", "pays after"]
    cells = [header]
    for row in rows:
        if row.reason is not None:
            cells.append([row.tactic, "", "", "", "", "", row.reason])
            continue
        even = row.break_even_predictions
        cells.append(
            [
                row.tactic,
                "" if row.quality is None else f"{row.quality:.4f}",
                _per_1000(row.joules_per_prediction),
                _per_1000(None if row.u_joules_per_prediction is None else 2 * row.u_joules_per_prediction),
                "nothing seen" if row.saving_joules is None and row is not rows[0] else _share(row, rows[0]),
                digits(row.optimisation_joules),
                "" if row is rows[0] else "never" if even is None else f"{even:,} predictions",
            ]
        )
    spent = f"Energies of predictions are {quality}; a saving is one that exceeds twice its uncertainty."
    return "\n".join([grid(cells, right=[False, True, True, True, True, True, False]), "", spent])


def to_json(rows: Sequence[AfterTraining], quality: str) -> str:
    """Return the rows as JSON, with ``break_even_predictions``."""
    found = [{**asdict(row), "break_even_predictions": row.break_even_predictions} for row in rows]
    return json.dumps({"energy_quality": quality, "tactics": found}, indent=1, allow_nan=False)


def _per_1000(joules: float | None) -> str:
    return digits(None if joules is None else 1000 * joules)


def _share(row: AfterTraining, plain: AfterTraining) -> str:
    if row.saving_joules is None or not plain.joules_per_prediction:
        return ""
    return f"{row.saving_joules / plain.joules_per_prediction:+.0%}".replace("+", "")
