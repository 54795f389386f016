"""What new rows of a table have that training had not: values in another spelling or zone, or never seen, gaps; which names are alike."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from .columns import LARGEST, Reading, by_other_sign, from_json, is_text, numbers, parse, plain_frame, texts, without_markers, zoned
from .table_numbers import signs_of

if TYPE_CHECKING:
    import pandas as pd

#: So many times as large or small as those of training, values are probably in another unit; of so many different ones it is said.
SCALE, FEWEST = 50, 10
#: Signs that look as others do, in small letters: dashes, quotes, letters of Cyrillic.
_LOOKS = str.maketrans("‐‑‒–—−‘’ʼ´`“”„«»аеорсухіјѕкмтвн", "------'''''\"\"\"\"\"aeopcyxijskmtbh")
#: What a column without a name is called.
UNNAMED = re.compile(r"Unnamed: \d+")


def codes_as_numbers(column: Mapping[str, Any]) -> dict[str, str]:
    """Return, by the whole number that a reader of CSV makes of it, each level of a column that alone stands for that number.

    >>> codes_as_numbers({"levels": ["01", "2", "02"], "target": {"means": {"A": [0.5], "007": [0.1]}}})
    {'1': '01', '7': '007'}
    """
    known = list(dict.fromkeys([*column["levels"], *column.get("target", {}).get("means", ())]))
    amounts = parse(np.array(known, dtype=object), Reading("number")) if known else np.empty(0)
    whole = {level: str(int(amount)) for level, amount in zip(known, amounts, strict=True) if abs(amount) < 2**63 and amount.is_integer()}
    counts = Counter(whole.values())
    return {number: level for level, number in whole.items() if counts[number] == 1}


def as_levels(column: Mapping[str, Any], found: np.ndarray) -> np.ndarray:
    """Return texts ``(n,)`` or None as training had them: where a reader made 1 of the code 01, or a file writes 01 for the code 1."""
    known, codes = {*column["levels"], *column.get("target", {}).get("means", ())}, codes_as_numbers(column)
    spelt = {normalize("NFC", level): level for level in known}  # a Mac writes an accent as a letter of its own
    meant = {text: codes.get(text, spelt.get(normalize("NFC", text), text)) for text in {*found} - known - {None}}
    padded = any(len(level) > 1 and level.startswith("0") for level in known)  # then 03 is not 3
    for text in [text for text in meant if text.startswith("0") and not padded]:
        number = text.lstrip("0") or "0"
        meant[text] = number if codes.get(number) == number else text
    return np.array([meant.get(text, text) for text in found], dtype=object)


def rows_as_learnt(preprocessing: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return new rows with plain names, the column without a name found wherever it stands, and without the markers of missing values.

    A name that is spelt otherwise, as ``age`` for ``Age``, is taken for that of training, with a warning.

    Raises:
        ValueError: If a column is missing, or it cannot be told which one without a name is that of training.
    """
    frame = plain_frame(frame)
    used = [column["name"] for column in preprocessing["columns"] if column["type"] != "dropped"]
    here, there = [name for name in frame.columns if UNNAMED.fullmatch(name)], preprocessing.get("unnamed", [])
    if (unnamed := [name for name in used if name in there]) and here != there:
        if len(here) != 1 or len(there) != 1:
            why = f"training had {len(there)} columns without a name, the table has {len(here)}"
            raise ValueError(f"the column {unnamed[0]!r} must be told from others: {why}; name it here and for training")
        frame = frame.rename(columns={here[0]: there[0]})
    if meant := _spelt_otherwise(used, list(frame.columns)):
        pairs = [f"{near!r} for {name!r}" for near, name in meant.items()]
        more = f" and {len(pairs) - 20} more" if len(pairs) > 20 else ""
        warnings.warn(f"took the column {', '.join(pairs[:20])}{more} of training", stacklevel=2)
        frame = frame.rename(columns=meant)
    counts = Counter(frame.columns)
    if absent := [name for name in used if name not in counts]:
        lost = f"{len(absent)} missing: {', '.join(map(repr, absent[:20]))}"
        raise ValueError(f"the table must have the column {absent[0]!r} ({lost}), got {', '.join(frame.columns[:20])}")
    if twice := [name for name in used if counts[name] > 1]:
        raise ValueError(f"the table must have the column {twice[0]!r} once, got it twice; remove or rename one")
    return without_markers(frame, preprocessing.get("markers", ()))


