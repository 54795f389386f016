"""How large a candidate is, told to the sampler before anything is trained: knowledge that costs no training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .space import Candidate, Space, Stored
from .training.task import Task


class Sizes:
    """Parameters and forward FLOPs of a candidate, as ``features`` of ``FreezeThawSampler``.

    Counting builds the network without weights, which for large networks takes longer than deciding; every architecture is counted once.

    Args:
        space: The candidates.
        task: The data, which gives the shapes.
    """

    def __init__(self, space: Space, task: Task) -> None:
        self._space, self._task = space, task
        self._known: dict[str, tuple[float, float]] = {}

    def __call__(self, params: Mapping[str, Any]) -> tuple[float, float]:
        """Return ``(parameters, FLOPs)``; zeros for what cannot be built or has no such size, e.g. a tree."""
        try:
            candidate = self._space.sample(Stored(params))
        except ValueError:  # conditional parameters that are not all drawn yet
            return 0.0, 0.0
        # The resolution is the one part of a recipe that changes the FLOPs.
        name = json.dumps([candidate.architecture, candidate.recipe.resolution], sort_keys=True, default=str)
        if name not in self._known:
            self._known[name] = self._count(candidate)
        return self._known[name]

    def _count(self, candidate: Candidate) -> tuple[float, float]:
        from .training.cost import count

        try:
            cost = count(weightless(self._space, candidate, self._task), self._task, candidate.recipe)
        except Exception:  # whatever a space raises for a candidate that it cannot build: it will be refused when it is asked for
            return 0.0, 0.0
        return float(cost.parameters or 0), float(cost.flops or 0)


def weightless(space: Space, candidate: Candidate, task: Task) -> Any:
    """Build the model without memory for its weights where it can be: a refused giant must not fill the machine."""
    import torch

    try:
        with torch.device("meta"):
            return space.build(candidate, task)
    except Exception:  # a user's model may compute with its weights while it is built
        return space.build(candidate, task)
