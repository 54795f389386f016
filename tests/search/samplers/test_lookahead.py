"""The value of looking before going on, against plain numerical integration over everything that could be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.encoding import Array
from joulefront.search.samplers.freeze_thaw import Survey
from joulefront.search.samplers.lookahead import rates_with_option

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 9, 27]
#: What a measurement at the first rung may say, in standard deviations of it, and how likely that is.
SEEN = np.linspace(-6.0, 6.0, 601)
CHANCE = np.exp(-0.5 * SEEN**2) / np.exp(-0.5 * SEEN**2).sum()
ROWS, LEAST = 6, 3.0


def surveyed(objective: Objective, **options: bool) -> Survey:
    sampler = FreezeThawSampler(RUNGS, **options)  # type: ignore[arg-type]
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 20)
    survey = sampler.survey(study)
    assert survey is not None
    return survey


@dataclass
class Oracle:
    """Beliefs about promising fresh configurations, updated by hand."""

    survey: Survey

    def __post_init__(self) -> None:
        self.models, self.boxes = self.survey.planner.models, self.survey.situation.boxes
        options = self.survey.options
        best = np.argsort(-np.where(options.config < 0, options.best, -np.inf), kind="stable")[:60:10]
        self.view = self.models.view(self.survey.encoder.columns(options.genes[best]))

    def now(self, rung: int) -> Array:
        """Expected gain at a rung before anything is seen, ``(ROWS,)``."""
        return self.boxes.expected_gain(self.models.beliefs(self.view, rung)) * self.view.chance

    def after(self, row: int, seen_at: int, rung: int) -> Array:
        """Expected gain at a rung after each possible measurement at another, ``(len(SEEN),)``.

        The measurement is the quality there and noise; of two jointly normal numbers the first, given the second, is normal again.
        """
        quality, energy = self.view.objectives
        variance_seen = quality.sd[row, seen_at] ** 2 + self.models.noise(seen_at)
        together = quality.sd[row, rung] ** 2 if rung == seen_at else self.models.covariance(self.view, seen_at, rung)[row]
        gains = []
        for z in SEEN:
            mean = quality.mean[row, rung] + together / variance_seen * (z * np.sqrt(variance_seen))
            sd = np.sqrt(max(quality.sd[row, rung] ** 2 - together**2 / variance_seen, 1e-9))
            told = [(np.array([mean]), np.array([sd])), (energy.mean[row, [rung]], energy.sd[row, [rung]])]
            gains.append(self.boxes.expected_gain(self.models.beliefs_of(told, rung))[0] * self.view.chance[row])
        return np.array(gains)

    def best_rate(self, row: int, targets: list[int], *, resume: bool, last_only: bool) -> float:
        """Largest gain per energy over all rules of when to go on, by bisection: at that rate the surplus of the best rule is nothing."""
        cost = self.view.energy[row]
        here = self.after(row, 0, 0) * (not last_only)
        going = [(self.after(row, 0, t) - here, cost[t] - cost[0] if resume else cost[t] + LEAST) for t in targets]

        def surplus(rate: float) -> float:
            best = np.max([np.zeros_like(here), *(more - rate * further for more, further in going)], axis=0)
            return float(CHANCE @ (here + best)) - rate * (cost[0] + LEAST)

        low, high = 0.0, 1.0
        while surplus(high) > 0:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
        return low


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("resume", [True, False])
def test_the_rate_found_is_that_of_the_best_rule_of_when_to_go_on(objective: Objective, resume: bool, last_only: bool) -> None:
    survey = surveyed(objective, resume=resume, complete_only=last_only)
    oracle = Oracle(survey)
    cost = oracle.view.energy
    nothing = np.zeros_like(cost)  # straight plans have no say here: only the rule is judged
    for reach in (np.inf, float(np.median(cost[:, 1] + (0.0 if resume else cost[:, 0])))):
        found = rates_with_option(
            oracle.models,
            oracle.boxes,
            oracle.view,
            nothing,
            cost,
            rows=np.arange(ROWS),
            first=0,
            least=LEAST,
            remaining=reach,
            resume=resume,
            last_only=last_only,
        )
        wanted = []
        for row in range(ROWS):
            fits = [t for t in (1, 2) if cost[row, t] + (0.0 if resume else cost[row, 0]) <= reach and (t == 2 or not last_only)]
            wanted.append(oracle.best_rate(row, fits, resume=resume, last_only=last_only))
        assert found == pytest.approx(wanted, rel=0.03, abs=0.01 * max(wanted))


def test_a_straight_plan_that_is_better_keeps_its_rate(objective: Objective) -> None:
    oracle = Oracle(surveyed(objective))
    cost = oracle.view.energy
    rate = np.zeros_like(cost)
    rate[2, 1] = 1e9
    found = rates_with_option(
        oracle.models, oracle.boxes, oracle.view, rate, cost, rows=np.array([2, 3]), first=0, least=LEAST, resume=True, last_only=False
    )
    assert found[0] == 1e9
    assert found[1] < 1e9


def test_what_is_seen_on_the_way_is_what_is_expected_on_average(objective: Objective) -> None:
    """The oracle's own ground: beliefs after a measurement, averaged over all of them, are those before it."""
    oracle = Oracle(surveyed(objective))
    for rung in range(3):
        now = oracle.now(rung)
        after = [float(CHANCE @ oracle.after(row, 0, rung)) for row in range(ROWS)]
        assert after == pytest.approx(now, rel=1e-3, abs=1e-3 * now.max())
