"""A recipe that no training can follow is refused where it is written; threads and precisions of a device."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.threads import cores
from joulefront.search.training.recipe import Recipe, available_precisions, require_precision, thread_choices


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0.5}, "batch_size must be int, got 0.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": 1.5}, "accumulation must be int, got 1.5"),
        ({"learning_rate": "x"}, "learning_rate must be float, got 'x'"),
        ({"weight_decay": None}, "weight_decay must be float, got None"),
        ({"averaging": "no"}, "averaging must be bool, got 'no'"),
        ({"tactics": ["freeze"]}, "tactics must be Mapping"),
        ({"patience": 0}, "patience must be a whole number >= 1, got 0"),
        ({"threads": 0}, "threads must be a whole number >= 1"),
        ({"resolution": -8}, "resolution must be a whole number >= 1"),
        ({"label_smoothing": 2.0}, "label_smoothing must be >= 0 and < 1, got 2.0"),
        ({"momentum": 1.0}, "momentum must be >= 0 and < 1"),
        ({"weight_decay": -1e-3}, "weight_decay must be >= 0, got"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"head_learning_rate": -1.0}, "head_learning_rate must be > 0"),
        ({"schedule": "sometimes"}, "schedule must be one of"),
    ],
)
def test_a_recipe_that_no_training_can_follow_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}"):
        Recipe(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = Recipe(batch_size=np.int64(32), learning_rate=np.float64(0.1), patience=np.int32(2))  # type: ignore[arg-type]
    assert recipe.batch_size == 32


@given(st.integers(1, 300))
def test_thread_choices_are_powers_of_two_and_all_cores(cores: int) -> None:
    choices = thread_choices(cores)
    assert choices == tuple(sorted({n for n in range(1, cores + 1) if n & (n - 1) == 0} | {cores}))


def test_this_machine_has_at_least_the_one_core_that_runs_this() -> None:
    assert thread_choices()[0] == 1
    assert thread_choices()[-1] == cores() >= 1


def test_no_more_threads_are_tried_than_the_user_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert thread_choices() == (1,)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((5, 2), ("float32",)), ((7, 5), ("float32", "float16")), ((9, 0), ("float32", "bfloat16", "float16"))],
)
def test_a_gpu_has_the_precisions_of_its_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert available_precisions("cuda:0") == expected


def test_float16_on_a_cpu_is_refused_with_what_there_is() -> None:
    assert available_precisions("cpu") == ("float32", "bfloat16")
    require_precision("bfloat16", "cpu")
    with pytest.raises(ValueError, match=r"precision must be one that cpu computes in natively \(float32, bfloat16\), got 'float16'"):
        require_precision("float16", "cpu")
