"""Your own models in two functions: one draws an architecture, one builds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..search.argument_types import plain_values, refuse_wrong_types
from ..search.model_check import check_models
from ..search.space import Candidate, SpaceError, Suggest, plain_choices
from ..search.training.recipe import Recipe
from ..search.training.task import Task
from .recipes import TACTIC, Family, RecipeRanges, parts_of


@dataclass(frozen=True)
class _OwnNames:
    """A trial that takes NumPy's numbers, and refuses names of the recipe and choices that no storage keeps."""

    trial: Suggest

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        return self.trial.suggest_float(_free(name), float(low), float(high), step=step if step is None else float(step), log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if any(float(one) % 1 for one in (low, high, step)):  # also of what is no number
            raise SpaceError(f"the bounds and the step of {name!r} must be whole numbers, got {low}, {high} and {step}; use suggest_float")
        return self.trial.suggest_int(_free(name), int(low), int(high), step=int(step), log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.trial.suggest_categorical(_free(name), plain_choices(name, choices))

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.trial, name):
            raise AttributeError(f"the trial of a draw has suggest_float, suggest_int and suggest_categorical, no {name}")
        return getattr(self.trial, name)


def _free(name: str) -> str:
    if name in Recipe.__dataclass_fields__ or name == "epochs" or name.startswith(TACTIC):
        raise SpaceError(f"the space's parameter {name!r} has the name of a field of the recipe; rename it, or give its range as recipe=")
    return name


@dataclass(frozen=True)
class Own(Family):
    """A space from two functions of the user.

    ``draw`` takes a trial, suggests parameters from it and returns the architecture as a JSON-able dictionary. ``make`` takes that
    dictionary and the task and returns the untrained ``torch.nn.Module``, or an ``Estimator``. The names of the recipe's fields are taken.
    """

    draw: Callable[[Suggest], Mapping[str, Any]]
    make: Callable[[Mapping[str, Any], Task], Any]
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "own"

    def __post_init__(self) -> None:
        """Raise ValueError for what is no function, or a recipe that is a dictionary."""
        refuse_wrong_types(Own, vars(self), draw="give the function itself", recipe="write RecipeRanges(learning_rate=...)")

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw an architecture."""
        drawn = self.draw(_OwnNames(trial))
        if not isinstance(drawn, Mapping):
            raise SpaceError(f"what draws an architecture must return a dictionary, got {type(drawn).__name__}; return one")
        found: dict[str, Any] = plain_values(drawn)
        for name, value in found.items():
            if not isinstance(name, str):
                raise SpaceError(f"the names in an architecture must be texts, got {name!r}; write them in quotes")
            try:
                json.dumps({name: value}, allow_nan=False)
            except (TypeError, ValueError):
                kind = f"{type(value).__name__}{f' {value}' if isinstance(value, float) else ''}"
                said = f"the architecture's {name!r} must be plain values, texts or lists, got {kind}"
                raise SpaceError(f"{said}; make the rest of it where the model is built") from None
        return found

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.make(parts_of(candidate), task)

    def check(self, task: Task) -> None:
        """Raise SpaceError if a model cannot be trained, kept or used."""
        check_models(self, task)
