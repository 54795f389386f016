"""Refresh times learnt from reads: the truth is never left out of the bounds."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy.counter import JITTER_NS, UpdatePeriod
from joulefront.search.energy.sampler import due

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


def test_a_driver_without_any_rhythm_is_not_trusted_with_one():
    rng = random.Random(3)
    tick = UpdatePeriod(100 * MS)
    times = [10**9 + k * 100 * MS + rng.randint(-45 * MS, 45 * MS) for k in range(300)]
    for time in times:
        tick.observe(time - MS, time + MS, unbroken=True)
    assert not tick.learnt or tick.jitter_ns > 15 * MS
