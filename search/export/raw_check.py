"""The check of what a stranger will do: the exported folder predicts the very files, rows or arrays of a split."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..training import columns, table_encodings, table_file, table_rows, table_surprises
from ..training.splits_data import Excerpt, MemoryData
from ..training.task import Data
from . import predict
from .model import ExportFailed, Predictor, TrainedModel, first_line
from .onnx_format import metadata
from .parity import FromRaw, batches, scores
from .raw_graph import front_of, preparation

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
        (folder / predict.PREPARATION).write_bytes(preparation(trained, front, metadata(trained, takes, [])).SerializeToString())
    if file == predict.MODEL or front is not None:
        for module in (predict, *((columns, table_encodings, table_file, table_rows, table_surprises) if takes == "table" else ())):
            source = Path(str(module.__file__))
            shutil.copyfile(source, folder / source.name)
    return takes


def from_start(folder: Path, exported: Predictor, trained: TrainedModel) -> FromRaw | None:
    """Return what an exported folder says of a split, computed from its raw data: by ``model.onnx``, or by what ``prepare.onnx`` makes.

    None where there is neither, or beside another format where the raw data is not at hand. What it returns raises ``ExportFailed`` if the
    folder cannot take the data.
    """
    whole = (folder / predict.MODEL).is_file()
    if not whole and not (folder / predict.PREPARATION).is_file():
        return None
    model = predict.Model(folder if whole else folder / predict.PREPARATION)
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
    if raw is None:
        return "arrays"
    return "raw files" if raw.names else "rows of the table"


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
