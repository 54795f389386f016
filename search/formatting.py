"""Energies, carbon masses and tables for people: a unit that keeps numbers readable, three digits, aligned columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from .energy import JOULES_PER_KWH, JOULES_PER_WH

#: Units of energy that are read (budgets, picking by a rule) -> joules.
JOULES_BY_UNIT = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": JOULES_PER_WH, "kWh": JOULES_PER_KWH}


@dataclass(frozen=True)
class Unit:
    """A unit that keeps numbers readable: its name and how many of the base unit (Wh, gCO2e) it is."""

    size: float
    name: str


def unit_for(largest: float, base: str = "Wh") -> Unit:
    """Return the unit in which numbers up to ``largest`` (in the base unit) read best.

    >>> unit_for(0.0012).name, unit_for(0.0012, "gCO2e").name, unit_for(20.0).name, unit_for(25000.0).name
    ('mWh', 'mgCO2e', 'Wh', 'kWh')
    """
    for least, size, letter in ((1e4, 1e3, "k"), (0.1, 1.0, ""), (1e-4, 1e-3, "m")):
        if largest >= least:
            return Unit(size, letter + base)
    return Unit(1e-6, "µ" + base)


def energy_text(wh: float | None, base: str = "Wh") -> str:
    """An energy (or a carbon mass, with ``base="gCO2e"``) for people: three digits and a unit.

    >>> energy_text(0.00154), energy_text(1.0), energy_text(None)
    ('1.54 mWh', '1 Wh', 'unknown')
    """
    if wh is None:
        return "unknown"
    unit = unit_for(wh, base) if wh > 0 else Unit(1.0, base)
    return f"{wh / unit.size:.3g} {unit.name}"


def digits(value: float | None) -> str:
    """Three significant digits without an exponent; ``-`` when unknown."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"


def grid(cells: Sequence[Sequence[str]], right: Sequence[bool], *, width: int | None = None) -> str:
    """Align rows of text, shape ``(rows, columns)``, with a rule below the first row; ``right`` tells each column's alignment.

    Only the last column is cut to keep to the width in characters; None is no limit.
    """
    widths = [max(len(row[place]) for row in cells) for place in range(len(right))]
    if width is not None:
        room = width - sum(widths[:-1]) - 2 * len(widths[:-1])
        widths[-1] = min(widths[-1], max(room, len(cells[0][-1]), 1))
    lines = []
    for row in cells:
        shown = [text if len(text) <= wide else text[: wide - 1] + "…" for text, wide in zip(row, widths, strict=True)]
        parts = [text.rjust(wide) if aligned else text.ljust(wide) for text, wide, aligned in zip(shown, widths, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
