"""What the texts of a column mean: numbers of either decimal sign, dates, truth values or texts; which of them say "missing"."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import unescape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .table_encodings import COMPACTS, MOST, OF_DAY, PLAINLY_DAYS, ZONES, date_form, in_english, quoted, seconds_of, since_1970
from .table_numbers import MINUTES, SECONDS, amounts, by_thousands, doubtful, lasted, signs_of, unit_of

if TYPE_CHECKING:
    import pandas as pd

#: Texts, in lower case, that say that a value is missing.
MISSING = frozenset(
    {"", "?", "-", "--", "---", ".", "..", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "#value!", "#div/0!"}
    | {"(null)", "nil", "n.d.", "missing", "#num!", "#ref!", "#name?", "#null!", "\\n", "–", "—"}
    | {"#nv", "#wert!", "#bezug!", "#n/d", "#valeur!", "#valor!", "k.a.", "k. a.", "keine angabe"}
)
#: What a web page leaves in a cell.
_ENTITY = re.compile(r"&(?:[A-Za-z]+|#\d+|#[xX][0-9a-fA-F]+);")
_TAG = re.compile(r"(?i)</?(?:td|th|tr|p|b|i|u|em|br|div|span|strong|font|su[bp])\b[^<>]*>")
#: Signs that stand for nothing: NUL, soft hyphens, spaces and byte order marks without width, directions of writing.
_NOTHING = dict.fromkeys((0, 0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF))
#: Share of the rows that must be numbers for a column to be of numbers.
MOST_ROWS = 0.7
#: A number of this size or more is a marker, no value: its square would leave float64, and with it the mean and deviation of its column.
LARGEST = 1e100
#: The largest whole number up to which a float tells all from their neighbours.
WHOLE = 2**53
#: Texts, in lower case, that say yes and no: of such a column two are levels as they stand, more are ways to spell the two.
TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "ja", "j", "wahr", "oui", "vrai", "si", "sí", "sim", "on"), 1.0),
    **dict.fromkeys(("tak", "да", "ano", "igen", "evet", "kyllä", "ναι", "是", "はい", "예"), 1.0),
    **dict.fromkeys(("nie", "нет", "ne", "nem", "hayır", "ei", "όχι", "否", "いいえ", "아니요"), 0.0),
    **dict.fromkeys(("false", "f", "no", "n", "0", "nein", "falsch", "non", "faux", "não", "off"), 0.0),
}
#: Telephone numbers with the code of their country, which would pass for numbers.
_TELEPHONE = r"\+[1-9]\d{0,2}[ /()-]?\d[\d /()-]{6,}"
#: Texts of so many different values and one form get a word.
FORMED = 20
#: No date, number or duration has more signs.
LONGEST = 128
#: A time of day, but for one in UTC, as which one without a zone is read; and a zone behind it.
_TIME = r"(?:\d:\d\d|\dT\d{4}).*$(?<!Z)(?<!UTC)(?<!GMT)"
_ZONE = rf":\d\d(?:[.,]\d+)? ?(?:[AaPp]\.?[Mm]\.? ?)?(?:(?:GMT|UTC)?[+-]\d\d|(?:{'|'.join(ZONES)})\b)|T\d{{4,6}}[+-]\d\d"


@dataclass(frozen=True)
class Reading:
    """How the texts of a column are read.

    Attributes:
        kind: What they are.
        how: Of numbers ``.,`` or ``,.``: the decimal sign, then that of thousands, then the unit behind them, if any, or ``*`` and one of
            ``SCALES``, ``*ft`` or ``*°``. Of dates one of ``FORMATS``, or several with ``|`` between.
        note: What is probably not meant, in words, or None.
        gaps: Texts beside the others that count as missing, as ``unknown`` among numbers.
    """

    kind: Literal["text", "number", "date", "duration", "truth"] = "text"
    how: str = ".,"
    note: str | None = None
    gaps: tuple[str, ...] = ()


def texts(values: pd.Series[Any], missing: Collection[str] = MISSING) -> np.ndarray:
    """Return ``(n,)`` stripped texts, None where missing; a whole number is the same text as integer, as float and as ``1.0``."""
    import pandas as pd

    try:
        codes, levels = pd.factorize(values)
    except TypeError:  # lists and other values without a hash
        codes, levels = pd.factorize(values.map(lambda value: str(value.tolist() if hasattr(value, "tolist") else value)))
    found = np.empty(len(levels) + 1, dtype=object)
    for k, level in enumerate(levels.tolist()):
        level = level.decode("utf-8", "backslashreplace") if isinstance(level, bytes) else level
        text = str(int(level)) if isinstance(level, float) and level.is_integer() else str(level).strip()
        if "\0" in text or not text.isascii():
            text = text.translate(_NOTHING).strip()
        if "&" in text or "<" in text:
            text = _TAG.sub(" ", _ENTITY.sub(lambda entity: unescape(entity[0]), text)).strip()
        whole = text[:-2] if text.endswith(".0") else ""
        found[k] = None if text.lower() in missing else whole if whole.lstrip("-").isdigit() else text
    return np.asarray(found[codes])


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose columns have texts as names, durations as seconds and periods as the dates on which they begin.

    An index with a name is a column: so Parquet keeps what pandas had there.
    """
    import pandas as pd

    if named := [name for name in frame.index.names if name is not None and name not in frame.columns]:
        frame = frame.reset_index(named)
    names = frame.columns
    if isinstance(names, pd.MultiIndex):
        names = pd.Index([" ".join(str(part) for part in name if str(part)) for name in names])
    frame = frame.set_axis([str(name).translate(_NOTHING).strip() or f"Unnamed: {k}" for k, name in enumerate(names)], axis=1)
    for place, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.PeriodDtype):
            frame.isetitem(place, frame.iloc[:, place].dt.to_timestamp())
        elif getattr(dtype, "kind", "") == "m":
            frame.isetitem(place, frame.iloc[:, place].dt.total_seconds())
            frame.attrs["durations"] = [*frame.attrs.get("durations", ()), frame.columns[place]]
        elif getattr(dtype, "kind", "O") == "f" and getattr(dtype, "itemsize", 8) == 2:  # neither means nor limits fit into these
            frame.isetitem(place, frame.iloc[:, place].to_numpy(np.float64, na_value=np.nan))
        elif re.match(r"(large_|fixed_size_)?list<|struct<|map<|decimal", str(dtype)):  # Arrow's, which it cannot compare or convert
            frame.isetitem(place, frame.iloc[:, place].to_numpy(dtype=object))
        elif getattr(dtype, "kind", "O") in "iu" and getattr(dtype, "itemsize", 0) == 8 and (frame.iloc[:, place].abs() > WHOLE).any():
            frame.isetitem(place, frame.iloc[:, place].astype(str).array)  # texts are told apart where numbers would be rounded
    return frame


