"""The same candidates several times with other initial weights and another order of the examples, to measure chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..search.space import Candidate, Space, Suggest, check_models
from ..search.training.task import Task

#: The parameter that numbers the repeats.
REPEAT = "repeat"


@dataclass(frozen=True)
class Repeated(Space):
    """Adds the parameter ``repeat``, which changes nothing but the seed of a training.

    With ``sampler="grid"`` each candidate is trained ``times`` times. To a sampler that learns, it is a parameter without effect.
    """

    space: Space
    times: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError if ``times`` is less than 1."""
        if self.times < 1:
            raise ValueError(f"repeated.times must be >= 1, got {self.times}; 1 trains every candidate once")

    @property
    def name(self) -> str:
        """Name of the space that is repeated."""
        return self.space.name

    @property
    def epochs_are_passes(self) -> bool:
        """Whether an epoch is a pass over the data, as in the space that is repeated."""
        return bool(getattr(self.space, "epochs_are_passes", True))

    def check(self, task: Task) -> None:
        """Check the models of the space that is repeated, see `check_models`."""
        check_models(self.space, task)

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate and the number of its repeat."""
        candidate = self.space.sample(trial)
        return replace(candidate, architecture={**candidate.architecture, REPEAT: trial.suggest_int(REPEAT, 1, self.times)})

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary choice of the space that is repeated; empty where it has none."""
        found: Mapping[str, Any] = getattr(self.space, "defaults", dict)()
        return {**found, REPEAT: 1} if found else {}

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.space.build(_plain(candidate), task)

    def key(self, candidate: Candidate) -> str:
        """Return canonical text; repeats differ in it, and so in the seed that is made of it."""
        return json.dumps({"candidate": self.space.key(_plain(candidate)), REPEAT: candidate.architecture[REPEAT]}, sort_keys=True)


def _plain(candidate: Candidate) -> Candidate:
    return replace(candidate, architecture={name: value for name, value in candidate.architecture.items() if name != REPEAT})
