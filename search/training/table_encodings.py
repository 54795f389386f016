"""What a column says beyond a number or a few levels: its dates and their calendar, the mean target of its codes, the words of its texts.

How dates are written is told from their texts; what is learnt from training rows is kept as JSON in the column's dictionary, and applied to
any rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: A part of the calendar is a feature when the training rows have so many different values of it.
FEWEST = {"year": 2, "month": 3, "weekday": 3, "hour": 3}
#: Steps of a part on its circle, and how many of them are one of its unit: months, days, and the minutes of an hour.
STEPS = {"month": (12, 1), "weekday": (7, 1), "hour": (1_440, 60)}
#: The mean target of a level counts as so many rows of the overall mean: a level of one row says little.
PRIOR_ROWS = 10.0
#: Of a column with more levels than this the most frequent ones are kept; of a task with more classes none is encoded.
LEVELS, CLASSES = 5_000, 10
#: Parts of the training rows, each encoded by the others.
FOLDS = 5
#: A word is a feature when so many rows, and this share of them, have it and not nearly all; at most so many of the most frequent.
ROWS, RARE, COMMON, WORDS = 10, 0.01, 0.9, 24
_WORD = re.compile(r"[^\W\d_]+")
_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y")
_NAMED_DAYS = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d-%b-%y", "%d. %B %Y", "%d/%b/%Y", "%Y %b %d")
_HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", " %H:%M %z", " %H:%M:%S %z")
#: Dates without separators, which would pass for numbers, and what begins so, with the time of day.
COMPACT = "%Y%m%d"
COMPACTS = (COMPACT, f"{COMPACT}%H%M%S", f"{COMPACT}%H%M")
#: How dates are written, the first that fits counts; "ISO8601" is pandas' word for all of its forms.
OF_DAY = ("%H:%M", "%H:%M:%S")
FORMATS = ("ISO8601", *(day + hour for day in (*_DAYS, *_NAMED_DAYS) for hour in _HOURS), *OF_DAY)
FORMATS += ("%d/%b/%Y:%H:%M:%S %z", "%b %Y", "%I:%M %p", "%I %p", "%m/%Y", "%b-%y", "%b-%Y", "%b %d %H:%M:%S %Y", "%b %d %H:%M:%S %z %Y")
#: Dates are of so many forms at most, each of at least this share of the different texts; that share of all must be dates.
FORMS, LEAST, MOST = 3, 0.05, 0.95
#: What may be a date, and what is meant as a day (no version, no address).
_DAY = r"(\d{4}[-/. ]\d\d?[-/. ]\d\d?|\d\d?[-/. ]\d\d?[-/. ](\d{4}|\d\d))(?![.\d])|.*[A-Za-z]{3}.*\d{4}"
_DATE = (
    r"\d{1,4}[-/.: ]\d|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d|\d{8}T\d{4}"
    r"|\d{1,2}[-./ ]{1,2}[A-Za-z]|[A-Za-z]{3,9} \d|\d{4} [A-Z][a-z]{2} \d"
)
#: What is a day, perhaps with a time, and nothing else: as ISO 8601 has it, without a zone.
PLAINLY_DAYS = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?$"
#: A year of two digits that lies so many years ahead is probably of the last century, as those of births.
AHEAD = 10
#: Years whose days are dates: nanoseconds since 1970, as some readers of tables have them, reach no further.
YEARS = (1678, 2261)
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
#: The same in Czech, Finnish, Norwegian, Romanian, Hungarian, Turkish, Greek and Ukrainian.
_FURTHER = (
    "ledna tammikuuta ianuarie ocak ιανουαριου січня",
    "unora helmikuuta februarie subat φεβρουαριου лютого",
    "brezna maaliskuuta martie mart marcius μαρτιου березня",
    "dubna huhtikuuta aprilie nisan aprilis απριλιου квітня",
    "kvetna toukokuuta majus mayıs μαιου травня",
    "cervna kesakuuta iunie junius haziran ιουνιου червня",
    "cervence heinakuuta iulie julius temmuz ιουλιου липня",
    "srpna elokuuta augusztus agustos αυγουστου серпня",
    "zari syyskuuta septembrie szeptember eylul σεπτεμβριου вересня",
    "rijna lokakuuta octombrie ekim οκτωβριου жовтня",
    "listopadu marraskuuta noiembrie kasım νοεμβριου листопада",
    "prosince joulukuuta desember decembrie aralık δεκεμβριου грудня",
)
#: Zones whose letters mean one thing nearly everywhere, in hours before UTC.
ZONES = {"CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5}
ZONES |= {"MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_ENGLISH = {
    name: names.split()[0].capitalize() for names, more in zip(_MONTHS, _FURTHER, strict=True) for name in f"{names} {more}".split()
}
#: Words about a date that say nothing more: a weekday before it, "of" between its parts, "o'clock" behind it.
_WEEKDAY = r"^[^\W\d_]+[.,]*\s+(?=\d{1,2}[. ]+[^\W\d_]|\d{1,4}[./-]\d|[A-Z][a-z]{2} +\d\d? (?:\d{4} )?\d\d:)"
_FILLING = (
    r"\s*(?:Uhr|uur|h)$|(?<=\d) ?(?:UTC|GMT)$|(?<=\d)(?:st|nd|rd|th|er|º)?[.]?\s+(?:de |of )?(?=[^\W\d_]{3})|"
    r"(?<=[^\W\d_])[.]?\s+(?:de|del|of)\s+(?=\d)"
)


def learn_calendar(seconds: np.ndarray) -> dict[str, Any]:
    """Return which parts of the calendar times ``(n,)`` in seconds since 1970 vary in, and the years between which they lie."""
    known = seconds[np.isfinite(seconds)]
    parts = _calendar(known)
    varied = [part for part, fewest in FEWEST.items() if len(np.unique(np.floor(parts[part]))) >= fewest]
    span = [float(parts["year"].min()), float(parts["year"].max())] if len(known) else [0.0, 0.0]
    return {"calendar": varied, "years": span} if varied else {}


def calendar_names(column: Mapping[str, Any]) -> list[str]:
    """Return the names of the features that ``calendar_features`` makes."""
    parts = column.get("calendar", ())
    return [name for part in parts for name in (("@year",) if part == "year" else (f"@{part} sin", f"@{part} cos"))]


def calendar_features(column: Mapping[str, Any], seconds: np.ndarray) -> np.ndarray:
    """Return ``(n, k)``: the year between 0 and 1, month, weekday and hour on a circle; zeros where the time ``(n,)`` is missing."""
    known = np.isfinite(seconds)
    parts = _calendar(np.where(known, seconds, 0.0))
    made = []
    for part in column["calendar"]:
        if part == "year":
            low, high = column["years"]
            made.append((parts[part] - low) / max(1.0, high - low))
        else:
            made += [*circle(part)[np.floor(parts[part] * STEPS[part][1] + 1e-6).astype(int)].T]
    return np.where(known[:, None], np.stack(made, axis=1), 0.0)


def circle(part: str) -> np.ndarray:
    """Return sine and cosine ``(steps, 2)`` of a part of the calendar: a table, so that a graph which looks them up gives the same."""
    angle = 2 * np.pi * np.arange(STEPS[part][0]) / STEPS[part][0]
    return np.asarray(np.round(np.stack([np.sin(angle), np.cos(angle)], axis=1), 6))


def _calendar(seconds: np.ndarray) -> dict[str, np.ndarray]:
    # Beyond these years numpy's dates overflow.
    inside = np.floor(np.clip(seconds, -6.2e10, 2.5e11))
    moments = inside.astype("int64").astype("datetime64[s]")
    months = moments.astype("datetime64[M]").astype("int64")
    days = np.floor(inside / 86_400)
    return {
        "year": (1970 + months // 12).astype(np.float64),
        "month": (months % 12).astype(np.float64),
        "weekday": (days + 3) % 7,  # 1970 began on a Thursday
        "hour": (inside - 86_400 * days) / 3_600,
    }


def goals_of(targets: Any) -> np.ndarray | None:
    """Return what describes the levels of a column, ``(n, k)``, by ``Targets``: standardised values, the second of two classes, or each."""
    if targets.kind == "multilabel" or len(targets.classes) > CLASSES:
        return None
    if targets.kind == "regression":
        values = targets.values
        return np.asarray((values - values.mean()) / (values.std() or 1.0))[:, None]
    hot = np.eye(max(2, len(targets.classes)))[targets.values.astype(int)]
    return np.asarray(hot[:, 1:] if hot.shape[1] == 2 else hot)


def learn_means(found: np.ndarray, goals: np.ndarray) -> dict[str, Any]:
    """Learn the mean target of each level of a column from texts ``(n,)`` or None and ``goals (n, k)``, drawn towards the mean of all.

    Source: Micci-Barreca 2001, "A preprocessing scheme for high-cardinality categorical attributes in classification and prediction
    problems", SIGKDD Explorations 3.
    """
    levels, codes = level_codes(found)
    kept, means, prior = _means(codes, goals)
    return {"prior": prior, "means": dict(zip(map(str, levels[kept]), means.tolist(), strict=True))}


def level_codes(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of texts ``(n,)`` in order, and which of them each text is, ``(n,)`` int32, -1 for None."""
    present = np.array([text is not None for text in found], dtype=bool)
    codes = np.full(len(found), -1, dtype=np.int32)
    levels, codes[present] = np.unique(found[present].astype(str), return_inverse=True)
    return levels, codes


