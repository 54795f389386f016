"""What is probably not meant in a table or in arrays: copies of the target, columns that tell it alone, one example in two splits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formatting import names_text
from .columns import LARGEST, MISSING, Reading, is_text, numbers, texts
from .file_tree import SOUNDS, SUFFIXES
from .table_features import Column, apply
from .table_surprises import abbreviated, differing, spelt_alike
from .task import MAX_NUMERIC_CLASSES, NEARLY_ALL, Targets

if TYPE_CHECKING:
    import pandas as pd

#: A column that alone reaches this balanced accuracy or R2 on rows that it has not seen probably knows the answer.
TELLING = 0.99
#: So many columns are tried, each on at most so many training and validation rows.
TRIED, ROWS = 200, 2_000
#: So many examples of a split tell its scale; this many times the deviation, or deviations away, is another scale.
LOOKED_AT, FAR = 32, 4.0
#: A value that alone has this share of the squared distances from the median is a slip, or decides everything.
DECIDES = 0.9
#: A smaller validation split tells nothing: then every other row of training and validation.
FEWEST = 20
#: Days on which systems begin to count; share of the validation rows that are said if they are copies of training rows.
BEGINNINGS, COPIES = ("1900-01-01", "1970-01-01", "01.01.1900", "01.01.1970", "01/01/1900", "01/01/1970"), 0.05
#: Names of columns whose values name a person or thing.
_GROUPS = re.compile(r"(?i:.+[ _-]id)|.*[a-z]I[Dd]")
#: Parts that data was divided into, and names of columns that weigh rows.
_PARTS = re.compile(r"(?i)(train|test|val|valid|dev|hold-?out)(ing|idation|ation)?([ _-]?set)?")
_DIVIDED = re.compile(r"(?i)is[ ._-]?(train|test|val|valid|validation)|(cv|k)?[ ._-]?folds?")
_WEIGHTS = re.compile(r"(?i)(sample|case|survey|instance|obs(ervation)?|row)[ ._-]?w(eigh|g)?ts?|fnlwgt")
#: Names of columns whose numbers are codes, and of those whose numbers may be times.
_CODES = re.compile(r"(?i)(.*[ _-])?(plz|postleitzahl|zip|zip[ _-]?code|post(al)?[ _-]?code|fips|(tele)?phone|telefon(nummer)?|version)")
_TIMES = re.compile(r"(?i).*(date|time|datum|zeit|stamp|epoch|month|monat|when|created|updated)|ts|.*_(at|ts)")
#: Ranges of whole numbers that are times since 1980, and what they count: in turn 2.2e9 s is 2039, 60000 days of Excel are 2064.
_SINCE = (
    *((3.1e8 * unit, 2.2e9 * unit, f"{word}seconds since 1970") for unit, word in ((1, ""), (1e3, "milli"), (1e6, "micro"), (1e9, "nano"))),
    (29_000, 60_000, "days of Excel"),
)


def typed(*names: str) -> str:
    """Return names of columns as they are typed in a shell after an option."""
    return quote(names_text(names))


def copies(frame: pd.DataFrame, how: Mapping[str, Reading], target: np.ndarray, name: str, source: str, keep: Collection[str]) -> list[str]:
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
            does = "is the target again; left out, --keep " if near else "tells the target alone; if it is known too late, --drop "
            warnings.warn(f"{source}: the column {column!r} {does}{typed(column)}", stacklevel=3)
    return found


def warn_of_columns(
    source: str, columns: Sequence[Column], frame: pd.DataFrame | None, how: Mapping[str, Reading], amounts: np.ndarray | None
) -> None:
    """Say what was probably not meant, with the option that changes it; of a ``frame`` what may group its rows, too."""
    for column in columns:
        name = column["name"]
        if frame is not None and column["type"] != "dropped" and _GROUPS.fullmatch(name) and 20 <= frame[name].nunique() <= len(frame) / 2:
            said = f"{name!r} may name what several rows belong to; --split {quote(f'group:{name}')} keeps these in one split"
            warnings.warn(f"{source}: {said}, --drop {typed(name)} leaves it out", stacklevel=3)
        parts = column["type"] == "categorical" and len(column["levels"]) > 1 and all(map(_PARTS.fullmatch, column["levels"]))
        parts = parts or (column["type"] == "numeric" and _DIVIDED.fullmatch(name) is not None)
        if parts or (column["type"] == "numeric" and _WEIGHTS.fullmatch(name)):
            does = "names parts of the data, which are drawn anew" if parts else "is named like weights of the rows, which all count alike"
            warnings.warn(f"{source}: {name!r} {does}; it is taken for a feature, and --drop {typed(name)} leaves it out", stacklevel=3)
        if short := abbreviated(column.get("levels", ())):
            said = f"{short[0]!r} and {short[1]!r} in {name!r} may mean the same, and are two values; spell them alike if they do"
            warnings.warn(f"{source}: {said}", stacklevel=3)
        for twice in spelt_alike(column.get("levels", ()))[:1]:
            shown = f"{' and '.join(map(repr, twice[:3]))} in {name!r}"
            warnings.warn(f"{source}: {shown} differ in {differing(twice)} only, and are two values; spell them alike", stacklevel=3)
    notes = [f"{name!r} {reading.note} (--drop {typed(name)} leaves it out)" for name, reading in how.items() if reading.note]
    unlike = [str(column["name"]) for column in columns if column.get("reason") == "never repeats"]
    for name, values in [(name, frame[name]) for name in unlike] if frame is not None else ():
        found = texts(values)
        files = [text for text in found if text is not None and Path(text).suffix.lower() in SUFFIXES | SOUNDS]
        if len(files) > 0.5 * len(found):
            remedy = "put them into a sub-folder for each class, and give the folder around these"
            notes.append(f"{name!r} names files, e.g. {files[0]!r}, which are not read; {remedy}")
        blank = np.array([text is None for text in found])
        if blank.mean() > 0.5 and not blank[0]:
            notes.append(f"{name!r} has a value in {(~blank).sum()} of {len(blank)} rows; if it holds for the rows below it, fill these in")
    for reason in ("names the rows", "never repeats"):
        if out := [column["name"] for column in columns if column.get("reason") == reason]:
            option = f"; --keep {typed(*out)} uses it" if reason == "names the rows" else ""
            notes.append(f"left out {', '.join(map(repr, out[:10]))}, which {reason}{option}")
    notes += [] if amounts is None else [f"the target is {said}" for said in _said_of_amounts(amounts)]
    for one in notes:
        warnings.warn(f"{source}: {one}", stacklevel=3)


def _said_of_amounts(amounts: np.ndarray) -> Iterator[str]:
    levels, counts = np.unique(amounts, return_counts=True)
    if len(levels) * 5 <= len(amounts) and (len(levels) <= MAX_NUMERIC_CLASSES or (levels == np.round(levels)).all()):
        yield f"taken for amounts, {len(levels)} different ones; --kind classification makes classes of them"
    if (share := counts.max() / len(amounts)) >= NEARLY_ALL:
        yield f"one value in {share:.1%} of the rows; predict whether it is that one, or leave these rows out"
    squares = (amounts - np.median(amounts)) ** 2
    if len(amounts) >= FEWEST and squares.max() > DECIDES * squares.sum():
        others, value = np.delete(amounts, squares.argmax()), amounts[squares.argmax()]
        said = f"{value:.6g} in one row, far from all others ({others.min():.6g} to {others.max():.6g})"
        yield f"{said}, which then decides the R² alone; correct this row or leave it out"


def warn_of_codes(source: str, columns: Sequence[Column], frame: pd.DataFrame, how: Mapping[str, Reading]) -> None:
    """Warn of numbers that are probably codes, by the name of their column, and of such that are probably times, by their size, too."""
    for name in [str(column["name"]) for column in columns if column["type"] == "numeric"]:
        reading = how.get(name, Reading("number"))
        if reading.kind != "number" or frame[name].dtype.kind == "M":
            continue
        if _CODES.fullmatch(name):
            remedy = f"--categorical {typed(name)} makes codes of them"
            warnings.warn(f"{source}: {name!r} is named like codes, and its numbers are taken for amounts; {remedy}", stacklevel=3)
        elif _TIMES.fullmatch(name):
            values = numbers(frame[name], reading)
            values = values[np.isfinite(values)]
            what = [
                what
                for low, high, what in _SINCE
                if len(values) and ((values >= low) & (values <= high)).all() and (low > 3e8 or (values % 1 == 0).all())
            ]
            if len(values) and ((values // 100 > 1900) & (values // 100 < 2100) & (values % 100 >= 1) & (values % 100 <= 12)).all():
                what = ["year and month"]
            if what:
                remedy = "write them as 2024-12-31 to have weekdays and months"
                warnings.warn(f"{source}: {name!r} looks like {what[0]}, and is taken for an amount; {remedy}", stacklevel=3)


def warn_of_markers(source: str, frame: pd.DataFrame, how: Mapping[str, Reading]) -> None:
    """Warn of 9, 99, 999 ... that come again far from a column's other values, and of days on which counting began."""
    for name in map(str, frame.columns[:TRIED]):
        reading, dtype = how.get(name, Reading("number")), frame[name].dtype
        if reading.kind == "text" or not (is_text(dtype) or dtype.kind in "if"):
            continue
        values = numbers(frame[name], reading)
        values = np.where(np.abs(values) < LARGEST, values, np.nan)
        for end in (np.nanmin, np.nanmax) if np.isfinite(values).sum() > 3 else ():
            odd, others = values == end(values), values[np.isfinite(values) & (values != end(values))]
            text = str(texts(frame[name])[odd.argmax()])
            nines = not text.strip("-9.,0") and "9" in text and "9" in text.lstrip("-").rstrip("0.,")[:1]
            if odd.sum() < 2 or len(others) < 2 or not (nines or (reading.kind == "date" and text.startswith(BEGINNINGS))):
                continue
            gap, low, high = np.abs(others - end(values)).min(), others.min(), others.max()
            if gap > high - low or (text.startswith("-") and low >= 0):
                where = "" if reading.kind == "date" else f" ({low:.6g} to {high:.6g})"
                said = f"{name!r} is {text} in {int(odd.sum())} rows, far from its other values{where}"
                warnings.warn(f"{source}: {said}; if that means missing, --missing {typed(f'{name}={text}')}", stacklevel=3)


