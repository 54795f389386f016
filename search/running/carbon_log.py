"""The grams of a session by the hour in which its joules are spent, and the one place that all sessions of a run share.

All grams of one front need the same factor; the log also keeps what the same trainings would have emitted without waiting.
"""

from __future__ import annotations

import math
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..carbon.forecast import Forecast, moment_of
from ..carbon.intensity import Intensity, grams_co2e
from ..energy import JOULES_PER_KWH
from ..energy.record import sum_known
from ..records.run_folder import RunFolder, StoreError


@dataclass
class CarbonLog:
    """The carbon of one session of a study.

    Attributes:
        hour: When the session began, in hours since 1970-01-01 UTC; moves on with ``see``.
        earlier: What earlier sessions of the study noted, see ``to_json``.
        grams: Its carbon so far; None once the forecast did not cover an hour.
    """

    forecast: Forecast
    pue: float
    hour: float
    earlier: Sequence[Mapping[str, Any]] = ()
    joules: float = 0.0
    grams: float | None = 0.0
    _trained: dict[str, float | None] = field(default_factory=lambda: {"joules": 0.0, "grams": 0.0, "grams_at_once": 0.0})
    _by_hour: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    _waits: list[tuple[float, float]] = field(default_factory=list)
    _wait_joules: float | None = 0.0
    _wait_grams: float | None = 0.0
    _waited: dict[int, float] = field(default_factory=dict)
    _until: float = -math.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def over(self, start_hour: float, stop_hour: float) -> Intensity | None:
        """Return the mean intensity over a window; None when the forecast does not cover it."""
        first, last = self.forecast.span
        if start_hour < first or stop_hour > last:
            return None
        mean = self.forecast.over(start_hour, stop_hour)
        return mean if mean.source.startswith("forecast") else replace(mean, source=f"forecast: {mean.source}")

    def see(self, hour: float, session_joules: float | None) -> None:
        """Price what was spent since the last look by the mean intensity since then; call it often."""
        if session_joules is None:
            self.grams = None
            return
        if hour > self.hour:
            self.grams = sum_known((self.grams, self._price(session_joules - self.joules, self.hour, hour)))
            self.joules, self.hour = max(self.joules, session_joules), hour

    def trained(self, start_hour: float, stop_hour: float, joules: float | None) -> None:
        """Book a training where it took place, and where it would have, had nothing waited before it."""
        shift = self._waited.get(threading.get_ident(), 0.0)
        sums = {
            "joules": joules,
            "grams": self._price(joules, start_hour, stop_hour),
            "grams_at_once": self._price(joules, start_hour - shift, stop_hour - shift),
        }
        self._trained = {name: sum_known((self._trained[name], value)) for name, value in sums.items()}
        if joules is not None:
            length = max(stop_hour - start_hour, 1e-12)
            for hour in range(math.floor(start_hour), math.floor(stop_hour) + 1):
                part = max(0.0, min(hour + 1, stop_hour) - max(hour, start_hour)) / length
                if part > 0:
                    before, grams = self._by_hour.get(hour, (0.0, 0.0))
                    paid = self._price(joules * part, max(hour, start_hour), min(hour + 1, stop_hour))
                    self._by_hour[hour] = before + joules * part, sum_known((grams, paid))

    def waited(self, start_hour: float, stop_hour: float, joules: float | None) -> None:
        """Book a wait of the present thread, with what the idle machine took meanwhile; hours in which several wait are paid once."""
        name = threading.get_ident()
        with self._lock:
            self._waited[name] = self._waited.get(name, 0.0) + stop_hour - start_hour
            self._waits.append((start_hour, stop_hour))
            first = min(max(start_hour, self._until), stop_hour)
            self._until = max(self._until, stop_hour)
            if first < stop_hour:
                own = None if joules is None else joules * (stop_hour - first) / (stop_hour - start_hour)
                self._wait_joules = sum_known((self._wait_joules, own))
                self._wait_grams = sum_known((self._wait_grams, self._price(own, first, stop_hour)))

    @property
    def all_grams(self) -> float | None:
        """Carbon of all sessions, or None when unknown."""
        total = self.grams
        for session in self.earlier:
            total = sum_known((total, session["grams"]))
        return total

    def mean_intensity(self) -> Intensity | None:
        """Mean intensity over the energy of the whole search: total joules at it are the grams of all sessions. None when unknown."""
        kwh = (self.joules + sum(float(session["joules"]) for session in self.earlier)) / JOULES_PER_KWH
        if self.all_grams is None or kwh <= 0:
            return None
        factor = self.all_grams / kwh / self.pue
        here = self.over(self.hour, self.hour)
        source = f"forecast: {self.forecast.source}, mean over the energy of this search, hour by hour"
        return Intensity(factor, source=source) if here is None else replace(here, grams_per_kwh=factor, source=source)

    def to_json(self) -> dict[str, Any]:
        """Return the session as JSON: joules, grams, the trainings with and without waiting, the waits, and the hours of the trainings."""
        hours = [
            {"hour": moment_of(hour).isoformat(timespec="minutes"), "joules": joules, "grams": grams}
            for hour, (joules, grams) in sorted(self._by_hour.items())
        ]
        return {
            "forecast": self.forecast.source,
            "joules": self.joules,
            "grams": self.grams,
            "trainings": dict(self._trained),
            "waits": [[moment_of(a).isoformat(timespec="seconds"), moment_of(b).isoformat(timespec="seconds")] for a, b in self._waits],
            "hours_waited": max(self._waited.values(), default=0.0),
            "wait_joules": self._wait_joules,
            "wait_grams": self._wait_grams,
            "hours": hours,
        }

    def _price(self, joules: float | None, start_hour: float, stop_hour: float) -> float | None:
        return grams_co2e(None if joules is None else max(joules, 0.0), self.over(start_hour, stop_hour), self.pue)


_GIVEN = Intensity(0.0).source


def keep_place(store: RunFolder, intensity: Intensity | None, pue: float, *, forecast: bool) -> tuple[RunFolder, Intensity | None, float]:
    """Return the run folder, and the intensity and the PUE that hold for all sessions of the run.

    Without an intensity, or with 1 as the PUE, those of the run are taken. For the same zone a table or a live reading may have moved on:
    the run's own number stays, but not where grams follow a forecast by the hour, whose mean is another one in every session.

    Raises:
        StoreError: If the run began at another place, without one, or with another PUE.
    """
    facts = store.facts
    if not facts["sessions"] and not facts.get("joined"):  # nothing was trained: an earlier start has failed
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


def _refusal(store: RunFolder, was: str, now: str, options: str) -> str:
    return (
        f"{str(store.path)!r} began {was}, now it is {now}: all grams of one front need the same factor. "
        f"Leave out {options} to continue as it began, or give a new --out; "
        f"'joulefront price {shlex.quote(str(store.path))} --zones FR,PL' gives the grams elsewhere"
    )