def _means(codes: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return the codes that are kept, their means and that of all."""
    prior, present = goals.mean(axis=0), codes >= 0
    counts = np.bincount(codes[present])
    sums = np.stack([np.bincount(codes[present], weights=goal) for goal in goals[present].T], axis=1)
    means = (sums + PRIOR_ROWS * prior) / (counts + PRIOR_ROWS)[:, None]
    kept = np.sort(np.argsort(-counts, kind="stable")[:LEVELS])  # of equally frequent ones the first by name
    kept = kept[counts[kept] > 1]
    return kept, np.array([_short(means[k]) for k in kept]).reshape(len(kept), len(prior)), _short(prior)


def mean_features(learnt: Mapping[str, Any], found: np.ndarray) -> np.ndarray:
    """Return the mean targets ``(n, k)`` of texts ``(n,)``; a level that training did not have, or had once, gets the mean of all."""
    means, prior = learnt["means"], learnt["prior"]
    return np.array([means.get(text, prior) for text in found], dtype=np.float64).reshape(len(found), len(prior))


def means_of_rows(codes: np.ndarray, goals: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return what ``learn_means`` learns from rows of ``codes (n,)`` for others, ``wanted (m,)``: ``(m, k)``, as ``mean_features`` does."""
    kept, means, prior = _means(codes, goals)
    known = np.full((max(codes.max(), wanted.max()) + 2, len(prior)), prior)  # the last one, -1, is that of a missing text
    known[kept] = means
    return np.asarray(known[wanted])


def means_of_others(found: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return the mean targets ``(n, k)`` of training rows, each learnt without the part of the rows that it lies in.

    A row's own target would otherwise be part of its feature, which no new row's is. ``found`` are texts ``(n,)`` or their codes.
    """
    codes = level_codes(found)[1] if found.dtype.kind == "O" else found
    part = np.random.default_rng(0).permutation(len(codes)) % FOLDS
    made = np.empty(goals.shape)
    for inside in (part == fold for fold in np.unique(part)):
        made[inside] = means_of_rows(codes[~inside], goals[~inside], codes[inside])
    return made


def learn_words(found: Sequence[str | None]) -> list[str]:
    """Return the most frequent words of texts, in lower case, that some of the rows have and others have not."""
    counts = Counter(word for text in found for word in words_of(text))
    fewest, most = max(ROWS, RARE * len(found)), COMMON * len(found)
    chosen = sorted((word for word, count in counts.items() if fewest <= count <= most), key=lambda word: (-counts[word], word))
    return sorted(chosen[:WORDS])


def words_of(text: str | None) -> set[str]:
    """Return the words of a text in lower case.

    >>> sorted(words_of("Braund, Mr. Owen A/5"))
    ['a', 'braund', 'mr', 'owen']
    """
    return set() if text is None else set(_WORD.findall(text.casefold()))


def word_features(words: Sequence[str], found: Sequence[str | None]) -> np.ndarray:
    """Return ``(n, words)``: 1 where a text has a word."""
    return np.array([[word in there for word in words] for there in map(words_of, found)], dtype=np.float64).reshape(len(found), len(words))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def date_form(different: pd.Series[Any]) -> tuple[str | None, str | None]:
    """Return how texts ``(n,)`` are dates: one of ``FORMATS``, several with ``|`` between, None if most are none; and what to say."""
    if different.str.contains(r"\d").mean() < 0.5:  # most of the texts are none, and to write them in English takes long
        return None, None
    dates = different.map(in_english)
    like = dates.str.match(_DATE).to_numpy()
    if like.mean() >= MOST:
        return _form_of_dates(different, dates)
    if like.mean() < 0.5 or _form_of_dates(different[like], dates[like])[0] is None:
        return None, None
    return None, f"is text, for beside dates it holds {quoted(different[~like])}; correct or empty these cells to have dates"


def _form_of_dates(different: pd.Series[Any], dates: pd.Series[Any]) -> tuple[str | None, str | None]:
    """Return what ``date_form`` does of texts that look like dates; ``dates`` are the same `in_english`."""
    forms, rest = list[str](), dates
    while len(rest) and len(forms) < FORMS:
        few = rest.iloc[np.unique(np.linspace(0, len(rest) - 1, 6).astype(int))]  # to try all forms on all dates takes long
        likely = [form for form in FORMATS if np.isfinite(seconds_of(few, form)).any()]
        best = max(likely or FORMATS[:1], key=lambda form: np.isfinite(seconds_of(rest, form)).sum())
        missed = np.isnan(seconds_of(rest, best))
        if (~missed).sum() < LEAST * len(dates):
            break
        forms, rest = [*forms, best], rest[missed]
    rest = rest[~rest.str.match(PLAINLY_DAYS)] if any("%y" in form.lower() for form in forms) else rest  # which are read all the same
    if len(forms) == 1 and forms[0] in OF_DAY and not dates.str.contains(r":\d\d").all():  # a score of a match, as 3:1
        return None, None
    mixed = len(forms) > 1 and (any(_reverse(form) in forms for form in forms) or {*forms} & {*OF_DAY, "%I %p"})
    if mixed or len(rest) > (1 - MOST) * len(dates):
        return None, _why_no_form(different, dates)
    lost = f"is dates, among which {', '.join(map(repr, different[rest.index][:3]))} counts as missing"
    return "|".join(forms), lost if len(rest) else _other_meaning(forms, different, dates)


def _why_no_form(different: pd.Series[Any], dates: pd.Series[Any]) -> str | None:
    years, days = dates.str.extract(r"(?<!\d)(\d{4})(?!\d)")[0].astype(float), dates.str.match(_DAY)
    far = (days & ((years < YEARS[0]) | (years > YEARS[1]))).to_numpy()
    if far.mean() > 1 - MOST:
        held = f"{YEARS[0]} to {YEARS[1]}, e.g. {different[far].iloc[0]!r}"
        return f"is text, for it has days beyond the years {held}; write these as numbers, e.g. the year"
    said = f"looks like dates, of which no one form fits {MOST:.0%}, e.g. {different.iloc[0]!r}; write all as 2024-12-31"
    return said if days.mean() >= MOST / 2 else None


def _other_meaning(forms: Sequence[str], different: pd.Series[Any], dates: pd.Series[Any]) -> str | None:
    """Say what dates that are all read may mean instead: month and day reversed, the last century; and of how many forms they are."""
    read = {form: np.isfinite(seconds_of(dates, form)) for form in forms}
    for form, there in read.items():
        if _reverse(form) in FORMATS and np.isfinite(seconds_of(dates[there], _reverse(form))).all():
            order = "month/day" if form.startswith("%m") else "day/month"
            return f"is read as {order}, and could be the reverse; write dates as 2024-12-31"
    for form in (form for form in forms if "%y" in form):
        time = 1970 + seconds_of(dates, form) / 31_557_600
        if (late := time > date.today().year + AHEAD).any():
            far_ahead = f"{different[late].iloc[0]!r} as {int(time[late][0])}"
            return f"is dates with two digits for the year, of which {far_ahead} is far ahead; write years with four digits"
    examples = " and ".join(repr(different[there].iloc[0]) for there in read.values())
    return f"is dates in {len(forms)} forms, e.g. {examples}, which are read alike" if len(forms) > 1 else None


def quoted(texts: pd.Series[Any]) -> str:
    """Return the first of some texts for a message."""
    return ", ".join(repr(text[:40]) for text in texts[:3])


def _reverse(form: str) -> str:
    """Return a form with month and day in the other order; empty where they lie not beside each other in digits."""
    found = re.match(r"%([md])(\W)%([md])\2", form)
    return f"%{found[3]}{found[2]}%{found[1]}{found[2]}{form[found.end() :]}" if found else ""


def seconds_of(column: pd.Series[Any], form: str) -> np.ndarray:
    """Return dates ``(n,)`` of one of ``FORMATS``, or several with ``|`` between, as seconds since 1970, NaN where a text is none."""
    import pandas as pd

    found = np.full(len(column), np.nan)
    for one in form.split("|"):
        if (rest := np.isnan(found)).any():
            times = pd.to_datetime(column[rest], format=one, errors="coerce", utc=True)
            if times.notna().any():  # most forms fit no text of a column
                found[rest] = since_1970(times)
    return found


def since_1970(times: Any) -> np.ndarray:
    """Return times as seconds, NaN where there is none: missing, or a marker such as 9999-12-31, which nanoseconds do not reach."""
    found = times.dt.tz_convert(None).dt.as_unit("s").to_numpy(dtype="datetime64[s]")
    seconds = found.astype("int64").astype(np.float64) + (times.dt.microsecond.to_numpy(dtype=np.float64, na_value=np.nan) / 1e6)
    seconds[np.isnat(found) | ~(np.abs(seconds) < 2**63 / 1e9)] = np.nan
    return np.asarray(seconds)


def in_english(text: str) -> str:
    """Return a date with an English month of three letters, without weekday and filling words, its week or quarter as a day.

    >>> in_english("Di., 5. März 2024"), in_english("Q2 2024"), in_english("KW 2/2024"), in_english("2024-03-05 10:00 CET")
    ('5 Mar 2024', '2024-04-01', '2024-01-08', '2024-03-05 10:00 +01:00')
    """
    for form, instead in _REWRITTEN:
        text = form.sub(instead, text)
    if not _WORDED.search(text):
        return text
    text = re.sub(_FILLING, lambda found: " " if found[0][-1:].isspace() else "", re.sub(_WEEKDAY, "", text))
    return re.sub(r"([^\W\d_]{3,})\.?", _month, text)


def _month(found: re.Match[str]) -> str:
    plain = "".join(one for one in unicodedata.normalize("NFKD", found[1].casefold()) if not unicodedata.combining(one))
    return _ENGLISH.get(plain, found[0])


def _week(found: re.Match[str]) -> str:
    year, week, day = int(found[1] or found[5]), int(found[2] or found[4]), int(found[3] or 1)
    try:
        return date.fromisocalendar(year, week, day).isoformat()
    except ValueError:
        return found[0]


#: What is written in another way before a date is read: those of East Asia, quarters, weeks, halves of the day, zones and JSON of .NET.
_REWRITTEN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...] = (
    (re.compile(r"\s{2,}"), " "),
    (re.compile(r"(?<=\d)\. (?=\d)"), "."),
    (re.compile(r"(?<=\d)(?:\.| г\.?)$"), ""),
    (
        re.compile(r" ?(\d\d?) ?[时時시] ?(\d\d?) ?[分분](?: ?(\d\d?) ?[秒초])?$"),
        lambda found: f" {found[1]}:{found[2]:0>2}:{found[3] or 0:0>2}",
    ),
    (
        re.compile(r"(上午|午前|오전|下午|午後|오후) ?(\d\d?:\d\d(?::\d\d)?)$"),
        lambda found: f"{found[2]} {'ap'[found[1] in '下午午後오후']}m",
    ),
    (re.compile(r"^(\d{4}) ?[年년] ?(\d\d?) ?[月월] ?(\d\d?) ?[日일]"), lambda found: "{}-{:0>2}-{:0>2}".format(*found.groups())),
    (
        re.compile(r"^(?:(\d{4})[- /]?[Qq]([1-4])|[Qq]([1-4])[- /]?(\d{4}))$"),
        lambda found: f"{found[1] or found[4]}-{3 * int(found[2] or found[3]) - 2:02}-01",
    ),
    (re.compile(r"^(?:(\d{4})-?[Ww](\d{2})(?:-?([1-7]))?|[Kk][Ww] ?(\d\d?)[ /-](\d{4}))$"), _week),
    (re.compile(r"(?i)(?<=\d) ?([ap])\.? ?m\.?$"), r" \1m"),
    (re.compile(r"(:\d\d),(\d+)$"), r"\1.\2"),
    (re.compile(r"^/Date\((-?\d+)(?:[+-]\d{4})?\)/$"), lambda found: str(np.datetime64(int(found[1]), "ms"))),
    (re.compile(r"(?<=\d) ?(?:\([A-Z][^()]*\)|\[[^\[\]]*\]|[A-Z][a-z]+(?:/[A-Za-z_]+)+)$"), ""),
    (re.compile(r"(:\d\d) ?(?:GMT|UTC)(?=[+-]\d\d)"), r"\1 "),
    (re.compile(rf"(:\d\d(?:\.\d+)?) ?({'|'.join(ZONES)})$"), lambda found: f"{found[1]} {ZONES[found[2]]:+03}:00"),
)
_WORDED = re.compile(r"[^\W\d_]{2}")
