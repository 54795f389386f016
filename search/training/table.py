"""Tasks from a CSV or Parquet file: its columns become features, learnt from the training rows, kept as JSON, applied to any rows."""

from __future__ import annotations

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..argument_types import refuse_wrong_types
from ..formatting import read_names
from .arrays import task_in_memory
from .columns import LARGEST, MISSING, Reading, infer, is_text, numbers, parse, plain_frame, readings, texts, without_markers
from .table_checks import copies, warn_of_codes, warn_of_columns, warn_of_markers, warn_of_rows, warn_of_telling, words_for_missing
from .table_encodings import OF_DAY, goals_of, means_of_others
from .table_features import MAX_LEVELS, Column, apply, feature_names, is_numeric, learn, levels_with_means, listed, without_endless
from .table_file import read
from .table_rows import is_number
from .table_splits import alike_neighbours, split_column, split_rows
from .table_surprises import UNNAMED, other_signs, rows_as_learnt, spellings, surprises
from .task import MAX_NUMERIC_CLASSES, Kind, Targets, Task, encode, infer_kind, keep_rows, noting
from .text import Embedded, StaticEmbedding

if TYPE_CHECKING:
    import pandas as pd
    import torch

#: Types of truth values that may be missing.
NULLABLE = ("boolean", "bool[pyarrow]")
#: A target of more classes than this, with fewer than four rows each, gets a word.
MANY_CLASSES = 10
#: So many classes that are numbers may be amounts.
ORDERED = 5
#: Below so many training and validation rows a model is validated in so many parts of them: 150 rows tell little.
FOLDS = ((1_000, 5), (5_000, 3))


