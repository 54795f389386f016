"""Multi-layer perceptrons for tables and for flattened images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .layers import Activations, Headed, Norms, activation, norm
from .recipes import ORDINARY, Counts, Drops, Family, Naturals, RecipeRanges, parts_of, suggest_categorical, suggest_float, suggest_int


@dataclass(frozen=True)
class Mlp(Family):
    """Fully connected layers of equal width.

    ``depths`` are numbers of hidden layers, 0 for a linear model, ``widths`` units of one; ``dropouts`` is the share of the units that are
    switched off in training. Norms are ``batch``, ``group``, ``layer`` or ``none``; activations ``relu``, ``gelu`` or ``silu``.
    """

    depths: Naturals = (1, 4)
    widths: Counts = (16, 256)
    norms: Norms = ("batch", "layer", "none")
    activations: Activations = ("relu", "silu")
    dropouts: Drops = (0.0, 0.5)
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "mlp"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings of a network; a linear model has no hidden layers to draw."""
        depth = suggest_int(trial, "depth", self.depths)
        if depth == 0:
            return {"depth": 0}
        return {
            "depth": depth,
            "width": suggest_int(trial, "width", self.widths, log=True),
            "norm": suggest_categorical(trial, "norm", self.norms),
            "activation": suggest_categorical(trial, "activation", self.activations),
            "dropout": suggest_float(trial, "dropout", self.dropouts),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters of the ordinary perceptron; the ranges may allow only near ones."""
        return {**ORDINARY, "depth": 2, "width": 128, "norm": "none", "activation": "relu", "dropout": 0.0}

    def build(self, candidate: Candidate, task: Task) -> Perceptron:
        """Build the untrained network."""
        return Perceptron(prod(task.shape_at(candidate.recipe.resolution)), task.outputs, **parts_of(candidate))


class Perceptron(Headed):
    """Hidden layers of linear map, norm, activation and dropout, then a linear head; see ``Mlp`` for the arguments."""

    def __init__(
        self, features: int, outputs: int, *, depth: int, width: int = 0, norm: str = "none", activation: str = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        self.hidden = nn.Sequential(*(hidden_layer(a, b, norm, activation, dropout) for a, b in pairwise(sizes)))
        self.head = nn.Linear(sizes[-1], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, ...)``, flattened to ``(b, features)``, to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.hidden(x.flatten(1)))
        return logits


def hidden_layer(inputs: int, width: int, norm_kind: str, activation_kind: str, dropout: float) -> nn.Sequential:
    """Return one hidden layer from ``(b, inputs)`` to ``(b, width)``."""
    return nn.Sequential(nn.Linear(inputs, width), norm(norm_kind, width), activation(activation_kind), nn.Dropout(dropout))
