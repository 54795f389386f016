"""The short form of the programs beside this file: one fault each, in real processes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import scenarios
from faults.kills import kill_study

pytestmark = pytest.mark.slow


def check(fault: Callable[..., list[str]], folder: Path, **how: float) -> None:
    try:
        assert fault(folder, **how) == []
    except scenarios.CannotRun as reason:
        pytest.skip(str(reason))


@pytest.mark.postgresql
def test_a_study_outlives_a_restart_of_its_database(tmp_path: Path) -> None:
    check(scenarios.restarted_database, tmp_path, down_seconds=2.0)


def test_what_does_not_fit_on_the_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    check(scenarios.full_disk_of_results, tmp_path)


def test_a_study_waits_for_a_locked_database(tmp_path: Path) -> None:
    check(scenarios.locked_database, tmp_path, seconds=2.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_device_that_another_user_holds_is_not_given_away(tmp_path: Path) -> None:
    check(scenarios.lease_of_another_user, tmp_path)


def test_a_study_with_two_workers_outlives_the_kill_of_a_worker_and_of_the_whole_group(tmp_path: Path) -> None:
    row = kill_study(tmp_path, 2, whom=("worker", "group"), trials=24, wait_seconds=1.0)
    assert row.wrong == []
    assert row.ended
    assert row.sessions == 2
