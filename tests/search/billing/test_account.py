"""The account over a ledger whose only source draws exactly 50 W on a device and 20 W on the rest."""

import json
import time
from pathlib import Path

import pytest

from joulefront.search.billing.account import Account
from joulefront.search.energy import Component, Ledger, Reading, Record
from joulefront.search.energy.calibrations import calibrate_wall
from joulefront.search.energy.meters import MeterSet
from joulefront.search.records.bill import REPEAT, SessionBill, read_bill

from .conftest import Constant


@pytest.fixture
def hand_clock() -> list[int]:
    """Nanoseconds that a test moves."""
    return [10**12]


def everything(account: Account) -> float:
    return sum(account.session.by_state.values()) + sum(joules or 0.0 for joules in account.session.open_trials.values())


def total(account: Account) -> float:
    assert account.session.total is not None
    assert account.session.total.joules is not None
    return account.session.total.joules


@pytest.mark.slow
def test_a_trial_gets_what_the_machine_took_while_it_ran(account: Account) -> None:
    meter = account.open(0, None)
    time.sleep(0.03)
    record = account.close(meter, state="ok", cpu_seconds=None)
    account.save()
    assert record.joules == pytest.approx(80.0 * record.seconds, rel=1e-3)
    assert account.session.by_state["complete"] == pytest.approx(record.joules, rel=1e-6)


def test_every_joule_is_in_one_trial_or_in_a_named_rest(account: Account) -> None:
    for number, state in enumerate(["ok", "failed", "stopped", "pruned", "killed"]):
        meter = account.open(number, None)
        with meter.phase("epoch", 0):
            time.sleep(0.01)
        account.close(meter, state=state, cpu_seconds=None)
        time.sleep(0.005)
    account.open(9, None)
    time.sleep(0.01)
    account.save()
    states = account.session.by_state
    assert set(states) == {"complete", "stopped", "pruned", "failed", "idle"}
    assert all(joules > 0 for joules in states.values())
    assert set(account.session.open_trials) == {9}
    assert (account.session.open_trials[9] or 0.0) > 0
    assert everything(account) == pytest.approx(total(account), rel=1e-9)


def test_windows_of_the_session_itself_are_overhead(account: Account, ledger: Ledger) -> None:
    with ledger.window("load", kind="overhead") as window:
        time.sleep(0.02)
    account.save()
    assert account.session.by_state["overhead"] == pytest.approx(window.record.joules, rel=1e-6)
    assert window.record.joules == pytest.approx(80.0 * window.record.seconds, rel=1e-3)
    assert "complete" not in account.session.by_state


def test_an_idle_baseline_is_booked_as_idle_and_takes_nothing_from_a_trial(account: Account, ledger: Ledger) -> None:
    with ledger.window("baseline", kind="idle") as window:
        time.sleep(0.02)
        meter = account.open(0, None)
        time.sleep(0.02)
        record = account.close(meter, state="ok", cpu_seconds=None)
    account.save()
    assert account.session.by_state["complete"] == pytest.approx(record.joules, rel=1e-6)
    # The session also idles before and after the baseline, for moments.
    idle, rest = account.session.by_state["idle"], total(account) - record.joules
    assert (window.record.joules - record.joules) * (1 - 1e-6) <= idle <= rest * (1 + 1e-6)
    assert everything(account) == pytest.approx(total(account), rel=1e-9)


class Lost(Constant):
    """One of the two is lost after a while: its readings fail."""

    lost = False

    def read(self) -> tuple[Reading, ...]:
        one, other = super().read()
        return (Reading(one.component, one.t_ns, error="fell off the bus") if self.lost else one), other


def test_a_gpu_that_is_lost_keeps_its_past_in_the_bill_and_names_the_rest(tmp_path: Path, hand_clock: list[int]) -> None:
    source = Lost(lambda: hand_clock[0])
    with Ledger([source], interval_seconds=None, clock=lambda: hand_clock[0]) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
        meter = account.open(0, ("gpu:a",))
        for second in range(1, 301):
            hand_clock[0] += 10**9
            source.lost = second > 200
            ledger.sample()
            if second == 100:
                record = account.close(meter, state="ok", cpu_seconds=None)
                beside = account.open(1, ("gpu:b",))
        other = account.close(beside, state="ok", cpu_seconds=None)
        account.save()
        spent = account.spent_joules()
    assert record.joules == pytest.approx(5000.0)
    assert other.joules == pytest.approx(6000.0)  # a GPU of somebody else that is lost makes nothing of this one unknown
    bill = read_bill(account.file)
    assert bill.by_state["complete"] == pytest.approx(5000.0 + 6000.0)
    assert bill.by_component == {"gpu:a": pytest.approx(201 * 50.0), "gpu:b": pytest.approx(9000.0)}
    assert bill.unknown_seconds == {"gpu:a": pytest.approx(99.0)}
    assert bill.total_joules == spent == pytest.approx(sum(bill.by_state.values()))
    assert bill.u_joules is None
    assert bill.components["gpu:a"].quality == "mixed"
    assert "gpu:a for 99.0 s" in (bill.gaps() or "")


