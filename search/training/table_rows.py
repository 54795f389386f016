"""Rows of a table: those of JSON and ARFF, and which below a header are data: units, the header again, sums and notes are none."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: A row of units is compared with so many rows; so many rows at the end may be sums and notes.
COMPARED, BEHIND = 100, 8
#: A unit is a short text; words that describe the columns may be longer where every column has them.
UNIT = 12
#: What sums up the rows above it, or says where they are from.
_FOOTERS = re.compile(
    r"(?i)(grand )?(sub)?totals?|sum(me)?|summa|gesamt|insgesamt|totale?s?|ges\.|average|mean|mittelwert|durchschnitt"
    r"|(source|quelle|notes?|hinweis):.*|\(\d+ rows?( affected)?\)"
)
#: A text that stands alone behind the rows and is a note: marked as one, with a colon, or of several words.
_NOTE = re.compile(r"[*†‡§¹²³#].*|[^:]+: .*|\S+( \S+){3,}")
#: A line that is drawn below the header, as in Markdown and by databases.
_RULE = r":?[-=]{2,}:?|:-:?|-:|[-=+]{5,}"
#: What stands in a row of units for columns that have none.
_UNITLESS = frozenset({"", "-", "--", "[-]", "(-)", "n/a", "none"})
#: A sum may be rounded by this share of what it sums up.
ROUNDED = 1e-4


def rows_of_data(
    header: Sequence[str], body: pd.DataFrame, learnt: Mapping[str, str] | None = None
) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Tell which rows of texts below a header are data.

    ``learnt`` are the units that stood below the header in training: a file of a row or two that begins with them has them, too.

    Returns:
        Positions of the rows that are data, what to say of the others, and the units by name of the column, empty without any.
    """
    cells = np.array(body.to_numpy(dtype=object), dtype=object)
    keep, said, units = np.ones(len(cells), dtype=bool), list[str](), dict[str, str]()
    names, several = [name.strip().casefold() for name in header], sum(map(bool, header)) > 1
    first = [k for k, row in enumerate(cells) if several and row[0].strip("\ufeff ").casefold() == names[0]]
    again = [k for k in first if [text.strip("\ufeff ").casefold() for text in cells[k]] == names]
    if again:
        keep[again] = False
        said.append(f"left out {len(again)} rows that are the header again")
    if mixed := [row for row in cells if several and row[0] in header and sorted(row) == sorted(header) and [*row] != [*header]]:
        raise ValueError(f"a row is the header in another order, {', '.join(mixed[0])[:80]}; join files by the names of their columns")
    comments = [k for k, row in enumerate(cells) if several and row[0].startswith("#") and not any(row[1:])]
    if comments and sum(row[0].startswith("#") for row in cells) == len(comments):
        keep[comments] = False
        said.append(f"left out {len(comments)} rows that are comments, e.g. {cells[comments[0]][0][:60]!r}")
    rows = np.flatnonzero(keep)
    if len(rows) and is_rule(cells[rows[0]]):
        rows = rows[1:]
    elif len(rows) and (_learnt_units(header, cells[rows[0]], learnt) or (len(rows) > 4 and _is_units(cells[rows[:COMPARED]]))):
        units = {name: text for name, text in zip(header, cells[rows[0]], strict=True) if name and text}
        said.append(f"left out the row below the header, taken for units ({', '.join(units.values())[:60]})")
        rows = rows[1:]
    stop = len(rows)
    for last in range(len(rows) - 1, max(0, len(rows) - BEHIND), -1):
        row, above = cells[rows[last]], cells[rows[:last]]
        if any(row):
            if not (_is_note(row, above) or (last > 3 and _is_sum(row, above))):
                break
            stop = last
            said.append(f"left out the row {next(filter(None, row))!r} at the end, taken for a sum or a note")
        elif stop < len(rows):
            stop = last  # an empty line between rows and notes
    return rows[:stop], said, units


def swallowed(body: pd.DataFrame, separator: str) -> list[str]:
    """Return the cells that hold lines which are rows: a quote opens in them, and closes where another one was meant to open."""
    found = []
    for cell in [cell for cell in body.to_numpy(dtype=object).ravel() if cell.count("\n") > 1]:
        inner = [[text.strip() for text in line.split(separator)] for line in cell.split("\n")[1:-1]]
        if all(len(row) == body.shape[1] for row in inner):
            found += [cell] if any(text and (body.iloc[:, k] == text).any() for k, text in enumerate(inner[0])) else []
    return found


def unmarked(text: str, names: Collection[str]) -> str:
    """Return a text without the ``# `` that NumPy writes before the header: before the last of such lines, if that has the ``names``."""
    found = re.match(r"(?:#.*\r?\n)*?(# +)(.*)\r?\n(?!#)", text)
    named = found and names and all(name in found[2] for name in names)
    return text[: found.start(1)] + text[found.end(1) :] if found and named else text


