"""Carbon over time in one session: what the user wants, the clock, and which trainings wait for clean hours.

Large trainings wait while there is time; small ones wait only when they are not worth their energy.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..billing.account import Account
from ..carbon.clean_hours import Timetable, check_cover, deadline_of, text_of
from ..carbon.forecast import Forecast, forecast_of, hours_of, moment_of, read_forecast
from ..carbon.intensity import Intensity
from ..energy import JOULES_PER_KWH, SECONDS_PER_HOUR, Record
from ..samplers import FreezeThawSampler
from ..samplers.marginal_gain import passes_cost_gate
from ..stopping.rules import Limits
from ..study import Budget, Study
from .carbon_log import CarbonLog

if TYPE_CHECKING:
    import optuna

#: Why a new study with a forecast has no workers elsewhere.
ALONE = (
    "--forecast must go without --storage, got both: grams by the hour are kept in one run folder, and workers elsewhere would not know "
    "them; leave --storage out (--workers N trains in parallel), or give --zone or --intensity in place of --forecast"
)
#: A training is large above this share of a median complete one: with rungs in threes that is the step to the last rung.
LARGE = 0.25


@dataclass
class Postponer:
    """Decides whether the next training starts now or waits.

    In clean hours (`joulefront.search.carbon.clean_hours.Timetable`) everything is trained, in the order of the sampler. In other hours our
    sampler proposes small trainings only, as long as one is worth it (`joulefront.search.samplers.marginal_gain`); with other samplers a
    large training that was proposed waits before it starts. Nothing waits before a first training has shown how long trainings take,
    nor once the time to the deadline only just holds the work.

    The deadline is in hours since 1970-01-01 UTC; ``last_rung`` is the number of epochs of a complete training.
    """

    forecast: Forecast
    deadline_hour: float
    last_rung: int
    workers: int = 1
    _hours: float = 0.0
    _joules: float | None = 0.0
    _epochs: int = 0
    _trainings: int = 0

    def learn(self, hours: float, joules: float | None, epochs: int) -> None:
        """Take note of how long a training took, what it paid, and of how many epochs it made."""
        self._hours += hours
        self._joules = None if joules is None or self._joules is None else self._joules + joules
        self._epochs += epochs
        self._trainings += 1

    def timetable(self, now_hour: float, left: Limits) -> Timetable | None:
        """Return the clean hours for what is left to do; None while that is not known."""
        if not self._hours or not self._epochs:
            return None
        work = []
        if left.joules is not None and self._joules:
            work.append(left.joules * self._hours / self._joules)
        if left.trials is not None:
            work.append(left.trials * self._hours / self._trainings)
        if not work:
            return None
        complete = self.last_rung * self._hours / self._epochs
        return Timetable(self.forecast, now_hour, self.deadline_hour, max(0.0, min(work)) / self.workers, complete)

    def until(self, study: optuna.Study, now_hour: float, left: Limits, epochs: int | None = None) -> float | None:
        """Return the hour to wait for before the next training is chosen or started; None to continue now.

        A sampler of ours is held to small trainings, or set free; ``left`` is what the study may still do, and ``epochs`` are those of a
        training that was proposed, None before the sampler proposes one.
        """
        table = self.timetable(now_hour, left)
        free = table is None or table.clean
        sampler = study.sampler
        if isinstance(sampler, FreezeThawSampler):
            if epochs is not None:
                return None  # it was held to what may be trained now
            sampler.largest_step = None if free else LARGE
            return None if free or passes_cost_gate(sampler, study, LARGE) else table.next_clean_hour  # type: ignore[union-attr]  # not free: there is a table
        waits = not free and epochs is not None and epochs > LARGE * self.last_rung
        return table.next_clean_hour if waits and table is not None else None


#: The limits of a study are checked so often while it waits.
SLICE_SECONDS = 5.0


class WallClock:
    """The clock of this machine, which tells the time of day and waits; tests and simulations have others."""

    def hour(self) -> float:
        """Return hours since 1970-01-01 UTC."""
        return time.time() / SECONDS_PER_HOUR

    def wait(self, hours: float, broken_off: threading.Event) -> None:
        """Sleep, or return early when the event is set."""
        broken_off.wait(max(0.0, hours) * SECONDS_PER_HOUR)


@dataclass(frozen=True)
class CarbonTime:
    """Price joules by the hour, and train in clean hours.

    Attributes:
        forecast: A curve (`joulefront.search.carbon.forecast.read_forecast`), or a function that takes an instant in UTC and returns
            gCO2e/kWh.
        deadline: Until when large trainings may wait for clean hours, with a time zone; None lets nothing wait.
        clock: Tells the time; another one for tests and simulations.
    """

    forecast: Forecast | Callable[[datetime], float]
    deadline: datetime | None = None
    clock: WallClock = field(default_factory=WallClock)

    def check(self) -> None:
        """Refuse a deadline that has passed, and a forecast that does not reach it, with a ``ValueError`` that names the remedy."""
        check_cover(forecast_of(self.forecast), self.clock.hour(), None if self.deadline is None else hours_of(self.deadline))

    def nominal(self) -> Intensity:
        """Return the mean intensity until the deadline, or now: what a budget in grams is worth before anything is spent."""
        forecast, now = forecast_of(self.forecast), self.clock.hour()
        return forecast.over(now, now if self.deadline is None else max(now, hours_of(self.deadline)))


def carbon_time_of(
    forecast: Path | None, deadline: str | None, *, carbon_aware: bool, zone: str | None, grams_per_kwh: float | None, network: bool
) -> CarbonTime | None:
    """Read the options of the command line about carbon over time.

    Raises:
        ValueError: If options are missing, contradict each other or cannot be read.
    """
    if carbon_aware and forecast is None:
        raise ValueError(
            "--carbon-aware needs a forecast of the intensity: add --forecast FILE.csv (columns hour or datetime, and g_per_kwh)"
        )
    if carbon_aware and deadline is None:
        raise ValueError("--carbon-aware needs to know how long trainings may wait: add --deadline 24h")
    if deadline is not None and not carbon_aware:
        raise ValueError(f"--deadline {deadline} says how long trainings may wait for clean hours: add --carbon-aware")
    if forecast is None:
        return None
    if grams_per_kwh is not None or network:
        other = "--network" if grams_per_kwh is None else f"--intensity {grams_per_kwh:g}"
        raise ValueError(f"--forecast {str(forecast)!r} and {other} exclude each other: grams follow one of them")
    found = CarbonTime(read_forecast(forecast, zone), None if deadline is None else deadline_of(deadline, datetime.now(UTC)))
    found.check()
    return found


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
