"""Stop a training that cannot reach the front any more: a safety net inside of its epochs.

A training is given every benefit of the doubt: at each rung ahead it is granted the largest improvement that any earlier training has
made from where it stands now, and it is charged the energy that its own epochs project. Only when a measured model beats it even so at
every rung ahead is it stopped. It is then measured where it stands: a point, not a hole.

Source:
    The idea of stopping on a projected point that is dominated: del Rey et al. 2023 (arXiv 2307.05520, projection of the energy) and
    Swersky et al. 2014 (arXiv 1406.3896, stopping by what learning curves allow).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records.trial import Trial

#: So many trainings must have been seen at both rungs before their improvements say what is possible.
ENOUGH = 8


@dataclass(frozen=True)
class Ahead:
    """What a training can still become.

    Attributes:
        epochs: A rung ahead.
        error: The least error that it is granted there.
        joules: Its projected energy there.
    """

    epochs: int
    error: float
    joules: float


def error_of(quality: float, *, maximize: bool) -> float:
    """Return a quality as an error that falls towards zero: 1 - accuracy, or a loss as it is."""
    return 1.0 - quality if maximize else quality


def errors_by_epoch(trial: Trial, trials: Sequence[Trial], metric: str, *, maximize: bool) -> dict[int, float]:
    """Return the validation error of a lineage at every epoch at which it was measured."""
    found: dict[int, float] = {}
    member: Trial | None = trial
    while member is not None:
        for point in member.curve:
            if point.get(metric) is not None:
                found.setdefault(int(point["epoch"]), error_of(float(point[metric]), maximize=maximize))
        if member.quality.get(metric) is not None:
            found.setdefault(member.epochs, error_of(member.quality[metric], maximize=maximize))
        member = None if member.parent is None else trials[member.parent]
    return found


def least_ratio(curves: Sequence[Mapping[int, float]], epoch: int, later: int) -> float | None:
    """Return the best improvement seen, error at ``later`` over error at ``epoch``; None before ``ENOUGH`` trainings were seen at both."""
    ratios = [curve[later] / curve[epoch] for curve in curves if epoch in curve and later in curve and curve[epoch] > 0]
    return min(ratios) if len(ratios) >= ENOUGH else None


def hopeless(ahead: Sequence[Ahead], points: Sequence[tuple[float, float]]) -> bool:
    """Whether a measured point ``(error, joules)`` is at least as good as the training at each rung ahead."""
    return bool(ahead) and all(any(error <= place.error and joules <= place.joules for error, joules in points) for place in ahead)


def stop_reason(
    error: float,
    epoch: int,
    rungs_ahead: Mapping[int, float],
    trials: Sequence[Trial],
    metric: str,
    *,
    maximize: bool,
    complete_epochs: int | None = None,
) -> str | None:
    """Say why a training should end at this rung, or None.

    Args:
        error: Its validation error now, see ``error_of``.
        epoch: The rung that it has reached.
        rungs_ahead: Projected joules at each rung ahead, up to the training's end.
        trials: All trials of the study, by number.
        metric: Name of the quality objective.
        maximize: Whether the quality is maximised.
        complete_epochs: The last rung when only complete trainings count: then only they can beat it, and only its end matters.
    """
    parents = {trial.parent for trial in trials}
    lineages = [trial for trial in trials if trial.number not in parents and "copy_of" not in trial.extra]
    curves = [errors_by_epoch(trial, trials, metric, maximize=maximize) for trial in lineages]
    ahead = []
    for later, joules in rungs_ahead.items():
        if complete_epochs is not None and later != complete_epochs:
            continue
        ratio = least_ratio(curves, epoch, later)
        if ratio is None:
            return None
        ahead.append(Ahead(later, error * ratio, joules))
    points = [
        (error_of(trial.quality[metric], maximize=maximize), trial.train_joules)
        for trial in trials
        if trial.state == "complete"
        and metric in trial.quality
        and trial.train_joules is not None
        and (complete_epochs is None or trial.epochs >= complete_epochs)
    ]
    if not hopeless(ahead, points):
        return None
    last = ahead[-1]
    said = f"{1 - last.error:.4f}" if maximize else f"{last.error:.4g}"
    return (
        f"dominated after epoch {epoch}: even with the best improvement seen so far {metric} would be {said} "
        f"at {last.epochs} epochs for {last.joules / 3600:.3g} Wh, and a measured model is at least as good for no more"
    )
