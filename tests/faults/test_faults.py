"""The short form of the programs beside this file: one fault each, in real processes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import scenarios
from faults.kills import kill_study
from helpers.postgresql import NotInstalledError, postgresql_server

pytestmark = pytest.mark.slow


def check(fault: Callable[..., list[str]], folder: Path, **how: float) -> None:
    try:
        assert fault(folder, **how) == []
    except scenarios.CannotRun as reason:
        pytest.skip(str(reason))


def test_a_study_whose_parts_are_killed_in_its_middle_ends_with_right_books_and_a_right_front(tmp_path: Path) -> None:
    row = kill_study(tmp_path, 2, trials=8, whom=("worker", "group"))
    assert (row.wrong, row.ended, row.kills) == ([], True, {"parent": 0, "worker": 1, "group": 1})


@pytest.mark.postgresql
def test_workers_end_with_a_killed_parent_and_its_study_goes_on_in_postgresql(tmp_path: Path) -> None:
    try:
        with postgresql_server() as server:
            row = kill_study(tmp_path, 1, trials=6, whom=("parent",), storage=server.url)
    except NotInstalledError as reason:
        pytest.skip(str(reason))
    assert (row.wrong, row.ended, row.kills["parent"]) == ([], True, 1)


@pytest.mark.postgresql
def test_a_study_outlives_a_restart_of_its_database(tmp_path: Path) -> None:
    check(scenarios.restarted_database, tmp_path, down_seconds=2.0)


def test_a_study_waits_for_a_locked_database(tmp_path: Path) -> None:
    check(scenarios.locked_database, tmp_path, seconds=2.0)


def test_a_step_of_the_clock_changes_no_duration(tmp_path: Path) -> None:
    check(scenarios.clock_step, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_device_that_another_user_holds_is_not_given_away(tmp_path: Path) -> None:
    check(scenarios.lease_of_another_user, tmp_path)
