"""The default model that every study trains early where its space has one, and what guessing gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from joulefront.search import Study, run
from joulefront.search.front import Front
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.baselines import beginning, default_candidate
from joulefront.search.samplers.history import FINISHED
from joulefront.search.space import FixedTrial, Space
from joulefront.search.study import Budget
from joulefront.search.training.arrays import arrays
from joulefront.search.training.evaluate import guessing
from joulefront.search.training.task import Task
from joulefront.spaces.classical import SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Union

SMALL = Mlp(depths=(1, 1), widths=(8, 16), norms="none", recipe=RecipeRanges(learning_rate=(1e-3, 1e-1), batch_size=64))


def task(share: float = 0.7) -> Task:
    x = np.random.default_rng(0).normal(size=(600, 2)).astype("float32")
    return arrays(x, (np.arange(600) >= 600 * share).astype("int64"), name="points", classes=["often", "seldom"], test_share=0.2)


def study(space: Space = SMALL, **changes: object) -> Study:
    known: dict[str, object] = {"rungs": (1, 2), "sampler": "random", "trials": 2, **changes}
    return Study("points", task(), space, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (SMALL, {"depth": 1, "width": 16, "learning_rate": 1e-3}),
        (Union(Classical(), SMALL), {"family": "classical", "classical.estimator": "gradient_boosting"}),
        (Classical(kind="multilabel"), {"estimator": "random_forest", "random_forest.min_leaf": 1}),
        (Classical(kind="anomaly"), {"estimator": "isolation_forest"}),
        (Convnet(depths=(1, 3), recipe=RecipeRanges(batch_size=(100, 200, 300))), {"depth": 3, "width": 32, "batch_size": 100}),
    ],
    ids=["perceptron", "table", "multilabel", "anomaly", "images"],
)
def test_the_default_is_the_ordinary_choice_within_the_ranges_of_the_space(space: Space, wanted: dict[str, object]) -> None:
    found = default_candidate(study(space, rungs=(1, 3, 9)))
    assert found is not None
    depth = {name: value for name, value in wanted.items() if name != "depth"}
    assert {name: found[name] for name in depth} == pytest.approx(depth) if "family" not in wanted and "estimator" not in wanted else True
    assert {name: found[name] for name in wanted if name in found} == {name: value for name, value in wanted.items() if name in found}
    assert found["epochs"] == 9
    space.sample(FixedTrial(found))  # complete: nothing is drawn


def test_the_default_model_ends_at_the_rung_at_which_it_is_perfect_and_is_not_continued(tmp_path: Path) -> None:
    easy = arrays(np.repeat(np.eye(2, dtype="float32") * 9, 100, axis=0), np.repeat([0, 1], 100), name="easy", classes=["no", "yes"])
    told: list[str] = []
    perfect = replace(study(rungs=(9, 27, 81), sampler="freeze-thaw", trials=1), task=easy)
    run(perfect, out=tmp_path / "r", meter="cpu_time", device="cpu", listener=lambda progress: told.append(progress.message))
    folder = RunFolder.open(tmp_path / "r")
    (trial,) = folder.run().trials
    assert (trial.is_default, trial.state, trial.epochs, trial.quality["accuracy"]) == (True, "complete", 9, 1.0)
    assert trial.reason == "perfect accuracy after epoch 9: more epochs can only cost"
    assert any(line.startswith("trial 0: accuracy") and line.endswith(f"({trial.reason})") for line in told)
    assert folder.study().trials[0].user_attrs[FINISHED]
    assert not {"pruned", "stopped", "failed"} & folder.run().bill.by_state.keys()


def test_a_grid_and_a_space_without_an_ordinary_choice_have_none(rings: Callable[..., Study]) -> None:
    assert default_candidate(study(sampler="grid")) is None
    assert default_candidate(rings()) is None


def test_no_family_is_dropped_before_its_ordinary_choice_was_tried() -> None:
    several = study(Union(Classical(), SMALL), rungs=(1, 3, 9, 27), trials=None)
    first, default, place = beginning(several)
    assert default == first[place or 0]
    tried = [several.space.sample(FixedTrial(one)).architecture for one in first]  # complete: nothing is drawn
    assert {one.get("estimator", one["family"]) for one in tried} == {*SUPERVISED, "mlp"}
    assert len(first) == len(SUPERVISED) + 1
    assert {one["epochs"] for one in first} <= {9, 27}
    begun = replace(several, first=({"family": "classical", "classical.estimator": "linear", "epochs": 3},))
    assert len(beginning(begun)[0]) == len(first), "the study begins with one of them by itself"


def test_another_network_begins_with_a_short_training_that_may_go_on() -> None:
    networks = study(Union(Convnet(), SMALL), rungs=(1, 3, 9, 27, 81, 243), trials=None)
    assert [one["epochs"] for one in beginning(networks)[0]] == [243, 3]
    short = replace(networks, first=({"epochs": 9}, {"epochs": 1}, {}), rungs=(2, 4))
    assert [one.get("epochs") for one in beginning(short)[0][:3]] == [4, 2, None]


def test_the_first_of_each_family_take_a_quarter_of_few_trials_at_most() -> None:
    several = study(Union(Classical(), SMALL), rungs=(1, 3, 9, 27))
    assert [len(beginning(several, trials)[0]) for trials in (1, 8, 12, 400)] == [1, 2, 3, 7]


def test_guessing_is_the_majority_or_the_mean() -> None:
    assert guessing(task())["accuracy"] == pytest.approx(0.7, abs=0.01)
    assert guessing(task())["balanced_accuracy"] == 0.5
    assert guessing(task())["auc"] == 0.5
    values = np.random.default_rng(0).normal(size=300)
    assert guessing(arrays(np.zeros((300, 1), "float32"), values, kind="regression"))["r2"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.slow
def test_it_is_trial_0_a_normal_trial_with_its_energy_and_a_mark(tmp_path: Path) -> None:
    front = run(study(), out=tmp_path / "r", meter="cpu_time")
    first, second = RunFolder.open(tmp_path / "r").run().trials
    assert first.is_default
    assert first.epochs == 2
    assert first.energy.increment_joules
    assert not second.is_default
    assert front.baseline == first
    assert front.evidence.guessing == pytest.approx(0.7, abs=0.01)
    assert front.evidence.examples
    assert front.choice.basis == "paired"
    assert [trial.number for trial in Front.of(RunFolder.open(tmp_path / "r").run()).trials if trial.is_default] == [0]


@pytest.mark.slow
def test_the_studys_own_first_trials_come_before_it_and_a_run_that_goes_on_trains_none_again(tmp_path: Path) -> None:
    begun = replace(study(), first=({"width": 11, "epochs": 1},))
    run(begun, out=tmp_path / "r", trials=1, meter="cpu_time")
    run(begun, out=tmp_path / "r", trials=3, meter="cpu_time")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert [trial.is_default for trial in trials] == [False, True, False]
    assert trials[0].params["width"] == 11


@pytest.mark.slow
def test_it_may_take_a_tenth_of_a_budget_and_is_then_measured_as_it_is(tmp_path: Path) -> None:
    small = replace(study(rungs=(1, 2000)), trials=None, budget=Budget(joules=30.0))
    run(small, out=tmp_path / "r", meter="cpu_time", cpu_watts=20.0, trials=1, budget=Budget(joules=30.0))
    (first,) = RunFolder.open(tmp_path / "r").run().trials[:1]
    assert first.is_default
    assert first.state == "complete"
    assert 0 < first.epochs < 2000
    assert "10% of the budget" in (first.reason or "")


@pytest.mark.slow
def test_it_may_take_a_tenth_of_a_timeout(tmp_path: Path) -> None:
    run(study(rungs=(1, 1_000_000)), out=tmp_path / "r", meter="cpu_time", trials=1, timeout_seconds=10.0)
    first = RunFolder.open(tmp_path / "r").run().trials[0]
    assert first.is_default
    assert first.state == "complete"
    assert "10% of the timeout" in (first.reason or "")
