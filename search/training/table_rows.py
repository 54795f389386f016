"""Rows of a table: how a text is divided into them, and which below a header are data, no units, sums and notes."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: A row of units is compared with so many rows; so many rows at the end may be sums and notes.
COMPARED, BEHIND = 100, 8
#: A unit is a short text; words that describe the columns may be longer where every column has them.
UNIT = 12
#: What sums up the rows above it, or says where they are from.
_FOOTERS = re.compile(
    r"(?i)(grand )?(sub)?totals?|sum(me|a)?|summa|gesamt(ergebnis)?|insgesamt|totale?s?|ges\.|average|mean|mittelwert|durchschnitt"
    r"|razem|celkem|összesen|toplam|totaal|yhteensä|итого|всего|合计|总计|合計|總計|합계|median|std\.?( ?dev\.?)?|standard deviation"
    r"|(source|quelle|notes?|hinweis):.*|\(\d+ rows?( affected)?\)"
)
#: What sums up some of the rows, as tables of Excel have it between them.
_SUBTOTAL = re.compile(r"(?i).+ (sub[ -]?)?(totals?|ergebnis|summe|итог|小计|小計)")
#: A text that stands alone behind the rows and is a note: marked as one, with a colon, or of several words.
_NOTE = re.compile(r"[*†‡§¹²³#].*|[^:]+: .*|\S+( \S+){3,}")
#: A line that is drawn below the header, as in Markdown and by databases.
_RULE = r":?[-=]{2,}:?|:-:?|-:|[-=+]{5,}"
#: What stands in a row of units for columns that have none.
_UNITLESS = frozenset({"", "-", "--", "[-]", "(-)", "n/a", "none"})
#: The header is looked for in so many lines.
HEADING = 30
#: The usual ones first; those from the blank on only where none of these gives the columns that are known.
SEPARATORS = ",;\t| ~^:\x01\x1f"
#: A sum may be rounded by this share of what it sums up.
ROUNDED = 1e-4


@dataclass(frozen=True)
class Layout:
    """How a text is divided.

    ``above`` counts the records above the header, ``width`` and ``fields`` those of the longest row and of the header, ``named`` the latter
    up to the last that has a name; ``short`` are the lines of rows shorter than that, by their places below the header.
    """

    separator: str = ","
    above: int = 0
    width: int = 1
    fields: int = 1
    named: int = 0
    short: Mapping[int, int] = field(default_factory=dict)


def layout(text: str, names: Collection[str], quote: str, learnt: str | None, *, cut: bool) -> Layout:
    """Return how a text is divided, by the separator that was ``learnt`` where several fit; the last row of a ``cut`` one is partial."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text of a cell may be long
    best: tuple[bool, bool, float, int] = (False, False, 0.0, 0)
    found = Layout()
    for separator in SEPARATORS:
        if separator == " " and (best[0] or not names):
            break  # blanks and the others separate only where nothing else does
        read = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, quotechar=quote)
        rows = [[cell.strip() for cell in row] for row in read]
        rows = rows[:-1] if cut and len(rows) > 1 else rows
        filled = [sum(map(bool, row)) for row in rows]
        if not any(filled):
            raise ValueError("the file is empty")
        holding = [k for k, row in enumerate(rows[:HEADING]) if {*names} <= {*row} and (k == 0 or not any(map(is_number, row)))]
        if separator in " ~^:\x01\x1f" and not holding and separator != learnt:
            continue
        # Without a known name: a title or an empty line has one field at most.
        several = [k for k, count in enumerate(filled[:HEADING]) if count > 1]
        known = bool(names and holding)
        above = (holding if known else several or [filled.index(max(filled))])[0]
        widths = Counter(len(row) for row in rows[above:] if row)
        usual, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        score = (known, known and separator == learnt, count / widths.total() if usual > 1 else 0.0, usual)
        if score > best:
            named = max((k + 1 for k, name in enumerate(rows[above]) if name), default=0)
            below = enumerate(k for k, row in enumerate(rows) if k > above and (len(row) > 1 or any(row)))
            short = {place: k + 1 for place, k in below if any(rows[k]) and len(rows[k]) < named and not is_rule(rows[k])}
            best, found = score, Layout(separator, above, max(widths), len(rows[above]), named, short)
    return found


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
    # Qualtrics writes the questions below the names, and below these what it imports them by.
    if ids := [k for k, row in enumerate(cells[:BEHIND]) if row[0].replace(" ", "").startswith('{"ImportId":')]:
        keep[: ids[-1] + 1] = False
        said.append(f"left out {ids[-1] + 1} rows below the header that say what is asked")
    rows = np.flatnonzero(keep)
    if len(rows) and is_rule(cells[rows[0]]):
        drawn = cells[rows[0]].tolist()  # it may come again, at the end or between all rows
        rows = np.array([k for k in rows if cells[k].tolist() != drawn], dtype=int)
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
    rows = rows[:stop]
    if len(rows) > 4 and any(map(_FOOTERS.fullmatch, cells[rows[0]])) and _is_sum(cells[rows[0]], cells[rows[1:]]):
        said.append(f"left out the row {next(filter(None, cells[rows[0]]))!r} below the header, taken for a sum")
        rows = rows[1:]
    parts = [cells[k][0] for k in rows[: 10 * COMPARED] if _SUBTOTAL.fullmatch(cells[k][0])]
    if 1 < len(parts) <= len(rows) / 2:
        said.append(f"{len(parts)} rows are named like sums, e.g. {parts[0]!r}, and read as the others are; delete them if they are sums")
    return rows, said, units


