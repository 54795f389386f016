import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from joulefront.search.study import OBJECTIVES, Budget, Study, parse_rungs, seconds_of
from joulefront.search.training.arrays import arrays
from joulefront.search.training.evaluate import qualities, quality
from joulefront.spaces.classical import Classical
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Repeated, Union

GOOD = Study(name="s", task=lambda: None, space=Mlp(), trials=1)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("accuracy", "speed")}, "unknown"),
        ({"objectives": ("accuracy",)}, "at least two"),
        ({"objectives": ("accuracy", "accuracy")}, "at least two different"),
        ({"objectives": ("accuracy", "parameters")}, "needs one of train_energy"),
        ({"objectives": ("train_energy", "accuracy")}, "quality first"),
        ({"rungs": ()}, "ascending"),
        ({"rungs": (3, 1)}, "ascending"),
        ({"rungs": (0, 3)}, "ascending"),
        ({"sampler": "magic"}, "one of freeze-thaw"),
        ({"trials": 0}, "trials"),
        ({"max_memory_bytes": 0}, "max_memory_bytes must be >= 1, got 0"),
        ({"max_parameters": -5}, "max_parameters must be >= 1"),
        ({"rungs": (1.5, 3)}, r"rungs must be tuple\[int, ...\], got \(1.5, 3\)"),
        ({"objectives": "accuracy,train_energy"}, r"objectives must be tuple\[str, ...\], got 'accuracy,train_energy'"),
        ({"budget": "5Wh"}, r"Budget \| None, got '5Wh' \(str\); write Budget.parse\('5Wh'\)"),
        ({"min_accuracy": 95.0}, "at most 1, as accuracy is, got 95.0; 95 % is 0.95"),
        ({"min_accuracy": -0.1}, "min_accuracy"),
        ({"max_trial_seconds": "x"}, r"max_trial_seconds must be float \| None, got 'x' \(str\)"),
        ({"trials": "3"}, r"study.trials must be int \| None, got '3' \(str\); write 3 without quotes"),
        ({"trials": True}, "trials must be int"),
        ({"ensemble": None}, "ensemble must be int, got None .*; leave it out for 0"),
        ({"ensemble": -1}, "ensemble must be >= 0, got -1"),
        ({"sizes": "no"}, "sizes must be bool, got 'no'"),
        ({"first": {"width": 8}}, "first must be tuple"),
        ({"max_trial_joules": -1.0}, "max_trial_joules must be > 0, got -1.0"),
        ({"max_trial_joules": 0.0}, "max_trial_joules must be > 0"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 10**22}, "seed must be a whole number from 0 to"),  # no file of a run holds it
        ({"seed": 0.5}, "seed must be int, got 0.5"),
        ({"space": None}, r"space must be Space, got None .*; several are Union"),
        ({"rungs": (1, 10**22)}, "rungs must be ascending whole numbers from 1 to 1,000,000,000, got"),
        ({"objectives": ("f1", "train_energy")}, r"^objectives \(--objectives\): unknown \['f1'\]; choose from accuracy"),
        ({"sampler": "tpa"}, r"^sampler \(--sampler\) must be one of freeze-thaw"),
        ({"name": "a/b"}, "name of a folder"),
        ({"name": ".."}, "name of a folder"),
        ({"name": "ü" * 101}, "at most 200 bytes, got 202"),
        ({"name": ""}, "name of a folder"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


def test_directions_follow_the_objectives() -> None:
    study = replace(GOOD, objectives=("error", "train_co2", "parameters"))
    assert study.directions == ("minimize", "minimize", "minimize")
    assert all(direction in ("maximize", "minimize") for direction, _, _ in OBJECTIVES.values())


@pytest.mark.parametrize(("name", "best", "worse"), [("accuracy", 1.0, 0.9999), ("auc", 1.0, 0.0), ("r2", 1.0, -3.0), ("error", 0.0, 1.0)])
def test_a_quality_is_perfect_at_its_bound_unless_only_complete_trainings_count(name: str, best: float, worse: float) -> None:
    study = replace(GOOD, objectives=(name, "train_energy"))
    assert study.is_perfect({name: best, "loss": 0.5})
    assert not any(study.is_perfect(quality) for quality in ({name: worse}, {name: None}, {name: float("nan")}, {"epoch": 3}))
    assert not replace(study, complete_only=True).is_perfect({name: best})


def test_a_regression_may_be_of_use_below_zero() -> None:
    assert replace(GOOD, objectives=("r2", "train_energy"), min_accuracy=-0.5).min_accuracy == -0.5


def task(targets: np.ndarray, **options: Any) -> Any:
    return arrays(np.arange(2.0 * len(targets), dtype="float32").reshape(-1, 2), targets, **options)


@pytest.mark.parametrize(
    ("targets", "options", "objective", "remedy"),
    [
        (np.arange(40) % 2, {}, "r2", "accuracy"),
        (np.linspace(0, 1, 40), {"kind": "regression"}, "accuracy", "--objectives r2,train_energy"),
        (np.arange(1010) % 101, {"kind": "classification"}, "auc", "with 101 classes"),
    ],
)
def test_a_quality_that_the_task_does_not_have_is_refused_before_anything_is_trained(
    targets: np.ndarray, options: dict[str, Any], objective: str, remedy: str
) -> None:
    study = replace(GOOD, task=lambda: task(targets, **options), objectives=(objective, "train_energy"))
    with pytest.raises(ValueError, match=f"{objective} is not known of a .*{remedy}"):
        study.load_task()


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("classification", np.arange(60) % 3),
        ("regression", np.linspace(0, 1, 60)),
        ("anomaly", np.arange(60) % 2),
        ("multilabel", np.stack([np.arange(60) % 2, np.arange(60) % 3 == 0], axis=1)),
    ],
)
def test_the_qualities_that_are_promised_are_those_that_are_measured(kind: Any, targets: np.ndarray) -> None:
    found = task(targets, kind=kind)
    _, wanted = found.validation.arrays()
    scores = np.random.default_rng(0).uniform(size=(len(wanted), found.outputs))
    scores = scores[:, 0] if kind == "regression" else scores
    assert set(quality(found.kind, scores, wanted)) == set(qualities(found.kind, len(found.classes)))


