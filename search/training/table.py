"""Tasks from a CSV or Parquet file: its columns become features, learnt from the training rows, kept as JSON, applied to any rows."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import task_in_memory
from .task import Kind, Task, encode, split_indices

if TYPE_CHECKING:
    import pandas as pd
    import torch

PARQUET = frozenset({".parquet", ".pq"})
TEXT = frozenset({".csv", ".tsv", ".txt"})
#: A text column gets a feature for each of its most frequent values, at most this many; the others share one.
MAX_LEVELS = 32
Column = dict[str, Any]


def table(
    data: str | Path | pd.DataFrame,
    target: str | Sequence[str],
    *,
    kind: Kind | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    max_levels: int = MAX_LEVELS,
    device: str | torch.device = "cpu",
    name: str | None = None,
    source: str | None = None,
) -> Task:
    """Make a task from a CSV or Parquet file, or from a data frame.

    Rows without a target are left out with a warning that counts them. Everything that is learnt about the columns (medians, means,
    frequent values) is learnt from the training rows and stored in ``task.preprocessing`` as JSON for ``prepare``.

    - ``data``: A data frame, or a file ``.csv``, ``.tsv``, ``.txt`` (also compressed) or ``.parquet``; the first line names the columns.
    - ``target``: Column to predict, or several columns of 0 and 1 (multilabel).
    - ``kind``: None infers it: text, truth values and at most 20 different whole numbers are classes.
    - ``validation_share``: Share of the rows for validation, stratified by class; a ``test_share`` of 0 is for none.
    - ``drop``: Columns to leave out, for example row numbers.
    - ``categorical``: Columns of numbers that are codes, not amounts; a text column has ``max_levels`` features at most.
    - ``device``: Where the tensors are put at first.
    - ``name``: By default that of the file; ``source``, which names the table in messages, is by default its path.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, lacks a column, or no feature is left.
    """
    if isinstance(data, str | Path):
        path = Path(data).expanduser()
        data, name, source = read(path), name or path.name.split(".")[0], source or str(path)
    source = source or "the table"
    frame = data.set_axis(data.columns.astype(str), axis=1)
    wanted = [target] if isinstance(target, str) else list(target)
    for column in (*wanted, *drop, *categorical):
        if column not in frame.columns:
            raise ValueError(_no_column(source, column, [str(entry) for entry in frame.columns]))
    labelled = frame[wanted].notna().all(axis=1)
    if not labelled.all():
        left_out = int((~labelled).sum())
        warnings.warn(f"{source}: left out {left_out} of {len(frame)} rows without {', '.join(wanted)}", stacklevel=2)
        frame = frame[labelled]
    if len(frame) < 4:
        raise ValueError(f"{source} has {len(frame)} rows with a target; give at least 4")
    targets = encode(_values(frame, target), kind=kind, classes=None if isinstance(target, str) else wanted, name=f"column {target!r}")
    parts = split_indices(
        targets.values,
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        stratified=targets.kind in ("classification", "anomaly"),
    )
    inputs = frame.drop(columns=[*wanted, *drop])
    columns = learn(inputs.iloc[parts[0]], max_levels=max_levels, categorical=categorical)
    features = apply(columns, inputs)
    if features.shape[1] == 0:
        reasons = ", ".join(f"{column['name']} ({column['reason']})" for column in columns[:5])
        raise ValueError(f"{source} has no column to predict {target!r} from: {reasons or 'there is no other column'}")
    preprocessing = {"kind": "table", "target": target if isinstance(target, str) else wanted, "columns": columns}
    preprocessing["features"] = feature_names(columns)
    return task_in_memory(name or "table", features, targets, parts, preprocessing, device=device)


def prepare(preprocessing: Mapping[str, Any], rows: pd.DataFrame) -> np.ndarray:
    """Turn rows of a user's table into model input ``(n, features)`` float32 as a task's ``preprocessing`` describes.

    Raises:
        ValueError: If a column is missing.
    """
    return apply(list(preprocessing["columns"]), rows)


def read(path: Path) -> pd.DataFrame:
    """Read a table; the separator of a text file is the most frequent of comma, semicolon, tab and bar in its first line.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}; give a CSV or Parquet file")
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    try:
        if suffixes & PARQUET:
            return pd.read_parquet(path)
        if suffixes & TEXT:
            head = pd.read_csv(path, nrows=1, header=None, sep="\0", engine="c", dtype=str, skip_blank_lines=True)
            line = str(head.iloc[0, 0])
            return pd.read_csv(path, sep=max(",;\t|", key=line.count), low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError, ImportError) as error:
        raise ValueError(f"cannot read the table {path}: {' '.join(str(error).split())[:200]}") from error
    raise ValueError(f"{path} must end in {', '.join(sorted(TEXT | PARQUET))}, got {''.join(path.suffixes) or 'no suffix'}")


