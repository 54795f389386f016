"""Idle power and cool-down, on clocks that the test moves."""

import pytest

from joulefront.search.energy import Ledger
from joulefront.search.energy.host import idle_watts
from joulefront.search.energy.sources.source import Capability, Reading
from joulefront.search.running.baselines import cool_down, hottest, measure_idle

NANO = 1_000_000_000


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Device:
    name = "nvml"

    def __init__(self, clock, watts=20.0):
        self.clock, self.watts, self.last, self.joules = clock, watts, clock.now, 0.0

    def probe(self):
        return (Capability("gpu:0", "nvml", True, tick_seconds=0.0),)

    def read(self):
        self.joules += self.watts * (self.clock.now - self.last)
        self.last = self.clock.now
        return (Reading("gpu:0", round(self.clock.now * NANO), 0, self.joules),)

    def close(self):
        pass


@pytest.mark.slow
def test_idle_windows_give_the_idle_power_and_the_net_energy():
    clock = Clock()
    device = Device(clock)
    with Ledger([device], interval_seconds=None, clock=lambda: round(clock.now * NANO)) as ledger:

        def sleep(seconds):
            for _ in range(round(10 * seconds)):
                clock.sleep(0.1)
                ledger.sample()

        before = measure_idle(ledger, 10, "idle before", sleep=sleep)
        device.watts = 120.0
        window = ledger.open("trial")
        sleep(10)
        trial = window.close()
        device.watts = 22.0
        after = measure_idle(ledger, 10, "idle after", sleep=sleep)
    assert trial.net_joules == pytest.approx(1200 - 200)
    found = idle_watts([after, before, trial])["gpu:0"]
    assert found.watts == pytest.approx(21)
    assert found.windows == 2
    assert found.u_watts == pytest.approx(1, rel=0.01)  # the spread of the two windows
    assert idle_watts([trial]) == {}


def test_an_idle_window_of_no_length_is_refused():
    with pytest.raises(ValueError, match="seconds"):
        measure_idle(None, 0.2)


def test_cool_down_waits_until_three_degrees_above_the_start():
    clock = Clock()
    begin = clock.now
    cool_down(lambda: 80 - (clock.now - begin) / 2, 40.0, 300.0, clock=clock, sleep=clock.sleep)
    assert clock.now - begin == pytest.approx(74)


def test_cool_down_gives_up_in_time():
    clock = Clock()
    begin = clock.now
    cool_down(lambda: 80.0, 40.0, 12.5, clock=clock, sleep=clock.sleep)
    assert clock.now - begin == pytest.approx(12.5)


@pytest.mark.parametrize(("start", "now"), [(None, 50.0), (40.0, None)])
def test_cool_down_without_a_sensor_waits_for_nothing(start, now):
    clock = Clock()
    begin = clock.now
    cool_down(lambda: now, start, 300.0, clock=clock, sleep=clock.sleep)
    assert clock.now == begin


def test_hottest_of_several_sensors():
    assert hottest({"gpu:0": {"temperature_celsius": 41, "sm_mhz": 900}, "gpu:1": {"temperature_celsius": None}}) == 41
    assert hottest({"gpu:0": {"name": "x"}}) is None
