"""The check of an export: the file against the model, on all of the real data, and what strangers do: its folder on the very files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..records.examples import SHARES
from ..training import columns, table_encodings, table_file, table_numbers, table_objects, table_rows, table_surprises
from ..training.evaluate import predictions, sign_of
from ..training.evaluate import quality as measured
from ..training.splits_data import Excerpt, MemoryData
from ..training.task import Data
from . import predict
from .model import ExportFailed, Predictor, TrainedModel, first_line
from .onnx_format import metadata
from .raw_graph import front_of, preparation

#: Largest difference of any output that an export may show.
TOLERANCE = 1e-4
#: Largest difference between the quality now and the one that the trial stored: other batches, another device or half precision move a
#: few examples that lie on the decision boundary; other weights or other data move far more.
DRIFT = 0.01
#: Qualities in which a class counts the same however rare it is.
EVEN = ("balanced_accuracy", "macro_f1")
BATCH = 64
#: Beside a model of another format: raw data -> what that model takes.
PREPARATION = "prepare.onnx"
#: The modules that read tables, which lie beside an export.
READERS = (columns, table_encodings, table_file, table_numbers, table_objects, table_rows, table_surprises)
#: The same from raw data: a resize may round a pixel otherwise. Share of the examples whose decision may change, of 1 in any case, and the
#: largest difference of a probability, or of a value in standard deviations.
RAW_CHANGED, RAW_TOLERANCE = 0.002, 0.02
#: The same for variants, whose steps are coarse: a pixel that is rounded otherwise may move an activation by a whole step.
COARSE_CHANGED, COARSE_TOLERANCE = 0.02, 0.2
#: What the metrics take of an exported folder for a split, from its raw data: see ``from_start``.
FromRaw = Callable[[Data], np.ndarray]


@dataclass(frozen=True)
class Check:
    """What the comparison of an exported file with its model found.

    Differences are absolute, of any output. Qualities are those of the validation split unless named otherwise: of the rebuilt model, of
    the exported file, and what the trial stored of this model (None for folds, whose models are others). ``decisions_changed`` counts
    examples with another class, label or side; 0 for regression. What begins with ``raw`` is the same with the exported preprocessing, from
    the raw files, rows or arrays of the split; None without it. A variant in fewer bits is ``coarse``; its model is the variant itself, of
    whose decisions ``variant_decisions_changed`` differ from those of the trained model (None without a variant). A model that was trained
    with the validation ``split``, too, is checked on that of the test.
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
    variant_decisions_changed: int | None = None
    split: str = "validation"

    @property
    def fault(self) -> str | None:
        """Why the export must not be used, in one line, or None."""
        if not self.max_abs_difference <= self.tolerance:
            return (
                f"its outputs differ by up to {self.max_abs_difference:.3g} (at most {self.tolerance:.3g} is allowed), "
                f"{self.decisions_changed} of {self.examples} decisions differ"
            )
        slack = 0.0 if self.metric in SHARES else self.tolerance * max(1.0, abs(self.quality_model))
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
            like = np.allclose(alone, predicted[0][:1], rtol=0.0, atol=TOLERANCE * _scale(trained, reference[0]))
            if not like and np.isfinite(reference[0]).all():
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
        variant_decisions_changed=_changed_by_variant(trained, ours),
        split=trained.split,
        **raw,
    )


def _changed_by_variant(trained: TrainedModel, outputs: np.ndarray) -> int | None:
    """Return how many decisions of a variant with these validation outputs are not those of the model it was made of; None without one."""
    if trained.original is None:
        return None
    whole, kind = replace(trained, model=trained.original, original=None), trained.task.kind
    model = whole.predictor()
    before = np.concatenate([model(inputs) for inputs, _ in batches(whole, trained.task.validation)])
    changed = decisions(kind, before, scores(whole, before)) != decisions(kind, outputs, scores(trained, outputs))
    return int(changed.any(axis=1).sum())


def _drift(targets: np.ndarray) -> float:
    """Return ``DRIFT``, or what two decisions move where classes count alike: with ten examples of the rarer of two classes, a tenth."""
    counts = np.unique(targets, return_counts=True)[1] if targets.ndim == 1 else np.asarray(targets.sum(axis=0))
    return max(DRIFT, 2.0 / (len(counts) * max(1.0, float(counts.min()))))


