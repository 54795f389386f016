"""Finalists trained again for real: nothing of the search changes, and every joule is on the bill."""

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulefront.search import Front, Study, run
from joulefront.search.billing.account import Account
from joulefront.search.billing.recovery import settle_killed
from joulefront.search.energy import Capability, Ledger, Reading, Record
from joulefront.search.energy.host import Idle
from joulefront.search.execution import job, watch
from joulefront.search.records.bill import REPEAT, SessionBill, read_sessions
from joulefront.search.records.files import digest
from joulefront.search.records.replicates import read_repeats
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.trial import INTERRUPTED
from joulefront.search.running import baselines, session
from joulefront.search.running.baselines import MeasurementProtocol
from joulefront.search.running.repeat import repeat
from joulefront.spaces.recipes import RecipeRanges

pytestmark = pytest.mark.slow
Maker = Callable[..., Study]


def silent(text: str) -> None:
    """Listen to nothing."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hold the run that the tests copy; it is made by the first of them."""
    return {"folder": tmp_path_factory.mktemp("searched") / "r"}


@pytest.fixture
def folder(searched: dict[str, Path], rings: Maker, tmp_path: Path) -> Path:
    """A finished run to spoil: a copy, with several members on its front."""
    if not searched["folder"].exists():
        run(rings(trials=8), out=searched["folder"], meter="cpu_time")
    return Path(shutil.copytree(searched["folder"], tmp_path / "r"))


def sums_up(path: Path) -> None:
    bill = RunFolder.open(path).run().bill
    assert bill.total_joules is not None
    assert sum(bill.by_state.values()) == pytest.approx(bill.total_joules, rel=1e-3)


def test_finalists_are_trained_again_and_the_search_stays_as_it_was(folder: Path, rings: Maker) -> None:
    before = RunFolder.open(folder).run()
    front = Front.of(before)
    assert len(front) > 1
    said: list[str] = []
    finding = repeat(rings(), folder, times=2, listener=said.append)
    after = RunFolder.open(folder).run()
    assert after.trials == before.trials
    assert [trial.number for trial in Front.of(after)] == [trial.number for trial in front]
    assert {file.name for file in (folder / "artifacts").iterdir()} == {f"trial-{trial.number:05d}.weights" for trial in front}
    assert [member.trial.number for member in finding.members] == [trial.number for trial in front]
    assert len(after.repeats.trainings) == 2 * len(front)
    assert len({one.seed for one in after.repeats.trainings}) == len(after.repeats.trainings)
    for one in after.repeats.trainings:
        trial = after.trials[one.trial]
        assert one.failed is None
        assert one.epochs == trial.epochs
        assert one.train_joules is not None
        assert one.spent_joules is not None
        assert 0 < one.train_joules < one.spent_joules
        assert one.train_u_joules is not None
        assert one.energy_quality == trial.energy_quality == "estimated"
        assert one.hardware_id == trial.hardware_id
    # Other weights and another order of the examples give other losses; the same seed would give the same.
    for number in [trial.number for trial in front]:
        losses = [one.quality["loss"] for one in after.repeats.trainings if one.trial == number] + [after.trials[number].quality["loss"]]
        assert len(set(losses)) == 3
    assert len(said) == 1 + len(after.repeats.trainings)
    assert "cpu estimated by cpu_time" in said[0]


def test_repeats_are_a_named_part_of_the_bill_over_sessions_and_count_for_the_budget(folder: Path, rings: Maker) -> None:
    before = RunFolder.open(folder).run().bill
    repeat(rings(), folder, times=1, listener=silent)
    after = RunFolder.open(folder).run()
    spent = sum(one.spent_joules or 0.0 for one in after.repeats.trainings)
    assert after.bill.by_state["repeats"] == pytest.approx(spent, rel=1e-3)
    assert after.bill.by_state["complete"] == pytest.approx(before.by_state["complete"], rel=1e-9)
    assert after.bill.total_joules is not None
    assert before.total_joules is not None
    assert after.bill.total_joules >= before.total_joules + spent
    sums_up(folder)
    # A budget that the search alone has not used up, and that search and repeats together have.
    between = (before.total_joules + after.bill.total_joules) / 2
    with pytest.raises(ValueError, match=r"budget.*already"):
        run(rings(), out=folder, budget=f"{between}J", meter="cpu_time")
    run(rings(), out=folder, trials=9, meter="cpu_time")
    again = RunFolder.open(folder).run()
    assert len(again.trials) == 9
    assert again.bill.by_state["repeats"] == pytest.approx(after.bill.by_state["repeats"], rel=1e-9)
    sums_up(folder)


