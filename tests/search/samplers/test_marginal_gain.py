"""The expected gain of the rest of a budget: monotone in the budget, falling as the front fills, in line with what is proposed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler, RemainingGain, remaining_gain, resume_from
from joulefront.search.samplers.marginal_gain import passes_cost_gate

Searched = Callable[[int], optuna.Study]
Objective = Callable[[optuna.Trial], tuple[float, float]]


def gain(study: optuna.Study, budget: float | None = None) -> RemainingGain | None:
    assert isinstance(study.sampler, FreezeThawSampler)
    return remaining_gain(study.sampler, study, budget)


@pytest.mark.slow
def test_there_is_no_remaining_gain_during_the_initial_design(searched: Searched) -> None:
    assert gain(searched(5)) is None


@pytest.mark.slow
def test_more_energy_is_expected_to_add_more_but_less_per_joule(searched: Searched) -> None:
    found = [gain(searched(20), budget) for budget in (500.0, 5000.0, 50_000.0)]
    gains = [gain.gain for gain in found if gain is not None]
    assert 0 < gains[0] < gains[1] < gains[2]
    assert gains[0] / 500 > gains[1] / 5000


@pytest.mark.slow
def test_the_remaining_gain_falls_as_the_front_fills(searched: Searched) -> None:
    early, late = (gain(searched(trials), 2000.0) for trials in (16, 90))
    assert early is not None
    assert late is not None
    assert late.share < 0.5 * early.share
    assert early.worth(0.5 * early.share)
    assert not late.worth(early.share)


@pytest.mark.slow
def test_the_next_step_is_the_cost_of_what_is_proposed(searched: Searched, objective: Objective) -> None:
    study = searched(25)
    sampler = study.sampler
    assert isinstance(sampler, FreezeThawSampler)
    expected = gain(study, 5000.0)
    trial = study.ask()
    _, energy = objective(trial)
    parent = resume_from(trial)
    paid = energy - (study.trials[parent].values[1] if parent is not None else 0.0)
    assert sampler.last_decision is not None
    assert sampler.last_decision.step_cost == pytest.approx(paid, rel=0.35)
    assert expected is not None
    assert expected.next_step is not None
    assert expected.next_cost is not None
    assert expected.next_step <= expected.next_cost * (1 + 1e-9)


def test_an_exhausted_space_has_no_remaining_gain() -> None:
    sampler = FreezeThawSampler([1, 3], search_space={"a": optuna.distributions.IntDistribution(0, 2)})
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, epochs = trial.suggest_int("a", 0, 2), trial.suggest_int("epochs", 1, 3)
        return a / 3 - 0.3 / epochs, epochs * (1.0 + a)

    study.optimize(objective, 8)
    expected = remaining_gain(sampler, study, 100.0)
    assert expected is not None
    assert expected.gain == 0
    assert expected.next_cost is None
    assert expected.share == 0


@pytest.mark.slow
def test_the_energy_that_trains_everything_to_the_end_is_enough_since_a_resumed_plan_pays_only_the_rest() -> None:
    sampler = FreezeThawSampler([1, 3, 9, 27], startup=4, search_space={"a": optuna.distributions.IntDistribution(0, 7)})
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, epochs = trial.suggest_int("a", 0, 7), trial.suggest_int("epochs", 1, 27)
        return 0.9 - 0.05 * abs(a - 4) - 0.5 * epochs**-0.7, 10.0 * epochs * (1.0 + a)

    study.optimize(objective, 7)
    survey = sampler.survey(study)
    assert survey is not None
    candidates = survey.candidates
    rows = [row for row, _, _ in survey.planner.ranked_rows(survey.state, candidates)]
    whole = float(candidates.cost[rows, -1].sum())
    some, enough, more = (gain(study, share * whole) for share in (0.2, 1.05, 10.0))
    assert some is not None
    assert enough is not None
    assert more is not None
    assert some.gain < enough.gain == pytest.approx(more.gain, rel=1e-9)


@pytest.mark.parametrize("trials", [4, 12])
def test_what_is_asked_of_the_models_waits_for_other_threads_and_makes_them_wait(trials: int, objective: Objective) -> None:
    taken: list[bool] = []

    def try_to_take() -> None:
        taken.append(sampler.lock.acquire(blocking=False))
        if taken[-1]:
            sampler.lock.release()

    def key(params: Mapping[str, Any]) -> Mapping[str, Any]:  # is asked for by whatever reads the models or the history
        other = threading.Thread(target=try_to_take)
        other.start()
        other.join()
        return params

    sampler = FreezeThawSampler([1, 3, 9, 27], key=key)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, trials)
    remaining_gain(sampler, study, 100.0)
    passes_cost_gate(sampler, study, 0.1)
    assert taken
    assert not any(taken)


def test_the_reason_names_what_the_gain_is_less_than() -> None:
    def said(gain: float, noise: float, name: str = "--stop-gain") -> str:
        return RemainingGain(1.0, gain, 9.0, None, 3.0, noise).why_not(0.005, "{:g} J".format, name)

    start = "9 J more (the next training alone 3 J) is expected to add"
    assert said(0.001, 0.0) == f"{start} 0.10% to the hypervolume, less than --stop-gain 0.50%"
    assert said(0.001, 0.0, "") == f"{start} 0.10% to the hypervolume, less than 0.50%"
    assert said(0.03, 0.05) == f"{start} 3.00% to the hypervolume, less than what the noise of validation makes of it (5.00%)"


def test_shares_of_a_hypervolume_that_noise_could_make_are_not_named() -> None:
    said = RemainingGain(1e-9, 4e-10, 9.0, None, None, 41_606.7).why_not(0.005, "{:g} J".format)
    assert said.startswith(
        "9 J more is expected to add less than the noise of validation hides: no quality is surely better than the reference"
    )
    assert "%" not in said
