"""Energy counters: wraps and restarts told apart, and refresh times that are never left out of their bounds."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.energy.background import due
from joulefront.search.energy.channel import MeterChannel, component
from joulefront.search.energy.counter import Event, fall
from joulefront.search.energy.curve import Curve
from joulefront.search.energy.readings import JITTER_NS, UpdatePeriod
from joulefront.search.energy.sources.rapl import Rapl

MS = 1_000_000


def refreshes(period, phase, reads):
    """Return, for each read that saw a new number, the bounds that the read gives and the true time of the last refresh."""
    found, before = [], reads[0]
    for now in reads[1:]:
        last = (now - phase) // period * period + phase
        if last > before:
            found.append((before, now, last))
        before = now
    return found


@pytest.mark.slow
@given(
    period=st.integers(8 * MS, 400 * MS),
    phase=st.integers(0, 400 * MS),
    bursts=st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=2, max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_the_bounds_always_hold_the_refresh_and_become_narrow(period, phase, bursts):
    reads = [10**9]
    for gap, close in [(1, True), *bursts]:
        reads.append(reads[-1] + gap * MS)
        if close:
            reads += [reads[-1] + i * 2 * MS for i in range(1, 3 * period // (2 * MS) + 3)]
    tick = UpdatePeriod(100 * MS)
    widest, before = 0, reads[0]
    last_change = reads[0]
    for now in reads[1:]:
        widest = max(widest, now - before)
        last = (now - phase) // period * period + phase
        if last > before:
            sharp = tick.period_ns / 4
            tick.observe(before, now, unbroken=widest <= sharp)
            low, high = before, now
            if tick.learnt:
                low = max(low, now - tick.longest_ns)
                assert tick.low_ns <= period <= tick.high_ns
            low, high = tick.locate(low, high)
            assert low <= last <= high
            assert high - low <= now - before
            widest, last_change = 0, now
        before = now
    assert last_change > reads[0]
    assert tick.contradictions == 0


def test_a_driver_that_changes_its_rhythm_is_noticed():
    tick = UpdatePeriod(100 * MS)
    time = 10**9
    for period in (100 * MS, 50 * MS):
        for _ in range(6):
            time += period
            tick.observe(time - MS, time + MS, unbroken=True)
    assert tick.contradictions >= 1
    assert tick.low_ns <= 50 * MS <= tick.high_ns


def test_deadlines_rise_keep_the_rate_and_never_fall_into_step():
    times = [due(number, 0.1) for number in range(1, 2001)]
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > 0
    assert max(gaps) < 0.2
    assert abs(times[-1] - 200.0) <= 0.05
    phases = [time % 0.1 / 0.1 for time in times]
    spread = [sum(low <= phase < low + 0.1 for phase in phases) for low in (0.0, 0.1, 0.8, 0.9)]
    assert min(spread) > 100


def test_an_irregular_driver_is_given_its_tolerance_and_not_a_new_rhythm():
    rng = random.Random(2)
    tick = UpdatePeriod(100 * MS)
    times = [10**9 + k * 100 * MS + rng.randint(-4 * MS, 4 * MS) for k in range(200)]
    for time in times[:120]:
        tick.observe(time - MS, time + MS, unbroken=True)
    assert tick.contradictions == 0
    assert 4 * MS < tick.jitter_ns < 20 * MS
    assert tick.low_ns <= 100 * MS <= tick.high_ns
    inside = 0
    for time in times[120:]:
        low, high = tick.locate(time - 60 * MS, time + 40 * MS)
        inside += low <= time <= high
    assert inside >= 0.95 * 80


def test_a_regular_driver_keeps_the_smallest_tolerance():
    tick = UpdatePeriod(100 * MS)
    for k in range(200):
        time = 10**9 + k * 100 * MS
        tick.observe(time - MS, time + MS, unbroken=True)
    assert tick.jitter_ns == JITTER_NS


@pytest.mark.parametrize("count", [1, 2, 64])
def test_the_bounds_nearest_to_an_instant_are_found_as_by_looking_at_all(count):
    rng, period = random.Random(count), UpdatePeriod(100)
    for begin in sorted(rng.sample(range(10_000), count)):
        period.sharp.append((begin, begin + 5, 1))
    for t_ns in range(-100, 10_100, 7):
        last = period.sharp[-1]
        nearest = last if t_ns >= last[0] else min(period.sharp, key=lambda bounds: abs(bounds[0] - t_ns))
        assert period._nearest(t_ns) == nearest[:2]


def test_a_driver_without_any_rhythm_is_not_trusted_with_one():
    rng = random.Random(3)
    tick = UpdatePeriod(100 * MS)
    times = [10**9 + k * 100 * MS + rng.randint(-45 * MS, 45 * MS) for k in range(300)]
    for time in times:
        tick.observe(time - MS, time + MS, unbroken=True)
    assert not tick.learnt or tick.jitter_ns > 15 * MS


REACH = 262_143.328851
SECOND = 10**9


def explain(before, after, seconds, watts, reach=REACH):
    return fall("rapl", before, after, 50 * SECOND, seconds, watts, reach)


@given(st.floats(1, 900), st.floats(0.05, 2), st.floats(0, 1))
def test_a_wrap_at_a_power_that_a_package_has_is_a_wrap(watts, seconds, share):
    drawn = watts * seconds
    before = REACH - share * drawn
    found = explain(before, before + drawn - REACH, seconds, 20.0)
    assert found.joules == pytest.approx(drawn, abs=1e-6)
    assert found.variance == 0
    assert [event.kind for event in found.events] == ["wrap"]


@pytest.mark.slow
@given(st.floats(2_000, 250_000), st.floats(0.05, 2))
def test_a_restart_is_no_wrap_of_a_quarter_of_a_million_joules(before, seconds):
    found = explain(before, 1.0, seconds, 20.0)
    assert found.joules == 1.0
    assert [event.kind for event in found.events] == ["reset"]
    assert "for a wrap it would have counted" in found.events[0].text
    assert found.variance**0.5 >= 20.0 * seconds


def test_after_a_long_gap_a_wrap_must_fit_the_power_before_it():
    assert explain(200_000, 10_000, 600, 120.0).events[0].kind == "wrap"
    assert explain(100_000, 40, 60, 20.0).events[0].kind == "reset"


def test_several_wraps_that_nobody_saw_are_counted_by_the_last_power_and_doubted():
    found = explain(1000.0, 500.0, 7800, 100.0)
    assert found.joules == pytest.approx(3 * REACH - 500, rel=1e-9)
    assert [event.kind for event in found.events] == ["wrap", "wrap", "wrap", "gap"]
    assert found.variance == pytest.approx((0.5 * 7800 * 100) ** 2)


def test_a_counter_without_a_range_can_only_have_restarted():
    found = explain(1000.0, 3.0, 0.1, 200.0, reach=None)
    assert found.joules == 3.0
    assert found.events[0].kind == "reset"


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_gap_belongs_to_the_windows_that_it_overlaps(end, length, t0, width):
    gap = Event(end * SECOND, "gap", seconds=float(length))
    truth = len(set(range(end - length, end)) & set(range(t0, t0 + width)))
    assert gap.overlap(t0 * SECOND, (t0 + width) * SECOND) == pytest.approx(truth)


def test_a_package_whose_counter_restarts_is_not_billed_a_quarter_of_a_million_joules(powercap, clock):
    zone = powercap.zone("intel-rapl:0", "package-0", uj=100_000_000_000)
    with Ledger([Rapl(powercap.root, clock=clock)], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        for step in range(1, 41):
            clock.advance(0.1)
            powercap.write(zone, 100_000_000_000 + step * 2_000_000 if step < 20 else (step - 19) * 2_000_000)
            ledger.sample()
    (part,) = window.record.components
    assert abs(part.joules - 80) <= 2 * part.u_random_joules + 0.5
    assert part.resets == 1
    assert part.wraps == 0
    assert "counter started again" in part.reason


def test_a_package_whose_counter_stands_still_is_unknown_and_no_zero(powercap, clock):
    powercap.zone("intel-rapl:0", "package-0", uj=5_000_000)
    with Ledger([Rapl(powercap.root, clock=clock)], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        for _ in range(40):
            clock.advance(0.1)
            ledger.sample()
    (part,) = window.record.components
    assert part.joules is None
    assert "stood still" in part.reason
    assert window.record.joules is None


def test_a_window_inside_of_an_outage_says_so(powercap, clock):
    zone = powercap.zone("intel-rapl:0", "package-0")
    with Ledger([Rapl(powercap.root, clock=clock)], interval_seconds=None, clock=clock) as ledger:
        joules = 0
        for step in range(200):
            clock.advance(0.1)
            joules += 2_000_000
            powercap.write(zone, joules)
            if not 50 <= step < 150:
                ledger.sample()
            if step == 80:
                t0_ns = clock.now_ns
        inside = ledger.query(t0_ns, t0_ns + 3 * SECOND).components[0]
        outside = ledger.query(ledger.t0_ns + SECOND, ledger.t0_ns + 3 * SECOND).components[0]
    assert inside.gap_seconds == pytest.approx(3.0)
    assert "3.0 s of it without a reading" in inside.reason
    assert outside.gap_seconds == 0
    assert outside.reason is None


def test_an_interrupt_between_two_columns_of_a_curve_shifts_nothing():
    curve = Curve()
    curve.append(0, 0, 0.0)
    curve.append(SECOND, SECOND, 10.0)
    curve.half.append(7)  # what an interrupt in the middle of an entry leaves behind
    curve.grown.append(99.0)
    curve.append(2 * SECOND, 2 * SECOND, 20.0)
    assert [len(column) for column in (curve.t, curve.half, curve.grown, curve.joules, curve.ripple)] == [3] * 5
    assert curve.half[2] == 0
    assert curve.at(2 * SECOND).joules == pytest.approx(20.0)


@pytest.mark.parametrize("reach", [None, REACH])
@given(st.floats(1e5, 2e5), st.floats(0.02, 0.4), st.floats(1, 900))
def test_the_counter_of_another_machine_is_no_energy_of_this_one(reach, before, share, watts):
    found = explain(before, share * before, 0.1, watts, reach)  # as after the move of a virtual machine: megawatts
    if share * before > max(1000, 10 * watts) * 0.101:
        assert found.joules == pytest.approx(0.1 * watts)
    assert found.variance**0.5 >= 0.1 * watts
    assert [event.kind for event in found.events] == ["reset"]


def test_a_counter_that_jumps_to_another_machines_is_one_that_began_anew():
    channel = MeterChannel(Capability("gpu:A", "nvml", True, tick_seconds=0.001), counts=True)
    for step in range(200):  # 300 W, and two megajoules more from the hundredth reading on
        channel.add(Reading("gpu:A", step * SECOND // 10, 1000, 1000 + 30.0 * step + (2e6 if step >= 100 else 0), 300.0))
    found = component(channel, 5 * SECOND, 15 * SECOND)
    assert found.joules == pytest.approx(3000, rel=1e-6)
    assert found.u_random_joules >= 30, "what that refresh drew is a guess"
    assert (found.resets, "another machine's" in found.reason) == (1, True)


def test_a_logger_that_writes_a_row_every_five_seconds_leaves_no_gap():
    channel = MeterChannel(Capability("wall", "wall", True, counts=False), counts=False)
    for row in range(40):
        t_s = 5 * row + (60 if row > 30 else 0)
        channel.add(Reading("wall", (100 + t_s) * SECOND, watts=50.0))
    regular, late = (component(channel, (100 + begin) * SECOND, (160 + begin) * SECOND) for begin in (20, 130))
    assert (regular.gap_seconds, regular.reads) == (0.0, 13)
    assert late.gap_seconds == pytest.approx(40.0)
    assert regular.joules == pytest.approx(3000)


def read_at_10_hz(readings, **facts):
    """Return a window from 2 s on over a counter that gave these readings, a tenth of a second apart."""
    channel = MeterChannel(Capability("board", "bench", True, **({"tick_seconds": 0.1} | facts)), counts=True)
    for step, joules in enumerate(readings):
        channel.add(Reading("board", (100 * SECOND) + step * SECOND // 10, 1000, joules))
    return component(channel, 102 * SECOND, 100 * SECOND + (len(readings) - 10) * SECOND // 10)


@pytest.mark.parametrize("facts", [{}, {"most_watts": 400.0}, {"range_joules": REACH}, {"range_joules": REACH, "most_watts": 400.0}])
@pytest.mark.parametrize("start", [1000.0, 1e5])
@pytest.mark.parametrize("wrong", [[0.0], [3.0] * 3, [3.0, 7.0, 1.0], [9e5], [9e5, 9e5 + 5, 9e5 + 10], [-300.0], [0.0, 9e5]])
def test_wrong_readings_between_right_ones_are_no_energy_and_said_to_be_left_out(wrong, start, facts):
    readings = [start + 5.0 * step for step in range(80)]
    readings[40 : 40 + len(wrong)] = [readings[40] + joules if joules < 0 else joules for joules in wrong]
    found = read_at_10_hz(readings, **facts)
    assert found.joules == pytest.approx(250, abs=0.01)
    assert found.u_random_joules < 5
    assert (found.resets, found.wraps) == (0, 0)
    assert "left out as wrong" in found.reason


def test_a_rise_that_stays_counts_as_far_as_it_may_be_one_and_says_that_it_is_uncertain():
    small, large = (read_at_10_hz([1000 + 5.0 * step + (jump if step >= 40 else 0) for step in range(80)]) for jump in (3e3, 1e6))
    assert small.joules == pytest.approx(3250)
    assert 2 * small.u_random_joules > 2700
    assert "more than it usually does: uncertain" in small.reason
    assert large.joules == pytest.approx(250, abs=2 * large.u_random_joules)
    assert "another machine's" in large.reason


@pytest.mark.parametrize("facts", [{}, {"most_watts": 750.0}, {"range_joules": REACH}, {"tick_seconds": None}])
def test_bursts_of_a_gpu_and_readers_that_sleep_are_as_they_were(facts):
    powers = [20.0] * 40 + [700.0] * 10 + [20.0] * 30
    readings = [10.0 + sum(powers[:step]) / 10 for step in range(len(powers) + 1)]
    found = read_at_10_hz(readings, **facts)
    assert found.joules == pytest.approx(2.1 * 20 + 700 + 20 * 2, abs=2 * found.u_random_joules + 1e-6)
    assert (found.reason, found.resets) == (None, 0)


@pytest.mark.parametrize("step_joules", [25.0, 3600.0])
def test_the_steps_of_a_coarse_counter_are_no_jumps(step_joules):
    readings = [0.7 * 100 * step // step_joules * step_joules for step in range(400)]
    found = read_at_10_hz(readings, tick_seconds=0.0, resolution_joules=step_joules, most_watts=800.0)
    assert found.joules == pytest.approx(70 * 370, abs=step_joules)
    assert found.reason is None


@pytest.mark.parametrize("reach", [20.0, 23.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_small_wraps_are_no_wrong_readings_however_close_the_readings_are(reach, seed):
    rng, channel, seconds = (
        random.Random(seed),
        MeterChannel(Capability("board", "bench", True, tick_seconds=0.05, range_joules=reach), counts=True),
        100.0,
    )
    for _ in range(300):
        seconds += rng.choice([0.00005, 0.03, 0.1, 0.15])
        channel.add(Reading("board", round(seconds * SECOND), 1000, 50 * seconds % reach))
    found = component(channel, 101 * SECOND, 110 * SECOND)
    assert found.joules == pytest.approx(450, abs=2)
    assert "left out" not in (found.reason or "")


def test_a_counter_that_falls_by_rounding_has_not_fallen():
    readings = [1e5 + 5.0 * (step // 2) - (1e-9 if step % 2 else 0.0) for step in range(80)]
    found = read_at_10_hz(readings)
    assert (found.joules, found.reason) == (pytest.approx(125), None)


def test_a_counter_that_turns_faster_than_it_is_read_says_so():
    found = read_at_10_hz([70.0 * step % 100 for step in range(80)], range_joules=100.0)
    assert found.joules == pytest.approx(3500)
    assert found.u_random_joules > 100
    assert "the counter, which turns every 100 J, may have wrapped unseen" in found.reason
    assert "read it more often" in found.reason
