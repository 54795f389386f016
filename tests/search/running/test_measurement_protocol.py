import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.workers import a_joule_an_epoch

from joulefront.search import Study, run
from joulefront.search.energy import Record
from joulefront.search.energy.journal import lines
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running import baselines as module
from joulefront.search.running.baselines import BaselineController, MeasurementProtocol, with_earlier

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]


@pytest.mark.parametrize("wrong", [{"idle_seconds": -1}, {"anchor_every": -1}, {"cool_down_seconds": -0.1}])
def test_negative_lengths_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MeasurementProtocol(**wrong)


def test_anchors_and_idle_baselines_are_measured_kept_and_billed_to_nobody(rings: Maker, tmp_path: Path) -> None:
    rules = MeasurementProtocol(idle_seconds=1.0, anchor_every=2, anchor_seconds=0.1)
    run(rings(trials=4), out=tmp_path / "r", protocol=rules)
    result = RunFolder.open(tmp_path / "r").run()
    anchor = result.facts["anchor"]
    assert len(anchor["joules"]) == len(anchor["seconds"]) == 4  # before the first, before the second and fourth, after the last
    assert all(joules > 0 for joules in anchor["joules"])
    assert anchor["seconds"] == sorted(anchor["seconds"])
    paid = sum(trial.increment_joules or 0.0 for trial in result.trials)
    assert result.bill.by_state["complete"] == pytest.approx(paid, rel=1e-3)
    assert sum(result.bill.by_state.values()) == pytest.approx(result.bill.total_joules, rel=1e-3)


def test_the_anchors_of_a_study_are_those_of_all_its_sessions() -> None:
    first = {"anchor": {"params": {"width": 4}, "seconds": [0.1, 9.0], "joules": [1.0, 2.0]}}
    second = {"anchor": {"params": {"width": 4}, "seconds": [0.2], "joules": [3.0]}, "idle_watts": {"cpu": 5.0}}
    found = with_earlier(first, second)
    assert found["anchor"] == {"params": {"width": 4}, "seconds": [0.1, 9.0, 0.2], "joules": [1.0, 2.0, 3.0]}
    assert found["idle_watts"] == {"cpu": 5.0}
    other = {"anchor": {**second["anchor"], "params": {"width": 5}}}
    assert (with_earlier(first, other), with_earlier({}, second), with_earlier(first, {})) == (other, second, {})


def test_nothing_is_measured_again_unless_it_is_asked_for(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=1), out=tmp_path / "r")
    assert "anchor" not in RunFolder.open(tmp_path / "r").run().facts


def test_a_study_ends_when_going_on_is_not_worth_it(rings: Maker, tmp_path: Path) -> None:
    heard: list[str] = []
    study = replace(rings(sampler="freeze-thaw", trials=200, seed=4), rungs=(1, 2))  # a seed with which it ends soon
    with a_joule_an_epoch():
        run(study, out=tmp_path / "r", stop_gain=0.999, listener=lambda progress: heard.append(progress.message))
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert 8 <= len(trials) < 200
    (said,) = [message for message in heard if "not worth it" in message]
    assert "to the hypervolume" in said


def test_an_earlier_study_is_knowledge_but_never_on_the_front(rings: Maker, tmp_path: Path) -> None:
    study = rings(sampler="freeze-thaw", trials=10)
    run(study, out=tmp_path / "first")
    front = run(replace(study, seed=1), out=tmp_path / "second", trials=3, warm_start=[tmp_path / "first"])
    assert {trial.number for trial in front} <= {0, 1, 2}
    with pytest.raises(ValueError, match="--warm-start needs --sampler freeze-thaw"):
        run(replace(study, sampler="tpe"), out=tmp_path / "third", warm_start=[tmp_path / "first"])


def test_an_idle_baseline_of_less_than_a_second_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"--idle.*0\.3"):
        MeasurementProtocol(idle_seconds=0.3)
    assert MeasurementProtocol(idle_seconds=1.0).idle_seconds == 1.0


def test_idle_power_is_measured_while_no_worker_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[tuple[float, float]] = []
    idle: list[tuple[float, float]] = []

    def measure_idle(ledger: Any, seconds: float) -> None:
        began = time.monotonic()
        time.sleep(0.02)
        idle.append((began, time.monotonic()))

    monkeypatch.setattr(module, "measure_idle", measure_idle)
    baselines = BaselineController(MeasurementProtocol(idle_seconds=1.0), None, None, None, "cpu", 1)  # type: ignore[arg-type]
    both = threading.Barrier(3)

    def work(seconds: float) -> None:
        both.wait(10.0)
        for _ in range(12):
            with baselines.trial():
                began = time.monotonic()
                time.sleep(seconds)
                trainings.append((began, time.monotonic()))

    with ThreadPoolExecutor(3) as workers:
        for done in [workers.submit(work, seconds) for seconds in (0.005, 0.01, 0.015)]:
            done.result(30.0)
    assert len(trainings) == 36
    assert len(idle) == 3  # before the 10th, the 20th and the 30th
    assert not [1 for a, b in idle for begin, end in trainings if begin < b and a < end]
    assert [1 for k, (a, b) in enumerate(trainings) for begin, end in trainings[k + 1 :] if begin < b and a < end]  # they do overlap


def test_a_cool_down_beside_other_trainings_is_refused_before_anything_starts(rings: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--cool-down.*30 with 2"):
        run(rings(), out=tmp_path / "r", workers=2, protocol=MeasurementProtocol(cool_down_seconds=30.0))
    assert not (tmp_path / "r").exists()


def test_two_workers_and_their_anchors_take_turns_and_add_up_to_the_ledger(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=4), out=tmp_path / "r", workers=2, protocol=MeasurementProtocol(anchor_every=2, anchor_seconds=0.1))
    folder = RunFolder.open(tmp_path / "r")
    result = folder.run()
    assert len(result.facts["anchor"]["joules"]) == 4
    assert len(result.trials) == 4
    assert {trial.state for trial in result.trials} == {"complete"}
    stop = list(lines(folder.ledger_file))[-1]
    assert stop["event"] == "stop"
    assert result.bill.total_joules == pytest.approx(Record.from_json(stop["record"]).joules, rel=0.01)  # the workers' end is in it
    assert sum(result.bill.by_state.values()) == pytest.approx(result.bill.total_joules, rel=1e-3)


@pytest.mark.parametrize("name", ["idle_seconds", "cool_down_seconds", "anchor_every", "anchor_seconds"])
@pytest.mark.parametrize("value", [-1, 1e80, float("nan"), float("inf")])
def test_a_length_that_nobody_waits_for_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}( \(--[\w-]+\))? must be (between 0 and 86,400 s|int|>= 0 trainings)"):
        MeasurementProtocol(**{name: value})
