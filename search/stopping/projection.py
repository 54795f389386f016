"""What a training will cost, told from its first epochs, and how far such projections were off.

Source:
    STEP, epoch form: del Rey et al. 2023, arXiv 2307.05520, and the authors' replication package: energy of the first epochs as it
    is, then the mean of a few stable epochs for each that remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ..energy import Record
from ..records.trial import Trial

#: The first epoch pays for caches, autotuning and compilation: it says nothing about the others. The authors leave out ten epochs
#: until a GPU's power is stable; trainings here may be as short as that.
UNSTABLE = 1
#: Number of stable epochs whose mean stands for the rest, at most.
WINDOW = 5


@dataclass(frozen=True)
class ProjectionError:
    """How well the energy of trainings was told in advance.

    Attributes:
        known: Epochs that had been trained.
        target: Epochs for which the energy was projected.
        n: Number of trainings that reached ``target``.
        median: Median of |projected - actual| / actual.
        worst: Largest of them.
        bias: Median of (projected - actual) / actual; positive when too much was projected.
    """

    known: int
    target: int
    n: int
    median: float
    worst: float
    bias: float


def project(epoch_joules: Sequence[float], target: int, *, setup_joules: float = 0.0) -> float:
    """Project the energy of a training to ``target`` epochs.

    Args:
        epoch_joules: Energy of each epoch so far, in order; at least one.
        target: Epochs to project to; up to ``len(epoch_joules)`` nothing is projected and the measured sum is returned.
        setup_joules: Energy of the start-up.

    Raises:
        ValueError: If no epoch is known.
    """
    if not epoch_joules:
        raise ValueError("epoch_joules is empty: a projection needs one epoch at least")
    if target <= len(epoch_joules):
        return setup_joules + sum(epoch_joules[:target])
    stable = list(epoch_joules[UNSTABLE:]) or list(epoch_joules)
    return setup_joules + sum(epoch_joules) + fmean(stable[-WINDOW:]) * (target - len(epoch_joules))


def with_energies(curve: Sequence[Mapping[str, float]], phases: Sequence[Record]) -> tuple[Mapping[str, float], ...]:
    """Return the entries of a curve with the ``joules`` of their epochs; epochs whose energy is unknown stay as they are."""
    epochs = [record for record in phases if record.kind == "epoch"]
    joules = {record.name.rpartition(" ")[2]: record.joules for record in epochs}
    return tuple({**point, "joules": value} if (value := joules.get(str(point["epoch"]))) is not None else dict(point) for point in curve)


def epoch_energies(trial: Trial, trials: Sequence[Trial]) -> list[float] | None:
    """Return the energy of every epoch of a trial's lineage from the first on; None when one of them is unknown."""
    chain = [trial]
    while (number := chain[0].parent) is not None:
        chain.insert(0, trials[number])
    points = {int(point["epoch"]): point.get("joules") for member in chain for point in member.curve}
    energies = [points.get(epoch) for epoch in range(1, trial.epochs + 1)]
    return None if any(value is None for value in energies) else [float(value) for value in energies if value is not None]


def projection_errors(trials: Sequence[Trial], rungs: Sequence[int]) -> tuple[ProjectionError, ...]:
    """Hold the projections that could have been made at each rung against what the higher rungs did cost.

    Args:
        trials: All trials of a run, by number. Of a lineage its longest trial counts.
        rungs: Numbers of epochs at which models were measured.
    """
    parents = {trial.parent for trial in trials}
    measured = []
    for trial in trials:
        if trial.state == "complete" and trial.number not in parents and "copy_of" not in trial.extra:
            energies = epoch_energies(trial, trials)
            if energies:
                measured.append(energies)
    found = []
    for known in rungs:
        for target in (rung for rung in rungs if rung > known):
            errors = []
            for energies in measured:
                if len(energies) >= target and (actual := sum(energies[:target])) > 0:
                    errors.append(project(energies[:known], target) / actual - 1)
            if errors:
                sizes = [abs(error) for error in errors]
                found.append(ProjectionError(known, target, len(errors), median(sizes), max(sizes), median(errors)))
    return tuple(found)