def _spelt_otherwise(used: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Return by column that training did not have the missing one that it alone can mean."""
    missing, extra = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    known, there_is = set(used), set(columns)
    for name in [name for name in used if name not in there_is]:
        missing[spelt(name)].append(name)
    for name in [name for name in columns if missing and name not in known]:
        extra[spelt(name)].append(name)
    return {extra[text][0]: missing[text][0] for text in missing if len(missing[text]) == len(extra[text]) == 1}


def spelt(name: str) -> str:
    """Return a column's name without what differs between spellings of it: capitals, blanks, the way of writing an accent."""
    return " ".join(normalize("NFC", name).casefold().split())


def spelt_alike(names: Iterable[str], short: Mapping[str, str] = MappingProxyType({})) -> list[list[str]]:
    """Return the names that differ in capitals, blanks or signs that look alike only, or as ``short`` forms, in lists of two or more."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        plain = " ".join(normalize("NFKC", name).casefold().translate(_LOOKS).split()).rstrip(".") or name
        found.setdefault(short.get(plain, plain), []).append(name)
    return [alike for alike in found.values() if len(alike) > 1]


def spellings(classes: Collection[str], column: str) -> Iterator[str]:
    """Say which classes of a column are probably one: spelt in two ways, or one a short form of the other.

    >>> list(spellings({"cat", "Cat", "dog"}, "pet"))
    ["'Cat' and 'cat' in pet differ in capitals or blanks only, and are two classes; spell them alike"]
    """
    if twice := spelt_alike(classes, {"y": "yes", "n": "no", "t": "true", "f": "false"}):
        shown = f"{' and '.join(map(repr, twice[0][:3]))} in {column}"
        yield f"{shown} differ in {differing(twice[0])} only, and are two classes; spell them alike"
    if one := abbreviated(classes):
        yield f"{one[0]!r} and {one[1]!r} in {column} may mean the same, and are two classes; spell them alike if they do"


def differing(names: Iterable[str]) -> str:
    """Say in what names differ that are spelt alike.

    >>> differing(["Cat", "cat "]), differing(["pre-test", "pre–test"])
    ('capitals or blanks', 'spelling')
    """
    return "capitals or blanks" if len({"".join(name.casefold().split()) for name in names}) == 1 else "spelling"


def abbreviated(names: Iterable[str]) -> tuple[str, str] | None:
    """Return a name that is the first letter of another, where all names of one letter are, each of one other: ``M`` of ``male``.

    >>> abbreviated({"M", "male", "F", "female"}), abbreviated({"A", "B", "absent"})
    (('F', 'female'), None)
    """
    letters = sorted(name for name in names if len(name.rstrip(".")) == 1 and name[0].isalpha())
    meant = {letter: [name for name in names if len(name) > 2 and name[0].casefold() == letter[0].casefold()] for letter in letters}
    return (letters[0], meant[letters[0]][0]) if letters and all(len(one) == 1 for one in meant.values()) else None


def surprises(column: Mapping[str, Any], values: pd.Series[Any]) -> list[str]:
    """Say what training had not of the values of a column that it learnt: a sentence for each kind, with their number and an example."""
    import pandas as pd

    name, found, said = column["name"], texts(values), list[str]()
    present = [text for text in found if text is not None]

    def count(strange: Sequence[str], counted: str, what: str = "not seen in training") -> None:
        if strange:
            were = f"1 value of {name!r} was" if len(strange) == 1 else f"{len(strange)} values of {name!r} were"
            said.append(f"{were} {what}, e.g. {strange[0]!r}: {counted}")

    if column["type"] == "numeric":
        reading = from_json(column)
        if "zone" in column:
            zones = zoned(pd.Series(present, dtype=object))
            written = "without a zone, which training had" if column["zone"] else "with a zone, which training had not"
            count([present[k] for k in zones.index[zones != column["zone"]]], "taken for UTC", f"written {written}")
        read = list(zip(found, numbers(values, reading), strict=True))
        strange = [text for text, one in read if text is not None and np.isnan(one) and text not in reading.gaps]
        count(strange, f"no {reading.kind}, counted as missing")
        count([text for text, one in read if text is not None and abs(one) >= LARGEST], "not finite, counted as missing")
        sizes = np.abs([one for _, one in read if 0 < abs(one) < LARGEST])
        if reading.kind in ("number", "duration") and "fill" in column and len(np.unique(sizes)) >= FEWEST:
            size, usual, most = np.median(sizes), abs(column["fill"]), abs(column["mean"]) + column["std"]
            if size > SCALE * most or 0 < size < usual / SCALE:
                than = f"{size:.4g} in the middle, in training {usual:.4g}"
                said.append(f"values of {name!r} are of another size than those of training, {than}; write them in its unit")
        if reading.kind == "number" and present:
            here = pd.Series(present, dtype=object)
            known, signs = "".join(signs_of(pd.Series([reading.how[2:]], dtype=object))), signs_of(here)
            unit = {"*ft": "ft"}.get(reading.how[2:], reading.how[2:])
            if unit and not known and unit[0] != "*":  # what has another unit is no number; what has none may be of another
                known, signs = unit, np.where(here.str.fullmatch(r"[\d.,+-]+"), "", unit)
            odd = here[(signs != known) & np.array([abs(one) > 0 for text, one in read if text is not None])].tolist()
            what = f"another sign than {known!r} of training" if known else "a sign that training had not"
            count(odd, "read as numbers alone", f"written with {what}")
    elif column["levels"]:
        strange = [text for text in as_levels(column, np.array(present, dtype=object)) if text not in column["levels"]]
        if column["other"]:  # of the rare ones no list is kept
            count(strange, "counted as rare", f"not among the {len(column['levels'])} frequent ones of training")
        else:
            count(strange, "counted as none of those")
    if len(present) < len(found) and not column.get("missing", True):
        gaps = len(found) - len(present)
        instead = "the median of training stands there" if column["type"] == "numeric" else "counted as none of those"
        said.append(f"{gaps} missing value{'' if gaps == 1 else 's'} of {name!r}, of which training had none: {instead}")
    return said


def other_signs(columns: Sequence[Mapping[str, Any]], learnt: Mapping[str, Any] | None, frame: pd.DataFrame) -> str | None:
    """Say that numbers of new rows are probably written with another decimal sign than those of training; None where they are not.

    Both signs may fit, as in ``1.500``: then another separator of the file tells. Where the other one alone fits, it was read.
    """
    separator = (frame.attrs.get("file") or {}).get("separator")
    for column in columns:
        name, reading = column["name"], from_json(column) if column["type"] == "numeric" else Reading()
        if reading.kind != "number" or reading.how[1:2] not in (".", ",") or "°" in reading.how or not is_text(frame[name].dtype):
            continue
        found = np.array([text for text in texts(frame[name]) if text is not None and set(text) & {".", ","}], dtype=object)
        divided = separator != (learnt or {}).get("separator") and None not in (separator, (learnt or {}).get("separator"))
        own = np.isfinite(parse(found, Reading("number", reading.how))).sum()
        if own == len(found) and not (divided and reading.how[0] == ","):
            continue  # the other sign fits no better, and to try it takes long
        other = np.isfinite(parse(found, Reading("number", reading.how[1::-1] + reading.how[2:]))).sum()
        if by_other_sign(found, reading) is not None:
            signs = f"{reading.how[1]!r}, which these have, not {reading.how[0]!r} as in training"
            return f"numbers of {name!r}, e.g. {found[0]!r}, were read with the decimal sign {signs}"
        if own < other or (divided and 0 < own == other and reading.how[0] == ","):
            return f"numbers of {name!r}, e.g. {found[0]!r}, were read with the decimal sign {reading.how[0]!r} of training; write them so"
    return None
