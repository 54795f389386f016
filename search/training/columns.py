"""What the texts of a column mean: numbers of either decimal sign, dates, truth values, or just texts; and which of them say "missing"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Texts, in lower case, that say that a value is missing.
MISSING = frozenset(
    {"", "?", "-", "--", "---", ".", "..", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "#value!", "#div/0!"}
    | {"(null)", "nil", "n.d.", "missing", "#num!", "#ref!", "#name?", "#null!", "\\n"}
    | {"#nv", "#wert!", "#bezug!", "#n/d", "#valeur!", "#valor!", "k.a.", "k. a.", "keine angabe"}
)
#: Signs that stand for nothing: NUL, and the byte order mark that a file has in its middle when it was put together of two.
_NOTHING = {0: None, 0xFEFF: None}
#: Share of the different texts that must be dates, and of the rows that must be numbers, for a column to be of dates or numbers.
MOST = 0.95
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
_SPACES = r"(?<=\d)[ '’\u00a0\u2009\u202f](?=\d{3})"
_UNITS = "€$£¥₹% \u00a0"
#: Telephone numbers with the code of their country, which would pass for numbers.
_TELEPHONE = r"\+[1-9]\d{0,2}[ /()-]?\d[\d /()-]{6,}"
#: Currencies before or behind a number. Source: ISO 4217 for the codes.
_CURRENCY = r"(?:EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|TRY|KRW|RUB|US\$|R\$|Rs\.?|kr\.?|€|\$|£|¥|₹)"
#: How long something took: ``26:15:00``, ``2 days 03:00:00``, ``1h 30m``, ``PT1H30M``.
_LASTED = r"(?:(\d+)(?: days?,?|d) *)?(\d+):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?"
_SPELT = (
    r"P?(?:(\d+) ?d(?:ays?)?)?[ ,T]*(?:(\d+) ?h(?:(?:ou)?rs?)?)?[ ,]*(?:(\d+) ?m(?:in(?:ute)?s?)?)?[ ,]*"
    r"(?:(\d+(?:\.\d+)?) ?s(?:ec(?:ond)?s?)?)?"
)
#: How durations are read where others have hours before: ``59:30`` beside ``1:02:30``.
MINUTES = "m:s"
#: Quarters and weeks: ``2024Q1``, ``2024-Q1``, ``Q1 2024``; ``2024-W05``.
_QUARTER = r"^(?:(\d{4})[- /]?[Qq]([1-4])|[Qq]([1-4])[- /]?(\d{4}))$"
_WEEK = r"^(\d{4})-?[Ww](\d{2})$"
#: Letters of a unit behind a number.
_UNIT = r"\d[ \u00a0]?([A-Za-zµμ°Ω][A-Za-zµμ°Ω/²³]{0,11})$"
_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y")
_NAMED_DAYS = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d-%b-%y", "%d. %B %Y")
_HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
#: Dates without separators, which would pass for numbers.
COMPACT = "%Y%m%d"
#: How dates are written, the first that fits counts; "ISO8601" is pandas' word for all of its forms.
_OF_DAY = ("%H:%M", "%H:%M:%S")
FORMATS = ("ISO8601", *(day + hour for day in (*_DAYS, *_NAMED_DAYS) for hour in _HOURS), *_OF_DAY)
FORMATS = (*FORMATS, "%d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%b %Y", "%I:%M %p")
FORMATS = (*FORMATS, "%m/%Y", "%b-%y", "%b-%Y", "%b %d %H:%M:%S %Y", "%b %d %H:%M:%S %z %Y")
#: What may be a date, and what is meant as a day (no version, no address); those of East Asia.
_DAY = r"(\d{4}[-/. ]\d\d?[-/. ]\d\d?|\d\d?[-/. ]\d\d?[-/. ](\d{4}|\d\d))(?![.\d])|.*[A-Za-z]{3}"
_DATE = r"\d{1,4}[-/.: ]\d|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d|\d{8}T\d{4}|\d{1,2}[-./ ]{1,2}[A-Za-z]|[A-Za-z]{3,9} \d"
#: Years whose days are dates: nanoseconds since 1970, as some readers of tables have them, reach no further.
YEARS = (1678, 2261)
#: A share of something, or two measurements in one: ``3/10``, ``1 1/2``, ``120/80``.
_PAIR = r"(?:\d+ )?\d+(?:\.\d+)? ?/ ?\d+(?:\.\d+)?"
_CHARACTERS = r"^(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일]"
#: Months without accents in English, German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Polish and Russian.
_MONTHS = (
    "jan january januar janner janvier janv enero ene gennaio gen janeiro januari stycznia января",
    "feb february februar fevrier fevr febrero febbraio fevereiro fev februari lutego февраля",
    "mar march marz maerz mrz mars marzo marco maart mrt marca марта",
    "apr april avril avr abril abr aprile kwietnia апреля",
    "may mai mayo maggio mag maio mei maj maja мая",
    "jun june juni juin junio giugno giu junho czerwca июня",
    "jul july juli juillet juil julio luglio lug julho lipca июля",
    "aug august aout agosto ago augustus augusti sierpnia августа",
    "sep sept september septembre septiembre settembre set setembro wrzesnia сентября",
    "oct october oktober okt octobre octubre ottobre ott outubro out pazdziernika октября",
    "nov november novembre noviembre novembro listopada ноября",
    "dec december dezember dez decembre diciembre dic dicembre dezembro grudnia декабря",
)
_ENGLISH = {name: names.split()[0].capitalize() for names in _MONTHS for name in names.split()}
#: Words about a date that say nothing more: a weekday before it, "of" between its parts, "o'clock" behind it.
_WEEKDAY = r"^[^\W\d_]+[.,]*\s+(?=\d{1,2}[. ]+[^\W\d_]|\d{1,4}[./-]\d|[A-Z][a-z]{2} +\d\d? \d\d:)"
_FILLING = (
    r"\s*(?:Uhr|uur|h)$|(?<=\d) ?(?:UTC|GMT)$|(?<=\d)(?:st|nd|rd|th|er|º)?[.]?\s+(?:de |of )?(?=[^\W\d_]{3})|"
    r"(?<=[^\W\d_])[.]?\s+(?:de|del|of)\s+(?=\d)"
)


@dataclass(frozen=True)
class Reading:
    """How the texts of a column are read.

    Attributes:
        kind: What they are.
        how: Of numbers ``.,`` or ``,.``: the decimal sign, then that of thousands, then the unit behind them, if any. Of dates one of
            ``FORMATS``.
        note: What is probably not meant, in words, or None.
    """

    kind: Literal["text", "number", "date", "duration", "truth"] = "text"
    how: str = ".,"
    note: str | None = None


def texts(values: pd.Series[Any], missing: Collection[str] = MISSING) -> np.ndarray:
    """Return ``(n,)`` stripped texts, None where missing; a whole number is the same text as integer, as float and as ``1.0``."""
    import pandas as pd

    try:
        codes, levels = pd.factorize(values)
    except TypeError:  # lists and other values without a hash
        codes, levels = pd.factorize(values.map(str))
    found = np.empty(len(levels) + 1, dtype=object)
    for k, level in enumerate(levels.tolist()):
        text = str(int(level)) if isinstance(level, float) and level.is_integer() else str(level).translate(_NOTHING).strip()
        whole, _, rest = text.partition(".")
        found[k] = None if text.lower() in missing else whole if rest == "0" and whole.lstrip("-").isdigit() else text
    return np.asarray(found[codes])


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose columns have texts as names, durations as seconds and periods as the dates on which they begin."""
    import pandas as pd

    names = frame.columns
    if isinstance(names, pd.MultiIndex):
        names = pd.Index([" ".join(str(part) for part in name if str(part)) for name in names])
    frame = frame.set_axis([str(name).strip() or f"Unnamed: {k}" for k, name in enumerate(names)], axis=1)
    for place, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.PeriodDtype):
            frame.isetitem(place, frame.iloc[:, place].dt.to_timestamp())
        elif getattr(dtype, "kind", "") == "m":
            frame.isetitem(place, frame.iloc[:, place].dt.total_seconds())
        elif str(dtype).startswith(("list<", "large_list<", "fixed_size_list<", "struct<", "map<")):  # Arrow's, which it cannot compare
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
    """Tell how the columns of text of a table are read; those in ``plain`` stay text. One column with decimal commas decides for all."""
    names = [name for name, dtype in frame.dtypes.items() if is_text(dtype) and name not in plain]
    values = {str(name): texts(frame[name]) for name in names}
    found = {name: infer(column) for name, column in values.items()}
    if any(reading.kind == "number" and reading.how[:2] == ",." for reading in found.values()):
        numbers = [name for name, reading in found.items() if reading.kind == "number"]
        found |= {name: infer(values[name], styles=(",.", ".,")) for name in numbers}
    return found