def learn(frame: pd.DataFrame, *, max_levels: int = MAX_LEVELS, categorical: Collection[str] = ()) -> list[Column]:
    """Learn from training rows how each column becomes features.

    Numbers, truth values and times (seconds since 1970) are filled with their median where missing or infinite, marked there by a feature
    of their own, and standardised. Text becomes one feature for each frequent value, one for all others, one for missing. A column without
    information (constant, empty, or text that never repeats) is dropped. ``categorical`` names columns of numbers that are codes, not
    amounts; a text column has ``max_levels`` features at most.

    Returns:
        One JSON dictionary for each column: ``name``, ``type`` (``numeric``, ``categorical``, ``dropped``), and what ``apply`` needs.
    """
    numeric = [str(name) for name, dtype in frame.dtypes.items() if _is_numeric(dtype) and name not in categorical]
    values = _numbers(frame, numeric)
    missing = np.isnan(values)
    known = ~missing.all(axis=0)
    fill = np.zeros(len(numeric))
    if known.any():
        fill[known] = np.nanmedian(values[:, known], axis=0)
    filled = np.where(missing, fill, values)
    mean, deviation = filled.mean(axis=0), filled.std(axis=0)
    learnt: dict[str, Column] = {}
    for k, name in enumerate(numeric):
        marked = bool(missing[:, k].any())
        # Rounding leaves a tiny deviation in a constant column of large numbers.
        varies = deviation[k] > 1e-12 * max(1.0, abs(mean[k]))
        if not known[k] or not (varies or marked):
            learnt[name] = {"name": name, "type": "dropped", "reason": "constant" if known[k] else "empty"}
            continue
        learnt[name] = {
            "name": name,
            "type": "numeric",
            "fill": float(fill[k]),
            "mean": float(mean[k]),
            "std": float(deviation[k]) if varies else 1.0,
            "missing": marked,
        }
    for name in map(str, frame.columns):
        if name not in learnt:
            learnt[name] = _learn_levels(name, frame[name], max_levels)
    return [learnt[str(name)] for name in frame.columns]


def apply(columns: list[Column], frame: pd.DataFrame) -> np.ndarray:
    """Turn rows into ``(n, features)`` float32, by what ``learn`` returned or its JSON; columns that it does not name are ignored.

    Raises:
        ValueError: If a column is missing or has text where numbers were learnt.
    """
    used = [column for column in columns if column["type"] != "dropped"]
    absent = [column["name"] for column in used if column["name"] not in frame.columns]
    if absent:
        raise ValueError(f"the table must have the column {absent[0]!r} ({len(absent)} are missing), got {_listed(frame.columns)}")
    features = np.zeros((len(frame), len(feature_names(columns))), dtype=np.float32)
    numeric = [column for column in used if column["type"] == "numeric"]
    values = _numbers(frame, [column["name"] for column in numeric])
    missing = np.isnan(values)
    fill, mean, deviation = (np.array([column[key] for column in numeric], dtype=np.float64) for key in ("fill", "mean", "std"))
    standard = (np.where(missing, fill, values) - mean) / deviation
    position, done = 0, 0
    for column in used:
        if column["type"] == "numeric":
            features[:, position] = standard[:, done]
            if column["missing"]:
                features[:, position + 1] = missing[:, done]
            done += 1
        else:
            _mark_levels(column, _texts(frame.loc[:, str(column["name"])]), features[:, position : position + len(_suffixes(column))])
        position += len(_suffixes(column))
    return features


