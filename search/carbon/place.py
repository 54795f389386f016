"""Where a run's electricity comes from: said once, when it begins, because all grams of one front need the same factor."""

from __future__ import annotations

import shlex
from dataclasses import asdict

from ..records.run_folder import Store, StoreError
from .intensity import Intensity

_GIVEN = Intensity(0.0).source


def keep_place(store: Store, intensity: Intensity | None, pue: float, *, forecast: bool) -> tuple[Store, Intensity | None, float]:
    """Return the intensity and the PUE that hold for all sessions of a run.

    Args:
        store: The run folder.
        intensity: What was asked for now; None takes that of the run. For the same zone a table or a live reading may have moved on: the
            run's own number stays.
        pue: Power usage effectiveness asked for now; 1 takes that of the run.
        forecast: Whether grams follow a forecast by the hour, whose mean is another one in every session.

    Returns:
        The run folder, the intensity (of the forecast: that of now) and the PUE.

    Raises:
        StoreError: If the run began at another place, without one, or with another PUE.
    """
    facts = store.facts
    if not facts["sessions"]:  # nothing was trained: an earlier start has failed
        return store.save_facts({**facts, "intensity": None if intensity is None else asdict(intensity), "pue": pue}), intensity, pue
    own_pue = float(facts.get("pue") or 1.0)
    if pue not in (1.0, own_pue):
        raise StoreError(_refusal(store, f"with PUE {own_pue:g}", f"{pue:g}", "--pue"))
    if forecast:
        return store, intensity, own_pue
    own = None if facts.get("intensity") is None else Intensity.from_json(dict(facts["intensity"]))
    if intensity is not None and own is None:
        raise StoreError(_refusal(store, "without a place", _short(intensity), "--zone and --intensity"))
    if intensity is not None and own is not None and not _agree(intensity, own):
        raise StoreError(_refusal(store, f"at {_short(own)}", _short(intensity), "--zone and --intensity"))
    return store, own, own_pue


def _agree(now: Intensity, own: Intensity) -> bool:
    """Whether both are one place: the same number, or the same zone where the number is not the user's."""
    return now.grams_per_kwh == own.grams_per_kwh or (now.zone is not None and now.zone == own.zone and now.source != _GIVEN)


def _short(place: Intensity) -> str:
    return f"{place.grams_per_kwh:g} g/kWh" + ("" if place.zone is None else f" ({place.zone})")


def _refusal(store: Store, was: str, now: str, options: str) -> str:
    return (
        f"{str(store.path)!r} began {was}, now it is {now}: all grams of one front need the same factor. "
        f"Leave out {options} to go on as it began, or give a new --out; "
        f"'joulefront price {shlex.quote(str(store.path))} --zones FR,PL' gives the grams elsewhere"
    )
