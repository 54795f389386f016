"""Predictions and quality of a model on one split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .batch import autocast, laid_out
from .estimator import Estimator, as_estimator, full_probabilities
from .fitted import TrainingFailed
from .loss import predictions
from .metrics import quality
from .recipe import Recipe
from .task import Data, Task


def evaluate(model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu") -> dict[str, float]:
    """Return the quality of a model on one split, see ``metrics.quality``.

    Raises:
        TrainingFailed: If the model gives a value that is not finite.
    """
    scores, targets = scores_and_targets(model, task, data, recipe=recipe, device=device)
    if not np.isfinite(scores).all():
        raise TrainingFailed(f"the model gives non-finite outputs for {int((~np.isfinite(scores)).sum())} of {scores.size} predictions")
    return quality(task.kind, scores, targets, scale=task.target_scale)


def predict(model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu") -> np.ndarray:
    """Return the predictions for one split, in its order.

    Returns:
        Probabilities ``(n, classes)`` (multilabel: of each label on its own), values ``(n,)`` in the user's unit (regression),
        or anomaly scores: ``(n, 2)`` probabilities of a network, ``(n,)`` in [0, 1] of a detector.
    """
    scores, _ = scores_and_targets(model, task, data, recipe=recipe, device=device)
    if task.kind == "regression" and task.target_scale is not None:
        mean, deviation = task.target_scale
        return np.asarray(scores * deviation + mean)
    return scores


def scores_and_targets(
    model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions in the units of the targets beside those targets, in the order of the data."""
    if isinstance(model, torch.nn.Module):
        return _torch_scores(model, task, data, recipe, torch.device(device))
    estimator: Estimator = as_estimator(model)
    inputs, targets = data.arrays()
    return full_probabilities(estimator.predict_scores(inputs), estimator.sklearn, task), targets


def _torch_scores(model: torch.nn.Module, task: Task, data: Data, recipe: Recipe, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    was_training = model.training
    model.eval().to(device)
    scores, targets = [], []
    try:
        with torch.inference_mode(), autocast(recipe.precision, device):
            # Twice the training batch: without gradients it needs less memory than a training step did.
            for inputs, wanted in data.batches(2 * recipe.batch_size, device=device, resolution=recipe.resolution):
                # Kept on the device until the end, so that no batch waits for a transfer.
                scores.append(predictions(task.kind, model(laid_out(inputs, recipe))))
                targets.append(wanted)
    finally:
        model.train(was_training)
    return torch.cat(scores).cpu().numpy(), torch.cat(targets).cpu().numpy()
