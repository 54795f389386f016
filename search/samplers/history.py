"""The trials of a study, grouped by configuration, and how far their measurements were off from what was believed before.

Every finished trial is read once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ..records.trial import ATTRIBUTE, EXCUSED

#: User attribute: number of the trial whose checkpoint a trial resumes; the objective reads it with ``resume_from``.
RESUME_FROM = "resume_from"
#: System attribute: what a worker is about to train, written before the parameters reach the storage.
CLAIM = "joulefront:claim"
#: User attribute that the objective may set: epochs really trained, where a budget or the user ended the trial early.
EPOCHS_REACHED = "epochs_reached"
#: User attribute that the objective may set: the training ended by itself (patience, perfect quality): more epochs would not be used.
FINISHED = "finished"
#: User attribute that the objective may set: every length of this configuration is a training of its own (fixed-horizon schedule).
FROM_SCRATCH = "from_scratch"
#: A configuration counts as failed after so many kills at the same epochs: it may exhaust the memory of the machine.
MAX_KILLS = 3

#: User attribute that the objective may set: standard deviation of the measured quality, known from its validation examples.
QUALITY_SD = "quality_sd"

#: Before anything is measured the models are thought to be off like so many measurements with this mean square of their z-scores: on few
#: measurements they are too sure of themselves. Bias counts as zero on so many.
_TRUST, _FIRST_SQUARE, _UNBIASED = 6.0, 2.0, 10.0
#: The latest measurements count; a single one counts at most like so many standard deviations.
_WINDOW, _LARGEST = 40, 5.0
#: Beliefs are widened or narrowed at most so far.
_RANGE = (0.7, 4.0)

Key = Callable[[Mapping[str, Any]], Any]
#: Of all trials those that decisions may be made by.
Comparable = Callable[[Sequence[FrozenTrial]], Sequence[FrozenTrial]]
T = TypeVar("T")


@dataclass(frozen=True)
class Observation:
    """One complete trial.

    Epochs count from scratch. ``values`` are the objectives in the user's units, the quality first, the energy second; ``quality_sd`` is
    the known noise of the quality, 0 where nothing is known of it.
    """

    number: int
    key: str
    epochs: int
    values: tuple[float, ...]
    constraints: Mapping[str, float]
    quality_sd: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether no constraint is violated."""
        return not self.constraints or all(value <= 0 for value in self.constraints.values())


@dataclass(frozen=True)
class RunningTrial:
    """What a running trial is training (``X_pending`` in BoTorch's terms).

    ``params`` leave out the epochs; ``epochs`` are the total that it will have been trained for.
    """

    number: int
    key: str
    params: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class Belief:
    """What a measured quality is expected to be, its noise included: Gaussian with ``mean`` and ``sd`` after the output transform.

    The transform of a quality ``v``, to be maximised, is ``-log((limit - v) / scale)``, or ``v`` itself without a ``limit``. From ``best``
    on, the best quality so far, it goes straight on: how near the limit is was a guess, which measurements may pass. ``sign`` is -1
    where the user's quality is minimised. ``sd`` is that of the models, which ``inflation`` multiplies;
    ``bias`` is how many of these standard deviations of the models a pick is below what they expect.
    """

    mean: float
    sd: float
    limit: float | None
    scale: float
    sign: float
    inflation: float = 1.0
    bias: float = 0.0
    best: float | None = None

    def z_score(self, quality: float) -> float:
        """Return how many standard deviations a quality, in the user's unit, lies above its expectation."""
        return (self.raw_z_score(quality) - self.bias) / self.inflation

    def raw_z_score(self, quality: float) -> float:
        """Return the z-score by what the models alone believe."""
        value = self.sign * quality
        if self.limit is not None:
            best = self.limit - 1e-6 * self.scale if self.best is None else self.best
            left, beyond = self.limit - min(value, best), 0.0 if self.best is None else max(value - best, 0.0)
            value = -float(np.log(left / self.scale)) + beyond / left
        return (value - self.mean) / self.sd


