"""Which trainings wait for clean hours: large ones do while there is time, small ones only when they are not worth their energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..samplers import FreezeThawSampler
from ..samplers.marginal_gain import small_is_worth_it
from .clean_hours import Timetable
from .forecast import Forecast

if TYPE_CHECKING:
    import optuna

#: A training is large above this share of a median complete one: with rungs in threes that is the step to the last rung.
LARGE = 0.25


@dataclass(frozen=True)
class Left:
    """What a study may still do; None is no limit.

    Attributes:
        joules: Energy.
        trials: Trials.
    """

    joules: float | None = None
    trials: int | None = None


@dataclass
class Postponer:
    """Decides whether the next training starts now or waits.

    In clean hours (`joulefront.search.carbon.clean_hours.Timetable`) everything is trained, in the order of the sampler. In other hours our
    sampler proposes small trainings only, as long as one is worth it (`joulefront.search.samplers.marginal_gain`); with other samplers a
    large training that was asked for waits before it starts. Nothing waits before a first training has shown how long trainings take,
    nor once the time to the deadline only just holds the work.

    Attributes:
        forecast: Intensity over time.
        deadline_hour: When the trainings should be done, in hours since 1970-01-01 UTC.
        last_rung: Epochs of a complete training.
        workers: Trainings at the same time.
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

    def timetable(self, now_hour: float, left: Left) -> Timetable | None:
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

    def until(self, study: optuna.Study, now_hour: float, left: Left, epochs: int | None = None) -> float | None:
        """Return the hour to wait for before the next training is chosen or started; None to go on.

        Args:
            study: The study; a sampler of ours is held to small trainings, or set free.
            now_hour: The present.
            left: What the study may still do.
            epochs: Epochs of a training that was asked for; None before the sampler is asked.
        """
        table = self.timetable(now_hour, left)
        free = table is None or table.clean
        sampler = study.sampler
        if isinstance(sampler, FreezeThawSampler):
            if epochs is not None:
                return None  # it was held to what may be trained now
            sampler.largest_step = None if free else LARGE
            return None if free or small_is_worth_it(sampler, study, LARGE) else table.next_clean_hour  # type: ignore[union-attr]  # not free: there is a table
        waits = not free and epochs is not None and epochs > LARGE * self.last_rung
        return table.next_clean_hour if waits and table is not None else None
