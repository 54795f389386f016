"""Your own models in two functions: one draws an architecture, one builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .recipes import RecipeRanges

if TYPE_CHECKING:
    from ..search.space import Space


@dataclass(frozen=True)
class Own:
    """A space from two functions of the user.

    Attributes:
        draw: Takes a trial, suggests parameters from it and returns the architecture as a JSON-able dictionary.
        make: Takes that dictionary and the task and returns the untrained ``torch.nn.Module``, or an ``Estimator``.
        recipe: How candidates are trained.
        name: Name of the family.
    """

    draw: Callable[[Suggest], Mapping[str, Any]]
    make: Callable[[Mapping[str, Any], Task], Any]
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "own"

    def sample(self, trial: Suggest) -> Candidate:
        """Draw an architecture and its training."""
        return Candidate({"family": self.name, **self.draw(trial)}, self.recipe.sample(trial))

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.make({name: value for name, value in candidate.architecture.items() if name != "family"}, task)

    def key(self, candidate: Candidate) -> str:
        """Return the candidate's canonical text."""
        return candidate.key


if TYPE_CHECKING:
    _: Space = Own(lambda trial: {}, lambda architecture, task: None)
