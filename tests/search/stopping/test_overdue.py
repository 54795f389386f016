"""When a training must end although its epoch has not."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from joulefront.search.execution import watch
from joulefront.search.records.trial import INTERRUPTED
from joulefront.search.stopping import rules as session_rules
from joulefront.search.stopping.rules import Limits, Overdue, StopRules


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    monkeypatch.setattr(session_rules, "time", made)
    return made


def rules(clock: Clock, timeout: float | None = None, most: float | None = None) -> StopRules:
    nothing = cast(Any, None)
    study = cast(Any, SimpleNamespace(max_trial_seconds=most))
    return StopRules(study, nothing, Limits(seconds=timeout), nothing, threading.Event(), nothing, _started=clock.now)


def begun(made: StopRules, epochs: int = 3) -> Overdue:
    overdue = Overdue(made, epochs)
    overdue.begin()
    return overdue


def test_ten_times_the_slowest_training_so_far_is_the_limit(clock: Clock) -> None:
    made = rules(clock)
    made.epoch_seconds = watch.slowest_epoch(made.epoch_seconds, 30.0, 6)
    made.epoch_seconds = watch.slowest_epoch(made.epoch_seconds, 8.0, 8)
    overdue = begun(made)
    clock.now += 149.0
    assert overdue() is None
    clock.now += 2.0
    assert "ended after 150 s, 10 times what was expected" in str(overdue())
    assert not overdue.excused


def test_a_short_training_has_a_minute_and_the_first_one_hours(clock: Clock) -> None:
    made = rules(clock)
    first = begun(made)
    clock.now += 5 * 3600
    assert first() is None
    made.epoch_seconds = watch.slowest_epoch(made.epoch_seconds, 0.1, 1)
    short = begun(made)
    clock.now += 59.0
    assert short() is None
    clock.now += 2.0
    assert short() is not None


def test_a_training_that_is_slower_but_makes_epochs_goes_on(clock: Clock) -> None:
    made = rules(clock)
    made.epoch_seconds = watch.slowest_epoch(made.epoch_seconds, 1.0, 1)
    overdue = begun(made, epochs=50)
    for _ in range(50):
        clock.now += 59.0
        assert overdue() is None
        overdue.epoch()


def test_the_study_may_set_the_limit_and_counts_from_the_first_phase(clock: Clock) -> None:
    overdue = Overdue(rules(clock, most=2.0), 1)
    clock.now += 100.0
    assert overdue() is None  # the worker process starts
    overdue.begin()
    clock.now += 2.5
    assert "max_trial_seconds" in str(overdue())


def test_the_timeout_leaves_an_epoch_some_time_and_is_no_evidence(clock: Clock) -> None:
    made = rules(clock, timeout=5.0)
    overdue, starting = begun(made), Overdue(made, 1)
    clock.now += 14.0
    assert overdue() is None
    assert starting() == "the timeout of 5 s has passed"
    clock.now += 2.0
    assert overdue() == "the timeout of 5 s has passed, and 10 s more"
    assert overdue.excused


def test_ctrl_c_ends_a_start_at_once_and_a_training_at_the_second_time(clock: Clock) -> None:
    made = rules(clock)
    overdue, starting = begun(made), Overdue(made, 1)
    made.interrupted.set()
    assert starting() == INTERRUPTED
    assert overdue() is None
    made.at_once = True
    assert overdue() == INTERRUPTED
    assert overdue.excused


def test_features_have_no_epoch_to_wait_for_so_a_spent_budget_a_timeout_or_an_interrupt_ends_them(clock: Clock) -> None:
    spent = [1.0]
    for ends in ("budget", "timeout", "interrupt"):
        made = rules(clock, timeout=100.0)
        made.account = cast(Any, SimpleNamespace(spent_joules=lambda: spent[0]))
        made.limits = Limits(joules=5.0, seconds=100.0, label="5 J")
        overdue = begun(made)
        overdue.begin("features")
        assert overdue() is None
        if ends == "budget":
            spent[0] = 5.0
            assert overdue() == "the budget of 5 J is spent"
            assert overdue.excused, "its end says nothing about the candidate"
            overdue.begin("epoch")
            assert overdue() is None, "an epoch ends by itself"
            spent[0] = 1.0
        elif ends == "timeout":
            clock.now += 101.0
            assert "the timeout of 100 s has passed" in str(overdue())
        else:
            made.interrupted.set()
            assert overdue() == INTERRUPTED
