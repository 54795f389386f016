"""Your own models in two functions: one draws an architecture, one builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .recipes import Family, RecipeRanges, parts_of


@dataclass(frozen=True)
class Own(Family):
    """A space from two functions of the user.

    ``draw`` takes a trial, suggests parameters from it and returns the architecture as a JSON-able dictionary. ``make`` takes that
    dictionary and the task and returns the untrained ``torch.nn.Module``, or an ``Estimator``.
    """

    draw: Callable[[Suggest], Mapping[str, Any]]
    make: Callable[[Mapping[str, Any], Task], Any]
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "own"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw an architecture."""
        return self.draw(trial)

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.make(parts_of(candidate), task)