@dataclass
class History:
    """Trials of a study by configuration, which is its canonical text (``key`` None: that of the parameters themselves).

    Of isomorphic configurations ``params`` are those of the first trial. Of equal measurements ``observations`` holds the first: later ones
    are copies without weights. ``finished`` are trainings that ended by themselves, ``from_scratch`` those that cannot be resumed;
    ``kills`` counts by configuration and epochs. ``arms`` tells which arm of the sampler has proposed a trial, ``surprises`` whether it was
    a fresh configuration and how many standard deviations its quality was off, by the models alone. ``distributions`` are the latest of
    each parameter, without the epochs; ``narrowed`` is whether one has changed on the way.
    """

    key: Key | None
    epochs_name: str
    energy: int = 1
    params: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    observations: dict[str, dict[int, Observation]] = field(default_factory=dict)
    requested_epochs: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    from_scratch: set[str] = field(default_factory=set)
    kills: dict[tuple[str, int], int] = field(default_factory=dict)
    arms: dict[int, str] = field(default_factory=dict)
    surprises: list[tuple[bool, float]] = field(default_factory=list)
    running: tuple[RunningTrial, ...] = ()
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    epochs_distribution: BaseDistribution | None = None
    narrowed: bool = False
    _failed_at: dict[str, int] = field(default_factory=dict)
    _read: set[int] = field(default_factory=set)

    def update(self, trials: Sequence[FrozenTrial], *, exclude: int | None = None) -> None:
        """Read the trials that have finished since the last call, and those that are running.

        ``exclude`` is the number of a trial to leave out: the one whose parameters are being decided.
        """
        running = []
        for trial in trials:
            if trial.number == exclude or trial.number in self._read:
                continue
            if trial.state.is_finished():
                self._read.add(trial.number)
                self._add(trial)
            elif trial.state == TrialState.RUNNING and (found := self.running_trial(trial)) is not None:
                running.append(found)
        self.running = tuple(running)

    def running_trial(self, trial: FrozenTrial) -> RunningTrial | None:
        """Return what an unfinished trial is training; None while that is not known."""
        claim = trial.system_attrs.get(CLAIM)
        if claim:
            return RunningTrial(trial.number, claim["key"], claim["params"], int(claim["epochs"]))
        if self.epochs_name not in trial.params:
            return None
        params = self.without_epochs(trial.params)
        return RunningTrial(trial.number, self.canonical(params), params, int(trial.params[self.epochs_name]))

    def canonical(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration."""
        return json.dumps(params if self.key is None else self.key(params), sort_keys=True, default=repr)

    def canonical_or_raw(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration that has not been trained, or that of its raw parameters where the key fails.

        In a conditional space the parameters of such a configuration are a prediction; where it is wrong the user's key may raise.
        """
        try:
            return self.canonical(params)
        except (KeyError, ValueError, TypeError, AttributeError):
            return json.dumps(params, sort_keys=True, default=repr)

    def without_epochs(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of the configuration."""
        return {name: value for name, value in params.items() if name != self.epochs_name}

    def ended(self) -> set[str]:
        """Return the configurations that are not continued: finished ones, and those that the space does not hold any more."""
        if not self.narrowed:
            return self.finished
        known = self.distributions
        outside = {
            key
            for key, params in self.params.items()
            if not all(known[name]._contains(known[name].to_internal_repr(value)) for name, value in params.items() if name in known)
        }
        return self.finished | outside

    def longest(self, key: str) -> Observation | None:
        """Return the longest measured training of a configuration."""
        points = self.observations.get(key)
        return points[max(points)] if points else None

    def resumable(self, key: str, *, resume: bool) -> bool:
        """Whether a longer training of a measured configuration resumes its checkpoint; ``resume`` is the setting of the study."""
        return resume and key not in self.from_scratch

    def trained_to(self, key: str, *, resume: bool) -> int:
        """Return the epochs above which another training of a measured configuration gives a new observation.

        A checkpoint is resumed where it ended. A training from scratch that ended before the requested epochs would end there again.
        """
        return max(self.observations[key]) if self.resumable(key, resume=resume) else self.requested_epochs[key]

    def inflation(self, *, fresh: bool) -> float:
        """Return by how much the spread of fresh configurations, or of continuations, turned out larger than the models believe.

        The factor is the root mean square of the latest z-scores, shrunk towards 1: what is chosen is what the models are too sure of,
        which no fit to the measurements shows.
        """
        recent = self._recent_surprises(fresh)
        return float(np.clip(np.sqrt((_TRUST * _FIRST_SQUARE + np.sum(recent**2)) / (_TRUST + len(recent))), *_RANGE))

    def bias(self, *, fresh: bool) -> float:
        """Return the mean z-score of fresh configurations, or of continuations, shrunk towards 0: the winner's curse of what is picked.

        It belongs to what is said of a pick; the others, which it was chosen from, have none.
        """
        recent = self._recent_surprises(fresh)
        return float(recent.sum() / (_UNBIASED + len(recent)))

    def _recent_surprises(self, fresh: bool) -> NDArray[np.float64]:
        return np.clip([z for was_fresh, z in self.surprises if was_fresh == fresh][-_WINDOW:], -_LARGEST, _LARGEST)

    def _add(self, trial: FrozenTrial) -> None:
        params = self.without_epochs(trial.params)
        for name, distribution in trial.distributions.items():
            if name == self.epochs_name:
                self.epochs_distribution = distribution
            else:
                self.narrowed |= self.distributions.get(name, distribution) != distribution
                self.distributions[name] = distribution
        if self.epochs_name not in trial.params:
            return  # it failed before it was known what it trains
        key = self.canonical(params)
        self.params.setdefault(key, params)
        valid = trial.state == TrialState.COMPLETE and trial.values is not None and all(math.isfinite(v) for v in trial.values)
        requested = int(trial.params[self.epochs_name])
        if trial.user_attrs.get(FROM_SCRATCH):
            self.from_scratch.add(key)
        if not valid:
            self._add_failure(key, requested, trial.user_attrs.get(EXCUSED))
            return
        assert trial.values is not None
        epochs = int(trial.user_attrs.get(EPOCHS_REACHED, requested))
        noted = trial.user_attrs.get(ATTRIBUTE, {}).get("extra", {}).get(QUALITY_SD)
        spread = max(0.0, float(trial.user_attrs.get(QUALITY_SD, noted) or 0.0))
        point = Observation(trial.number, key, epochs, energy_second(trial.values, self.energy), constraints_of(trial), spread)
        claim = trial.system_attrs.get(CLAIM) or {}
        if claim.get("arm"):
            self.arms[trial.number] = claim["arm"]
        if claim.get("belief") and int(claim["epochs"]) == epochs:
            z_score = Belief(*claim["belief"]).raw_z_score(float(trial.values[0]))
            # A longer training that starts from scratch resumes nothing, and is no fresh configuration either.
            self.surprises.append((trial.user_attrs.get(RESUME_FROM) is None and claim["key"] not in self.observations, z_score))
        self.observations.setdefault(key, {}).setdefault(epochs, point)
        if epochs >= self._failed_at.get(key, math.inf):  # tried again, it was trained after all
            self.failed.discard(key)
        self.requested_epochs[key] = max(self.requested_epochs.get(key, 0), requested, epochs)
        if trial.user_attrs.get(FINISHED):
            self.finished.add(key)

    def _add_failure(self, key: str, epochs: int, excuse: str | None) -> None:
        if excuse == "killed":
            self.kills[key, epochs] = self.kills.get((key, epochs), 0) + 1
        if excuse is None or self.kills.get((key, epochs), 0) >= MAX_KILLS:
            self.failed.add(key)
            self._failed_at[key] = max(epochs, self._failed_at.get(key, 0))


def energy_second(items: Sequence[T], energy: int) -> tuple[T, ...]:
    """Reorder per-objective items: the quality, the energy, then the others.

    >>> energy_second(["accuracy", "parameters", "energy"], 2)
    ('accuracy', 'energy', 'parameters')
    """
    return (items[0], items[energy], *(item for index, item in enumerate(items) if index not in (0, energy)))


def resume_from(trial: Any) -> int | None:
    """Return the number of the trial whose checkpoint this trial resumes, or None when it starts from scratch.

    Works in the objective and on finished trials; in the objective, call it after the parameters have been suggested.
    """
    number = trial.user_attrs.get(RESUME_FROM)
    return None if number is None else int(number)


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """Read a trial's constraint values, those of ``trial.set_constraint`` (Optuna 5) and of ``constraints_func``."""
    found = {str(index): float(value) for index, value in enumerate(trial.system_attrs.get("constraints") or ())}
    for name, value in trial.system_attrs.items():
        if name.startswith("constraints:"):
            found[name.removeprefix("constraints:")] = float(value)
    return found
