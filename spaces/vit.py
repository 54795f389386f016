"""Small vision transformers, for images of any size.

Source: Dosovitskiy et al., arXiv 2010.11929; the mean of the tokens in place of a class token as in Beyer et al., arXiv 2205.01580.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .layers import Headed, image_shape
from .recipes import ORDINARY, Counts, Drops, Family, RecipeRanges, Sizes, parts_of, suggest_categorical, suggest_float, suggest_int


@dataclass(frozen=True)
class Vit(Family):
    """Patches, positions, pre-norm transformer blocks, the mean of the tokens, one linear layer.

    ``patches`` is the side of a patch in pixels; one larger than the image is reduced to its side. ``depths`` are numbers of blocks,
    ``head_widths`` channels of a head: the tokens have heads x head_width. ``ratios`` are the hidden units of a block's perceptron, in
    channels of the tokens. ``drop_paths`` is the rate of stochastic depth of the last block; earlier ones have proportionally less.
    """

    patches: Sizes = (2, 4)
    depths: Counts = (1, 6)
    heads: Counts = (1, 4)
    head_widths: Sizes = (8, 16, 32)
    ratios: Sizes = (1, 2, 4)
    drop_paths: Drops = 0.0
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "vit"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings of a network."""
        return {
            "patch": suggest_categorical(trial, "patch", self.patches),
            "depth": suggest_int(trial, "depth", self.depths),
            "heads": suggest_int(trial, "heads", self.heads),
            "head_width": suggest_categorical(trial, "head_width", self.head_widths),
            "ratio": suggest_categorical(trial, "ratio", self.ratios),
            "drop_path": suggest_float(trial, "drop_path", self.drop_paths),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters of the ordinary small transformer; the ranges may allow only near ones."""
        return {**ORDINARY, "patch": 4, "depth": 4, "heads": 4, "head_width": 16, "ratio": 2, "drop_path": 0.0}

    def build(self, candidate: Candidate, task: Task) -> Transformer:
        """Build the untrained network; a task without images raises ValueError."""
        return Transformer(image_shape(candidate, task), task.outputs, **parts_of(candidate))


class Patches(nn.Module):
    """Tokens of ``width`` channels with learnt positions, from images ``(channels, height, width)`` in patches of so many pixels a side."""

    def __init__(self, shape: tuple[int, int, int], patch: int, width: int) -> None:
        super().__init__()
        patch = min(patch, *shape[1:])
        self.padding = (0, -shape[2] % patch, 0, -shape[1] % patch)  # so that no border pixel is lost
        self.count = -(-shape[1] // patch) * -(-shape[2] // patch)
        self.project = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, self.count, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, count, width)``."""
        tokens: torch.Tensor = self.project(F.pad(x, self.padding)).flatten(2).transpose(1, 2)
        return tokens + self.position


class Block(nn.Module):
    """Attention and a perceptron of ``ratio * width`` units, each with a norm before it and a residual connection.

    ``drop_path`` is the share of the examples for which a branch is left out in training.
    """

    def __init__(self, width: int, heads: int, ratio: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, n, width)`` to ``(b, n, width)``."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self._kept(self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return x + self._kept(self.perceptron(self.norm2(x)))

    def _kept(self, branch: torch.Tensor) -> torch.Tensor:
        """Leave the branch out for a random share of the examples, and scale the others so that the mean stays."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1.0 - self.drop_path
        return branch * torch.empty(len(branch), 1, 1, device=branch.device).bernoulli_(keep).div_(keep)


class Transformer(Headed):
    """A vision transformer, see ``Vit`` for the arguments."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        patch: int,
        depth: int,
        heads: int,
        head_width: int,
        ratio: int,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = heads * head_width
        self.patches = Patches(shape, patch, width)
        self.blocks = nn.Sequential(*(Block(width, heads, ratio, drop_path * (index + 1) / depth) for index in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.norm(self.blocks(self.patches(x))).mean(dim=1))
        return logits
