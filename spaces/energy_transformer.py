"""Energy transformers: tokens that descend one scalar energy of attention and of a Hopfield memory.

Here "energy" is the function that the network minimises, not electricity.
Source: Hoover, Liang, Pham, Panda, Strobelt, Chau, Zaki, Krotov, Energy Transformer, arXiv 2302.07253, section 2.
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
from .recipes import ORDINARY, Counts, Family, Rates, RecipeRanges, Sizes, parts_of, suggest_categorical, suggest_float, suggest_int
from .vit import Patches


@dataclass(frozen=True)
class EnergyTransformer(Family):
    """One block whose energy the tokens descend for a number of ``steps``.

    ``sizes`` is the size of the first step, alpha in the paper. ``patches`` is the side of a patch in pixels, ``head_widths`` the channels
    of an attention head, ``widths`` those of a token; ``memories`` are the patterns that the Hopfield network stores, in channels of a
    token.
    """

    patches: Sizes = (2, 4)
    heads: Counts = (1, 4)
    head_widths: Sizes = (8, 16)
    widths: Counts = (16, 96)
    memories: Sizes = (1, 2, 4)
    steps: Counts = (2, 12)
    sizes: Rates = (0.03, 1.0)
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "energy_transformer"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings of a network."""
        return {
            "patch": suggest_categorical(trial, "patch", self.patches),
            "heads": suggest_int(trial, "heads", self.heads),
            "head_width": suggest_categorical(trial, "head_width", self.head_widths),
            "width": suggest_int(trial, "width", self.widths, log=True),
            "memories": suggest_categorical(trial, "memories", self.memories),
            "steps": suggest_int(trial, "steps", self.steps),
            "size": suggest_float(trial, "size", self.sizes, log=True),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters of a network of middle size; the ranges may allow only near ones."""
        plain = {"patch": 4, "heads": 4, "head_width": 16, "width": 64, "memories": 4, "steps": 6, "size": 0.1}
        return {**ORDINARY, **plain}

    def build(self, candidate: Candidate, task: Task) -> EnergyNetwork:
        """Build the untrained network; a task without images raises ValueError."""
        return EnergyNetwork(image_shape(candidate, task), task.outputs, **parts_of(candidate))


class LagrangianNorm(nn.Module):
    """Layer normalisation as the gradient of a Lagrangian, with one scale for all channels; D is the ``width`` of a token.

    ``L(x) = D gamma sqrt(mean((x - mean x)^2) + 1e-5) + sum(delta x)`` and ``g = dL/dx``. With ``gamma > 0`` L is convex, so its Hessian is
    positive semi-definite, and going along ``-dE/dg`` never raises E in the limit of small steps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_gamma = nn.Parameter(torch.zeros(()))  # gamma = exp(log_gamma) > 0
        self.delta = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return g, the normalised tokens, of the shape of x."""
        return F.layer_norm(x, x.shape[-1:]) * self.log_gamma.exp() + self.delta


class EnergyBlock(nn.Module):
    """The energy of normalised tokens of D = ``width`` channels and its gradient; heads H have Y = ``head_width`` channels."""

    def __init__(self, width: int, heads: int, head_width: int, memories: int) -> None:
        super().__init__()
        self.beta = head_width**-0.5
        self.keys = nn.Parameter(torch.randn(heads, head_width, width) * width**-0.5)
        self.queries = nn.Parameter(torch.randn(heads, head_width, width) * width**-0.5)
        self.patterns = nn.Parameter(torch.randn(memories, width) * width**-0.5)

    def forward(self, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map normalised tokens ``(b, n, D)`` to their energy ``(b,)`` and ``dE/dg`` ``(b, n, D)``.

        E_attention = -1/beta sum_h sum_C log sum_{B != C} exp(beta K_B Q_C); E_hopfield = -1/2 sum_B sum_mu relu(xi_mu g_B)^2.
        The gradient is written out, so that no step needs a graph of its own.
        """
        k = torch.einsum("hyd,bnd->bhny", self.keys, g)
        q = torch.einsum("hyd,bnd->bhny", self.queries, g)
        itself = torch.eye(g.shape[1], dtype=torch.bool, device=g.device)
        scores = (self.beta * q @ k.transpose(2, 3)).masked_fill(itself, float("-inf"))  # (b, h, C, B)
        attention = scores.softmax(dim=-1)
        pull = torch.einsum("hyd,bhny->bnd", self.queries, attention @ k) + torch.einsum(
            "hyd,bhny->bnd", self.keys, attention.transpose(2, 3) @ q
        )
        recalled = F.relu(g @ self.patterns.T)
        energy = -scores.logsumexp(dim=-1).sum(dim=(1, 2)) / self.beta - 0.5 * recalled.square().sum(dim=(1, 2))
        return energy, -pull - recalled @ self.patterns


class EnergyNetwork(Headed):
    """Tokens of an image and one class token descend the energy of one block; the mean of the tokens is classified.

    A step that would raise the energy of an image is not taken, and the next one of that image is half as long. So the energy never
    increases, whatever the weights; the check costs nothing, for the energy of the new tokens is part of the next step. See
    ``EnergyTransformer`` for the arguments; images are ``(channels, height, width)``.

    Raises:
        ValueError: If there is no step to take.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        patch: int,
        heads: int,
        head_width: int,
        width: int,
        memories: int,
        steps: int,
        size: float,
    ) -> None:
        super().__init__()
        self.steps, self.size = steps, size
        self.patches = Patches(shape, patch, width)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))  # with it there are always two tokens that can attend to each other
        self.norm = LagrangianNorm(width)
        self.block = EnergyBlock(width, heads, head_width, memories * width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        tokens, _ = self.descend(self.tokens(x))
        logits: torch.Tensor = self.head(self.norm(tokens).mean(dim=1))
        return logits

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to tokens ``(b, n, width)``, the class token first."""
        patches: torch.Tensor = self.patches(x)
        return torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], dim=1)

    def descend(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens after all steps, ``(b, n, width)``, and the energies before, between and after them, ``(b, steps + 1)``."""
        energy, slope = self.block(self.norm(x))
        size = torch.full_like(energy, self.size)[:, None, None]
        energies = [energy]
        for _ in range(self.steps):
            moved = x - size * slope
            new_energy, new_slope = self.block(self.norm(moved))
            lower = (new_energy <= energy)[:, None, None]
            x, slope = torch.where(lower, moved, x), torch.where(lower, new_slope, slope)
            energy = torch.where(lower[:, 0, 0], new_energy, energy)
            size = torch.where(lower, size, 0.5 * size)
            energies.append(energy)
        return x, torch.stack(energies, dim=1)
