"""Marginal gain: what the rest of a budget is expected to add to the front, and a cost gate for small trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from .acquisition import COST_FLOOR, SearchState, boxes_above
from .freeze_thaw import FreezeThawSampler, Survey
from .planner import MIN_INCREMENT

#: At most so many of the best plans are valued, and at most so many of them are carried out in the projection.
_MAX_PLANS, _MAX_STEPS = 64, 60
#: A small training passes the cost gate when its rate is at least this share of the best rate.
_MIN_RELATIVE_RATE = 0.5


@dataclass(frozen=True)
class RemainingGain:
    """What continuing the study is expected to cost and to add.

    The hypervolume is the present one above the sampler's reference point, with costs by their logarithm; spending ``energy``, in the unit
    of the energy objective, is expected to add ``gain``. ``next_cost`` is the energy of the most promising plan, ``next_step`` that of its
    first training; both are None when nothing is left to train. ``noise`` is the
    standard deviation that the known noise of the qualities on the front gives the hypervolume, as a share of it.
    """

    hypervolume: float
    gain: float
    energy: float
    next_cost: float | None
    next_step: float | None
    noise: float = 0.0

    @property
    def share(self) -> float:
        """Expected gain relative to the present hypervolume; infinite while there is none."""
        return self.gain / self.hypervolume if self.hypervolume > 0 else (np.inf if self.gain > 0 else 0.0)

    def worth(self, threshold: float) -> bool:
        """Whether continuing is expected to add at least this share of the present hypervolume, e.g. 0.005, and more than noise could."""
        return self.share >= max(threshold, self.noise)

    def why_not(self, threshold: float, energy: Callable[[float], str], name: str = "") -> str:
        """Return in words why continuing is not ``worth`` a threshold of this ``name``; the expected gain is usually too high.

        Where noise alone could make as much of a hypervolume as there is, shares of it mean nothing and are left out.
        """
        step = "" if self.next_step is None else f" (the next training alone {energy(self.next_step)})"
        adds = f"{energy(self.energy)} more{step} is expected to add"
        if self.noise >= 1.0:
            return f"{adds} less than the noise of validation hides: no quality is surely better than the reference of the hypervolume"
        limit = (
            f"what the noise of validation makes of it ({self.noise:.2%})" if self.noise > threshold else f"{name} {threshold:.2%}".lstrip()
        )
        return f"{adds} {self.share:.2%} to the hypervolume, less than {limit}"


def remaining_gain(sampler: FreezeThawSampler, study: Study, remaining: float | None = None) -> RemainingGain | None:
    """Estimate what ``remaining`` energy would add to the front; None during the initial design.

    Plans are taken greedily by gain per energy; each one counts as measured at its expected values before the next is valued, so
    overlapping gains are not counted twice. Energy left over after the last plan is valued at the gain per energy of that plan. By default
    ``sampler.remaining`` is to be spent, else the energy of one median complete training.
    """
    with sampler.lock:
        survey = sampler.survey(study)
        if survey is None:
            return None
        budget = remaining if remaining is not None else sampler.remaining if sampler.remaining is not None else survey.state.median_cost
        candidates, state = survey.candidates, survey.state
        rows = survey.planner.ranked_rows(state, candidates)
        order = np.array([row for row, _, _ in islice(rows, _MAX_PLANS) if candidates.best[row] > 0], dtype=np.int64)
        if not len(order):
            return RemainingGain(state.hypervolume, 0.0, budget, None, None, noise_share(state))
        first, target = order[0], int(np.argmax(candidates.rate[order[0]]))
        cost, step_cost = float(candidates.cost[first, target]), float(candidates.step_cost[first, target])
        return RemainingGain(state.hypervolume, _greedy(survey, order, budget), budget, cost, step_cost, noise_share(state))


def noise_share(state: SearchState) -> float:
    """Return the standard deviation of the hypervolume by the known noise of its qualities, as a share of it; 0 without a hypervolume.

    Each member of the front moves the volume by its own part of the cost axis; their noises count as independent. Objectives beyond
    quality and energy are left out.
    """
    table, volume = state.table, state.hypervolume
    rows = np.flatnonzero(table.feasible & (table.values > state.reference).all(1))
    if not len(rows) or not volume > 0 or table.values.shape[1] != 2:
        return 0.0
    order = rows[np.argsort(-table.values[rows, 1], kind="stable")]  # cheapest first
    best = np.maximum.accumulate(table.values[order, 0])
    front = order[table.values[order, 0] >= np.r_[-np.inf, best[:-1]]]
    width = -np.diff(np.r_[table.values[front, 1], state.reference[1]])
    return float(np.sqrt(np.sum((width * table.quality_sd[front]) ** 2)) / volume)


def _greedy(survey: Survey, rows: NDArray[np.int64], budget: float) -> float:
    planner, candidates, state = survey.planner, survey.candidates, survey.state
    models, settings = planner.models, planner.settings
    predictions = models.predict(state.encoder.columns(candidates.genes[rows]))
    rungs = range(len(settings.rungs))
    marginals = [models.marginals(predictions, r) for r in rungs]
    expected = np.stack([models.expected_values(predictions, r) for r in rungs], 1)  # (rows, rungs, objectives)
    cost = np.maximum(candidates.cost[rows], 1e-300)
    least, resumable = MIN_INCREMENT * predictions.energy, planner.first_rung(state.table, candidates.config[rows])[1]
    open_ = np.isfinite(candidates.rate[rows])
    points, boxes = state.points, state.boxes
    spent = gain = last_rate = 0.0
    for _ in range(_MAX_STEPS):
        gains = np.stack([boxes.expected_gain(b) for b in marginals], 1) * predictions.feasibility
        if settings.complete_only:
            gains[:, :-1] = 0.0
        rate = np.where(open_ & (cost <= budget - spent), gains / (cost + COST_FLOOR * state.median_cost), -np.inf)
        row, rung = np.unravel_index(int(np.argmax(rate)), rate.shape)
        if not rate[row, rung] > 0:
            return gain
        gain, spent = gain + float(gains[row, rung]), spent + float(cost[row, rung])
        last_rate = float(gains[row, rung] / cost[row, rung])
        open_[row, : rung + 1] = False
        if resumable[row]:  # the next plan of this configuration goes on from here
            cost[row, rung + 1 :] = np.maximum(cost[row, rung + 1 :] - cost[row, rung], least[row, rung + 1 :])
        points = np.vstack([points, expected[row, rung]])
        boxes = boxes_above(points, state.reference)
    return gain + last_rate * max(0.0, budget - spent)


def passes_cost_gate(sampler: FreezeThawSampler, study: Study, largest_step: float) -> bool:
    """Return whether a small training should run now although larger ones have to wait.

    During the initial design: when its next training is small; so its order is kept. Later: when the best small training gains at least
    half as much per unit of energy as the best of all. A lower rate would spend energy on the second best that the best will need.
    ``largest_step`` is the size of a small training, as a share of the energy of a median complete one.
    """
    with sampler.lock:
        survey = sampler.survey(study)
        if survey is None:
            decision = sampler.decide(study, len(study.get_trials(deepcopy=False)))
            if decision is None:
                return False
            before = 0 if decision.parent is None else int(study.get_trials(deepcopy=False)[decision.parent].params[sampler.epochs_name])
            return decision.epochs == sampler.rungs[0] or (decision.epochs - before) / sampler.rungs[-1] <= largest_step
        candidates = survey.candidates
        small = np.where(candidates.step_cost <= largest_step * survey.state.median_cost, candidates.rate, -np.inf)
        best = float(candidates.rate.max(initial=-np.inf))
        return best > 0 and float(small.max(initial=-np.inf)) >= _MIN_RELATIVE_RATE * best
