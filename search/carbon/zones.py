"""The carbon intensity of a place: from CodeCarbon's offline tables, or live from Electricity Maps.

The tables are read from CodeCarbon's data files without importing it (its import needs pandas).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .intensity import GRAMS_PER_POUND, Intensity, given_intensity

# Source: Electricity Maps API v3, "carbon-intensity/latest".
URL = "https://api.electricitymaps.com/v3/carbon-intensity/latest"
# Emission factors of fossil generation that CodeCarbon applies to the Canadian mixes, in gCO2/kWh.
# Source: codecarbon/core/emissions.py, from the US EIA's figures in github.com/responsibleproblemsolving/energy-usage
CANADA_GRAMS = {"coal": 995.725971, "petroleum": 816.6885263, "naturalGas": 743.8415916}
# Postal codes of Canadian provinces (ISO 3166-2:CA): CodeCarbon's table has names only.
CANADA_CODES = {
    "british columbia": "BC", "newfoundland and labrador": "NL", "saskatchewan": "SK", "prince edward island": "PE", "ontario": "ON",
    "nova scotia": "NS", "quebec": "QC", "alberta": "AB", "manitoba": "MB", "northwest territories": "NT", "new brunswick": "NB",
    "nunavut": "NU", "yukon": "YT",
}  # fmt: skip

# Codes that the EU writes instead of ISO's. Source: EU Interinstitutional Style Guide, 7.1.1
OWN_CODES = {"uk": "gb", "el": "gr"}


def _live_intensity(zone: str, token: str, url: str) -> Intensity:
    """Request the present average intensity of a zone from Electricity Maps, in gCO2e/kWh; whoever calls it has allowed the network.

    ``fallback`` of the factor is set when Electricity Maps itself estimated it.

    Raises:
        OSError: The service could not be reached or refused.
        ValueError: The answer has no usable number.
    """
    # Imported here: the HTTP client costs 40 ms, and hardly anybody uses the live number.
    from urllib.error import HTTPError
    from urllib.parse import urlencode
    from urllib.request import Request, urlopen

    request = Request(f"{url}?{urlencode({'zone': zone})}", headers={"auth-token": token})
    try:
        with urlopen(request, timeout=10.0) as answer:
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
    return Intensity(
        float(grams),
        str(data.get("zone", zone)),
        f"Electricity Maps, live at {moment or 'an unstated time'}",
        year,
        scope=scope if scope in ("lifecycle", "direct") else "unknown",
        region=f"grid zone {data.get('zone', zone)}",
        fallback=estimated,
    )


def choose_intensity(
    given: float | str | None = None, zone: str | None = None, *, network: bool = False, token: str | None = None, url: str = URL
) -> Intensity | None:
    """Decide which factor a study uses: the user's number, else the live one if requested, else the table, else none.

    Without both a token of Electricity Maps and `network`, no socket is opened; `url` lets a test point at its own machine.

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
        return _live_intensity(zone_names().get(zone.casefold(), zone), token, url)
    except (OSError, ValueError) as error:
        reason = f"Electricity Maps gave no number ({error}): the offline table is used"
        try:
            table = intensity_for(zone)
        except ValueError as unknown:
            raise ValueError(f"{error}; and the offline table cannot stand in: {unknown}") from None
    return replace(table, fallback=f"{reason}; {table.fallback}" if table.fallback else reason)


def intensity_for(zone: str) -> Intensity:
    """Look a place up in CodeCarbon's offline tables; no network, and never another place than the given one.

    A zone is an ISO 3166 code of a country with two or three letters (``FR``, ``FRA``), of a region (``US-OR``, ``CA-QC``, ``CN-BJ``,
    ``SE-SE3``, ``US-Oregon``), a Google Cloud region (``gcp:europe-west1``), or ``WORLD`` for the flagged world average.

    Raises:
        ValueError: The place is not in the tables; the message names near ones.
    """
    if not isinstance(zone, str):
        raise ValueError(f"zone must be a text, got {zone!r}; write an ISO code such as 'FR'")
    text = " ".join(zone.strip().split())
    table, names = _factors(), zone_names()
    found = names.get(text.casefold())
    if found is not None:
        return table[found]
    country, _, region = text.partition("-")
    national = names.get(country.casefold())
    if national == "CN" and region.casefold() in ("xz", "tibet", "xizang"):
        # The official table leaves Tibet out; the nation's number may stand in because ``fallback`` names it.
        return replace(table["CN"], fallback=f"no factor is published for {text}: that of China is used")
    from difflib import get_close_matches

    # Two- and three-letter codes are all alike: propose names only, and only to something as long as a name.
    near = get_close_matches(text.casefold(), [name for name in names if len(name) > 3], n=4, cutoff=0.7) if len(text) > 3 else []
    hint = (
        f"did you mean {', '.join(sorted({names[name] for name in near}))}?" if near else "use an ISO code such as FR, FRA, US-OR or CN-BJ"
    )
    if re.fullmatch(r"(aws|azure):.*|[a-z]{2}-[a-z]+-\d", text.casefold()):
        hint = "of clouds they have Google's regions alone (gcp:us-east1); use the state or country where yours stands, such as US-VA"
    elif region and national is not None and not near:
        hint = f"the tables have no such region of {national}: use {national} for the whole country, or --intensity with your own number"
    raise ValueError(f"zone must be a place in CodeCarbon's tables, got {zone!r}; {hint}")


