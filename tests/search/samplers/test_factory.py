"""The settings of a study reach its sampler, and the grid is the product of all choices."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from joulefront.search import Study, run
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.factory import GridSampler, any_resumable, energy_axis, make_sampler
from joulefront.search.samplers.freeze_thaw import Survey
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = (1, 3, 9, 27)


def study_with(schedule: Any = "anytime", **changes: Any) -> Study:
    space = Mlp(recipe=RecipeRanges(schedule=schedule))
    return Study(name="s", task=lambda: None, space=space, rungs=RUNGS, trials=20, **changes)  # type: ignore[arg-type,return-value]


def surveyed(study: Study, objective: Any) -> Survey:
    """Search an analytic problem, whose parameters are not those of the space, with the sampler of a study."""
    sampler = make_sampler("freeze-thaw", rungs=study.rungs, seed=study.seed, study=study)
    assert isinstance(sampler, FreezeThawSampler)
    found = optuna.create_study(directions=list(study.directions), sampler=sampler)
    found.optimize(objective, 14)
    survey = sampler.survey(found)
    assert survey is not None
    return survey


@pytest.mark.slow
def test_the_minimum_accuracy_of_a_study_is_the_floor_of_the_hypervolume(objective: Objective) -> None:
    assert surveyed(study_with(min_accuracy=0.123), objective).state.reference[0] == 0.123
    assert surveyed(study_with(), objective).state.reference[0] != 0.123


@pytest.mark.slow
def test_a_study_of_complete_trainings_gives_no_credit_for_shorter_ones(objective: Objective) -> None:
    whole, any_ = (surveyed(study_with(complete_only=only), objective) for only in (True, False))
    assert (whole.candidates.gain[:, :-1] <= 0).all()
    assert (any_.candidates.gain[:, :-1] > 0).any()
    assert len(whole.state.points) < len(any_.state.points)


@pytest.mark.parametrize(
    ("schedule", "resumes"), [("anytime", True), ("cosine", False), (("cosine", "one_cycle"), False), (("anytime", "cosine"), True)]
)
def test_a_space_in_which_nothing_can_be_resumed_is_searched_without_checkpoints(schedule: Any, resumes: bool) -> None:
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


def test_earlier_studies_need_the_freeze_thaw_sampler() -> None:
    with pytest.raises(ValueError, match="--warm-start needs --sampler freeze-thaw, got 'tpe'"):
        make_sampler("tpe", rungs=RUNGS, seed=0, study=replace(study_with(), sampler="tpe"), prior_trials=[[]])


def draw(trial: optuna.Trial) -> tuple[object, ...]:
    """A space with a branch: three leaves under ``a``, two times two under ``b``."""
    kind = trial.suggest_categorical("kind", ["a", "b"])
    if kind == "a":
        return kind, trial.suggest_int("width", 1, 3)
    return kind, trial.suggest_categorical("on", [False, True]), trial.suggest_float("keep", 0.25, 0.5, step=0.25)


ALL = {*itertools.product("a", (1, 2, 3)), *itertools.product("b", (False, True), (0.25, 0.5))}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("seed", range(4))
def test_every_combination_comes_once_and_then_it_is_exhausted(seed: int) -> None:
    sampler = GridSampler(seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    seen = []
    while not sampler.exhausted:
        trial = study.ask()
        seen.append(draw(trial))
        if len(seen) == 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)  # a training that failed is not repeated
        else:
            study.tell(trial, [1.0, 1.0])
    assert len(seen) == len(ALL)
    assert set(seen) == ALL


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_seed_gives_the_order() -> None:
    def order(seed: int) -> list[tuple[object, ...]]:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=GridSampler(seed))
        found = []
        for _ in ALL:
            trial = study.ask()
            found.append(draw(trial))
            study.tell(trial, [1.0, 1.0])
        return found

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_a_continuous_range_is_rejected_with_a_remedy(rings) -> None:  # type: ignore[no-untyped-def]
    study = rings(sampler="grid")
    sampler = make_sampler("grid", rungs=study.rungs, seed=0, study=study)
    trial = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler).ask()
    with pytest.raises(ValueError, match="grid needs choices or steps, got a continuous range for learning_rate; use --sampler random"):
        trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)
    with pytest.raises(ValueError, match="grid needs choices or steps, got a continuous range for"):  # before anything is metered
        study.load_task()


@pytest.fixture
def small(rings) -> Study:  # type: ignore[no-untyped-def]
    recipe = RecipeRanges(learning_rate=0.01, weight_decay=0.0, batch_size=64)
    space = Mlp(depths=1, widths=(4, 8, 16), norms="none", activations="relu", dropouts=0.0, recipe=recipe)
    return replace(rings(sampler="grid", trials=50), space=space, rungs=(1, 3))


@pytest.mark.slow
def test_a_study_trains_each_setting_to_each_rung_and_ends(small: Study, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run(small, out=tmp_path / "r")
    result = RunFolder.open(tmp_path / "r").run()
    assert sorted((trial.params["width"], trial.epochs) for trial in result.trials) == sorted(itertools.product((4, 8, 16), (1, 3)))
    assert result.facts["sessions"][-1]["reason"] == "every combination has been tried"
    run(small, out=tmp_path / "r", trials=60)
    again = RunFolder.open(tmp_path / "r").run()
    assert len(again.trials) == 7, "a continued session finds out with one trial, which costs nothing"
    assert again.trials[-1].increment_joules == 0.0


@pytest.mark.slow
def test_the_sampler_divides_gains_by_what_is_still_to_pay(objective: Objective) -> None:
    def survey(**options: Any) -> Survey:
        sampler = FreezeThawSampler(RUNGS, **options)
        found = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(14):  # the same trials for both: nothing is proposed by what is compared
            found.add_trial(drawn(objective, len(found.trials)))
        result = sampler.survey(found)
        assert result is not None
        return result

    def half(trials: Any) -> Any:
        return lambda params: 1e9 if params["kind"] == "conv" else 0.0

    plain, shared = survey(), survey(paid=half)
    length = min(len(plain.candidates.genes), len(shared.candidates.genes))
    genes = plain.candidates.genes[:length]
    # What is varied follows the rates, which differ; the rows before are the same for both.
    same = np.isclose(genes, shared.candidates.genes[:length], equal_nan=True).all(axis=1) & (plain.candidates.config[:length] < 0)
    conv = np.array([plain.state.encoder.encoding.params(row)["kind"] == "conv" for row in genes])
    assert same.sum() > 100
    assert 10 < (same & conv).sum() < same.sum() - 10
    ratio = shared.candidates.cost[:length] / plain.candidates.cost[:length]
    assert ratio[same & conv] == pytest.approx(0.01)
    assert ratio[same & ~conv] == pytest.approx(1.0)


def drawn(objective: Objective, number: int) -> optuna.trial.FrozenTrial:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=number))
    study.optimize(objective, 1)
    return study.trials[0]
