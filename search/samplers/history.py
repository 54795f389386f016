"""What a study has measured so far, read once per trial and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ..records.trial import EXCUSED

#: Number of the trial whose checkpoint a trial continues: a user attribute, which the objective may read with ``resume_from``.
RESUME_FROM = "resume_from"
#: What a worker is about to train: a system attribute, written before the parameters reach the storage.
CLAIM = "joulefront:claim"
#: Epochs that a trial really had, where a budget or the user ended it early: a user attribute, which the objective may set.
EPOCHS_REACHED = "epochs_reached"
#: The training ended by itself (patience): asked for more epochs it would bring none. A user attribute, which the objective may set.
FINISHED = "finished"
#: Every length of this configuration is a training of its own (its schedule has a fixed horizon). A user attribute, likewise.
FROM_SCRATCH = "from_scratch"
#: A configuration whose training to the same epochs was killed so often is to blame for it: it may take the memory of the machine.
MOST_KILLS = 3

Key = Callable[[Mapping[str, Any]], Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """One trial that has values.

    Attributes:
        number: Number of the trial.
        key: Canonical text of its configuration.
        epochs: Epochs from scratch.
        values: Objective values as the user returned them, the quality first, the energy second.
        constraints: Constraint values by name; feasible when none is positive.
    """

    number: int
    key: str
    epochs: int
    values: tuple[float, ...]
    constraints: Mapping[str, float]

    @property
    def feasible(self) -> bool:
        """Whether no constraint is violated."""
        return all(value <= 0 for value in self.constraints.values())


@dataclass(frozen=True)
class Claim:
    """What a running trial trains.

    Attributes:
        number: Number of the trial.
        key: Canonical text of the configuration.
        params: Its parameters, without the epochs.
        epochs: Epochs that it will have had.
    """

    number: int
    key: str
    params: Mapping[str, Any]
    epochs: int


@dataclass
class History:
    """Trials of a study by configuration.

    Args:
        key: Canonical form of parameters; None compares the parameters themselves.
        epochs_name: Name of the parameter that holds the epochs.
        energy: Index of the objective that is the energy.

    Attributes:
        params: Parameters by configuration; of isomorphic ones those that came first.
        points: Measured points by configuration and epochs; of equal ones that which came first: later ones are copies without weights.
        asked: The most epochs that were asked for, by measured configuration.
        failed: Configurations that must not be proposed again.
        finished: Configurations whose training has ended by itself.
        scratch: Configurations of which every length is a training of its own.
        kills: How often a training was killed, by configuration and epochs.
        running: What other workers train now.
        distributions: The latest distribution of each parameter, epochs left out.
        epochs_distribution: That of the epochs.
    """

    key: Key | None
    epochs_name: str
    energy: int = 1
    params: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    points: dict[str, dict[int, Point]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    scratch: set[str] = field(default_factory=set)
    kills: dict[tuple[str, int], int] = field(default_factory=dict)
    running: tuple[Claim, ...] = ()
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    epochs_distribution: BaseDistribution | None = None
    _read: set[int] = field(default_factory=set)

    def update(self, trials: Sequence[FrozenTrial], *, but: int | None = None) -> None:
        """Read trials that have finished since, and which run now.

        Args:
            trials: All trials of the study; they are not changed.
            but: Number of a trial to leave out: the one that is being decided.
        """
        running = []
        for trial in trials:
            if trial.number == but or trial.number in self._read:
                continue
            if trial.state.is_finished():
                self._read.add(trial.number)
                self._take(trial)
            elif trial.state == TrialState.RUNNING and (claim := self.claim(trial)) is not None:
                running.append(claim)
        self.running = tuple(running)

    def claim(self, trial: FrozenTrial) -> Claim | None:
        """Read what an unfinished trial trains; None while that is not known."""
        said = trial.system_attrs.get(CLAIM)
        if said:
            return Claim(trial.number, said["key"], said["params"], int(said["epochs"]))
        if self.epochs_name not in trial.params:
            return None
        params = self.without_epochs(trial.params)
        return Claim(trial.number, self.text(params), params, int(trial.params[self.epochs_name]))

    def text(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration."""
        return json.dumps(params if self.key is None else self.key(params), sort_keys=True, default=repr)

    def proposed(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration that has not been trained.

        Which parameters it has is only guessed in a conditional space; where the guess is wrong the user's key may fail, and the parameters
        themselves take its place until the trial has said what it is.
        """
        try:
            return self.text(params)
        except (KeyError, ValueError, TypeError, AttributeError):
            return json.dumps(params, sort_keys=True, default=repr)

    def without_epochs(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of the configuration alone."""
        return {name: value for name, value in params.items() if name != self.epochs_name}

    def longest(self, key: str) -> Point | None:
        """Return the longest measured training of a configuration."""
        points = self.points.get(key)
        return points[max(points)] if points else None

    def goes_on(self, key: str, *, resume: bool) -> bool:
        """Whether a longer training of a measured configuration continues its checkpoint; ``resume`` says it of the study."""
        return resume and key not in self.scratch

    def trained_to(self, key: str, *, resume: bool) -> int:
        """Return the epochs above which a training of a measured configuration brings something new.

        A checkpoint goes on from where it ended. A training from scratch that ended before the epochs that were asked for would end there
        again.
        """
        return max(self.points[key]) if self.goes_on(key, resume=resume) else self.asked[key]

    def _take(self, trial: FrozenTrial) -> None:
        params = self.without_epochs(trial.params)
        for name, distribution in trial.distributions.items():
            if name == self.epochs_name:
                self.epochs_distribution = distribution
            else:
                self.distributions[name] = distribution
        if self.epochs_name not in trial.params:
            return  # it died before it said what it was
        key = self.text(params)
        self.params.setdefault(key, params)
        good = trial.state == TrialState.COMPLETE and trial.values is not None and all(math.isfinite(v) for v in trial.values)
        asked = int(trial.params[self.epochs_name])
        if trial.user_attrs.get(FROM_SCRATCH):
            self.scratch.add(key)
        if not good:
            self._failed(key, asked, trial.user_attrs.get(EXCUSED))
            return
        assert trial.values is not None
        epochs = int(trial.user_attrs.get(EPOCHS_REACHED, asked))
        point = Point(trial.number, key, epochs, energy_second(trial.values, self.energy), constraints_of(trial))
        self.points.setdefault(key, {}).setdefault(epochs, point)
        self.asked[key] = max(self.asked.get(key, 0), asked, epochs)
        if trial.user_attrs.get(FINISHED):
            self.finished.add(key)

    def _failed(self, key: str, epochs: int, excuse: str | None) -> None:
        """Blame the configuration unless something else ended the trial."""
        if excuse == "killed":
            self.kills[key, epochs] = self.kills.get((key, epochs), 0) + 1
        if excuse is None or self.kills.get((key, epochs), 0) >= MOST_KILLS:
            self.failed.add(key)


def energy_second(items: Sequence[T], energy: int) -> tuple[T, ...]:
    """Order what belongs to the objectives: the quality, the energy, then the others.

    >>> energy_second(["accuracy", "parameters", "energy"], 2)
    ('accuracy', 'energy', 'parameters')
    """
    return (items[0], items[energy], *(item for index, item in enumerate(items) if index not in (0, energy)))


def resume_from(trial: Any) -> int | None:
    """Return the number of the trial whose checkpoint this trial continues, or None when it starts from scratch.

    Works in the objective and on finished trials. Call it after the parameters were suggested.

    Args:
        trial: An Optuna trial, running or frozen.
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