def escapes(text: str) -> bool:
    r"""Whether quotes inside of quoted values have a backslash before them, as MySQL and Spark write: ``"12\" wide"``.

    In most such lines the other quotes are in pairs, and all of them are not, or one with a backslash stands before neither end of a value.
    """
    lines = [line for line in text.splitlines() if '\\"' in line]
    inside = any(re.search(r'\\"(?!"|\s*(?:[,;|\t]|$))', line) for line in lines)
    others = [re.sub(r"\\.", "", line).count('"') for line in lines]
    pairs = [count > 0 and count % 2 == 0 and (inside or line.count('"') % 2 == 1) for count, line in zip(others, lines, strict=True)]
    return 2 * sum(pairs) > len(pairs)


def doubled(text: str) -> str:
    """Return a text with doubled quotes in place of quotes behind a backslash, and one backslash in place of two."""
    return re.sub(r'\\(["\\])', lambda found: '""' if found[1] == '"' else found[1], text)


def single_quoted(text: str) -> bool:
    """Whether values are put into single quotes, and none into double ones; also where no value of this file holds a separator."""
    lines = text.splitlines()[1:]
    held = sum(re.search(r"(?:^|[,;\t|])\s*'[^']*'\s*(?:[,;\t|]|$)", line) is not None for line in lines)
    return held > 0.5 * len(lines) and '"' not in text


def is_rule(row: Collection[str]) -> bool:
    """Whether a row is a line that is drawn with dashes."""
    return any(row) and all(re.fullmatch(_RULE, text.strip()) for text in row if text)


def is_number(text: str) -> bool:
    """Whether a text is a plain number of either decimal sign."""
    return text.replace(",", ".").replace(".", "").lstrip("+-").isdigit()


def _learnt_units(header: Sequence[str], row: np.ndarray, learnt: Mapping[str, str] | None) -> bool:
    common = [(learnt or {}).get(name) == text for name, text in zip(header, row, strict=True) if name in (learnt or {})]
    return any(common) and all(common)


def _is_units(cells: np.ndarray) -> bool:
    """Whether a first row has no number where all others have, and nothing that comes again where they have texts."""
    numeric, whole = 0, all(cells[0])
    for first, *others in cells.T.tolist():
        present = [text for text in others if text]
        if first.lower() in _UNITLESS:
            continue
        if is_number(first) or first in present or (len(first) > UNIT and not whole) or first.lower() in ("na", "nan", "null", "?"):
            return False
        numeric += bool(present) and all(map(is_number, present))
    return numeric > 0


def _is_note(row: np.ndarray, above: np.ndarray) -> bool:
    """Whether a row says something of the table: a text that the column has not, where the others are empty."""
    place = int(np.flatnonzero(row != "")[0])
    first = row[place]
    if is_number(first) or (above[:, place] == first).any():
        return False
    alone = sum(map(bool, row)) == 1
    if _FOOTERS.fullmatch(first.rstrip(": ")):
        return len(above) > 3 or alone
    others = [text for text in above[:COMPARED, place] if text]
    words = _NOTE.fullmatch(first) is not None or (len(first) > UNIT and len(others) > 3 and all(map(is_number, others)))
    return alone and len(row) > 2 and words


def _is_sum(row: np.ndarray, above: np.ndarray) -> bool:
    """Whether the numbers of a row are the sums of those above it: all of them, or one where a word says so."""
    words = [k for k, text in enumerate(row) if text and not is_number(text)]
    word = any(_FOOTERS.fullmatch(row[k].rstrip(": ")) and not (above[:, k] == row[k]).any() for k in words)
    if words and not word:
        return False
    sums = 0
    for text, column in zip(row, above.T, strict=True):
        if is_number(text):
            values = np.array([_number(one) for one in column if one])
            summed = bool(np.any(values) and abs(values.sum() - _number(text)) <= ROUNDED * np.abs(values).sum())
            if summed == word:  # with a word one sum will do, without one all must be sums
                return word
            sums += summed
    return not word and sums > 0 and (sums > 1 or not all(row))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")


