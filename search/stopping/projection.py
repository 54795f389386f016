"""What a training and a study are likely to take: energy from the first epochs, from the trials so far, and how accurate that was.

Source:
    STEP, epoch form: del Rey et al. 2023, arXiv 2307.05520, and the authors' replication package: the first epochs are counted as
    measured, each remaining epoch as the mean of a few stable ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import hypot, sqrt
from statistics import fmean, median, stdev
from typing import Any

from ..energy import Record
from ..formatting import energies
from ..records.trial import Trial, by_number
from .limits import Limits

#: The next trials are priced by the latest: a search moves from many short trainings to fewer long ones.
RECENT = 30
#: Fewer trials than this do not give a spread.
LEAST = 5
#: A search changes what it trains and decides: the mean cost of the trials to come differs from that of those so far by so much
#: (standard deviation as a share; 0.24 over four studies of 40 trials, forecast after each of their trials).
DRIFT = 0.25
#: 95 % quantile of the standard normal: the interval holds 90 %.
Z = 1.6449
#: The first epoch pays for caches, autotuning and compilation: it is not typical of the others. The authors leave out ten epochs
#: until a GPU's power is stable; trainings here may be as short as that.
UNSTABLE = 1
#: Number of stable epochs whose mean stands for the rest, at most.
WINDOW = 5


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

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, units in the keys."""
        return asdict(self)

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
        return Z * hypot(spread * sqrt(max(count, 1.0) + count**2 / n), DRIFT * count * mean)

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


def with_energies(curve: Sequence[Mapping[str, float]], phases: Sequence[Record]) -> tuple[Mapping[str, float], ...]:
    """Return the entries of a curve with the ``joules`` of their epochs; epochs whose energy is unknown stay as they are."""
    epochs = [record for record in phases if record.kind == "epoch"]
    joules = {record.name.rpartition(" ")[2]: record.joules for record in epochs}
    return tuple({**point, "joules": value} if (value := joules.get(str(point["epoch"]))) is not None else dict(point) for point in curve)


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
    energies = [points.get(epoch) for epoch in range(1, trial.epochs + 1)]
    return None if any(value is None for value in energies) else [float(value) for value in energies if value is not None]


def projection_errors(trials: Sequence[Trial], rungs: Sequence[int]) -> tuple[ProjectionError, ...]:
    """Compare the projections that could have been made at each rung with what the higher rungs cost.

    The trials are those of a run, by number; of a lineage its longest trial counts.
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
