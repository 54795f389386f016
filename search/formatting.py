"""Energies and carbon masses for people: a unit that keeps numbers readable, and three digits."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10


@dataclass(frozen=True)
class Unit:
    """A unit that keeps numbers readable.

    Attributes:
        size: How many of the base unit (Wh, gCO2e) it is.
        name: What is written.
    """

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
