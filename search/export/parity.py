"""The check of an export: the file against the model, on all of the real data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..records.examples import SHARES
from ..training.evaluate import predictions, sign_of
from ..training.evaluate import quality as measured
from ..training.task import Data
from .model import ExportFailed, Predictor, TrainedModel

#: Largest difference of any output that an export may show.
TOLERANCE = 1e-4
#: Largest difference between the quality now and the one that the trial stored: other batches, another device or half precision move a
#: few examples that lie on the decision boundary; other weights or other data move far more.
DRIFT = 0.01
#: Qualities in which a class counts the same however rare it is.
EVEN = ("balanced_accuracy", "macro_f1")
BATCH = 64
#: The same from raw data: a resize may round a pixel otherwise. Share of the examples whose decision may change, of 1 in any case, and the
#: largest difference of a probability, or of a value in standard deviations.
RAW_CHANGED, RAW_TOLERANCE = 0.002, 0.02
#: The same for variants, whose steps are coarse: a pixel that is rounded otherwise may move an activation by a whole step.
COARSE_CHANGED, COARSE_TOLERANCE = 0.02, 0.2
#: What the metrics take of an exported folder for a split, from its raw data: see ``raw_check.from_start``.
FromRaw = Callable[[Data], np.ndarray]


@dataclass(frozen=True)
class Check:
    """What the comparison of an exported file with its model found.

    Differences are absolute, of any output. Qualities are those of the validation split unless named otherwise: of the rebuilt model, of
    the exported file, and what the trial stored of this model (None for folds, whose models are others). ``decisions_changed`` counts
    examples with another class, label or side; 0 for regression.
    What begins with ``raw`` is the same with the exported preprocessing, from the raw files, rows or arrays of the split; None without it.
    A variant in fewer bits is ``coarse``; its model is the variant itself. A model that was trained with the validation ``split``, too, is
    checked on that of the test.
    """

    examples: int
    max_abs_difference: float
    tolerance: float
    metric: str
    quality_model: float
    quality_exported: float
    quality_recorded: float | None = None
    decisions_changed: int = 0
    quality_test: float | None = None
    test_examples: int = 0
    raw_max_abs_difference: float | None = None
    raw_decisions_changed: int | None = None
    raw_quality: float | None = None
    coarse: bool = False
    split: str = "validation"

    @property
    def fault(self) -> str | None:
        """Why the export must not be used, in one line, or None."""
        if not self.max_abs_difference <= self.tolerance:
            return (
                f"its outputs differ by up to {self.max_abs_difference:.3g} (at most {self.tolerance:.3g} is allowed), "
                f"{self.decisions_changed} of {self.examples} decisions differ"
            )
        slack = 0.0 if self.metric in SHARES else self.tolerance
        if not (abs(self.quality_model - self.quality_exported) <= slack or self.quality_model != self.quality_model):
            return f"its {self.split} {self.metric} is {self.quality_exported:.6g}, the model's {self.quality_model:.6g}"
        allowed, changed = (COARSE_TOLERANCE, COARSE_CHANGED) if self.coarse else (RAW_TOLERANCE, RAW_CHANGED)
        if self.raw_max_abs_difference is not None and not (
            self.raw_max_abs_difference <= allowed and (self.raw_decisions_changed or 0) <= max(1, changed * self.examples)
        ):
            return (
                f"from the raw data its answers differ by up to {self.raw_max_abs_difference:.3g} (allowed: {allowed:.3g}), "
                f"{self.raw_decisions_changed} of {self.examples} decisions differ"
            )
        return None


def compare(trained: TrainedModel, exported: Predictor, from_raw: FromRaw | None = None) -> Check:
    """Compare a file with its model on the whole validation split, and score it on the test split if there is one.

    The first example is predicted again alone: a graph with a fixed batch size fails there. With ``from_raw`` the validation split is
    predicted from its raw data, too, and the test split from these alone.

    Raises:
        ExportFailed: If the model itself is not finite or is not the one that the trial measured, or the file cannot take a batch.
    """
    task, metric = trained.task, trained.metric
    model = trained.predictor()
    reference, predicted, targets = [], [], []
    for inputs, wanted in batches(trained, task.validation):
        reference.append(model(inputs))
        predicted.append(_predict(exported, inputs, reference[-1].shape))
        targets.append(wanted)
        if len(reference) == 1:
            alone = _predict(exported, inputs[:1], reference[0][:1].shape)
            if not np.allclose(alone, predicted[0][:1], rtol=0.0, atol=TOLERANCE * _scale(trained, reference[0])):
                raise ExportFailed("the exported file must predict an example alone as in a batch; its batch axis is not free")
    ours, theirs, wanted = np.concatenate(reference), np.concatenate(predicted), np.concatenate(targets)
    if not np.isfinite(ours).all():
        raise ExportFailed(f"trial {trained.trial.number} gives NaN or infinite outputs on the validation data; pick another trial")
    difference = np.abs(ours - theirs).max()
    now = quality(trained, ours, wanted).get(metric, float("nan"))
    # The quality of folds is that of other models, and that of an ensemble of other choices among its members.
    known = None if task.folds or trained.trial.members else trained.trial.quality.get(metric)
    allowed = _drift(wanted) if metric in EVEN else DRIFT
    if known is not None and trained.variant is not None and sign_of(metric) * (known - now) > allowed:
        raise ExportFailed(
            f"the variant {trained.variant} of trial {trained.trial.number} has validation {metric} {now:.4f}, the model {known:.4f}: "
            f"it loses more than {allowed:.2g}; leave out --variant"
        )
    if known is not None and trained.variant is None and abs(now - known) > allowed:
        raise ExportFailed(
            f"the rebuilt model has validation {metric} {now:.4f}, but trial {trained.trial.number} was measured at {known:.4f}: "
            "the data or the space are not those of the run; give the run's own --data"
        )
    changed = decisions(task.kind, ours, scores(trained, ours)) != decisions(task.kind, theirs, scores(trained, theirs))
    test, test_examples = _score(trained, exported, task.test, from_raw) if task.test is not None else (None, 0)
    raw = {} if from_raw is None else _from_raw(trained, ours, wanted, from_raw(task.validation))
    return Check(
        examples=len(ours),
        max_abs_difference=float(difference) if np.isfinite(difference) else float("inf"),
        tolerance=TOLERANCE * _scale(trained, ours),
        metric=metric,
        quality_model=now,
        quality_exported=quality(trained, theirs, wanted).get(metric, float("nan")),
        quality_recorded=known,
        decisions_changed=int(changed.any(axis=1).sum()),
        quality_test=test,
        test_examples=test_examples,
        coarse=trained.variant is not None,
        split=trained.split,
        **raw,
    )


def _drift(targets: np.ndarray) -> float:
    """Return ``DRIFT``, or what two decisions move where classes count alike: with ten examples of the rarer of two classes, a tenth."""
    counts = np.unique(targets, return_counts=True)[1] if targets.ndim == 1 else np.asarray(targets.sum(axis=0))
    return max(DRIFT, 2.0 / (len(counts) * max(1.0, float(counts.min()))))


def _from_raw(trained: TrainedModel, outputs: np.ndarray, targets: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    kind = trained.task.kind
    ours, theirs = scores(trained, outputs), answers
    changed = decisions(kind, ours if kind == "classification" else outputs, ours) != decisions(kind, theirs, theirs)
    difference = np.abs(ours.reshape(theirs.shape) - theirs).max() / (_scale(trained, outputs) if kind == "regression" else 1.0)
    return {
        "raw_max_abs_difference": float(difference) if np.isfinite(difference) else float("inf"),
        "raw_decisions_changed": int(changed.any(axis=1).sum()),
        "raw_quality": _measured(trained, theirs, targets).get(trained.metric),
    }


def batches(trained: TrainedModel, data: Data) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(inputs, targets)`` of a split in its own order, as the model takes them."""
    if trained.is_torch:
        for inputs, targets in data.batches(BATCH, resolution=trained.candidate.recipe.resolution):
            yield inputs.float().contiguous().numpy(), targets.numpy()
        return
    rows, wanted = data.arrays()
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH], wanted[start : start + BATCH]


