"""The arms that need no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.proposals import (
    ARMS,
    MODEL_SHARE,
    Earnings,
    earnings,
    halving_decision,
    mutation_decision,
    nondominated_rank,
)

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 3, 9, 27]


def test_the_rank_counts_fronts() -> None:
    points = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 0.5], [1.0, 1.0], [0.0, 0.0], [3.0, 1.0]])
    assert list(nondominated_rank(points)) == [0, 0, 1, 1, 2, 0]


def test_each_arm_has_its_floor_the_model_the_most_and_the_rest_goes_by_what_was_earned() -> None:
    shares = Earnings(np.ones(3), np.array([1.0, 3.0, 0.0])).shares(0.1)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] == pytest.approx(MODEL_SHARE + 0.2 * 0.1)
    assert shares[1] == pytest.approx(0.1 + 0.2 * 0.9)
    assert shares[2] == pytest.approx(0.1)
    assert Earnings(np.array([9.0, 1.0, 0.0]), np.array([1.0, 0.0, np.nan])).due(0.1) == "mutation"
    assert Earnings(np.array([5.0, 3.0, 2.0]), np.array([1.0, 0.0, 0.0])).due(0.1) == "model"


@pytest.mark.slow
def test_every_arm_gets_about_its_share_of_the_energy(studied: tuple[FreezeThawSampler, optuna.Study]) -> None:
    sampler, study = studied
    arms = Counter(trial.system_attrs["joulefront:claim"]["arm"] for trial in study.trials[8:] if "joulefront:claim" in trial.system_attrs)
    assert set(arms) - {None} == set(ARMS)
    survey = sampler.survey(study)
    assert survey is not None
    found = earnings(survey.state)
    assert found.spent[0] > 0.3 * found.spent.sum()
    assert (found.spent > 0).all()


def test_halving_promotes_one_in_three_the_best_first_and_else_begins_something_new(
    studied: tuple[FreezeThawSampler, optuna.Study],
) -> None:
    sampler, study = studied
    survey = sampler.survey(study)
    assert survey is not None
    settings, rng = survey.planner.settings, np.random.default_rng(0)
    decision = halving_decision(settings, survey.state, rng, set())
    assert decision is not None
    if decision.parent is None:
        assert decision.epochs == RUNGS[0]
        assert decision.key not in survey.state.history.observations
    else:
        assert decision.epochs == RUNGS[RUNGS.index(max(survey.state.history.observations[decision.key])) + 1]
    everything = set(survey.state.history.observations)
    fresh = halving_decision(settings, survey.state, rng, everything)
    assert fresh is not None
    assert (fresh.parent, fresh.epochs) == (None, RUNGS[0])


def test_a_mutation_is_a_new_neighbour_of_the_front(studied: tuple[FreezeThawSampler, optuna.Study]) -> None:
    sampler, study = studied
    survey = sampler.survey(study)
    assert survey is not None
    decision = mutation_decision(survey.planner.settings, survey.state, np.random.default_rng(0), set())
    assert decision is not None
    assert decision.key not in survey.state.history.observations
    assert decision.arm == "mutation"


@pytest.mark.slow
def test_without_a_hedge_every_decision_after_the_start_is_the_models(objective: Objective) -> None:
    sampler = FreezeThawSampler(RUNGS, hedge=0.0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 14)
    claims = [trial.system_attrs.get("joulefront:claim", {}) for trial in study.trials]
    assert {claim.get("arm") for claim in claims} == {None, "model"}
