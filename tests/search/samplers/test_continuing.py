"""What may be continued: resumable trainings that fit the remaining energy; others not, or from scratch at their full cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler, resume_from
from joulefront.search.samplers.history import EPOCHS_REACHED

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 3, 9, 27]


def key_of(trial: Any) -> str:
    return json.dumps({name: value for name, value in trial.params.items() if name != "epochs"}, sort_keys=True)


def searched(objective: Any, trials: int, directions: tuple[str, ...] = ("maximize", "minimize"), **options: Any) -> optuna.Study:
    study = optuna.create_study(directions=list(directions), sampler=FreezeThawSampler(RUNGS, **options))
    study.optimize(objective, trials)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_ended_by_itself_is_not_proposed_again(objective: Objective, resume: bool) -> None:
    """Patience ends many trainings after two epochs."""

    def patient(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        epochs = trial.params["epochs"]
        if epochs > 1 and trial.params["lr"] > 0.005:
            trial.set_user_attr("finished", True)
            trial.set_user_attr("epochs_reached", 2)
            energy *= 2 / epochs
        return quality, energy

    study = searched(patient, 60, resume=resume)
    ended = {key_of(trial): trial.number for trial in reversed(study.trials) if trial.user_attrs.get("finished")}
    assert ended
    assert not [trial.number for trial in study.trials if trial.number > ended.get(key_of(trial), 99)]
    assert max(trial.params["epochs"] for trial in study.trials) > 1


@pytest.mark.slow
def test_a_training_that_patience_ends_at_the_lowest_rung_is_no_ladder(objective: Objective) -> None:
    def patient(trial: optuna.Trial) -> tuple[float, float]:
        trial.set_user_attr("finished", True)
        return objective(trial)

    study = searched(patient, 20)
    assert {trial.params["epochs"] for trial in study.trials} == {1}
    assert len({key_of(trial) for trial in study.trials}) == 20


@pytest.mark.slow
def test_of_several_ladders_none_begins_with_what_has_ended_by_itself(objective: Objective) -> None:
    def patient(trial: optuna.Trial) -> tuple[float, float]:
        if trial.suggest_float("lr", 1e-4, 1.0, log=True) > 0.005:
            trial.set_user_attr("finished", True)
        return objective(trial)

    study = searched(patient, 30, ladders=6)
    longer = [trial for trial in study.trials if trial.params["epochs"] > 1]
    assert longer
    assert all(trial.params["lr"] <= 0.005 for trial in longer)


def test_what_the_study_began_with_at_a_higher_rung_is_no_ladder(objective: Objective) -> None:
    def dear(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        return (quality + 0.1, 100 * energy) if trial.number == 0 else (quality, energy)

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, ladders=1))
    study.enqueue_trial({"kind": "conv", "lr": 0.01, "width": 8, "epochs": 3})
    study.optimize(dear, 14)
    complete = [trial for trial in study.trials if trial.params["epochs"] == RUNGS[-1]]
    assert complete
    assert key_of(study.trials[0]) not in map(key_of, complete)


def test_what_was_ended_before_the_first_rung_and_went_on_to_it_is_no_ladder(objective: Objective) -> None:
    def dear(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        if trial.number < 2:
            return quality - 0.3, 100 * energy
        return quality, energy

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler((3, 9, 27), ladders=1))
    params = {"kind": "conv", "lr": 0.01, "width": 8}
    for number, epochs in enumerate((1, 3)):  # ended at the first epoch by a limit on what it may cost, and then gone on with
        study.enqueue_trial({**params, "epochs": 3})
        trial = study.ask()
        quality, energy = dear(trial)
        trial.set_user_attr(EPOCHS_REACHED, epochs)
        study.tell(trial, (quality, energy * epochs / 3))
        assert trial.number == number
    study.optimize(dear, 12)
    longest = max(trial.params["epochs"] for trial in study.trials if key_of(trial) == key_of(study.trials[0]))
    assert longest == 3
    assert any(trial.params["epochs"] == 27 for trial in study.trials)


def test_what_was_ended_early_for_its_cost_is_no_ladder_where_all_others_began_at_a_higher_rung(objective: Objective) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, ladders=1))
    for number in range(9):
        study.enqueue_trial({"kind": "conv", "lr": 0.01 + 0.001 * number, "width": 8, "epochs": 3})
    for number in range(13):
        trial = study.ask()
        quality, energy = objective(trial)
        if number == 8:  # the first of a family may take a share of the budget alone
            trial.set_user_attr(EPOCHS_REACHED, 1)
            quality, energy = quality - 0.2, 100 * energy
        study.tell(trial, (quality, energy))
    dear = key_of(study.trials[8])
    assert [trial.number for trial in study.trials if key_of(trial) == dear] == [8]


def scratch_objective(objective: Objective, short: int = 0) -> Callable[[optuna.Trial], tuple[float, float]]:
    """Many configurations can only be trained from scratch; ``short`` ends those trainings so many epochs early."""

    def mixed(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        if trial.params["lr"] > 0.005:
            trial.set_user_attr("from_scratch", True)
            if short and trial.params["epochs"] > short:
                trial.set_user_attr("epochs_reached", trial.params["epochs"] - short)
                return quality, energy * (1 - short / trial.params["epochs"])
        return quality, energy

    return mixed


@pytest.mark.slow
def test_in_a_mixed_space_only_checkpoints_are_continued_and_the_others_pay_their_full_cost(objective: Objective) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    predicted: list[tuple[float, float]] = []
    for _ in range(50):
        trial = study.ask()
        values = scratch_objective(objective)(trial)
        study.tell(trial, values)
        decision = study.sampler.last_decision  # type: ignore[attr-defined]
        longer = trial.params["epochs"] > 1
        if trial.params["lr"] > 0.005:
            assert resume_from(trial) is None
            if longer and decision is not None and decision.step_cost is not None:
                predicted.append((decision.step_cost, values[1]))
        else:
            assert (resume_from(trial) is not None) == longer
    assert len(predicted) >= 5
    for step_cost, energy in predicted:
        assert step_cost == pytest.approx(energy, rel=0.15)  # of an increment of 3 to 9 epochs a third would be missing


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_a_training_from_scratch_that_ended_early_is_not_proposed_with_the_same_epochs_again(objective: Objective, resume: bool) -> None:
    study = searched(scratch_objective(objective, short=1), 60, resume=resume)
    scratch = [(key_of(trial), trial.params["epochs"]) for trial in study.trials if trial.params["lr"] > 0.005]
    assert len(set(scratch)) == len(scratch)
    assert any(epochs > 1 for _, epochs in scratch)


@pytest.mark.slow
@pytest.mark.parametrize("remaining", [300.0, 120.0, 60.0])
def test_the_look_ahead_does_not_bring_back_trainings_from_scratch_that_exceed_the_remaining_energy(
    objective: Objective, remaining: float
) -> None:
    for seed in range(4):
        sampler = FreezeThawSampler(RUNGS, resume=False, seed=seed)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        study.optimize(objective, 16)
        sampler.remaining = remaining
        survey = sampler.survey(study)
        assert survey is not None
        assert (survey.candidates.cost > remaining).any()
        assert np.all(survey.candidates.rate[survey.candidates.cost > remaining] == -np.inf)
        decision = sampler.decide(study, 100)
        assert decision is not None
        assert decision.step_cost is None or decision.step_cost <= remaining


@pytest.mark.slow
def test_a_plan_is_not_valued_by_rungs_that_the_remaining_energy_does_not_reach(objective: Objective) -> None:
    """Of rungs 1 and 27 only the first fits: then the look ahead has nothing to add to the first rung alone."""
    sampler = FreezeThawSampler([1, 27])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 16)
    sampler.remaining = 100.0
    survey = sampler.survey(study)
    assert survey is not None
    candidates, cost_floor = survey.candidates, 0.05 * survey.state.median_cost
    assert (candidates.cost[:, 1] > 100.0).all()
    open_ = np.isfinite(candidates.rate[:, 0])
    assert candidates.rate[open_, 0] == pytest.approx(candidates.gain[open_, 0] / (candidates.cost[open_, 0] + cost_floor))


@pytest.mark.slow
def test_the_order_of_the_objectives_after_the_first_changes_nothing(objective: Objective) -> None:
    def three(trial: optuna.Trial) -> tuple[float, float, float]:
        quality, energy = objective(trial)
        return quality, energy, 1.0 + trial.params["lr"] * 10

    def turned(trial: optuna.Trial) -> tuple[float, float, float]:
        quality, energy, size = three(trial)
        return quality, size, energy

    directions = ("maximize", "minimize", "minimize")
    one, two = searched(three, 22, directions), searched(turned, 22, directions, energy=2)
    assert [trial.params for trial in one.trials] == [trial.params for trial in two.trials]


def test_an_energy_that_is_not_another_objective_is_rejected(objective: Objective) -> None:
    with pytest.raises(ValueError, match="got 2 objectives and energy=2"):
        searched(objective, 1, energy=2)


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_rungs_that_were_skipped_are_open_where_each_length_is_a_training_of_its_own(objective: Objective, resume: bool) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, resume=resume))
    for lr, epochs in ((0.01, 9), (0.02, 27), (0.02, 3)):
        study.enqueue_trial({"kind": "conv", "lr": lr, "width": 5, "epochs": epochs})
    study.optimize(objective, 14)
    survey = study.sampler.survey(study)  # type: ignore[attr-defined]
    keys = [key_of(study.trials[0]), key_of(study.trials[1])]
    open_ = {}
    for config, rates in zip(survey.candidates.config, survey.candidates.rate, strict=True):
        open_[survey.state.table.keys[config] if config >= 0 else None] = np.isfinite(rates).tolist()
    found = [open_.get(key) for key in keys]
    assert found == ([[False, False, False, True], None] if resume else [[True, True, False, True], [True, False, True, False]])
