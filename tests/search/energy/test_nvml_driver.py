"""Energy and power in one call where the driver gives them so, and never a number that the counter does not confirm."""

from __future__ import annotations

import threading

import pynvml
import pytest

from joulefront.search.energy.sources.nvml_driver import find


@pytest.fixture
def handle(driver, clock):
    driver.set(high=200).follow(clock)
    pynvml.nvmlInit()
    yield pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlShutdown()


def test_both_numbers_come_from_one_call(driver, handle):
    calls = find(pynvml, handle)
    joules, watts = calls.both()
    assert joules == calls.counter()
    assert watts == calls.power() == 200


def test_both_follow_the_driver(driver, clock, handle):
    calls = find(pynvml, handle)
    before, _ = calls.both()
    driver.set(high=350)
    clock.advance(0)
    again, watts = calls.both()
    assert watts == 350
    assert again > before


@pytest.mark.parametrize(("field", "why"), [(0, "the driver has no such field"), (2, "the field is not the counter")])
def test_a_field_that_is_not_the_counter_is_not_used(driver, handle, field, why):
    driver.set(energy_field=field)
    calls = find(pynvml, handle)
    assert calls.both is None, why
    assert calls.counter() > 0
    assert calls.power() == 200


@pytest.mark.parametrize("knobs", [{"counter": 0}, {"instant": 0}])
def test_what_one_of_them_lacks_is_asked_for_alone(driver, handle, knobs):
    driver.set(**knobs)
    calls = find(pynvml, handle)
    assert calls.both is None
    assert (calls.counter is None) == ("counter" in knobs)
    assert calls.averaged == ("instant" in knobs)
    assert calls.power() == 200


def test_one_of_the_two_may_fail_alone(driver, handle):
    calls = find(pynvml, handle)
    driver.set(counter=0)
    assert calls.both() == (None, 200)
    driver.set(counter=1, instant=0)
    joules, watts = calls.both()
    assert joules > 0
    assert watts is None


def test_a_lost_gpu_is_an_error_of_nvml(driver, handle):
    calls = find(pynvml, handle)
    driver.set(lost_at=0)
    with pytest.raises(pynvml.NVMLError, match="GPU is lost"):
        calls.both()


def test_threads_that_ask_at_once_get_whole_answers(driver, handle):
    driver.run(1.0)
    calls = find(pynvml, handle)
    found: list[tuple[float, float]] = []

    def ask() -> None:
        found.extend(calls.both() for _ in range(2000))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = calls.counter()
    assert len(found) == 8000
    assert all(watts == 200 and 0 < joules <= last for joules, watts in found)
