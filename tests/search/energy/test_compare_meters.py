"""Meters side by side under one load, on a clock that the test moves, and once on this machine."""

import json

import pytest
from helpers.wall import NANO, Clock

from joulefront.search.energy import Ledger
from joulefront.search.energy.calibrate import spin
from joulefront.search.energy.comparison import compare_meters
from joulefront.search.energy.sources.source import Capability, Reading

pytestmark = pytest.mark.slow


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
    loads = [("load", lambda: sleep(5))]
    return compare_meters(sources=sources, absent=[gone], seconds=5, repeats=1, loads=loads, sleep=sleep, ledger=ledger)


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


class Bench:
    """Meters on a clock of our own: `watts` of the components, and a plug that sees 1.2 times that, 40 W and what is added to it."""

    def __init__(self):
        self.clock, self.watts, self.extra, self.joules, self.wall = Clock(), 0.0, 0.0, 0.0, 0.0
        self.sources = [self.meter("rapl", "cpu:pkg0", lambda: self.joules), self.meter("wall", "wall", lambda: self.wall, counts=False)]
        self.ledger = Ledger(self.sources, interval_seconds=None, clock=self.clock)

    def meter(self, name, part, joules, **facts):
        fake = Fake(self.clock, name, {part: 0.0}, gain_u=0.01, **facts)
        fake.read = lambda: (Reading(part, self.clock(), 0, joules()),)
        return fake

    def sleep(self, seconds, watts=10.0):
        for _ in range(20):
            self.clock.ns += round(seconds / 20 * NANO)
            self.joules += watts * seconds / 20
            self.wall += (1.2 * watts + 40.0 + self.extra) * seconds / 20
            self.ledger.sample()

    def load(self, watts, extras):
        extras = iter(extras)

        def run():
            self.extra = next(extras)
            self.sleep(10, watts)
            self.extra = 0.0

        return run


def test_repeats_that_differ_widen_the_interval_of_the_ratio():
    widths = []
    for extras in ((0.0, 0.0, 0.0), (-6.0, 0.0, 6.0)):
        bench = Bench()
        (load,) = compare_meters(
            sources=bench.sources, seconds=10, loads=[("load", bench.load(50, extras))], sleep=bench.sleep, ledger=bench.ledger
        ).loads
        wall = next(row for row in load.meters if row.part == "wall")
        assert load.repeats == 3
        assert wall.ratio.value == pytest.approx(2.0, rel=1e-3)
        widths.append(wall.ratio.half)
    assert widths[0] == pytest.approx(2 * 2.0 * (0.01**2 + 0.01**2) ** 0.5, rel=0.1)  # the two scales of 1 %
    # Ratios of 1.88, 2 and 2.12: Student's t of two degrees of freedom, 4.30, times 0.12 over the root of 3.
    assert widths[1] == pytest.approx((widths[0] ** 2 + (4.303 * 0.12 / 3**0.5) ** 2) ** 0.5, rel=0.02)


def test_loads_of_different_size_give_the_line_of_the_wall_over_the_components_with_standard_errors():
    bench = Bench()
    # Mirrored disturbances of every load: they widen the standard errors and leave the line in its place.
    loads = [(name, bench.load(watts, (-1.0, 0.0, 1.0))) for name, watts in (("idle", 10), ("one", 30), ("all", 80))]
    found = compare_meters(sources=bench.sources, seconds=10, loads=loads, sleep=bench.sleep, ledger=bench.ledger)
    line = found.wall.line
    assert line.slope.value == pytest.approx(1.2, rel=1e-3)
    assert line.intercept.value == pytest.approx(40, rel=1e-3)
    x = [10, 30, 80] * 3
    sd = (6 * 1.0 / 7) ** 0.5
    squares = sum((value - 40) ** 2 for value in x)
    assert line.slope_error == pytest.approx(sd / squares**0.5, rel=0.02)
    assert line.intercept_error == pytest.approx(sd * (1 / 9 + 40**2 / squares) ** 0.5, rel=0.02)
    assert "a = 1.2, standard error" in found.to_text()
    assert json.loads(found.to_json())["wall"]["b_watts"] == pytest.approx(40, rel=1e-3)


def test_one_load_gives_the_table_and_says_why_there_is_no_line():
    bench = Bench()
    loads = [("load", bench.load(50, (0.0, 0.0, 0.0)))]
    found = compare_meters(sources=bench.sources, seconds=10, loads=loads, sleep=bench.sleep, ledger=bench.ledger)
    assert found.wall is None
    assert "no line of the wall meter" in found.to_text()


def test_no_meter_and_no_time_are_user_errors():
    with pytest.raises(ValueError, match="no meter"):
        compare_meters(sources=[])
    with pytest.raises(ValueError, match="seconds"):
        compare_meters(seconds=0.1)
    with pytest.raises(ValueError, match="repeats"):
        compare_meters(repeats=0)


def test_on_this_machine_every_source_that_works_is_in_the_table():
    comparison = compare_meters("cpu_time", seconds=1, repeats=2, loads=[("spin", lambda: spin(1))])
    assert comparison.loads[0].repeats == 2
    row = comparison.loads[0].meters[0]
    assert (row.source, row.quality) == ("cpu_time", "estimated")
    assert row.joules > 0