def warn_of_rows(source: str, frame: pd.DataFrame, parts: tuple[np.ndarray, ...]) -> None:
    """Warn of validation rows that are training rows again, where a column tells most rows apart: they are not alike by chance."""
    import pandas as pd

    with suppress(TypeError):  # lists in cells
        marks = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        again = int(np.isin(marks[parts[1]], marks[parts[0]]).sum())
        if frame.shape[1] < 3 or again < max(3, COPIES * len(parts[1])):
            return
        once = frame[~pd.Series(marks).duplicated().to_numpy()]
        if any(once[name].nunique() >= 0.5 * len(once) for name in once.columns):
            said = f"{again} of {len(parts[1])} validation rows are training rows again, so that quality looks too good"
            warnings.warn(f"{source}: {said}; remove the copies, or --split group:COLUMN keeps them together", stacklevel=3)


def warn_of_telling(source: str, columns: Sequence[Column], frame: pd.DataFrame, targets: Targets, parts: tuple[np.ndarray, ...]) -> None:
    """Warn of the columns that predict the target almost alone."""
    for column, value in telling_alone(columns, frame, targets, parts):
        score = f"{'R²' if targets.kind == 'regression' else 'balanced accuracy'} {value:.3f}"
        remedy = f"if it is known too late, --drop {typed(column)}; --keep {typed(column)} silences this"
        warnings.warn(f"{source}: the column {column!r} tells the target almost alone ({score}); {remedy}", stacklevel=3)


