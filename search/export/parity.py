"""Does the exported file answer as the model does? Asked with real data, all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..training.task import Data
from .subject import ExportFailed, Predictor, Subject

if TYPE_CHECKING:
    import numpy as np

#: Largest difference of any output that an export may show.
TOLERANCE = 1e-4
#: Largest difference between the quality now and the one that the trial stored: other batches, another device or half precision move a
#: few examples that lie on the border; other weights or other data move far more.
DRIFT = 0.01
BATCH = 64


@dataclass(frozen=True)
class Check:
    """What the comparison of an exported file with its model found.

    Attributes:
        examples: Number of validation examples compared.
        max_abs_difference: Largest absolute difference of any output.
        tolerance: What it may be.
        metric: Name of the quality.
        quality_model: Validation quality of the model, recomputed.
        quality_exported: Validation quality of the exported file.
        quality_recorded: What the trial stored, or None.
        decisions_changed: Number of examples with another decision (class, label or side); 0 for regression.
        quality_test: Quality of the exported file on the test split, or None where there is no test split.
        test_examples: Number of test examples.
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

    @property
    def fault(self) -> str | None:
        """Why the export must not be used, in one line, or None."""
        if not self.max_abs_difference <= self.tolerance:
            return f"its outputs differ by up to {self.max_abs_difference:.3g} from the model's (at most {self.tolerance:.3g} is allowed)"
        if abs(self.quality_model - self.quality_exported) > (0.0 if self.metric == "accuracy" else self.tolerance):
            return f"its validation {self.metric} is {self.quality_exported:.6g}, the model's {self.quality_model:.6g}"
        return None


def compare(subject: Subject, exported: Predictor) -> Check:
    """Compare a file with its model on the whole validation split, and score it on the test split where there is one.

    The first example is asked again alone: a graph with a fixed batch size fails there.

    Raises:
        ExportFailed: If the model itself is not finite or is not the one that the trial measured, or the file cannot take a batch.
    """
    import numpy as np

    task, metric = subject.task, subject.task.metric
    model = subject.predictor()
    reference, answers, targets = [], [], []
    for inputs, wanted in batches(subject, task.validation):
        reference.append(model(inputs))
        answers.append(_ask(exported, inputs, reference[-1].shape))
        targets.append(wanted)
        if len(reference) == 1:
            alone = _ask(exported, inputs[:1], reference[0][:1].shape)
            if not np.allclose(alone, answers[0][:1], rtol=0.0, atol=TOLERANCE * _scale(subject, reference[0])):
                raise ExportFailed("the exported file answers differently when an example comes alone; its batch axis is not free")
    ours, theirs, wanted = np.concatenate(reference), np.concatenate(answers), np.concatenate(targets)
    if not np.isfinite(ours).all():
        raise ExportFailed(f"trial {subject.trial.number} gives NaN or infinite outputs on the validation data; pick another trial")
    difference = np.abs(ours - theirs).max()
    recorded = subject.trial.quality.get(metric)
    now = quality(task.kind, ours, wanted)
    if recorded is not None and abs(now - recorded) > DRIFT:
        raise ExportFailed(
            f"the rebuilt model has validation {metric} {now:.4f}, but trial {subject.trial.number} was measured at {recorded:.4f}: "
            "the data or the space are not those of the run; give the run's own --data"
        )
    test, test_examples = _score(subject, exported, task.test) if task.test is not None else (None, 0)
    return Check(
        examples=len(ours),
        max_abs_difference=float(difference) if np.isfinite(difference) else float("inf"),
        tolerance=TOLERANCE * _scale(subject, ours),
        metric=metric,
        quality_model=now,
        quality_exported=quality(task.kind, theirs, wanted),
        quality_recorded=recorded,
        decisions_changed=int((decisions(task.kind, ours) != decisions(task.kind, theirs)).any(axis=1).sum()),
        quality_test=test,
        test_examples=test_examples,
    )


def batches(subject: Subject, data: Data) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(inputs, targets)`` of a split in its own order, as the model takes them."""
    if subject.is_torch:
        for inputs, targets in data.batches(BATCH, resolution=subject.candidate.recipe.resolution):
            yield inputs.float().contiguous().numpy(), targets.numpy()
        return
    rows, wanted = data.arrays()
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH], wanted[start : start + BATCH]


def decisions(kind: str, outputs: np.ndarray) -> np.ndarray:
    """What the outputs decide: class, labels, or nothing for a score and a value; ``(n, d)``."""
    import numpy as np

    if kind == "multilabel":
        found: np.ndarray = outputs > (0.0 if _are_logits(outputs) else 0.5)
        return found
    if kind == "classification" or (kind == "anomaly" and outputs.ndim == 2 and outputs.shape[1] == 2):
        return outputs.argmax(axis=1)[:, None]
    return np.zeros((len(outputs), 0))


def quality(kind: str, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The task's headline metric from raw outputs: accuracy, R², macro F1 or AUC."""
    import numpy as np

    if not np.isfinite(outputs).all():
        return float("nan")
    if kind == "classification":
        return float((decisions(kind, outputs)[:, 0] == targets).mean())
    from sklearn import metrics

    if kind == "regression":
        return float(metrics.r2_score(targets, outputs.reshape(len(outputs))))
    if kind == "multilabel":
        return float(metrics.f1_score(targets, decisions(kind, outputs), average="macro", zero_division=0.0))
    scores = outputs[:, 1] - outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 2 else outputs.reshape(len(outputs))
    return float(metrics.roc_auc_score(targets, scores))


def _are_logits(outputs: np.ndarray) -> bool:
    return bool(outputs.min() < 0.0 or outputs.max() > 1.0)


def _scale(subject: Subject, outputs: np.ndarray) -> float:
    """1, or for values in the user's own large unit their spread: float32 holds 7 digits, not 4 decimals of a house price."""
    return max(1.0, float(outputs.std())) if subject.task.kind == "regression" else 1.0


def _ask(exported: Predictor, inputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        answer: Any = exported(inputs)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise ExportFailed(f"the exported file cannot predict a batch of {len(inputs)}: {line}") from error
    if answer.shape != shape and answer.size != _size(shape):
        raise ExportFailed(f"the exported file answers with shape {answer.shape}, the model with {shape}")
    reshaped: np.ndarray = answer.reshape(shape)
    return reshaped


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _score(subject: Subject, exported: Predictor, data: Data) -> tuple[float, int]:
    import numpy as np

    pairs = [(exported(inputs), targets) for inputs, targets in batches(subject, data)]
    outputs = np.concatenate([answer for answer, _ in pairs])
    return quality(subject.task.kind, outputs, np.concatenate([targets for _, targets in pairs])), len(outputs)