def test_called_again_it_adds_rounds_with_other_seeds(folder: Path, rings: Maker) -> None:
    repeat(rings(), folder, times=1, pick="best", listener=silent)
    first = read_repeats(folder).trainings
    finding = repeat(rings(), folder, times=2, pick="best", order="abba", listener=silent)
    after = read_repeats(folder)
    assert after.trainings[:1] == first
    assert [one.round for one in after.trainings] == [0, 1, 2]
    assert [one.plan for one in after.trainings] == [0, 1, 1]
    assert len({one.seed for one in after.trainings}) == 3
    assert finding.members[0].quality is not None
    assert finding.members[0].quality.n == 3


def test_equal_seeds_give_equal_models(folder: Path, rings: Maker, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    for path in (folder, other):
        repeat(rings(), path, times=1, pick="knee", seed=5, listener=silent)
    one, two = read_repeats(folder).trainings[0], read_repeats(other).trainings[0]
    assert (one.seed, one.quality) == (two.seed, two.quality)


def test_a_repeat_that_fails_keeps_its_reason_and_its_energy_and_the_rest_goes_on(
    folder: Path, rings: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = rings()
    said: list[str] = []
    build = type(study.space).build

    def sometimes(self: Any, candidate: Any, task: Any) -> Any:
        if len(said) == 2:  # the start and the first training
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return build(self, candidate, task)

    monkeypatch.setattr(type(study.space), "build", sometimes)
    finding = repeat(study, folder, times=3, pick="best", listener=said.append)
    trainings = read_repeats(folder).trainings
    assert [one.failed is None for one in trainings] == [True, False, True]
    assert "out of memory" in str(trainings[1].failed)
    assert trainings[1].spent_joules is not None
    assert trainings[1].quality == {}
    assert finding.members[0].failed == 1
    assert finding.members[0].quality is not None
    assert finding.members[0].quality.n == 2
    sums_up(folder)


def test_a_repeat_whose_device_is_lost_in_it_keeps_its_record_and_its_energy(
    folder: Path, rings: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lost, train = RunFolder.open(folder).run().bill, list[int](), job.train

    def synchronize() -> None:
        if lost:
            raise RuntimeError("device-side assert")

    def breaks(work: job.Job, *more: Any, **facts: Any) -> job.Outcome:
        outcome = train(work, *more, **facts)
        lost.extend([1] * (work.weights.name == "repeat.weights"))
        return outcome

    monkeypatch.setattr(session, "synchronizer", lambda device: synchronize)
    monkeypatch.setattr(job, "train", breaks)
    repeat(rings(), folder, times=1, pick="best", listener=silent)
    (one,) = read_repeats(folder).trainings
    assert "device-side assert" in str(one.failed)
    bill = RunFolder.open(folder).run().bill
    assert one.spent_joules == pytest.approx(bill.by_state["repeats"], rel=1e-3)
    sums_up(folder)
    assert "repeats" not in before.by_state


@pytest.mark.parametrize(("most_seconds", "said_of_it"), [(1.0, "after 1 s;"), (None, "10 times what was expected")])
def test_a_repeat_that_hangs_is_ended_billed_as_failed_and_the_rest_goes_on(
    folder: Path, rings: Maker, monkeypatch: pytest.MonkeyPatch, most_seconds: float | None, said_of_it: str
) -> None:
    study = rings(max_trial_seconds=most_seconds)
    said: list[str] = []
    build = type(study.space).build

    def hangs(self: Any, candidate: Any, task: Any) -> Any:
        if len(said) == 2:  # the start and the first training
            time.sleep(600)
        return build(self, candidate, task)

    monkeypatch.setattr(type(study.space), "build", hangs)
    monkeypatch.setattr(watch, "LEAST_SECONDS", 1.0)
    finding = repeat(study, folder, times=3, pick="best", listener=said.append)
    trainings = read_repeats(folder).trainings
    assert [one.failed is None for one in trainings] == [True, False, True]
    assert said_of_it in str(trainings[1].failed)
    assert "--trial-timeout" in str(trainings[1].failed)
    assert trainings[1].spent_joules is not None
    assert finding.members[0].failed == 1
    sums_up(folder)


def test_after_an_interrupt_the_same_call_finishes_the_plan(folder: Path, rings: Maker) -> None:
    said: list[str] = []

    def third(text: str) -> None:
        said.append(text)
        if len(said) == 3:  # the start and two trainings
            signal.raise_signal(signal.SIGINT)

    repeat(rings(), folder, times=3, pick="best,cheapest", listener=third)
    half = read_repeats(folder)
    assert len(half.trainings) == 2
    assert RunFolder.open(folder).facts["sessions"][-1]["reason"] == "interrupted"
    sums_up(folder)
    repeat(rings(), folder, times=3, pick="best,cheapest", listener=said.append)
    whole = read_repeats(folder)
    assert whole.trainings[:2] == half.trainings
    assert len(whole.plans) == 1
    assert [(one.round, one.trial) for one in whole.trainings] == [(slot.round, slot.trial) for slot in whole.plans[0].slots()]
    assert any("going on with" in text for text in said)
    sums_up(folder)


def test_a_training_that_is_interrupted_in_the_middle_is_billed_and_done_again(
    folder: Path, rings: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = next(trial for trial in RunFolder.open(folder).run().trials if trial.epochs > 1)
    # Called after every epoch.
    monkeypatch.setattr(Account, "save_sometimes", lambda self: signal.raise_signal(signal.SIGINT))
    finding = repeat(rings(), folder, times=1, pick=f"trial={long.number}", listener=silent)
    (one,) = read_repeats(folder).trainings
    assert (one.failed, one.epochs) == (INTERRUPTED, 1)
    assert (one.spent_joules or 0.0) > 0
    assert finding.members[0].quality is None
    monkeypatch.undo()
    repeat(rings(), folder, times=1, pick=f"trial={long.number}", listener=silent)
    assert [one.failed for one in read_repeats(folder).trainings] == [INTERRUPTED, None]
    sums_up(folder)


def test_a_repeat_trains_to_the_epochs_of_the_search_though_patience_would_end_it_elsewhere(rings: Maker, tmp_path: Path) -> None:
    """Nothing was impatient in the search; with patience and next to no learning a training would end after its second epoch."""
    recipe = RecipeRanges(learning_rate=1e-12, weight_decay=0.0, batch_size=64)
    study = rings(trials=4)
    study = replace(study, space=replace(study.space, recipe=recipe))  # type: ignore[type-var]
    run(study, out=tmp_path / "r", meter="cpu_time", device="cpu")
    long = next(trial for trial in RunFolder.open(tmp_path / "r").run().trials if trial.epochs > 2)
    impatient = replace(study, space=replace(study.space, recipe=replace(recipe, patience=1)))  # type: ignore[type-var]
    finding = repeat(impatient, tmp_path / "r", times=1, pick=f"trial={long.number}", listener=silent)
    (one,) = read_repeats(tmp_path / "r").trainings
    assert (one.epochs, one.failed) == (long.epochs, None)
    assert finding.members[0].quality is not None
    assert finding.members[0].failed == 0


def test_the_anchor_and_the_idle_power_go_to_the_plan_and_not_to_the_search(
    folder: Path, rings: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(records: list[Record]) -> dict[str, Idle]:  # a second of rest may be too little for the meter of a busy machine
        assert {record.kind for record in records} == {"idle"}
        return {"cpu": Idle(0.5, 0.1, len(records))}

    monkeypatch.setattr(baselines, "idle_watts", resolved)
    repeat(rings(), folder, times=1, pick="knee", protocol=MeasurementProtocol(1.0, 0.0, 1, 0.1), listener=silent)
    plan = read_repeats(folder).plans[0]
    assert plan.anchor is not None
    assert len(plan.anchor["joules"]) >= 2
    assert plan.idle_watts == {"cpu": 0.5}
    assert "anchor" not in RunFolder.open(folder).facts
    sums_up(folder)


def test_a_killed_repeat_is_settled_as_a_repeat(tmp_path: Path) -> None:
    now_ns = [10**12]

    def clock() -> int:
        now_ns[0] += 1_000
        return now_ns[0]

    def wait(seconds: float) -> None:
        now_ns[0] += round(seconds * 1e9)

    class Steady:
        name = "steady"

        def probe(self) -> tuple[Capability, ...]:
            return (Capability("cpu:pkg0", "steady", True, tick_seconds=1e-6, gain_u=0.0),)

        def read(self) -> tuple[Reading, ...]:
            now = clock()
            return (Reading("cpu:pkg0", now, 0, counter_joules=10.0 * now / 1e9),)

        def close(self) -> None: ...

    file, bill = tmp_path / "ledger.jsonl", tmp_path / "bill.json"
    with Ledger([Steady()], file=file, interval_seconds=None, clock=clock) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, bill)
        done = account.open(0, None, kind=REPEAT)
        wait(0.02)
        account.close(done, state="failed", cpu_seconds=None)
        account.open(1, None, kind=REPEAT)
        wait(0.02)
        account.save()
        assert account.session.by_state["repeats"] == pytest.approx(0.2, rel=0.01)
        assert set(account.session.open_repeats) == {1}
        assert account.session.open_trials == {}
        wait(0.02)
        ledger.sample()
        ledger.checkpoint()
        lost = read_sessions(bill)
        assert settle_killed(lost, file) == {}
    states = lost[0]["by_state_joules"]
    assert set(states) <= {"repeats", "overhead", "idle"}
    assert states["repeats"] == pytest.approx(0.6, rel=0.01)
    assert sum(states.values()) == pytest.approx(sum(part["joules"] for part in lost[0]["total"]["components"]), rel=1e-3)
    assert json.loads(json.dumps(lost)) == lost


def rewrite(folder: Path, change: Callable[[str], str]) -> str:
    """Change the trials of a run as if they had been measured so: their copy beside the database, which is read, and its digest."""
    found = json.loads(change((folder / "trials.json").read_text()))
    found["digest"] = digest(found["trials"], found["optuna"])
    (folder / "trials.json").write_text(json.dumps(found))
    return json.dumps(found)


def test_another_study_is_refused(folder: Path, rings: Maker) -> None:
    study = rings()
    with pytest.raises(StoreError, match="other objectives"):
        repeat(replace(study, objectives=("accuracy", "inference_energy", "train_energy")), folder, listener=silent)

    class Other:
        name = "own"

        def sample(self, trial: Any) -> Any:
            return trial.suggest_int("depth", 1, 9)

    with pytest.raises(ValueError, match="no 'depth'"):
        repeat(replace(study, space=replace(study.space, draw=Other().sample)), folder, listener=silent)  # type: ignore[type-var]
    assert not (folder / "repeats.json").exists()


def test_other_data_are_refused_before_anything_is_trained(folder: Path, rings: Maker) -> None:
    study = rings()
    task = study.load_task()

    class Fewer:
        def __len__(self) -> int:
            return len(task.train) - 1

        def __getattr__(self, name: str) -> Any:
            return getattr(task.train, name)

    other = replace(study, task=replace(task, train=Fewer()))  # type: ignore[arg-type]  # the rest is the split's own
    with pytest.raises(StoreError, match=r"made with other data: .*; got .* rows \(.*give the --data of the search"):
        repeat(other, folder, times=1, listener=silent)
    assert RunFolder.open(folder).run().repeats.rounds == 0


def test_other_hardware_and_other_meters_are_refused_before_anything_is_trained(folder: Path, rings: Maker) -> None:
    with pytest.raises(StoreError, match=r"metered otherwise.*--cpu-watts"):
        repeat(rings(), folder, cpu_watts=123.0, listener=silent)
    rewrite(folder, lambda text: re.sub(r'"hardware_id": "\w+"', '"hardware_id": "elsewhere"', text))
    with pytest.raises(StoreError, match=r"other hardware \(elsewhere, here"):
        repeat(rings(), folder, listener=silent)
    store = RunFolder.open(folder)
    store.save_facts({**store.facts, "sessions": [{**store.facts["sessions"][0], "device": "cuda:1"}]})
    with pytest.raises(StoreError, match=r"--device cpu.*trained on cuda"):
        repeat(rings(), folder, device="cpu", listener=silent)
    assert not (folder / "repeats.json").exists()
    assert "repeats" not in RunFolder.open(folder).run().bill.by_state


def test_the_same_watts_from_another_origin_are_the_same_meter(folder: Path, rings: Maker) -> None:
    text = (folder / "trials.json").read_text()
    older = rewrite(folder, lambda text: re.sub(r"(W per CPU-second above idle) \([^)]*\)", r"\1 (as an older version said)", text))
    assert "as an older version said" in older or "cpu_time" not in text
    repeat(rings(), folder, times=1, listener=silent)
    assert RunFolder.open(folder).run().repeats.rounds == 1


def test_two_sessions_never_share_a_folder(folder: Path, rings: Maker) -> None:
    with RunFolder.open(folder).lock(), pytest.raises(StoreError, match="another process"):
        repeat(rings(), folder, listener=silent)
