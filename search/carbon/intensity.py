"""Carbon intensity of electricity with its source (the user, an offline table or a live service), and joules as grams of CO2 equivalent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..energy import JOULES_PER_KWH
from .zones import Factor, factor_for, zone_names

# Source: Electricity Maps API v3, "carbon-intensity/latest".
URL = "https://api.electricitymaps.com/v3/carbon-intensity/latest"


@dataclass(frozen=True)
class Intensity:
    """How many grams of CO2 equivalent one kWh of electricity costs at a place, with the source.

    Attributes:
        grams_per_kwh: The factor, in gCO2e per kWh.
        zone: Code of the place, e.g. ``FR``, ``US-OR``, ``SE-SE3``, ``gcp:europe-west1``; None for a number given by the user alone.
        source: Who publishes the number, in words, with the version of the table.
        year: Year that the number describes, or None when the source does not say.
        kind: ``average`` (all generation shares the emissions) or ``marginal`` (the plant that follows the load).
        scope: ``lifecycle`` (with construction and fuel supply), ``direct`` (the chimney only) or ``unknown``.
        region: Name of the place in words.
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
        return {name: getattr(self, name) for name in _FIELDS}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Intensity:
        """Rebuild an intensity from `to_json`; unknown keys are ignored, so later versions can add some."""
        return Intensity(**{name: data[name] for name in _FIELDS if name in data})

    def describe(self) -> str:
        """Describe the factor in one line, e.g. for a report."""
        place = " ".join(part for part in (self.zone, f"({self.region})" if self.region else None) if part)
        facts = ", ".join(
            str(part) for part in (self.kind, self.scope if self.scope != "unknown" else "scope not stated", self.year) if part is not None
        )
        line = f"{self.grams_per_kwh:.4g} gCO2e/kWh{' in ' + place if place else ''}: {facts}; {self.source}"
        return f"{line}; {self.fallback}" if self.fallback else line


_FIELDS = tuple(Intensity.__dataclass_fields__)


def intensity_for(zone: str | None) -> Intensity | None:
    """Look a place up in CodeCarbon's offline tables; no network, and never another place than the given one.

    Args:
        zone: ISO 3166 code of a country with two or three letters (``FR``, ``FRA``), of a region (``US-OR``, ``CA-QC``, ``CN-BJ``,
            ``SE-SE3``, ``US-Oregon``), a Google Cloud region (``gcp:europe-west1``), or ``WORLD`` for the flagged world average.
            None: the place is unknown.

    Returns:
        The factor, or None for None: an unknown place has no CO2, not somebody else's.

    Raises:
        ValueError: The place is not in the tables; the message names near ones.
    """
    return None if zone is None else _from_factor(factor_for(zone))


def intensity_table(zones: Iterable[str]) -> tuple[Intensity, ...]:
    """Look several places up, in the order given; a study can then be priced for each of them."""
    return tuple(_from_factor(factor_for(zone)) for zone in zones)


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