@cache
def zone_names() -> Mapping[str, str]:
    """Return every code and name (case-folded) by which a zone is found -> its code."""
    names: dict[str, str] = {}
    for code, factor in _factors().items():
        names[code.casefold()] = code
        region = factor.region or ""
        if ":" not in code:
            names.setdefault(region.casefold(), code)
        country, dash, _ = code.partition("-")
        if dash:
            names[f"{country}-{region.split(',')[0]}".casefold()] = code
    for alpha2, alpha3 in _iso_codes().items():
        if alpha2 in _factors():
            names[alpha3.casefold()] = alpha2
        for code in [code for code in _factors() if code.startswith(f"{alpha2}-")]:
            names[f"{alpha3}-{code[3:]}".casefold()] = code
    for code in [code for code in _factors() if code[:3] in ("SE-", "NO-")]:
        names[code[3:].casefold()] = code  # bidding zones are known as SE3, NO1 on their own
    return {**names, **{own: names[iso] for own, iso in OWN_CODES.items()}}


@cache
def _factors() -> Mapping[str, Intensity]:
    data = _package_folder("codecarbon") / "data"
    name = f"CodeCarbon {_version()} offline table"
    alpha2 = {alpha3: two for two, alpha3 in _iso_codes().items()}
    rows: dict[str, Intensity] = {}
    for code, row in _json(data / "private_infra/global_energy_mix.json").items():
        zone = alpha2.get(code, code)
        source = f"{name} (countries; Our World in Data, Ember)"
        rows[zone] = _row(float(row["carbon_intensity"]), zone, source, int(row["year"]), "lifecycle", row["country_name"])
    rows |= _usa(_json(_newest(data, "usa_emissions.json")), name)
    mix = _newest(data, "canada_energy_mix.json")
    rows |= _canada(_json(mix), name, int(mix.parent.name))
    rows |= _china(_json(_newest(data, "china_provincial_emissions.json")), name)
    rows |= _nordic(_json(data / "private_infra/nordic_emissions.json"), name)
    rows |= _google(data / "cloud/impact.csv", name)
    per_source = _json(data / "private_infra/carbon_intensity_per_source.json")
    rows["WORLD"] = Intensity(
        float(per_source["world_average"]),
        "WORLD",
        f"{name} (world; IEA 2019)",
        2018,
        region="world average",
        fallback="the world average is no place: it can be ten times too high or half too low",
    )
    return rows


def _row(grams: float | str, zone: str, source: str, year: int | None, scope: str, region: str) -> Intensity:
    return Intensity(float(grams), zone, source, year, scope=scope, region=region)


def _usa(table: Mapping[str, Any], name: str) -> dict[str, Intensity]:
    year = int(table["_source"]["year"])
    source = f"{name} (US states; {table['_source']['name']})"
    rows = {}
    for state, row in table.items():
        # 'usa' is the national total, which the country table has already; keys with an underscore are notes.
        if not state.startswith("_") and state != "usa":
            zone, grams = f"US-{row['regionCode']}", float(row["emissions"]) * GRAMS_PER_POUND / 1000
            rows[zone] = _row(grams, zone, source, year, "direct", f"{state.title()}, United States")
    return rows


def _canada(table: Mapping[str, Any], name: str, year: int) -> dict[str, Intensity]:
    source, rows = f"{name} (Canadian provinces; generation mix x fossil factors)", {}
    for province, mix in table.items():
        grams = sum(float(mix[fuel]) / float(mix["total"]) * factor for fuel, factor in CANADA_GRAMS.items())
        zone = f"CA-{CANADA_CODES[province]}"
        rows[zone] = _row(grams, zone, source, year, "direct", f"{province.title()}, Canada")
    return rows


def _china(table: Mapping[str, Any], name: str) -> dict[str, Intensity]:
    source = f"{name} (Chinese provinces; MEE and NBS {table['metadata']['announcement']}, CO2 only)"
    return {
        zone: _row(row["emission_factor"], zone, source, int(row["year"]), "direct", f"{row['description']}, China")
        for zone, row in table["data"].items()
    }


def _nordic(table: Mapping[str, Any], name: str) -> dict[str, Intensity]:
    rows = {}
    for area, row in table["data"].items():
        country = area[:2]
        if area == country:
            continue  # Finland is one bidding zone: the country table has it, with a consistent method
        zone = f"{country}-{area}"
        source = f"{name} (Nordic bidding zones; ENTSO-E generation mix, coverage {row['coverage'].split()[0]})"
        rows[zone] = _row(row["emission_factor"], zone, source, int(row["year"]), "lifecycle", row["description"])
    return rows


def _google(path: Path, name: str) -> dict[str, Intensity]:
    rows = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            zone = f"{row['provider']}:{row['region']}"
            place = ", ".join(part for part in (row["city"] or row["state"], row["country_name"]) if part)
            rows[zone] = _row(row["impact"], zone, f"{name} (cloud regions; {row['providerName']})", None, "unknown", place)
    return rows


@cache
def _iso_codes() -> Mapping[str, str]:
    """Return two-letter -> three-letter country codes from pycountry's copy of ISO 3166-1, which CodeCarbon depends on."""
    table = _json(_package_folder("pycountry") / "databases/iso3166-1.json")
    return {row["alpha_2"]: row["alpha_3"] for row in table["3166-1"]}


def _package_folder(package: str) -> Path:
    # find_spec locates the package and does not run it.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the carbon intensity tables need the package {package!r}, which is not installed; install it, or give --intensity"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _newest(data: Path, name: str) -> Path:
    """Return a regional table, which lies in a folder named after its year."""
    found = sorted((data / "private_infra").glob(f"[0-9]*/{name}"))
    if not found:
        raise FileNotFoundError(f"CodeCarbon {_version()} has no table {name}; install codecarbon>=3.3.2,<4, or --intensity")
    return found[-1]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("codecarbon")
    except PackageNotFoundError:
        return "(unknown version)"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