def infer(values: np.ndarray, styles: tuple[str, ...] = (".,", ",.")) -> Reading:
    """Tell how texts ``(n,)`` or None are read; of two ``styles`` of numbers that fit equally the first counts."""
    import pandas as pd

    codes, levels = pd.factorize(values)
    different, counts = pd.Series(levels, dtype=object), np.bincount(codes[codes >= 0], minlength=len(levels))
    if different.empty:
        return Reading()
    truths = different.str.lower().map(TRUTHS)
    if truths.notna().all():
        if {*different.str.lower()} <= {"true", "false", "1", "0"} and {"true", "false"} & {*different.str.lower()}:
            return Reading("truth")
        if len(different) > 2 and truths.nunique() == 2 and not different.str.isdecimal().all():
            return Reading("truth", note=f"says yes or no in several ways, e.g. {', '.join(map(repr, different[:4]))}; they are read alike")
    if different.str.fullmatch(r"0\d+").any() or different.str.fullmatch(_TELEPHONE).mean() >= MOST:  # codes: 01 is not 1
        return Reading()
    if different.str.fullmatch(r"(?:19|20)\d{6}").all() and np.isfinite(parse(different, Reading("date", COMPACT))).all():
        return Reading("date", COMPACT)
    parsed = {styles[0]: parse(different, Reading("number", styles[0]))}
    if not np.isfinite(parsed[styles[0]]).all():
        parsed |= {one: parse(different, Reading("number", one)) for one in styles[1:]}
    style = max(parsed, key=lambda one: np.isfinite(parsed[one]).sum())
    if np.isnan(parsed[style]).mean() > 1 - MOST and (unit := _unit(different)):
        parsed = {one + unit: parse(different, Reading("number", one + unit)) for one in styles}
        style = max(parsed, key=lambda one: np.isfinite(parsed[one]).sum())
    strange = np.isnan(parsed[style])
    if different.str.fullmatch(r"\d{16,}").all() and len(np.unique(parsed[style])) < len(different):
        return Reading(note="is text, for its whole numbers are too long to tell apart as numbers")
    vast = (np.abs(parsed[style]) >= LARGEST) & ~different.str.contains("inf", case=False)
    if vast.mean() > 1 - MOST:
        return Reading(note=f"is text, for as numbers its values would be beyond all measure, e.g. {different[vast].iloc[0]!r}")
    share = float(counts[~strange].sum() / counts.sum())
    shown = ", ".join(map(repr, different[strange][:3]))
    if not strange.any() or (strange.sum() <= 2 and (~strange).sum() >= 10 * strange.sum() and share >= MOST_ROWS):
        return Reading(
            "number", style, f"is numbers, among which {shown} counts as missing" if strange.any() else _doubtful(different, style)
        )
    note = f"is text, for beside numbers it holds {shown}; correct or empty these cells to have numbers" if share > 0.5 else None
    if {".,", ",."} <= parsed.keys() and (np.isfinite(parsed[".,"]) | np.isfinite(parsed[",."])).all():
        return Reading(note="is text, for its numbers have decimal points and decimal commas; write all alike to have numbers")
    signs = different.str.lstrip("<>≤≥~≈ ")
    if note is None and (signs != different).any() and np.isfinite(parse(signs, Reading("number", style[:2]))).mean() >= MOST:
        shown = different[(signs != different)].iloc[0]
        return Reading(note=f"is text, for its numbers have signs as in {shown!r}; remove these to have numbers")
    if np.isfinite(_lasted(different)).mean() >= MOST and not any(np.isfinite(_seconds(different, form)).all() for form in _OF_DAY):
        short, long = different.str.extract(r"^(\d+):\d\d$")[0].astype(float), different.str.fullmatch(r"\d+:\d\d:\d\d(?:\.\d+)?")
        return Reading("duration", MINUTES if long.any() and 23 < short.max() < 60 else ".,")  # what all fits into a day is a time of day
    units = different.str.extract(rf"^[+-]?[\d.,]*{_UNIT}")[0]
    if note is None and units.notna().mean() >= MOST and units.nunique() <= UNITS:
        shown = " and ".join(map(repr, units.value_counts().index[:2]))
        return Reading(note=f"is text, for its numbers have several units, {shown}; write all in one to have numbers")
    if in_english(different[:100]).str.match(_DATE).mean() < MOST / 2:
        return Reading(note=note)
    dates = in_english(different)
    looks = dates.str.match(_DATE)
    if looks.mean() < MOST:
        return Reading(note=note)
    fits = [form for form in FORMATS if np.isfinite(_seconds(dates[:100], form)).mean() >= MOST]
    fits = [form for form in fits if np.isfinite(_seconds(dates, form)).mean() >= MOST]
    if fits and fits[0] in _OF_DAY and not dates.str.contains(r":\d\d").all():  # a score of a match, as 3:1
        return Reading()
    if not fits:
        years = dates.str.extract(r"(?<!\d)(\d{4})(?!\d)")[0].astype(float)
        far = ((years < YEARS[0]) | (years > YEARS[1])).to_numpy()
        mixed = f"looks like dates, of which no one form fits {MOST:.0%}, e.g. {different[0]!r}; write all as 2024-12-31"
        if far.mean() > 1 - MOST:
            beyond = f"days beyond the years {YEARS[0]} to {YEARS[1]}, e.g. {different[far].iloc[0]!r}"
            mixed = f"is text, for it has {beyond}; write these as numbers, e.g. the year"
        pairs = different.str.fullmatch(_PAIR).mean() >= MOST
        paired = f"is text, for its values are pairs of numbers, e.g. {different[0]!r}; write each as one number, or as two columns"
        return Reading(note=note or (paired if pairs else mixed if dates.str.match(_DAY).mean() >= MOST / 2 else None))
    lost = different[np.isnan(_seconds(dates, fits[0]))]
    if len(lost):
        return Reading("date", fits[0], f"is dates, among which {', '.join(map(repr, lost[:3]))} counts as missing")
    swapped = [form for form in fits[1:] if form.replace("%d", "x").replace("%m", "%d").replace("x", "%m") == fits[0]]
    first = "month/day" if fits[0].startswith("%m") else "day/month"
    return Reading("date", fits[0], f"is read as {first}, and could be the reverse; write dates as 2024-12-31" if swapped else None)