def without_markers(frame: pd.DataFrame, markers: Collection[str]) -> pd.DataFrame:
    """Return a frame without the values that stand for missing ones: ``-999`` in any column, ``age=99`` in one."""
    if markers:
        frame = frame.copy(deep=False)
    for place, name in enumerate(frame.columns if markers else ()):
        own = [marker.removeprefix(f"{name}=") for marker in markers if "=" not in marker or marker.startswith(f"{name}=")]
        meant = np.isin(texts(frame.iloc[:, place], ()), own)
        if meant.any():
            frame.isetitem(place, frame.iloc[:, place].mask(meant).array)
    return frame


def readings(frame: pd.DataFrame, plain: Collection[str] = ()) -> dict[str, Reading]:
    """Tell how the columns of text of a table are read; those in ``plain`` stay text. One column with decimal commas decides for all.

    In a file that semicolons divide, as where commas are decimal, points that seem to be of thousands are, if none elsewhere is decimal.
    Whole numbers of which all are days, as 20241231, are dates.
    """
    names = [str(name) for name, dtype in frame.dtypes.items() if name not in plain and (is_text(dtype) or _are_days(frame[name]))]
    values = {name: texts(frame[name]) for name in names}
    found = {name: infer(column) for name, column in values.items()}
    took = [name for name in frame.attrs.get("durations", ()) if name in frame.columns and name not in plain]
    found |= dict.fromkeys(took, Reading("duration", SECONDS))
    numbers = [name for name, reading in found.items() if reading.kind == "number"]
    commas, semicolons = any(found[name].how[:2] == ",." for name in numbers), (frame.attrs.get("file") or {}).get("separator") == ";"
    grouped = {name: by_thousands({*values[name]} - {None, *found[name].gaps}) for name in numbers if semicolons and not commas}
    if commas or (True in grouped.values() and False not in grouped.values()):
        found |= {name: infer(values[name], styles=(",.", ".,")) for name in numbers}
        for name in grouped:
            pointed = [text for text in values[name] if "." in (text or "") and text not in found[name].gaps]
            said = f"is read with points of thousands, as {pointed[0]!r}; if these are decimals, write decimal commas" if pointed else None
            found[name] = replace(found[name], note=found[name].note or said)
    return found


