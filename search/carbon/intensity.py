"""What a kWh emits, with its source, and costs: joules as grams of CO2 equivalent and as money."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..energy import JOULES_PER_KWH

GRAMS_PER_POUND = 453.59237  # international pound


@dataclass(frozen=True)
class Intensity:
    """How many grams of CO2 equivalent one kWh of electricity costs at a place, with the source.

    Attributes:
        zone: Code of the place, e.g. ``FR``, ``US-OR``, ``SE-SE3``, ``gcp:europe-west1``; None for a number given by the user alone.
        source: Who publishes the number, in words, with the version of the table.
        kind: ``average`` (all generation shares the emissions) or ``marginal`` (the plant that follows the load).
        scope: ``lifecycle`` (with construction and fuel supply), ``direct`` (the chimney only) or ``unknown``.
        fallback: Why a coarser number than requested is used, or None when the number is for the requested place.
    """

    grams_per_kwh: float
    zone: str | None = None
    source: str = "given by the user"
    year: int | None = None
    kind: str = "average"
    scope: str = "unknown"
    region: str | None = None
    fallback: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.grams_per_kwh) or self.grams_per_kwh < 0:
            raise ValueError(
                f"grams_per_kwh must be a finite number >= 0, got {self.grams_per_kwh!r}; a French kWh is about 56, a coal kWh about 1000"
            )
        if self.kind not in ("average", "marginal"):
            raise ValueError(f"kind must be 'average' or 'marginal', got {self.kind!r}")
        if self.scope not in ("lifecycle", "direct", "unknown"):
            raise ValueError(f"scope must be 'lifecycle', 'direct' or 'unknown', got {self.scope!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return dict(vars(self))

    @staticmethod
    def from_json(data: dict[str, Any]) -> Intensity:
        """Rebuild an intensity from `to_json`; unknown keys are ignored, so later versions can add some."""
        return Intensity(**{name: data[name] for name in Intensity.__dataclass_fields__ if name in data})

    def describe(self) -> str:
        """Describe the factor in one line, e.g. for a report."""
        place = " ".join(part for part in (self.zone, f"({self.region})" if self.region else None) if part)
        facts = ", ".join(
            str(part) for part in (self.kind, self.scope if self.scope != "unknown" else "scope not stated", self.year) if part is not None
        )
        line = f"{self.grams_per_kwh:.4g} gCO2e/kWh{' in ' + place if place else ''}: {facts}; {self.source}"
        return f"{line}; {self.fallback}" if self.fallback else line


def given_intensity(value: float | str, zone: str | None = None) -> Intensity:
    """Make an intensity from the user's own number, e.g. ``--intensity 56``.

    Raises:
        ValueError: `value` is not a number >= 0.
    """
    try:
        grams = float(value)
    except ValueError:
        raise ValueError(f"intensity must be a number of gCO2e per kWh, got {value!r}, e.g. 56; a place is given with --zone") from None
    return Intensity(grams, zone=zone)


def scope_note(intensities: Iterable[Intensity]) -> str | None:
    """Return a warning when factors differ in scope: a chimney-only factor is lower than a life-cycle one of the same grid."""
    scopes = sorted({intensity.scope for intensity in intensities})
    return f"these factors differ in scope ({', '.join(scopes)}): compare places within one scope only" if len(scopes) > 1 else None


def grams_co2e(joules: float | None, intensity: Intensity | None, pue: float = 1.0) -> float | None:
    """Turn joules at the machine into grams of CO2 equivalent: ``joules / 3.6e6 x pue x grams_per_kwh``; None when one is unknown.

    The power usage effectiveness of the building is >= 1: all energy of the site per energy of its computers.

    Raises:
        ValueError: `joules` is negative or not finite, or `pue` is below 1.
    """
    check_pue(pue)
    if joules is None or intensity is None:
        return None
    return kwh(joules) * pue * intensity.grams_per_kwh


def kwh(joules: float) -> float:
    """Turn joules into kWh.

    Raises:
        ValueError: `joules` is negative or not finite: such a reading is broken and has no price.
    """
    if not math.isfinite(joules) or joules < 0:
        raise ValueError(f"joules must be a finite number >= 0, got {joules!r}; pass None when the energy is unknown")
    return joules / JOULES_PER_KWH


def check_pue(pue: float) -> None:
    """Refuse a power usage effectiveness that is below 1 or not finite, with a ``ValueError``."""
    if not math.isfinite(pue) or pue < 1:
        raise ValueError(
            f"pue must be a finite number >= 1 (all energy of the site per energy of its computers), got {pue!r}; use 1 for your own desk"
        )


SYMBOLS = {"€": "EUR", "$": "USD", "£": "GBP", "₹": "INR"}
_NUMBER = r"(?P<amount>\d+(?:\.\d*)?|\.\d+)"
_UNIT = r"(?P<currency>(?!.Wh)[A-Za-z]{3}|[€$£₹])"
_PER = r"(?:\s*/\s*(?P<per>[kM]?Wh))?"
_FORMS = tuple(re.compile(form, re.IGNORECASE) for form in (rf"{_NUMBER}\s*{_UNIT}{_PER}", rf"{_UNIT}\s*{_NUMBER}{_PER}"))


@dataclass(frozen=True)
class Price:
    """Price of electricity: money per kWh in a currency by its ISO 4217 code, e.g. ``EUR``."""

    per_kwh: float
    currency: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.per_kwh) or self.per_kwh < 0:
            raise ValueError(f"per_kwh must be a finite number >= 0, got {self.per_kwh!r}")
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise ValueError(f"a currency must be a code of three capitals, got {self.currency!r}; for example EUR")


def parse_price(text: str) -> Price:
    """Read a price of electricity such as ``0.25EUR``, ``0.25 EUR/kWh``, ``€0.25`` or ``80EUR/MWh``.

    >>> parse_price("0.25EUR")
    Price(per_kwh=0.25, currency='EUR')

    Raises:
        ValueError: The text is not a price, or uses a decimal comma.
    """
    match = next((found for form in _FORMS if (found := form.fullmatch(text.strip()))), None)
    if match is None:
        comma = "; write the decimals with a point" if "," in text else ""
        raise ValueError(f"price must be a number and a currency per kWh, e.g. 0.25EUR, got {text!r}{comma}")
    per = (match["per"] or "kWh").casefold()
    scale = {"wh": 1000.0, "kwh": 1.0, "mwh": 0.001}[per]
    currency = SYMBOLS.get(match["currency"], match["currency"].upper())
    return Price(float(match["amount"]) * scale, currency)


def cost(joules: float | None, price: Price | None, pue: float = 1.0) -> float | None:
    """Turn joules into money: ``joules / 3.6e6 x pue x price.per_kwh``; None when the energy or the price is unknown.

    Raises:
        ValueError: `joules` is negative or not finite, or `pue` is below 1.
    """
    check_pue(pue)
    if joules is None or price is None:
        return None
    return kwh(joules) * pue * price.per_kwh
