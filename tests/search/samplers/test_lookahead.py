from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler, lookahead

Objective = Callable[[optuna.Trial], tuple[float, float]]


@pytest.mark.parametrize(("resume", "last_only"), [(True, True), (True, False), (False, True)])
def test_the_policy_found_is_the_best_of_all_policies(objective: Objective, resume: bool, last_only: bool) -> None:
    sampler = FreezeThawSampler([1, 9], resume=resume, complete_only=last_only)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 20)
    survey = sampler.survey(study)
    assert survey is not None
    models, boxes = survey.planner.models, survey.situation.boxes
    genes = survey.encoder.encoding.random(np.random.default_rng(1), 6)
    view = models.view(survey.encoder.columns(genes))
    cost, rows, least = view.energy, np.arange(6), 3.0
    gain = np.stack([boxes.expected_gain(models.beliefs(view, r)) * view.chance for r in range(2)], 1)
    gain[:, 0] *= not last_only
    rate = gain / (cost + least)
    found = lookahead.rates_with_option(
        models, boxes, view, rate, cost, rows=rows, first=0, least=least, resume=resume, last_only=last_only
    )
    stopped = lookahead._known(models, view, boxes, rows, 0, 0) * (not last_only)
    gone = lookahead._known(models, view, boxes, rows, 0, 1)
    further = cost[:, 1] - cost[:, 0] if resume else cost[:, 1] + least
    for row in rows:
        best = rate[row].max()
        for policy in itertools.product([False, True], repeat=len(lookahead._NODES)):
            go = np.array(policy)
            gained = lookahead._WEIGHTS @ np.where(go, gone[:, row], stopped[:, row])
            best = max(best, gained / (cost[row, 0] + least + lookahead._WEIGHTS @ go * further[row]))
        assert found[row] == pytest.approx(best, rel=1e-3)


def test_what_is_seen_on_the_way_is_what_is_expected_on_average(objective: Objective) -> None:
    sampler = FreezeThawSampler([1, 9])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 20)
    survey = sampler.survey(study)
    assert survey is not None
    models, boxes = survey.planner.models, survey.situation.boxes
    view = models.view(survey.encoder.columns(survey.encoder.encoding.random(np.random.default_rng(1), 20)))
    after = lookahead._WEIGHTS @ lookahead._known(models, view, boxes, np.arange(20), 0, 1)
    now = boxes.expected_gain(models.beliefs(view, 1)) * view.chance
    assert after == pytest.approx(now, rel=0.15, abs=1e-3 * now.max())
