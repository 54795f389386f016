import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.steady import SECOND, Steady

from joulefront.search.billing.account import Account
from joulefront.search.billing.recovery import settle_killed
from joulefront.search.energy import Component, Ledger, Reading, Record
from joulefront.search.energy.journal import lines, shortened
from joulefront.search.records.bill import SessionBill, add_up, read_sessions


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A session that was killed at 30 s: trial 0 took 10 s, trial 1 was open at the beat at 27 s, the bill is of second 12."""
    now = [0]
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger([Steady(now)], file=file, interval_seconds=None, clock=lambda: now[0])
    ledger.start()
    zero = ledger.open("trial 0")
    now[0] = 10 * SECOND
    zero.close()
    now[0] = 12 * SECOND
    ledger.sample()
    bill = {
        "started": "2026-01-01T00:00:00+00:00",
        "by_state_joules": {"complete": 100.0, "overhead": 20.0},
        "open_trials_joules": {},
        "ledger_session": zero.id.partition(".")[0],
        "closed": False,
        "total": ledger.total().to_json(),
    }
    ledger.open("trial 1")
    now[0] = 27 * SECOND
    ledger.sample()
    ledger.checkpoint()
    now[0] = 30 * SECOND
    return file, [json.loads(json.dumps(bill))]


def test_a_killed_trial_is_billed_up_to_the_last_beat(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: pytest.approx(150.0)}
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0)
    assert bill.by_state == {"complete": 100.0, "overhead": pytest.approx(20.0), "failed": pytest.approx(150.0)}
    assert bill.seconds == pytest.approx(27.0)


@pytest.mark.parametrize("billed", [True, False])
def test_a_shortened_journal_settles_the_same_bill(killed: tuple[Path, list[dict[str, Any]]], billed: bool) -> None:
    file, sessions = killed
    sessions = sessions if billed else []
    short, same = file.with_name("short.jsonl"), copy.deepcopy(sessions)
    short.write_text("".join(json.dumps(event) + "\n" for event in shortened(lines(file))))
    assert len(short.read_text().splitlines()) < len(file.read_text().splitlines())
    assert settle_killed(same, short) == settle_killed(sessions, file)
    assert same == sessions


def test_a_checkpoint_of_a_later_version_is_read_by_this_one(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        for part in [*event.get("total", []), *(part for window in event.get("open", []) for part in window["components"])]:
            part["colour"] = "green"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: pytest.approx(150.0)}
    assert add_up(sessions).total_joules == pytest.approx(270.0)


def test_settling_twice_changes_nothing(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    settle_killed(sessions, file)
    once = copy.deepcopy(sessions)
    assert settle_killed(sessions, file) == {}
    assert sessions == once


def test_a_trial_that_ended_after_the_beat_is_not_billed_twice(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    closes = [json.loads(line) for line in file.read_text().splitlines() if '"open"' in line and "trial 1" in line]
    record = Record.from_json(closes[0]["record"])
    with file.open("a") as out:
        out.write(json.dumps({"event": "close", "session": sessions[0]["ledger_session"], "record": record.to_json()}) + "\n")
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: None}
    assert sum(add_up(sessions).by_state.values()) == pytest.approx(270.0)


def test_a_trial_that_ended_after_the_beat_is_priced_by_its_own_record(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    opened = next(json.loads(line) for line in file.read_text().splitlines() if '"open"' in line and "trial 1" in line)
    record = Record.from_json(opened["record"])
    record = replace(record, components=(replace(Record.from_json(sessions[0]["total"]).components[0], joules=345.0),))
    with file.open("a") as out:
        out.write(json.dumps({"event": "close", "session": sessions[0]["ledger_session"], "record": record.to_json()}) + "\n")
    assert settle_killed(sessions, file)[1] == 345.0


def closed_later(file: Path, session: str, name: str, t0: float, t1: float, joules: float | None, state: str = "ok") -> None:
    """Write that a window has ended, as its ledger did before the next checkpoint."""
    events = [json.loads(line) for line in file.read_text().splitlines()]
    opened = next((event["record"] for event in events if event["event"] == "open" and event["record"]["name"] == name), None)
    record = Record(f"{session}.{name}", name, None, "trial", state, "", int(t0 * SECOND), int(t1 * SECOND), t1 - t0)
    record = replace(record, components=(Component("cpu:pkg0", joules, "steady", u_random_joules=0.1, u_systematic_joules=0.0),))
    facts = record.to_json() | ({} if opened is None else {"id": opened["id"]})
    with file.open("a") as out:
        out.write(json.dumps({"event": "close", "session": session, "record": facts}) + "\n")


@pytest.mark.parametrize("billed", [True, False])
def test_trials_that_ended_after_the_last_checkpoint_are_on_the_bill(killed: tuple[Path, list[dict[str, Any]]], billed: bool) -> None:
    file, sessions = killed
    name, sessions = sessions[0]["ledger_session"], sessions if billed else []
    closed_later(file, name, "trial 1", 12, 28, 160.0)  # 150 of them were in the total at 27 s
    closed_later(file, name, "trial 2", 28, 28.5, 5.0)
    closed_later(file, name, "trial 3", 29, 29.5, 5.0, "failed")
    closed_later(file, name, "repeat 0", 29.5, 30, 5.0)
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: 160.0, 2: 5.0, 3: 5.0}
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0 + 10.0 + 15.0)
    assert bill.by_state == {"complete": pytest.approx(265.0), "overhead": pytest.approx(20.0), "failed": 5.0, "repeats": 5.0}
    assert bill.by_component == {"cpu:pkg0": pytest.approx(295.0)}
    assert bill.seconds == pytest.approx(27.0 + 1.0 + 1.5), "half a second between two trials was of nobody's window"
    assert settle_killed(sessions, file) == {}
    assert add_up(sessions) == bill


def test_a_trial_that_the_last_bill_has_as_open_is_billed_as_what_it_became(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    sessions[0]["open_trials_joules"] = {"1": 40.0}
    closed_later(file, sessions[0]["ledger_session"], "trial 1", 12, 26, 140.0, "stopped")
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: 140.0}
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0), "the total at 27 s has it already"
    assert bill.by_state == {"complete": 100.0, "stopped": 140.0, "overhead": pytest.approx(30.0)}


@pytest.mark.parametrize("known", [True, False])
def test_a_trial_across_the_end_of_a_later_bill_adds_what_is_beyond_it(killed: tuple[Path, list[dict[str, Any]]], known: bool) -> None:
    file, sessions = killed
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if '"beat"' not in line))
    sessions[0]["open_trials_joules"] = {"1": 40.0 if known else None}
    sessions[0]["total"]["components"][0]["joules"] = 160.0 if known else 120.0
    sessions[0]["total"]["t1_ns"] = 16 * SECOND
    closed_later(file, sessions[0]["ledger_session"], "trial 1", 12, 28, 240.0)
    settle_killed(sessions, file)
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(160.0 + 200.0 if known else 120.0 + 240.0 * 12 / 16)
    assert sum(bill.by_state.values()) == pytest.approx(bill.total_joules)


def test_a_trial_whose_meter_was_lost_after_the_checkpoint_leaves_the_total_known_and_names_the_time(
    killed: tuple[Path, list[dict[str, Any]]],
) -> None:
    file, sessions = killed
    closed_later(file, sessions[0]["ledger_session"], "trial 2", 28, 30, None)
    assert settle_killed(sessions, file)[2] is None
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0)
    assert bill.unknown_seconds == {"cpu:pkg0": pytest.approx(2.0)}
    assert sum(bill.by_state.values()) == pytest.approx(270.0)


def test_a_lost_journal_leaves_the_bill_as_it_was(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    file.unlink()
    sessions[0]["open_trials_joules"] = {"1": None, "2": 5.0}
    assert settle_killed(sessions, file) == {1: None, 2: 5.0}
    assert add_up(sessions).by_state["failed"] == 5.0


# -- sessions that the bill does not know ------------------------------------------------------------------------------------------------


def test_a_session_that_was_killed_before_its_first_bill_is_billed_from_the_journal(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, _ = killed
    sessions: list[dict[str, Any]] = []
    assert settle_killed(sessions, file) == {0: pytest.approx(100.0), 1: pytest.approx(150.0)}
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0)
    assert bill.by_state == {"complete": pytest.approx(100.0), "overhead": pytest.approx(20.0), "failed": pytest.approx(150.0)}
    assert bill.by_component == {"cpu:pkg0": pytest.approx(270.0)}
    assert bill.seconds == pytest.approx(27.0)
    once = json.loads(json.dumps(sessions))
    assert settle_killed(sessions, file) == {}
    assert json.loads(json.dumps(sessions)) == once


def test_a_session_that_ended_by_itself_is_billed_its_end_when_the_bill_is_lost(tmp_path: Path) -> None:
    now, file = [0], tmp_path / "ledger.jsonl"
    with Ledger([Steady(now)], file=file, interval_seconds=None, clock=lambda: now[0]) as ledger:
        window = ledger.open("repeat 3")
        now[0] = 4 * SECOND
        window.close("failed")
        now[0] = 9 * SECOND
    sessions: list[dict[str, Any]] = []
    assert settle_killed(sessions, file) == {}
    assert add_up(sessions).by_state == {"repeats": pytest.approx(40.0), "overhead": pytest.approx(50.0)}


def test_a_session_of_an_old_bill_that_opened_no_trial_is_known_by_its_total_and_not_billed_twice(tmp_path: Path) -> None:
    now, file = [0], tmp_path / "ledger.jsonl"
    with Ledger([Steady(now)], file=file, interval_seconds=None, clock=lambda: now[0]) as ledger:
        now[0] = 9 * SECOND
        ledger.sample()
        old = SessionBill("then", {"overhead": 90.0}, total=ledger.total(), closed=True).to_json()
    assert old["ledger_session"] == ""
    sessions = [old]
    settle_killed(sessions, file)
    assert sessions == [old]
    del old["total"]  # a bill that names no session of the journal at all: none is added
    settle_killed(sessions, file)
    assert sessions == [old]


def test_a_session_without_any_known_energy_is_not_added(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    with Ledger([], file=file, interval_seconds=None) as ledger:
        ledger.checkpoint()
    sessions: list[dict[str, Any]] = []
    settle_killed(sessions, file)
    assert sessions == []


STRANGE = [
    *("7", "[]", "{}", '"beat"', '{"event": 5}', '{"event": "beat"}', '{"session": "SESSION"}', '{"event": "sleep", "session": "SESSION"}'),
    *(f'{{"event": "{event}", "session": "SESSION"}}' for event in ("start", "open", "close", "beat", "stop")),
    *(
        f'{{"event": "{event}", "session": "SESSION", "record": 3, "t_ns": "x", "total": 4, "open": 2}}'
        for event in ("close", "beat", "stop")
    ),
    '{"event": "beat", "session": "SESSION", "t_ns": 9e30, "total": [{"name": "cpu"}], "open": []}',
    '{"event": "beat", "session": ["SESSION"], "t_ns": 1, "total": [], "open": []}',
]


@pytest.mark.parametrize("line", STRANGE)
def test_a_line_that_is_valid_json_but_not_of_a_ledger_is_left_out(killed: tuple[Path, list[dict[str, Any]]], line: str) -> None:
    file, sessions = killed
    with file.open("a") as out:
        out.write(line.replace("SESSION", sessions[0]["ledger_session"]) + "\n")
    unbilled: list[dict[str, Any]] = []
    assert settle_killed(sessions, file) == settle_killed(unbilled, file) == {0: pytest.approx(100.0), 1: pytest.approx(150.0)}
    assert add_up(sessions).total_joules == add_up(unbilled).total_joules == pytest.approx(270.0)


class Paused(Steady):
    """A counter of 100 W that stands still from second 12 on."""

    def read(self) -> tuple[Reading, ...]:
        return (Reading("cpu:pkg0", self.clock[0], counter_joules=100.0 * min(self.clock[0], 12 * SECOND) / SECOND),)


@pytest.mark.parametrize("rest", [True, False])
def test_what_the_last_bill_guessed_of_the_power_is_given_back_where_the_meter_knew_less(tmp_path: Path, rest: bool) -> None:
    now = [0]
    ledger = Ledger([Paused(now)], file=tmp_path / "ledger.jsonl", interval_seconds=None, clock=lambda: now[0]).start()
    account = Account(ledger, SessionBill("then"), [], None, tmp_path / "bill.json")
    for second in (10, 11, 12):
        now[0] = second * SECOND
        ledger.sample()
    now[0] += SECOND // 2
    account.save_at_checkpoint()  # half a second after the last reading the power is taken to go on
    account.open(1, None)
    now[0] = 13 * SECOND
    ledger.sample()
    ledger.checkpoint()
    (session,) = read_sessions(tmp_path / "bill.json")
    assert sum(session["by_state_joules"].values()) == sum(session["by_component_joules"].values()) == pytest.approx(1250.0)
    if not rest:
        session["by_state_joules"] = {"complete": 1250.0}
    settle_killed([session], tmp_path / "ledger.jsonl")
    assert session["by_component_joules"] == {"cpu:pkg0": pytest.approx(1200.0)}
    assert sum(session["by_state_joules"].values()) == pytest.approx(1200.0, rel=1e-12)
    assert min(session["by_state_joules"].values()) >= 0.0


def test_a_killed_session_still_pays_what_it_took_before_its_ledger(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    sessions[0]["before"] = {"cpu_seconds": 2.0, "joules": 5.0}
    sessions[0]["by_state_joules"]["overhead"] += 5.0
    settle_killed(sessions, file)
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(275.0)
    assert sum(bill.by_state.values()) == pytest.approx(275.0)
