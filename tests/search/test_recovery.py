import copy
import json
from pathlib import Path
from typing import Any

import pytest

from joulefront.search.bill import add_up
from joulefront.search.energy import Capability, Ledger, Reading, Record
from joulefront.search.recovery import settle_killed

SECOND = 10**9


class Steady:
    """A counter of 10 W that follows the test's clock."""

    name = "steady"

    def __init__(self, clock: list[int]) -> None:
        self.clock = clock

    def probe(self) -> tuple[Capability, ...]:
        return (Capability("cpu:pkg0", "steady", True, tick_seconds=0.0, gain_u=0.0),)

    def read(self) -> tuple[Reading, ...]:
        return (Reading("cpu:pkg0", self.clock[0], counter_joules=10.0 * self.clock[0] / SECOND),)

    def close(self) -> None: ...


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
    ledger._beat()
    now[0] = 30 * SECOND
    return file, [json.loads(json.dumps(bill))]


def test_a_killed_trial_is_billed_up_to_the_last_beat(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    assert settle_killed(sessions, file) == {1: pytest.approx(150.0)}
    bill = add_up(sessions)
    assert bill.total_joules == pytest.approx(270.0)
    assert bill.by_state == {"complete": 100.0, "overhead": pytest.approx(20.0), "failed": pytest.approx(150.0)}
    assert bill.seconds == pytest.approx(27.0)


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
    assert settle_killed(sessions, file) == {}
    assert sum(add_up(sessions).by_state.values()) == pytest.approx(270.0)


def test_a_lost_journal_leaves_the_bill_as_it_was(killed: tuple[Path, list[dict[str, Any]]]) -> None:
    file, sessions = killed
    file.unlink()
    sessions[0]["open_trials_joules"] = {"1": None, "2": 5.0}
    assert settle_killed(sessions, file) == {1: None, 2: 5.0}
    assert add_up(sessions).by_state["failed"] == 5.0
