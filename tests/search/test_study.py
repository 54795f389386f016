from dataclasses import replace
from typing import Any

import pytest

from joulefront.search.study import OBJECTIVES, Study

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
    ],
)
def test_a_study_that_cannot_be_run_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


def test_directions_follow_the_objectives() -> None:
    study = replace(GOOD, objectives=("error", "train_co2", "parameters"))
    assert study.directions == ("minimize", "minimize", "minimize")
    assert all(direction in ("maximize", "minimize") for direction, _, _ in OBJECTIVES.values())
