"""Stop a training that cannot reach the front any more: at every rung ahead a measured model dominates its optimistic projection.

The projection favours the training: at each rung ahead it assumes the largest improvement that any earlier training has made from the
present rung, for the energy that the training's own epochs project. A training that is stopped is measured as it is and stays a point.

Source:
    The idea of stopping on a projected point that is dominated: del Rey et al. 2023 (arXiv 2307.05520, projection of the energy) and
    Swersky et al. 2014 (arXiv 1406.3896, stopping by what learning curves allow).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..energy import Record
from ..energy.record import sum_known
from ..formatting import joules_text, plain
from ..records.trial import Trial, by_number
from ..study import Study
from .projection import epoch_energies, project

#: Trainings that must have been measured at both rungs before their best improvement counts as what is possible.
ENOUGH = 8


@dataclass(frozen=True)
class Ahead:
    """What a training can still become at a rung ahead: its projected error there, with the best improvement seen, and its energy."""

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
            if (value := point.get(metric)) is not None:
                found.setdefault(int(point["epoch"] or 0), error_of(float(value), maximize=maximize))
        if member.quality.get(metric) is not None:
            found.setdefault(member.epochs, error_of(member.quality[metric], maximize=maximize))
        member = None if member.parent is None else by_number(trials, member.parent)
    return found


def least_ratio(curves: Sequence[Mapping[int, float]], epoch: int, later: int) -> float | None:
    """Return the best improvement seen, error at ``later`` over error at ``epoch``; None before ``ENOUGH`` trainings were seen at both."""
    ratios = [curve[later] / curve[epoch] for curve in curves if epoch in curve and later in curve and curve[epoch] > 0]
    return min(ratios) if len(ratios) >= ENOUGH else None


def dominated(ahead: Sequence[Ahead], points: Sequence[tuple[float, float]]) -> bool:
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
    """Return why a training should end at this rung (``epoch``), or None.

    Its error now is that of ``error_of``; the joules at each rung ahead are projected, up to the training's end. With `complete_epochs`,
    the last rung when only complete trainings count, only they can beat it, and only its end matters.
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
    if not dominated(ahead, points):
        return None
    last = ahead[-1]
    projected = f"{1 - last.error:.4f}" if maximize else plain(last.error, 4)
    return (
        f"dominated after epoch {epoch}: even with the best improvement seen so far {metric} would be {projected} "
        f"at {last.epochs} epochs for {joules_text(last.joules)}, and a measured model is at least as good for no more"
    )


@dataclass(frozen=True)
class DominanceStopper:
    """Checks one training at its rungs.

    Attributes:
        trials: Gives all trials of the study, by number.
        epochs: Epochs that the training is to reach.
        parent: The trial that it continues, or None.
        phases: Gives the records of its windows that have ended by now.
    """

    study: Study
    trials: Callable[[], Sequence[Trial]]
    epochs: int
    parent: Trial | None
    phases: Callable[[], Sequence[Record]]

    def reason(self, entry: Mapping[str, float]) -> str | None:
        """Return why the training should end after this epoch, or None; without a quality in the epoch's entry nothing is checked."""
        metric, epoch = self.study.objectives[0], int(entry["epoch"])
        value = entry.get(metric)
        # A training that ends between two rungs is credited with the upper one's quality, for the energy of its own end.
        end = next((rung for rung in self.study.rungs if rung >= self.epochs), self.epochs)
        rungs = [rung for rung in self.study.rungs if epoch < rung <= end]
        if value is None or epoch not in self.study.rungs or not rungs:
            return None
        trials = self.trials()
        setup, epochs = self._energies(trials)
        if epochs is None:
            return None
        maximize = self.study.directions[0] == "maximize"
        return stop_reason(
            error_of(float(value), maximize=maximize),
            epoch,
            {rung: project(epochs, min(rung, self.epochs), setup_joules=setup) for rung in rungs},
            trials,
            metric,
            maximize=maximize,
            complete_epochs=self.study.rungs[-1] if self.study.complete_only else None,
        )

    def _energies(self, trials: Sequence[Trial]) -> tuple[float, list[float] | None]:
        """Return the energy of the start-up and of every epoch of the lineage so far; None when one is unknown."""
        phases = self.phases()
        own = [record.joules for record in phases if record.kind == "epoch"]
        start = sum_known(record.joules for record in phases if record.kind in ("setup", "compile"))
        setup = start if self.parent is None else 0.0
        before = [] if self.parent is None else epoch_energies(self.parent, trials)
        if setup is None or before is None or not own or any(joules is None for joules in own):
            return 0.0, None
        return setup, before + [joules for joules in own if joules is not None]
