"""Predictions of a model on one split, and their quality; each metric means what scikit-learn's function of that name means.

A metric that the data leave undefined (AUC where only one class occurs) is absent. The training loss of each kind of task is here as well,
for it is what the outputs of a network mean.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..pareto import LESS_IS_BETTER
from .estimator import Estimator, as_estimator, full_probabilities
from .recipe import Recipe, autocast
from .results import Phases, TrainingFailed
from .splits_data import laid_out
from .tactics.tactic import evaluating
from .task import Data, Kind, Task

#: AUC sorts the scores of every class; with more classes than this it would cost more than the evaluation itself and is absent.
MAX_AUC_CLASSES = 100


def evaluate(model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu") -> dict[str, float]:
    """Return the quality of a model on one split, see ``quality``.

    Raises:
        TrainingFailed: If the model gives a value that is not finite.
    """
    return quality_and_scores(model, task, data, recipe=recipe, device=device)[0]


def quality_and_scores(
    model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu"
) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Return what `evaluate` does, and the predictions and targets that it is made of, see `scores_and_targets`.

    Raises:
        TrainingFailed: If the model gives a value that is not finite.
    """
    scores, targets = scores_and_targets(model, task, data, recipe=recipe, device=device)
    if not np.isfinite(scores).all():
        raise TrainingFailed(f"the model gives non-finite outputs for {int((~np.isfinite(scores)).sum())} of {scores.size} predictions")
    return quality(task.kind, scores, targets, scale=task.target_scale), (scores, targets)


def targets_of(data: Data) -> np.ndarray | None:
    """Return the targets of a split without loading its inputs; None where it does not hold them apart."""
    found = getattr(data, "targets", None)
    return None if found is None else np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found)


def guessing(task: Task) -> dict[str, float]:
    """Return the validation quality of the answer that looks at no input: the shares of the training classes, or their mean value.

    It trains nothing and takes no energy; empty where a split does not hold its targets apart. Where folds validate, it is that of all
    their examples.
    """
    train, validation = targets_of(task.train), targets_of(task.validation)
    if train is None or validation is None or len(train) == 0 or len(validation) == 0:
        return {}
    if task.folds:
        train = validation = np.concatenate([train, validation])
    if task.kind == "regression":
        answer = np.full(len(validation), float(np.mean(train)))
    elif task.kind == "multilabel":
        answer = np.tile(np.asarray(train, dtype=np.float64).mean(axis=0), (len(validation), 1))
    else:
        shares = np.bincount(np.asarray(train).astype(int), minlength=task.outputs) / len(train)
        answer = np.tile(shares, (len(validation), 1))
    return quality(task.kind, answer, validation, scale=task.target_scale)


def predict(model: Any, task: Task, data: Data, *, recipe: Recipe, device: str | torch.device = "cpu") -> np.ndarray:
    """Return the predictions for one split, in its order.

    Probabilities ``(n, classes)`` (multilabel: of each label on its own), values ``(n,)`` in the user's unit (regression), or anomaly
    scores: ``(n, 2)`` probabilities of a network, ``(n,)`` in [0, 1] of a detector.
    """
    scores, _ = scores_and_targets(model, task, data, recipe=recipe, device=device)
    if task.kind == "regression" and task.target_scale is not None:
        mean, deviation = task.target_scale
        return np.asarray(scores * deviation + mean)
    return scores


def predict_for(model: Any, task: Task, recipe: Recipe, device: str, seconds: float, phases: Phases) -> int:
    """Predict the validation split again and again for so long, in a phase ``inference``; return how many predictions that were."""
    made = 0
    with phases("inference", 0):
        end = time.monotonic() + seconds
        while made == 0 or time.monotonic() < end:
            made += len(predict(model, task, task.validation, recipe=recipe, device=device))
    return made


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
    scores, targets = [], []
    with evaluating(model.to(device)), torch.inference_mode(), autocast(recipe.precision, device):
        # Twice the training batch: without gradients it needs less memory than a training step did.
        for inputs, wanted in data.batches(2 * recipe.batch_size, device=device, resolution=recipe.resolution):
            # Kept on the device until the end, so that no batch waits for a transfer.
            scores.append(predictions(task.kind, answered(model(laid_out(inputs, recipe)), task, len(wanted))))
            targets.append(wanted)
    return torch.cat(scores).cpu().numpy(), torch.cat(targets).cpu().numpy()


def answered(outputs: Any, task: Task, count: int) -> torch.Tensor:
    """Return what a network answered for ``count`` examples, if it is ``(count, task.outputs)`` floating point numbers.

    Raises:
        TrainingFailed: If it is anything else.
    """
    shape, one = (count, task.outputs), task.kind == "regression"
    if isinstance(outputs, torch.Tensor) and outputs.is_floating_point() and (outputs.shape == shape or (one and outputs.numel() == count)):
        return outputs
    found = f"{outputs.dtype} {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    raise TrainingFailed(f"the model must return a tensor of floats {shape}, got {found}; return its logits alone")


