"""Whether a small training is worth doing now, while the large ones had better wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .freeze_thaw import FreezeThawSampler

if TYPE_CHECKING:
    from optuna.study import Study

#: A small training is worth doing when it gains at least this share of what the best training gains per unit of energy.
WORTH = 0.5


def small_is_worth_it(sampler: FreezeThawSampler, study: Study, largest_step: float) -> bool:
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
    options = survey.options
    small = np.where(options.pays <= largest_step * survey.situation.typical, options.rate, -np.inf)
    best = float(options.rate.max(initial=-np.inf))
    return best > 0 and float(small.max(initial=-np.inf)) >= WORTH * best
