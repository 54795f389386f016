"""What the texts of a column mean: numbers of either decimal sign, dates, truth values, or just texts; and which of them say "missing"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .table_encodings import COMPACTS, MINUTES, MOST, OF_DAY, PLAINLY_DAYS, SECONDS, date_form, in_english, lasted, seconds_of, since_1970

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
    **dict.fromkeys(("false", "f", "no", "n", "0", "nein", "falsch", "non", "faux", "não", "off"), 0.0),
}
#: Texts with more different letters behind their numbers than this are codes, not amounts.
UNITS = 6
_SPACES = r"(?<=\d)[ '’_\u00a0\u2009\u202f](?=\d{3}(?!\d))"
_UNITS = "€$£¥₹% \u00a0"
#: Signs that are written for minus.
_MINUS = dict.fromkeys(map(ord, "−–‐‑﹣－"), "-")
#: Numbers as people write them, and as they are read: quotes around them, below zero in brackets or with the sign behind, powers.
_SPELLINGS = (
    (r"^'(?=[\d+.-])|^\"(?=.*\d\"$)|(?<=\d)\"$", ""),
    (r"^\((.*\d.*)\)$|^([^-]*\d)-$", r"-\1\2"),
    (r"^([+-])\s+", r"\1"),
    (r"(?<=\d) ?[x×·*] ?10\^\(?([+-]?\d+)\)?$|(?<=\d)[dD](?=[+-]\d+$)", r"e\1"),
)
#: Telephone numbers with the code of their country, which would pass for numbers.
_TELEPHONE = r"\+[1-9]\d{0,2}[ /()-]?\d[\d /()-]{6,}"
#: Currencies before or behind a number. Source: ISO 4217 for the codes.
_CURRENCY = r"(?:EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|TRY|KRW|RUB|US\$|R\$|Rs\.?|kr\.?|€|\$|£|¥|₹)"
#: Texts of so many different values and one form get a word.
FORMED = 20
#: Letters of a unit behind a number.
_UNIT = r"\d[ \u00a0]?([A-Za-zµμ°Ω][A-Za-zµμ°Ω/²³]{0,11})\.?$"
#: Units that stand beside each other in a column, and what each counts; ``k``, beside numbers without any, by thousands.
SCALES: Mapping[str, Mapping[str, float]] = {
    "k": {"": 1, "k": 1e3, "K": 1e3, "Tsd": 1e3, "m": 1e6, "M": 1e6, "mn": 1e6, "Mio": 1e6, "B": 1e9, "bn": 1e9, "Mrd": 1e9, "T": 1e12},
    "B": {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "g": {"mg": 1e-3, "g": 1, "kg": 1e3, "t": 1e6},
    "m": {"mm": 1e-3, "cm": 1e-2, "m": 1, "km": 1e3},
    "th": dict.fromkeys(("st", "nd", "rd", "th"), 1.0),
    "l": {"ml": 1e-3, "mL": 1e-3, "cl": 1e-2, "l": 1, "L": 1},
}
#: Feet and inches, which are read as inches.
_FEET = r"""(?:(\d+) ?(?:'|′|’|ft\.?|feet|foot)(?!'))?(?: ?(\d+(?:\.\d+)?) ?(?:"|″|”|''|′′|in(?:ch(?:es)?)?\.?)?)?"""


@dataclass(frozen=True)
class Reading:
    """How the texts of a column are read.

    Attributes:
        kind: What they are.
        how: Of numbers ``.,`` or ``,.``: the decimal sign, then that of thousands, then the unit behind them, if any, or ``*`` and one of
            ``SCALES``, or ``*ft``. Of dates one of ``FORMATS``, or several with ``|`` between.
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
        level = level.decode("utf-8", "replace") if isinstance(level, bytes) else level
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

    Whole numbers of which all are days, as 20241231, are dates.
    """
    names = [str(name) for name, dtype in frame.dtypes.items() if name not in plain and (is_text(dtype) or _are_days(frame[name]))]
    values = {name: texts(frame[name]) for name in names}
    found = {name: infer(column) for name, column in values.items()}
    took = [name for name in frame.attrs.get("durations", ()) if name in frame.columns and name not in plain]
    found |= dict.fromkeys(took, Reading("duration", SECONDS))
    if any(reading.kind == "number" and reading.how[:2] == ",." for reading in found.values()):
        numbers = [name for name, reading in found.items() if reading.kind == "number"]
        found |= {name: infer(values[name], styles=(",.", ".,")) for name in numbers}
    return found


def _are_days(values: pd.Series[Any]) -> bool:
    if values.dtype.kind not in "iuf" or not ((values >= 19_000_101) & (values <= 20_991_231) | values.isna()).all():
        return False
    return infer(texts(values)).kind == "date"


def infer(values: np.ndarray, styles: tuple[str, ...] = (".,", ",.")) -> Reading:
    """Tell how texts ``(n,)`` or None are read; of two ``styles`` of numbers that fit equally the first counts."""
    import pandas as pd

    codes, levels = pd.factorize(values)
    different, counts = pd.Series(levels, dtype=object), np.bincount(codes[codes >= 0], minlength=len(levels))
    if different.empty:
        return Reading()
    if len(different) <= len(TRUTHS) and (truths := different.str.lower().map(TRUTHS)).notna().all():
        if {*different.str.lower()} <= {"true", "false", "1", "0"} and {"true", "false"} & {*different.str.lower()}:
            return Reading("truth")
        if len(different) > 2 and truths.nunique() == 2 and not different.str.isdecimal().all():
            return Reading("truth", note=f"says yes or no in several ways, e.g. {', '.join(map(repr, different[:4]))}; they are read alike")
    if any(text[0] == "0" and text.isdecimal() and len(text) > 1 for text in levels):  # codes: 01 is not 1
        return Reading()
    if levels[0][0] == "+" and different.str.fullmatch(_TELEPHONE).mean() >= MOST:
        return Reading()
    form = next((form for form, length in zip(COMPACTS, (8, 14, 12), strict=True) if all(len(text) == length for text in levels)), None)
    if form and different.str.fullmatch(r"(?:19|20)\d+").all() and np.isfinite(parse(different, Reading("date", form))).all():
        return Reading("date", form)
    parsed = {styles[0]: parse(different, Reading("number", styles[0]))}
    if not np.isfinite(parsed[styles[0]]).all():
        parsed |= {one: parse(different, Reading("number", one)) for one in styles[1:]}
    style = max(parsed, key=lambda one: np.isfinite(parsed[one]).sum())
    behind = None
    if np.isnan(parsed[style]).mean() > 1 - MOST:
        unit, behind = _unit(different)
        if unit:
            parsed = {one + unit: parse(different, Reading("number", one + unit)) for one in styles}
            style = max(parsed, key=lambda one: np.isfinite(parsed[one]).sum())
    strange = np.isnan(parsed[style])
    digits = different.str.fullmatch(r"\d{16,}").to_numpy()  # an exponent among them is Excel's
    if digits.mean() >= MOST and len(np.unique(parsed[style][digits])) < digits.sum():
        return Reading(note="is text, for its whole numbers are too long to tell apart as numbers")
    vast = np.abs(parsed[style]) >= LARGEST
    if vast.any() and (vast := vast & ~different.str.contains("inf", case=False)).mean() > 1 - MOST:
        return Reading(note=f"is text, for as numbers its values would be beyond all measure, e.g. {different[vast].iloc[0]!r}")
    share = float(counts[~strange].sum() / counts.sum())
    shown = ", ".join(repr(text[:40]) for text in different[strange][:3])
    if not strange.any() or (strange.sum() <= 2 and (~strange).sum() >= 10 * strange.sum() and share >= MOST_ROWS):
        said = f"is numbers, among which {shown} counts as missing" if strange.any() else behind or _doubtful(different, style)
        signs = signs_of(different) if len(style) == 2 else different[:0]
        return Reading("number", style + (signs.mode()[0] if signs.any() else ""), said, tuple(different[strange]))
    mostly = share > 0.5 or strange.mean() <= 1 - MOST
    note = f"is text, for beside numbers it holds {shown}; correct or empty these cells to have numbers" if mostly else None
    if {".,", ",."} <= parsed.keys() and (np.isfinite(parsed[".,"]) | np.isfinite(parsed[",."])).all():
        return Reading(note="is text, for its numbers have decimal points and decimal commas; write all alike to have numbers")
    if np.isfinite(lasted(different)).mean() >= MOST and not any(np.isfinite(seconds_of(different, form)).all() for form in OF_DAY):
        short, long = different.str.extract(r"^(\d+):\d\d$")[0].astype(float), different.str.fullmatch(r"\d+:\d\d:\d\d(?:\.\d+)?")
        return Reading("duration", MINUTES if long.any() and 23 < short.max() < 60 else ".,")  # what all fits into a day is a time of day
    form, said = date_form(different)
    if form is not None:
        lost = different[np.isnan(parse(different, Reading("date", form)))] if said else ()
        return Reading("date", form, said, tuple(lost))
    return Reading(note=note or behind or said or _in_form(different))


def _unit(different: Any) -> tuple[str, str | None]:
    """Return what texts have behind their numbers, as ``Reading.how`` has it, and what to say of it; empty where there is none."""
    if different.str.fullmatch(_FEET).mean() >= MOST and different.str.contains(r"\d ?(?:['′’]|f)").any():
        return "*ft", None
    found = different.str.rstrip(_UNITS).str.extract(_UNIT)[0]
    plain = different.str.fullmatch(rf"[+-]?\s*{_CURRENCY}?\s*[\d.,]+\s*{_CURRENCY}?")
    if not found.notna().any() or (found.notna() | plain).mean() < MOST:
        return "", None
    units = {*found.dropna()} | ({""} if (plain & (different != "0")).any() else set())
    for name, scale in SCALES.items():
        if units <= scale.keys() and (len(units - {""}) > 1 or units & {"k", "K", "M", "B", "Tsd", "Mio", "Mrd"}):
            return f"*{name}", None
    # Without capitals and the plural; mW is not MW.
    spelt = found.where(found.str.fullmatch("M."), found.str.lower()).str.replace(r"(?<=...)s$", "", regex=True)
    counts, shown = spelt.value_counts(), " and ".join(map(repr, found.value_counts().index[:2]))
    usual = str(counts.index[0])
    if counts.iloc[0] >= MOST * len(different):
        return usual, None
    if len(counts) == 1 < counts.iloc[0]:
        return usual, f"is numbers with {shown} in some cells and none in others, which are read alike; write all in one unit"
    codes = different.str.fullmatch(r"[1-9]\d{3} ?[A-Z]{2}").all()  # postal ones of the Netherlands
    first = different.str.match(rf"\W*{_CURRENCY}?\W*\d[\d.,'\s]*[^\W\d]*[.²³]?\W*$")  # others begin with letters
    several = not codes and (found.notna() & first).mean() >= MOST and found.nunique() <= UNITS
    return "", f"is text, for its numbers have several units, {shown}; write all in one to have numbers" if several else None


def _in_form(different: Any) -> str | None:
    """Say that texts have numbers in them and all one form around these, which is not known, as in ``68x65``."""
    days = different.str.fullmatch(r"\d\d?-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)")
    if 0 < days.mean() < 0.5:
        return f"is text with {different[days].iloc[0]!r}, which Excel makes of 5-9 and of MAY9; write again what it was"
    if different.str.fullmatch(r"(?s)\[.*\]|\{.*\}").mean() >= MOST:
        return f"is text, for its values are lists or objects, e.g. {different[0][:40]!r}; make a column of each part of them"
    forms = different.str.lstrip("<>≤≥~≈ ").str.replace(r"\d+", "0", regex=True)
    usual = forms.mode()[0]
    alike = (forms == usual).mean() >= MOST and usual.startswith("0")
    varied = "/" in usual or (len(different) >= FORMED and different.str.len().nunique() > 1)
    if not alike or not varied or re.fullmatch(r"0(\.0){2,}|0, ?0|0\.0, ?0\.0", usual):
        return None  # versions, addresses and places
    return f"is text, for its values hold numbers in a form that is not read, e.g. {different[0]!r}; write numbers alone to have numbers"


def _doubtful(different: Any, style: str) -> str | None:
    """Say that numbers have several currencies, or percent signs in part, which are left out; or points that may be of thousands."""
    if style[0] == "." and all(re.fullmatch(r"[^\d.,]*(\d{1,3}|[1-9]\d{0,2}\.\d{3})[^\d.,]*", text) for text in different):
        grouped, money = different.str.contains(".", regex=False), different.str.contains(_CURRENCY).any()  # which has two decimals
        if grouped.mean() > 0.5 and (money or not grouped.all() or different.str.contains(r"0\D*$").mean() > 0.5):
            shown = different[grouped].iloc[0]
            return f"is read with decimal points, as {shown!r}; if these are of thousands, write the numbers without them"
    if (powers := different.str.fullmatch(r"\d+[eE]\d+")).any():
        shown = different[powers].iloc[0]
        return f"is numbers, and {shown!r} is read as {float(shown):g}; if these are codes, name the column in --categorical"
    signs = signs_of(different)
    named = sorted({*signs} - {""})
    if len(named) < 2 and not (named == ["%"] and ((signs == "") & (different != "0")).any()):
        return None
    shown = " and ".join(map(repr, named[:2])) if len(named) > 1 else "'%' in some cells and none in others"
    return f"is numbers with {shown}, which are read alike; write all in one unit"


def signs_of(found: Any) -> Any:
    """Return the currency or percent sign of each text ``(n,)``, "" for one without."""
    if re.search(r"[^\d.,\n+-]", "\n".join(found)):
        return found.str.extract(rf"({_CURRENCY}|%)")[0].fillna("")
    return found.where(found == "", "")  # most columns have none, and to look for it takes long


def _plain_digits(text: str) -> str:
    """Return a text with the digits 0 to 9 in place of those of other scripts."""
    return text if text.isascii() else "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text)


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
    decimal, thousands, unit = reading.how[0], reading.how[1], reading.how[2:]
    scale = SCALES.get(unit[1:]) if unit.startswith("*") else None
    numbers = np.full(len(column), np.nan)
    if decimal == "." and (scale is None or "" in scale) and unit != "*ft":
        numbers[:] = pd.to_numeric(column, errors="coerce")
    rest = column[np.isnan(numbers) & column.notna().to_numpy()]
    if len(rest) and unit == "*ft":
        feet = rest.str.extract(f"^{_FEET}$").astype(float)
        numbers[rest.index] = np.where(feet.notna().any(axis=1), feet.fillna(0.0).to_numpy() @ [12.0, 1.0], np.nan)
    elif len(rest):
        bare = rest.map(_plain_digits).str.translate(_MINUS)
        factor: Any = 1.0
        if scale is not None:
            bare = bare.str.rstrip(_UNITS)
            factor = bare.str.extract(_UNIT)[0].fillna("").map(scale).where(bare != "0", 1.0)
            bare = bare.str.replace(r"(?<=\d)\s*[^\W\d_/²³]+\.?$", "", regex=True)
        elif unit:
            bare = bare.str.replace(rf"(?i)(?<=[\d ]){re.escape(unit)}s?\.?$", "", regex=True)
        bare = bare.str.strip(_UNITS)
        for form, instead in _SPELLINGS:
            bare = bare.str.replace(form, instead, regex=True)
        bare = bare.str.replace(rf"^([+-]?)\s*{_CURRENCY}\s*|\s*{_CURRENCY}$", r"\1", regex=True)
        bare = bare.str.replace(_SPACES, "", regex=True).str.strip(_UNITS)
        groups = rf"[1-9]\d{{0,2}}(?:[{thousands}]\d{{3}})+|[1-9]\d?(?:[{thousands}]\d\d)+[{thousands}]\d{{3}}"  # the latter in India
        form = rf"[+-]?(?:\d+|{groups}|(?=[{decimal}]\d))(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?"
        bare = bare.where(bare.str.fullmatch(form)).str.replace(thousands, "").str.replace(decimal, ".")
        numbers[rest.index] = pd.to_numeric(bare, errors="coerce") * factor
    return numbers


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