def table(
    data: str | Path | pd.DataFrame | Any,
    target: str | Sequence[str],
    *,
    kind: Kind | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    drop: str | Collection[str] = (),
    keep: str | Collection[str] = (),
    categorical: str | Collection[str] = (),
    missing: str | Collection[str] = (),
    max_levels: int = MAX_LEVELS,
    device: str | torch.device = "cpu",
    name: str | None = None,
    source: str | None = None,
    text: StaticEmbedding | None = None,
    split: str = "random",
    folds: int | None = 0,
) -> Task:
    """Make a task from a CSV or Parquet file, or from a data frame.

    Rows without a target are left out with a warning that counts them. Everything that is learnt about the columns (medians, means,
    frequent values) is learnt from the training rows and stored in ``task.preprocessing`` as JSON for ``prepare``. What is probably not
    meant gets a warning with its remedy: columns that name the rows, that hold or tell the target, that are numbers but for some cells,
    rows in two splits that lie beside each other in time. ``task.seen`` holds what was found, see ``summary.py``.

    - ``data``: A data frame, or what makes one (of Arrow, Polars, NumPy; a dictionary of columns); a file ``.csv``, ``.tsv``, ``.arff``
      (also packed), ``.parquet``, ``.json``, ``.xlsx``, see ``read``; or a folder of recordings, a file each, which ``group:file`` divides
      in place of ``random``; their ``file`` is no feature.
    - ``target``: Column to predict, or several columns of 0 and 1 (multilabel).
    - ``kind``: None infers it: text, truth values and at most 20 different whole numbers are classes.
    - ``validation_share``: Share of the rows for validation; a ``test_share`` of 0 is for none.
    - ``drop``: Columns to leave out; ``keep``: columns that are used although their numbers seem to name the rows.
    - ``categorical``: Columns of numbers that are codes, not amounts; a text column has ``max_levels`` features at most. A text with
      commas names several columns here, a name with a comma in double quotes.
    - ``missing``: Values that stand for missing ones, in training and prediction: ``-999`` in any column, ``age=99`` in one.
    - ``text``: Makes features of columns of free text, see ``find_text`` in ``text.py``; without it they are left out.
    - ``split``: ``random``, stratified by class; ``time:COLUMN``, where the last rows by that column validate and test; or
      ``group:COLUMN``, where all rows of one value lie in one split, and the column is no feature.
    - ``folds``: Parts of the training and validation rows for cross-validation, see ``Task``; None for 5 below 1,000 rows, 3 below 5,000.
    - ``device``: Where the tensors are put at first.
    - ``name``: By default that of the file; ``source``, which names the table in messages, is by default its path.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, lacks a column, or no feature is left.
    """
    refuse_wrong_types(table, locals(), target="give the name of a column, or several")
    if max_levels < 1:
        raise ValueError(f"max_levels must be at least 1, got {max_levels}; --set max_levels=32 is the default")
    if hasattr(target, "dtype"):
        raise ValueError("target must be the name of a column, or several, got values; put them into the table as a column")
    with noting() as said:
        wanted, several = [column.strip() for column in ([target] if isinstance(target, str) else target)], not isinstance(target, str)
        given = _open(data, wanted, source)
        source = given.source
        split = "group:file" if given.recordings and split == "random" else split
        divides = [column for column in split_column(split)[1:] if column is not None]
        drop, keep, categorical = (_names(names, given.frame.columns) for names in (drop, keep, categorical))
        markers = _names(missing)
        named_by_markers = [one.rpartition("=")[0] for one in markers if "=" in one]
        _require_columns(given, [*wanted, *drop, *keep, *categorical, *divides, *named_by_markers])
        if clash := [column for column in divides if column in (*wanted, *drop)]:
            raise ValueError(f"--split {split} needs the column {clash[0]!r}, which is {'the target' if clash[0] in wanted else 'dropped'}")
        frame = without_markers(_without(given, drop, wanted), markers)

        values, labelled = _labels(frame, wanted, source, kind)
        frame = frame[labelled]
        if len(frame) < 4:
            raise ValueError(f"{source} has {len(frame)} rows with a target; give at least 4")
        named = f"column {wanted if several else wanted[0]!r}"
        inputs, how = frame.drop(columns=wanted), readings(frame, categorical)
        of_targets = {column: how.pop(column) for column in wanted if column in how}
        for k, column in enumerate(wanted):
            if values[k].dtype.kind == "f" and (reading := of_targets.get(column, Reading())).kind == "number":
                values[k] = numbers(frame[column], reading)  # with the decimal sign of the whole table
                if reading.note:
                    warnings.warn(f"{source}: the target {column!r} {reading.note}", stacklevel=2)
        targets = _targets(values, named, source, kind, classes=wanted if several else None)
        odd_texts, amounts = words_for_missing(inputs), [name for name, reading in how.items() if reading.kind in ("number", "truth")]
        inputs = inputs.assign(**{name: numbers(inputs[name], how[name]) for name in amounts})  # what is looked at often is parsed once
        inputs = without_endless(source, inputs)
        parts = split_rows(inputs, frame, how, targets, split, (validation_share, test_share), seed)
        if split == "random" and (alike := alike_neighbours(inputs, how, targets)) is not None:
            warnings.warn(f"{source}: {alike}", stacklevel=2)
        again = [] if several else copies(inputs, how, targets.values, wanted[0], source, keep)
        apart = {*(divides if split.startswith("group:") else ()), *(["file"] if given.recordings else ())} & {*inputs.columns}
        inputs = inputs.drop(columns=[*again, *apart])

        goals = goals_of(targets)
        rows, known = inputs.iloc[parts[0]], None if goals is None else goals[parts[0]]
        warn_of_rows(source, frame, parts)
        warn_of_markers(source, frame.drop(columns=[] if targets.kind == "regression" else wanted), {**of_targets, **how})
        learnt = learn(rows, max_levels=max_levels, categorical=categorical, keep=keep, how=how, text=text, goals=known)
        told = targets.values if kind is None and targets.kind == "regression" else None
        warn_of_columns(source, learnt, inputs if split == "random" else None, how, told)
        warn_of_codes(source, learnt, inputs, how)
        warn_of_telling(source, [one for one in learnt if one["name"] not in keep], inputs, targets, parts)
        features, levels = _features(learnt, inputs, parts[0], known)
        if features.shape[1] == 0:
            why = ", ".join(f"{column['name']} ({column['reason']})" for column in learnt[:5])
            raise ValueError(f"{source} has no column to predict {named.partition(' ')[2]} from: {why or 'there is no other column'}")

        preprocessing = {"kind": "table", "target": wanted if several else wanted[0], "columns": learnt, "features": feature_names(learnt)}
        unnamed = [name for name in given.frame.columns if UNNAMED.fullmatch(name) and name not in wanted]
        optional: dict[str, Any] = {"file": given.read_as, "markers": markers, "unnamed": unnamed}
        preprocessing |= {key: value for key, value in optional.items() if value}
        task = task_in_memory(name or given.name or "table", features, targets, parts, preprocessing, levels=levels, device=device)
        task = keep_rows(task, given.kept, [np.flatnonzero(labelled)[part] for part in parts])
        reasons = {column: "asked for" for column in drop if column not in wanted}
        reasons |= {**dict.fromkeys(again, "the target again"), **dict.fromkeys(apart, "divides the rows into files or groups")}
        seen = {"split": split, "left_out": reasons, "missing_texts": odd_texts}
        task = replace(task, seen=seen, embedded=Embedded.of(learnt, rows))
    return replace(task, folds=_parts(folds, split, len(task.train) + len(task.validation)), seen={**task.seen, "warnings": said})


