"""A run folder whose bill is lost goes on from what else says what was spent, and says so."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from helpers import forked
from helpers.workers import recorded_run, sleeping, sleeping_study

from joulefront.search import run
from joulefront.search.records.bill import add_up, read_bill
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.shared_study import SharedStudy
from joulefront.search.study import LimitReachedError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_run(tmp_path_factory.mktemp("recorded") / "run")


def go_on(recorded: Path, out: Path, *lost: str, **limits: object) -> None:
    shutil.copytree(recorded, out)
    for name in lost:
        (out / name).unlink()
    with sleeping():
        run(sleeping_study(), out=out, meter="cpu_time", **limits)  # type: ignore[arg-type]


def test_without_bill_and_ledger_the_trials_own_records_count(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paid = sum(trial.increment_joules or 0.0 for trial in RunFolder.open(recorded).run().trials)
    with pytest.raises(LimitReachedError, match="is spent already"):
        go_on(recorded, tmp_path / "run", "bill.json", "ledger.jsonl", budget=f"{paid / 2}J")
    assert "lacked 1 session(s), made again from records of trainings: they took" in capsys.readouterr().err
    bill = read_bill(tmp_path / "run" / "bill.json")
    assert bill.total_joules == pytest.approx(paid)
    assert bill.by_state == {"complete": pytest.approx(paid)}
    assert "the bill of 1 session(s) was lost" in str(bill.gaps())
    with sleeping():  # neither counted again, nor said again
        run(sleeping_study(), out=tmp_path / "run", trials=4, meter="cpu_time")
    assert "made again" not in capsys.readouterr().err
    sessions = json.loads((tmp_path / "run" / "bill.json").read_text())["sessions"]
    assert [session.get("rebuilt") for session in sessions] == ["records of trainings", None]


def test_a_bill_made_from_the_ledger_has_what_the_process_took_before_it(recorded: Path, tmp_path: Path) -> None:
    whole = read_bill(recorded / "bill.json")
    with pytest.raises(LimitReachedError):
        go_on(recorded, tmp_path / "run", "bill.json", trials=3)
    again = read_bill(tmp_path / "run" / "bill.json")
    assert again.total_joules == pytest.approx(whole.total_joules, abs=0.2)  # the journal has the meters' last instant, too
    assert again.by_state["complete"] == pytest.approx(whole.by_state["complete"])
    assert again.by_state["overhead"] == pytest.approx(whole.by_state["overhead"] + whole.by_state.get("idle", 0.0), abs=0.2)


def test_trainings_that_do_not_say_their_session_count_where_no_session_is_known(recorded: Path, tmp_path: Path) -> None:
    plan = Plan("2026-01-01T00:00:00+00:00", (0,), 2, "given", 0)
    repeats = Repeats((plan,), (Repeat(0, 0, 0, 0, 1, 3, spent_joules=7.0), Repeat(0, 0, 1, 1, 1, 3, spent_joules=5.0)))
    shutil.copytree(recorded, tmp_path / "run")
    (tmp_path / "run" / "repeats.json").write_text(json.dumps(repeats.to_json()))
    for name, lost, expected in (("kept", (), {}), ("both", ("bill.json", "ledger.jsonl"), {"repeats": 12.0})):
        with pytest.raises(LimitReachedError):
            go_on(tmp_path / "run", tmp_path / name, *lost, trials=3)
        states = read_bill(tmp_path / name / "bill.json").by_state
        assert {state: states[state] for state in states if state == "repeats"} == expected


def test_a_worker_without_its_bill_takes_it_from_the_storage(tmp_path: Path) -> None:
    url, out = f"sqlite:///{tmp_path / 'shared.db'}", tmp_path / "run"
    with sleeping():
        run(sleeping_study(), out=out, trials=3, meter="cpu_time", storage=url)
        before = read_bill(out / "bill.json")
        (out / "bill.json").unlink()
        (out / "ledger.jsonl").unlink()
        run(sleeping_study(), out=out, trials=4, meter="cpu_time", storage=url)
    sessions = json.loads((out / "bill.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert sum(sessions[0]["by_component_joules"].values()) == pytest.approx(before.total_joules)
    shared, worker = SharedStudy(RunFolder.open(out).study()), RunFolder.open(out).facts["worker"]
    shared.save_bill(worker, sessions[:1])  # who took this worker for dead knew less
    with pytest.raises(LimitReachedError):
        run(sleeping_study(), out=out, trials=4, meter="cpu_time")
    assert shared.bills()[worker] == sessions
    by_state = {**sessions[1]["by_state_joules"], "failed": 9.0}
    by_component = {"cpu": sum(by_state.values())}
    more = [sessions[0], {**sessions[1], "by_state_joules": by_state, "by_component_joules": by_component}]
    shared.save_bill(worker, more)  # who took this worker for dead knew more
    with pytest.raises(LimitReachedError):
        run(sleeping_study(), out=out, trials=4, meter="cpu_time")
    assert shared.bills()[worker] == json.loads((out / "bill.json").read_text())["sessions"] == more


def test_a_session_that_is_killed_before_its_bill_has_the_last_trial_is_billed_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = (
        "import os, signal\n"
        "from helpers.workers import sleeping, sleeping_study\n"
        "from joulefront.search import run\n"
        "from joulefront.search.running.recorder import Recorder\n"
        "times = iter(range(4))\n"
        "Recorder.drop_weights = lambda self: next(times, None) is None and os.kill(os.getpid(), signal.SIGKILL)\n"
        "with sleeping():\n"
        f"    run(sleeping_study(), out={str(out)!r}, trials=9, meter='cpu_time', save_seconds=600)\n"
    )
    assert forked.run("-c", program).returncode == -signal.SIGKILL
    last = read_bill(out / "bill.json")
    with sleeping():
        run(sleeping_study(), out=out, trials=6, meter="cpu_time")
    trials = RunFolder.open(out).run().trials
    assert [trial.state for trial in trials] == ["complete"] * 6
    killed, _ = json.loads((out / "bill.json").read_text())["sessions"]
    settled, took = add_up([killed]), trials[4].increment_joules or 0.0
    assert settled.by_state["complete"] == pytest.approx(last.by_state["complete"] + took)
    assert settled.total_joules == pytest.approx(last.total_joules + took)
    assert settled.total_joules == pytest.approx(sum(settled.by_state.values()))
