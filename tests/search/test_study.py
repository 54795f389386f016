from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from joulefront.search.study import OBJECTIVES, Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.evaluate import qualities, quality

GOOD = Study(name="s", task=lambda: None, space=None, trials=1)  # type: ignore[arg-type,return-value]


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
        ({"rungs": (1.5, 3)}, r"whole numbers >= 1, got \(1.5, 3\)"),
        ({"objectives": "accuracy,train_energy"}, "tuple of names"),
        ({"budget": "5Wh"}, r"Budget, got '5Wh'; write Budget.parse\('5Wh'\)"),
        ({"min_accuracy": 95.0}, "at most 1, as accuracy is, got 95.0; 95 % is 0.95"),
        ({"min_accuracy": -0.1}, "min_accuracy"),
        ({"max_trial_joules": -1.0}, "max_trial_joules must be > 0, got -1.0"),
        ({"max_trial_joules": 0.0}, "max_trial_joules must be > 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number >= 0"),
        ({"name": "a/b"}, "name of a folder"),
        ({"name": ".."}, "name of a folder"),
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
