"""The estimate of a study's cost while it runs."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.trials import make_trial
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.running.progress import Reporter
from joulefront.search.stopping.projection import DRIFT, LEAST, RECENT, expected
from joulefront.search.stopping.rules import Limits

TRIAL = make_trial(0, "complete", {}, 1, values=(0.9, 1.0), train_joules=1.0, increment_joules=1.0)
COSTS = st.lists(st.floats(0.1, 100.0), min_size=LEAST, max_size=60)


def test_without_a_limit_or_energy_or_enough_trials_nothing_is_expected():
    assert expected([1.0] * 10, 10.0, Limits()) is None
    assert expected([1.0] * 10, None, Limits(trials=20)) is None
    assert expected([1.0] * (LEAST - 1), 4.0, Limits(trials=20)) is None
    assert expected([0.0] * 10, 0.0, Limits(trials=20)) is None


def test_equal_trials_leave_only_the_doubt_that_the_search_moves_on():
    found = expected([2.0] * 10, 20.0, Limits(trials=30))
    assert found.joules == pytest.approx(60.0)
    assert found.high_joules - 60.0 == pytest.approx(1.6449 * DRIFT * 40.0)
    assert 60.0 - found.low_joules == pytest.approx(1.6449 * DRIFT * 40.0)
    assert found.trials == 30


def test_what_a_session_pays_once_is_not_expected_again_with_every_trial():
    # 20 J to import and warm up, then ten trials of 0.2 J with 0.3 J of deciding each.
    found = expected([0.2] * 10, 25.0, Limits(trials=40), begun_joules=20.0)
    assert found.joules == pytest.approx(25.0 + 30 * 0.5)


def test_a_continued_study_learns_its_rest_from_its_own_session():
    earlier = [0.2] * 20  # in sessions that have cost 50 J
    assert expected(earlier, 70.0, Limits(trials=40), begun_joules=70.0, before=20) is None
    found = expected([*earlier, 0.2, 0.2], 71.0, Limits(trials=40), begun_joules=70.0, before=20)
    assert found.joules == pytest.approx(71.0 + 18 * (0.2 + 0.3))


def test_a_budget_is_turned_into_a_number_of_trials():
    found = expected([2.0, 2.0, 2.0, 2.0, 2.0], 10.0, Limits(joules=30.0))
    assert found.trials == pytest.approx(15)
    assert found.joules == 30.0
    assert "trials" in found.to_text()


def test_overhead_that_no_trial_pays_is_expected_to_go_on():
    assert expected([2.0] * 10, 40.0, Limits(trials=20)).joules == pytest.approx(80.0)


def test_the_latest_trials_count():
    assert expected([1.0] * 50 + [9.0] * RECENT, 50.0 + 9 * RECENT, Limits(trials=180)).joules == pytest.approx(320 + 100 * 9)


@pytest.mark.slow
@given(COSTS, st.integers(0, 100))
def test_what_is_expected_lies_in_its_interval_and_never_below_what_is_spent(costs, more):
    spent = sum(costs)
    found = expected(costs, spent, Limits(trials=len(costs) + more))
    assert spent <= found.low_joules <= found.joules + 1e-9
    assert found.joules <= found.high_joules + 1e-9


@pytest.mark.slow
@given(COSTS, st.floats(0.0, 1000.0), st.integers(0, 100))
def test_of_two_limits_the_first_to_be_reached_decides(costs, joules, more):
    spent = sum(costs)
    found = expected(costs, spent, Limits(joules=spent + joules, trials=len(costs) + more))
    assert found.joules <= spent + joules + 1e-6
    assert found.trials <= len(costs) + more + 1e-6


@pytest.mark.slow
def test_nine_of_ten_studies_end_within_the_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        costs = rng.gamma(2.0, 5.0, size=90)
        costs[30:] *= max(0.0, 1.0 + DRIFT * rng.normal())
        found = expected(costs[:30].tolist(), float(costs[:30].sum()), Limits(trials=90))
        inside += found.low_joules <= costs.sum() <= found.high_joules
    assert 870 <= inside <= 930


def test_the_time_left_leaves_out_what_a_session_waits_for_once():
    run = Run(
        "r", Path(), ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), trials=(TRIAL, replace(TRIAL, number=1)), bill=Bill()
    )
    account = SimpleNamespace(spent_joules=lambda: 22.0)
    folder = SimpleNamespace(run=lambda study, bill: run)
    session = SimpleNamespace(folder=folder, trials_before=0, warmed_joules=5.0, warmed_seconds=20.0)
    for limits, left in ((Limits(trials=10), 8 * 0.5), (Limits(joules=30.0), 8 * 0.5)):
        study = SimpleNamespace(complete_only=False)
        rules = SimpleNamespace(study=study, limits=limits, account=account, seconds=lambda: 61.0)
        told = []
        Reporter(session, None, rules, told.append, _start_seconds=40.0, _start_joules=15.0).tell("trial", "")
        assert told[0].seconds_left == pytest.approx(left)
