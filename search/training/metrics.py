"""Quality of predictions: each value means what scikit-learn's function of that name means.

A metric that cannot be known from the data (AUC where only one class occurs) is absent.
"""

from __future__ import annotations

import numpy as np

from .task import Kind

#: AUC sorts the scores of every class; with more classes than this it would cost more than the evaluation itself and is absent.
MAX_AUC_CLASSES = 100


def qualities(kind: Kind, classes: int) -> tuple[str, ...]:
    """Return the names of the metrics that a kind of task has; with very many classes there is no AUC."""
    if kind == "regression":
        return ("r2", "rmse", "mae", "loss")
    found = ("accuracy", "error", "balanced_accuracy", "macro_f1", "loss")
    if kind == "anomaly":
        return (*found, "auc", "f1")
    return (*found, "auc") if classes <= MAX_AUC_CLASSES else found


def quality(kind: Kind, scores: np.ndarray, targets: np.ndarray, *, scale: tuple[float, float] | None = None) -> dict[str, float]:
    """Return all metrics of a kind of task.

    Args:
        kind: ``classification``, ``multilabel``, ``regression`` or ``anomaly``.
        scores: Probabilities ``(n, k)``, values ``(n,)``, or anomaly scores ``(n,)`` in [0, 1] or ``(n, 2)``.
        targets: As in ``Task``.
        scale: ``(mean, standard deviation)`` of the targets of a regression: ``rmse`` and ``mae`` are in the user's unit.

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
    if kind == "anomaly":
        found["f1"] = _f1(scores[:, 1] > 0.5, targets == 1)
    return found


def _classification(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    # One pass over a confusion matrix serves four metrics.
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
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
    r2 = 1.0 - squared / spread if spread > 0 else float(squared == 0)
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


def _log_loss(probability_of_truth: np.ndarray) -> float:
    # Clipped at the resolution of the float32 probabilities, so that one sure mistake does not make the mean infinite.
    return float(-np.log(np.clip(probability_of_truth, np.finfo(np.float32).eps, 1.0)).mean())