@pytest.mark.slow
def test_a_save_asks_the_meters_as_little_after_two_hundred_trials_as_after_twenty(
    tmp_path: Path, hand_clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, energy = 0, MeterSet.energy

    def counted(meters: MeterSet, name: str, t0_ns: int, t1_ns: int) -> float | None:
        nonlocal questions
        questions += 1
        return energy(meters, name, t0_ns, t1_ns)

    monkeypatch.setattr(MeterSet, "energy", counted)
    with Ledger([Constant(lambda: hand_clock[0])], interval_seconds=None, clock=lambda: hand_clock[0]) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
        costs = []
        for number in range(200):
            meter = account.open(number, ("gpu:a",))
            hand_clock[0] += 4 * 10**9
            ledger.sample()
            account.close(meter, state="ok", cpu_seconds=1.0)
            before = questions
            account.save()
            costs.append(questions - before)
        assert max(costs[20:]) <= max(costs[:20]) <= 100
        assert everything(account) == pytest.approx(total(account), rel=1e-9)
        scratch = ledger.partition(ledger.t0_ns + 1)  # of another beginning nothing is kept
        assert account.session.by_component == pytest.approx(scratch.total, rel=1e-6)
        shared = sum(share.joules for shares in scratch.shares.values() for share in shares.values())
        assert account.session.by_state["complete"] == pytest.approx(shared, rel=1e-6)


def test_a_trial_whose_objectives_are_unknown_is_booked_as_failed_after_all(account: Account) -> None:
    meter = account.open(0, None)
    time.sleep(0.01)
    account.close(meter, state="ok", cpu_seconds=None)
    account.rebook(meter)
    account.save()
    assert "complete" not in account.session.by_state
    assert account.session.by_state["failed"] > 0


def test_two_trials_on_two_devices_pay_for_their_own(account: Account) -> None:
    first, second = account.open(0, ("gpu:a",)), account.open(1, ("gpu:b",))
    time.sleep(0.03)
    one = account.close(first, state="ok", cpu_seconds=0.0)
    other = account.close(second, state="failed", cpu_seconds=0.0)
    account.save()
    assert one.joules == pytest.approx(50.0 * one.seconds, rel=1e-2)
    assert other.joules == pytest.approx(30.0 * other.seconds, rel=1e-2)
    assert account.session.by_state["complete"] == pytest.approx(50.0 * one.seconds, rel=1e-2)
    assert account.session.by_state["failed"] == pytest.approx(30.0 * other.seconds, rel=1e-2)
    assert everything(account) == pytest.approx(total(account), rel=1e-9)


@pytest.mark.parametrize("ends", ["its device is lost", "with the session"])
def test_a_training_that_ends_so_is_booked_in_the_closed_bill(account: Account, ends: str) -> None:
    lost = list[int]()

    def synchronize() -> None:
        if lost:
            raise RuntimeError("device-side assert")

    account.synchronize = synchronize
    trial, again = account.open(0, ("gpu:a",)), account.open(0, ("gpu:b",), kind=REPEAT)
    time.sleep(0.01)
    loss = ValueError("loss is nan")
    with pytest.raises(ValueError, match="loss is nan"), trial.phase("epoch", 0):
        raise next(error for error in (loss, lost.append(1)) if error)
    if ends == "its device is lost":
        for meter in (again, trial):
            with pytest.raises(RuntimeError, match="device-side assert"):
                account.close(meter, state="ok", cpu_seconds=None)
        assert (account.close(trial, state="failed", cpu_seconds=None).joules or 0.0) > 0.2
    account.save(closed=True)
    states = read_bill(account.file)
    assert states.total_joules == pytest.approx(sum(states.by_state.values()), rel=1e-9)
    assert min(states.by_state["failed"], states.by_state["repeats"]) > 0.2


def test_phases_are_kept_but_overhead_and_broken_ones_are_not(account: Account) -> None:
    meter = account.open(0, None)
    for kind in ("setup", "overhead", "epoch", "eval"):
        with meter.phase(kind, 0):
            time.sleep(0.002)
    with pytest.raises(RuntimeError, match="nan"), meter.phase("epoch", 1) as inner:
        raise RuntimeError("nan")
    assert inner.state == "failed"
    assert [record.kind for record in meter.phases] == ["setup", "epoch", "eval"]
    assert all(record.parent == meter.window.id and (record.joules or 0.0) > 0 for record in meter.phases)


def test_what_earlier_sessions_spent_counts(ledger: Ledger, tmp_path: Path) -> None:
    earlier = [SessionBill("before", {"complete": 100.0}).to_json()]
    account = Account(ledger, SessionBill("now"), earlier, 100.0, tmp_path / "bill.json")
    ledger.sample()
    before = account.spent_joules()
    time.sleep(0.02)
    ledger.sample()
    after = account.spent_joules()
    assert before is not None
    assert after is not None
    assert 100.0 <= before < after < 200.0
    account.save()
    assert [session["started"] for session in json.loads(account.file.read_text())["sessions"]] == ["before", "now"]
    assert read_bill(account.file).by_state["complete"] == 100.0


def test_a_closed_session_has_spent_what_its_bill_says_however_long_the_meters_read_on(tmp_path: Path, hand_clock: list[int]) -> None:
    clock = lambda: hand_clock[0]  # noqa: E731
    with Ledger([Constant(clock)], interval_seconds=None, clock=clock) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
        hand_clock[0] += 10**9
        account.save(closed=True)
        billed = total(account)
        hand_clock[0] += 10**9
        ledger.sample()
        assert account.own_joules() == pytest.approx(billed, rel=1e-12)


def test_on_a_machine_that_was_compared_with_a_wall_meter_trials_and_bill_say_what_the_socket_gave(ledger: Ledger, tmp_path: Path) -> None:
    def at(watts: float) -> Record:
        joules = {"gpu:a": 0.6 * watts, "gpu:b": 0.4 * watts}
        parts = [Component(name, value, "constant", u_random_joules=0.0, u_systematic_joules=0.0) for name, value in joules.items()]
        plug = Component("wall", 1.5 * watts + 20, "wall", boundary="socket", counts=False, u_random_joules=0.0, u_systematic_joules=0.0)
        return Record("1", "w", None, "setup", "ok", "", 0, 10**9, 1.0, (*parts, plug), ledger.hardware_id)

    wall = calibrate_wall([at(watts) for watts in (10, 60, 100)])
    account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json", wall=wall)
    meter = account.open(0, None)
    time.sleep(0.03)
    record = account.close(meter, state="ok", cpu_seconds=None)
    account.save(closed=True)
    socket = record.component("wall")
    assert socket is not None
    assert (socket.quality, socket.counts) == ("estimated", False)
    assert socket.joules == pytest.approx((1.5 * 80 + 20) * record.seconds, rel=1e-3)
    bill = read_bill(tmp_path / "bill.json")
    assert bill.at_wall is not None
    assert bill.at_wall.joules == pytest.approx((1.5 * 80 + 20) * bill.seconds, rel=1e-3)
    assert bill.total_joules == pytest.approx(80 * bill.seconds, rel=1e-3)


def test_the_overhead_is_told_apart_by_what_it_was_for(account: Account, tmp_path: Path) -> None:
    with account.spending("deciding"):
        time.sleep(0.03)
    with account.spending("storing"):
        time.sleep(0.01)
    begun = time.monotonic_ns()
    time.sleep(0.01)
    with account.spending("showing", begun):
        pass
    account.save()
    bill = read_bill(tmp_path / "bill.json")
    assert set(bill.overhead_parts) == {"deciding", "storing", "showing"}
    assert bill.overhead_parts["deciding"] >= 80.0 * 0.03
    assert bill.overhead_parts["showing"] >= 80.0 * 0.01
    assert sum(bill.overhead_parts.values()) <= total(account) * 1.001


def test_what_is_decided_beside_a_training_belongs_to_nobody_known(account: Account) -> None:
    meter = account.open(0, None)
    with account.spending("deciding"):
        time.sleep(0.01)
    account.close(meter, state="ok", cpu_seconds=None)
    with account.spending("deciding"):
        account.open(1, None)
    account.save()
    assert account.session.parts == {}


def test_what_came_before_the_ledger_is_a_part_of_the_start(ledger: Ledger, tmp_path: Path) -> None:
    account = Account(ledger, SessionBill("now", before={"cpu_seconds": 2.0, "joules": 3.0}), [], None, tmp_path / "bill.json")
    with account.spending("start", ledger.t0_ns):
        pass
    account.save()
    assert read_bill(tmp_path / "bill.json").overhead_parts["start"] >= 3.0
