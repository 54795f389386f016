"""Multi-layer perceptrons for tables and for flattened images."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .layers import activation, norm
from .recipes import Floats, Ints, Options, RecipeRanges, suggest_categorical, suggest_float, suggest_int

if TYPE_CHECKING:
    from ..search.space import Space


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers of equal width.

    Attributes:
        depths: Number of hidden layers; 0 is a linear model.
        widths: Units of a hidden layer.
        norms: ``batch``, ``layer`` or ``none``.
        activations: ``relu``, ``gelu`` or ``silu``.
        dropouts: Share of the units that are switched off in training.
        recipe: How candidates are trained.
        name: Name of the family.
    """

    depths: Ints = (1, 4)
    widths: Ints = (16, 256)
    norms: Options[str] = ("batch", "layer", "none")
    activations: Options[str] = ("relu", "silu")
    dropouts: Floats = (0.0, 0.5)
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "mlp"

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a network and its training."""
        architecture = {
            "family": self.name,
            "depth": suggest_int(trial, "depth", self.depths),
            "width": suggest_int(trial, "width", self.widths, log=True),
            "norm": suggest_categorical(trial, "norm", self.norms),
            "activation": suggest_categorical(trial, "activation", self.activations),
            "dropout": suggest_float(trial, "dropout", self.dropouts),
        }
        return Candidate(architecture, self.recipe.sample(trial))

    def build(self, candidate: Candidate, task: Task) -> Perceptron:
        """Build the untrained network.

        Raises:
            ValueError: If a part has an unknown name.
        """
        parts = {key: value for key, value in candidate.architecture.items() if key != "family"}
        return Perceptron(prod(task.shape_at(candidate.recipe.resolution)), task.outputs, **parts)

    def key(self, candidate: Candidate) -> str:
        """Return canonical text; a linear model has no hidden layers whose details could count."""
        architecture = dict(candidate.architecture)
        if architecture["depth"] == 0:
            architecture = {"family": architecture["family"], "depth": 0}
        return Candidate(architecture, candidate.recipe).key


class Perceptron(nn.Module):
    """Hidden layers of linear map, norm, activation and dropout, then a linear head.

    Args:
        features: Number of inputs after flattening.
        outputs: Number of outputs.
        depth: Number of hidden layers.
        width: Units of a hidden layer.
        norm: Kind of the normalisation.
        activation: Kind of the activation.
        dropout: Share of the units that are switched off in training.
    """

    def __init__(
        self, features: int, outputs: int, *, depth: int, width: int, norm: str = "none", activation: str = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        self.hidden = nn.Sequential(*(hidden_layer(a, b, norm, activation, dropout) for a, b in pairwise(sizes)))
        self.head = nn.Linear(sizes[-1], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, ...)``, flattened to ``(b, features)``, to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.hidden(x.flatten(1)))
        return logits

    def get_classifier(self) -> nn.Module:
        """Return the head, which may have a learning rate of its own."""
        return self.head


def hidden_layer(inputs: int, width: int, norm_kind: str, activation_kind: str, dropout: float) -> nn.Sequential:
    """Return one hidden layer from ``(b, inputs)`` to ``(b, width)``."""
    return nn.Sequential(nn.Linear(inputs, width), norm(norm_kind, width), activation(activation_kind), nn.Dropout(dropout))


if TYPE_CHECKING:
    _: Space = Mlp()