def training_loss(kind: Kind, outputs: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Return the mean loss of a batch of network outputs ``(b, task.outputs)``: logits, or standardised values for regression.

    Targets are class numbers ``(b,)``, 0/1 rows ``(b, k)`` or standardised values ``(b,)``. Label smoothing spreads a share of the
    target mass over all classes; regression has none.
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


def qualities(kind: Kind, classes: int) -> tuple[str, ...]:
    """Return the names of the metrics that a kind of task has; with very many classes there is no AUC."""
    if kind == "regression":
        return ("r2", "rmse", "mae", "loss")
    found = ("accuracy", "error", "balanced_accuracy", "macro_f1", "loss")
    if kind == "anomaly":
        return (*found, "auc", "f1")
    return (*found, "auc") if classes <= MAX_AUC_CLASSES else found


def metric_of(task: Task, name: str = "") -> str:
    """Return the quality that decides between models: the one that is named, or the task's own where its kind does not have that one."""
    return name if name in qualities(task.kind, len(task.classes)) else task.metric


def sign_of(metric: str) -> float:
    """Return 1 for a quality of which more is better, and -1 for errors and losses."""
    return -1.0 if metric in LESS_IS_BETTER else 1.0


def quality(kind: Kind, scores: np.ndarray, targets: np.ndarray, *, scale: tuple[float, float] | None = None) -> dict[str, float]:
    """Return all metrics of a kind of task.

    Scores are probabilities ``(n, k)``, values ``(n,)``, or anomaly scores ``(n,)`` in [0, 1] or ``(n, 2)``; targets are as in ``Task``.
    With the ``scale`` of a regression, ``(mean, standard deviation)`` of its targets, ``rmse`` and ``mae`` are in the user's unit.

    Returns:
        ``accuracy, error, balanced_accuracy, macro_f1, auc, loss`` (anomaly also ``f1``; multilabel accuracy is the share of rows with
        every label right), or ``r2, rmse, mae, loss`` for regression.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if kind == "regression":
        return _regression(scores.reshape(-1), np.asarray(targets, dtype=np.float64).reshape(-1), scale)
    if kind == "multilabel":
        return _multilabel(scores, np.asarray(targets) > 0.5)
    targets = np.asarray(targets).astype(np.int64)
    if kind == "anomaly":
        score = scores[:, 1] if scores.ndim == 2 else scores
        scores = np.stack([1.0 - score, score], axis=1)
    found = _classification(scores, targets)
    return found | ({"f1": _f1(scores[:, 1] > 0.5, targets == 1)} if kind == "anomaly" else {})


def _classification(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    # One pass over a confusion matrix serves four metrics.
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    if not 0 <= targets.min() <= targets.max() < classes:
        raise ValueError(
            f"targets must be class numbers from 0 to {classes - 1}, got {targets.min()} to {targets.max()}; number the classes"
        )
    confusion = np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    hits, actual, guessed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    accuracy = float(hits.sum() / len(targets))
    occurs = actual > 0
    named = (actual + guessed) > 0  # scikit-learn averages F1 over the classes that occur in targets or predictions
    found = {
        "accuracy": accuracy,
        "error": 1.0 - accuracy,
        "balanced_accuracy": float((hits[occurs] / actual[occurs]).mean()),
        "macro_f1": float((2 * hits[named] / (actual[named] + guessed[named])).mean()),
        "loss": _log_loss(probabilities[np.arange(len(targets)), targets]),
    }
    columns = [1] if classes == 2 else range(classes if classes <= MAX_AUC_CLASSES else 0)
    return found | _mean_auc([(probabilities[:, k], targets == k) for k in columns])


def _multilabel(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    predicted = probabilities > 0.5
    accuracy = float((predicted == targets).all(axis=1).mean())
    labels = range(targets.shape[1])
    balanced = [_balanced(predicted[:, k], targets[:, k]) for k in labels]
    right = np.where(targets, probabilities, 1.0 - probabilities)
    found = {
        "accuracy": accuracy,
        "error": 1.0 - accuracy,
        "balanced_accuracy": float(np.mean(balanced)),
        "macro_f1": float(np.mean([_f1(predicted[:, k], targets[:, k]) for k in labels])),
        "loss": _log_loss(right),
    }
    few = labels if len(labels) <= MAX_AUC_CLASSES else ()
    return found | _mean_auc([(probabilities[:, k], targets[:, k]) for k in few])


def _regression(values: np.ndarray, targets: np.ndarray, scale: tuple[float, float] | None) -> dict[str, float]:
    unit = 1.0 if scale is None else scale[1]
    squared = float(((values - targets) ** 2).mean())
    spread = float(((targets - targets.mean()) ** 2).mean())
    # The convention of scikit-learn where the targets do not vary.
    r2 = round(1.0 - squared / spread, 12) if spread > 0 else float(squared == 0)  # guessing has 0, and no rounding beside it
    return {"r2": r2, "rmse": squared**0.5 * unit, "mae": float(np.abs(values - targets).mean()) * unit, "loss": squared}


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the area under the ROC curve, or None where one class is missing.

    Source: Mann-Whitney U over ranks, ties sharing their mean rank (Hanley & McNeil 1982).
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    return float((ranks[inverse.reshape(-1)][positive].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def _mean_auc(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    areas = [area for scores, positive in pairs if (area := area_under_curve(scores, positive)) is not None]
    return {"auc": float(np.mean(areas))} if areas else {}


def _f1(predicted: np.ndarray, actual: np.ndarray) -> float:
    total = int(predicted.sum() + actual.sum())
    return float(2 * (predicted & actual).sum() / total) if total else 0.0


def _balanced(predicted: np.ndarray, actual: np.ndarray) -> float:
    recalls = [(predicted[actual == value] == value).mean() for value in (False, True) if (actual == value).any()]
    return float(np.mean(recalls))


def _log_loss(probability_of_target: np.ndarray) -> float:
    # Clipped at the resolution of the float32 probabilities, so that one confident mistake does not make the mean infinite.
    return float(-np.log(np.clip(probability_of_target, np.finfo(np.float32).eps, 1.0)).mean())
