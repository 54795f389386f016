"""How busy devices were: against a list of readings added up by hand, and through NVIDIA's binding."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Ledger
from joulefront.search.energy.host import EVERY_NS, LEAST_KNOWN, REACH_NS, Utilisation
from joulefront.search.energy.record import Record, add
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.source import NANO

pytestmark = pytest.mark.slow

GPU = "gpu:GPU-00000000-fake"


class Told:
    """A source that says the next share of a list; None is silence."""

    def __init__(self, shares: Sequence[float | None]) -> None:
        self.shares = list(shares)

    def utilisation(self) -> dict[str, float]:
        share = self.shares.pop(0)
        return {} if share is None else {"gpu": share}


shares = st.one_of(st.none(), st.floats(0, 1))
steps = st.lists(st.tuples(st.integers(EVERY_NS, 3 * NANO), shares), min_size=2, max_size=12)


@given(steps, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_mean_is_each_reading_for_the_time_since_the_one_before(readings, first, last):
    line = Utilisation([Told([share for _, share in readings])])
    times, now = [], 0
    for step, _ in readings:
        now += step
        line.sample(now)
        times.append(now)
    begin, end = sorted((times[0] + (times[-1] - times[0]) * first, times[0] + (times[-1] - times[0]) * last))
    begin, end = int(begin), int(end)
    busy = known = 0.0
    begun = False
    for before, after, (_, share) in zip(times, times[1:], readings[1:], strict=False):
        begun = begun or any(told is not None for _, told in readings[: times.index(before) + 1])
        inside = max(min(after, end) - max(before, begin), 0)
        if begun and share is not None and after - before <= REACH_NS:
            busy, known = busy + share * inside, known + inside
    found = line.mean(begin, end).get("gpu")
    if known <= 0 or known < LEAST_KNOWN * (end - begin) * (1 - 1e-9):
        assert found is None
    elif known > LEAST_KNOWN * (end - begin) * (1 + 1e-9):
        assert found == pytest.approx(busy / known, abs=1e-6)


def test_until_the_next_reading_the_last_one_goes_on_but_not_for_ever():
    line = Utilisation([Told([0.2, 0.6, None])])
    line.sample(0)
    assert line.mean(NANO // 100, NANO // 50) == {"gpu": pytest.approx(0.2)}
    line.sample(NANO)
    assert line.mean(NANO // 2, 3 * NANO // 2) == {"gpu": pytest.approx(0.6)}
    assert line.mean(NANO + REACH_NS, NANO + 2 * REACH_NS) == {}
    line.sample(3 * NANO // 2)
    assert line.mean(3 * NANO // 2, 2 * NANO) == {}


def test_drivers_are_asked_twice_a_second():
    told = Told([0.5] * 100)
    line = Utilisation([told, object()])
    for t_ns in range(0, NANO, NANO // 100):
        line.sample(t_ns)
    assert 100 - len(told.shares) == 2


def test_the_record_of_a_window_says_how_busy_the_gpu_was(bench):
    machine = bench(kind="square", low=50, high=300, period=4.0, duty=0.5, busy=80)
    machine.run(4.0)
    with machine.ledger.window("epoch", kind="epoch") as long:
        machine.run(40.0)
    assert long.record.utilisation[GPU] == pytest.approx(0.4, abs=0.04)
    assert Record.from_json(long.record.to_json()).utilisation == long.record.utilisation
    machine.run(0.75)
    with machine.ledger.window("epoch", kind="epoch") as short:  # shorter than the time between two readings, in the busy half
        machine.run(0.05)
    assert short.record.utilisation[GPU] == pytest.approx(0.8, abs=1e-6)


def test_a_driver_that_does_not_tell_leaves_it_out(bench):
    machine = bench(busy=-1)
    with machine.ledger.window("epoch", kind="epoch") as window:
        machine.run(2.0)
    assert window.record.utilisation == {}
    assert window.record.joules is not None


def test_a_gpu_that_is_lost_has_no_utilisation_from_then_on(bench):
    machine = bench(lost_at=1005.0)
    with machine.ledger.window("epoch", kind="epoch") as alive:
        machine.run(4.0)
    machine.run(2.0)
    with machine.ledger.window("epoch", kind="epoch") as dead:
        machine.run(4.0)
    assert alive.record.utilisation[GPU] == 1.0
    assert dead.record.utilisation == {}


def test_the_cpu_seconds_of_a_window_are_those_of_its_own_processes(driver):
    with Ledger([Nvml(environment={})], interval_seconds=None) as ledger:
        with ledger.window("epoch", kind="epoch") as window:
            begin = os.times()
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            end = os.times()
        given = ledger.query(window.t0_ns, time.monotonic_ns(), cpu_seconds=1.25)
    used = end.user + end.system - begin.user - begin.system
    assert window.record.cpu_seconds == pytest.approx(used, abs=0.05)
    assert given.cpu_seconds == 1.25


def test_a_sum_weighs_by_duration_and_knows_no_more_than_its_parts():
    def record(seconds, cpu_seconds, **utilisation):
        return Record("a", "a", None, "epoch", "ok", "", 0, 0, seconds, cpu_seconds=cpu_seconds, utilisation=utilisation)

    both = add([record(1.0, 2.0, a=0.5, b=1.0), record(3.0, 4.0, a=0.9)])
    assert both.utilisation == {"a": pytest.approx(0.8)}
    assert both.cpu_seconds == 6.0
    assert add([record(1.0, None), record(1.0, 1.0)]).cpu_seconds is None
