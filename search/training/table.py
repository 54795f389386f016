"""Tasks from a CSV or Parquet file."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import MAX_LEVELS, apply, feature_names, learn
from .memory_data import MemoryData
from .split import split_indices
from .targets import encode, target_scale
from .task import Kind, Task

if TYPE_CHECKING:
    import pandas as pd
    import torch

PARQUET = frozenset({".parquet", ".pq"})
TEXT = frozenset({".csv", ".tsv", ".txt"})


def table(
    path: str | Path,
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
) -> Task:
    """Make a task of a CSV or Parquet file.

    Rows without a target are left out with a warning that says how many. Everything that is learnt of the columns (medians, means,
    frequent values) is learnt from the training rows, and lies in ``task.preprocessing`` as JSON for ``prepare``.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt`` (also compressed) or ``.parquet``; the first line names the columns.
        target: Column to predict, or several columns of 0 and 1 (multilabel).
        kind: Kind of the task; None to infer it: text, truth values and at most 20 different whole numbers are classes.
        validation_share: Share of the rows for validation, stratified by class.
        test_share: Share of the rows for the test; 0 for none.
        seed: Draws the splits.
        drop: Columns to leave out, for example row numbers.
        categorical: Columns of numbers that are codes, not amounts.
        max_levels: Features for a text column at most.
        device: Where the tensors live at first.
        name: Name of the task; None for that of the file.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it cannot be read, lacks a column, or has nothing to learn from.
    """
    path = Path(path).expanduser()
    return table_of(
        read(path),
        target,
        kind=kind,
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        drop=drop,
        categorical=categorical,
        max_levels=max_levels,
        device=device,
        name=name or path.name.split(".")[0],
        source=str(path),
    )


def table_of(
    frame: pd.DataFrame,
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
    name: str = "table",
    source: str = "the table",
) -> Task:
    """Make a task of a data frame; arguments and errors are those of ``table``, and ``source`` names the frame in messages."""
    import torch

    frame = frame.set_axis(frame.columns.astype(str), axis=1)
    wanted = [target] if isinstance(target, str) else list(target)
    for column in (*wanted, *drop, *categorical):
        if column not in frame.columns:
            raise ValueError(_no_column(source, column, [str(entry) for entry in frame.columns]))
    answered = frame[wanted].notna().all(axis=1)
    if not answered.all():
        left_out = int((~answered).sum())
        warnings.warn(f"{source}: left out {left_out} of {len(frame)} rows without {', '.join(wanted)}", stacklevel=3)
        frame = frame[answered]
    if len(frame) < 4:
        raise ValueError(f"{source} has {len(frame)} rows with a target; give at least 4")
    targets = encode(_values(frame, target), kind=kind, classes=None if isinstance(target, str) else wanted, name=f"column {target!r}")
    stratified = targets.kind in ("classification", "anomaly")
    parts = split_indices(
        targets.values if stratified else np.zeros(len(frame)),
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        stratified=stratified,
    )
    inputs = frame.drop(columns=[*wanted, *drop])
    columns = learn(inputs.iloc[parts[0]], max_levels=max_levels, categorical=categorical)
    features = apply(columns, inputs)
    if features.shape[1] == 0:
        reasons = ", ".join(f"{column['name']} ({column['reason']})" for column in columns[:5])
        raise ValueError(f"{source} has no column to predict {target!r} from: {reasons or 'there is no other column'}")
    scale = target_scale(targets.values[parts[0]]) if targets.kind == "regression" else None
    values = targets.values if scale is None else ((targets.values - scale[0]) / scale[1]).astype(np.float32)
    splits = [MemoryData(torch.from_numpy(features[part]).to(device), torch.from_numpy(values[part]).to(device)) for part in parts]
    preprocessing = {"kind": "table", "target": target if isinstance(target, str) else wanted, "columns": columns}
    preprocessing["features"] = feature_names(columns)
    test = splits[2] if len(splits[2]) else None
    return Task(name, targets.kind, splits[0], splits[1], test, (features.shape[1],), targets.classes, preprocessing, scale)


def prepare(preprocessing: Mapping[str, Any], rows: pd.DataFrame) -> np.ndarray:
    """Turn rows of a user's table into model input as a task's ``preprocessing`` says.

    Returns:
        ``(n, features)`` float32.

    Raises:
        ValueError: If a column is not there.
    """
    return apply(list(preprocessing["columns"]), rows)


def read(path: Path) -> pd.DataFrame:
    """Read a table; the separator of a text file is the one of comma, semicolon, tab and bar that its first line has most of.

    Raises:
        FileNotFoundError: If there is no file.
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


def _values(frame: pd.DataFrame, target: str | Sequence[str]) -> np.ndarray:
    if not isinstance(target, str):
        return frame[list(target)].to_numpy()
    values = frame[target]
    if values.dtype.kind in "biuf":
        return np.asarray(values.to_numpy(dtype=values.dtype.type if isinstance(values.dtype, np.dtype) else np.float64))
    return np.asarray([str(value) for value in values])


def _no_column(source: str, column: str, names: list[str]) -> str:
    near = difflib.get_close_matches(column, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return f"{source} has no column {column!r}{hint} It has: {shown}" if near else f"{source} has no column {column!r}; it has: {shown}"