def telling_alone(
    columns: Sequence[Column], frame: pd.DataFrame, targets: Targets, parts: tuple[np.ndarray, ...]
) -> list[tuple[str, float]]:
    """Return the columns by which a small tree alone predicts the target almost without fault, and how well on validation rows."""
    both = np.concatenate(parts[:2])
    halves = parts[:2] if len(parts[0]) >= 50 and len(parts[1]) >= FEWEST else (both[::2], both[1::2])
    if targets.values.ndim > 1 or len(both) < 2 * FEWEST or np.ptp(targets.values[halves[1]]) == 0:
        return []
    from scipy.stats import spearmanr
    from sklearn.metrics import balanced_accuracy_score, r2_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    regression = targets.kind == "regression"
    grow, score = (DecisionTreeRegressor, r2_score) if regression else (DecisionTreeClassifier, balanced_accuracy_score)
    train, validation = (part[np.linspace(0, len(part) - 1, min(len(part), ROWS)).astype(int)] for part in halves)
    found = []
    rows = np.concatenate([train, validation])
    for column in [column for column in columns if column["type"] != "dropped"][:TRIED]:
        one = apply([column], frame[[column["name"]]].iloc[rows])
        there = np.full(len(rows), True)
        if column["missing"]:  # what is missing tells nothing, the others may tell all
            marks = {"numeric": 1, "text": -1}
            there = one[:, marks.get(column["type"], len(column.get("levels", ())) + bool(column.get("other")))] == 0
        judged = there.copy()
        judged[: len(train)] = False
        if judged.sum() < FEWEST // 2 or np.ptp(targets.values[rows[judged]]) == 0:
            continue
        tree = grow(max_leaf_nodes=64 if regression else 16, min_samples_leaf=3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # many classes, one that only the training rows have: said elsewhere
            tree.fit(one[: len(train)], targets.values[train])
            value = float(score(targets.values[rows[judged]], tree.predict(one[judged])))
        if regression and column["type"] == "numeric" and np.ptp(one[there, 0]) > 0:  # few rows make coarse leaves; their order is exact
            value = max(value, float(spearmanr(one[there, 0], targets.values[rows[there]]).statistic) ** 2)
        if value >= TELLING:
            found.append((str(column["name"]), value))
    return found


def words_for_missing(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count by column the texts, empty cells left out, that are taken for missing."""
    found: dict[str, dict[str, int]] = {}
    for name, dtype in frame.dtypes.items():
        if is_text(dtype):
            counts = frame[name].value_counts()
            odd = {str(text).strip(): int(count) for text, count in counts.items() if str(text).strip().lower() in MISSING - {""}}
            found |= {str(name): odd} if odd else {}
    return found


def warn_of_shared(name: str, splits: Mapping[str, Any]) -> None:
    """Warn of examples that are in two splits, where these are the same dataset or a ``Subset`` of it."""
    parts: dict[str, tuple[Any, set[int]]] = {}
    for split, whole in splits.items():
        rows: Sequence[int] = range(len(whole))
        while hasattr(whole, "dataset") and hasattr(whole, "indices"):
            rows, whole = [int(whole.indices[k]) for k in rows], whole.dataset
        for other, (another, others) in parts.items():
            if whole is another and (both := len(others.intersection(rows))):
                said = f"{both} of {len(rows)} examples of {split} are in {other}, too, so that quality looks too good"
                warnings.warn(f"{name}: {said}; give others", stacklevel=3)
        parts[split] = whole, {*rows}


def classes_of(data: Any) -> list[str] | None:
    """Return the names of the classes that a dataset, or the one of which it is a part, knows."""
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    found = getattr(data, "classes", None)
    return [*map(str, found)] if isinstance(found, Iterable) and not isinstance(found, str) else None


def warn_of_scales(name: str, splits: Mapping[str, np.ndarray]) -> None:
    """Warn of splits ``(n, channels or features, ...)`` whose values lie on another scale than those of the training split."""
    flat = {split: np.moveaxis(part, 1, 0).reshape(part.shape[1], -1).astype(np.float64) for split, part in splits.items()}
    with np.errstate(over="ignore"):
        deviation = flat["train"].std(axis=1)
    varies, others = (deviation > 0) & np.isfinite(deviation), [split for split in flat if split != "train"]
    mean, deviation = flat["train"].mean(axis=1)[varies], deviation[varies]
    for split, values in ((split, flat[split][varies]) for split in others if varies.any()):
        times, far = np.median(values.std(axis=1) / deviation), np.median(np.abs(values.mean(axis=1) - mean) / deviation)
        if len(splits[split]) >= LOOKED_AT // 2 and (times >= FAR or times <= 1 / FAR or far >= FAR):
            said = f"inputs of {split} have {times:.3g} times the deviation of those of train, and means {far:.3g} deviations away"
            warnings.warn(f"{name}: {said}; prepare all splits alike", stacklevel=3)


def warn_of_examples(name: str, inputs: np.ndarray, targets: Targets, parts: Sequence[np.ndarray], given: Collection[str]) -> None:
    """Warn of inputs that are the target, of examples that are in two splits, and of what is probably not meant as a class."""
    flat, rows, said = inputs.reshape(len(inputs), -1), inputs.ndim == 2, []
    if told := [k for k in range(flat.shape[1]) if rows and np.array_equal(flat[:, k], targets.values)]:
        said.append(f"inputs[:, {told[0]}] are the targets; leave that column out")
    trained, others = ([hash(flat[k].tobytes()) for k in part] for part in parts[:2])
    again, different = len([0 for mark in others if mark in known]) if (known := {*trained}) else 0, len({*trained, *others})
    if again >= max(3, COPIES * len(others)) and (not rows or any(2 * len(np.unique(one)) >= different for one in flat.T)):
        said.append(f"{again} of {len(others)} validation examples are training examples again: quality looks too good; remove the copies")
    first = flat[:LOOKED_AT]
    steps = [k for k in range(1, min(flat.shape[1] // 2, LOOKED_AT) + 1) if np.array_equal(first[1:, :-k], first[:-1, k:])]
    if steps and len(first) > 2 and np.ptp(first) and "validation" not in given:
        said.append("rows are windows of one series that overlap, in two splits; give validation= and test= from other times")
    if blank := [one for one in targets.classes if one.strip().lower() in ("", "nan", "none", "null", "<na>", "n/a")]:
        said.append(f"the class {blank[0]!r} may stand for missing targets; leave out their examples")
    for twice in spelt_alike(targets.classes):
        said.append(f"the classes {' and '.join(map(ascii, twice))} differ in capitals, blanks or accents only; join them if they are one")
    for one in said:
        warnings.warn(f"{name}: {one}", stacklevel=3)
