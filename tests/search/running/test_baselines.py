"""Idle power, warm-up, cool-down and the drift of an anchor, on clocks that the test moves."""

import random

import pytest

from joulefront.search.energy import Ledger
from joulefront.search.energy.host import idle_watts
from joulefront.search.energy.sources.source import Capability, Reading
from joulefront.search.running.baselines import anchor_drift, anchor_drift_of, cool_down, hottest, measure_idle, warm_up

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


def test_idle_windows_give_the_idle_power_its_drift_and_the_net_energy():
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
    assert found.drift_watts == pytest.approx(2)
    assert found.windows == 2
    assert found.u_watts == pytest.approx(1, rel=0.01)  # the spread of the two windows
    assert idle_watts([trial]) == {}


def test_an_idle_window_of_no_length_is_refused():
    with pytest.raises(ValueError, match="seconds"):
        measure_idle(None, 0.2)


def test_cool_down_waits_until_three_degrees_above_the_start():
    clock = Clock()
    begin = clock.now
    wait = cool_down(lambda: 80 - (clock.now - begin) / 2, 40.0, clock=clock, sleep=clock.sleep)
    assert wait.reached
    assert wait.celsius <= 43
    assert wait.seconds == pytest.approx(74)


def test_cool_down_gives_up_in_time_and_says_so():
    clock = Clock()
    wait = cool_down(lambda: 80.0, 40.0, limit_seconds=12.5, clock=clock, sleep=clock.sleep)
    assert (wait.reached, wait.seconds) == (False, pytest.approx(12.5))


@pytest.mark.parametrize(("start", "now"), [(None, 50.0), (40.0, None)])
def test_cool_down_without_a_sensor_waits_for_nothing_and_claims_nothing(start, now):
    clock = Clock()
    wait = cool_down(lambda: now, start, clock=clock, sleep=clock.sleep)
    assert (wait.reached, wait.seconds) == (None, 0.0)


def test_warm_up_works_until_the_temperature_stands_still():
    clock = Clock()
    begin = clock.now
    wait = warm_up(lambda: clock.sleep(0.5), celsius=lambda: min(40 + (clock.now - begin), 70), clock=clock)
    assert wait.reached
    assert wait.celsius == 70
    assert 39 <= wait.seconds <= 41  # 30 s of rise, then 10 s within a degree
    assert wait.steps == pytest.approx(2 * wait.seconds)


def test_warm_up_without_a_sensor_works_the_whole_time():
    clock = Clock()
    wait = warm_up(lambda: clock.sleep(1), limit_seconds=7, clock=clock)
    assert (wait.reached, wait.steps, wait.celsius) == (None, 7, None)


def test_hottest_of_several_sensors():
    assert hottest({"gpu:0": {"temperature_celsius": 41, "sm_mhz": 900}, "gpu:1": {"temperature_celsius": None}}) == 41
    assert hottest({"gpu:0": {"name": "x"}}) is None


def test_a_steady_anchor_shows_no_drift_and_a_heating_one_does():
    random.seed(1)
    hours = [k * 0.5 for k in range(12)]
    seconds = [hour * 3600 for hour in hours]
    steady = anchor_drift(seconds, [100 + random.gauss(0, 1) for _ in hours])
    assert steady.significant is False
    assert 0.0 in steady.slope_joules_per_hour
    assert 100 in steady.mean_joules
    rising = anchor_drift(seconds, [100 + 2 * hour + random.gauss(0, 1) for hour in hours])
    assert rising.significant
    assert rising.relative_slope_per_hour == pytest.approx(2 / 105.5, rel=0.3)
    assert "a drift" in rising.describe()
    assert "no drift shown" in steady.describe()


def test_false_alarms_stay_near_their_promise():
    random.seed(2)
    alarms = sum(anchor_drift([0, 1, 2, 3, 4, 5], [random.gauss(100, 3) for _ in range(6)]).significant for _ in range(500))
    assert alarms <= 45  # 25 expected at 95 %, standard deviation 5


def test_few_anchors_say_what_they_can():
    two = anchor_drift([0, 10], [100, 102])
    assert (two.n, two.slope_joules_per_hour, two.significant) == (2, None, None)
    assert two.sd_joules == pytest.approx(2**0.5)
    assert anchor_drift([0], [100]).sd_joules is None
    with pytest.raises(ValueError, match="one length"):
        anchor_drift([0], [1, 2])
    assert anchor_drift_of([]) is None
