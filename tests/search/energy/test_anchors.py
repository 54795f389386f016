"""UTC of instants on the monotonic clock, over suspends and clocks that are set, and what a forked child is told."""

from __future__ import annotations

import gc
import os
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.background import _in_child
from joulefront.search.energy.windows import Anchors

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Wall:
    """A wall clock that goes with the monotonic one, until it is set or the machine sleeps."""

    def __init__(self, clock):
        self.clock, self.begin, self.jumped = clock, clock.now_ns, timedelta()

    def __call__(self):
        return NOON + timedelta(microseconds=(self.clock.now_ns - self.begin) / 1000) + self.jumped


def beats(anchors, clock, count):
    for _ in range(count):
        clock.advance(5)
        anchors.resync()


def near(text, moment):
    return abs(datetime.fromisoformat(text) - moment) <= timedelta(milliseconds=20)


def test_one_anchor_tells_every_instant_in_utc():
    anchors = Anchors(lambda: 10**12, lambda: NOON)
    assert anchors.iso(10**12 + 90 * 10**9) == "2026-01-01T12:01:30.000+00:00"


@pytest.mark.parametrize("jump", [timedelta(hours=8), timedelta(seconds=-90)])
def test_an_instant_is_told_from_the_anchor_that_is_nearest_in_time(clock, jump):
    wall = Wall(clock)
    anchors = Anchors(clock, wall)
    beats(anchors, clock, 200)
    before, told = clock.now_ns, wall()
    wall.jumped = jump  # the machine slept, or somebody set the clock
    beats(anchors, clock, 200)
    after, later = clock.now_ns, wall()
    assert near(anchors.iso(before), told)
    assert near(anchors.iso(before - 300 * 10**9), told - timedelta(seconds=300))
    assert near(anchors.iso(after), later)
    assert near(anchors.iso(after + 3 * 10**9), later + timedelta(seconds=3))
    assert near(anchors.iso(before + 7 * 10**9), told + jump + timedelta(seconds=7))
    assert anchors.iso(after).endswith("+00:00")


def test_hundreds_of_beats_without_a_jump_keep_one_anchor_and_a_drift_some(clock):
    wall = Wall(clock)
    anchors = Anchors(clock, wall)
    beats(anchors, clock, 500)
    assert len(anchors._stretches) == 1
    for _ in range(500):
        wall.jumped += timedelta(microseconds=100)  # 20 millionths, a usual quartz
        beats(anchors, clock, 1)
    assert 2 <= len(anchors._stretches) <= 5
    assert near(anchors.iso(clock.now_ns), wall())


def test_a_window_after_a_suspend_begins_at_its_own_time(scripted, clock, monkeypatch):
    wall = Wall(clock)
    monkeypatch.setattr(Anchors.__init__, "__defaults__", (None, wall))
    source = scripted((Capability("soc", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 10 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        clock.advance(60)
        ledger.checkpoint()
        with ledger.window("before") as before:
            clock.advance(1)
        wall.jumped = timedelta(hours=8)
        clock.advance(5)
        ledger.checkpoint()
        begun = wall()
        with ledger.window("after") as after:
            clock.advance(1)
        ledger.checkpoint()
        assert near(before.record.t0_utc, NOON + timedelta(seconds=60))
        assert near(after.record.t0_utc, begun)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_thousand_ledgers_leave_nothing_to_be_called_in_a_forked_child():
    gc.collect()
    before = len(_in_child)
    ledgers = []
    for _ in range(1000):
        ledger = Ledger([], interval_seconds=None).start()
        ledger.stop()
        ledgers.append(weakref.ref(ledger))
        del ledger
    gc.collect()
    assert not [ledger for ledger in ledgers if ledger() is not None]
    assert len(_in_child) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_of_many_ledgers_is_inert_in_all_that_live():
    ledgers = [Ledger([], interval_seconds=None).start() for _ in range(3)]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(ledger.state == "inert" for ledger in ledgers) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for ledger in ledgers:
        ledger.stop()