def live_intensity(zone: str, *, token: str | None, network: bool, url: str = URL, timeout_seconds: float = 10.0) -> Factor:
    """Request the present average intensity of a zone from Electricity Maps, in gCO2e/kWh.

    Args:
        zone: A zone of Electricity Maps: ``FR``, ``US-CAL-CISO``, ``SE-SE3``.
        token: The user's API token.
        network: The user allowed network access; False refuses before any socket is made.
        url: Address of the service; a test points it at its own machine.
        timeout_seconds: How long to wait for the answer.

    Returns:
        The factor; ``fallback`` is set when Electricity Maps itself estimated it.

    Raises:
        PermissionError: `network` is False or `token` is missing.
        OSError: The service could not be reached or refused.
        ValueError: The answer has no usable number.
    """
    if not network:
        raise PermissionError("the live carbon intensity needs the network, which is off; allow it with --network")
    if not token:
        raise PermissionError(
            "the live carbon intensity needs an Electricity Maps token; pass one, or use --zone alone for the offline table"
        )
    # Imported here: the HTTP client costs 40 ms, and hardly anybody uses the live number.
    from urllib.error import HTTPError
    from urllib.parse import urlencode
    from urllib.request import Request, urlopen

    request = Request(f"{url}?{urlencode({'zone': zone})}", headers={"auth-token": token})
    try:
        with urlopen(request, timeout=timeout_seconds) as answer:
            data = json.load(answer)
    except HTTPError as error:
        with error:
            detail = error.read(200).decode("utf-8", "replace")
        raise OSError(f"Electricity Maps refused zone {zone!r}: HTTP {error.code} {detail}".strip()) from None
    grams = data.get("carbonIntensity") if isinstance(data, dict) else None
    if isinstance(grams, bool) or not isinstance(grams, int | float) or grams < 0:
        raise ValueError(f"Electricity Maps sent no carbonIntensity for zone {zone!r}, but {data!r}")
    moment = str(data.get("datetime", ""))
    year = int(moment[:4]) if moment[:4].isdigit() else None
    scope = str(data.get("emissionFactorType", "unknown"))
    estimated = "Electricity Maps estimated this value, it was not yet measured" if data.get("isEstimated") else None
    return Factor(
        float(grams),
        str(data.get("zone", zone)),
        f"Electricity Maps, live at {moment or 'an unstated time'}",
        year,
        scope if scope in ("lifecycle", "direct") else "unknown",
        f"grid zone {data.get('zone', zone)}",
        estimated,
    )


def choose_intensity(
    given: float | str | None = None,
    zone: str | None = None,
    *,
    network: bool = False,
    token: str | None = None,
    url: str = URL,
) -> Intensity | None:
    """Decide which factor a study uses: the user's number, else the live one if requested, else the table, else none.

    Args:
        given: The user's own gCO2e/kWh (``--intensity``).
        zone: The place (``--zone``).
        network: The user allowed network access (``--network``).
        token: Electricity Maps token. Without both a token and `network`, no socket is opened.
        url: Address of Electricity Maps' service.

    Returns:
        The factor, or None when neither a number nor a place is known.

    Raises:
        ValueError: A bad number or an unknown place.
    """
    if given is not None:
        return given_intensity(given, zone)
    if zone is None:
        return None
    if not (network and token):
        return intensity_for(zone)
    try:
        return _from_factor(live_intensity(zone_names().get(zone.casefold(), zone), token=token, network=network, url=url))
    except (OSError, ValueError) as error:
        reason = f"Electricity Maps gave no number ({error}): the offline table is used"
        try:
            table = _from_factor(factor_for(zone))
        except ValueError as unknown:
            raise ValueError(f"{error}; and the offline table cannot stand in: {unknown}") from None
    return replace(table, fallback=f"{reason}; {table.fallback}" if table.fallback else reason)


def scope_note(intensities: Iterable[Intensity]) -> str | None:
    """Return a warning when factors differ in scope: a chimney-only factor is lower than a life-cycle one of the same grid."""
    scopes = sorted({intensity.scope for intensity in intensities})
    return f"these factors differ in scope ({', '.join(scopes)}): compare places within one scope only" if len(scopes) > 1 else None


def grams_co2e(joules: float | None, intensity: Intensity | None, pue: float = 1.0) -> float | None:
    """Turn joules into grams of CO2 equivalent: ``joules / 3.6e6 x pue x grams_per_kwh``.

    Args:
        joules: Energy at the machine, without the overhead of the building; None when unknown.
        intensity: The factor; None when the place is unknown.
        pue: Power usage effectiveness of the building, >= 1: all energy of the site per energy of its computers.

    Returns:
        Grams, or None when the energy or the place is unknown.

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
    """Refuse a PUE below 1.

    Raises:
        ValueError: `pue` is below 1 or not finite.
    """
    if not math.isfinite(pue) or pue < 1:
        raise ValueError(
            f"pue must be a finite number >= 1 (all energy of the site per energy of its computers), got {pue!r}; use 1 for your own desk"
        )


def _from_factor(factor: Factor) -> Intensity:
    return Intensity(
        factor.grams_per_kwh, factor.zone, factor.source, factor.year, scope=factor.scope, region=factor.region, fallback=factor.fallback
    )
