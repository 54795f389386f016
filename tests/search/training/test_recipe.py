"""A recipe that no training can follow is refused where it is written."""

from typing import Any

import numpy as np
import pytest

from joulefront.search.training.recipe import Recipe


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0.5}, "batch_size must be a whole number >= 1, got 0.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": 1.5}, "accumulation must be a whole number"),
        ({"patience": 0}, "patience must be a whole number >= 1 or None, got 0"),
        ({"threads": 0}, "threads must be a whole number >= 1 or None"),
        ({"resolution": -8}, "resolution must be a whole number >= 1 or None"),
        ({"label_smoothing": 2.0}, "label_smoothing must be >= 0 and < 1, got 2.0"),
        ({"momentum": 1.0}, "momentum must be >= 0 and < 1"),
        ({"weight_decay": -1e-3}, "weight_decay must be >= 0, got"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"head_learning_rate": -1.0}, "head_learning_rate must be > 0 or None"),
        ({"schedule": "sometimes"}, "schedule must be one of"),
    ],
)
def test_a_recipe_that_no_training_can_follow_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"recipe.{message}"):
        Recipe(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = Recipe(batch_size=np.int64(32), learning_rate=np.float64(0.1), patience=np.int32(2))  # type: ignore[arg-type]
    assert recipe.batch_size == 32
