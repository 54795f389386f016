"""What energy costs in money, and one energy priced for many places."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .intensity import Intensity, check_pue, grams_co2e, kwh

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


@dataclass(frozen=True)
class Priced:
    """One energy at one place, its overhead of the building (PUE) included; None where the energy or the price is unknown."""

    intensity: Intensity
    kwh: float | None
    grams_co2e: float | None
    cost: float | None = None
    currency: str | None = None


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


def priced(joules: float | None, intensities: Iterable[Intensity], *, pue: float = 1.0, price: Price | None = None) -> tuple[Priced, ...]:
    """Price one energy for many places, in the order given: nothing is trained again.

    Raises:
        ValueError: As `carbon.grams_co2e`.
    """
    money = cost(joules, price, pue)
    energy = None if joules is None else kwh(joules) * pue
    currency = price.currency if price is not None and money is not None else None
    return tuple(Priced(intensity, energy, grams_co2e(joules, intensity, pue), money, currency) for intensity in intensities)