def _unit(different: Any) -> str:
    """Return the unit that nearly all texts have behind a number, e.g. ``kg``; empty where there is none."""
    found = different.str.extract(_UNIT)[0].value_counts()
    return str(found.index[0]) if len(found) and found.iloc[0] >= MOST * len(different) else ""


def _doubtful(different: Any, style: str) -> str | None:
    """Say that numbers have several currencies, or percent signs in part, which are left out; or points that may be of thousands."""
    whole, grouped = different.str.fullmatch(r"[+-]?\d{1,3}"), different.str.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}")
    if style[0] == "." and (whole | grouped).all() and grouped.mean() > 0.5 and (whole.any() or different.str.endswith("0").mean() > 0.5):
        return f"is read with decimal points, as {different[grouped].iloc[0]!r}; if these are of thousands, write the numbers without them"
    signs = different.str.extract(rf"({_CURRENCY}|%)")[0]
    named = sorted({*signs.dropna()})
    if len(named) < 2 and not (named == ["%"] and (signs.isna() & (different != "0")).any()):
        return None
    shown = " and ".join(map(repr, named[:2])) if len(named) > 1 else "'%' in some cells and none in others"
    return f"is numbers with {shown}, which are read alike; write all in one unit"


def _lasted(column: Any, how: str = ".,") -> np.ndarray:
    """Return durations in seconds, NaN where a text is none; ``59:30`` is hours, by ``MINUTES`` minutes."""
    column = column.str.replace(r"^(\d+:\d\d)$", r"0:\1", regex=True) if how == MINUTES else column
    found = np.full(len(column), np.nan)
    for form in (_LASTED, _SPELT):
        parts = column.str.extract(f"(?i)^{form}$").astype(float)
        found = np.where(parts.notna().any(axis=1), parts.fillna(0.0).to_numpy() @ [86_400.0, 3_600.0, 60.0, 1.0], found)
    return found


