"""Energies, carbon masses and tables for people: a unit that keeps numbers readable, three digits, aligned columns."""

from __future__ import annotations

import csv
import io
import os
import re
import sysconfig
import textwrap
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import floor, inf, isfinite, log10
from pathlib import Path
from shutil import get_terminal_size
from traceback import extract_tb
from typing import Any

from .energy import JOULES_PER_WH

#: SI prefixes that are printed or understood -> factor; ``u`` and the Greek letter stand for the micro sign.
PREFIXES = {"n": 1e-9, "µ": 1e-6, "μ": 1e-6, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
#: Units that take a prefix -> what they measure, and how many of its base unit (J, gCO2e) they are.
_BASES = {
    "Wh": ("joules", JOULES_PER_WH),
    "J": ("joules", 1.0),
    "gCO2e": ("grams_co2e", 1.0),
    "gCO2eq": ("grams_co2e", 1.0),
    "gCO2": ("grams_co2e", 1.0),
    "tCO2e": ("grams_co2e", 1e6),
}
#: Currencies by their sign, and hundredths by their names.
_MONEY = {"€": ("EUR", 1.0), "$": ("USD", 1.0), "£": ("GBP", 1.0), "₹": ("INR", 1.0), "¢": ("USD", 0.01)}
_CENTS = ("ct", "c", "cent", "cents")
#: Units of energy -> joules, without those that nobody writes.
JOULES_BY_UNIT = {prefix + unit: PREFIXES[prefix] * _BASES[unit][1] for unit in ("J", "Wh") for prefix in ("µ", "m", "", "k", "M")}
#: The same of carbon -> grams.
GRAMS_BY_UNIT = {prefix + "gCO2e": PREFIXES[prefix] for prefix in ("µ", "m", "", "k")} | {"tCO2e": 1e6}
_NUMBER = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
_AMOUNT = re.compile(rf"\s*([€$£₹]?)\s*({_NUMBER})\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Amount:
    """A number with its unit, as somebody has written it.

    Attributes:
        value: The amount in ``kind``.
        kind: ``joules``, ``grams_co2e``, or a currency by its ISO 4217 code.
    """

    value: float
    kind: str


def read_amount(text: str, name: str, example: str, kinds: Sequence[str] = ("joules", "grams_co2e", "money")) -> Amount:
    """Read an energy, a mass of carbon or money in any unit that is printed, with any SI prefix.

    Args:
        text: ``5Wh``, ``4.5 µWh``, ``4.5uWh``, ``1,234 kJ``, ``20 mgCO2e``, ``0.5EUR``, ``€0.50`` or ``12 ct``.
        name: What it is for, e.g. ``--budget``: the message begins with it.
        example: A correct text for the message.
        kinds: What the place of the text can take.

    >>> read_amount("4.5 µWh", "--budget", "5Wh").value, read_amount("12ct", "--budget", "1EUR")
    (0.0162, Amount(value=0.12, kind='EUR'))

    Raises:
        ValueError: If the number or its unit cannot be read; the message lists the units and proposes the nearest.
    """
    text = str(text)  # whoever writes Python may give a bare number
    found = _AMOUNT.fullmatch(text)
    units = ", ".join(
        [*(JOULES_BY_UNIT if "joules" in kinds else ()), *(GRAMS_BY_UNIT if "grams_co2e" in kinds else ())]
        + (["EUR", "ct"] if "money" in kinds else [])
    )
    value = float(found[2].replace(",", "")) if found else float("nan")
    if found is None or not 0 < value < inf or found[3].startswith(","):
        comma = "; write the decimals with a point" if re.search(r"\d,\d", text) else ""
        raise ValueError(f"{name} must be a positive number with a unit ({units}), got {text!r}{comma}; for example {example}")
    unit = found[1] or found[3]
    amount = None if found[1] and found[3] else _in_base(value, unit)
    if amount is not None and (amount.kind if amount.kind in ("joules", "grams_co2e") else "money") in kinds:
        return amount
    if not unit:
        raise ValueError(f"{name} {text!r} has no unit; write one of {units}, for example {_proposed(example, value)}")
    if amount is not None:
        raise ValueError(f"{name} must be in one of {units}, got {text!r}; for example {example}")
    folded = unit.casefold().replace("μ", "µ")
    near = [known for known in (*JOULES_BY_UNIT, *GRAMS_BY_UNIT) if known.casefold().replace("μ", "µ") == folded]
    meant = f" (do you mean {' or '.join(near)}?)" if near else ""
    raise ValueError(f"{name} {text!r} has the unknown unit {unit!r}{meant}; write one of {units}, for example {example}")


def read_number(text: str) -> float | None:
    """Read a plain number, with or without a sign and commas between thousands; None when it is none.

    >>> read_number("-1,234.5"), read_number("1e-3"), read_number("1.2.3")
    (-1234.5, 0.001, None)
    """
    found = re.fullmatch(rf"\s*([-+]?)({_NUMBER})\s*", text)
    return None if found is None else float(found[1] + found[2].replace(",", ""))


def _proposed(example: str, value: float) -> str:
    """The example with the user's own number in it."""
    return re.sub(r"[0-9.]+(?=[^0-9.]*$)", f"{value:g}", example, count=1)


def _in_base(value: float, unit: str) -> Amount | None:
    for base, (kind, size) in _BASES.items():
        if unit.endswith(base) and unit.removesuffix(base) in PREFIXES:
            return Amount(value * PREFIXES[unit.removesuffix(base)] * size, kind)
    if unit in _MONEY:
        currency, share = _MONEY[unit]
        return Amount(value * share, currency)
    words = unit.split()
    if words and words[-1].casefold() in _CENTS and len(words) <= 2:
        currency = words[0] if len(words) == 2 else "EUR"
        return Amount(value / 100, currency) if re.fullmatch("[A-Z]{3}", currency) else None
    return Amount(value, unit) if re.fullmatch("[A-Z]{3}", unit) and not unit.endswith("WH") else None


@dataclass(frozen=True)
class Unit:
    """A unit that keeps numbers readable: its name, and how many joules or grams of CO2e it is."""

    size: float
    name: str

    def of(self, amount: float) -> float:
        """Return joules or grams in this unit."""
        return amount / self.size

    def number(self, amount: float | None) -> str:
        """Return joules or grams in this unit with three digits, without its name; ``-`` when unknown."""
        return digits(None if amount is None else self.of(amount))


def unit_for(amounts: Iterable[float | None], base: str = "Wh") -> Unit:
    """Return the unit in which some energies in joules read best, with the base ``gCO2e`` some carbon masses in grams.

    The largest decides; where none is known or above 0, it is the base itself.

    >>> unit_for([4.3]).name, unit_for([0.0012], "gCO2e").name, unit_for([72000.0, None]).name, unit_for([None]).name
    ('mWh', 'mgCO2e', 'Wh', 'Wh')
    """
    size = _BASES[base][1]
    largest = max((one for one in amounts if one is not None), default=0.0) / size
    steps = ((1e10, "G"), (1e7, "M"), (1e4, "k"), (0.1, ""), (1e-4, "m"), (1e-7, "µ"))
    prefix = next((prefix for least, prefix in steps if largest >= least), "n" if largest > 0 else "")
    if base.startswith("g") and prefix in ("M", "G"):  # a tonne, not a megagram
        return Unit(1e6, "t" + base[1:])
    return Unit(PREFIXES[prefix] * size, prefix + base)


def joules_text(joules: float | None, base: str = "Wh") -> str:
    """Return an energy for people, three digits and a unit; `read_amount` reads it back.

    >>> joules_text(5.544), joules_text(3600.0), joules_text(4442400.0), joules_text(None)
    ('1.54 mWh', '1 Wh', '1,234 Wh', 'unknown')
    """
    if joules is None:
        return "unknown"
    unit = unit_for([joules], base)
    return f"{plain(unit.of(joules))} {unit.name}"


def grams_text(grams: float | None) -> str:
    """Return a mass of carbon for people, as `joules_text` does an energy.

    >>> grams_text(0.00154)
    '1.54 mgCO2e'
    """
    return joules_text(grams, "gCO2e")


def energies(joules: Sequence[float | None]) -> tuple[list[str], str]:
    """Return several energies as numbers in the one unit that suits the largest, and that unit; ``-`` where unknown.

    >>> energies([3600.0, 9.0, None])
    (['1', '0.0025', '-'], 'Wh')
    """
    unit = unit_for(joules)
    return ["-" if one is None else plain(unit.of(one)) for one in joules], unit.name


def count_text(number: int, name: str) -> str:
    """Return a number of things with their name.

    >>> count_text(1, "epoch"), count_text(1200, "trial")
    ('1 epoch', '1200 trials')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def plain(value: float, count: int = 3) -> str:
    """Return so many significant digits without trailing zeros or an exponent; all digits before the point.

    >>> plain(0.00123456), plain(0.0000321, 4), plain(123.456, 4), plain(1234567.0, 4)
    ('0.00123', '0.0000321', '123.5', '1,234,567')
    """
    shown = f"{value:.{count}g}"
    shown = digits(value, count) if "e" in shown or value >= 1000 else shown
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def names_text(names: Sequence[str]) -> str:
    """Return names as one option takes them, a name with a comma in double quotes; ``shlex.quote`` makes it safe for a shell.

    >>> names_text(["id", "height, cm"])
    'id,"height, cm"'
    """
    text = io.StringIO()
    csv.writer(text).writerow(names)
    return text.getvalue().removesuffix("\r\n")


def read_names(text: str, known: Collection[str] = ()) -> list[str]:
    """Read names separated by commas, as ``names_text`` writes them; a text that is one of the ``known`` names is that one.

    >>> read_names('id, "height, cm"'), read_names("height, cm", {"height, cm"})
    (['id', 'height, cm'], ['height, cm'])
    """
    if text.strip() in known:
        return [text.strip()]
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    return [name.strip() for row in rows for name in row if name.strip()]


def digits(value: float | None, count: int = 3) -> str:
    """So many significant digits without an exponent, all of them before the point from 1,000 on; ``-`` when unknown."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, count - 1 - floor(log10(abs(value))))}f}"


def known(value: float | None, form: str) -> str:
    """A number in a format, ``unknown`` for None and what is not finite, as the AUC of one class."""
    return "unknown" if value is None or not isfinite(value) else format(value, form)


def percent(share: float) -> str:
    """A share or a relative uncertainty in percent, without its sign; below a tenth of a percent its size does not matter.

    >>> percent(0.42), percent(0.0042), percent(0.00042)
    ('42', '0.4', '<0.1')
    """
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}" if share >= 0.001 else "<0.1"


#: Width where no terminal says one: a pipe or a file.
PIPED = 100


def terminal_width() -> int:
    """Return the width of the terminal in characters, 100 where there is none; COLUMNS wins."""
    return get_terminal_size((PIPED, 24)).columns


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break a text into lines of a width, at spaces where there are any."""
    return textwrap.wrap(text, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def paragraphs(text: str, width: int | None = None) -> str:
    """Break every line of a text at a width, the terminal's by default."""
    return "\n".join(part for line in text.split("\n") for part in wrapped(line, width or terminal_width()) or [""])


def fitted(cells: Sequence[Sequence[str]], right: Sequence[bool], width: int | None = None, *, optional: Sequence[str] = ()) -> str:
    """Align rows as `grid` does where that fits the width, the terminal's by default.

    Else the ``optional`` columns give way by their titles, then the widest column of texts is broken into lines, then few rows become
    columns, and if nothing helps each row is written as titles and values.

    >>> print(fitted([["found in", "best"], ["a folder", "0.97"], ["a zip file", "0.9"]], [False, True], 14))
    found in  best
    ──────────────
    a folder  0.97
    a zip      0.9
    file

    >>> print(fitted([["run", "best"], ["runs/digits", "0.97"]], [True, True], 16))
    run runs/digits,
      best 0.97
    """
    width = width or terminal_width()
    keep = narrowed(cells, optional, width)
    cells, right = [[row[place] for place in keep] for row in cells], [right[place] for place in keep]
    if grid_width(cells) <= width:
        return grid(cells, right)
    texts = [place for place, aligned in enumerate(right) if not aligned]
    broad = max(texts, key=lambda place: max(len(row[place]) for row in cells), default=None)
    if broad is not None:
        room = width - grid_width(cells) + max(len(row[broad]) for row in cells)
        if room >= max(LEAST_TEXT, len(cells[0][broad])):
            return grid(_broken(cells, broad, room), right)
    if len(cells) <= MOST_TURNED and grid_width(turned := [list(column) for column in zip(*cells, strict=True)]) <= width:
        return grid(turned, [False] + [True] * (len(cells) - 1))
    titles, *rows = cells
    lines = []
    for row in rows:
        text = ", ".join(f"{title} {cell}".strip() for title, cell in zip(titles, row, strict=True) if cell)
        lines += textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


#: A column of texts is broken into lines of at least so many characters; so many rows with their titles may become columns.
LEAST_TEXT, MOST_TURNED = 8, 5


def grid_width(cells: Sequence[Sequence[str]]) -> int:
    """Width of what `grid` makes of some cells."""
    return sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True)) - 2


