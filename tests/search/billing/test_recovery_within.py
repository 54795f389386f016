"""Bills of killed sessions whose trials ran beside each other, and of epochs that ended within an open trial."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.steady import SECOND, Steady

from joulefront.search.billing.account import Account
from joulefront.search.billing.recovery import settle_killed
from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.records.bill import SessionBill, add_up, read_sessions

WATTS = {"gpu:a": 30.0, "gpu:b": 10.0, "cpu:pkg0": 20.0}


class TwoGpus(Steady):
    """Two GPUs of 30 and 10 W and a CPU of 20 W; the second GPU can be lost."""

    lost = False

    def probe(self) -> tuple[Capability, ...]:
        return tuple(Capability(name, "steady", True, tick_seconds=0.0, gain_u=0.0) for name in WATTS)

    def read(self) -> tuple[Reading, ...]:
        now = self.clock[0]
        return tuple(
            Reading(name, now, error="fell off the bus")
            if self.lost and name == "gpu:b"
            else Reading(name, now, counter_joules=watts * now / SECOND)
            for name, watts in WATTS.items()
        )


@pytest.mark.parametrize("lost", [False, True])
def test_parallel_trials_that_died_together_are_billed_their_own_part_each(tmp_path: Path, lost: bool) -> None:
    now = [0]
    source = TwoGpus(now)
    ledger = Ledger([source], file=tmp_path / "ledger.jsonl", interval_seconds=None, clock=lambda: now[0]).start()
    account = Account(ledger, SessionBill("then"), [], None, tmp_path / "bill.json")
    now[0] = 5 * SECOND
    account.open(0, ("gpu:a",))
    account.open(1, ("gpu:b",))
    account.save()
    for second in range(6, 26):
        now[0] = second * SECOND
        source.lost = lost and second > 20
        ledger.sample()
    ledger.checkpoint()
    sessions = read_sessions(tmp_path / "bill.json")
    found = settle_killed(sessions, tmp_path / "ledger.jsonl")
    bill = add_up(sessions)
    assert found[0] == pytest.approx(20 * (30 + 10))
    known = 20 * (10 + 10) - (4 * 10 if lost else 0)  # a second after the last reading the power is taken to go on
    assert found[1] == (None if lost else pytest.approx(known))
    assert bill.by_state["failed"] == pytest.approx(20 * 40 + known)
    assert bill.total_joules == pytest.approx(25 * 60 - (40 if lost else 0))
    assert sum(bill.by_state.values()) == pytest.approx(bill.total_joules)
    assert bill.unknown_seconds == ({"gpu:b": pytest.approx(4.0)} if lost else {})


def test_parallel_trials_that_ended_after_the_checkpoint_add_what_each_took_beyond_it(tmp_path: Path) -> None:
    now, file = [0], tmp_path / "ledger.jsonl"
    ledger = Ledger([TwoGpus(now)], file=file, interval_seconds=None, clock=lambda: now[0]).start()
    account = Account(ledger, SessionBill("then"), [], None, tmp_path / "bill.json")
    meters = [account.open(0, ("gpu:a",)), account.open(1, ("gpu:b",))]
    now[0] = 10 * SECOND
    account.save()
    taken = list[float]()
    for number, second in enumerate((12, 14)):
        now[0] = second * SECOND
        ledger.sample()
        taken.append(account.close(meters[number], state="ok", cpu_seconds=None).known_joules)
    sessions = read_sessions(tmp_path / "bill.json")
    assert settle_killed(sessions, file) == dict(enumerate(taken))
    bill = add_up(sessions)
    assert bill.by_state["complete"] == pytest.approx(sum(taken))
    assert sum(bill.by_state.values()) == pytest.approx(bill.total_joules)
    assert bill.total_joules == pytest.approx(12 * 60 + 2 * 30)
    assert bill.seconds == pytest.approx(14.0)


@pytest.mark.parametrize("beat", [None, 15, 25])
@pytest.mark.parametrize("billed", [True, False])
def test_epochs_that_ended_since_the_last_beat_are_billed_to_their_open_trial(tmp_path: Path, billed: bool, beat: int | None) -> None:
    now, file, sessions = [0], tmp_path / "ledger.jsonl", list[dict[str, Any]]()
    ledger = Ledger([Steady(now)], file=file, interval_seconds=None, clock=lambda: now[0])
    ledger.start()
    trial = ledger.open("trial 0")
    for second, epoch in enumerate(range(3), 1):
        with ledger.window(f"epoch {epoch}", kind="epoch", parent=trial):
            now[0] = (10 * second - 1) * SECOND
            ledger.sample()
            if billed and epoch == 0:
                bill = SessionBill("2026", {"overhead": 0.0}, {0: trial.joules()}, ledger.total(), trial.id.partition(".")[0])
                sessions = [json.loads(json.dumps(bill.to_json()))]
            if beat is not None and 10 * epoch < beat < 10 * second:
                ledger.checkpoint()
            now[0] = 10 * second * SECOND
    ledger.open("epoch 3", kind="epoch", parent=trial)
    now[0] = 37 * SECOND  # and then it is killed
    assert settle_killed(sessions, file) == {0: pytest.approx(300.0)}
    assert add_up(sessions).by_state == {"overhead": pytest.approx(0.0), "failed": pytest.approx(300.0)}
    assert add_up(sessions).total_joules == pytest.approx(300.0)
    assert settle_killed(sessions, file) == {}