def scores(trained: TrainedModel, outputs: np.ndarray) -> np.ndarray:
    """Turn raw outputs into what the metrics take: probabilities, values or anomaly scores."""
    found = predictions(trained.task.kind, torch.from_numpy(outputs)).numpy() if trained.is_torch else outputs
    return np.asarray(found[:, 1] if trained.task.kind == "anomaly" and found.ndim == 2 else found)


def decisions(kind: str, outputs: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Decisions of outputs and their scores, ``(n, d)``: class, labels, anomaly or not; ``d`` is 0 for values."""
    if kind == "regression":
        return np.zeros((len(outputs), 0))
    if kind == "classification":  # from the raw outputs: the softmax in float32 can make ties
        best: np.ndarray = outputs.argmax(axis=1)
        return best[:, None]
    sides: np.ndarray = found.reshape(len(found), -1) > 0.5
    return sides


def quality(trained: TrainedModel, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """All metrics of the task, computed from raw outputs as the training computes them; none when an output is not finite."""
    return _measured(trained, scores(trained, outputs), targets) if np.isfinite(outputs).all() else {}


def _measured(trained: TrainedModel, found: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    if not np.isfinite(found).all():
        return {}
    return measured(trained.task.kind, found, targets, scale=trained.task.target_scale)


def _scale(trained: TrainedModel, outputs: np.ndarray) -> float:
    """1, or for values in the user's own large unit their spread: float32 holds 7 digits, not 4 decimals of a house price."""
    return max(1.0, float(outputs.std())) if trained.task.kind == "regression" else 1.0


def _predict(exported: Predictor, inputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        outputs: Any = exported(inputs)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise ExportFailed(f"the exported file cannot predict a batch of {len(inputs)}: {line}") from error
    if outputs.shape != shape and outputs.size != math.prod(shape):
        raise ExportFailed(f"the exported file must give outputs of shape {shape}, got {outputs.shape}")
    reshaped: np.ndarray = outputs.reshape(shape)
    return reshaped


def _score(trained: TrainedModel, exported: Predictor, data: Data, from_raw: FromRaw | None) -> tuple[float | None, int]:
    if from_raw is not None:
        wanted = np.concatenate([targets for _, targets in batches(trained, data)])
        return _measured(trained, from_raw(data), wanted).get(trained.metric), len(wanted)
    pairs = [(exported(inputs), targets) for inputs, targets in batches(trained, data)]
    outputs = np.concatenate([part for part, _ in pairs])
    found = quality(trained, outputs, np.concatenate([targets for _, targets in pairs]))
    return found.get(trained.metric), len(outputs)
