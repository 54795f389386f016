"""The estimate of a study's cost while it runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.expected import LEAST, RECENT, expected
from joulefront.search.limits import Limits

COSTS = st.lists(st.floats(0.1, 100.0), min_size=LEAST, max_size=60)


def test_without_a_limit_or_energy_or_enough_trials_nothing_is_said():
    assert expected([1.0] * 10, 10.0, Limits()) is None
    assert expected([1.0] * 10, None, Limits(trials=20)) is None
    assert expected([1.0] * (LEAST - 1), 4.0, Limits(trials=20)) is None
    assert expected([0.0] * 10, 0.0, Limits(trials=20)) is None


def test_equal_trials_leave_no_doubt_about_the_energy_of_those_to_come():
    found = expected([2.0] * 10, 20.0, Limits(trials=30))
    assert found.joules == pytest.approx(60.0)
    assert found.low_joules == found.high_joules == pytest.approx(60.0)
    assert found.trials == 30


def test_a_budget_is_turned_into_a_number_of_trials():
    found = expected([2.0, 2.0, 2.0, 2.0, 2.0], 10.0, Limits(joules=30.0))
    assert found.trials == pytest.approx(15)
    assert found.joules == 30.0
    assert "trials" in found.to_text()


def test_overhead_that_no_trial_pays_is_expected_to_go_on():
    assert expected([2.0] * 10, 40.0, Limits(trials=20)).joules == pytest.approx(80.0)


def test_the_latest_trials_count():
    assert expected([1.0] * 50 + [9.0] * RECENT, 50.0 + 9 * RECENT, Limits(trials=180)).joules == pytest.approx(320 + 100 * 9)


@given(COSTS, st.integers(0, 100))
def test_what_is_expected_lies_in_its_interval_and_never_below_what_is_spent(costs, more):
    spent = sum(costs)
    found = expected(costs, spent, Limits(trials=len(costs) + more))
    assert spent <= found.low_joules <= found.joules + 1e-9
    assert found.joules <= found.high_joules + 1e-9


@given(COSTS, st.floats(0.0, 1000.0), st.integers(0, 100))
def test_of_two_limits_the_first_to_be_reached_decides(costs, joules, more):
    spent = sum(costs)
    found = expected(costs, spent, Limits(joules=spent + joules, trials=len(costs) + more))
    assert found.joules <= spent + joules + 1e-6
    assert found.trials <= len(costs) + more + 1e-6


def test_nine_of_ten_studies_end_within_the_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        costs = rng.gamma(2.0, 5.0, size=90)
        found = expected(costs[:30].tolist(), float(costs[:30].sum()), Limits(trials=90))
        inside += found.low_joules <= costs.sum() <= found.high_joules
    assert 870 <= inside <= 930
