"""When a record is final: once every meter has been heard after it, or is dead; and what happens when a meter is found out later."""

from __future__ import annotations

import threading
import time

import pytest

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.sources.wall import CsvTail, Wall, open_wall
from joulefront.search.running.baselines import measure_idle


@pytest.fixture
def counter(scripted, clock):
    """A meter that counts, exact at every instant, of 100 W."""
    return scripted((Capability("cpu:pkg0", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 100.0 * t)


class Logger:
    """A CSV file to which a row of constant power is added every so often, in hand-turned time."""

    def __init__(self, path, clock, every=2.0, watts=150.0):
        self.path, self.clock, self.every, self.watts = path, clock, every, watts
        self.next = clock.now_ns / 1e9
        self.dead = False
        path.write_text("timestamp,watts\n")
        self.write(self.next)

    def utc(self):
        return self.clock.now_ns / 1e9

    def write(self, now):
        while not self.dead and self.next <= now:
            with self.path.open("a") as file:
                file.write(f"{self.next:.6f},{self.watts}\n")
            self.next += self.every

    def meter(self):
        return Wall(CsvTail(self.path), str(self.path), poll_seconds=None, clock=self.clock, utc=self.utc)


def advance(ledger, clock, seconds, logger):
    for _ in range(round(seconds / 0.1)):
        clock.advance(0.1)
        logger.write(clock.now_ns / 1e9)
        ledger.sample()


def test_a_logger_with_a_row_every_two_seconds_ends_with_joules_in_the_record(counter, clock, tmp_path):
    logger = Logger(tmp_path / "wall.csv", clock)
    with Ledger([counter, logger.meter()], interval_seconds=None, clock=clock) as ledger:
        advance(ledger, clock, 7.1, logger)
        with ledger.window("trial") as window:
            advance(ledger, clock, 3.0, logger)
        at_once = window.record
        advance(ledger, clock, 3.0, logger)
        part = window.record.component("wall")
        asked_afresh = ledger.query(window.t0_ns, window.t1_ns).component("wall")
    assert at_once.joules == pytest.approx(300, rel=1e-3)  # the component that counts is known at once
    assert part.joules == pytest.approx(450, rel=1e-3)
    assert part.joules == asked_afresh.joules
    assert part.tick_seconds == 2.0
    assert part.below_resolution  # 3 s are less than two rows
    assert window.record is window.record  # and now it stays


def test_a_record_waits_for_the_wall_meters_next_reading_and_no_longer(counter, clock, tmp_path):
    logger = Logger(tmp_path / "wall.csv", clock)
    with Ledger([counter, logger.meter()], interval_seconds=None, clock=clock) as ledger:
        advance(ledger, clock, 8.1, logger)
        with ledger.window("trial") as window:
            advance(ledger, clock, 5.0, logger)
        assert window.record is not window.record  # asked again, it is put together again
        advance(ledger, clock, 2.0, logger)
        assert window.record is window.record


def test_a_wall_meter_that_died_does_not_hold_records_open_for_ever(counter, clock, tmp_path):
    logger = Logger(tmp_path / "wall.csv", clock)
    with Ledger([counter, logger.meter()], interval_seconds=None, clock=clock) as ledger:
        advance(ledger, clock, 8.1, logger)
        logger.dead = True
        with ledger.window("trial") as window:
            advance(ledger, clock, 1.0, logger)
        assert window.record is not window.record
        advance(ledger, clock, 6.0, logger)  # three of its own intervals
        assert window.record is window.record
        with ledger.window("later") as window:
            advance(ledger, clock, 1.0, logger)
        assert window.record is window.record  # it is known to be dead
        assert window.record.component("wall").joules is None
        assert window.record.joules == pytest.approx(100, rel=1e-3)


def test_a_meter_that_was_never_heard_holds_no_record_open_for_long(scripted, clock, counter):
    mute = scripted((Capability("soc", "mute", True),), clock, fails="no answer", name="mute")
    with Ledger([counter, mute], interval_seconds=None, clock=clock) as ledger:
        clock.advance(6)
        with ledger.window("trial") as window:
            clock.advance(1)
        assert window.record is window.record
        assert window.record.joules is None


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True])
def test_closing_again_with_settle_waits_for_the_plug(inside):
    asked = []

    def plug():
        asked.append(time.monotonic_ns())
        return 60.0

    with Ledger([open_wall(plug, poll_seconds=0.4)]) as ledger:
        time.sleep(1.0)
        with ledger.window("w") as window:
            time.sleep(0.5)
            if inside:
                window.close(settle=True)
        record = window.close(settle=True)
        assert asked[-1] > window.t1_ns  # somebody has asked the plug since
        assert record is window.record  # final
    assert record.component("wall").joules == pytest.approx(60 * record.seconds, rel=1e-6)


@pytest.mark.slow
def test_idle_power_is_learnt_from_a_record_that_is_final():
    with Ledger([open_wall(lambda: 40.0, poll_seconds=0.4)]) as ledger:
        time.sleep(1.0)
        record = measure_idle(ledger, 1.0)
        time.sleep(0.5)
        later = ledger.query(record.t0_ns, record.t1_ns).component("wall")
    assert later.joules == record.component("wall").joules == pytest.approx(40 * record.seconds, rel=1e-6)
    assert later.u_random_joules == pytest.approx(record.component("wall").u_random_joules, rel=1e-9)  # nothing was still to come
    assert later.idle_watts == pytest.approx(40, rel=1e-6)


def test_waiting_ends_when_nobody_reads_any_more(scripted, clock, counter):
    counter.capabilities = (Capability("gpu:0", "scripted", True),)  # its refreshes are to be learnt
    threads = threading.active_count()
    with Ledger([counter], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("w")
        begin = time.monotonic()
        window.close(settle=True)
        assert time.monotonic() - begin < 10  # else 15
        assert threading.active_count() <= threads


def test_windows_that_were_final_follow_when_their_counter_is_found_out(bench):
    machine = bench(kind="constant", high=200.0, gain=0.1)
    parent = machine.ledger.open("trial")
    epochs = []
    for _ in range(8):
        epoch = machine.ledger.open("epoch", kind="epoch", parent=parent)
        machine.run(0.9)
        epoch.close()
        epochs.append(epoch)
        machine.run(0.3)
        assert epoch.record.joules < 40 or "instead" in epoch.record.components[0].reason  # asked for at once, as a progress bar does
    parent.close()
    machine.run(0.5)
    for epoch in epochs:
        assert epoch.record.joules == pytest.approx(180, rel=0.1)
        assert epoch.joules() == epoch.record.joules
        assert "instead" in epoch.record.components[0].reason
        assert epoch.record.joules == machine.ledger.query(epoch.t0_ns, epoch.t1_ns).joules
    ends = [parent.t0_ns, *(t for epoch in epochs for t in (epoch.t0_ns, epoch.t1_ns)), parent.t1_ns]
    own = sum(machine.ledger.query(ends[k], ends[k + 1]).joules for k in range(0, len(ends), 2))
    assert sum(epoch.record.joules for epoch in epochs) + own == pytest.approx(parent.record.joules, rel=1e-9)
