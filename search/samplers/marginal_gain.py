"""The marginal joule: what the rest of the budget is expected to bring, and what the next training costs.

Whether a small training is worth doing now, while the large ones had better wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .ehvi import boxes_above
from .freeze_thaw import FreezeThawSampler, Survey

if TYPE_CHECKING:
    from optuna.study import Study

_MAX_STEPS = 60
_PLANS = 64


@dataclass(frozen=True)
class RemainingGain:
    """What going on would cost and bring.

    Hypervolume is counted above the sampler's reference point, with energy by its logarithm.

    Attributes:
        hypervolume: What the study has reached.
        gain: Hypervolume that the energy in ``energy`` is expected to add.
        energy: Energy that the expectation is about, in the unit of the second objective.
        next_gain: Expected gain of the most promising plan.
        next_cost: Energy that this plan will pay, or None when there is nothing left to train.
        next_step: Energy of its first training.
    """

    hypervolume: float
    gain: float
    energy: float
    next_gain: float
    next_cost: float | None
    next_step: float | None

    @property
    def share(self) -> float:
        """Expected gain relative to the present hypervolume; infinite while there is none."""
        return self.gain / self.hypervolume if self.hypervolume > 0 else (np.inf if self.gain > 0 else 0.0)

    def worth(self, threshold: float) -> bool:
        """Whether going on is expected to add at least this share of the present hypervolume, e.g. 0.005."""
        return self.share >= threshold


def remaining_gain(sampler: FreezeThawSampler, study: Study, remaining: float | None = None) -> RemainingGain | None:
    """Estimate what ``remaining`` energy would add to the front.

    Plans are taken greedily by gain per energy; each taken plan counts as measured at its expected values before the next is valued, so
    overlapping plans are not counted twice. Energy beyond the plans that were valued brings what the last of them brought per energy.

    Args:
        sampler: The study's sampler.
        study: The study.
        remaining: Energy left, in the unit of the second objective; by default ``sampler.remaining``, else that of one median complete
            training.

    Returns:
        The remaining_gain, or None while the initial design is not finished.
    """
    survey = sampler.survey(study)
    if survey is None:
        return None
    budget = remaining if remaining is not None else sampler.remaining if sampler.remaining is not None else survey.state.median_cost
    candidates, state = survey.candidates, survey.state
    volume = state.hypervolume
    rows = survey.planner.ranked_rows(state, candidates, survey.history, survey.encoder)
    order = np.array([row for row, _, _ in islice(rows, _PLANS) if candidates.best[row] > 0], dtype=np.int64)
    if not len(order):
        return RemainingGain(volume, 0.0, budget, 0.0, None, None)
    first, target = order[0], int(np.argmax(candidates.rate[order[0]]))
    gain = _greedy(survey, order, budget)
    return RemainingGain(
        volume,
        gain,
        budget,
        float(candidates.gain[first, target]),
        float(candidates.cost[first, target]),
        float(candidates.step_cost[first, target]),
    )


def _greedy(survey: Survey, rows: NDArray[np.int64], budget: float) -> float:
    """Expected gain of a budget spent greedily on some of the candidates."""
    planner, candidates, state = survey.planner, survey.candidates, survey.state
    models, settings = planner.models, planner.settings
    predictions = models.predict(survey.encoder.columns(candidates.genes[rows]))
    rungs = range(len(settings.rungs))
    marginals = [models.marginals(predictions, r) for r in rungs]
    expected = np.stack([models.expected_values(predictions, r) for r in rungs], 1)  # (rows, rungs, objectives)
    cost = np.maximum(candidates.cost[rows], 1e-300)
    open_ = np.isfinite(candidates.rate[rows])
    points, boxes = state.points, state.boxes
    spent = gain = last_rate = 0.0
    for _ in range(_MAX_STEPS):
        gains = np.stack([boxes.expected_gain(b) for b in marginals], 1) * predictions.feasibility[:, None]
        if settings.complete_only:
            gains[:, :-1] = 0.0
        rate = np.where(open_ & (cost <= budget - spent), gains / (cost + settings.cost_floor * state.median_cost), -np.inf)
        row, rung = np.unravel_index(int(np.argmax(rate)), rate.shape)
        if not rate[row, rung] > 0:
            return gain
        gain, spent = gain + float(gains[row, rung]), spent + float(cost[row, rung])
        last_rate = float(gains[row, rung] / cost[row, rung])
        open_[row, : rung + 1] = False
        points = np.vstack([points, expected[row, rung]])
        boxes = boxes_above(points, state.reference)
    return gain + last_rate * max(0.0, budget - spent)


#: A small training is worth doing when it gains at least this share of what the best training gains per unit of energy.
WORTH = 0.5


def passes_cost_gate(sampler: FreezeThawSampler, study: Study, largest_step: float) -> bool:
    """Say whether a training within ``largest_step`` should be done, though larger ones must wait.

    In the initial design: when the next training of it is small; so its order is kept. Later: when the best small training gains at least
    half as much per unit of energy as the best of all. What gains less would spend on the second best what the best will need.

    Args:
        sampler: The study's sampler.
        study: The study.
        largest_step: Size of a small training, as a share of the energy of a median complete one.
    """
    survey = sampler.survey(study)
    if survey is None:
        decision = sampler.decide(study, len(study.get_trials(deepcopy=False)))
        if decision is None:
            return False
        last, lowest = sampler.rungs[-1], sampler.rungs[0]
        before = 0 if decision.parent is None else int(study.get_trials(deepcopy=False)[decision.parent].params[sampler.epochs_name])
        return decision.epochs == lowest or (decision.epochs - before) / last <= largest_step
    candidates = survey.candidates
    small = np.where(candidates.step_cost <= largest_step * survey.state.median_cost, candidates.rate, -np.inf)
    best = float(candidates.rate.max(initial=-np.inf))
    return best > 0 and float(small.max(initial=-np.inf)) >= WORTH * best
