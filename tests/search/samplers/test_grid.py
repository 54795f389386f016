"""The grid against the product of all choices, written out."""

from __future__ import annotations

import itertools

import optuna
import pytest

from joulefront.search import Study, run
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.samplers.factory import GridSampler, make_sampler
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges


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
            study.tell(trial, state=optuna.trial.TrialState.FAIL)  # a training that failed is not tried for ever
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


def test_a_range_without_steps_is_refused_with_the_remedy(rings) -> None:  # type: ignore[no-untyped-def]
    study = rings(sampler="grid")
    sampler = make_sampler("grid", rungs=study.rungs, seed=0, study=study)
    trial = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler).ask()
    with pytest.raises(ValueError, match="grid needs choices or steps, got a continuous range for learning_rate; use --sampler random"):
        trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)


@pytest.fixture
def small(rings) -> Study:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    recipe = RecipeRanges(learning_rate=0.01, weight_decay=0.0, batch_size=64)
    space = Mlp(depths=1, widths=(4, 8, 16), norms="none", activations="relu", dropouts=0.0, recipe=recipe)
    return replace(rings(sampler="grid", trials=50), space=space, rungs=(1, 3))


def test_a_study_trains_each_setting_to_each_rung_and_ends(small: Study, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run(small, out=tmp_path / "r")
    result = RunFolder.open(tmp_path / "r").run()
    assert sorted((trial.params["width"], trial.epochs) for trial in result.trials) == sorted(itertools.product((4, 8, 16), (1, 3)))
    assert result.facts["sessions"][-1]["reason"] == "every combination has been tried"
    run(small, out=tmp_path / "r", trials=60)
    again = RunFolder.open(tmp_path / "r").run()
    assert len(again.trials) == 7, "a session that goes on finds out with one trial, which costs nothing"
    assert again.trials[-1].increment_joules == 0.0
