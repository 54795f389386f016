"""Beliefs are held to account: known noise, z-scores, and the width that they should have had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from helpers.scores import normal_score

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.gaussian_process import GaussianProcess
from joulefront.search.samplers.history import QUALITY_SD, Belief, History
from joulefront.search.samplers.marginal_gain import remaining_gain

Objective = Callable[[optuna.Trial], tuple[float, float]]


@pytest.mark.slow
def test_a_z_score_counts_standard_deviations_in_the_transformed_quality() -> None:
    plain = Belief(0.5, 0.1, None, 1.0, 1.0)
    assert plain.z_score(0.7) == pytest.approx(2.0)
    assert Belief(-0.5, 0.1, None, 1.0, -1.0).z_score(0.7) == pytest.approx(-2.0)
    warped = Belief(1.0, 0.5, 0.9, 0.2, 1.0, inflation=2.0)
    assert warped.raw_z_score(0.9 - 0.2 * np.exp(-2.0)) == pytest.approx(2.0)
    assert warped.z_score(0.9 - 0.2 * np.exp(-2.0)) == pytest.approx(1.0)
    assert np.isfinite(warped.z_score(0.95)), "a quality above the limit is a surprise, not an error"


def test_from_the_best_quality_on_surprises_count_in_its_unit_for_the_limit_was_a_guess() -> None:
    belief = Belief(np.log(2.0), 0.5, 0.9, 0.2, 1.0, best=0.8)  # half the scale is left: the best is what is expected
    assert belief.z_score(0.8) == pytest.approx(0.0)
    assert belief.z_score(0.7) == pytest.approx(2.0 * np.log(0.5))
    assert belief.z_score(0.9) == pytest.approx(2.0), "the whole distance to the limit is one unit"
    assert belief.z_score(0.95) == pytest.approx(3.0)


def test_normal_scores_of_students_t_are_standard_normal_and_its_outliers_are_none() -> None:
    belief = Belief(0.0, 1.0, None, 1.0, 1.0)
    drawn = np.random.default_rng(0).standard_t(4, size=2000) / np.sqrt(2.0)  # of variance 1
    scores = np.array([normal_score(belief, float(value)) for value in drawn])
    assert scores.std() == pytest.approx(1.0, abs=0.05)
    assert np.mean(np.abs(scores) > 2) == pytest.approx(0.0455, abs=0.015)
    assert -6.0 < normal_score(belief, -30.0) < normal_score(belief, -3.0) < 0.0 < normal_score(belief, 3.0)


def history(surprises: list[tuple[bool, float]]) -> History:
    return History(None, "epochs", surprises=surprises)


def test_beliefs_are_widened_by_what_was_off_each_kind_by_its_own() -> None:
    assert history([]).inflation(fresh=True) == pytest.approx(2**0.5), "models of few measurements are too sure of themselves"
    surprises = [(True, z) for z in (3.0, -3.0) * 20] + [(False, z) for z in (0.5, -0.5) * 20]
    assert 2.5 < history(surprises).inflation(fresh=True) < 3.0
    assert 0.7 <= history(surprises).inflation(fresh=False) < 0.8
    assert history([(True, 1e9)] * 3).inflation(fresh=True) < 4.0, "a few outliers do not end all trust"


def test_the_winners_curse_is_what_picks_were_worse_than_expected() -> None:
    assert history([]).bias(fresh=True) == 0.0
    picks = [(True, z) for z in (-1.5, -0.5) * 20] + [(False, 1.0)]
    assert -1.0 < history(picks).bias(fresh=True) < -0.7
    assert 0.0 < history(picks).bias(fresh=False) < 0.2
    told = Belief(0.5, 0.1, None, 1.0, 1.0, inflation=2.0, bias=-1.0)
    assert told.z_score(0.6) == pytest.approx(1.0)


def test_known_noise_is_not_explained_by_the_configurations() -> None:
    rng = np.random.default_rng(0)
    X, u = rng.random((40, 1)), np.zeros(40)
    y = 2.0 * X[:, 0] - 1.0
    y[0] += 3.0
    known = np.zeros(40)
    known[0] = 9.0
    sure, told = (GaussianProcess(np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)) for _ in range(2))
    sure.tune(X, u, y, steps=50)
    sure.fit(X, u, y)
    told.tune(X, u, y, known, steps=50)
    told.fit(X, u, y, known)
    off = [abs(float(one.predict(X[:1], np.zeros(1)).mean[0, 0]) - (2.0 * X[0, 0] - 1.0)) for one in (sure, told)]
    assert off[1] < 0.5 * off[0]


@pytest.mark.slow
def test_every_decision_of_the_model_says_what_it_expects_and_the_study_keeps_it(objective: Objective) -> None:
    sampler = FreezeThawSampler([1, 3, 9, 27])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    z_scores: list[float] = []
    for _ in range(45):
        trial = study.ask()
        values = objective(trial)
        study.tell(trial, values)
        decision = sampler.last_decision
        if decision is not None and decision.belief is not None and decision.parent is None:
            z_scores.append(decision.belief.z_score(values[0]))
    assert len(z_scores) > 10
    assert 0.3 < float(np.sqrt(np.mean(np.square(z_scores)))) < 2.0
    assert sampler.survey(study) is not None
    assert sum(fresh for fresh, _ in sampler._history.surprises) == len(z_scores)


@pytest.mark.slow
def test_what_noise_could_have_made_is_no_reason_to_go_on(searched: Callable[[int], optuna.Study], objective: Objective) -> None:
    def noisy(trial: Any) -> tuple[float, float]:
        trial.set_user_attr(QUALITY_SD, 0.1)
        return objective(trial)

    shares = []
    unsure = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3, 9, 27]))
    unsure.optimize(noisy, 30)
    for study in (searched(30), unsure):
        assert isinstance(study.sampler, FreezeThawSampler)
        view = remaining_gain(study.sampler, study, 100.0)
        assert view is not None
        shares.append(view.noise)
    assert shares[0] == 0.0
    assert 0.01 < shares[1] < 1.0


@pytest.mark.slow
def test_trainings_that_resume_nothing_are_told_from_fresh_ones_and_decided_on_together_like_others(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joulefront.search.samplers.freeze_thaw._BATCH", 8)
    sampler = FreezeThawSampler([1, 3, 9, 27], resume=False)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    seen: set[str] = set()
    fresh: list[bool] = []
    ahead: list[bool] = []
    for number in range(40):
        awaited = sampler._ahead.get(number)
        trial = study.ask()
        study.tell(trial, objective(trial))
        decision = sampler.last_decision
        if decision is not None:
            if decision.belief is not None:
                fresh.append(decision.key not in seen)
            seen.add(decision.key)
            if awaited is not None:
                ahead.append(decision is awaited[0])
    sampler.survey(study)  # reads the last one
    assert [one for one, _ in sampler._history.surprises] == fresh
    assert not all(fresh), "none was trained longer: this shows nothing"
    assert ahead
    assert all(ahead), "what was decided on together is trained"
