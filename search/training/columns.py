"""Columns of a table as model input: learnt from the training rows, kept as JSON, applied to any rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: A text column gets a feature for each of its most frequent values, at most this many; the others share one.
MAX_LEVELS = 32

Column = dict[str, Any]


def learn(frame: pd.DataFrame, *, max_levels: int = MAX_LEVELS, categorical: Collection[str] = ()) -> list[Column]:
    """Learn from training rows how each column becomes features.

    Numbers, truth values and times (seconds since 1970) are filled with their median where missing or infinite, marked there by a
    feature of their own, and standardised. Text becomes one feature for each frequent value, one for all others, one for missing.
    A column that says nothing (constant, empty, or text that never repeats) is dropped.

    Args:
        frame: Training rows.
        max_levels: Features for a text column at most.
        categorical: Columns of numbers that are codes, not amounts.

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


def feature_names(columns: list[Column]) -> list[str]:
    """Return the name of each feature that ``apply`` makes, in order."""
    names: list[str] = []
    for column in columns:
        names += [column["name"] + suffix for suffix in _suffixes(column)]
    return names


def apply(columns: list[Column], frame: pd.DataFrame) -> np.ndarray:
    """Turn rows into model input.

    Args:
        columns: What ``learn`` returned, or its JSON.
        frame: Rows that have these columns; others are passed over.

    Returns:
        ``(n, features)`` float32.

    Raises:
        ValueError: If a column is not there or has text where numbers were learnt.
    """
    used = [column for column in columns if column["type"] != "dropped"]
    absent = [column["name"] for column in used if column["name"] not in frame.columns]
    if absent:
        raise ValueError(f"the table lacks the column {absent[0]!r} ({len(absent)} lacking); it has {_listed(frame.columns)}")
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
    # A value that training never saw counts as one of the others; where there were none, it marks nothing.
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
        values[:] = frame.loc[:, names].to_numpy(dtype=np.float64)  # at once: one by one, ten thousand columns take seconds
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
    """Return text or None; whole numbers read alike whether or not a missing value made floats of them."""
    missing = values.isna().to_numpy()
    texts = np.empty(len(values), dtype=object)
    for k, value in enumerate(values.tolist()):
        texts[k] = None if missing[k] else str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return texts


def _listed(names: Collection[Any]) -> str:
    shown = ", ".join(map(str, list(names)[:20]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
