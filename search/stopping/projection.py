"""Projections: what a training and its study will have taken at their end, and whether the training can still reach the front.

A training ends where a measured model dominates it at every rung ahead. The projection favours it: at each of them it assumes the
largest improvement that any earlier training has made from the present rung, for the energy that its own epochs project. A training that
is stopped is measured as it is and stays a point.

Source:
    STEP, epoch form: del Rey et al. 2023, arXiv 2307.05520, and the authors' replication package: the first epochs are counted as
    measured, each remaining epoch as the mean of a few stable ones. The idea of stopping on a projected point that is dominated: the same,
    and Swersky et al. 2014 (arXiv 1406.3896, stopping by what learning curves allow).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from ..energy import Record
from ..energy.record import sum_known
from ..formatting import energies, joules_text, plain
from ..records.trial import Trial, by_number
from ..study import Study

if TYPE_CHECKING:
    from .rules import Limits

#: The first epoch pays for caches, autotuning and compilation: it is not typical of the others. The authors leave out ten epochs
#: until a GPU's power is stable; trainings here may be as short as that.
UNSTABLE = 1
#: Number of stable epochs whose mean stands for the rest, at most.
WINDOW = 5
#: Trainings that must have been measured at both rungs before their best improvement counts as what is possible.
ENOUGH = 8
#: The next trials are priced by the latest: a search moves from many short trainings to fewer long ones.
RECENT = 30
#: Fewer trials than this do not give a spread.
LEAST = 5
#: A search changes what it trains and decides: the mean cost of the trials to come differs from that of those so far by so much
#: (standard deviation as a share; 0.24 over four studies of 40 trials, forecast after each of their trials).
DRIFT = 0.25
#: 95 % quantile of the standard normal: the interval holds 90 %.
Z = 1.6449


def project(epoch_joules: Sequence[float], target: int, *, setup_joules: float = 0.0) -> float:
    """Project the energy of a training to ``target`` epochs.

    Up to the number of epochs that are known nothing is projected: their measured sum is returned.

    Raises:
        ValueError: If no epoch is known.
    """
    if not epoch_joules:
        raise ValueError("epoch_joules is empty: a projection needs one epoch at least")
    if target <= len(epoch_joules):
        return setup_joules + sum(epoch_joules[:target])
    stable = list(epoch_joules[UNSTABLE:]) or list(epoch_joules)
    return setup_joules + sum(epoch_joules) + fmean(stable[-WINDOW:]) * (target - len(epoch_joules))


def epoch_energies(trial: Trial, trials: Sequence[Trial]) -> list[float] | None:
    """Return the energy of every epoch of a trial's lineage from the first on; None when one of them is unknown."""
    chain = [trial]
    while (number := chain[0].parent) is not None:
        if (parent := by_number(trials, number)) is None:
            return None
        chain.insert(0, parent)
    points = {int(point["epoch"] or 0): point.get("joules") for member in chain for point in member.curve}
    if trial.epochs > len(points):
        return None
    joules = [points.get(epoch) for epoch in range(1, trial.epochs + 1)]
    return None if any(value is None for value in joules) else [float(value) for value in joules if value is not None]


@dataclass(frozen=True)
class ProjectionError:
    """How accurately the energy of trainings was projected from the ``known`` epochs that had been trained to ``target`` epochs.

    Attributes:
        n: Number of trainings that reached ``target``.
        median: Median of |projected - actual| / actual; ``worst`` is the largest of them.
        bias: Median of (projected - actual) / actual; positive when too much was projected.
    """

    known: int
    target: int
    n: int
    median: float
    worst: float
    bias: float


def projection_errors(trials: Sequence[Trial], rungs: Sequence[int]) -> tuple[ProjectionError, ...]:
    """Compare the projections that could have been made at each rung with what the higher rungs cost.

    The trials are those of a run, by number; of a lineage its longest trial counts.
    """
    parents = {trial.parent for trial in trials}
    measured = []
    for trial in trials:
        if trial.state == "complete" and trial.number not in parents and "copy_of" not in trial.extra:
            joules = epoch_energies(trial, trials)
            if joules:
                measured.append(joules)
    found = []
    for known in rungs:
        for target in (rung for rung in rungs if rung > known):
            errors = []
            for joules in measured:
                if len(joules) >= target and (actual := sum(joules[:target])) > 0:
                    errors.append(project(joules[:known], target) / actual - 1)
            if errors:
                sizes = [abs(error) for error in errors]
                found.append(ProjectionError(known, target, len(errors), median(sizes), max(sizes), median(errors)))
    return tuple(found)


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


@dataclass(frozen=True)
class Expected:
    """What a running study is expected to have cost at its end, in trials and joules; intervals hold 90 %.

    ``done`` are the trials that had finished by then.
    """

    trials: float
    low_trials: float
    high_trials: float
    joules: float
    low_joules: float
    high_joules: float
    done: int

    def to_text(self) -> str:
        """Describe in a few words what the limit does not fix."""
        if self.low_joules < self.high_joules:
            (all_of_it, low, high), unit = energies((self.joules, self.low_joules, self.high_joules))
            return f"about {all_of_it} {unit} in all ({low} to {high})"
        return f"about {self.trials:.0f} trials in all ({self.low_trials:.0f} to {self.high_trials:.0f})"


def expected(
    increments: Sequence[float], spent_joules: float | None, limits: Limits, *, begun_joules: float = 0.0, before: int = 0
) -> Expected | None:
    """Extrapolate a study to the first of its limits in trials and energy.

    The sum of ``m`` trainings to come has the mean ``m * mean`` and the variance ``m * s^2 + m^2 * s^2 / n + (DRIFT * m * mean)^2``:
    their own spread, that of the mean that is known from ``n`` trainings only, and that the search moves on.

    The increments are what each finished trial has cost the search, in order, in joules. When the first trial of this session began,
    ``before`` trials had finished and the whole search had spent ``begun_joules``: earlier sessions, and a start that is paid once.

    None without a limit, without energy, before ``LEAST`` trials, and before the first trial of a session.
    """
    done = len(increments)
    recent = list(increments)[-RECENT:]
    if spent_joules is None or len(recent) < LEAST or done <= before:
        return None
    # What no trial pays for (deciding, storing) costs as much per trial as so far in this session.
    rest = max(0.0, spent_joules - begun_joules - sum(increments[before:])) / (done - before)
    mean, spread, n = fmean(recent) + rest, stdev(recent), len(recent)
    if not mean > 0:
        return None

    def doubt(count: float) -> float:
        return Z * math.hypot(spread * math.sqrt(max(count, 1.0) + count**2 / n), DRIFT * count * mean)

    left_trials = None if limits.trials is None else max(0, limits.trials - done)
    left_joules = None if limits.joules is None else max(0.0, limits.joules - spent_joules)
    if left_joules is not None and (left_trials is None or left_joules < left_trials * mean):
        count = left_joules / mean
        many = doubt(count) / mean
        most = spent_joules + left_joules
        return Expected(done + count, done + max(0.0, count - many), done + count + many, most, most, most, done)
    if left_trials is None:
        return None
    total = spent_joules + left_trials * mean
    wide = doubt(left_trials) if left_trials else 0.0
    low, high = max(spent_joules, total - wide), total + wide
    if limits.joules is not None:
        high = min(high, max(limits.joules, total))
    all_trials = float(done + left_trials)
    return Expected(all_trials, all_trials, all_trials, total, low, high, done)
