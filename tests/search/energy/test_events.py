"""A counter that went down: a wrap where the power that it implies is one, a restart otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy import Ledger
from joulefront.search.energy.counter import Event, fall
from joulefront.search.energy.curve import Curve
from joulefront.search.energy.sources.rapl import Rapl

REACH = 262_143.328851
SECOND = 10**9


def explain(before, after, seconds, watts, reach=REACH):
    return fall("rapl", before, after, 50 * SECOND, seconds, watts, reach, 0.001)


@given(st.floats(1, 900), st.floats(0.05, 2), st.floats(0, 1))
def test_a_wrap_at_a_power_that_a_package_has_is_a_wrap(watts, seconds, share):
    drawn = watts * seconds
    before = REACH - share * drawn
    found = explain(before, before + drawn - REACH, seconds, 20.0)
    assert found.joules == pytest.approx(drawn, abs=1e-6)
    assert found.variance == 0
    assert [event.kind for event in found.events] == ["wrap"]


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
    assert found.variance == pytest.approx(REACH**2 / 12)


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
