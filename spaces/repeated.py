"""The same candidates several times with other initial weights and another order of the examples, to measure chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..search.hints import Hints, Wrapper
from ..search.space import Candidate, Suggest

#: The parameter that numbers the repeats.
REPEAT = "repeat"


@dataclass(frozen=True)
class Repeated(Wrapper):
    """Adds the parameter ``repeat``, which changes nothing but the seed of a training.

    With ``sampler="grid"`` each candidate is trained ``times`` times. To a sampler that learns, it is a parameter without effect.
    """

    times: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError if ``times`` is less than 1."""
        if self.times < 1:
            raise ValueError(f"repeated.times must be >= 1, got {self.times}; 1 trains every candidate once")

    def inner(self, candidate: Candidate) -> Candidate:
        """Return the candidate without its number."""
        return replace(candidate, architecture={name: value for name, value in candidate.architecture.items() if name != REPEAT})

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate and the number of its repeat."""
        candidate = self.space.sample(trial)
        return replace(candidate, architecture={**candidate.architecture, REPEAT: trial.suggest_int(REPEAT, 1, self.times)})

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary choice of the space that is repeated, the first time; empty where it has none."""
        return _first(Hints(self.space).defaults())

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choices of its families, the first time."""
        return tuple(map(_first, Hints(self.space).starts()))

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what goes on from the candidate inside, the first time."""
        return _first(Hints(self.space).going_on(_unnumbered(params)) or {}) or None

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return the next step of the candidate inside, the first time."""
        return _first(Hints(self.space).further(_unnumbered(params), larger) or {}) or None

    def key(self, candidate: Candidate) -> str:
        """Return canonical text; repeats differ in it, and so in the seed that is made of it."""
        return json.dumps({"candidate": super().key(candidate), REPEAT: candidate.architecture[REPEAT]}, sort_keys=True)


def _unnumbered(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in params.items() if name != REPEAT}


def _first(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**wanted, REPEAT: 1} if wanted else {}
