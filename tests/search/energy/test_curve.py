"""The power around an instant is what it surely was: where a node lies within bounds, so does the power beside it."""

from __future__ import annotations

import pytest

from joulefront.search.energy.curve import Curve

MS = 1_000_000


def curve(watts, half_ms, tick_ms=20, shift_ms=0):
    """Make a curve of a power per tick, each node known to within some milliseconds and every other one misplaced."""
    found, joules = Curve(), 0.0
    for number, power in enumerate([watts[0], *watts]):
        joules += power * tick_ms / 1000 if number else 0.0
        middle = (number * tick_ms + (shift_ms if number % 2 else 0)) * MS
        found.append(middle - half_ms * MS, middle + half_ms * MS, joules)
    return found


@pytest.mark.parametrize("shift", [-2, 2])
def test_misplaced_nodes_make_no_change_of_a_constant_power(shift):
    constant = curve([200.0] * 20, half_ms=2, shift_ms=shift)
    most, least = constant.watts_around(200 * MS, 100 * MS)
    assert least <= most
    assert [constant.change(i) for i in range(1, 20)] == [0.0] * 19


def test_a_step_is_known_but_for_what_the_places_leave_open():
    step = curve([60.0] * 10 + [350.0] * 10, half_ms=1)
    most, least = step.watts_around(200 * MS, 100 * MS)
    assert 0.8 * 290 < least - most < 290
    assert 0.8 * 290 < step.change(10) < 290


def test_nodes_that_may_have_met_tell_no_power():
    assert curve([60.0, 350.0], half_ms=11).watts_around(20 * MS, 20 * MS) is None
