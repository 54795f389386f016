"""The training loss of each kind of task, and how outputs become predictions."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .task import Kind


def training_loss(kind: Kind, outputs: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Return the mean loss of a batch.

    Args:
        kind: Kind of the task.
        outputs: Network outputs ``(b, task.outputs)``; logits, or standardised values for regression.
        targets: Class numbers ``(b,)``, 0/1 rows ``(b, k)`` or standardised values ``(b,)``.
        label_smoothing: Share of the target mass spread over all classes; regression has none.
    """
    outputs = outputs.float()
    if kind == "regression":
        return F.mse_loss(outputs.reshape(targets.shape), targets)
    if kind == "multilabel":
        smooth = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
        return F.binary_cross_entropy_with_logits(outputs, smooth)
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


def predictions(kind: Kind, outputs: torch.Tensor) -> torch.Tensor:
    """Turn network outputs into probabilities ``(b, classes)`` or standardised values ``(b,)``."""
    outputs = outputs.float()
    if kind == "regression":
        return outputs.reshape(len(outputs))
    return outputs.sigmoid() if kind == "multilabel" else outputs.softmax(dim=1)
