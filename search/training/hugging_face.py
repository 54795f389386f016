"""Tasks from a Hugging Face dataset in a local folder; needs the extra ``joulefront[datasets]``."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from .arrays import task_of_arrays
from .file_tree import split_of, unreadable
from .images import GREY_MODES, decode
from .table import table
from .task import Task, complete_splits, encode


def hugging_face(
    path: str | Path | Any,
    *,
    target: str = "label",
    image: str | None = None,
    resolution: int | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Task:
    """Make a task from a local dataset: what ``save_to_disk`` wrote, or a folder of Parquet, CSV or image files. Nothing is downloaded.

    A ``Dataset`` or ``DatasetDict`` is taken, too, with all it holds in memory.
    ``image`` is the column of the images, by default the first one of that type. Without one, the columns are read as a table (whose own
    splits are joined and drawn again). ``resolution`` is the side of the images in pixels; None for that of the first image. The other
    arguments are those of ``arrays``.

    Raises:
        ImportError: If the package ``datasets`` is not installed.
        FileNotFoundError: If the folder does not exist.
        ValueError: If a column is missing.
    """
    path, splits = _load(path)
    first = next(iter(splits.values()))
    for column in (target, *([] if image is None else [image])):
        if column not in first.column_names:
            raise ValueError(f"{path} has no column {column!r}; it has: {', '.join(first.column_names)}")
    if image is None:
        image = next((name for name, feature in first.features.items() if type(feature).__name__ == "Image"), None)
    names = getattr(first.features[target], "names", None)
    if image is None:
        frame = pd.concat([split.to_pandas() for split in splits.values()], ignore_index=True)
        if names is not None:
            frame[target] = [names[int(k)] if k is not None and k >= 0 else None for k in frame[target]]
        shares = {"validation_share": validation_share, "test_share": test_share}
        return table(frame, target, seed=seed, device=device, name=path.name, source=str(path), **shares)  # type: ignore[arg-type]  # no text
    import datasets

    # A published test split often has -1 for all of its labels.
    known = {
        key: [k for k, one in enumerate(split[target]) if one is not None and (one != -1 or names is None)] for key, split in splits.items()
    }
    if lost := sum(len(split) - len(known[key]) for key, split in splits.items()):
        warnings.warn(f"{path}: left out {lost} examples without {target}, as test splits have", stacklevel=2)
    raw = {key: split.select(known[key]).cast_column(image, datasets.Image(decode=False)) for key, split in splits.items() if known[key]}
    shape = _shape(next(iter(raw.values()))[0][image], resolution)
    pixels = np.stack([_decode(entry, shape, f"{path}, {key}, row {k}") for key in raw for k, entry in enumerate(raw[key][image])])
    labels = np.concatenate([np.asarray(split[target]) for split in raw.values()])
    targets = encode(labels, kind="classification", classes=names, name=f"column {target!r}")
    lengths = {key: len(split) for key, split in raw.items()}
    parts = complete_splits(targets.values, lengths, validation_share=validation_share, test_share=test_share, seed=seed)
    return task_of_arrays(path.name, pixels, targets, parts, device=device)


def _load(given: Any) -> tuple[Path, dict[str, Any]]:
    """Return where a dataset is, and its splits by our names; one without splits is all training data."""
    if hasattr(given, "column_names") and hasattr(given, "__len__"):  # of the class itself, whether or not the package can be imported
        return Path("dataset"), _splits(Path("dataset"), given)
    if not isinstance(given, str | os.PathLike):
        raise ValueError(f"path must be a folder, a Dataset or a DatasetDict, got {type(given).__name__}; give one of them")
    path = Path(given).expanduser()
    try:
        import datasets
    except ImportError as error:
        raise ImportError("datasets must be installed for Hugging Face data, got none; do pip install 'joulefront[datasets]'") from error
    if not path.is_dir():
        raise FileNotFoundError(f"no dataset at {path}; give a local folder, for example one that save_to_disk wrote")
    saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
    return path, _splits(path, datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path)))


def _splits(path: Path, loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, Mapping):
        return {"train": loaded}
    splits = {name: split for key, split in loaded.items() if (name := split_of(str(key)))}
    if "train" not in splits:
        raise ValueError(f"{path} has no train split; it has: {', '.join(map(str, loaded))}")
    return splits


def _bytes(entry: Mapping[str, Any]) -> bytes:
    data = entry["bytes"]
    return data if data is not None else Path(entry["path"]).read_bytes()


def _decode(entry: Mapping[str, Any], shape: tuple[int, int, int], where: str) -> np.ndarray:
    try:
        return decode(_bytes(entry), shape)
    except unreadable() as error:
        raise ValueError(f"cannot read the image of {where}: {' '.join(str(error).split())[:120]}; remove this row") from error


def _shape(entry: Mapping[str, Any], resolution: int | None) -> tuple[int, int, int]:
    with Image.open(io.BytesIO(_bytes(entry))) as first:
        channels = 1 if first.mode in GREY_MODES else 3
        width, height = first.size
    return (channels, height, width) if resolution is None else (channels, resolution, resolution)
