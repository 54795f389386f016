"""Workers of one study as they run: its folder, its budget, its bill, and what becomes of a training that is given up."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.workers import in_processes, in_threads, sleeping, sleeping_study, work

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.records.database import fail_open_trials
from joulefront.search.records.run import Run
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.shared_study import ArtifactStore, LedgerCopy, SharedStudy, check_place
from joulefront.search.records.trial import EXCUSED, Trial, TrialEnergy
from joulefront.search.running.clean_hours import CarbonTime
from joulefront.search.running.identity import study_folder
from joulefront.search.running.membership import GRACE_BEATS, Membership, Refusal
from joulefront.search.running.trial_runner import TrialRunner


@pytest.mark.slow
def test_files_of_trials_travel_between_workers_and_the_folder_is_made_by_the_first(tmp_path: Path) -> None:
    store = ArtifactStore(check_place(str(tmp_path / "store")), "run-1")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "trial-00001.weights").write_bytes(b"weights")
    assert not store.get(tmp_path / "b" / "trial-00001.weights")
    store.put(tmp_path / "a" / "trial-00001.weights")
    assert store.get(tmp_path / "b" / "trial-00001.weights")
    assert (tmp_path / "b" / "trial-00001.weights").read_bytes() == b"weights"
    store.remove(tmp_path / "a" / "trial-00001.weights")
    assert not store.get(tmp_path / "c")
    with pytest.raises(OSError, match="nowhere"):
        ArtifactStore("/nowhere/at/all", "run-1").put(tmp_path / "a" / "trial-00001.weights")
    for wrong in ("s3://", "https://somewhere"):
        with pytest.raises(ValueError, match="--artifacts"):
            check_place(wrong)


@pytest.mark.slow
def test_the_ledger_of_a_worker_that_is_killed_lies_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LedgerCopy.__init__.__kwdefaults__ or {}, "every_seconds", 0.02)
    store = tmp_path / "store"

    def die() -> None:
        with sleeping(0.05):
            work(f"sqlite:///{tmp_path}/s.db", tmp_path / "r", sleeping_study(), trials=99, save_seconds=0.1, artifacts=str(store))

    worker = multiprocessing.get_context("fork").Process(target=die)
    worker.start()
    while not any(int(path.stem[-5:]) >= 2 for path in store.glob("*-trial-*.weights")):  # those of one trial may go before they are seen
        assert worker.is_alive()
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    (copied,) = store.glob("*-ledger-*.jsonl")
    ledger = (tmp_path / "r" / "ledger.jsonl").read_bytes()
    assert ledger.startswith(copied.read_bytes())
    assert b'"name":"trial 0"' in copied.read_bytes()


def test_a_run_of_two_kinds_of_hardware_is_shown_one_kind_at_a_time(tmp_path: Path) -> None:
    def trial(number: int, hardware: str, model: str) -> Trial:
        energy = TrialEnergy(train_joules=1.0 + number, hardware_id=hardware, record={"hardware": {"cpu_model": model}})
        return Trial(number, "complete", {}, 1, values=(0.5 + number / 10, 1.0 + number), energy=energy)

    trials = (trial(0, "aa", "Slow"), trial(1, "bb", "Fast"), trial(2, "aa", "Slow"))
    facts = {"sessions": [{"hardware_id": "bb"}]}
    run = Run("s", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), trials, Any, facts)  # type: ignore[arg-type]
    assert [one.number for one in run.comparable().trials] == [1]
    assert [one.number for one in run.comparable("aa").trials] == [0, 2]
    assert "2 trials on hardware aa (Slow)" in (run.comparable().apart() or "")
    with pytest.raises(ValueError, match="--hardware must be one of aa, bb"):
        run.comparable("cc")


@pytest.mark.slow
def test_a_training_whose_trial_was_given_up_ends_after_its_epoch_and_is_billed_as_failed(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/s.db", tmp_path / "log"

    def give_up() -> None:
        until = time.monotonic() + 60.0
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.01)
        study = optuna.load_study(study_name="sleep", storage=url)
        assert fail_open_trials(study, {0: 0.5}, only={0}) == [0]

    with sleeping(0.3, log):
        in_threads([lambda: work(url, tmp_path / "r", sleeping_study(rungs=(9,)), trials=1, epoch_joules=2.0), give_up])
    run = RunFolder.open(tmp_path / "r").run()
    epochs = len(log.read_text().splitlines())
    assert epochs < 9
    assert (run.trials[0].state, run.trials[0].increment_joules) == ("failed", 0.5)
    assert run.bill.total_joules == pytest.approx(2.0 * epochs)
    assert run.bill.by_state["failed"] == pytest.approx(2.0 * epochs)
    assert not list((tmp_path / "r" / "shared").glob("*.weights")), "others do not continue what was given up"


@pytest.mark.slow
def test_a_budget_is_overshot_by_less_than_an_epoch_of_each_worker(tmp_path: Path) -> None:
    url, workers, joules, budget = f"sqlite:///{tmp_path}/s.db", 3, 2.0, 25.0
    with sleeping(0.01, tmp_path / "log"):
        study = sleeping_study(rungs=(1, 2, 4, 8))
        in_threads([
            lambda n=n: work(url, tmp_path / f"r{n}", study, budget=f"{budget:g}J", epoch_joules=joules)  # type: ignore[misc]
            for n in range(workers)
        ])  # fmt: skip
    run = RunFolder.open(tmp_path / "r0").run()
    spent = joules * len((tmp_path / "log").read_text().splitlines())
    assert run.bill.total_joules == pytest.approx(spent), "every epoch is on the bill once"
    assert spent < budget + workers * joules
    assert all(trial.state != "running" for trial in run.trials)


@pytest.mark.slow
def test_three_workers_share_trials_budget_and_bill_and_a_fourth_of_other_hardware_is_kept_apart(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/s.db", tmp_path / "log"
    study = sleeping_study("freeze-thaw")
    worker = partial(work, url, study=study, trials=15, save_seconds=0.5)
    kinds = (None, None, "Another CPU")
    in_processes(*(partial(worker, out=tmp_path / f"r{n}", cpu_model=kind) for n, kind in enumerate(kinds)), epoch_seconds=0.2, log=log)
    with pytest.raises(StoreError, match="another study 'sleep'"):
        work(url, tmp_path / "other", replace(study, seed=1), trials=30)
    folder = RunFolder.open(tmp_path / "r0")
    run = folder.run()
    assert [trial.number for trial in run.trials] == list(range(15))
    assert all(trial.state != "running" for trial in run.trials)
    assert not [trial.reason for trial in run.trials if "unknown" in str(trial.reason)]
    assert len({trial.hardware_id for trial in run.trials if trial.values}) == 2
    kept = run.comparable()
    assert kept.elsewhere
    assert {trial.hardware_id for trial in kept.trials if trial.values} == {run.facts["sessions"][-1]["hardware_id"]}
    epochs = [tuple(line.split(" ", 3)[1::2]) for line in log.read_text().splitlines()]
    own = Counter(
        (trial.hardware_id, trial.params["width"], trial.params["learning_rate"], trial.epochs) for trial in run.trials if trial.values
    )
    assert max(own.values()) == 1, f"nothing is trained twice: {epochs}"
    by_folder = [RunFolder.open(tmp_path / f"r{n}").bill_file for n in range(3)]
    assert all(file.exists() for file in by_folder)
    states, _ = SharedStudy(folder.study()).look()
    assert run.bill.total_joules == pytest.approx(sum(state.joules for state in states.values()))


@pytest.mark.slow
def test_the_first_training_on_other_hardware_is_not_judged_by_what_the_others_took(tmp_path: Path) -> None:
    url, study, log = f"sqlite:///{tmp_path}/s.db", sleeping_study(rungs=(1, 2, 4)), tmp_path / "log"
    asked = list[tuple[int, int]]()
    trials = TrialRunner._trials

    def counted(self: TrialRunner) -> Any:
        found = trials(self)
        asked.append((sum(bool(trial.values) for trial in found), sum(trial.hardware_id is not None for trial in found)))
        return found

    with sleeping(0.0, log):
        work(url, tmp_path / "a", study, trials=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrialRunner, "_trials", counted)
            work(url, tmp_path / "b", study, trials=4, cpu_model="Another CPU")
    assert asked[0] == (0, 0), "three trials elsewhere are none here"


def test_a_study_with_a_forecast_is_not_shared_and_says_so_before_anything_is_made(tmp_path: Path) -> None:
    carbon = CarbonTime(IntensityCurve((0.0, 12.0), (400.0, 100.0), shape="step"), None)
    with pytest.raises(StoreError, match="--forecast must go without --storage, got both") as refused:
        work(f"sqlite:///{tmp_path}/s.db", tmp_path / "r", sleeping_study(), trials=1, carbon=carbon)
    assert "leave --storage out" in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_who_makes_a_study_waits_for_one_that_was_stopped_as_it_made_it_until_that_counts_as_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, exclusive = list[float](), SharedStudy.exclusive
    monkeypatch.setattr(SharedStudy, "exclusive", lambda self, seconds=60.0: waited.append(seconds) or exclusive(self, seconds))
    url, study = f"sqlite:///{tmp_path / 's.db'}", sleeping_study()
    with study_folder(tmp_path / "r", study, url, None, 1.0, None, None, beat_seconds=0.5) as folder:
        assert folder.facts["shared"] == study.name
    assert waited == [GRACE_BEATS * 0.5]


@pytest.mark.slow
def test_a_machine_that_reaches_the_weights_elsewhere_keeps_its_own_place_also_when_it_goes_on(tmp_path: Path) -> None:
    url, study, there = f"sqlite:///{tmp_path / 's.db'}", sleeping_study(), tmp_path / "mounted"
    with sleeping(0.0):
        work(url, tmp_path / "one", study, trials=2, artifacts=str(tmp_path / "art"))
        work(url, tmp_path / "two", study, trials=4, artifacts=str(there))
    assert RunFolder.open(tmp_path / "two", storage=url).facts["artifacts"] == str(there)
    assert RunFolder.open(tmp_path / "one", storage=url).facts["artifacts"] == str(tmp_path / "art")
    assert {file.name.rpartition("-")[2] for file in there.glob("*.weights")} <= {"00002.weights", "00003.weights"}
    assert list(there.glob("*-ledger-*"))
    with study_folder(tmp_path / "two", study, url, None, 1.0, None, None, artifacts=str(tmp_path / "moved")) as folder:
        assert folder.facts["artifacts"] == str(tmp_path / "moved")
    known = SharedStudy(RunFolder.open(tmp_path / "two", storage=url).study()).description()
    assert known is not None
    assert known["artifacts"] == str(tmp_path / "art")


@pytest.mark.slow
def test_a_study_in_another_format_is_refused_one_of_other_versions_warned_of_and_what_later_ones_say_left_out(tmp_path: Path) -> None:
    url, study = f"sqlite:///{tmp_path / 's.db'}", sleeping_study()
    join = lambda name: study_folder(tmp_path / name, study, url, None, 1.0, None, None)  # noqa: E731
    with join("one") as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = SharedStudy(folder.study())
        shared._storage.set_study_system_attr(
            shared._id, "joulefront:worker:later", {"id": "later", "host": "there", "beat": 3, "mood": "good"}
        )
        assert shared.look()[0]["later"].beat == 3
        known = shared.description()
        assert known is not None
        with join("two"):
            pass
        shared.describe({**known, "versions": {**known["versions"], "torch": "1.0", "numpy": "1.0"}})
        with pytest.raises(UserWarning, match=r"other versions \(torch \S+ for 1\.0\)"), join("three"):
            pass
        shared.describe({**known, "format": 99, "versions": {"joulefront": "7.0"}})
        with pytest.raises(StoreError, match=r"must be in format 1, got 99; train with joulefront 7\.0"), join("four"):
            pass
    assert not any((tmp_path / name).exists() for name in ("three", "four"))


@pytest.mark.slow
def test_two_that_make_a_study_at_the_same_time_load_its_data_at_the_same_time(tmp_path: Path) -> None:
    """The lock is for making the study: were it held while the first loads the data, the second would not come to loading."""
    both_load, loaded = threading.Barrier(2, timeout=120.0), list[int]()
    plain = sleeping_study().task
    assert callable(plain)

    def load() -> Any:
        loaded.append(both_load.wait())
        return plain()

    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with sleeping(0.0):
        in_threads([partial(work, url, tmp_path / name, sleeping_study(task=load), trials=4) for name in ("one", "two")])
    assert sorted(loaded) == [0, 1]
    assert len(RunFolder.open(tmp_path / "one", storage=url).run().trials) == 4  # of two threads some energies may be unknown


@pytest.mark.slow
def test_of_two_that_begin_a_study_at_the_same_time_one_makes_it_and_both_keep_weights_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, both_begin = Membership.begin, threading.Barrier(2, timeout=120.0)

    def together(self: Membership, *given: Any, **words: Any) -> None:
        both_begin.wait()
        begin(self, *given, **words)

    monkeypatch.setattr(Membership, "begin", together)
    url = f"sqlite:///{tmp_path / 's.db'}"
    with sleeping(0.0):
        in_threads([partial(work, url, tmp_path / name, sleeping_study(), trials=4) for name in ("one", "two")])
    one, two = (RunFolder.open(tmp_path / name, storage=url).facts for name in ("one", "two"))
    assert [one[name] for name in ("artifacts", "run_id")] == [two[name] for name in ("artifacts", "run_id")]


@pytest.mark.slow
def test_a_candidate_that_another_worker_was_faster_with_keeps_its_weights_and_is_continued_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, lost = Membership.claim, list[int]()

    def slower(self: Membership, *given: Any) -> Refusal | None:
        if given[4] is not None and not lost:
            lost.append(given[4].number)
            return Refusal("another worker was faster", excused=True)
        return claim(self, *given)

    monkeypatch.setattr(Membership, "claim", slower)
    with sleeping(0.0):
        out = tmp_path / "r"
        work(f"sqlite:///{tmp_path}/s.db", out, sleeping_study("freeze-thaw", rungs=(1, 2)), trials=24, epoch_joules=1.0, stop_gain=None)
    folder = RunFolder.open(out, storage=f"sqlite:///{tmp_path}/s.db")
    stored, run = folder.study().get_trials(), folder.run()
    (refused,) = [trial for trial in stored if trial.state.name == "FAIL"]
    assert refused.user_attrs[EXCUSED] == "ended"
    resumed = [trial for trial in run.trials if stored[trial.number].user_attrs.get("resume_from") is not None and trial.values]
    assert all(trial.parent is not None for trial in resumed), "nothing is trained from scratch again"
    assert lost[0] in {trial.parent for trial in resumed}
