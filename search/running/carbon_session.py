"""The carbon of a session: its grams by the hour in which joules are spent, and the one place that all sessions of a run share.

All grams of one front need the same factor; the log also keeps what the same trainings would have emitted without waiting.
"""

from __future__ import annotations

import math
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..billing.account import Account
from ..carbon.forecast import Forecast, forecast_of, hours_of, moment_of
from ..carbon.intensity import Intensity, grams_co2e
from ..energy import JOULES_PER_KWH, SECONDS_PER_HOUR, Record
from ..energy.record import sum_known
from ..records.run_folder import RunFolder, StoreError
from ..stopping.rules import Limits
from ..study import Budget, Study
from .clean_hours import CarbonTime, Postponer, WallClock, text_of

if TYPE_CHECKING:
    import optuna

#: Why a new study with a forecast has no workers elsewhere.
ALONE = (
    "--forecast must go without --storage, got both: grams by the hour are kept in one run folder, and workers elsewhere would not know "
    "them; leave --storage out (--workers N trains in parallel), or give --zone or --intensity in place of --forecast"
)
#: The limits of a study are checked so often while it waits.
SLICE_SECONDS = 5.0


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
            alone = [(start_hour, stop_hour)] if start_hour < stop_hour else []
            for begin, end in self._waits:
                alone = [(a, b) for low, high in alone for a, b in ((low, min(high, begin)), (max(low, end), high)) if a < b]
            self._waits.append((start_hour, stop_hour))
            for first, last in alone:
                own = None if joules is None else joules * (last - first) / (stop_hour - start_hour)
                self._wait_joules = sum_known((self._wait_joules, own))
                self._wait_grams = sum_known((self._wait_grams, self._price(own, first, last)))

    @property
    def all_grams(self) -> float | None:
        """Carbon of all sessions, or None when unknown."""
        return sum_known((self.grams, *(session["grams"] for session in self.earlier)))

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


def check_grams(study: Study, intensity: Intensity | None) -> None:
    """Refuse to minimise grams that are unknown, or 0 of every training.

    Raises:
        ValueError: If an objective is ``train_co2`` and the intensity of the place is None or 0.
    """
    if "train_co2" in study.objectives and (intensity is None or intensity.grams_per_kwh == 0):
        got = "none" if intensity is None else "0 g/kWh, at which every training emits the same"
        raise ValueError(
            f"objective 'train_co2' needs a carbon intensity above 0, got {got}; "
            "add --zone FR or --intensity 56 (g/kWh), or take train_energy in its place"
        )


def grams_as_joules(
    sessions: Sequence[Mapping[str, Any]], budget: Budget | None, grams_per_kwh: float | None, pue: float, *, otherwise: float | None
) -> float | None:
    """Return what earlier sessions spent of a budget: for one in grams, their grams in joules at a nominal intensity.

    For every other budget that is `otherwise`, what they spent in joules.
    """
    if budget is None or budget.grams_co2e is None or not grams_per_kwh or not sessions:
        return otherwise
    grams = [session["grams"] for session in sessions]
    return otherwise if None in grams else sum(grams) / (grams_per_kwh * pue) * JOULES_PER_KWH


