"""Tasks from a CSV or Parquet file: its columns become features, learnt from the training rows, kept as JSON, applied to any rows."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import task_in_memory
from .columns import MISSING, Reading, as_json, from_json, infer, is_text, numbers, parse, readings, texts
from .table_file import read
from .task import Kind, Task, encode, split_indices
from .text import StaticEmbedding, learn_text, text_features

if TYPE_CHECKING:
    import pandas as pd
    import torch

#: A text column gets a feature for each of its most frequent values, at most this many; the others share one.
MAX_LEVELS = 32
#: Names of columns whose numbers, when all differ, name the rows: ``id``, ``CustomerID``, ``row_nr``, and columns without a name.
_ROW_NAMES = re.compile(r"(?i:unnamed(: \d+)?|index|idx|uuid|row|(row|line)?[ _-]?(nr|no|num|number)\.?|(.*[ _-])?id)|.*[a-z]I[Dd]")
Column = dict[str, Any]


def table(
    data: str | Path | pd.DataFrame,
    target: str | Sequence[str],
    *,
    kind: Kind | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    drop: str | Collection[str] = (),
    keep: str | Collection[str] = (),
    categorical: str | Collection[str] = (),
    max_levels: int = MAX_LEVELS,
    device: str | torch.device = "cpu",
    name: str | None = None,
    source: str | None = None,
    text: StaticEmbedding | None = None,
) -> Task:
    """Make a task from a CSV or Parquet file, or from a data frame.

    Rows without a target are left out with a warning that counts them. Everything that is learnt about the columns (medians, means,
    frequent values) is learnt from the training rows and stored in ``task.preprocessing`` as JSON for ``prepare``. What is probably not
    meant gets a warning with its remedy: columns that name the rows, that hold the target, that are numbers but for some cells.

    - ``data``: A data frame, or a file ``.csv``, ``.tsv``, ``.txt`` (also compressed) or ``.parquet``; see ``table_file.read``.
    - ``target``: Column to predict, or several columns of 0 and 1 (multilabel).
    - ``kind``: None infers it: text, truth values and at most 20 different whole numbers are classes.
    - ``validation_share``: Share of the rows for validation, stratified by class; a ``test_share`` of 0 is for none.
    - ``drop``: Columns to leave out; ``keep``: columns that are used although their numbers seem to name the rows.
    - ``categorical``: Columns of numbers that are codes, not amounts; a text column has ``max_levels`` features at most. A text with
      commas names several columns here.
    - ``text``: Makes features of columns of free text, see ``find_text`` in ``text.py``; without it they are left out.
    - ``device``: Where the tensors are put at first.
    - ``name``: By default that of the file; ``source``, which names the table in messages, is by default its path.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, lacks a column, or no feature is left.
    """
    wanted = [target] if isinstance(target, str) else list(target)
    drop, keep, categorical = (_names(given) for given in (drop, keep, categorical))
    if isinstance(data, str | Path):
        path = Path(data).expanduser()
        data, name, source = read(path, wanted), name or path.name.split(".")[0], source or str(path)
    source = source or "the table"
    frame = data.set_axis(data.columns.astype(str).str.strip(), axis=1)
    for column in (*wanted, *drop, *keep, *categorical):
        if column not in frame.columns:
            raise ValueError(_no_column(source, column, [str(entry) for entry in frame.columns]))
    frame = frame.drop(columns=[column for column in drop if column not in wanted])
    if len(twice := frame.columns[frame.columns.duplicated()]):
        raise ValueError(f"{source} has the column {twice[0]!r} twice; rename one" + ("" if twice[0] in wanted else ", or drop both"))
    values = {column: _target(frame[column], source) for column in wanted}
    labelled = np.logical_and.reduce([[value == value and value is not None for value in one] for one in values.values()])
    if not labelled.all():
        cells = {str(text) for column, one in values.items() for text in frame[column][[value is None or value != value for value in one]]}
        cells -= {"", "nan", "None", "<NA>"}
        shown = f" ({', '.join(sorted(cells)[:5])})" if cells else ""
        left_out = f"{int((~labelled).sum())} of {len(frame)} rows without {', '.join(wanted)}{shown}"
        warnings.warn(f"{source}: left out {left_out}", stacklevel=2)
        frame = frame[labelled]
    if len(frame) < 4:
        raise ValueError(f"{source} has {len(frame)} rows with a target; give at least 4")
    raw = [one[labelled].astype(str) if one.dtype.kind == "O" else one[labelled] for one in values.values()]
    targets = encode(
        raw[0] if isinstance(target, str) else np.column_stack(raw),
        kind=kind,
        classes=None if isinstance(target, str) else wanted,
        name=f"column {target!r}",
    )
    parts = split_indices(
        targets.values,
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        stratified=targets.kind in ("classification", "anomaly"),
    )
    inputs = frame.drop(columns=wanted)
    how = readings(inputs, categorical)
    copies = [] if targets.values.ndim > 1 else _copies(inputs, how, targets.values, str(target), source, keep)
    inputs = inputs.drop(columns=copies)
    columns = learn(inputs.iloc[parts[0]], max_levels=max_levels, categorical=categorical, keep=keep, how=how, text=text)
    _warn(source, columns, how, targets.values if kind is None and targets.kind == "regression" else None)
    features = apply(columns, inputs)
    if features.shape[1] == 0:
        reasons = ", ".join(f"{column['name']} ({column['reason']})" for column in columns[:5])
        raise ValueError(f"{source} has no column to predict {target!r} from: {reasons or 'there is no other column'}")
    preprocessing = {"kind": "table", "target": target if isinstance(target, str) else wanted, "columns": columns}
    preprocessing["features"] = feature_names(columns)
    return task_in_memory(name or "table", features, targets, parts, preprocessing, device=device)


def prepare(preprocessing: Mapping[str, Any], rows: pd.DataFrame | str | Path) -> np.ndarray:
    """Turn rows of a user's table, or a file of them, into model input ``(n, features)`` float32 as a task's ``preprocessing`` describes.

    A file is read as in training; in a data frame dates, decimal commas and codes may be text, or what a reader of CSV made of them. Values
    that training never saw set no feature, or count as missing; a warning counts them.

    Raises:
        ValueError: If a column is missing.
    """
    columns = list(preprocessing["columns"])
    if isinstance(rows, str | Path):
        rows = read(Path(rows).expanduser(), [column["name"] for column in columns if column["type"] != "dropped"])
    rows = rows.set_axis(rows.columns.astype(str).str.strip(), axis=1)
    features = apply(columns, rows)
    for column in (column for column in columns if column["type"] not in ("dropped", "text")):
        name, values = column["name"], texts(rows[column["name"]])
        known = [True] * len(rows)
        if column["type"] != "numeric":
            known = [place is not None for place in _places(column, values, missing=0, other=0 if column["other"] else None)]
        elif is_text(rows[name].dtype):
            known = (~np.isnan(numbers(rows[name], from_json(column)))).tolist()
        strange = [value for value, one in zip(values, known, strict=True) if not one and value is not None]
        if strange:
            counts = "as missing" if column["type"] == "numeric" else "as none of those"
            warnings.warn(
                f"{len(strange)} values of {name!r} were not seen in training, e.g. {strange[0]!r}: counted {counts}", stacklevel=2
            )
    return features


def learn(
    frame: pd.DataFrame,
    *,
    max_levels: int = MAX_LEVELS,
    categorical: Collection[str] = (),
    keep: Collection[str] = (),
    how: Mapping[str, Reading] | None = None,
    text: StaticEmbedding | None = None,
) -> list[Column]:
    """Learn from training rows how each column becomes features.

    Numbers, truth values and times (seconds since 1970) are filled with their median where missing or infinite, marked there by a feature
    of their own, and standardised. Text becomes one feature for each frequent value, one for all others, one for missing. A column without
    information (constant, empty, text that never repeats, numbers that name the rows unless in ``keep``) is dropped. ``categorical`` names
    columns of numbers that are codes, not amounts; a text column has ``max_levels`` features at most. ``how`` its texts are read is by
    default told from these rows.

    Returns:
        One JSON dictionary for each column: ``name``, ``type`` (numeric, categorical, text or dropped), and what ``apply`` needs.
    """
    how = readings(frame, categorical) if how is None else how
    numeric = [
        str(name)
        for name, dtype in frame.dtypes.items()
        if name not in categorical and (_is_numeric(dtype) or how.get(str(name), Reading()).kind != "text")
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
        if name not in keep and _ROW_NAMES.fullmatch(name) and _name_rows(values[:, k]):
            learnt[name] = {"name": name, "type": "dropped", "reason": "names the rows"}
            continue
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
            **as_json(how.get(name, Reading())),
        }
    for name in map(str, frame.columns):
        if name not in learnt:
            learnt[name] = learn_text(name, frame[name], text) or _learn_levels(name, frame[name], max_levels)
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
            done += 1
        elif column["type"] == "text":
            features[:, position : position + len(_suffixes(column))] = text_features(column, frame[str(column["name"])])
        else:
            _mark_levels(column, texts(frame[str(column["name"])]), features[:, position : position + len(_suffixes(column))])
        position += len(_suffixes(column))
    return features


def feature_names(columns: list[Column]) -> list[str]:
    """Return the name of each feature that ``apply`` makes, in order."""
    names: list[str] = []
    for column in columns:
        names += [column["name"] + suffix for suffix in _suffixes(column)]
    return names


def _names(given: str | Collection[str]) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else list(given)


def _target(column: pd.Series[Any], source: str) -> np.ndarray:
    """Return the values of a target ``(n,)``: numbers, truth values, or texts and None; only an empty cell is no class of text."""
    if not is_text(column.dtype) and _is_numeric(column.dtype) and column.dtype.kind != "M":
        return np.asarray(column.to_numpy(dtype=column.dtype.type if isinstance(column.dtype, np.dtype) else np.float64, na_value=np.nan))
    found, empty = texts(column, {""}), column.isna().to_numpy()
    found[empty] = None
    plain = np.array([None if text is None or text.lower() in MISSING else text for text in found], dtype=object)
    reading = infer(plain)
    if reading.kind == "number":
        return parse(plain, reading)
    odd = sorted({text for text in found if text is not None and text.lower() in MISSING})
    if odd and str(column.dtype) != "category":
        warnings.warn(f"{source}: {odd[0]!r} in {column.name} is taken for a class; empty these cells if it means missing", stacklevel=3)
    return np.array([text == "True" or text == "true" for text in found]) if reading.kind == "truth" and None not in found else found


def _copies(
    frame: pd.DataFrame, how: Mapping[str, Reading], target: np.ndarray, name: str, source: str, keep: Collection[str]
) -> list[str]:
    """Return the columns that are the target again, under nearly its name; a warning names them, and others that tell it alone."""
    import pandas as pd

    def plain(text: str) -> str:
        return re.sub(r"[\W_]|[._]?\d+$", "", text.casefold())

    codes, found = pd.factorize(target)[0], []
    if len(target) < 10 or len(set(codes)) < 2:
        return []
    for column in map(str, frame.columns):
        values = frame[column] if how.get(column, Reading()).kind == "text" else numbers(frame[column], how[column])
        same = np.array_equal(pd.factorize(texts(frame[column]) if is_text(values.dtype) else values)[0], codes)
        if same and target.dtype.kind == "f":
            with np.errstate(all="ignore"):
                same = not is_text(values.dtype) and abs(np.corrcoef(np.asarray(values, dtype=float), target)[0, 1]) > 1 - 1e-12
        if same and column not in keep:
            near = plain(column) == plain(name)
            found += [column] if near else []
            does = "is the target again; left out, --set keep=" if near else "tells the target alone; if it is known too late, --set drop="
            warnings.warn(f"{source}: the column {column!r} {does}{column}", stacklevel=3)
    return found


def _name_rows(values: np.ndarray) -> bool:
    return len(values) >= 4 and bool((values == np.round(values)).all()) and len(np.unique(values)) == len(values)


def _warn(source: str, columns: Sequence[Column], how: Mapping[str, Reading], amounts: np.ndarray | None) -> None:
    """Say what was probably not meant, with the option that changes it."""
    said = [f"{name!r} {reading.note} (--set {quote(f'drop={name}')} leaves it out)" for name, reading in how.items() if reading.note]
    for reason in ("names the rows", "never repeats"):
        if out := [column["name"] for column in columns if column.get("reason") == reason]:
            option = f"; --set {quote('keep=' + ','.join(out))} uses it" if reason == "names the rows" else ""
            said.append(f"left out {', '.join(map(repr, out[:10]))}, which {reason}{option}")
    if amounts is not None and (amounts == np.round(amounts)).all() and (levels := len(np.unique(amounts))) * 5 <= len(amounts):
        said.append(f"the target is taken for amounts, {levels} different ones; --set kind=classification makes classes of them")
    for one in said:
        warnings.warn(f"{source}: {one}", stacklevel=3)


def _no_column(source: str, column: str, names: list[str]) -> str:
    near = difflib.get_close_matches(column, names, n=1)
    hint = f"; did you mean {near[0]!r}? It" if near else "; it"
    return f"{source} has no column {column!r}{hint} has: {_listed(names)}"


def _learn_levels(name: str, values: pd.Series[Any], max_levels: int) -> Column:
    found = texts(values)
    present = found[[text is not None for text in found]]
    levels, counts = np.unique(present.astype(str), return_counts=True) if len(present) else (np.array([]), np.array([]))
    repeated = levels[counts > 1]
    if len(levels) == 0 or len(repeated) == 0 or (len(levels) == 1 and len(present) == len(found)):
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
        "missing": len(present) < len(found),
    }


def _mark_levels(column: Mapping[str, Any], values: np.ndarray, features: np.ndarray) -> None:
    other = len(column["levels"]) if column["other"] else None
    where = _places(column, values, missing=features.shape[1] - 1 if column["missing"] else other, other=other)
    rows = np.array([row for row, place in enumerate(where) if place is not None], dtype=int)
    features[rows, [place for place in where if place is not None]] = 1.0


def _places(column: Mapping[str, Any], values: np.ndarray, *, missing: int | None, other: int | None) -> list[int | None]:
    """Return which level each text is; one that did not occur in training is one of the others; where there were none, it is None."""
    places = {level: k for k, level in enumerate(column["levels"])}
    # A reader of CSV makes 1 of the code 01; where no two levels are the same number, it still is that level.
    amounts = parse(np.array(column["levels"], dtype=object), Reading("number"))
    for k, amount in enumerate(amounts):
        if np.isfinite(amount) and (amounts == amount).sum() == 1 and amount.is_integer():
            places.setdefault(str(int(amount)), k)
    return [missing if text is None else places.get(text, other) for text in values]


def _suffixes(column: Mapping[str, Any]) -> list[str]:
    if column["type"] == "dropped":
        return []
    missing = ["?"] if column["missing"] else []
    if column["type"] == "numeric":
        return ["", *missing]
    if column["type"] == "text":
        return [*(f"~{k}" for k in range(len(column["components"]))), *missing]
    return [*(f"={level}" for level in column["levels"]), *(["=*"] if column["other"] else []), *missing]


def _is_numeric(dtype: Any) -> bool:
    from pandas.api import types

    return bool(types.is_numeric_dtype(dtype) or types.is_datetime64_any_dtype(dtype)) and not types.is_complex_dtype(dtype)


def _numbers(frame: pd.DataFrame, names: list[str], how: Mapping[str, Reading]) -> np.ndarray:
    """Return ``(n, columns)`` float64, NaN where missing or infinite."""
    values = np.empty((len(frame), len(names)))
    if all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in frame.dtypes.loc[names]):
        values[:] = frame.loc[:, names].to_numpy(dtype=np.float64)  # all at once: ten thousand columns one by one take seconds
        names = []
    for k, name in enumerate(names):
        values[:, k] = numbers(frame[name], how.get(name, Reading()))
        if is_text(frame[name].dtype) and np.isnan(values[:, k]).all() and any(text is not None for text in texts(frame[name])):
            raise ValueError(f"the column {name!r} must hold numbers as it did in training, got text, e.g. {frame[name].iloc[0]!r}")
    values[~np.isfinite(values)] = np.nan
    return values


def _listed(names: Collection[Any]) -> str:
    shown = ", ".join(map(str, list(names)[:20]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 20 else "")


#: The same for what is in memory already.
table_of = table
