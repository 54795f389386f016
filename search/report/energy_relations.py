"""Do size, operations and utilisation predict energy? Rank correlations and energy per operation, per family and pooled.

Source:
    Douwes and Serizel 2024 (arXiv 2409.05080), who ask it for audio models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log
from statistics import linear_regression, median

from ..energy.intervals import spearman
from ..formatting import grid
from ..records.run_folder import Run
from ..records.trial import Trial

POOLED = "all families"

#: Candidate predictors of the energy: name -> value for a trial, or None when unknown.
PREDICTORS: dict[str, Callable[[Trial], float | None]] = {
    "FLOPs of a forward pass": lambda trial: None if trial.flops is None else float(trial.flops),
    "parameters": lambda trial: None if trial.parameters is None else float(trial.parameters),
    "training seconds per epoch": lambda trial: (
        trial.energy.train_seconds / trial.epochs if trial.energy.train_seconds and trial.epochs else None
    ),
    "CPU utilisation": lambda trial: cpu_utilisation(trial),
    "GPU utilisation": lambda trial: trial.energy.gpu_utilisation,
}

#: Operations of a training step over those of its forward pass: the backward pass computes two gradients of the same size.
#: Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1; nominal, tactics that leave out work do less.
TRAINING_OVER_FORWARD = 3


@dataclass(frozen=True)
class Relation:
    """Rank correlation of one predictor with the training energy of an epoch.

    Of ``n`` configurations each is one point, however many epochs it was trained for. ``rho`` is Spearman's rank correlation and
    ``p_value`` the two-sided p-value of none; None with fewer than 3 points or no spread.
    """

    predictor: str
    family: str
    n: int
    rho: float | None
    p_value: float | None


@dataclass(frozen=True)
class OperationCost:
    """Median, smallest and largest energy of 10^9 floating-point operations of training in one family.

    ``exponent`` is b of energy ~ FLOPs^b by least squares of the logarithms; None with fewer than 3 points or no spread. A value below 1
    means a part of the energy does not grow with the operations (launching, memory, data).
    """

    family: str
    n: int
    joules_per_gflop: float
    low: float
    high: float
    exponent: float | None


def cpu_utilisation(trial: Trial) -> float | None:
    """CPU-seconds of the training for each second of it and each of its threads; above 1 when other threads worked as well."""
    threads = trial.extra.get("threads")
    if trial.energy.cpu_seconds is None or not trial.energy.train_seconds or not threads:
        return None
    return trial.energy.cpu_seconds / (trial.energy.train_seconds * float(threads))


def training_flops(trial: Trial) -> float | None:
    """Floating-point operations of an epoch of training: three forward passes an example; None when unknown."""
    examples = trial.extra.get("train_examples")
    return None if trial.flops is None or not examples else TRAINING_OVER_FORWARD * float(trial.flops) * float(examples)


def family_of(trial: Trial) -> str:
    """The family of a model: what its parameters call ``family``, ``model`` or ``estimator``."""
    for name in ("family", "model", "estimator"):
        for key, value in trial.params.items():
            if key == name or key.endswith((f".{name}", f"_{name}")):
                return str(value)
    return "one family"


def relations(runs: Run | Iterable[Run]) -> tuple[Relation, ...]:
    """Correlate size, operations and time with the energy of an epoch, per family and pooled; runs must be of the same hardware.

    The energy is that of an epoch, since in that of a whole training the number of epochs would hide everything else. Of the trials that
    continue one another only the longest counts: they are one model.

    Raises:
        ValueError: If the trials come from different hardware; their energies have no common scale.
    """
    points = points_of(runs)
    families = sorted({family_of(trial) for trial in points})
    found = []
    for name, predict in PREDICTORS.items():
        for family in [*(families if len(families) > 1 else []), POOLED]:
            pairs = [(x, epoch_joules(t)) for t in points if family in (POOLED, family_of(t)) and (x := predict(t)) is not None]
            found.append(Relation(name, family, len(pairs), *spearman(pairs)))
    known = {one.predictor for one in found if one.n}
    return tuple(one for one in found if one.predictor in known)


def operation_costs(runs: Run | Iterable[Run]) -> tuple[OperationCost, ...]:
    """Energy of 10^9 operations of training, per family and pooled; empty where the operations are unknown.

    Raises:
        ValueError: As ``relations``.
    """
    pairs = [(family_of(trial), flops, epoch_joules(trial)) for trial in points_of(runs) if (flops := training_flops(trial))]
    families = sorted({family for family, _, _ in pairs})
    found = []
    for family in [*(families if len(families) > 1 else []), *([POOLED] if pairs else [])]:
        own = [(flops, joules) for name, flops, joules in pairs if family in (POOLED, name)]
        each = [joules / flops * 1e9 for flops, joules in own]
        found.append(OperationCost(family, len(own), median(each), min(each), max(each), _exponent(own)))
    return tuple(found)


def points_of(runs: Run | Iterable[Run]) -> list[Trial]:
    """The measured configurations, each at its longest training.

    Raises:
        ValueError: If the trials come from different hardware.
    """
    trials = [trial for run in ([runs] if isinstance(runs, Run) else runs) for trial in run.trials]
    hardware = sorted({trial.hardware_id for trial in trials if trial.hardware_id})
    if len(hardware) > 1:
        raise ValueError(f"relations need the energies of one machine, got trials of {', '.join(hardware)}; call it once per machine")
    return _longest(trial for trial in trials if trial.state == "complete" and trial.train_joules and trial.epochs)


def epoch_joules(trial: Trial) -> float:
    """Training energy of an epoch."""
    return (trial.train_joules or 0.0) / trial.epochs


def by_construction(runs: Run | Iterable[Run]) -> str | None:
    """Return a warning when the energy was computed from the seconds themselves, so that their correlation proves nothing; else None."""
    sources = {part.source for trial in points_of(runs) for part in trial.components.values() if part.joules is not None}
    if sources != {"cpu_time"}:
        return None
    return "The energy of this run is estimated from CPU-seconds, so time predicts it by construction; that is not a finding."


def _exponent(pairs: list[tuple[float, float]]) -> float | None:
    x, y = [log(flops) for flops, _ in pairs], [log(joules) for _, joules in pairs]
    return linear_regression(x, y).slope if len(pairs) > 2 and len(set(x)) > 1 else None


def to_text(found: Iterable[Relation]) -> str:
    """Render the relations as a table."""
    cells = [["against energy of an epoch", "family", "n", "Spearman", "p"]]
    for one in found:
        rho = "-" if one.rho is None else f"{one.rho:+.2f}"
        cells.append([one.predictor, one.family, str(one.n), rho, p_text(one.p_value)])
    return grid(cells, [False, False, True, True, True])


def operation_costs_to_text(found: Iterable[OperationCost]) -> str:
    """Render the energies of operations as a table."""
    cells = [["energy of operations", "n", "J per GFLOP, median", "lowest", "highest", "energy ~ FLOPs^b"]]
    for one in found:
        exponent = "-" if one.exponent is None else f"b = {one.exponent:.2f}"
        cells.append([one.family, str(one.n), f"{one.joules_per_gflop:.3g}", f"{one.low:.3g}", f"{one.high:.3g}", exponent])
    return grid(cells, [False, True, True, True, True, True])


def p_text(p_value: float | None) -> str:
    """A p-value for people; below 0.0001 only that."""
    return "-" if p_value is None else f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"


def _longest(trials: Iterable[Trial]) -> list[Trial]:
    best: dict[str, Trial] = {}
    for trial in trials:
        key = json.dumps([dict(trial.params), trial.hardware_id], sort_keys=True, default=str)
        if key not in best or trial.epochs > best[key].epochs:
            best[key] = trial
    return list(best.values())