def _seconds(column: Any, form: str) -> np.ndarray:
    import pandas as pd

    times = pd.to_datetime(column, format=form, errors="coerce", utc=True)
    return _since_1970(times) if times.notna().any() else np.full(len(times), np.nan)  # most forms fit no text of a column


def _since_1970(times: Any) -> np.ndarray:
    """Return times as seconds, NaN where there is none: missing, or a marker such as 9999-12-31, which nanoseconds do not reach."""
    found = times.dt.tz_convert(None).dt.as_unit("s").to_numpy(dtype="datetime64[s]")
    seconds = found.astype("int64").astype(np.float64) + (times.dt.microsecond.to_numpy(dtype=np.float64, na_value=np.nan) / 1e6)
    seconds[np.isnat(found) | ~(np.abs(seconds) < 2**63 / 1e9)] = np.nan
    return np.asarray(seconds)


def in_english(different: Any) -> Any:
    """Return texts of dates with English months of three letters, without weekdays and filling words; others as they are."""
    different = different.str.replace(_CHARACTERS, lambda found: f"{found[1]}-{int(found[2]):02}-{int(found[3]):02}", regex=True)
    different = different.str.replace(
        _QUARTER, lambda found: f"{found[1] or found[4]}-{3 * int(found[2] or found[3]) - 2:02}-01", regex=True
    )
    different = different.str.replace(_WEEK, _monday, regex=True).str.replace(r"(?i)\b([ap])\.m\.?$", r"\1m", regex=True)
    different = different.str.replace(r"(:\d\d),(\d+)$", r"\1.\2", regex=True)
    worded = different.str.contains(r"[^\W\d_]{2}", regex=True, na=False)
    if not worded.any():
        return different

    def month(found: re.Match[str]) -> str:
        plain = "".join(one for one in unicodedata.normalize("NFKD", found[1].casefold()) if not unicodedata.combining(one))
        return _ENGLISH.get(plain, found[0])

    plain = different[worded].str.replace(_WEEKDAY, "", regex=True)
    plain = plain.str.replace(_FILLING, lambda found: " " if found[0][-1:].isspace() else "", regex=True)
    return different.where(~worded, plain.str.replace(r"([^\W\d_]{3,})\.?", month, regex=True).reindex(different.index))


