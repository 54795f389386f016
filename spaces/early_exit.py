"""Convolutional networks with exits: an example that an early exit is confident about goes no further.

Source: Teerapittayanon, McDanel, Kung, BranchyNet, arXiv 1709.01686.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Kind, Task
from .convnet import BlockFamily, Kernels, Poolings, blocks, start_whitened
from .layers import Activations, Norms, image_shape
from .recipes import Counts, Domain, Floats, parts_of, suggest_float

#: With this threshold no example leaves early: no confidence exceeds 1.
NEVER = 1.0


@dataclass(frozen=True)
class EarlyExit(BlockFamily):
    """A convnet with an exit after every block.

    ``thresholds`` is the confidence above which an example leaves; 1 for never. It does not change the training, so search it in studies
    that have ``inference_energy`` among their objectives; ``ExitNetwork.threshold`` may be changed after training as well.
    """

    depths: Counts = (2, 4)
    kernels: Kernels = 3
    poolings: Poolings = "max"
    norms: Norms = "batch"
    activations: Activations = "relu"
    thresholds: Annotated[Floats, Domain("a number >= 0 and <= 1", lambda share: 0 <= share <= 1)] = NEVER
    name: str = "early_exit"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings of the blocks and the threshold."""
        return {**super().architecture(trial), "threshold": suggest_float(trial, "threshold", self.thresholds)}

    def build(self, candidate: Candidate, task: Task) -> ExitNetwork:
        """Build the untrained network; a task without images, or whose outputs have no confidence, raises ValueError."""
        parts = parts_of(candidate)
        whitened = parts.pop("whitened", False)
        model = ExitNetwork(image_shape(candidate, task), task.outputs, task.kind, **parts)
        if whitened:
            start_whitened(model.blocks[0], task, candidate.recipe.resolution)
        return model


class ExitNetwork(nn.Module):
    """Blocks with an exit (global average and linear layer) after each; see ``EarlyExit`` for the arguments.

    In training every example is classified by one exit, drawn so that each exit has an equal share of the batch: the expected loss is the
    mean of the losses of all exits, and the output keeps the shape of any other network. In evaluation an example is classified by the
    first exit whose confidence is above ``threshold``, and later blocks get only the others. While the network is traced for export or
    compilation all blocks get all examples, with the same outputs. ``kind`` says what confidence is.

    Raises:
        ValueError: If the task is a regression, which has no confidence.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        kind: Kind = "classification",
        *,
        depth: int,
        width: int,
        kernel: int = 3,
        depthwise: bool = False,
        pooling: str = "max",
        norm: str = "batch",
        activation: str = "relu",
        threshold: float = NEVER,
    ) -> None:
        super().__init__()
        if kind == "regression":
            raise ValueError("early exits need a confidence, which a regression does not have; use joulefront.spaces.convnet")
        self.labels = kind == "multilabel"
        self.outputs, self.threshold = outputs, threshold
        self.blocks, self.exits = nn.ModuleList(), nn.ModuleList()
        for part, channels in blocks(shape, depth, width, kernel, depthwise, pooling, norm, activation):
            self.blocks.append(part)
            self.exits.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        if self.training:
            outputs = self.all_exits(x)
            chosen = torch.randperm(len(x), device=x.device) % len(self.exits)
            return outputs[chosen, torch.arange(len(x), device=x.device)]
        if torch.compiler.is_compiling() or x.device.type == "meta":
            return self._selected(x)
        return self.leave_early(x)[0]

    def all_exits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of every exit, ``(exits, b, outputs)``."""
        outputs = []
        for part, leave in zip(self.blocks, self.exits, strict=True):
            x = part(x)
            outputs.append(leave(x))
        return torch.stack(outputs)

    def leave_early(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs ``(b, outputs)`` and the number of the exit that gave each, ``(b,)`` from 0."""
        rows = torch.arange(len(x), device=x.device)
        outputs, taken = [], []
        order = []
        for index, (part, leave) in enumerate(zip(self.blocks, self.exits, strict=True)):
            x = part(x)
            logits = leave(x)
            out = torch.ones_like(rows, dtype=torch.bool) if index == len(self.exits) - 1 else self.confidence(logits) > self.threshold
            outputs.append(logits[out])
            order.append(rows[out])
            taken.append(torch.full_like(order[-1], index))
            if out.all():
                break
            x, rows = x[~out], rows[~out]
        back = torch.cat(order).argsort()
        return torch.cat(outputs)[back], torch.cat(taken)[back]

    def confidence(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of the likeliest class, or of the least certain label: ``(..., outputs)`` to ``(...)``."""
        if self.labels:
            return (logits.sigmoid() - 0.5).abs().amin(dim=-1) + 0.5
        return logits.softmax(dim=-1).amax(dim=-1)

    def _selected(self, x: torch.Tensor) -> torch.Tensor:
        """Return what ``leave_early`` does, with shapes that do not depend on the data."""
        outputs = self.all_exits(x)
        chosen = outputs[-1]
        for logits in outputs[:-1].flip(0):
            chosen = torch.where((self.confidence(logits) > self.threshold)[:, None], logits, chosen)
        return chosen

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all exits, which may have a learning rate of their own."""
        return list(self.exits.parameters())
