"""A session in somebody's own program: it leaves the program's settings as they were, and there is one of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from joulefront.search.running.session import SessionOptions, open_bench

OPTIONS = SessionOptions("cpu_time", device="cpu")


def drawn() -> tuple[Any, ...]:
    """Numbers of each generator that a training seeds, and the threads of PyTorch."""
    return torch.get_num_threads(), torch.initial_seed(), float(torch.rand(())), float(np.random.rand()), random.random()


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


@pytest.mark.parametrize("error", [None, ZeroDivisionError("in a model")])
def test_threads_and_generators_are_the_callers_again_when_a_session_has_ended(error: Exception | None) -> None:
    seed(7)
    before = drawn()
    seed(7)
    try:
        with open_bench(OPTIONS):
            torch.set_num_threads(torch.get_num_threads() + 1)
            seed(99)
            if error is not None:
                raise error
    except ZeroDivisionError:
        pass
    assert drawn() == before


def test_a_second_session_in_one_process_is_refused_until_the_first_has_ended() -> None:
    with open_bench(OPTIONS), pytest.raises(RuntimeError, match="start it in a process of its own"), open_bench(OPTIONS):
        pytest.fail("both would be billed for the same work")
    with open_bench(OPTIONS) as bench:
        assert bench.device == "cpu"
