"""Threads and precisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.training.device import available_cores, available_precisions, require_precision, thread_choices


@given(st.integers(1, 300))
def test_thread_choices_are_powers_of_two_and_all_cores(cores):
    choices = thread_choices(cores)
    assert choices == tuple(sorted({n for n in range(1, cores + 1) if n & (n - 1) == 0} | {cores}))


def test_this_machine_has_at_least_the_one_core_that_runs_this():
    assert thread_choices()[0] == 1
    assert thread_choices()[-1] == available_cores() >= 1


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((5, 2), ("float32",)), ((7, 5), ("float32", "float16")), ((9, 0), ("float32", "bfloat16", "float16"))],
)
def test_a_gpu_has_the_precisions_of_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert available_precisions("cuda:0") == expected


def test_float16_on_a_cpu_is_refused_with_what_there_is():
    assert available_precisions("cpu") == ("float32", "bfloat16")
    require_precision("bfloat16", "cpu")
    with pytest.raises(ValueError, match=r"precision must be one that cpu computes in natively \(float32, bfloat16\), got 'float16'"):
        require_precision("float16", "cpu")
