"""The value of a plan that may stop early, against plain numerical integration over all measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.acquisition import Boxes, boxes_above, lookahead_rates
from joulefront.search.samplers.encoding import Array
from joulefront.search.samplers.gaussian_process import Marginal, Normal, Posterior
from joulefront.search.samplers.surrogates import Predictions

from .conftest import curve

ROWS, COST_FLOOR = 6, 3.0
#: Possible measurements at the first rung, in standard deviations, and their probabilities.
SEEN = np.linspace(-6.0, 6.0, 601)
PROBABILITY = np.exp(-0.5 * SEEN**2) / np.exp(-0.5 * SEEN**2).sum()


class Joint:
    """Stands in for the surrogates: qualities at three rungs that are jointly normal and much alike, with one covariance for all."""

    shared = 0.01 * np.array([[1.0, 0.9, 0.8], [0.9, 1.2, 1.1], [0.8, 1.1, 1.5]])

    def covariance(self, predictions: Predictions, first: int, second: int) -> Array:
        return np.full(ROWS, self.shared[first, second])

    def noise(self, rung: int) -> float:
        return 0.003

    def marginals_of(self, columns: Sequence[tuple[Array, Array]], rung: int) -> list[Marginal]:
        return [Normal(mean, sd) for mean, sd in columns]

    def marginals(self, predictions: Predictions, rung: int) -> list[Marginal]:
        return self.marginals_of([(found.mean[:, rung], found.sd[:, rung]) for found in predictions.objectives], rung)


@dataclass
class Oracle:
    """Predictions for a few configurations, conditioned by hand."""

    models: Any
    boxes: Boxes
    predictions: Predictions

    def found(self, cost: Array, *, rate: Array | None = None, resume: bool, last_only: bool, remaining: float = np.inf) -> Array:
        """What is under test; without rates of straight plans only the stopping rule is judged."""
        rate, rows = np.zeros_like(cost) if rate is None else rate, np.arange(ROWS)
        return lookahead_rates(
            self.models,
            self.boxes,
            self.predictions,
            rate,
            cost,
            rows=rows,
            first=0,
            cost_floor=COST_FLOOR,
            remaining=remaining,
            resume=resume,
            last_only=last_only,
        )

    def now(self, rung: int) -> Array:
        """Expected gain at a rung before anything is seen, ``(ROWS,)``."""
        return self.boxes.expected_gain(self.models.marginals(self.predictions, rung)) * self.predictions.feasibility[:, rung]

    def after(self, row: int, rung: int) -> Array:
        """Expected gain at a rung after each possible measurement at the first, ``(len(SEEN),)``.

        The measurement is the quality there and noise; of two jointly normal numbers the first, given the second, is normal again.
        """
        quality, energy = self.predictions.objectives
        variance_seen = quality.sd[row, 0] ** 2 + self.models.noise(0)
        together = quality.sd[row, 0] ** 2 if rung == 0 else self.models.covariance(self.predictions, 0, rung)[row]
        sd = np.sqrt(max(quality.sd[row, rung] ** 2 - together**2 / variance_seen, 1e-9))
        gains = []
        for z in SEEN:
            mean = quality.mean[row, rung] + together / variance_seen * (z * np.sqrt(variance_seen))
            columns = [(np.array([mean]), np.array([sd])), (energy.mean[row, [rung]], energy.sd[row, [rung]])]
            gains.append(self.boxes.expected_gain(self.models.marginals_of(columns, rung))[0] * self.predictions.feasibility[row, rung])
        return np.array(gains)

    def best_rate(self, row: int, targets: list[int], *, resume: bool, last_only: bool) -> float:
        """Largest gain per energy over all stopping rules, by bisection: at that rate the surplus of the best rule is zero."""
        cost = self.predictions.energy[row]
        here = self.after(row, 0) * (not last_only)
        going = [(self.after(row, t) - here, cost[t] - cost[0] if resume else cost[t] + COST_FLOOR) for t in targets]

        def surplus(rate: float) -> float:
            best = np.max([np.zeros_like(here), *(more - rate * further for more, further in going)], axis=0)
            return float(PROBABILITY @ (here + best)) - rate * (cost[0] + COST_FLOOR)

        low, high = 0.0, 1.0
        while surplus(high) > 0:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
        return low


def synthetic() -> Oracle:
    """Six configurations that differ in what is expected of them, before a front of three points."""
    cost = np.outer(np.linspace(0.7, 1.4, ROWS), [10.0, 60.0, 200.0])
    mean = np.linspace(0.62, 0.4, ROWS)[:, None] + np.array([0.0, 0.1, 0.15])
    quality = Posterior(mean, np.tile(np.sqrt(np.diag(Joint.shared)), (ROWS, 1)), np.zeros(0))
    energy = Posterior(-np.log10(cost), np.full_like(cost, 0.05), np.zeros(0))
    front = np.array([[0.5, -1.0], [0.65, -1.8], [0.7, -2.3]])
    feasibility = np.repeat(np.linspace(1.0, 0.5, ROWS)[:, None], cost.shape[1], 1)
    return Oracle(Joint(), boxes_above(front, np.array([0.3, -2.5])), Predictions((quality, energy), cost, feasibility))


@pytest.fixture(scope="module")
def fresh() -> Oracle:
    """Fresh configurations of a study on an analytic problem."""
    sampler = FreezeThawSampler([1, 9, 27], ladders=1)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(curve, 20)
    survey = sampler.survey(study)
    assert survey is not None
    rates = np.where(survey.candidates.config < 0, survey.candidates.best, -np.inf)
    genes = survey.candidates.genes[np.argsort(-rates, kind="stable")[:60:10]]
    models = survey.planner.models
    return Oracle(models, survey.state.boxes, models.predict(survey.state.encoder.columns(genes)))


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("world", ["synthetic", "searched"])
def test_the_rate_found_is_that_of_the_best_stopping_rule(fresh: Oracle, world: str, last_only: bool, resume: bool) -> None:
    oracle = synthetic() if world == "synthetic" else fresh
    cost = oracle.predictions.energy
    together = cost + (0.0 if resume else cost[:, [0]])
    for remaining in (np.inf, float(np.median(together[:, 1])), float(np.median(together[:, 2]))):
        found = oracle.found(cost, resume=resume, last_only=last_only, remaining=remaining)
        wanted = []
        for row in range(ROWS):
            fits = [t for t in (1, 2) if together[row, t] <= remaining and (t == 2 or not last_only)]
            wanted.append(oracle.best_rate(row, fits, resume=resume, last_only=last_only))
        assert found == pytest.approx(wanted, rel=0.03, abs=0.01 * max(wanted))


@pytest.mark.parametrize("rung", [1, 2])
def test_where_continuing_is_free_the_option_to_stop_changes_nothing_on_average(rung: int) -> None:
    oracle = synthetic()
    found = oracle.found(np.ones((ROWS, rung + 1)), resume=True, last_only=True)
    assert found == pytest.approx(oracle.now(rung) / (1.0 + COST_FLOOR), rel=0.01)


def test_a_straight_plan_that_is_better_keeps_its_rate() -> None:
    oracle = synthetic()
    rate = np.zeros_like(oracle.predictions.energy)
    rate[2, 1] = 1e9
    found = oracle.found(oracle.predictions.energy, rate=rate, resume=True, last_only=False)
    assert found[2] == 1e9
    assert (np.delete(found, 2) < 1.0).all()


@pytest.mark.slow
def test_gains_after_a_measurement_averaged_over_all_of_them_are_those_before_it() -> None:
    """A check of the oracle itself."""
    oracle = synthetic()
    for rung in range(3):
        after = [float(PROBABILITY @ oracle.after(row, rung)) for row in range(ROWS)]
        assert after == pytest.approx(oracle.now(rung), rel=1e-4)