def headless(header: Sequence[str], body: pd.DataFrame, names: Collection[str]) -> str | None:
    """Return the one of the ``names`` that its own column holds, as where the first row is no header; None where numbers stand below names.

    A survey ticks by the name of its column, too.
    """
    own = [name for name in names if name in header and (body[header.index(name)] == name).any()]
    plain = any(name and not is_number(name) and all(map(is_number, body[k].head(HEADING))) for k, name in enumerate(header) if own)
    return own[0] if own and not plain and [*header] != [str(k) for k in range(len(header))] else None


def swallowed(body: pd.DataFrame, separator: str) -> list[str]:
    """Return the cells that hold lines which are rows: a quote opens in them, and closes where another one was meant to open."""
    found = []
    for cell in [cell for cell in body.to_numpy(dtype=object).ravel() if cell.count("\n") > 1]:
        inner = [[text.strip() for text in line.split(separator)] for line in cell.split("\n")[1:-1]]
        if all(len(row) == body.shape[1] for row in inner):
            found += [cell] if any(text and (body.iloc[:, k] == text).any() for k, text in enumerate(inner[0])) else []
    return found


def mending(text: str, names: Collection[str], *, cut: bool) -> tuple[Callable[[str], str] | None, str | None]:
    """Return what makes of a text that begins so one that can be divided, None where it can be as it stands, and what to say of it."""
    if escapes(text):
        return lambda whole: doubled(unmarked(whole, names)), None
    if unmarked(text, names) != text:
        return partial(unmarked, names=names), None
    for separator in ",;\t|" if text.lstrip("\ufeff").startswith('"') or '\n"' in text else "":
        rows = list(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator)))
        rows = rows[:-1] if cut else rows
        inner = [unquoted(row, separator) for row in rows]
        whole = [row != found for row, found in zip(rows, inner, strict=True)]
        # Some programs quote but the lines that hold quotes.
        sure = all(whole) or (len(rows[0]) > 1 and all('"' in row[0] for row, one in zip(rows, whole, strict=True) if one))
        if any(whole) and sure and len(inner[0]) > 1 and len({*map(len, inner)}) == 1 and not (len(rows[0]) == 1 and rows[0][0] in names):
            said = f"{sum(whole)} lines are in quotes as a whole, which were taken off; save it without these"
            return partial(_without_quotes, separator), said
    return None, None


def unquoted(row: Sequence[str], separator: str) -> list[str]:
    """Return the values of a row that was put into quotes as a whole, ``"1,""a, b"",3"``; another one as it is."""
    inner = [*csv.reader(io.StringIO(row[0], newline=""), delimiter=separator)] if len(row) == 1 and separator in row[0] else []
    return inner[0] if len(inner) == 1 else [*row]


def _without_quotes(separator: str, text: str) -> str:
    plain = io.StringIO()
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=separator)
    csv.writer(plain, delimiter=separator, lineterminator="\n").writerows(unquoted(row, separator) for row in rows)
    return plain.getvalue()


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
    """Whether the numbers of a row are the sums of those above it: all of them, or one where a word says so; other words must be new."""
    words = [k for k, text in enumerate(row) if text and not is_number(text)]
    word = any(_FOOTERS.fullmatch(row[k].rstrip(": ")) and not (above[:, k] == row[k]).any() for k in words)
    if not word and any((above[:, k] == row[k]).any() for k in words):
        return False
    sums = 0
    for text, column in zip(row, above.T, strict=True):
        if is_number(text):
            values = np.array([_number(one) for one in column if one])
            summed = bool(np.any(values) and abs(values.sum() - _number(text)) <= ROUNDED * np.abs(values).sum())
            if summed == word:  # with a word one sum will do, without one all must be sums
                return word
            sums += summed
    return not word and sums > 0 and (sums > 1 or not (words or all(row)))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")
