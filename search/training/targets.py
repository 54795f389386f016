"""From a user's target values to the targets of a task: kind, class numbers, names, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .task import KINDS, Kind

#: Whole numbers with at most this many different values are taken for classes.
MAX_NUMERIC_CLASSES = 20


@dataclass(frozen=True)
class Targets:
    """Targets as a task wants them.

    Attributes:
        kind: Kind of the task.
        values: ``(n,)`` int64 classes, ``(n, k)`` float32 labels or ``(n,)`` float64 values in the user's unit.
        classes: Names in the order of their numbers; empty for regression.
    """

    kind: Kind
    values: np.ndarray
    classes: tuple[str, ...]


def infer_kind(values: np.ndarray) -> Kind:
    """Guess what is to be learnt.

    Text, truth values and whole numbers with at most 20 different values are classes, rows of 0 and 1 are labels, other numbers are values.
    """
    if values.ndim == 2:
        return "multilabel"
    if values.dtype.kind in "bOUS":
        return "classification"
    whole = bool(np.all(values == np.round(values)))
    return "classification" if whole and len(np.unique(values)) <= MAX_NUMERIC_CLASSES else "regression"


def encode(values: np.ndarray, *, kind: Kind | None = None, classes: Sequence[str] | None = None, name: str = "target") -> Targets:
    """Turn raw values into targets.

    Args:
        values: ``(n,)`` numbers, truth values or text, or ``(n, k)`` zeros and ones; nothing missing.
        kind: Kind of the task; None to infer it.
        classes: Names of the classes ``0..k-1`` when the values are such numbers, or of the labels.
        name: What the values are called in messages.

    Returns:
        Targets; classes are sorted (numbers by value), and of an anomaly task the second class is the anomaly: the greater of
        two numbers, the rarer of two texts.

    Raises:
        ValueError: If the values do not fit the kind.
    """
    values = np.asarray(values)
    kind = kind or infer_kind(values)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "regression":
        return Targets(kind, _numbers(values, name), ())
    if kind == "multilabel":
        if values.ndim != 2 or not np.isin(values.astype(np.float64), (0.0, 1.0)).all():
            raise ValueError(f"{name} of a multilabel task must be rows (n, labels) of 0 and 1, got shape {values.shape}")
        names = tuple(map(str, classes)) if classes is not None else tuple(f"label_{k}" for k in range(values.shape[1]))
        return Targets(kind, values.astype(np.float32), names)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one value for each example, got shape {values.shape}; rows of 0 and 1 are kind='multilabel'")
    levels, numbers = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    if classes is not None and values.dtype.kind in "biu":
        # Numbers are already positions in the names: a class that happens not to occur keeps its place.
        if len(levels) and (levels.min() < 0 or int(levels.max()) >= len(classes)):
            raise ValueError(f"{name} has the class {int(levels.max())}, but only {len(classes)} class names were given")
        levels, numbers = np.asarray(classes), values.astype(np.int64)
    if kind == "anomaly":
        if len(levels) != 2:
            raise ValueError(f"{name} of an anomaly task must have two values (normal, anomaly), got {len(levels)}: {_few(levels)}")
        if values.dtype.kind not in "biuf" and (numbers == 1).sum() > (numbers == 0).sum():
            levels, numbers = levels[::-1], 1 - numbers
    elif len(levels) < 2:
        raise ValueError(f"{name} has only one class, {_few(levels)}; there is nothing to tell apart")
    return Targets(kind, numbers, tuple(_text(level) for level in levels))


def target_scale(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the training targets (1 where they do not vary)."""
    mean, deviation = float(values.mean()), float(values.std())
    return mean, deviation if deviation > 0 else 1.0


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} has text, for example {_few(values)}; kind='regression' needs numbers") from None
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} of a regression must be one finite number for each example, got shape {values.shape}")
    return numbers


def _text(level: Any) -> str:
    return str(int(level)) if isinstance(level, (float, np.floating)) and float(level).is_integer() else str(level)


def _few(values: np.ndarray) -> str:
    shown = ", ".join(repr(_text(value)) for value in values[:5].reshape(-1)[:5])
    return shown + (", ..." if len(values) > 5 else "")
