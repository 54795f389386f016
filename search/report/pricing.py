"""The carbon and the price of a study in other places: joules stay, grams and money follow the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..carbon.intensity import Intensity, Price, cost, grams_co2e, scope_note
from ..carbon.zones import intensity_for
from ..energy import JOULES_PER_KWH
from ..formatting import digits, fitted, paragraphs, unit_for
from ..front import Front
from ..records.run_folder import Run


@dataclass(frozen=True)
class PriceRow:
    """A study priced for one place.

    Energy is that at the machine, without PUE; grams and money include it. They are those of the whole search, and of training once the
    model at the knee and the sensible one; None when unknown. ``front`` numbers the trials on the front of quality against grams here.
    """

    intensity: Intensity
    search_kwh: float | None
    search_grams_co2e: float | None
    search_cost: float | None
    currency: str | None
    knee_grams_co2e: float | None
    sensible_grams_co2e: float | None
    front: tuple[int, ...]


@dataclass(frozen=True)
class PriceTable:
    """A study priced for several places, in the given order, and why the rows cannot be compared directly, or None.

    ``front`` numbers the trials on the front of quality against joules; ``pue`` entered grams and money.
    """

    rows: tuple[PriceRow, ...]
    front: tuple[int, ...]
    pue: float
    note: str | None

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a place, units in the keys, None where unknown."""
        costs = ("search_kwh", "search_grams_co2e", "search_cost", "currency", "knee_grams_co2e", "sensible_grams_co2e")
        return [
            {
                "zone": row.intensity.zone,
                "region": row.intensity.region,
                "grams_co2e_per_kwh": row.intensity.grams_per_kwh,
                **{name: getattr(row.intensity, name) for name in ("kind", "scope", "year", "source", "fallback")},
                "pue": self.pue,
                **{name: getattr(row, name) for name in costs},
                "front": list(row.front),
                "same_front_as_energy": row.front == self.front,
            }
            for row in self.rows
        ]

    def to_text(self) -> str:
        """A table for people, with its assumptions."""
        money = any(row.search_cost is not None for row in self.rows)
        searches = [None if row.search_kwh is None else row.search_kwh * JOULES_PER_KWH for row in self.rows]
        energy, mass = unit_for(searches), unit_for([row.search_grams_co2e for row in self.rows], "gCO2e")
        costs = ["cost"] if money else []
        head = ["zone", "g/kWh", f"search {energy.name}", f"search {mass.name}", f"sensible {mass.name}", *costs, "year", "source"]
        cells = [head]
        for row, joules in zip(self.rows, searches, strict=True):
            cost = "-" if row.search_cost is None else f"{digits(row.search_cost)} {row.currency}"
            place = row.intensity
            cells.append(
                [
                    place.zone or "-",
                    digits(place.grams_per_kwh),
                    energy.number(joules),
                    mass.number(row.search_grams_co2e),
                    mass.number(row.sensible_grams_co2e),
                    *([cost] if money else []),
                    str(place.year or "-"),
                    place.source + (f" ({place.fallback})" if place.fallback else ""),
                ]
            )
        right = [False, *[True] * (len(head) - 2), False]
        lines = [fitted(cells, right), "", f"Grams and money include the PUE of {self.pue:g}, energy does not."]
        if all(row.front == self.front for row in self.rows):
            lines.append(f"The front is the same {len(self.front)} trials in every zone: in one place carbon is energy times a constant.")
        else:
            lines.append("The front differs in: " + ", ".join(str(r.intensity.zone) for r in self.rows if r.front != self.front) + ".")
        if any(row.intensity.grams_per_kwh == 0 for row in self.rows):
            lines.append("At 0 g/kWh every training emits the same, so that the front there is the best model alone.")
        table, *rest = [*lines, *([f"Note: {self.note}."] if self.note else [])]
        return "\n".join([table, *map(paragraphs, rest)])


def price_table(run: Run, zones: Sequence[str | Intensity], *, pue: float | None = None, price: Price | None = None) -> PriceTable:
    """Price a study for several places without training again.

    Zones are codes such as ``FR``, ``US-OR`` or ``TW``, or intensities of your own; without a price per kWh there is no money. The power
    usage effectiveness is the run's own by default.

    Raises:
        ValueError: If there is no zone or a zone is unknown; the message names similar ones.
    """
    if not zones:
        raise ValueError("--zones needs at least one zone, for example --zones FR,US,TW")
    places = [zone if isinstance(zone, Intensity) else intensity_for(zone) for zone in zones]
    front, pue = Front.of(run), run.pue if pue is None else pue
    knee, sensible = (front.knee().train_joules, front.sensible().train_joules) if len(front) else (None, None)
    search_joules = run.bill.search_joules
    paid = cost(search_joules, price, pue)
    rows = tuple(
        PriceRow(
            intensity=place,
            search_kwh=None if search_joules is None else search_joules / JOULES_PER_KWH,
            search_grams_co2e=grams_co2e(search_joules, place, pue),
            search_cost=paid,
            currency=price.currency if price is not None and paid is not None else None,
            knee_grams_co2e=grams_co2e(knee, place, pue),
            sensible_grams_co2e=grams_co2e(sensible, place, pue),
            front=tuple(trial.number for trial in front_at(front, place, pue)),
        )
        for place in places
    )
    notes = [note.rstrip(".") for note in (scope_note(places), run.bill.gaps()) if note is not None]
    return PriceTable(rows, tuple(trial.number for trial in front), pue, "; ".join(notes) or None)


#: Places that the page prices a run for, from clean to dirty grids on every inhabited continent.
PLACES = ("NO", "SE", "FR", "BR", "CA", "GB", "US", "DE", "JP", "AU", "CN", "TW", "PL", "ZA", "IN")


def places(run: Run) -> list[dict[str, Any]]:
    """Return the run's own place first, then `PLACES`: what a kWh emits there, with its source."""
    own = [] if run.intensity is None else [run.intensity]
    found = own + [one for one in map(intensity_for, PLACES) if one.zone not in [mine.zone for mine in own]]
    return [
        {"zone": one.zone, "region": one.region, "grams_per_kwh": one.grams_per_kwh, "year": one.year, "describe": one.describe()}
        for one in found
    ]


def hours(run: Run) -> list[list[Any]]:
    """Return ``[hour, joules, grams per kWh]`` of the hours in which a run with a forecast trained, as far as they are known."""
    found: dict[str, list[float]] = {}
    for session in run.facts.get("carbon") or []:
        for one in session.get("hours") or []:
            if one["joules"] and one["grams"] is not None:
                before = found.setdefault(str(one["hour"]), [0.0, 0.0])
                found[str(one["hour"])] = [before[0] + one["joules"], before[1] + one["grams"]]
    return [[hour, joules, grams / (joules / JOULES_PER_KWH * run.pue)] for hour, (joules, grams) in sorted(found.items())]


def front_at(front: Front, place: Intensity, pue: float = 1.0) -> Front:
    """Return the front of quality against grams at a place; the objectives that are energy become carbon there."""
    where = {i for i, name in enumerate(front.objectives) if name in ("train_energy", "train_co2")}
    trials = []
    for trial in front.trials:
        if front.why_not(trial) is None:
            grams = grams_co2e(trial.train_joules, place, pue) or 0.0
            values = tuple(grams if i in where else value for i, value in enumerate(trial.values))
            trials.append(replace(trial, values=values, energy=replace(trial.energy, grams_co2e=grams)))
    names = tuple("train_co2" if i in where else name for i, name in enumerate(front.objectives))
    return Front(tuple(trials), names, front.directions, front.complete_only, front.name, front.quality_floor)
