"""Search models that are worth their energy: run a study, look at its front, export the model that you pick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import openmp as openmp  # first of all: it must speak before torch loads

if TYPE_CHECKING:
    from .front import Front as Front
    from .runner import load as load
    from .runner import run as run
    from .space import Candidate as Candidate
    from .space import Space as Space
    from .study import Budget as Budget
    from .study import Study as Study
    from .training.recipe import Recipe as Recipe
    from .training.task import Task as Task

__version__ = "0.1.0"

#: Where each public name lives; imported at first use, so that `joulefront --help` stays quick.
_HOMES = {
    "Budget": ".study",
    "Candidate": ".space",
    "Front": ".front",
    "Recipe": ".training.recipe",
    "Space": ".space",
    "Study": ".study",
    "Task": ".training.task",
    "load": ".runner",
    "run": ".runner",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name at first use.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"joulefront.search has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