@dataclass
class CarbonSession:
    """Carbon in time during one session.

    Attributes:
        postponer: Decides what waits; None when nothing does.
        grams_limit: Grams that the whole search may spend, or None.
        grams_needed: Whether the study cannot do without grams: one of its objectives or its budget is in grams.
    """

    account: Account
    clock: WallClock
    book: CarbonLog
    postponer: Postponer | None
    grams_limit: float | None
    grams_needed: bool

    @classmethod
    def begin(
        cls,
        asked: CarbonTime,
        study: Study,
        limits: Limits,
        budget: Budget | None,
        account: Account,
        *,
        nominal: Intensity,
        earlier: Sequence[Mapping[str, Any]],
        pue: float,
        workers: int,
    ) -> CarbonSession:
        """Begin a session under the limits of the study, where a budget in grams was turned into joules at the nominal intensity.

        Raises:
            ValueError: If there is a deadline but no end in energy or trials, so that it is unknown how much there is to wait with.
        """
        forecast, now = forecast_of(asked.forecast), asked.clock.hour()
        postponer = None
        if asked.deadline is not None:
            if limits.joules is None and limits.trials is None:
                raise ValueError(
                    "--carbon-aware needs to know how much there is to train until the deadline: add --budget 5Wh or --trials 40"
                )
            postponer = Postponer(forecast, hours_of(asked.deadline), study.rungs[-1], workers)
        grams_limit = None
        if budget is not None and budget.grams_co2e is not None and limits.joules is not None:
            grams_limit = limits.joules / JOULES_PER_KWH * nominal.grams_per_kwh * pue
        needed = grams_limit is not None or "train_co2" in study.objectives
        return cls(account, asked.clock, CarbonLog(forecast, pue, now, earlier), postponer, grams_limit, needed)

    def now(self) -> Intensity | None:
        """Intensity at this moment; None when the forecast does not cover it."""
        hour = self.clock.hour()
        return self.book.over(hour, hour)

    def over(self, record: Record) -> Intensity | None:
        """Mean intensity over a window of the ledger; None when the forecast does not cover it."""
        return self.book.over(*self._hours(record))

    def limits(self, limits: Limits) -> Limits:
        """Return the limits with what the grams that are left would buy at this moment's intensity."""
        spent_joules = self.account.spent_joules()
        self.book.see(self.clock.hour(), self._session_joules())
        if self.grams_limit is None or spent_joules is None:
            return limits
        here, grams = self.now(), self.book.all_grams
        if here is None or grams is None:
            return replace(limits, joules=spent_joules)  # `ended` gives the reason
        left = max(0.0, self.grams_limit - grams)
        return replace(limits, joules=spent_joules + left / max(here.grams_per_kwh * self.book.pue, 1e-9) * JOULES_PER_KWH)

    def ended(self) -> str | None:
        """Return that the forecast ends before grams that the study needs; None while it does not."""
        last = self.book.forecast.span[1]
        if not self.grams_needed or math.isinf(last) or self.clock.hour() < last:
            return None
        return f"the forecast ends at {text_of(last)}, and the study needs grams; go on with a new one"

    def until(self, study: optuna.Study, limits: Limits, epochs: int | None) -> float | None:
        """Return the hour that the next training should wait for, see `Postponer`; None to continue now."""
        if self.postponer is None:
            return None
        done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        joules = None if limits.joules is None else limits.joules - (self.account.spent_joules() or 0.0)
        left = Limits(joules, None if limits.trials is None else limits.trials - done)
        return self.postponer.until(study, self.clock.hour(), left, epochs)

    def wait(self, until_hour: float, broken_off: threading.Event, stop: Callable[[], object]) -> None:
        """Wait in slices; return early when interrupted (`broken_off`) or when `stop`, asked between slices, answers anything true.

        What the machine takes at idle is booked, not what other workers train meanwhile.
        """
        begin, before = self.clock.hour(), self.account.idle_joules()
        while (now := self.clock.hour()) < until_hour and not broken_off.is_set() and not stop():
            self.clock.wait(min(until_hour - now, SLICE_SECONDS / SECONDS_PER_HOUR), broken_off)
        after = self.account.idle_joules()
        self.book.waited(begin, self.clock.hour(), None if after is None or before is None else after - before)

    def trained(self, record: Record, epochs: int) -> None:
        """Take note of a training."""
        start, stop = self._hours(record)
        self.book.trained(start, stop, record.joules)
        if self.postponer is not None:
            self.postponer.learn(stop - start, record.joules, epochs)

    def facts(self) -> dict[str, Any]:
        """Return what the run folder keeps: the sessions, and the mean intensity over the energy of the whole search."""
        self.book.see(self.clock.hour(), self._session_joules())
        mean = self.book.mean_intensity()
        deadline = None if self.postponer is None else moment_of(self.postponer.deadline_hour).isoformat(timespec="minutes")
        session = {**self.book.to_json(), "deadline": deadline}
        return {"carbon": [*self.book.earlier, session], "intensity": None if mean is None else asdict(mean)}

    def _session_joules(self) -> float | None:
        spent = self.account.spent_joules()
        return None if spent is None else spent - (self.account.earlier_joules or 0.0)

    def _hours(self, record: Record) -> tuple[float, float]:
        """Place a record of the monotonic clock, which stands still while a laptop sleeps, on this session's clock."""
        if type(self.clock) is WallClock:
            start = hours_of(datetime.fromisoformat(record.t0_utc))
            return start, start + record.seconds / SECONDS_PER_HOUR
        ago = (time.monotonic_ns() - record.t1_ns) / 1e9 / SECONDS_PER_HOUR
        stop = self.clock.hour() - ago
        return stop - record.seconds / SECONDS_PER_HOUR, stop
