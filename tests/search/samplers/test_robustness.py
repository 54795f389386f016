"""What must not harm a search: noise, outliers, tiny spaces, and earlier studies that mislead."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.acquisition import dominated_volume

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 3, 9, 27]


def bowl(trial: optuna.Trial) -> tuple[float, float]:
    """A smooth quality in [0, 0.9] with an optimum inside; energy grows with the width."""
    rate, width, epochs = trial.suggest_float("rate", 0, 1), trial.suggest_float("width", 0, 1), trial.suggest_int("epochs", 1, 27)
    return 0.9 - (rate - 0.7) ** 2 - 0.3 * (1 - width) ** 2 - 0.4 * epochs**-0.7, epochs * (1 + 9 * width)


def searched(objective: Objective, trials: int, *, seed: int = 0, earlier: optuna.Study | None = None) -> optuna.Study:
    prior = [] if earlier is None else [earlier.trials]
    sampler = FreezeThawSampler(RUNGS, seed=seed, prior_trials=prior)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, trials)
    return study


def volume(study: optuna.Study, quality: Callable[[optuna.trial.FrozenTrial], float]) -> float:
    points = np.array([[quality(trial), -math.log10(trial.values[1])] for trial in study.trials])
    return dominated_volume(points, np.array([0.2, -2.5]))


def true_quality(trial: optuna.trial.FrozenTrial) -> float:
    return bowl(optuna.trial.FixedTrial(trial.params))[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> optuna.Study:
    """A search of the bowl that nothing disturbs."""
    return searched(bowl, 32)


def test_a_space_with_nothing_but_epochs_climbs_and_ends() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        epochs = trial.suggest_int("epochs", 1, 27)
        return 0.9 - 0.5 * epochs**-0.7, 3.0 * epochs

    study = searched(objective, 20)
    assert [trial.params["epochs"] for trial in study.trials[:4]] == RUNGS
    assert len(study.trials) == 5, "the last is a copy, which tells that nothing is left"


@pytest.mark.slow
def test_an_exhausted_space_ends_the_study() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, epochs = trial.suggest_int("a", 0, 2), trial.suggest_int("epochs", 1, 27)
        return a / 3 - 0.3 / epochs, epochs * (1.0 + a)

    study = searched(objective, 40)
    assert {(trial.params["a"], trial.params["epochs"]) for trial in study.trials} == {(a, e) for a in range(3) for e in RUNGS}
    assert len(study.trials) == 13
    assert study.sampler.exhausted  # type: ignore[attr-defined]


@pytest.mark.parametrize("violated", [math.inf, math.nan])
def test_a_constraint_that_is_never_a_number_is_no_error(violated: float) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.study._storage.set_trial_system_attr(trial._trial_id, "constraints", [violated])
        return bowl(trial)

    assert len(searched(objective, 10).trials) == 10


@pytest.mark.slow
def test_an_infinite_violation_is_avoided_as_a_large_one_is() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        values = bowl(trial)
        violated = math.inf if trial.params["rate"] > 0.4 else -1.0
        trial.study._storage.set_trial_system_attr(trial._trial_id, "constraints", [violated])
        return values

    late = searched(objective, 36).trials[12:]
    assert sum(trial.params["rate"] > 0.4 for trial in late) < 0.7 * len(late)


def test_it_decides_alone_on_its_configurations() -> None:
    study = searched(bowl, 3)
    study.sampler = optuna.samplers.PartialFixedSampler({"rate": 0.5}, study.sampler)
    with pytest.raises(ValueError, match="whole configurations, got PartialFixedSampler"):
        study.optimize(bowl, 1)


@pytest.mark.slow
def test_an_exhausted_space_ends_neither_a_wider_one_nor_another_study() -> None:
    sampler, directions = FreezeThawSampler([1, 3], startup=2), ["maximize", "minimize"]

    def space(largest: int) -> Objective:
        def objective(trial: optuna.Trial) -> tuple[float, float]:
            n, epochs = trial.suggest_int("n", 1, largest), trial.suggest_int("epochs", 1, 3)
            return 1 - 1 / (n + epochs), n * epochs

        return objective

    study = optuna.create_study(directions=directions, sampler=sampler)
    study.optimize(space(2), 20, n_jobs=2)
    found = len(study.trials)
    assert found < 10, "a copy in the other thread is nothing to wait for"
    study.optimize(space(1000), 8)
    assert len(study.trials) == found + 8
    assert not sampler.exhausted
    other = optuna.create_study(directions=directions, sampler=sampler)
    other.optimize(space(2), 20)
    assert sampler.exhausted
    other = optuna.create_study(directions=directions, sampler=sampler)
    other.optimize(space(1000), 8)
    assert len(other.trials) == 8


@pytest.mark.slow
def test_qualities_of_minus_a_million_do_not_blind_it(plain: optuna.Study) -> None:
    def diverging(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = bowl(trial)
        return (-1e6 if trial.params["rate"] > 0.75 else quality), energy

    study = searched(diverging, 32)
    found = volume(study, lambda trial: trial.values[0])
    assert sum(trial.values[0] < 0 for trial in study.trials) >= 2, "nothing diverged: the test tests nothing"
    assert found > 0.8 * volume(plain, true_quality)


@pytest.mark.slow
def test_noise_of_a_tenth_does_not_keep_it_at_the_lowest_rung(plain: optuna.Study) -> None:
    rng = np.random.default_rng(0)

    def noisy(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = bowl(trial)
        trial.set_user_attr("quality_sd", 0.1)
        return quality + rng.normal(0, 0.1), energy

    study = searched(noisy, 40)
    assert max(trial.params["epochs"] for trial in study.trials) >= 9
    assert sum(trial.params["epochs"] > 1 for trial in study.trials) >= 8
    assert volume(study, true_quality) > 0.6 * volume(plain, true_quality)


@pytest.mark.slow
def test_a_misleading_earlier_study_costs_next_to_nothing_and_a_true_one_helps(plain: optuna.Study) -> None:
    def mirrored(trial: optuna.Trial) -> tuple[float, float]:
        rate, width, epochs = trial.suggest_float("rate", 0, 1), trial.suggest_float("width", 0, 1), trial.suggest_int("epochs", 1, 27)
        return 0.9 - 1.2 * (rate - 0.05) ** 2 - 0.3 * width**2 - 0.4 * epochs**-0.7, epochs * (1 + 9 * width)

    early, late = 16, 32
    misled = searched(bowl, late, earlier=searched(mirrored, 24))
    helped = searched(bowl, early, earlier=plain)
    assert volume(misled, true_quality) > 0.93 * volume(plain, true_quality)
    alone = optuna.create_study(directions=["maximize", "minimize"])
    alone.add_trials(plain.trials[:early])
    assert volume(helped, true_quality) > 0.98 * volume(alone, true_quality)