def _are_days(values: pd.Series[Any]) -> bool:
    if values.dtype.kind not in "iuf" or not ((values >= 19_000_101) & (values <= 20_991_231) | values.isna()).all():
        return False
    return infer(texts(values)).kind == "date"


def infer(values: np.ndarray, styles: tuple[str, ...] = (".,", ",.")) -> Reading:
    """Tell how texts ``(n,)`` or None are read; of two ``styles`` of numbers that fit equally the first counts."""
    import pandas as pd

    codes, levels = pd.factorize(values)
    if not len(levels):
        return Reading()
    # Patterns over texts of pages take long, and what is so long is known by its ends.
    short = [text if len(text) <= LONGEST or re.fullmatch(r"[\d.,eE+-]+", text) else f"{text[:LONGEST]} ... {text[-1]}" for text in levels]
    column = _Column(pd.Series(short, dtype=object), np.bincount(codes[codes >= 0], minlength=len(levels)), styles)
    found = next(found for reads in _READERS if (found := reads(column)) is not None)
    return replace(found, gaps=tuple(whole for whole, text in zip(levels, short, strict=True) if text in found.gaps))


@dataclass(frozen=True)
class _Column:
    """The different texts of a column, the number of rows that have each, and the styles in which numbers may be written."""

    texts: pd.Series[Any]
    rows: np.ndarray
    styles: tuple[str, ...]

    @cached_property
    def numbers(self) -> tuple[dict[str, np.ndarray], str | None]:
        """The texts as numbers, by style, the one that fits most of them first; and what is to be said of a unit behind them."""
        parsed = self._parsed(self.styles[:1])
        if not np.isfinite(parsed[self.styles[0]]).all():
            parsed = self._parsed(self.styles)
        if np.isnan(next(iter(parsed.values()))).mean() <= 1 - MOST:
            return parsed, None
        unit, said = unit_of(self.texts)
        return self._parsed([style + unit for style in self.styles]) if unit else parsed, said

    def _parsed(self, styles: Sequence[str]) -> dict[str, np.ndarray]:
        parsed = {style: parse(self.texts, Reading("number", style)) for style in styles}
        return dict(sorted(parsed.items(), key=lambda one: -np.isfinite(one[1]).sum()))

    @property
    def best(self) -> tuple[str, np.ndarray, float]:
        """The style that fits most texts, the numbers by it, NaN where a text is none, and the share of the rows that are numbers."""
        style, found = next(iter(self.numbers[0].items()))
        return style, found, float(self.rows[~np.isnan(found)].sum() / self.rows.sum())


def _truth(column: _Column) -> Reading | None:
    if len(column.texts) > len(TRUTHS) or (truths := column.texts.str.lower().map(TRUTHS)).isna().any():
        return None
    words = {*column.texts.str.lower()}
    if words <= {"true", "false", "1", "0"} and {"true", "false"} & words:
        return Reading("truth")
    if len(column.texts) <= 2 or truths.nunique() != 2 or column.texts.str.isdecimal().all():
        return None
    return Reading("truth", note=f"says yes or no in several ways, e.g. {', '.join(map(repr, column.texts[:4]))}; they are read alike")


def _code(column: _Column) -> Reading | None:
    if any(text[0] == "0" and text.isdecimal() and len(text) > 1 for text in column.texts):
        return Reading()  # 01 is not 1
    return Reading() if column.texts[0][0] == "+" and column.texts.str.fullmatch(_TELEPHONE).mean() >= MOST else None


