"""How numbers and durations are written: currencies, units, fractions, degrees, powers of ten, footnotes, digits of other scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .table_encodings import MOST

#: Texts with more different letters behind their numbers than this are codes, not amounts.
UNITS = 6
_SPACES = r"(?<=\d)[ '’_\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d))"
_UNITS = "€$£¥￥₹₽₺₩₪₫฿₴%‰ \u00a0"
#: How signs of typesetters and of other scripts stand on a keyboard: minus, the whole width of East Asia, Arabic decimals and thousands.
_PLAIN = {**{0xFF01 + k: 0x21 + k for k in range(94)}, **dict.fromkeys(map(ord, "−–‐‑﹣－"), "-"), 0x66B: ".", 0x66C: ","}
_ABOVE = "[⁺⁻]?[⁰¹²³⁴-⁹]+$"
_POWER = re.compile(rf"(?<=[x×·*]10){_ABOVE}|(?<=[x×·*] 10){_ABOVE}")
#: Currencies before or behind a number. Source: ISO 4217 for the codes.
_CURRENCY = (
    r"(?:EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|TRY|KRW|RUB|[A-Z]{0,3}\$|Rs\.?|Rp\.?|kr\.?|S?Fr\.|"
    r"[€£¥￥₹₽₺₩₪₫฿₴])"
)
#: Marks of footnotes behind a number.
_MARKS = r"(?:(?<=[^\s(])\s?(?:[*†‡§¶]+|\[\w{1,6}\])|(?<=[\d%€$£])(?<!10)[¹²³⁴⁵]|(?<=\d)\s?\([a-z]\))$"
#: Numbers as people write them, and as they are read: quotes around them, below zero in brackets or with the sign behind, powers.
_SPELLINGS = (
    (rf"^([+-]?)\s*{_CURRENCY}\s*|\s*{_CURRENCY}$", r"\1"),
    (r"^'(?=[\d+.-])|^\"(?=.*\d\"$)|(?<=\d)\"$|(?<=\d)(?:[.,]--?|/-)$", ""),
    (r"^([^-]*\d)-$", r"-\1"),
    (r"^([+-])\s+", r"\1"),
    (r"(?<=\d) ?[x×·*] ?10\^\(?([+-]?\d+)\)?$|(?<=\d)[dD](?=[+-]\d+$)", r"e\1"),
    (rf"^([+-]?)\s*{_CURRENCY}\s*|\s*{_CURRENCY}$", r"\1"),
)
#: Letters of a unit behind a number, which are no digits above or below the line.
_UNIT = r"\d[ \u00a0]?((?![¹²³⁰-₉½¼¾⅐-⅞])(?:[^\W\d_]|°)(?:[^\W\d_]|[°/²³]){0,11})\.?$"
#: Units that stand beside each other in a column, and what each counts; ``k``, beside numbers without any, by thousands.
SCALES: Mapping[str, Mapping[str, float]] = {
    "k": {"": 1, "k": 1e3, "K": 1e3, "Tsd": 1e3, "m": 1e6, "M": 1e6, "mn": 1e6, "Mio": 1e6, "B": 1e9, "bn": 1e9, "Mrd": 1e9, "T": 1e12}
    | {"тыс": 1e3, "млн": 1e6, "млрд": 1e9, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8, "lakh": 1e5, "Lakh": 1e5, "Cr": 1e7, "crore": 1e7},
    "B": {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "g": {"mg": 1e-3, "g": 1, "kg": 1e3, "t": 1e6},
    "m": {"mm": 1e-3, "cm": 1e-2, "m": 1, "km": 1e3},
    "th": dict.fromkeys(("st", "nd", "rd", "th"), 1.0),
    "l": {"ml": 1e-3, "mL": 1e-3, "cl": 1e-2, "l": 1, "L": 1},
}
#: Feet and inches, which are read as inches.
_FEET = r"""(?:(\d+) ?(?:'|′|’|ft\.?|feet|foot)(?!'))?(?: ?(\d+(?:\.\d+)?) ?(?:"|″|”|''|′′|in(?:ch(?:es)?)?\.?)?)?"""
#: Latitudes and longitudes, which are below zero in the south and west: ``51.2° N``, ``51°30'26"N``, ``0.12 W``.
_DEGREES = (
    r"""([NSEW]?) ?([+-]?\d{1,3}(?:[.,]\d+)?) ?°? ?(?:(\d\d?(?:[.,]\d+)?) ?['′’])? ?(?:(\d\d?(?:[.,]\d+)?) ?(?:["″”]|''))? ?([NSEW]?)"""
)
#: Fractions, with the whole before them or not; without it those alone that halve.
_FRACTION, _HALVES = r"([+-]?)(?:(\d+)(?:\s+|-))?(\d+)[/⁄](\d+)", (2, 4, 8, 16, 32, 64)
#: How long something took, as years, months, weeks, days, hours, minutes and seconds: ``26:15:00``, ``2 days 03:00:00``; ``32:18.5``;
#: ``1h 30m``, ``1h30``; ``PT1H30M``.
_TOOK = (
    r"-?()()()(?:(\d+)(?: days?,?|d) *)?(\d+):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?",
    r"-?()()()()()(\d+):([0-5]\d\.\d+)",
    r"-?(?:#y(?:(?:ea)?rs?)?)?[ ,]*(?:#mo(?:nth|n)?s?)?[ ,]*(?:#w(?:(?:ee)?ks?)?)?[ ,]*(?:#d(?:ays?)?)?[ ,]*(?:#h(?:(?:ou)?rs?)?)?[ ,]*"
    r"(?:#m(?:in(?:ute)?s?)?)?[ ,]*(?:#s(?:ec(?:ond)?s?)?)?".replace("#", r"(\d+(?:\.\d+)?) ?"),
    r"()()()()(\d+)h([0-5]\d)()",
    r"-?P(?:#Y)?(?:#M)?(?:#W)?(?:#D)?(?:T(?:#H)?(?:#M)?(?:#S)?)?".replace("#", r"(\d+(?:\.\d+)?)"),
)
_LASTS = (31_557_600.0, 2_629_800.0, 604_800.0, 86_400.0, 3_600.0, 60.0, 1.0)
#: How durations are read where others have hours before: ``59:30`` beside ``1:02:30``.
MINUTES = "m:s"
#: How those of files with types are, whose numbers are seconds.
SECONDS = "s"


def as_typed(text: str) -> str:
    """Return a text with digits, signs and fractions as a keyboard has them, a minus for brackets around it, without marks.

    >>> as_typed("１２．５"), as_typed("٣٫٥"), as_typed("1½"), as_typed("4.1×10⁻⁵"), as_typed("(5 kg)")
    ('12.5', '3.5', '1 1⁄2', '4.1×10^-5', '-5 kg')
    """
    if text[-1:] in "*†‡§¶¹²³⁴⁵)]":
        text = re.sub(r"^\(([^()]*\d[^()]*)\)$", r"-\1", re.sub(_MARKS, "", text))  # below zero, as accounts have it
    if text.isascii():
        return text
    text = _POWER.sub(lambda found: f"^{unicodedata.normalize('NFKC', found[0])}", text).translate(_PLAIN)
    return "".join(
        str(unicodedata.decimal(one))
        if one.isdecimal()
        else f" {unicodedata.normalize('NFKC', one)}"
        if unicodedata.decomposition(one).startswith("<fraction>")
        else one
        for one in text
    ).strip()


def amounts(column: Any, how: str) -> np.ndarray:
    """Turn texts ``(n,)`` into float64, NaN where they are no numbers; ``how`` is that of a ``Reading``."""
    import pandas as pd

    decimal, thousands, unit = how[0], how[1], how[2:]
    scale = SCALES.get(unit[1:]) if unit.startswith("*") else None
    numbers = np.full(len(column), np.nan)
    if decimal == "." and (scale is None or "" in scale) and unit != "*ft":
        numbers[:] = pd.to_numeric(column, errors="coerce")
    rest = column[np.isnan(numbers) & column.notna().to_numpy()].map(as_typed)
    if len(rest) and unit == "*ft":
        feet = rest.str.extract(f"^{_FEET}$").astype(float)
        numbers[rest.index] = np.where(feet.notna().any(axis=1), feet.fillna(0.0).to_numpy() @ [12.0, 1.0], np.nan)
    elif len(rest) and unit == "*°":
        numbers[rest.index] = _degrees(rest)
    elif len(rest := rest[rest.str.match(rf"\W*{_CURRENCY}?\W*\d")]):
        bare, factor = rest, 1.0
        if scale is not None:
            bare = bare.str.rstrip(_UNITS)
            factor = bare.str.extract(_UNIT)[0].fillna("").map(scale).where(bare != "0", 1.0)
            bare = bare.str.replace(r"(?<=\d)\s*[^\W\d_/²³]+\.?$", "", regex=True)
        elif unit:
            bare = bare.str.replace(rf"(?i)(?<=[\d ]){re.escape(unit)}s?\.?$", "", regex=True)
        bare = bare.str.strip(" \u00a0%‰")
        for form, instead in _SPELLINGS:
            bare = bare.str.replace(form, instead, regex=True)
        bare = bare.str.replace(_SPACES, "", regex=True).str.strip(_UNITS)
        found = _fractions(bare) if bare.str.contains("[/⁄]").any() else np.nan
        groups = rf"[1-9]\d{{0,2}}(?:[{thousands}]\d{{3}})+|[1-9]\d?(?:[{thousands}]\d\d)+[{thousands}]\d{{3}}"  # the latter in India
        form = rf"[+-]?(?:\d+|{groups}|(?=[{decimal}]\d))(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?"
        bare = bare.where(bare.str.fullmatch(form)).str.replace(thousands, "").str.replace(decimal, ".")
        numbers[rest.index] = pd.to_numeric(bare, errors="coerce").where(bare.notna(), found) * factor
    return numbers


def _degrees(texts: Any) -> np.ndarray:
    parts = texts.str.extract(f"^{_DEGREES}$")
    below = texts.str.contains("[SW-]")
    sizes = parts[[1, 2, 3]].apply(lambda part: part.str.replace(",", ".").astype(float).abs())
    return np.asarray(np.where(below, -1, 1) * (sizes[1] + sizes[[2, 3]].fillna(0.0).to_numpy() @ [1 / 60, 1 / 3600]))


def _fractions(texts: Any) -> Any:
    parts = texts.str.extract(f"^{_FRACTION}$")
    whole, above, under = (parts[k].astype(float) for k in (1, 2, 3))
    meant = (above < under) & (whole.notna() | under.isin(_HALVES))
    return (np.where(parts[0] == "-", -1, 1) * (whole.fillna(0.0) + above / under)).where(meant)


def unit_of(different: Any) -> tuple[str, str | None]:
    """Return what texts have behind their numbers, as ``Reading.how`` has it, and what to say of it; empty where there is none."""
    different = different.map(as_typed)
    parts = different.str.extract(f"^{_DEGREES}$")
    if parts[1].notna().mean() >= MOST:
        sides = {*parts[0], *parts[4]}
        marked = different.str.contains("°").mean() >= MOST and (len(sides) > 2 or parts[2].notna().any())
        both = {"N", "S"} <= sides or {"E", "W"} <= sides
        if marked or (both and different.str.contains(r"^[NSEW] .*\d[.,]\d|\d[.,]\d.*[NSEW]$").mean() >= MOST):
            return "*°", None
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
    first = different.str.match(rf"\W*{_CURRENCY}?\W*\d[\d.,'\s]*°?[^\W\d]*[.²³]?\W*$")  # others begin with letters
    several = not codes and (found.notna() & first).mean() >= MOST and found.nunique() <= UNITS
    return "", f"is text, for its numbers have several units, {shown}; write all in one to have numbers" if several else None


def doubtful(different: Any, style: str) -> str | None:
    """Say that numbers have several currencies, or percent signs in part, which are left out; or points that may be of thousands."""
    if style[0] == "." and by_thousands(different):
        shown = different[different.str.contains(".", regex=False)].iloc[0]
        return f"is read with decimal points, as {shown!r}; if these are of thousands, write the numbers without them"
    joined = "\n".join(different)
    if style[0] == "." and "," in joined and "." in joined:
        both = [different[different.str.fullmatch(rf"\D*[1-9]\d{{0,2}}[{sign}]\d{{3}}\D*")] for sign in ".,"]
        if all(map(len, both)) and len(both[0]) == different.str.contains(".", regex=False).sum():
            return f"is numbers with {both[1].iloc[0]!r}, read as thousands, and {both[0].iloc[0]!r}, read as decimals; write all alike"
    if (powers := different.str.fullmatch(r"\d+[eE]\d+")).any():
        shown = different[powers].iloc[0]
        return f"is numbers, and {shown!r} is read as {float(shown):g}; if these are codes, name the column in --categorical"
    if re.search("[*†‡§¶¹²³⁴⁵)\\]]", joined) and (marked := different.str.contains(_MARKS)).any():
        return f"is numbers with marks behind some, e.g. {different[marked].iloc[0]!r}, which are left out"
    signs = signs_of(different)
    named = sorted({*signs} - {""})
    if len(named) < 2 and not (named == ["%"] and ((signs == "") & (different != "0")).any()):
        return None
    shown = " and ".join(map(repr, named[:2])) if len(named) > 1 else "'%' in some cells and none in others"
    return f"is numbers with {shown}, which are read alike; write all in one unit"


def by_thousands(different: Collection[str]) -> bool | None:
    """Whether points in numbers seem to stand between thousands, for decimals vary in length; None where both may be, or none has any."""
    grouped = [text for text in different if "." in text]
    if not all(re.fullmatch(r"[^\d.,]*(\d{1,3}|[1-9]\d{0,2}\.\d{3})[^\d.,]*", text) for text in different):
        return False if grouped else None
    zeros, money = sum(bool(re.search(r"0\D*$", text)) for text in grouped), any(re.search(_CURRENCY, text) for text in grouped)
    likely = money or 2 * zeros > len(grouped) or len(grouped) < len(different)  # money has two decimals
    return True if grouped and likely else None


def signs_of(found: Any) -> Any:
    """Return the currency or percent sign of each text ``(n,)``, "" for one without."""
    if re.search(r"[^\d.,\n+-]", "\n".join(found)):
        return found.str.extract(rf"({_CURRENCY}|[%‰])")[0].fillna("")
    return found.where(found == "", "")  # most columns have none, and to look for it takes long


def lasted(column: Any, how: str = ".,") -> np.ndarray:
    """Return durations in seconds, NaN where a text is none; ``59:30`` is hours, by ``MINUTES`` minutes, numbers are by ``SECONDS``."""
    import pandas as pd

    found = np.full(len(column), np.nan)
    if how == SECONDS:
        plain = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        return np.where(np.isnan(plain), lasted(column), plain)
    if not column.str.match(r"-?P?T?-?\d").any():
        return found
    column = column.str.replace(r"^(\d+:\d\d)$", r"0:\1", regex=True) if how == MINUTES else column
    for form in _TOOK:
        parts = column.str.extract(f"(?i)^{form}$").replace("", np.nan).astype(float)
        found = np.where(parts.notna().any(axis=1), parts.fillna(0.0).to_numpy() @ np.array(_LASTS), found)
    found = np.where(column.str.startswith("-"), -found, found)
    below = column.str.extract(r"^(?:-|P-)(\d+)(?: days? \+|DT)(.+)$")  # as pandas writes what is below zero, or as ISO 8601
    if below[0].notna().any():
        found = np.where(below[0].notna(), lasted(below[1].fillna("")) - 86_400 * below[0].astype(float), found)
    return found
