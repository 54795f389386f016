"""What a study says reaches its sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest

from joulefront.search import Study
from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.factory import any_resumable, energy_axis, make_sampler
from joulefront.search.samplers.freeze_thaw import Survey
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = (1, 3, 9, 27)


def study_with(schedule: Any = "anytime", **changes: Any) -> Study:
    space = Mlp(recipe=RecipeRanges(schedule=schedule))
    return Study(name="s", task=lambda: None, space=space, rungs=RUNGS, trials=20, **changes)  # type: ignore[arg-type,return-value]


def surveyed(study: Study, objective: Any) -> Survey:
    """Search an analytic problem with the sampler of a study; only the candidates' keys are not those of its space."""
    sampler = make_sampler("freeze-thaw", rungs=study.rungs, seed=study.seed, study=study)
    assert isinstance(sampler, FreezeThawSampler)
    sampler._key = sampler._history.key = None
    found = optuna.create_study(directions=list(study.directions), sampler=sampler)
    found.optimize(objective, 14)
    survey = sampler.survey(found)
    assert survey is not None
    return survey


def test_the_least_accuracy_of_a_study_is_the_floor_of_the_hypervolume(objective: Objective) -> None:
    assert surveyed(study_with(min_accuracy=0.123), objective).state.reference[0] == 0.123
    assert surveyed(study_with(), objective).state.reference[0] != 0.123


def test_a_study_of_complete_trainings_gives_no_credit_for_shorter_ones(objective: Objective) -> None:
    whole, any_ = (surveyed(study_with(complete_only=only), objective) for only in (True, False))
    assert (whole.candidates.gain[:, :-1] <= 0).all()
    assert (any_.candidates.gain[:, :-1] > 0).any()
    assert len(whole.state.points) < len(any_.state.points)


@pytest.mark.parametrize(
    ("schedule", "resumes"), [("anytime", True), ("cosine", False), (("cosine", "one_cycle"), False), (("anytime", "cosine"), True)]
)
def test_a_space_in_which_nothing_can_go_on_is_searched_without_checkpoints(schedule: Any, resumes: bool) -> None:
    study = study_with(schedule)
    assert any_resumable(study.space) is resumes
    sampler = make_sampler("freeze-thaw", rungs=RUNGS, seed=0, study=study)
    assert isinstance(sampler, FreezeThawSampler)
    assert sampler.resume is resumes


@pytest.mark.parametrize(
    ("objectives", "axis"),
    [
        (("accuracy", "train_energy"), 1),
        (("accuracy", "parameters", "train_energy"), 2),
        (("accuracy", "inference_energy", "parameters", "train_co2"), 3),
    ],
)
def test_the_energy_of_training_is_found_wherever_it_stands(objective: Objective, objectives: tuple[str, ...], axis: int) -> None:
    study = study_with(objectives=objectives)
    assert energy_axis(study) == axis

    def more(trial: optuna.Trial) -> tuple[float, ...]:
        quality, energy = objective(trial)
        values = [quality, *[1e6 * trial.params["lr"]] * (len(objectives) - 1)]
        values[axis] = energy
        return tuple(values)

    survey = surveyed(study, more)
    # The median_cost price of a complete training is one of energy: 27 epochs of 10 to 80 each.
    assert 270 < survey.state.median_cost < 2160


def test_knowledge_of_earlier_studies_needs_our_sampler() -> None:
    with pytest.raises(ValueError, match="--warm-start needs --sampler freeze-thaw, got 'tpe'"):
        make_sampler("tpe", rungs=RUNGS, seed=0, study=replace(study_with(), sampler="tpe"), prior_trials=[[]])