def feature_names(columns: list[Column]) -> list[str]:
    """Return the name of each feature that ``apply`` makes, in order."""
    names: list[str] = []
    for column in columns:
        names += [column["name"] + suffix for suffix in _suffixes(column)]
    return names


def _values(frame: pd.DataFrame, target: str | Sequence[str]) -> np.ndarray:
    if not isinstance(target, str):
        return frame[list(target)].to_numpy()
    values = frame[target]
    if values.dtype.kind in "biuf":
        return np.asarray(values.to_numpy(dtype=values.dtype.type if isinstance(values.dtype, np.dtype) else np.float64))
    return np.asarray([str(value) for value in values])


def _no_column(source: str, column: str, names: list[str]) -> str:
    near = difflib.get_close_matches(column, names, n=1)
    hint = f"; did you mean {near[0]!r}? It" if near else "; it"
    return f"{source} has no column {column!r}{hint} has: {_listed(names)}"


def _learn_levels(name: str, values: pd.Series[Any], max_levels: int) -> Column:
    texts = _texts(values)
    present = texts[[text is not None for text in texts]]
    levels, counts = np.unique(present.astype(str), return_counts=True) if len(present) else (np.array([]), np.array([]))
    repeated = levels[counts > 1]
    if len(levels) == 0 or len(repeated) == 0 or (len(levels) == 1 and len(present) == len(texts)):
        reason = "empty" if len(levels) == 0 else "constant" if len(levels) == 1 else "never repeats"
        return {"name": name, "type": "dropped", "reason": reason}
    # The most frequent first, ties by name, so that the order of the rows does not matter.
    order = np.lexsort((levels, -counts))
    frequent = [str(levels[k]) for k in order if counts[k] > 1][:max_levels]
    return {
        "name": name,
        "type": "categorical",
        "levels": sorted(frequent),
        "other": len(frequent) < len(levels),
        "missing": len(present) < len(texts),
    }


def _mark_levels(column: Mapping[str, Any], texts: np.ndarray, features: np.ndarray) -> None:
    places = {level: k for k, level in enumerate(column["levels"])}
    other = len(places) if column["other"] else None
    empty = features.shape[1] - 1 if column["missing"] else other
    # A value that did not occur in training counts as one of the others; where there were none, it sets no feature.
    where = [empty if text is None else places.get(text, other) for text in texts]
    rows = np.array([row for row, place in enumerate(where) if place is not None], dtype=int)
    features[rows, [place for place in where if place is not None]] = 1.0


def _suffixes(column: Mapping[str, Any]) -> list[str]:
    if column["type"] == "dropped":
        return []
    missing = ["?"] if column["missing"] else []
    if column["type"] == "numeric":
        return ["", *missing]
    return [*(f"={level}" for level in column["levels"]), *(["=*"] if column["other"] else []), *missing]


def _is_numeric(dtype: Any) -> bool:
    from pandas.api import types

    return bool(types.is_numeric_dtype(dtype) or types.is_datetime64_any_dtype(dtype)) and not types.is_complex_dtype(dtype)


def _numbers(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return ``(n, columns)`` float64, NaN where missing or infinite."""
    import pandas as pd

    values = np.empty((len(frame), len(names)))
    if all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in frame.dtypes.loc[names]):
        values[:] = frame.loc[:, names].to_numpy(dtype=np.float64)  # all at once: ten thousand columns one by one take seconds
        names = []
    for k, name in enumerate(names):
        column = frame[name]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            values[:, k] = column.to_numpy()
        elif pd.api.types.is_datetime64_any_dtype(column):
            times = column.dt.tz_localize(None) if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
            values[:, k] = ((times - pd.Timestamp(0)) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            try:
                values[:, k] = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError) as error:
                raise ValueError(f"the column {name!r} must hold numbers as it did in training: {error}") from None
    values[~np.isfinite(values)] = np.nan
    return values


def _texts(values: pd.Series[Any]) -> np.ndarray:
    """Return text or None; whole numbers give the same text whether or not a missing value turned them into floats."""
    missing = values.isna().to_numpy()
    texts = np.empty(len(values), dtype=object)
    for k, value in enumerate(values.tolist()):
        texts[k] = None if missing[k] else str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return texts


def _listed(names: Collection[Any]) -> str:
    shown = ", ".join(map(str, list(names)[:20]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
