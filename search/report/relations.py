"""Do size and operations predict energy? Rank correlations per family and pooled, always with their n.

Source:
    Douwes and Serizel 2024 (arXiv 2409.05080) ask this of audio models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..front_text import grid
from ..rank_correlation import spearman
from ..runs import Run
from ..trial import Trial

POOLED = "all families"

#: What is held against the energy: name -> number of a trial, or None when unknown.
PREDICTORS: dict[str, Callable[[Trial], float | None]] = {
    "FLOPs of a forward pass": lambda trial: None if trial.flops is None else float(trial.flops),
    "parameters": lambda trial: None if trial.parameters is None else float(trial.parameters),
    "training seconds per epoch": lambda trial: trial.train_seconds / trial.epochs if trial.train_seconds and trial.epochs else None,
}


@dataclass(frozen=True)
class Relation:
    """Rank correlation of one predictor with the training energy of an epoch.

    Attributes:
        predictor: Name of the predictor, a key of ``PREDICTORS``.
        family: Family of the models, or ``all families``.
        n: Number of configurations; one point each, however many epochs it was trained for.
        rho: Spearman's rank correlation, or None when fewer than 3 points or no spread allow one.
        p_value: Two-sided p-value of no correlation, or None with ``rho``.
    """

    predictor: str
    family: str
    n: int
    rho: float | None
    p_value: float | None


def family_of(trial: Trial) -> str:
    """The family of a model: what its parameters call ``family``, ``model`` or ``estimator``."""
    for name in ("family", "model", "estimator"):
        for key, value in trial.params.items():
            if key == name or key.endswith((f".{name}", f"_{name}")):
                return str(value)
    return "one family"


def relations(runs: Run | Iterable[Run]) -> tuple[Relation, ...]:
    """Correlate size, operations and time with the energy of an epoch, per family and pooled.

    Energy per epoch and not per training, since otherwise the number of epochs would stand for everything. Of the trials that continue one
    another only the longest counts: they are one model.

    Args:
        runs: One run, or several of the same hardware.

    Raises:
        ValueError: If the trials come from different hardware; their energies have no common scale.
    """
    trials = [trial for run in ([runs] if isinstance(runs, Run) else runs) for trial in run.trials]
    hardware = sorted({trial.hardware_id for trial in trials if trial.hardware_id})
    if len(hardware) > 1:
        raise ValueError(f"relations need the energies of one machine, got trials of {', '.join(hardware)}; call it once per machine")
    points = _longest(trial for trial in trials if trial.state == "complete" and trial.train_joules and trial.epochs)
    families = sorted({family_of(trial) for trial in points})
    found = []
    for name, predict in PREDICTORS.items():
        for family in [*(families if len(families) > 1 else []), POOLED]:
            pairs = [
                (x, (t.train_joules or 0.0) / t.epochs)
                for t in points
                if family in (POOLED, family_of(t)) and (x := predict(t)) is not None
            ]
            found.append(Relation(name, family, len(pairs), *spearman(pairs)))
    return tuple(found)


def to_text(found: Iterable[Relation]) -> str:
    """Set the relations as a table."""
    cells = [["against energy of an epoch", "family", "n", "Spearman", "p"]]
    for one in found:
        rho = "-" if one.rho is None else f"{one.rho:+.2f}"
        cells.append([one.predictor, one.family, str(one.n), rho, p_text(one.p_value)])
    return grid(cells, [False, False, True, True, True])


def p_text(p_value: float | None) -> str:
    """A p-value for people; very small ones are only said to be small."""
    return "-" if p_value is None else f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"


def _longest(trials: Iterable[Trial]) -> list[Trial]:
    """Keep the trial with the most epochs of each configuration."""
    best: dict[str, Trial] = {}
    for trial in trials:
        key = json.dumps([dict(trial.params), trial.hardware_id], sort_keys=True, default=str)
        if key not in best or trial.epochs > best[key].epochs:
            best[key] = trial
    return list(best.values())