def _plain_date(column: _Column) -> Reading | None:
    form = "ISO8601" if column.texts.str.match(PLAINLY_DAYS).all() else None  # the way of all others takes thirty times as long
    if column.texts.str.fullmatch(r"(?:19|20)\d+").all():
        lengths = zip(COMPACTS, (8, 14, 12), strict=True)
        form = next((form for form, length in lengths if all(len(text) == length for text in column.texts)), None)
    if form is None:
        return None
    return found if np.isfinite(parse(column.texts, found := Reading("date", form))).all() else None


def _beyond_numbers(column: _Column) -> Reading | None:
    _, numbers, _ = column.best
    digits = column.texts.str.fullmatch(r"\d{16,}").to_numpy()  # an exponent among them is Excel's
    if digits.mean() >= MOST and len(np.unique(numbers[digits])) < digits.sum():
        return Reading(note="is text, for its whole numbers are too long to tell apart as numbers")
    vast = (np.abs(numbers) >= LARGEST) & ~column.texts.str.contains("inf", case=False)
    if vast.mean() <= 1 - MOST:
        return None
    return Reading(note=f"is text, for as numbers its values would be beyond all measure, e.g. {column.texts[vast].iloc[0]!r}")


def _number(column: _Column) -> Reading | None:
    style, numbers, share = column.best
    gaps = column.texts[np.isnan(numbers)]
    if len(gaps) > 2 or len(numbers) < 11 * len(gaps) or (share < MOST_ROWS and len(gaps)):
        return None
    missing = f"is numbers, among which {quoted(gaps)} counts as missing" if len(gaps) else None
    signs = signs_of(column.texts) if len(style) == 2 else column.texts[:0]
    said = missing or column.numbers[1] or doubtful(column.texts, style)
    return Reading("number", style + (signs.mode()[0] if signs.any() else ""), said, tuple(gaps))


def _both_signs(column: _Column) -> Reading | None:
    read = [np.isfinite(found) for style, found in column.numbers[0].items() if style in (".,", ",.")]
    if len(read) < 2 or not np.any(read, axis=0).all():
        return None
    return Reading(note="is text, for its numbers have decimal points and decimal commas; write all alike to have numbers")


def _duration(column: _Column) -> Reading | None:
    if np.isfinite(lasted(column.texts)).mean() < MOST or any(np.isfinite(seconds_of(column.texts, form)).all() for form in OF_DAY):
        return None  # what all fits into a day is a time of day
    short = column.texts.str.extract(r"^(\d+):\d\d$")[0].astype(float)
    long = column.texts.str.fullmatch(r"\d+:\d\d:\d\d(?:\.\d+)?")
    return Reading("duration", MINUTES if long.any() and 23 < short.max() < 60 else ".,")


def _date_or_text(column: _Column) -> Reading:
    form, said = date_form(column.texts)
    if form is not None:
        lost = column.texts[np.isnan(parse(column.texts, Reading("date", form)))] if said else ()
        return Reading("date", form, said or _mixed_zones(column.texts), tuple(lost))
    _, numbers, share = column.best
    strange = np.isnan(numbers)
    held = f"is text, for beside numbers it holds {quoted(column.texts[strange])}; correct or empty these cells to have numbers"
    mostly = share > 0.5 or strange.mean() <= 1 - MOST
    return Reading(note=(held if mostly else None) or column.numbers[1] or said or _in_form(column.texts))


def zoned(found: pd.Series[Any]) -> pd.Series[Any]:
    """Return of the texts with a time of day whether a zone stands behind it; days alone, and times in UTC, are left out."""
    return found[found.str.contains(_TIME)].str.contains(_ZONE)


def _mixed_zones(different: pd.Series[Any]) -> str | None:
    if (zones := zoned(different)).nunique() < 2:
        return None
    without, beside = (different[zones.index[zones == zone][0]] for zone in (False, True))
    return f"is dates, of which some have no zone, as {without!r} beside {beside!r}, and are taken for UTC; write all with their zone"


#: What the texts of a column may be; the first that answers wins.
_READERS = (_truth, _code, _plain_date, _beyond_numbers, _number, _both_signs, _duration, _date_or_text)


