"""Parts that several families share: shapes, norms, activations and the head."""

from __future__ import annotations

from math import gcd
from typing import Annotated, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from ..search.space import Candidate
from ..search.training.task import Task
from .recipes import Options, words

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
NORMS = ("batch", "group", "layer", "none")
Activations: TypeAlias = Annotated[Options[str], words(*ACTIVATIONS)]
Norms: TypeAlias = Annotated[Options[str], words(*NORMS)]


def image_shape(candidate: Candidate, task: Task) -> tuple[int, int, int]:
    """Return ``(channels, height, width)`` of the images that the model gets; a task without images raises ValueError."""
    shape = task.shape_at(candidate.recipe.resolution)
    if len(shape) != 3:
        raise ValueError(
            f"the family {candidate.architecture['family']!r} needs images (channels, height, width), but the task {task.name!r} has "
            f"inputs of shape {shape}; use joulefront.spaces.mlp or joulefront.spaces.classical"
        )
    return shape[0], shape[1], shape[2]


def norm(kind: str, channels: int) -> nn.Module:
    """Return a normalisation of ``(b, channels, ...)``; a kind that is not one of ``NORMS`` raises ValueError."""
    words(*NORMS).check("norm", kind)
    if kind == "batch":
        return BatchNorm(channels)
    if kind == "group":
        return nn.GroupNorm(gcd(8, channels), channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return nn.Identity()


def activation(kind: str) -> nn.Module:
    """Return an activation; a kind that is not one of ``ACTIVATIONS`` raises ValueError."""
    words(*ACTIVATIONS).check("activation", kind)
    return ACTIVATIONS[kind]()


class Headed(nn.Module):
    """A network with a linear ``head``."""

    head: nn.Linear

    def get_classifier(self) -> nn.Module:
        """Return the head, which may have a learning rate of its own."""
        return self.head


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of ``(b, channels, ...)`` that accepts a last batch of one example.

    One value per channel has no variance, and PyTorch refuses to normalise it in training; the running statistics are used instead.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch normalisation needs inputs (b, channels, ...), got {tuple(input.shape)}")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(b, channels, ...)``."""
        if self.training and input.shape[0] == 1 and input[0, 0].numel() == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)
