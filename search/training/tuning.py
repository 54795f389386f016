"""Fine-tuning: after its head, a part of a pretrained network is trained as well, at rates of its own.

`Tuned` is that part with the head. As the head of a `Transfer` model it gets maps at a cut, which are computed once and kept as features
are; behind a backbone that only prepares images (`PREPARED`) the whole network is trained. Either way the head alone is trained first: a
random or empty head would destroy, in its first steps, what the network knows.

Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054 (LP-FT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .backbone import Backbone, Transfer
from .feature_cache import statistics
from .features import ORDER
from .recipe import Recipe
from .splits_data import Excerpt, MemoryData
from .task import Data, Task

#: Feature set of a backbone that freezes nothing: images at the network's scale and size, never kept.
PREPARED = "prepared"
#: How the head alone is trained first: what the search begins its heads with, and as long as suffices for a few thousand images.
HEAD_RECIPE, HEAD_EPOCHS = Recipe(learning_rate=1e-3, weight_decay=1e-2, batch_size=64), 5


class Tuned(nn.Module):
    """The trained part of a network and its head: inputs -> body -> standardised features -> head -> outputs.

    Attributes:
        body: Inputs ``(b, ...)`` -> features ``(b, width)``, pretrained.
        head: Features -> ``(b, outputs)``.
        rates: Factors of the learning rate for groups of the body's parameters; all others have the full rate.
        probe: A frozen backbone and its feature set with the features that the untrained body gives, so that the head is begun on features
            that heads share; None where the body computes them.
        norms: Whether batch norms learn and count on; else their statistics stay.
        mean: Of each feature at the start of the fine-tuning, ``(width,)``, and ``deviation``.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        width: int,
        *,
        rates: Sequence[tuple[Sequence[nn.Parameter], float]] = (),
        probe: tuple[Backbone, str] | None = None,
        norms: bool = False,
    ) -> None:
        super().__init__()
        self.body, self.norms, self.rates, self.probe = body, norms, rates, probe  # a tuple: the probe is no part of the model
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.head = head
        if not norms:
            for layer in self._norms():
                layer.requires_grad_(False)
        self.train(self.training)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs ``(b, outputs)`` for the body's inputs."""
        outputs: torch.Tensor = self.head((self.body(inputs) - self.mean) / self.deviation)
        return outputs

    def train(self, mode: bool = True) -> Tuned:
        """Put it into training mode, but for batch norms that are frozen."""
        super().train(mode)
        if not self.norms:
            for layer in self._norms():
                layer.eval()
        return self

    def rate_factors(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Return groups of parameters with the factors of their learning rates."""
        return self.rates

    def _norms(self) -> list[nn.Module]:
        return [layer for layer in self.body.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]

    def standardise_by(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Take mean and deviation ``(width,)`` of the features at the start."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def head_task(self, task: Task, recipe: Recipe, device: torch.device) -> Task:
        """Return the task of the head alone: features of the training inputs by the untrained body, standardised, which it remembers."""
        self.eval()
        found, targets = [], []
        with torch.no_grad():
            for inputs, wanted in task.train.batches(2 * recipe.batch_size, device=device):
                found.append(self.body(inputs).float())
                targets.append(wanted)
        features = torch.cat(found)
        mean, deviation = map(torch.from_numpy, statistics(features.cpu().numpy()))
        self.standardise_by(mean.to(device), deviation.to(device))
        return head_task(replace(task, train=MemoryData((features - self.mean) / self.deviation, torch.cat(targets)), preprocessing={}))


def head_task(task: Task) -> Task:
    """Return a task of features that is not validated but for a few training examples: its head is only where a training begins."""
    train = task.train
    assert isinstance(train, MemoryData)
    few = train.only(np.arange(min(64, len(train))))
    return replace(task, validation=few, test=None, input_shape=tuple(train.inputs.shape[1:]))


def probe_of(model: Transfer) -> Transfer | None:
    """Return a model whose features the head of a fine-tuned model begins on, or None where its body computes them."""
    probe = model.head.probe if isinstance(model.head, Tuned) else None
    return None if probe is None else Transfer(*probe, nn.Identity(), images=model.images)


def first_images(task: Task, images: int | None) -> Task:
    """Return the task with so many training images, those on which heads with as many are trained; None for all of them.

    Raises:
        ValueError: If the split cannot be divided.
    """
    train: Data = task.train
    if images is None or images >= len(train) or isinstance(train, Excerpt):
        return task
    only: Any = getattr(train, "only", None)
    if not callable(only):
        raise ValueError(f"fine-tuning on {images} of {len(train)} images needs data with a method only(indices); use all of them")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(ORDER))
    return replace(task, train=only(np.sort(order[:images].numpy())))


def is_whole(model: Transfer) -> bool:
    """Whether nothing of a model is frozen in front of what is trained."""
    return model.feature_set == PREPARED