def _monday(week: re.Match[str]) -> str:
    try:
        return date.fromisocalendar(int(week[1]), int(week[2]), 1).isoformat()
    except ValueError:
        return week[0]


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
        found = _seconds(column, reading.how)
        if (rest := np.isnan(found)).any():
            found[rest] = _seconds(in_english(column[rest]), reading.how)
        return found
    if reading.kind == "duration":
        return _lasted(column, reading.how)
    decimal, thousands = reading.how[0], reading.how[1]
    numbers = np.full(len(column), np.nan)
    if decimal == ".":
        numbers[:] = pd.to_numeric(column, errors="coerce")
    rest = column[np.isnan(numbers) & column.notna().to_numpy()]
    if len(rest):
        bare = rest.map(_plain_digits).str.replace("−", "-").str.removesuffix(reading.how[2:]).str.strip(_UNITS)
        bare = bare.str.replace(r"^\((.*\d.*)\)$|^([^-]*\d)-$", r"-\1\2", regex=True)  # as accountants write what is below zero
        bare = bare.str.replace(rf"^([+-]?)\s*{_CURRENCY}\s*|\s*{_CURRENCY}$", r"\1", regex=True)
        bare = bare.str.replace(_SPACES, "", regex=True).str.strip(_UNITS)
        groups = rf"[1-9]\d{{0,2}}(?:[{thousands}]\d{{3}})+|[1-9]\d?(?:[{thousands}]\d\d)+[{thousands}]\d{{3}}"  # the latter in India
        form = rf"[+-]?(?:\d+|{groups}|(?=[{decimal}]\d))(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?"
        bare = bare.where(bare.str.fullmatch(form)).str.replace(thousands, "").str.replace(decimal, ".")
        numbers[rest.index] = pd.to_numeric(bare, errors="coerce")
    return numbers


def numbers(values: pd.Series[Any], reading: Reading = Reading()) -> np.ndarray:
    """Return a column as ``(n,)`` float64, NaN where missing; texts by their ``reading``, as numbers where it has none."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values) or (reading.kind == "date" and not is_text(values.dtype)):
        if reading.how == COMPACT and values.dtype.kind in "iuf":
            return parse(texts(values), reading)
        return _since_1970(pd.to_datetime(values, utc=True))
    if not is_text(values.dtype):
        return pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    return parse(texts(values), reading if reading.kind != "text" else Reading("number"))


def is_text(dtype: Any) -> bool:
    """Whether the values of a column need a `Reading`: they are texts or objects, and no categories, which are what they are."""
    from pandas.api import types

    return bool(types.is_object_dtype(dtype) or types.is_string_dtype(dtype)) and str(dtype) != "category"


def as_json(reading: Reading) -> Mapping[str, str]:
    """Return what a column's dictionary keeps of a reading, nothing for the usual one."""
    return {} if reading.kind in ("text", "number") and reading.how == ".," else {"reading": reading.kind, "how": reading.how}


def from_json(column: Mapping[str, Any]) -> Reading:
    """Read what ``as_json`` wrote into a column's dictionary."""
    dates = bool(column.get("calendar"))  # a column that was stored as dates, which may come as texts later
    return Reading(column.get("reading", "date" if dates else "number"), column.get("how", "ISO8601" if dates else ".,"))
