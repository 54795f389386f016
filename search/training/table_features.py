"""Columns of a table as features of numbers: learnt from training rows, kept as JSON, applied to any rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import LARGEST, Reading, as_json, from_json, is_text, numbers, readings, texts, zoned
from .table_encodings import (
    COMPACT,
    calendar_features,
    calendar_names,
    learn_calendar,
    learn_means,
    learn_words,
    level_codes,
    mean_features,
    word_features,
)
from .table_surprises import as_levels
from .text import StaticEmbedding, learn_text, text_features

if TYPE_CHECKING:
    import pandas as pd

#: A text column gets a feature for each of its most frequent values, at most this many; the others share one.
MAX_LEVELS = 32
#: Names of columns whose numbers, when all differ, name the rows: ``id``, ``CustomerID``, ``row_nr``, and columns without a name.
#: Hashes and UUIDs name them, too, whatever their column is called.
_HEX = re.compile(r"[0-9a-f]{6,}|[0-9A-F]{6,}")
_HASHES = re.compile(r"[0-9a-f]{12,}|[0-9A-F]{12,}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ROW_NAMES = re.compile(
    r"(?i:unnamed(: \d+)?|index|idx|[ug]u?id|row|(row|line)?[ _-]?(nr|no|num|number)\.?|(.*[ _-])?id|id[ _-].*|#|n[°º]|key|pk"
    r"|.*[ ._-](nr|no|num|number|key|pk)\.?|.*nummer|num[eé]ro)|.*[a-z](I[Dd]|N[ro])"
)
#: Names that an amount may have, too, as `population_num`: its numbers name the rows if they rise, lie close together or are of one length.
_COUNTS = re.compile(r"(?i:.+[ ._-](nr|no|num|number)\.?)")
#: Names that nothing but a counter of rows has, also where it begins again.
_COUNTERS = re.compile(r"(?i)unnamed(: \d+)?|index|idx|row|(row|line)[ _-]?(nr|no|num|number)\.?|#")
Column = dict[str, Any]


def learn(
    frame: pd.DataFrame,
    *,
    max_levels: int = MAX_LEVELS,
    categorical: Collection[str] = (),
    keep: Collection[str] = (),
    how: Mapping[str, Reading] | None = None,
    text: StaticEmbedding | None = None,
    goals: np.ndarray | None = None,
) -> list[Column]:
    """Learn from training rows how each column becomes features.

    Numbers, truth values and times (seconds since 1970) are filled with their median where missing, infinite or beyond 1e100, marked there
    by a feature of their own, and standardised. Text becomes one feature for each frequent value, one for all others, one for missing. A
    column without information (constant, empty, text that never repeats, numbers that name the rows unless in ``keep``) is dropped.
    ``categorical`` names columns of numbers that are codes, not amounts; a text column has ``max_levels`` features at most. ``how`` its
    texts are read is by default told from these rows. Dates have parts of the calendar beside their seconds; texts of more levels than that
    have the mean of the ``goals (n, k)`` of each level (see ``goals_of``; None for no such feature), and the words that some of them share.

    Returns:
        One JSON dictionary for each column: ``name``, ``type`` (numeric, categorical, text or dropped), and what ``apply`` needs.
    """
    how = readings(frame, categorical) if how is None else how
    numeric = [
        str(name)
        for name, dtype in frame.dtypes.items()
        if name not in categorical and (is_numeric(dtype) or how.get(str(name), Reading()).kind != "text")
    ]
    values = _numbers(frame, numeric, how)
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
        varies = filled[:, k].min() < filled[:, k].max()  # not by the deviation, which rounding leaves in a constant column
        rows = _ROW_NAMES.fullmatch(name) and _name_rows(values[:, k], counted=_COUNTS.fullmatch(name) is not None)
        if name not in keep and (rows or (_COUNTERS.fullmatch(name) and _count_rows(values[:, k]))):
            learnt[name] = {"name": name, "type": "dropped", "reason": "names the rows"}
            continue
        if not known[k] or not (varies or marked):
            learnt[name] = {"name": name, "type": "dropped", "reason": "constant" if known[k] else "empty"}
            continue
        dated = how.get(name, Reading()).kind == "date" or frame[name].dtype.kind == "M"
        learnt[name] = {
            "name": name,
            "type": "numeric",
            "fill": float(fill[k]),
            "mean": float(mean[k]),
            "std": float(deviation[k]) if varies else 1.0,
            "missing": marked,
            **as_json(how.get(name, Reading())),
            **({**learn_calendar(values[:, k]), **_zone(frame[name])} if dated else {}),
        }
        if frame[name].dtype.kind == "M" and "calendar" not in learnt[name]:  # where there is a calendar it says so
            learnt[name] |= as_json(Reading("date", "ISO8601"))
        if frame[name].dtype.kind == "b":  # which a file of text writes as True
            learnt[name] |= as_json(Reading("truth"))
    for name in map(str, frame.columns):
        if name not in learnt:
            learnt[name] = learn_text(name, frame[name], text) or _learn_levels(
                name, frame[name], max_levels, goals, shared=f"{name} words" not in frame.columns, keep=name in keep
            )
    return [learnt[str(name)] for name in frame.columns]


def apply(columns: list[Column], frame: pd.DataFrame) -> np.ndarray:
    """Turn rows into ``(n, features)`` float32, by what ``learn`` returned or its JSON; columns that it does not name are ignored.

    Raises:
        ValueError: If a column has text where numbers were learnt.
    """
    used = [column for column in columns if column["type"] != "dropped"]
    features = np.zeros((len(frame), len(feature_names(columns))), dtype=np.float32)
    numeric = [column for column in used if column["type"] == "numeric"]
    values = _numbers(frame, [column["name"] for column in numeric], {column["name"]: from_json(column) for column in numeric})
    missing = np.isnan(values)
    fill, mean, deviation = (np.array([column[key] for column in numeric], dtype=np.float64) for key in ("fill", "mean", "std"))
    standard = (np.where(missing, fill, values) - mean) / deviation
    position, done = 0, 0
    for column in used:
        if column["type"] == "numeric":
            features[:, position] = standard[:, done]
            if column["missing"]:
                features[:, position + 1] = missing[:, done]
            if column.get("calendar"):
                end = position + len(_suffixes(column))
                features[:, end - len(calendar_names(column)) : end] = calendar_features(column, values[:, done])
            done += 1
        elif column["type"] == "text":
            features[:, position : position + len(_suffixes(column))] = text_features(column, frame[str(column["name"])])
        else:
            found = as_levels(column, texts(frame[str(column["name"])]))
            _mark_levels(column, found, features[:, position : position + len(_suffixes(column))])
        position += len(_suffixes(column))
    return features


def feature_names(columns: list[Column]) -> list[str]:
    """Return the name of each feature that ``apply`` makes, in order."""
    return [column["name"] + suffix for column in columns for suffix in _suffixes(column)]


def _zone(values: pd.Series[Any]) -> dict[str, bool]:
    """Return whether the times of day of a column have a zone, where all have one or none has, see ``zoned``."""
    import pandas as pd

    some = values if is_text(values.dtype) else values.dropna().iloc[:1]  # those of a type are alike
    zones = zoned(pd.Series([*{*texts(some)} - {None}], dtype=object))
    return {"zone": bool(zones.iloc[0])} if zones.nunique() == 1 else {}


def _name_rows(values: np.ndarray, *, counted: bool) -> bool:
    count, values = len(values), values[np.isfinite(values)]
    if len(values) < max(4, 0.9 * count):
        return False
    whole = bool((values == np.round(values)).all()) and len(np.unique(values)) == len(values)
    rising = np.ptp(values) <= 3 * len(values) or bool((np.diff(values) > 0).all()) if whole else False
    return whole and (not counted or rising or len({len(f"{value:.0f}") for value in values}) == 1)


def _count_rows(values: np.ndarray) -> bool:
    """Whether numbers rise from row to row and begin again now and then, as those of tables that were joined."""
    steps = np.diff(values)
    return len(values) >= 20 and bool((steps != 0).all()) and 10 * int((steps < 0).sum()) <= len(values)


def _are_hashes(levels: list[str]) -> bool:
    """Whether texts are hashes or UUIDs; shorter ones are if they are of one length and nearly all have digits."""
    if all(map(_HASHES.fullmatch, levels)):
        return True
    digits = sum(any(map(str.isdigit, level)) for level in levels)
    return len({*map(len, levels)}) == 1 and all(map(_HEX.fullmatch, levels)) and digits >= 0.9 * len(levels)


def levels_with_means(columns: list[Column], frame: pd.DataFrame) -> dict[int, np.ndarray]:
    """Return the level of each row as ``level_codes`` does, ``(n,)``, of columns with mean targets, by the place of their first mean."""
    return {
        len(feature_names(columns[:k])) + len(_levels(column)): level_codes(as_levels(column, texts(frame[str(column["name"])])))[1]
        for k, column in enumerate(columns)
        if "target" in column
    }


def _learn_levels(
    name: str, values: pd.Series[Any], max_levels: int, goals: np.ndarray | None = None, shared: bool = True, keep: bool = False
) -> Column:
    found = texts(values)
    present = found[[text is not None for text in found]]
    levels, counts = np.unique(present.astype(str), return_counts=True) if len(present) else (np.array([]), np.array([]))
    repeated = levels[counts > 1]
    if not keep and len(levels) >= 4 and len(repeated) == 0 and _are_hashes(levels.tolist()):
        return {"name": name, "type": "dropped", "reason": "names the rows"}
    # The words are an input of the exported graph, by a name that another column may have.
    words = learn_words(list(found)) if len(levels) > max_levels and shared else []
    if len(levels) == 0 or (len(repeated) == 0 and not words) or (len(levels) == 1 and len(present) == len(found)):
        reason = "empty" if len(levels) == 0 else "constant" if len(levels) == 1 else "never repeats"
        return {"name": name, "type": "dropped", "reason": reason}
    # The most frequent first, ties by name, so that the order of the rows does not matter.
    order = np.lexsort((levels, -counts))
    frequent = [str(levels[k]) for k in order if counts[k] > 1][:max_levels]
    return {
        "name": name,
        "type": "categorical",
        "levels": sorted(frequent),
        "other": 0 < len(frequent) < len(levels),
        "missing": len(present) < len(found),
        **({"target": learn_means(found, goals)} if goals is not None and len(repeated) > max_levels else {}),
        **({"words": words} if words else {}),
    }


def _mark_levels(column: Mapping[str, Any], values: np.ndarray, features: np.ndarray) -> None:
    other, last = len(column["levels"]) if column["other"] else None, len(_levels(column))
    if "target" in column:
        count = len(column["target"]["prior"])
        features[:, last : last + count] = mean_features(column["target"], values)
    if "words" in column:
        features[:, features.shape[1] - len(column["words"]) :] = word_features(column["words"], list(values))
    # One that did not occur in training is one of the others; where there were none, it has no feature.
    places, missing = {level: k for k, level in enumerate(column["levels"])}, last - 1 if column["missing"] else other
    where = [missing if text is None else places.get(text, other) for text in values]
    rows = np.array([row for row, place in enumerate(where) if place is not None], dtype=int)
    features[rows, [place for place in where if place is not None]] = 1.0


def _suffixes(column: Mapping[str, Any]) -> list[str]:
    if column["type"] == "dropped":
        return []
    missing = ["?"] if column["missing"] else []
    if column["type"] == "numeric":
        return ["", *missing, *calendar_names(column)]
    if column["type"] == "text":
        return [*(f"~{k}" for k in range(len(column["components"]))), *missing]
    means = [f"~target{k or ''}" for k in range(len(column["target"]["prior"]))] if "target" in column else []
    return [*_levels(column), *means, *(f"~{word}" for word in column.get("words", ()))]


def _levels(column: Mapping[str, Any]) -> list[str]:
    return [*(f"={level}" for level in column["levels"]), *(["=*"] if column["other"] else []), *(["?"] if column["missing"] else [])]


def is_numeric(dtype: Any) -> bool:
    """Whether values of a type are numbers, truth values or times."""
    from pandas.api import types

    return bool(types.is_numeric_dtype(dtype) or types.is_datetime64_any_dtype(dtype)) and not types.is_complex_dtype(dtype)


def _numbers(frame: pd.DataFrame, names: list[str], how: Mapping[str, Reading]) -> np.ndarray:
    """Return ``(n, columns)`` float64, NaN where missing, infinite or a marker (``LARGEST``)."""
    values = np.empty((len(frame), len(names)))
    compact = any(reading.how.startswith(COMPACT) for reading in how.values())
    if not compact and all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in frame.dtypes.loc[names]):
        values[:] = frame.loc[:, names].to_numpy(dtype=np.float64)  # all at once: ten thousand columns one by one take seconds
        names = []
    for k, name in enumerate(names):
        values[:, k] = numbers(frame[name], how.get(name, Reading()))
        absent = (None, *how.get(name, Reading()).gaps)
        if is_text(frame[name].dtype) and np.isnan(values[:, k]).all() and any(text not in absent for text in texts(frame[name])):
            what = {"date": "dates", "duration": "durations"}.get(how[name].kind if name in how else "", "numbers")
            raise ValueError(
                f"the column {name!r} must hold {what} as in training, got text, e.g. {frame[name].iloc[0]!r}; write it as there"
            )
    values[~(np.abs(values) < LARGEST)] = np.nan
    return values


def without_endless(source: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which numbers that are infinite or beyond ``LARGEST`` are missing; a warning counts them."""
    known = {}
    for name in [str(name) for name, dtype in frame.dtypes.items() if dtype.kind == "f"]:
        values = numbers(frame[name])
        if (endless := np.abs(values) >= LARGEST).any():
            what = "infinite" if np.isinf(values[endless]).all() else f"beyond {LARGEST:g}"
            warnings.warn(f"{source}: {endless.sum()} values of {name!r} are {what}, and count as missing", stacklevel=3)
            known[name] = np.where(endless, np.nan, values)
    return frame.assign(**known)


def listed(names: Collection[Any]) -> str:
    """Return the first names of columns, and how many there are."""
    shown = ", ".join(map(str, list(names)[:20]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
