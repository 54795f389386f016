"""Meters side by side under one load, on a clock that the test moves, and once on this machine."""

import json

import pytest

from joulefront.search.energy import Ledger
from joulefront.search.energy.compare_meters import compare_meters
from joulefront.search.energy.loads import spin
from joulefront.search.energy.source import Capability, Reading

NANO = 1_000_000_000


class Clock:
    def __init__(self):
        self.ns = 10 * NANO

    def __call__(self):
        return self.ns


class Fake:
    def __init__(self, clock, name, watts, **facts):
        self.clock, self.name, self.watts, self.facts = clock, name, watts, facts

    def probe(self):
        return tuple(Capability(part, self.name, True, tick_seconds=0.0, **self.facts) for part in self.watts)

    def read(self):
        return tuple(Reading(part, self.clock(), 0, watts * self.clock() / NANO) for part, watts in self.watts.items())

    def close(self):
        pass


@pytest.fixture
def comparison():
    clock = Clock()
    sources = [
        Fake(clock, "nvml", {"gpu:a": 100.0, "gpu:b": 50.0}, gain_u=0.05),
        Fake(clock, "rapl", {"cpu:pkg0": 20.0, "cpu:pkg1": 20.0}, gain_u=0.03),
        Fake(clock, "cpu_time", {"cpu": 10.0}, quality="estimated", gain_u=0.5),
        Fake(clock, "codecarbon", {"cpu:codecarbon": 60.0, "gpu:codecarbon": 150.0}, quality="estimated", counts=False),
        Fake(clock, "wall", {"wall": 266.0}, gain_u=0.01, counts=False),
    ]
    ledger = Ledger(sources, interval_seconds=None, clock=clock)

    def sleep(seconds):
        for _ in range(10):
            clock.ns += round(seconds / 10 * NANO)
            ledger.sample()

    gone = Capability("dram:0", "rapl", False, reason="no memory counter")
    return compare_meters(sources=sources, absent=[gone], seconds=5, loads=[("load", lambda: sleep(5))], sleep=sleep, ledger=ledger)


def test_each_meter_has_its_row_its_energy_and_its_ratio(comparison):
    (load,) = comparison.loads
    assert load.seconds == pytest.approx(5)
    rows = {(row.source, row.part): row for row in load.meters}
    assert rows["rapl", "cpu"].joules == pytest.approx(200)  # both packages
    assert rows["rapl", "cpu"].ratio is None
    assert rows["cpu_time", "cpu"].ratio.value == pytest.approx(0.25)
    assert rows["codecarbon", "cpu"].ratio.value == pytest.approx(1.5)
    assert rows["codecarbon", "cpu"].reference == "rapl"
    assert rows["nvml", "gpu:a"].joules == pytest.approx(500)
    assert rows["nvml", "gpu:b"].joules == pytest.approx(250)
    assert rows["nvml", "gpu:b"].ratio is None  # another board is no other opinion on the first


def test_the_wall_is_compared_with_the_sum_of_what_counts(comparison):
    (load,) = comparison.loads
    wall = next(row for row in load.meters if row.part == "wall")
    assert wall.reference == "the components"
    assert wall.ratio.value == pytest.approx(266 / 190)


def test_the_interval_holds_both_uncertainties(comparison):
    (load,) = comparison.loads
    row = next(row for row in load.meters if row.source == "cpu_time")
    assert row.u_joules == pytest.approx(25, rel=0.05)
    assert row.ratio.low == pytest.approx(0.0, abs=0.01)
    assert row.ratio.high == pytest.approx(0.5, rel=0.05)


def test_text_and_json_say_the_same_and_name_what_is_absent(comparison):
    text = comparison.to_text()
    assert "200" in text
    assert "reference" in text
    assert "no memory counter" in text
    data = json.loads(comparison.to_json())
    assert data["absent"][0]["reason"] == "no memory counter"
    assert {row["source"] for row in data["loads"][0]["meters"]} == {"nvml", "rapl", "cpu_time", "codecarbon", "wall"}


def test_a_meter_that_fails_under_the_load_keeps_its_row_and_its_reason():
    clock = Clock()
    good, bad = Fake(clock, "rapl", {"cpu:pkg0": 20.0}), Fake(clock, "cpu_time", {"cpu": 10.0}, quality="estimated")
    bad.read = lambda: (Reading("cpu", clock(), 0, error="gone"),)
    ledger = Ledger([good, bad], interval_seconds=None, clock=clock)

    def sleep(seconds):
        clock.ns += round(seconds * NANO)
        ledger.sample()

    (load,) = compare_meters(sources=[good, bad], seconds=1, loads=[("load", lambda: sleep(1))], sleep=sleep, ledger=ledger).loads
    row = next(row for row in load.meters if row.source == "cpu_time")
    assert (row.joules, row.quality, row.ratio) == (None, "absent", None)
    assert "gone" in row.reason


def test_no_meter_and_no_time_are_user_errors():
    with pytest.raises(ValueError, match="no meter"):
        compare_meters(sources=[])
    with pytest.raises(ValueError, match="seconds"):
        compare_meters(seconds=0.1)


def test_on_this_machine_every_source_that_works_is_in_the_table():
    comparison = compare_meters("cpu_time", seconds=1, loads=[("spin", lambda: spin(1))])
    row = comparison.loads[0].meters[0]
    assert (row.source, row.quality) == ("cpu_time", "estimated")
    assert row.joules > 0