def read_json(text: str, names: Collection[str]) -> pd.DataFrame:
    """Read objects in a list, deeper in others, behind one another, by column or by id; rows below their names; GeoJSON.

    Raises:
        ValueError: If it is no JSON, or has several such lists; ``names`` are columns that the table must have.
    """
    import pandas as pd

    whole = _parsed(text)
    if isinstance(whole, list) and all(isinstance(row, list) for row in whole) and all(isinstance(name, str) for name in whole[0]):
        return pd.DataFrame(whole[1:], columns=whole[0])
    if isinstance(whole, dict):
        if {"columns", "data"} <= whole.keys():
            return pd.DataFrame(whole["data"], columns=whole["columns"])
        if whole.get("type") == "FeatureCollection":
            return pd.DataFrame(map(_feature, whole["features"]))
        values = list(whole.values())
        by_id = bool(values) and all(isinstance(value, dict) for value in values) and not {*names} & whole.keys()
        if by_id and (any({*names} & value.keys() for value in values) if names else len(values) > len(values[0])):
            return pd.DataFrame(values)
        tables = {} if {*names} & whole.keys() else _tables(whole)
        if len(tables) > 1:
            raise ValueError(f"it holds several tables, {', '.join(tables)}; save one of them as a file of its own")
        if len(tables) == 1:
            return pd.DataFrame(next(iter(tables.values())))
        whole = whole if all(isinstance(value, dict | list) for value in values) else [whole]
    return pd.DataFrame(whole).reset_index(drop=True)


def _parsed(text: str) -> Any:
    """Return a value, or those that stand behind one another, on a line each or not, as a list."""
    reader, between, found, place = json.JSONDecoder(parse_int=_whole, object_pairs_hook=_object), re.compile(r"[\s,]*"), list[Any](), 0
    try:
        while (place := between.match(text, place).end()) < len(text):  # type: ignore[union-attr]
            value, place = reader.raw_decode(text, place)
            found.append(value)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        rules = "JSON has no comma before ] or }, comments, None or single quotes"
        raise ValueError(f"{error.msg}, line {error.lineno}, near {near!r}; {rules}, and ends with a bracket") from error
    if not any(isinstance(one, dict | list) and one for one in found):
        raise ValueError("it must hold objects, got none")
    if all(isinstance(one, list) and isinstance(one[0], dict) for one in found if one != []):
        return [row for one in found for row in one]
    return found[0] if len(found) == 1 else found


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        name = next(name for k, (name, _) in enumerate(pairs) if name in dict(pairs[:k]))
        raise ValueError(f"an object has {name!r} twice, of which one would be lost; rename one")
    return found


def _whole(digits: str) -> int | str:
    """Read a whole number, but for one that a float would round: such are names."""
    return int(digits) if len(digits.lstrip("-")) < 16 else digits


def _tables(whole: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of objects that lie least deep in an object, by where they lie."""
    found, level = dict[str, list[Any]](), {"": whole}
    while level and not found:
        inner = {above + name: value for above, one in level.items() for name, value in one.items()}
        found = {name: one for name, one in inner.items() if isinstance(one, list) and one and all(isinstance(row, dict) for row in one)}
        level = {f"{name}.": value for name, value in inner.items() if isinstance(value, dict)}
    return found


def _feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return what GeoJSON says of a thing: its properties, and where it is if it is a point. Source: RFC 7946."""
    place = feature.get("geometry") or {}
    point = place.get("coordinates", ()) if place.get("type") == "Point" else ()
    return {**(feature.get("properties") or {}), **dict(zip(("longitude", "latitude", "altitude"), point, strict=False))}


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which fields of nested objects, and numbers of lists of one length, are columns: ``a.x`` is ``x`` of ``a``."""
    import pandas as pd

    for name in [name for name, dtype in frame.dtypes.items() if str(dtype) == "object" and frame.columns.is_unique]:
        present = frame[name].dropna()
        if present.empty:
            continue
        if present.map(lambda value: isinstance(value, dict)).all():
            inner = pd.json_normalize([value if isinstance(value, dict) else {} for value in frame[name]]).set_index(frame.index)
        elif present.map(lambda value: isinstance(value, list | np.ndarray)).all() and (present.map(len) == len(present.iloc[0])).all():
            inner = pd.DataFrame(present.map(list).tolist(), index=present.index).reindex(frame.index).rename(columns=str)
        else:
            continue
        frame = pd.concat([frame.drop(columns=name), flat(inner).add_prefix(f"{name}.")], axis=1)
    return frame


def read_arff(text: str) -> pd.DataFrame:
    """Read a file of Weka, also a sparse one, by the reader that scikit-learn brings along."""
    import pandas as pd

    try:
        from sklearn.externals import _arff
    except ImportError as error:
        raise ValueError("ARFF needs scikit-learn; pip install scikit-learn, or save it as CSV") from error
    try:
        found = _arff.loads(re.sub(r"(?im)^(@attribute .*)\bdate\b.*$", r"\1string", text))  # it knows no dates
    except _arff.ArffException as error:
        raise ValueError(f"{error.message.partition(',')[0]}, line {error.line}") from error
    return pd.DataFrame(found["data"], columns=[name for name, _ in found["attributes"]])
