"""The seam to the families of candidates: a space samples candidates and builds their models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .training.recipe import Recipe
from .training.task import Task


@dataclass(frozen=True)
class Candidate:
    """One architecture and the way to train it; all of it is JSON.

    Attributes:
        architecture: What ``Space.build`` needs, e.g. ``{"family": "convnet", "width": 16, "depth": 3}``.
        recipe: How it is trained.
    """

    architecture: Mapping[str, Any]
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary that ``from_json`` reads back."""
        return {"architecture": dict(self.architecture), "recipe": self.recipe.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Read what ``to_json`` wrote."""
        return cls(dict(data["architecture"]), Recipe.from_json(data["recipe"]))

    @property
    def key(self) -> str:
        """Text that is equal for equal candidates, whatever the order of their keys."""
        return json.dumps(self.to_json(), sort_keys=True)


class Suggest(Protocol):
    """The part of ``optuna.Trial`` that a space may use."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Suggest a number in ``[low, high]``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest a whole number in ``[low, high]``."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of the choices (None, bool, int, float or str)."""
        ...


class Space(Protocol):
    """One family of candidates.

    A model is a ``torch.nn.Module`` whose ``forward`` takes ``(b, *task.input_shape)`` (at the recipe's resolution) and gives
    ``(b, task.outputs)``, or an ``Estimator`` around a scikit-learn model (``search/training/estimator.py``).
    """

    @property
    def name(self) -> str:
        """Short name of the family."""
        ...

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate; called with stored parameters it must give the same candidate again."""
        ...

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model; weights are drawn from torch's global generator, which the caller seeds."""
        ...

    def key(self, candidate: Candidate) -> str:
        """Canonical text of the candidate: equal for candidates that are the same model trained in the same way."""
        ...


@dataclass(frozen=True)
class Stored:
    """Stored parameters that answer ``suggest_*`` in place of an Optuna trial.

    Attributes:
        params: Values by parameter name.
    """

    params: Mapping[str, Any]

    def _value(self, name: str) -> Any:
        if name not in self.params:
            raise ValueError(
                f"stored parameters have no {name!r}; the space has changed since the trial was made. Stored: {sorted(self.params)}"
            )
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Return the stored number."""
        return float(self._value(name))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the stored whole number."""
        return int(self._value(name))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the stored choice."""
        return self._value(name)