def narrowed(cells: Sequence[Sequence[str]], optional: Sequence[str], width: int) -> list[int]:
    """Return the places of the columns that are left when those with ``optional`` titles give way one by one until the grid fits."""
    keep = list(range(len(cells[0])))
    for title in optional:
        if grid_width([[row[place] for place in keep] for row in cells]) > width:
            keep = [place for place in keep if cells[0][place] != title]
    return keep


def _broken(cells: Sequence[Sequence[str]], place: int, room: int) -> list[list[str]]:
    """The rows with one column broken into lines."""
    rows = []
    for row in cells:
        first, *rest = textwrap.wrap(row[place], room, break_on_hyphens=False) or [""]
        rows.append([*row[:place], first, *row[place + 1 :]])
        rows += [["" if other != place else line for other in range(len(row))] for line in rest]
    return rows


def hanging(text: str, width: int | None = None, *, indent: int = 2) -> str:
    """Break every line that is wider than a width, the terminal's by default; what goes on is indented by so much more than its line."""
    width = width or terminal_width()
    lines = []
    for line in printable(text).split("\n"):
        lead = " " * (len(line) - len(line.lstrip()))
        more = lead + " " * indent
        lines += (
            textwrap.wrap(line, max(width, 20), subsequent_indent=more, break_on_hyphens=False, break_long_words=False)
            if len(line) > width
            else [line]
        )
    return "\n".join(lines)


