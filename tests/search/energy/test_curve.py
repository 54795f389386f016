"""The power around an instant is what it surely was: where a node lies within bounds, so does the power beside it; and values of energy."""

from __future__ import annotations

from random import Random

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


@pytest.mark.parametrize("shaped", [False, True])
def test_an_energy_is_the_difference_of_the_values_whose_uncertainty_it_leaves_out(shaped):
    random = Random(1)
    for _ in range(20):
        shape = curve([random.choice([50.0, 200.0, 201.0]) for _ in range(60)], half_ms=0) if shaped else None
        found, joules = Curve(shape=shape), 0.0
        for number in range(random.choice([0, 1, 2, 12])):
            joules += random.uniform(0.0, 40.0)
            found.append((100 * number - 3) * MS, (100 * number + 3) * MS, joules)
        for _ in range(50):
            begin, end = sorted(random.randrange(-1500 * MS, 2500 * MS) for _ in range(2))
            values = found.at(begin, 0.5), found.at(end, 0.5)
            expected = None if None in values else max(values[1].joules - values[0].joules, 0.0)
            assert found.between(begin, end, 0.5) == expected