def prepare(preprocessing: Mapping[str, Any], rows: pd.DataFrame | str | Path) -> np.ndarray:
    """Turn rows of a user's table, or a file of them, into model input ``(n, features)`` float32 as a task's ``preprocessing`` describes.

    A file is read as in training; in a data frame dates, decimal commas and codes may be text, or what a reader of CSV made of them. Values
    that training never saw set no feature, or count as missing; a warning counts them.

    Raises:
        ValueError: If a column is missing.
    """
    columns = list(preprocessing["columns"])
    if isinstance(rows, str | Path):
        names = [column["name"] for column in columns if column["type"] != "dropped"]
        rows = read(Path(rows).expanduser(), names, preprocessing.get("file"))
    rows = rows_as_learnt(preprocessing, rows)
    features = apply(columns, rows)
    for column in (column for column in columns if column["type"] not in ("dropped", "text")):
        for said in surprises(column, rows[column["name"]]):
            warnings.warn(said, stacklevel=2)
    if (other := other_signs(columns, preprocessing.get("file"), rows)) is not None:
        warnings.warn(other, stacklevel=2)
    return features


@dataclass(frozen=True)
class _Given:
    """A user's table as it was read: ``kept`` is where its rows can be read again, ``read_as`` how the file was read."""

    frame: pd.DataFrame
    name: str
    source: str
    recordings: bool
    kept: Any
    read_as: dict[str, Any] | None


def _open(data: str | Path | pd.DataFrame | Any, wanted: Sequence[str], source: str | None) -> _Given:
    """Read a file or a folder of recordings, or make a data frame of what is one in another library."""
    import pandas as pd

    if isinstance(data, str | Path):
        path = Path(data).expanduser()
        read_in = read(path, wanted)
        frame, source, recordings = plain_frame(read_in), source or str(path), bool(read_in.attrs.get("recordings"))
        return _Given(frame, path.name.split(".")[0], source, recordings, read_in if path.is_dir() else path, read_in.attrs.get("file"))
    if not isinstance(data, pd.DataFrame):  # of Arrow or Polars; of NumPy, or a dictionary
        if isinstance(data, Mapping) and hasattr(data.get("frame"), "columns"):
            data = data["frame"]  # of scikit-learn
        try:
            data = data.to_pandas() if hasattr(data, "to_pandas") else pd.DataFrame(data)
        except ValueError as error:
            remedy = "give columns of one length, the target among them; arrays(inputs, targets) takes two arrays"
            raise ValueError(f"data must be a file or a table, got {type(data).__name__} ({error}); {remedy}") from error
    return _Given(plain_frame(data), "table", source or "the table", False, data, data.attrs.get("file"))


