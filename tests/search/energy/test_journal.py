"""The ledger's file: whole lines, beats, and what can be told after a kill."""

from __future__ import annotations

import json

import pytest

from joulefront.search.energy import Capability, Ledger, Record
from joulefront.search.energy.journal import Journal, lines, shortened


@pytest.fixture
def source(scripted, clock):
    return scripted((Capability("cpu:pkg0", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 100 * t)


def test_every_edge_is_in_the_file_when_it_happens(source, clock, tmp_path):
    file = tmp_path / "run" / "ledger.jsonl"
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger:
        assert [line["event"] for line in lines(file)] == ["start"]
        window = ledger.open("trial 0")
        assert [line["event"] for line in lines(file)][-1] == "open"
        clock.advance(2)
        window.close("failed")
    assert [line["event"] for line in lines(file)] == ["start", "open", "close", "stop"]
    start, opened, closed, stop = lines(file)
    record = Record.from_json(closed["record"])
    assert record.joules == pytest.approx(200, rel=1e-3)
    assert record.state == "failed"
    assert record.id == opened["record"]["id"]
    assert start["hardware"] == ledger.hardware
    assert Record.from_json(stop["record"]).joules == pytest.approx(200, rel=1e-3)


def test_a_window_without_an_end_is_known_up_to_the_last_beat(source, clock, tmp_path):
    file = tmp_path / "ledger.jsonl"
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger:
        window = ledger.open("trial 0")
        for _ in range(3):
            clock.advance(5)
            ledger.sample()
            ledger.checkpoint()
        clock.advance(4)  # were the process to die here, this is what its file would hold
        found = list(lines(file))
    assert [line["event"] for line in found] == ["start", "open", "beat", "beat", "beat"]
    (known,) = found[-1]["open"]
    assert known["id"] == found[1]["record"]["id"] == window.id
    assert known["known_joules"] == known["components"][0]["joules"] == pytest.approx(1500, rel=1e-3)
    assert found[-1]["t_ns"] - window.t0_ns == pytest.approx(15e9, rel=1e-3)


def test_a_torn_line_is_left_out_and_the_next_session_starts_on_its_own_line(source, clock, tmp_path):
    file = tmp_path / "ledger.jsonl"
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger, ledger.window("trial 0"):
        clock.advance(1)
    with file.open("ab") as torn:
        torn.write(b'{"event":"beat","t_ns":12')
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger, ledger.window("trial 1"):
        clock.advance(1)
    found = list(lines(file))
    assert len({line["session"] for line in found if line["event"] == "start"}) == 2
    closed = [line["record"] for line in found if line["event"] == "close"]
    assert [record["name"] for record in closed] == ["trial 0", "trial 1"]
    assert len({record["id"] for record in closed}) == 2


@pytest.mark.parametrize(
    "foreign",
    [
        b"7",
        b"{}",
        b'{"event": 7}',
        b'{"session": "a"}',
        b'{"event": "open", "record": 3}',
        b'{"event": "beat", "t_ns": "1", "total": [], "open": []}',
        b'{"event": "beat", "t_ns": 1, "total": [{"name": "cpu"}], "open": []}',
        b'{"event": "beat", "t_ns": NaN}',
        b"[" * 100_000,
        bytes(range(128, 256)),
    ],
)
def test_a_line_that_is_not_of_a_ledger_is_skipped(tmp_path, foreign):
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(b'{"event": "start"}\n' + foreign + b'\n{"event": "note", "more": 1}\n')
    assert [line["event"] for line in lines(file)] == ["start", "note"]


def test_lines_of_several_writers_do_not_mix(tmp_path):
    file = tmp_path / "ledger.jsonl"
    writers = [Journal(file) for _ in range(4)]
    for number in range(50):
        for writer, journal in enumerate(writers):
            journal.write("beat", {"writer": writer, "number": number, "padding": "x" * 3000})
    for journal in writers:
        journal.close()
        journal.close()
        journal.write("beat", {"dropped": True})
    text = file.read_text().splitlines()
    assert len(text) == 200
    assert sum(json.loads(line)["number"] for line in text) == 4 * sum(range(50))


@pytest.mark.slow
def test_a_long_file_is_shortened_to_what_a_killed_session_needs(source, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("joulefront.search.energy.journal.LONG_BYTES", 20_000)
    file = tmp_path / "ledger.jsonl"
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger:
        still_open = ledger.open("trial 1000")
        for number in range(300):
            with ledger.window(f"trial {number}"):
                clock.advance(1)
            clock.advance(1)
            ledger.checkpoint()
            assert file.stat().st_size < 200_000
        ledger.open("trial 1001")
        found = list(lines(file))
    names = {line["record"]["name"] for line in found if line["event"] == "open"}
    assert {"trial 1000", "trial 1001"} <= names
    known = sum(line["joules"]["trial ok"] for line in found if line["event"] == "ended")
    later = sum(Record.from_json(line["record"]).known_joules for line in found if line["event"] == "close")
    assert known + later == pytest.approx(300 * 100, rel=1e-3)
    assert still_open.record.joules == pytest.approx(600 * 100, rel=1e-3)
    assert not list(tmp_path.glob(".*"))


def test_a_shortened_file_is_not_shortened_further_and_keeps_what_is_after_the_last_checkpoint(source, clock, tmp_path, monkeypatch):
    file = tmp_path / "ledger.jsonl"
    for state in ("ok", "failed"):  # two sessions
        with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger:
            for number in range(3):
                window = ledger.open(f"trial {number}")
                clock.advance(1)
                ledger.checkpoint()
                clock.advance(1)
                window.close(state)
    every = list(lines(file))
    without_an_end = every[:-1]
    once = list(shortened(without_an_end))
    assert list(shortened(once)) == once
    assert [line["event"] for line in once] == ["start", "ended", "stop", "start", "close", "close", "open", "beat", "close"]
    assert once[1]["joules"] == {"trial ok": pytest.approx(600, rel=1e-3)}
    monkeypatch.setattr("joulefront.search.energy.journal.RECENT_NS", 0)
    older = list(shortened(once))
    assert [line["event"] for line in older] == ["start", "ended", "stop", "start", "ended", "open", "beat", "close"]
    assert older[4]["joules"] == {"trial failed": pytest.approx(400, rel=1e-3)}
    assert once[-1] == without_an_end[-1]


def test_a_file_that_another_writes_or_a_full_disk_is_left_as_it_is(source, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("joulefront.search.energy.journal.LONG_BYTES", 1)
    file = tmp_path / "ledger.jsonl"
    with Ledger([source], interval_seconds=None, clock=clock, file=file) as ledger:
        clock.advance(1)

        def full(path, data):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.write_bytes", full)
            before = file.read_bytes()
            ledger.checkpoint()
            assert file.read_bytes().startswith(before)

        def write_too(path, data):
            with file.open("ab") as other:
                other.write(b'{"event":"start","session":"ab","t_ns":1}\n')
            return len(data)

        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.write_bytes", write_too)
            ledger.checkpoint()
            assert [line["session"] for line in lines(file)][-1] == "ab"
    assert [line["event"] for line in lines(file)][-1] == "stop"
    assert not list(tmp_path.glob(".*"))
