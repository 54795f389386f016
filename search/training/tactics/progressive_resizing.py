"""Small images in the first epochs, full size later."""

from __future__ import annotations

import torch
from torch import nn

from .tactic import NoOp, evaluating


class ProgressiveResizing(NoOp):
    """Trains on images whose side grows linearly from ``start`` to 1 of the full side.

    Evaluation is always at full size. The ramp is a number of epochs, not a share of the run, so a training can continue from its
    checkpoint. Only models that take any image size can be trained like this; others are rejected before their first step.

    Source: Howard, training ImageNet in 3 hours with fast.ai (DAWNBench 2018); Tan and Le, EfficientNetV2, arXiv 2104.00298 section 4.
    """

    def __init__(self, *, start: float = 0.5, ramp_epochs: int = 4, multiple: int = 4) -> None:
        """Choose the ramp; a setting that is out of range raises ValueError.

        ``start`` is the share of the full side in the first epoch, in (0, 1]; epoch ``ramp_epochs + 1`` is the first at full size. Sides
        below the full one are rounded to a multiple of ``multiple`` pixels, and are at least that.
        """
        if not 0 < start <= 1:
            raise ValueError(f"progressive_resizing.start must be in (0, 1], got {start!r}; 1 is full size")
        for name, value in (("ramp_epochs", ramp_epochs), ("multiple", multiple)):
            if value < 1:
                raise ValueError(f"progressive_resizing.{name} must be >= 1, got {value!r}")
        self.start, self.ramp_epochs, self.multiple = start, ramp_epochs, multiple
        self._model: nn.Module | None = None
        self._checked = False
        self._full = self._epochs = 0

    def attach(self, model: nn.Module) -> None:
        """Remember the model, to check that it takes small images."""
        self._model = model

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Remember how far the training is."""
        self._epochs = epoch

    def resolution(self, epoch: int, epochs: int, full: int) -> int | None:
        """Side of the images in pixels; None at full size. A model that takes only images of ``full`` pixels raises ValueError."""
        self._full, side = full, self._side(epoch, full)
        if side == full:
            return None
        if not self._checked and self._model is not None:
            _check_takes(self._model, side)
            self._checked = True
        return side

    def detach(self) -> dict[str, float]:
        """Return the mean share of the full side over all epochs of the model."""
        sides, self._model = [self._side(epoch, self._full) / self._full for epoch in range(1, self._epochs + 1) if self._full], None
        return {"progressive_resizing_mean_side": sum(sides) / len(sides)} if sides else {}

    def _side(self, epoch: int, full: int) -> int:
        return side_at(epoch, full, start=self.start, ramp_epochs=self.ramp_epochs, multiple=self.multiple)


def side_at(epoch: int, full: int, *, start: float, ramp_epochs: int, multiple: int) -> int:
    """Side of the training images in epoch number ``epoch`` (from 1), in pixels.

    >>> [side_at(epoch, 32, start=0.5, ramp_epochs=4, multiple=4) for epoch in range(1, 7)]
    [16, 20, 24, 28, 32, 32]
    """
    if epoch > ramp_epochs:
        return full
    share = start + (1.0 - start) * (epoch - 1) / ramp_epochs
    side = round(share * full / multiple) * multiple
    return min(max(side, multiple), full)


def _check_takes(model: nn.Module, side: int) -> None:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"progressive_resizing needs a convolutional model for images, got {type(model).__name__}; drop the tactic")
    weight = first.weight
    image = torch.zeros(1, first.in_channels, side, side, device=weight.device, dtype=weight.dtype)
    try:
        with evaluating(model), torch.no_grad():
            model(image)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"progressive_resizing needs a model that takes images of any size, but {type(model).__name__} fails at {side} pixels "
            f"({error}); drop the tactic, raise progressive_resizing.start, or let the model pool globally before its head"
        ) from error