def _require_columns(given: _Given, columns: Sequence[str]) -> None:
    names = [str(entry) for entry in given.frame.columns]
    for column in columns:
        if column not in given.frame.columns:
            near = [name for name in names if name.casefold() == column.casefold()] or difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean {near[0]!r}? It" if near else "; it"
            headless = "; if the file has no header, write one above its first line" if any(map(is_number, names)) and not near else ""
            raise ValueError(f"{given.source} has no column {column!r}{hint} has: {listed(names)}{headless}")


def _without(given: _Given, drop: Collection[str], wanted: Collection[str]) -> pd.DataFrame:
    """Return the rows without the columns to drop, but for the target; names that are there twice are refused."""
    frame = given.frame.drop(columns=[column for column in drop if column not in wanted])
    if len(twice := frame.columns[frame.columns.duplicated()]):
        raise ValueError(f"{given.source} has the column {twice[0]!r} twice; rename one" + ("" if twice[0] in wanted else ", or drop both"))
    return frame


def _features(
    learnt: list[Column], inputs: pd.DataFrame, train: np.ndarray, goals: np.ndarray | None
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return the features of all rows, those of ``train`` with means of the ``goals`` of others, and what ``levels_with_means`` does."""
    features, levels = apply(learnt, inputs), levels_with_means(learnt, inputs)
    for place, codes in levels.items():
        assert goals is not None  # what the means are of
        features[train, place : place + goals.shape[1]] = means_of_others(codes[train], goals)
    return features, levels


def _parts(folds: int | None, split: str, rows: int) -> int:
    """Return the parts of cross-validation, by default by the number of training and validation rows."""
    if folds is None:
        return next((min(parts, rows // 2) for most, parts in FOLDS if rows < most), 0) if split == "random" else 0
    if folds and split != "random":
        raise ValueError(f"folds must be 0 with --split {split}: parts at random would undo it; leave out --set folds={folds}")
    return folds


def _names(given: str | Collection[str], known: Collection[str] = ()) -> list[str]:
    return read_names(given, known) if isinstance(given, str) else [str(name).strip() for name in given]


def _labels(frame: pd.DataFrame, wanted: Sequence[str], source: str, kind: Kind | None) -> tuple[list[np.ndarray], NDArray[np.bool_]]:
    """Return the values of each target in the rows that have all of them, ``(m,)`` each, and which rows these are, ``(n,)``.

    The others are counted in a warning, with the texts that stand there in place of a target.
    """
    values = {}
    for column in wanted:
        values[column], said = _target(frame[column], kind)
        for one in said:
            warnings.warn(f"{source}: {one}", stacklevel=3)
    there = [
        np.abs(one) < LARGEST if one.dtype.kind == "f" else [value == value and value is not None for value in one]
        for one in values.values()
    ]
    labelled = np.logical_and.reduce(there)
    if not labelled.all():
        shown_of = [column for column, one in values.items() if len(values) == 1 or one.dtype.kind == "O"]
        cells = {str(text) for column in shown_of for text in frame[column][~labelled]} - {"", "nan", "None", "<NA>"}
        shown = f" ({', '.join(sorted(cells)[:5])})" if cells else ""
        left_out = f"{int((~labelled).sum())} of {len(frame)} rows without {', '.join(wanted)}{shown}"
        warnings.warn(f"{source}: left out {left_out}", stacklevel=3)
    return [np.array(one[labelled].tolist()) for one in values.values()], labelled  # objects are texts, or truth values, alone


def _targets(values: Sequence[np.ndarray], named: str, source: str, kind: Kind | None, classes: Sequence[str] | None) -> Targets:
    """Encode one target, or several of 0 and 1 called ``classes``; what cannot be learnt is refused."""
    rows = len(values[0])
    raw = values[0] if classes is None else np.column_stack(values)
    targets = encode(raw, kind=kind or (None if classes is None else "multilabel"), classes=classes, name=named)
    if kind is None and targets.kind == "classification" and values[0].dtype.kind in "iuf" and len(targets.classes) >= ORDERED:
        said_of = f"the target is taken for {len(targets.classes)} classes, which are whole numbers"
        warnings.warn(f"{source}: {said_of}; --kind regression predicts them as amounts", stacklevel=3)
    if targets.kind == "classification" and (count := len(targets.classes)) > MANY_CLASSES and 4 * count > rows:
        many = f"{named} has {count} classes in {rows} rows; predict another column, or group its values"
        if count == rows:
            raise ValueError(many)
        warnings.warn(f"{source}: {many}", stacklevel=3)
    return targets


def _target(column: pd.Series[Any], kind: Kind | None) -> tuple[np.ndarray, list[str]]:
    """Return the values of a target ``(n,)``: numbers, truth values, or texts and None; and what is to be said of it.

    Only an empty cell is no class of text. Dates are classes, or for regression days since 1970 (float32 of these is exact to minutes).
    """
    if not is_text(column.dtype) and is_numeric(column.dtype) and column.dtype.kind != "M" and str(column.dtype) not in NULLABLE:
        dtype = column.dtype.type if isinstance(column.dtype, np.dtype) and column.dtype.kind != "f" else np.float64
        return np.asarray(column.to_numpy(dtype=dtype, na_value=np.nan)), []
    found, empty = texts(column, {""}), column.isna().to_numpy()
    found[empty] = None
    plain = np.array([None if text is None or text.lower() in MISSING else text for text in found], dtype=object)
    reading, different, name = infer(plain), len({*plain} - {None}), f"the target {column.name!r}"
    if reading.how in OF_DAY and (kind == "regression" or (kind is None and different > MAX_NUMERIC_CLASSES)):
        reading = Reading("duration")  # as the times of a race, 0:59:30
    if reading.kind == "truth":
        truths, named = parse(plain, reading), {0.0: False, 1.0: True}
        if reading.note:
            named = {truth: Counter(plain[truths == truth]).most_common(1)[0][0] for truth in named}
        return np.array([named.get(truth) for truth in truths], dtype=object), [f"{name} {reading.note}"] if reading.note else []
    timed = reading.kind == "duration" and kind != "classification"
    said = [f"{name} is times or durations, predicted in seconds"] if timed else []
    values = parse(plain, reading) if reading.kind in ("number", "duration") else None
    coded = reading.kind == "number" and (reading.how[2:] or reading.note) and kind != "regression"  # 2WD and 4WD stay
    if values is not None and not (coded and infer_kind(values[np.isfinite(values)]) == "classification"):
        return values, said  # however they are spelt
    if reading.kind == "date" and kind == "regression":
        return parse(plain, reading) / 86_400.0, said
    said += spellings({*found} - {None}, str(column.name))
    if values is not None:
        return plain, said
    if reading.kind == "date":
        amounts = "seconds" if reading.how in OF_DAY else "days since 1970"
        said.append(f"{name} is dates, taken for {different} classes; --kind regression predicts them as {amounts}")
    return found, [*said, *_doubtful_classes(column, {*found} - {None})]


def _doubtful_classes(column: pd.Series[Any], classes: Collection[str]) -> Iterator[str]:
    """Say which texts are probably no classes: several labels in one, or a word for missing."""
    labels = {text: re.split(r"\s*[;|,]\s*", re.sub(r"""[][{}'"]""", "", text)) for text in classes}
    alone = {one[0] for one in labels.values() if len(one) == 1}
    if joined := sorted(text for text, one in labels.items() if len(one) > 1 and alone & {*one}):
        remedy = "make a column of 0 and 1 for each, and predict them together by table(file, [columns])"
        yield f"{joined[0]!r} in {column.name} seems to be several labels, but is one class; {remedy}"
    odd = sorted(text for text in classes if text.lower() in MISSING)
    if odd and str(column.dtype) != "category":
        yield f"{odd[0]!r} in {column.name} is taken for a class; empty these cells if it means missing"


#: The same for what is in memory already.
table_of = table
