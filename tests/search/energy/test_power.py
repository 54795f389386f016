"""Noise is told from a course: what readings jump up and down by is ripple, what they follow is not."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy.background import due
from joulefront.search.energy.curve import Curve, PowerIntegral
from joulefront.search.energy.readings import Ripple
from joulefront.search.energy.sources.source import NANO, Capability

TENTH = 100_000_000


def read(power, count=400, begin_ns=10**12):
    """Read a power over time as the sampler does, at random times."""
    ripple = Ripple()
    for number in range(1, count + 1):
        t = due(number, 0.1)
        ripple.add(begin_ns + round(t * 1e9), power(t))
    return ripple.watts


@pytest.mark.parametrize("period", [0.005, 0.02, 0.05, 0.07, 0.1])
@pytest.mark.parametrize("duty", [0.1, 0.5])
def test_pulses_faster_than_the_readings_are_known_by_their_standard_deviation(period, duty):
    found = read(lambda t: 350.0 if t % period < duty * period else 60.0)
    truth = 290 * math.sqrt(duty * (1 - duty))
    assert truth * 0.8 < found < truth * 2


def test_independent_readings_have_their_own_standard_deviation():
    rng = random.Random(1)
    found = read(lambda _: rng.gauss(200, 10))
    assert 8 < found < 18


@pytest.mark.parametrize(
    "power",
    [lambda t: 200.0, lambda t: 60 + 10 * t, lambda t: 60.0 if t < 17.3 else 350.0, lambda t: 205 + 145 * math.sin(t)],
    ids=["constant", "ramp", "step", "slow sine"],
)
def test_what_readings_can_follow_is_no_ripple(power):
    assert read(power) < 3.0


def test_a_load_that_turned_quiet_is_forgiven_within_a_minute():
    noisy = read(lambda t: 350.0 if t % 0.05 < 0.025 else 60.0, count=200)
    later = read(lambda t: 205.0 if t > 20 else 350.0 if t % 0.05 < 0.025 else 60.0, count=2000)
    assert later < 0.05 * noisy


def test_fewer_than_three_readings_say_nothing():
    ripple = Ripple()
    assert ripple.watts is None
    for number in range(2):
        ripple.add(number * TENTH, 100.0 * number)
        assert ripple.watts is None
    ripple.add(2 * TENTH, 0.0)
    assert ripple.watts is not None


def test_readings_of_a_close_look_are_left_out():
    ripple = Ripple()
    for number in range(1000):
        ripple.add(number * 3_000_000, 350.0 if number % 2 else 60.0)
    few = Ripple()
    for number in range(0, 1000, 14):
        few.add(number * 3_000_000, 350.0 if number % 2 else 60.0)
    assert ripple.watts == few.watts


def test_readings_with_a_gap_between_them_are_no_neighbours():
    ripple = Ripple()
    for number, watts in enumerate([0.0, 100.0]):
        ripple.add(number * TENTH, watts)
    ripple.add(50 * TENTH, 0.0)
    assert ripple.watts is None


@pytest.mark.slow
@given(st.lists(st.floats(0, 1000), min_size=3, max_size=60), st.floats(0, 500))
def test_a_constant_on_top_changes_nothing(readings, more):
    one, other = Ripple(), Ripple()
    for number, watts in enumerate(readings):
        one.add(number * TENTH, watts)
        other.add(number * TENTH, watts + more)
    assert other.watts == pytest.approx(one.watts, abs=1e-3)


@pytest.mark.parametrize("held", [2, 3])
def test_pulses_as_long_as_the_sensor_holds_its_reading_are_ripple(held):
    ripple = Ripple()
    for number in range(64):
        ripple.add(number * NANO // 10, 350.0 if number // held % 2 else 60.0)
    assert 0.6 * 145 < ripple.bent_watts < 1.3 * 145


def test_a_single_step_is_forgotten_and_is_no_slow_pulse():
    ripple = Ripple()
    for number in range(16):
        ripple.add(number * NANO // 10, 60.0 if number < 8 else 350.0)
    assert ripple.wide_watts == ripple.bent_watts < 60
    for number in range(16, 96):
        ripple.add(number * NANO // 10, 350.0)
    assert ripple.wide_watts == 0


def test_how_long_a_sensor_holds_is_learnt_from_its_own_noise_alone():
    noisy, clean = Ripple(), Ripple()
    rng = random.Random(4)
    held = {}
    for number in range(200):
        t = number * NANO // 10
        noisy.add(t, held.setdefault(number // 10, 200 + rng.gauss(0, 1)))
        clean.add(t, 60.0 if number // 10 % 2 else 350.0)
    assert noisy.hold_ns == pytest.approx(NANO, rel=0.15)
    assert clean.hold_ns == 0  # it is the load that rests


@pytest.mark.parametrize("held", [False, True])
def test_a_sensor_that_smooths_may_hide_a_swing_that_its_readings_barely_show(held):
    swings = {}
    for smooths in (False, True):
        power = PowerIntegral(Capability("gpu", "scripted", True, smooths=smooths))
        curve = Curve()
        for number in range(32):
            power.add(number * NANO // 10, 200.0 + (4.0 if number % 2 else -4.0 if held else 0.0), curve)
        swings[smooths] = power.swing_watts
    assert swings[True] > 5 * swings[False]
    assert swings[True] <= 0.6 * 204


def looks(power, count=200, mean=25_000_000, seed=3):
    """Let a sensor look for 25 ms of every 100, with 0.2 % of noise of its own."""
    ripple, rng = Ripple(part_time=True), random.Random(seed)
    for number in range(1, count):
        end = number * NANO // 10
        watts = sum(power((end - mean * k // 25) / NANO) for k in range(25)) / 25
        ripple.add(end, watts * (1 + rng.gauss(0, 0.002)))
    return ripple


def test_a_sensor_that_looks_now_and_then_tells_rest_and_work_from_pulses_it_is_nearly_in_step_with():
    rest_and_work = looks(lambda t: 60.0 if t % 1.93 < 0.81 else 350.0)
    nearly_in_step = looks(lambda t: 60.0 if t % 0.1037 < 0.05 else 350.0)
    assert nearly_in_step.wide_watts > 145  # the standard deviation of the power itself
    assert rest_and_work.wide_watts < 0.4 * nearly_in_step.wide_watts


def test_noise_of_its_own_is_no_pulse_to_a_sensor_that_looks_now_and_then():
    assert looks(lambda t: 200.0).wide_watts == 0.0


@pytest.mark.slow
def test_a_load_that_pulsed_before_and_looks_constant_now_may_be_in_step():
    found = looks(lambda t: 60.0 if t % (0.137 if t < 10 else 0.1) < 0.05 else 350.0, count=200)
    assert found.wide_watts > 60
    assert looks(lambda t: (60.0 if t % 0.137 < 0.05 else 350.0) if t < 10 else 200.0, count=2000).wide_watts < 5


def test_a_few_steps_of_the_load_hide_no_swing_in_a_sensor_that_smooths():
    power, curve = PowerIntegral(Capability("gpu", "scripted", True, smooths=True)), Curve()
    for number in range(64):
        power.add(number * NANO // 10, 350.0 if number // 16 % 2 else 60.0, curve)
    assert power.swing_watts == power.ripple.bent_watts


def test_how_long_a_value_is_held_is_told_by_close_looks_and_not_by_far_ones():
    ripple, rng, held = Ripple(), random.Random(4), {}
    looks = [k * 2_000_000 for k in range(150)] + [NANO + k * NANO // 10 for k in range(300)]
    for t in looks:
        ripple.add(t, held.setdefault(t // 20_000_000, 200 + rng.gauss(0, 1)))
    assert ripple.settled
    assert ripple.hold_ns == pytest.approx(20e6, rel=0.15)


@pytest.mark.parametrize("part_time", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_how_unsteady_the_readings_are_is_told_as_by_looking_at_all_of_them_each_time(part_time, seed):
    rng, ripple, t = random.Random(seed), Ripple(part_time), 10**12
    for number in range(200):
        t += TENTH + rng.randrange(TENTH)
        ripple.add(t, [200 + 50 * (number // 7 % 2) + rng.gauss(0, 3), rng.choice([50.0, 300.0]), 100.0 + number, 200.0][seed])
        seen = list(ripple._lately)
        room = 0.05 * (max(seen, default=0.0) - min(seen, default=0.0))
        alike = [max(three) - min(three) <= room for three in zip(seen, seen[1:], seen[2:], strict=False)]
        steady = sum(any(alike[max(i - 2, 0) : i + 1]) for i in range(len(seen)))
        assert not seen or ripple._unsteady(room) == min(max((1 - steady / len(seen)) / 0.06 - 1, 0.0), 1.0)
