"""What fails beside the readings: sources at their extras, disks, the thread. Nothing of it ends a training."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from joulefront.search.energy import Capability, Ledger, Reading, host
from joulefront.search.energy.background import MOST, Warnings
from joulefront.search.energy.host import HostMonitor
from joulefront.search.energy.journal import Journal, lines
from joulefront.search.energy.sources.cpu_time import CpuTime


class Rude:
    """A source whose readings are right, and which raises at one of its extras."""

    name = "rude"

    def __init__(self, bad, error=None):
        self.bad, self.error, self.closed = bad, error or ValueError("boom"), 0

    def probe(self):
        return (Capability("soc", self.name, True, tick_seconds=0.0),)

    def read(self):
        now = time.monotonic_ns()
        return (Reading("soc", now, 0, 50.0 * now / 1e9),)

    def _say(self, what, answer):
        if what in self.bad:
            raise self.error
        return answer

    def utilisation(self):
        return self._say("utilisation", {"soc": 0.5})

    def edges(self):
        return self._say("edges", {"soc": {"temperature_celsius": 40}})

    def foreign(self):
        return self._say("foreign", {})

    def devices(self):
        return self._say("devices", {})

    def close(self):
        self.closed += 1
        self._say("close", None)


@pytest.mark.parametrize("bad", ["utilisation", "edges", "foreign", "devices"])
def test_a_source_that_raises_at_an_extra_is_on_record_and_ends_nothing(bad, tmp_path):
    source = Rude({bad})
    with Ledger([source], interval_seconds=0.01, checkpoint_seconds=0.02, file=tmp_path / "ledger.jsonl") as ledger:
        time.sleep(0.1)
        with ledger.window("trial") as window:
            time.sleep(0.2)
        assert ledger.reading
        total = ledger.total()
    record = window.record
    assert record.joules == pytest.approx(50 * record.seconds, rel=1e-3)
    assert record.components[0].reads >= 5
    said = " ".join([*record.meter["troubles"], *total.meter["troubles"]])
    assert f"rude failed at {bad}: ValueError('boom')" in said
    assert source.closed == 1


@pytest.mark.parametrize("what", ["utilisation", "edges", "foreign", "devices"])
@pytest.mark.parametrize("answer", [None, 5, {"soc": None}, {"soc": "x"}, {"soc": 2.0}])
def test_a_source_that_answers_nonsense_at_an_extra_is_on_record_too(what, answer):
    source = Rude(set())
    setattr(source, what, lambda: answer)
    with Ledger([source], interval_seconds=None) as ledger, ledger.window("trial") as window:
        pass
    assert f"rude failed at {what}" in ledger.total().meter["troubles"][0]
    assert window.record.joules is not None


def test_facts_of_a_device_become_those_that_json_knows(tmp_path):
    source = Rude(set())
    source.edges = lambda: {"soc": {"celsius": np.float32(40), "clock": np.int64(7), "fan": math.nan, "serial": b"x"}}
    with Ledger([source], interval_seconds=None) as ledger, ledger.window("trial") as window:
        pass
    assert window.record.edges["end"] == {"soc": {"celsius": 40.0, "clock": 7, "fan": None, "serial": "b'x'"}}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_ended_is_said_in_the_record():
    source = Rude({"utilisation"}, SystemExit(1))  # nobody catches this one: a source ends the thread that asks it
    source.bad.clear()
    with Ledger([source], interval_seconds=0.01) as ledger:
        source.bad.add("utilisation")
        until = time.monotonic() + 5
        while ledger.reading and time.monotonic() < until:
            time.sleep(0.01)
        source.bad.clear()
        with ledger.window("trial") as window:
            time.sleep(0.05)
        begin = time.monotonic()
        record = window.close(settle=True)  # nobody will read: nothing to wait for
        assert time.monotonic() - begin < 10  # else 15
    assert "the thread that reads the meters has ended" in record.meter["troubles"][0]
    assert record.joules == pytest.approx(50 * record.seconds, rel=1e-3)  # its edges were read


def test_what_goes_wrong_in_the_thread_is_told_and_the_thread_goes_on(monkeypatch):
    with Ledger([CpuTime()], interval_seconds=0.01) as ledger:
        window = ledger.open("trial")
        monkeypatch.setattr(HostMonitor, "sample", lambda *_, **__: 1 / 0)
        time.sleep(0.1)
        monkeypatch.undo()
        time.sleep(0.1)
        record = window.close()
        assert ledger.reading
    (text,) = record.meter["troubles"]
    assert "ZeroDivisionError" in text
    assert "times by now" in text


def test_a_text_that_is_never_twice_the_same_does_not_fill_the_memory(clock):
    troubles = Warnings(clock)
    for number in range(3 * MOST):
        troubles.note(f"error {number}")
    assert len(troubles.during(0, clock.now_ns)) == MOST
    clock.advance(10)
    begin = clock.now_ns
    troubles.note("error 0")
    assert troubles.during(begin, clock.now_ns) == ["error 0 (2 times by now)"]
    assert troubles.during(0, 1) == []


@pytest.fixture
def disk(monkeypatch):
    """A disk that may be full: ``room`` is how many bytes of the next line still fit, None for all."""

    class Disk:
        room = None

    original = os.write

    def write(fd, data):
        if Disk.room is None or not bytes(data).lstrip(b"\n").startswith(b'{"event"'):
            return original(fd, data)
        if Disk.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(fd, data[: Disk.room])

    monkeypatch.setattr(os, "write", write)
    return Disk


def test_a_disk_that_gets_full_ends_no_training_and_loses_no_source(disk, tmp_path):
    source = Rude(set())
    ledger = Ledger([source], interval_seconds=0.01, checkpoint_seconds=0.02, file=tmp_path / "ledger.jsonl").start()
    disk.room = 0
    with ledger.window("trial") as window:
        time.sleep(0.1)
    ledger.sample()
    ledger.stop()
    assert source.closed == 1
    assert window.record.joules is not None
    (text,) = ledger.total().meter["troubles"]
    assert "ledger.jsonl was lost: No space left on device" in text
    assert int(text.split("(")[1].split()[0]) >= 4  # open, beats, close, stop
    assert [line["event"] for line in lines(tmp_path / "ledger.jsonl")] == ["start"]


def test_after_a_torn_line_the_next_one_begins_on_its_own(disk, tmp_path):
    file = tmp_path / "ledger.jsonl"
    journal = Journal(file)
    assert journal.write("start", {"number": 1}) is None
    disk.room = 9
    assert "only 9 of" in journal.write("start", {"number": 2})
    disk.room = 0
    assert journal.write("start", {"number": 3}) == "No space left on device"
    disk.room = None
    assert journal.write("start", {"number": 4}) is None
    journal.close()
    assert [line["number"] for line in lines(file)] == [1, 4]
    assert file.read_bytes().count(b"\n") == 3


def test_a_file_that_cannot_be_opened_is_a_clear_error_before_any_source_is_opened(tmp_path):
    class Probed(Rude):
        def probe(self):
            pytest.fail("a source was opened")

    (tmp_path / "folder").mkdir()
    ledger = Ledger([Probed(set())], file=tmp_path / "folder")
    with pytest.raises(OSError, match="folder"):
        ledger.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "joulefront-energy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_from_the_start_ends_nothing():
    with Ledger([CpuTime()], file=Path("/dev/full")) as ledger, ledger.window("trial") as window:
        sum(range(10**5))
    assert window.record.joules is not None
    assert "No space left" in ledger.total().meter["troubles"][0]


def test_a_start_that_fails_releases_everything(monkeypatch, tmp_path):

    source = Rude(set())
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(host, "describe", lambda _: 1 / 0)
    for _ in range(20):
        ledger = Ledger([source], file=tmp_path / "ledger.jsonl")
        with pytest.raises(ZeroDivisionError):
            ledger.start()
        ledger.stop()
    assert source.closed == 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_facts_that_json_does_not_know_are_written_as_text(tmp_path):
    source = Rude(set())
    source.devices = lambda: {"soc": {"serial": b"\x00\x01"}}
    with Ledger([source], interval_seconds=None, file=tmp_path / "ledger.jsonl"):
        pass
    assert [line["event"] for line in lines(tmp_path / "ledger.jsonl")] == ["start", "stop"]
