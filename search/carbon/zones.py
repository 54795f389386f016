"""CodeCarbon's offline tables of carbon intensity, read from its data files without importing it (its import needs pandas)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GRAMS_PER_POUND = 453.59237  # international pound
# Emission factors of fossil generation that CodeCarbon applies to the Canadian mixes, in gCO2/kWh.
# Source: codecarbon/core/emissions.py, from the US EIA's figures in github.com/responsibleproblemsolving/energy-usage
CANADA_GRAMS = {"coal": 995.725971, "petroleum": 816.6885263, "naturalGas": 743.8415916}
# Postal codes of Canadian provinces (ISO 3166-2:CA): CodeCarbon's table has names only.
CANADA_CODES = {
    "british columbia": "BC", "newfoundland and labrador": "NL", "saskatchewan": "SK", "prince edward island": "PE", "ontario": "ON",
    "nova scotia": "NS", "quebec": "QC", "alberta": "AB", "manitoba": "MB", "northwest territories": "NT", "new brunswick": "NB",
    "nunavut": "NU", "yukon": "YT",
}  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """One row of a table: see `carbon.Intensity`, which it becomes."""

    grams_per_kwh: float
    zone: str
    source: str
    year: int | None
    scope: str
    region: str
    fallback: str | None = None


def factor_for(zone: str) -> Factor:
    """Find a place by its code or its name; the forms are those of `carbon.intensity_for`.

    Raises:
        ValueError: The place is unknown; the message names near ones.
    """
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
    if region and national is not None and not near:
        hint = f"the tables have no such region of {national}: use {national} for the whole country, or --intensity with your own number"
    raise ValueError(f"zone must be a place in CodeCarbon's tables, got {zone!r}; {hint}")


@cache
def zone_names() -> Mapping[str, str]:
    """Return every code and name (case-folded) by which a zone is found -> its code."""
    names: dict[str, str] = {}
    for code, factor in _factors().items():
        names[code.casefold()] = code
        if ":" not in code:
            names.setdefault(factor.region.casefold(), code)
        country, dash, _ = code.partition("-")
        if dash:
            names[f"{country}-{factor.region.split(',')[0]}".casefold()] = code
    for alpha2, alpha3 in _iso_codes().items():
        if alpha2 in _factors():
            names[alpha3.casefold()] = alpha2
        for code in [code for code in _factors() if code.startswith(f"{alpha2}-")]:
            names[f"{alpha3}-{code[3:]}".casefold()] = code
    for code in [code for code in _factors() if code[:3] in ("SE-", "NO-")]:
        names[code[3:].casefold()] = code  # bidding zones are known as SE3, NO1 on their own
    return names


@cache
def _factors() -> Mapping[str, Factor]:
    data = _package_folder("codecarbon") / "data"
    name = f"CodeCarbon {_version('codecarbon')} offline table"
    alpha2 = {alpha3: two for two, alpha3 in _iso_codes().items()}
    rows: dict[str, Factor] = {}
    for code, row in _json(data / "private_infra/global_energy_mix.json").items():
        zone = alpha2.get(code, code)
        source = f"{name} (countries; Our World in Data, Ember)"
        rows[zone] = Factor(float(row["carbon_intensity"]), zone, source, int(row["year"]), "lifecycle", row["country_name"])
    rows |= _usa(_json(_newest(data, "usa_emissions.json")), name)
    mix = _newest(data, "canada_energy_mix.json")
    rows |= _canada(_json(mix), name, int(mix.parent.name))
    rows |= _china(_json(_newest(data, "china_provincial_emissions.json")), name)
    rows |= _nordic(_json(data / "private_infra/nordic_emissions.json"), name)
    rows |= _google(data / "cloud/impact.csv", name)
    per_source = _json(data / "private_infra/carbon_intensity_per_source.json")
    rows["WORLD"] = Factor(
        float(per_source["world_average"]),
        "WORLD",
        f"{name} (world; IEA 2019)",
        2018,
        "unknown",
        "world average",
        "the world average is no place: it can be ten times too high or half too low",
    )
    return rows


def _usa(table: Mapping[str, Any], name: str) -> dict[str, Factor]:
    year = int(table["_source"]["year"])
    source = f"{name} (US states; {table['_source']['name']})"
    rows = {}
    for state, row in table.items():
        # 'usa' is the national total, which the country table has already; keys with an underscore are notes.
        if not state.startswith("_") and state != "usa":
            zone = f"US-{row['regionCode']}"
            rows[zone] = Factor(
                float(row["emissions"]) * GRAMS_PER_POUND / 1000, zone, source, year, "direct", f"{state.title()}, United States"
            )
    return rows


def _canada(table: Mapping[str, Any], name: str, year: int) -> dict[str, Factor]:
    rows = {}
    for province, mix in table.items():
        grams = sum(float(mix[fuel]) / float(mix["total"]) * factor for fuel, factor in CANADA_GRAMS.items())
        zone = f"CA-{CANADA_CODES[province]}"
        rows[zone] = Factor(
            grams, zone, f"{name} (Canadian provinces; generation mix x fossil factors)", year, "direct", f"{province.title()}, Canada"
        )
    return rows


def _china(table: Mapping[str, Any], name: str) -> dict[str, Factor]:
    source = f"{name} (Chinese provinces; MEE and NBS {table['metadata']['announcement']}, CO2 only)"
    return {
        zone: Factor(float(row["emission_factor"]), zone, source, int(row["year"]), "direct", f"{row['description']}, China")
        for zone, row in table["data"].items()
    }


def _nordic(table: Mapping[str, Any], name: str) -> dict[str, Factor]:
    rows = {}
    for area, row in table["data"].items():
        country = area[:2]
        if area == country:
            continue  # Finland is one bidding zone: the country table has it, with a consistent method
        zone = f"{country}-{area}"
        source = f"{name} (Nordic bidding zones; ENTSO-E generation mix, coverage {row['coverage'].split()[0]})"
        rows[zone] = Factor(float(row["emission_factor"]), zone, source, int(row["year"]), "lifecycle", row["description"])
    return rows


def _google(path: Path, name: str) -> dict[str, Factor]:
    rows = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            zone = f"{row['provider']}:{row['region']}"
            place = ", ".join(part for part in (row["city"] or row["state"], row["country_name"]) if part)
            rows[zone] = Factor(float(row["impact"]), zone, f"{name} (cloud regions; {row['providerName']})", None, "unknown", place)
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
        raise FileNotFoundError(f"CodeCarbon {_version('codecarbon')} has no table {name}; install codecarbon>=3.3,<4, or give --intensity")
    return found[-1]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