def _from_raw(trained: TrainedModel, outputs: np.ndarray, targets: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    kind = trained.task.kind
    ours, theirs = scores(trained, outputs), answers
    if ours.size != theirs.size:
        return {"raw_max_abs_difference": float("inf"), "raw_decisions_changed": len(ours)}
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
        return np.asarray(outputs.argmax(axis=1)[:, None])
    return np.asarray(found.reshape(len(found), -1) > 0.5)


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
        raise ExportFailed(f"the exported file cannot predict a batch of {len(inputs)}: {first_line(error)}") from error
    if outputs.shape != shape and outputs.size != math.prod(shape):
        raise ExportFailed(f"the exported file must give outputs of shape {shape}, got {outputs.shape}")
    return np.asarray(outputs.reshape(shape))


def _score(trained: TrainedModel, exported: Predictor, data: Data, from_raw: FromRaw | None) -> tuple[float | None, int]:
    if from_raw is not None:
        wanted = np.concatenate([targets for _, targets in batches(trained, data)])
        return _measured(trained, from_raw(data), wanted).get(trained.metric), len(wanted)
    pairs = [(exported(inputs), targets) for inputs, targets in batches(trained, data)]
    outputs = np.concatenate([part for part, _ in pairs])
    found = quality(trained, outputs, np.concatenate([targets for _, targets in pairs]))
    return found.get(trained.metric), len(outputs)


SCRIPT = "predict.py"
#: Files that are read with little memory at once, and rows.
ROWS = 1024


def write_script(folder: Path, file: str, trained: TrainedModel) -> str:
    """Put ``predict.py`` beside a model, with what it needs; return what raw data the model takes, see ``Front.kind``.

    For tables these are the modules that read them as training did; where the model is no ``model.onnx``, what it takes is made by
    ``prepare.onnx``.
    """
    front = front_of(trained.task.preprocessing, trained.task.input_shape)
    takes = "inputs" if front is None else front.kind
    if file == predict.MODEL:
        takes = predict.Model(folder).takes
    elif front is not None:
        (folder / PREPARATION).write_bytes(preparation(trained, front, metadata(trained, takes, [])).SerializeToString())
    if file == predict.MODEL or front is not None:
        for module in (predict, *(READERS if takes == "table" else ())):
            source = Path(str(module.__file__))
            beside = source.read_text(encoding="utf-8").replace("\nfrom .", "\nfrom ")  # there is no package around them there
            (folder / source.name).write_text(beside, encoding="utf-8")
    return takes


def from_start(folder: Path, exported: Predictor, trained: TrainedModel) -> FromRaw | None:
    """Return what an exported folder says of a split, computed from its raw data: by ``model.onnx``, or by what ``prepare.onnx`` makes.

    None where there is neither, or beside another format where the raw data is not at hand. What it returns raises ``ExportFailed`` if the
    folder cannot take the data.
    """
    whole = (folder / predict.MODEL).is_file()
    if not whole and not (folder / PREPARATION).is_file():
        return None
    model = predict.Model(folder if whole else folder / PREPARATION)
    if not whole and not _at_hand(model.takes, trained.task.validation):
        return None

    def found(data: Data) -> np.ndarray:
        try:
            made = np.concatenate([model.answers(feed) for feed in _feeds(model, data, trained)])
            return _as_scores(trained, made) if whole else scores(trained, exported(made))
        except Exception as error:
            raise ExportFailed(f"the exported folder cannot predict the validation data from the start: {first_line(error)}") from error

    return found


def _as_scores(trained: TrainedModel, answers: np.ndarray) -> np.ndarray:
    """Turn what an exported folder answers into what the metrics take."""
    if trained.task.kind == "anomaly":
        return np.asarray(answers[:, 1])
    if trained.task.target_scale is not None:
        mean, deviation = trained.task.target_scale
        return np.asarray((answers - mean) / deviation, dtype=np.float32)
    return answers


def _at_hand(takes: str, data: Data) -> bool:
    raw, inner = getattr(data, "raw", None), data.whole if isinstance(data, Excerpt) else data
    if takes == "table":
        return raw is not None and raw.rows is not None
    return takes == "array" or (raw is not None and bool(raw.names)) or (takes == "image" and isinstance(inner, MemoryData))


def example(data: Data) -> str | None:
    """Return a file of a split that ``predict`` takes, None where there is none by itself."""
    raw = getattr(data, "raw", None)
    if raw is None:
        return None
    if raw.names:
        path = Path(raw.source.path) / raw.names[0]
        return str(path) if path.is_file() else None
    return str(raw.source) if isinstance(raw.source, Path) else None


def origin(data: Data) -> str:
    """Say what the examples of a split are read from."""
    raw = getattr(data, "raw", None)
    return "arrays" if raw is None else "raw files" if raw.names else "rows of the table"


def _feeds(model: predict.Model, data: Data, trained: TrainedModel) -> Iterator[dict[str, np.ndarray]]:
    raw = getattr(data, "raw", None)
    if model.takes == "inputs":
        yield from ({model.inputs[0]: inputs} for inputs, _ in batches(trained, data))
    elif model.takes == "table":
        if raw is None or raw.rows is None:
            raise ValueError("the rows of the table are unknown")
        frame = raw.source
        if not isinstance(frame, pd.DataFrame):
            frame = model.table(Path(frame))
        for first in range(0, len(raw.rows), ROWS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # what training had not: these rows are its own
                feed = model.columns(frame.iloc[raw.rows[first : first + ROWS]])
            yield feed
    elif raw is not None and raw.names and model.takes in ("image", "audio"):
        read = model.image if model.takes == "image" else model.waveform
        yield from _alike(model.inputs[0], (read(raw.source.read(name)) for name in raw.names))
    else:
        yield from _arrays(model, data, trained)


def _alike(name: str, examples: Iterator[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Stack neighbours of one shape."""
    waiting: list[np.ndarray] = []
    for one in examples:
        if waiting and (one.shape != waiting[0].shape or len(waiting) == predict.BATCH):
            yield {name: np.stack(waiting)}
            waiting = []
        waiting.append(one)
    if waiting:
        yield {name: np.stack(waiting)}


def _arrays(model: predict.Model, data: Data, trained: TrainedModel) -> Iterator[dict[str, np.ndarray]]:
    """Give arrays as a user has them: bytes as they are kept, numbers with their standardisation undone."""
    inner = data.whole if isinstance(data, Excerpt) else data
    shape, how = tuple(trained.task.input_shape), model.how
    if model.takes == "image":
        if not isinstance(inner, MemoryData):
            raise ValueError("the images of the validation split are not at hand")
        pixels = inner.inputs[: len(data)].cpu().numpy().transpose(0, 2, 3, 1)
        yield {model.inputs[0]: np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))}
        return
    if model.takes == "audio":
        raise ValueError("the recordings of the validation split are not at hand")
    values = data.arrays()[0].reshape(-1, *shape).astype(np.float64)
    mean, deviation = (np.reshape(how[key], (1, -1) + (1,) * (len(shape) - 1)) for key in ("mean", "std"))
    yield {model.inputs[0]: (values * deviation + mean) / how["scale"]}