def _in_form(different: Any) -> str | None:
    """Say that texts have numbers in them and all one form around these, which is not known, as in ``68x65``."""
    days = different.str.fullmatch(r"\d\d?-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)")
    if 0 < days.mean() < 0.5:
        return f"is text with {different[days].iloc[0]!r}, which Excel makes of 5-9 and of MAY9; write again what it was"
    if different.str.fullmatch(r"(?s)\[.*\]|\{.*\}").mean() >= MOST:
        return f"is text, for its values are lists or objects, e.g. {different[0][:40]!r}; make a column of each part of them"
    forms = different.str.lstrip("<>≤≥~≈#▲▼« ").str.replace(r"\d+", "0", regex=True)
    usual = forms.mode()[0]
    alike = (forms == usual).mean() >= MOST and usual.startswith("0")
    varied = re.search("[/±(‰°]", usual) or (len(different) >= FORMED and different.str.len().nunique() > 1)
    if not alike or not varied or re.fullmatch(r"0(\.0){2,}|0, ?0|0\.0, ?0\.0", usual):
        return None  # versions, addresses and places
    return f"is text, for its values hold numbers in a form that is not read, e.g. {different[0]!r}; write numbers alone to have numbers"


def parse(values: Any, reading: Reading) -> np.ndarray:
    """Turn texts ``(n,)`` or None into float64, NaN where they are none: numbers, 0 and 1, seconds, or seconds since 1970 (UTC)."""
    import pandas as pd

    column = pd.Series(values, dtype=object).astype("str")
    if reading.kind == "truth":
        return np.asarray(column.str.lower().map(TRUTHS).to_numpy(np.float64))
    if reading.kind == "date":
        found = seconds_of(column, reading.how)
        if (rest := np.isnan(found) & column.notna().to_numpy()).any():
            found[rest] = seconds_of(column[rest].map(in_english), reading.how)
        if "y" in reading.how.lower() and (rest := np.isnan(found) & column.str.match(PLAINLY_DAYS).to_numpy(bool, na_value=False)).any():
            found[rest] = seconds_of(column[rest], "ISO8601")  # whatever the form of the others is, these are nothing else
        return found
    if reading.kind == "duration":
        return lasted(column, reading.how)
    return amounts(column, reading.how)


def numbers(values: pd.Series[Any], reading: Reading = Reading()) -> np.ndarray:
    """Return a column as ``(n,)`` float64, NaN where missing; texts by their ``reading``, as numbers where it has none."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values) or (reading.kind == "date" and not is_text(values.dtype)):
        if values.dtype.kind in "iufb":  # 20241231 is a day, where training had such; milliseconds since 1970 are none
            return parse(texts(values), reading)
        return since_1970(pd.to_datetime(values, utc=True))
    if not is_text(values.dtype):
        return pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    found, reading = texts(values), reading if reading.kind != "text" else Reading("number")
    read = parse(found, reading)
    return parse(found, other) if np.isnan(read).any() and (other := by_other_sign(found, reading)) is not None else read


def by_other_sign(found: np.ndarray, reading: Reading) -> Reading | None:
    """Return how texts ``(n,)`` or None are read where most of those with a decimal sign can have the other one alone, and all may."""
    signed = np.array([text for text in found if text is not None and text not in reading.gaps and {*text} & {".", ","}], dtype=object)
    if reading.kind != "number" or 2 * np.isnan(parse(signed, reading)).sum() <= len(signed):
        return None
    other = Reading("number", reading.how[1::-1] + reading.how[2:])
    return other if np.isfinite(parse(signed, other)).all() else None


def is_text(dtype: Any) -> bool:
    """Whether the values of a column need a `Reading`: they are texts or objects, and no categories, which are what they are."""
    from pandas.api import types

    return bool(types.is_object_dtype(dtype) or types.is_string_dtype(dtype)) and str(dtype) != "category"


def as_json(reading: Reading) -> Mapping[str, Any]:
    """Return what a column's dictionary keeps of a reading, nothing for the usual one."""
    usual = reading.kind in ("text", "number") and reading.how == ".,"
    return {**({} if usual else {"reading": reading.kind, "how": reading.how}), **({"gaps": [*reading.gaps]} if reading.gaps else {})}


def from_json(column: Mapping[str, Any]) -> Reading:
    """Read what ``as_json`` wrote into a column's dictionary."""
    dates = bool(column.get("calendar"))  # a column that was stored as dates, which may come as texts later
    how, gaps = column.get("how", "ISO8601" if dates else ".,"), tuple(column.get("gaps", ()))
    return Reading(column.get("reading", "date" if dates else "number"), how, gaps=gaps)