#: Folders whose files are not the user's own: this project, Python and what is installed.
_FOREIGN = (
    *(f"{Path(__file__).resolve().parents[1] / name}{os.sep}" for name in ("search", "spaces", "studies")),
    f"{Path(sysconfig.get_path('stdlib')).resolve()}{os.sep}",
)


def own_place(error: BaseException) -> str:
    """Return where in the user's own code an error was raised, as `` (mine.py, line 7)``; empty where it was none of theirs."""
    for frame in reversed(extract_tb(error.__traceback__)):
        file = os.path.realpath(frame.filename)
        if os.path.isfile(file) and not file.startswith(_FOREIGN) and "-packages" not in file:
            return f" ({os.path.basename(file)}, line {frame.lineno})"
    return ""


def printable(text: str) -> str:
    """Return lines in which signs that would move a terminal's cursor or turn its writing are spelt: names of files may have them."""
    return "".join(sign if sign.isprintable() or sign in "\n\u00a0\u202f" else ascii(sign)[1:-1] for sign in text)


def for_stream(text: str, stream: Any) -> str:
    """Return a text for a stream: broken at the width of a terminal, in lines as they are for a file or another program."""
    text = printable(text)
    if not bool(getattr(stream, "isatty", lambda: False)()):
        return text
    return hanging(text, stream_width(stream))


def stream_width(stream: Any) -> int:
    """Return the width of the terminal behind a stream, which another stream may lack; COLUMNS wins."""
    if not os.environ.get("COLUMNS"):
        with suppress(OSError, ValueError):  # a stream without a file behind it
            return os.get_terminal_size(stream.fileno()).columns
    return terminal_width()


def grid(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Align rows of text, shape ``(rows, columns)``, with a rule below the first row; ``right`` tells each column's alignment."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(right))]
    lines = []
    for row in cells:
        parts = [text.rjust(wide) if aligned else text.ljust(wide) for text, wide, aligned in zip(row, widths, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