BATCHES_OF_64 = Mlp(recipe=RecipeRanges(batch_size=64))


@pytest.mark.parametrize(
    ("examples", "rungs"),
    [(8, (27, 81, 243, 729)), (290, (9, 27, 81, 243)), (1200, (3, 9, 27, 81)), (64 * 32, (1, 3, 9, 27)), (10**6, (1, 3, 9, 27))],
)
def test_rungs_follow_the_steps_of_an_epoch(examples: int, rungs: tuple[int, ...]) -> None:
    data = task(np.arange(80) % 2)
    data = replace(data, train=type("Sized", (), {"__len__": lambda self: examples})())
    for space in (BATCHES_OF_64, Repeated(BATCHES_OF_64)):
        assert replace(GOOD, space=space).fitted_to(data).rungs == rungs
    assert replace(GOOD, space=BATCHES_OF_64, rungs=(1, 2)).fitted_to(data, (5,)).rungs == (1, 2), "the user's own"
    assert replace(GOOD, space=BATCHES_OF_64).fitted_to(data, [2, 5]).rungs == (2, 5), "those of the sessions before"


def test_epochs_that_are_no_passes_over_the_data_begin_at_one() -> None:
    data = task(np.arange(80) % 2)
    for space in (Classical(), Union(Classical(), BATCHES_OF_64), Repeated(Classical())):
        assert replace(GOOD, space=space).fitted_to(data).rungs == (1, 3, 9, 27)


def test_trials_to_begin_with_get_at_least_the_lowest_rung() -> None:
    first = ({"width": 4, "epochs": 1}, {"width": 8, "epochs": 50}, {"width": 16})
    found = replace(GOOD, space=BATCHES_OF_64, first=first).fitted_to(task(np.arange(80) % 2))
    assert [one.get("epochs") for one in found.first] == [27, 50, None]


@pytest.mark.parametrize("text", ["", "1,", "3,1", "0,3", "1,1", "1.5", "1;3", "a"])
def test_rungs_that_are_none_are_refused_with_an_example(text: str) -> None:
    assert parse_rungs("1, 3,9") == (1, 3, 9)
    with pytest.raises(
        ValueError, match=r"--rungs must be ascending whole numbers from 1 to 1,000,000,000, .*for example --rungs 1,3,9,27"
    ):
        parse_rungs(text)


def test_durations_need_a_unit() -> None:
    assert seconds_of("2h") == 7200.0
    for text in ("30", "m", "-3m", "", "infm", "1e999s", "nanh"):
        with pytest.raises(ValueError, match="--timeout"):
            seconds_of(text)


def test_numbers_of_numpy_in_what_a_study_begins_with_are_plain() -> None:
    made = replace(GOOD, first=({"width": np.int64(4), "rate": np.float32(0.5)},), weights=({"bytes": np.int64(3)},))
    assert json.dumps([made.first, made.weights]) == '[[{"width": 4, "rate": 0.5}], [{"bytes": 3}]]'


@pytest.mark.parametrize(
    "amount", [{"joules": float("inf")}, {"grams_co2e": float("nan")}, {"money": (float("inf"), "EUR")}, {"joules": 0.0}, {}]
)
def test_a_budget_is_one_finite_amount_that_is_written_as_it_is_read(amount: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one amount > 0, and finite"):
        Budget(**amount)
    for text in ("5Wh", "12.5mgCO2e", "2EUR", "20J", "0.02 kWh", "50ct", "1,234 kJ"):
        assert Budget.parse(text).to_text() == text
