"""The way of a trial where trainings are continued, ended, broken off or shared among workers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from helpers.workers import a_joule_an_epoch

from joulefront.search import Study, load, run
from joulefront.search.execution.job import InProcess, seed_of
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import Trial
from joulefront.search.running.recorder import Recorder
from joulefront.search.running.run import TrialLoop
from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.history import FROM_SCRATCH
from joulefront.search.stopping.rules import BROKEN_OFF, Limits, StopGain, StopRules
from joulefront.search.training.checkpoint import load_checkpoint
from joulefront.spaces.recipes import RecipeRanges

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]
RECIPE = RecipeRanges(learning_rate=(1e-3, 1e-1), weight_decay=0.0, batch_size=64)


@pytest.fixture(autouse=True)
def _a_joule_an_epoch() -> Iterator[None]:
    with a_joule_an_epoch():
        yield


@pytest.fixture
def climbing(rings: Maker) -> Maker:
    """Return the study under our sampler with some fields of the recipe changed."""

    def make(recipe: dict[str, Any] | None = None, **changes: Any) -> Study:
        study = rings(**{"sampler": "freeze-thaw", "trials": 16, **changes})
        return replace(study, space=replace(study.space, recipe=replace(RECIPE, **(recipe or {}))))  # type: ignore[type-var]

    return make


def trials_of(path: Path) -> tuple[Trial, ...]:
    return RunFolder.open(path).run().trials


def candidate_of(trial: Trial) -> str:
    return json.dumps(trial.params, sort_keys=True)


def whole(trial: Trial) -> bool:
    """Whether a trial was trained from scratch and says so."""
    return trial.parent is None and len(trial.curve) == trial.epochs


# -- schedules with a fixed horizon ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_with_a_horizon_has_no_parent_and_pays_for_itself_alone(climbing: Maker, tmp_path: Path, schedule: str) -> None:
    front = run(climbing({"schedule": schedule}, trials=18), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    longer = [trial for trial in trials if trial.epochs > 1]
    assert len(longer) >= 2
    for trial in trials:
        assert whole(trial)
        # The rest is the start-up; the energy of a shorter training would add a third of the epochs and more.
        epochs = sum(point["joules"] for point in trial.curve)
        assert trial.train_joules is not None
        assert epochs <= trial.train_joules
    store = RunFolder.open(tmp_path / "r")
    assert {trial.number for trial in trials if store.artifact(trial.number).exists()} == {trial.number for trial in front}


def test_where_schedules_are_mixed_only_those_without_a_horizon_are_continued(climbing: Maker, tmp_path: Path) -> None:
    run(climbing({"schedule": ("anytime", "cosine")}, trials=32), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    said = {trial.number for trial in RunFolder.open(tmp_path / "r").study().get_trials() if trial.user_attrs.get(FROM_SCRATCH)}
    assert said == {trial.number for trial in trials if trial.params["schedule"] == "cosine"}
    longer: Counter[tuple[str, bool]] = Counter()
    for trial in trials:
        if trial.params["schedule"] == "cosine":
            assert whole(trial)
        if trial.epochs > 1:
            longer[trial.params["schedule"], trial.parent is not None] += 1
    assert longer["anytime", True] >= 1
    assert longer["anytime", False] == 0


def test_a_trial_whose_checkpoint_is_missing_was_trained_from_scratch_and_says_so(
    climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = InProcess.train

    def forgets(self: InProcess, job: Any, **rest: Any) -> Any:
        return train(self, replace(job, checkpoint_below=0), **rest)

    monkeypatch.setattr(InProcess, "train", forgets)
    run(climbing(trials=11), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    assert max(trial.epochs for trial in trials) > 1
    assert all(whole(trial) for trial in trials)


def test_a_damaged_or_missing_parent_means_training_from_scratch_and_a_warning(climbing: Maker, tmp_path: Path) -> None:
    folder, warnings, damaged = tmp_path / "r", list[str](), set[str]()

    def damage(progress: Any) -> None:
        if progress.event == "warning":
            warnings.append(progress.message)
        if progress.event == "trial":  # every checkpoint loses a bit or goes away
            for file in sorted((folder / "artifacts").glob("*.weights")):
                if file.name in damaged:
                    continue
                damaged.add(file.name)
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 4
                file.write_bytes(content)
                if int(file.stem[-1]) % 2:
                    file.unlink()

    run(climbing(trials=14), out=folder, meter="cpu_time", listener=damage)
    trials = trials_of(folder)
    longer = [trial for trial in trials if trial.epochs > 1]
    assert longer
    assert all(whole(trial) and trial.state == "complete" for trial in trials)
    assert len(warnings) >= len(longer)
    assert all("from scratch" in warning and ".weights" in warning for warning in warnings)
    assert all(len(str(trial.artifact_sha256)) == 64 for trial in trials)


# -- trainings that end early ----------------------------------------------------------------------------------------------------------


def test_what_patience_has_ended_is_not_continued_and_keeps_no_weights_for_it(climbing: Maker, tmp_path: Path) -> None:
    # Nothing is learned at this rate: the second epoch of every training is the first without a better one.
    front = run(climbing({"learning_rate": 1e-12, "patience": 1}, trials=16), out=tmp_path / "r", meter="cpu_time")
    trials, store = trials_of(tmp_path / "r"), RunFolder.open(tmp_path / "r")
    ended = [trial for trial in trials if trial.reason]
    assert ended
    assert all("patience" in str(trial.reason) and trial.epochs == 2 for trial in ended)
    for trial in ended:
        assert not [later.number for later in trials[trial.number + 1 :] if later.params == trial.params]
        assert store.artifact(trial.number).exists() == (trial in front)


def test_a_cap_ends_each_training_and_the_next_one_goes_on_from_there(climbing: Maker, tmp_path: Path) -> None:
    """A cap below one epoch: every training makes one epoch, the checkpoint goes on with the next."""
    study = climbing(max_trial_joules=1e-12, rungs=(2, 4), trials=16)
    run(study, out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    assert len({(candidate_of(trial), trial.epochs) for trial in trials}) == len(trials) == 16
    assert {len(trial.curve) for trial in trials} == {1}
    stopped = [trial for trial in trials if trial.reason]
    assert all("has paid its cap of 0.000000278 nWh" in str(trial.reason) for trial in stopped)
    assert all(trial.state == "complete" for trial in trials)
    assert max(trial.epochs for trial in trials) > 2
    assert all(trial.parent is not None for trial in trials if trial.epochs > 1)


def test_a_cap_ends_a_schedule_with_a_horizon_once_for_each_length(climbing: Maker, tmp_path: Path) -> None:
    study = climbing({"schedule": "cosine"}, max_trial_joules=1e-12, trials=16)
    run(study, out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    asked = [(candidate_of(trial), trial.extra["asked_epochs"]) for trial in trials]
    assert len(set(asked)) == len(asked) == 16
    assert {trial.epochs for trial in trials} == {1}


# -- what is not the fault of a candidate ----------------------------------------------------------------------------------------------


def test_a_killed_continuation_is_taken_up_again_from_its_parent(climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, broken = InProcess.train, []

    def dies(self: InProcess, job: Any, **rest: Any) -> Any:
        if job.start is not None and job.number >= 0:  # the warm-up continues, too
            broken.append((job.number, int(job.start.stem.removeprefix("trial-")), job.epochs))
            raise RuntimeError("the power is gone")
        return train(self, job, **rest)

    monkeypatch.setattr(InProcess, "train", dies)
    with pytest.raises(RuntimeError, match="power"):
        run(climbing(trials=12), out=tmp_path / "r", meter="cpu_time")
    monkeypatch.undo()
    ((number, parent, epochs),) = broken
    run(climbing(trials=number + 6), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    assert trials[number].state == "failed"
    assert "killed" in str(trials[number].reason)
    again = [trial for trial in trials[number + 1 :] if trial.params == trials[number].params]
    assert again
    assert (again[0].parent, again[0].epochs) == (parent, epochs)


def test_the_parent_of_a_training_that_was_interrupted_keeps_its_weights(
    climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, hit = InProcess.train, []

    def interrupted_once(self: InProcess, job: Any, **rest: Any) -> Any:
        if job.start is None or job.number < 0 or hit:  # the warm-up continues, too
            return train(self, job, **rest)

        def ctrl_c(entry: Any) -> bool:
            raise KeyboardInterrupt

        hit.append(job)
        return train(self, job, phases=rest["phases"], should_continue=ctrl_c)

    monkeypatch.setattr(InProcess, "train", interrupted_once)
    run(climbing(trials=14), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    (broken,) = [trial for trial in trials if trial.state == "failed"]
    assert broken.number == hit[0].number
    assert broken.reason == "interrupted by the user"
    again = [trial for trial in trials[broken.number + 1 :] if trial.params == broken.params]
    assert again
    assert again[0].parent == broken.parent


# -- weights ---------------------------------------------------------------------------------------------------------------------------


def test_only_what_can_go_on_has_a_checkpoint_beside_its_weights(climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, bool] = {}
    train = InProcess.train

    def looks(self: InProcess, job: Any, **rest: Any) -> Any:
        outcome = train(self, job, **rest)
        if job.number >= 0:
            found[job.number] = load_checkpoint(job.weights, torch.nn.Identity()) is not None
        return outcome

    monkeypatch.setattr(InProcess, "train", looks)
    run(climbing(trials=13), out=tmp_path / "r", meter="cpu_time")
    trials = trials_of(tmp_path / "r")
    assert {trial.complete_training for trial in trials} == {True, False}
    assert found == {trial.number: not trial.complete_training for trial in trials}
    # Of a lineage that can still go on the longest is there, and nothing of it that is neither that nor on the front.
    store, front = RunFolder.open(tmp_path / "r"), {trial.number for trial in load(tmp_path / "r")}
    parents = {trial.parent for trial in trials}
    for trial in trials:
        end = trial.number not in parents and not trial.complete_training
        assert store.artifact(trial.number).exists() == (end or trial.number in front)


def test_other_samplers_store_no_checkpoints(rings: Maker, tmp_path: Path) -> None:
    front = run(rings(trials=3), out=tmp_path / "r", meter="cpu_time")
    store = RunFolder.open(tmp_path / "r")
    assert [load_checkpoint(store.artifact(trial.number), torch.nn.Identity()) for trial in front] == [None] * len(front)


def test_weights_of_a_trial_that_is_being_recorded_elsewhere_are_kept(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=2), out=tmp_path / "r", meter="cpu_time")
    store = RunFolder.open(tmp_path / "r")
    study = store.study()
    asked = study.ask()
    for number in (asked.number, 77):
        store.artifact(number).write_bytes(b"weights")
    Recorder(rings(), store, study, account=None, train_examples=1).drop_weights()  # type: ignore[arg-type]  # nothing is billed
    assert store.artifact(asked.number).exists()
    assert not store.artifact(77).exists()


# -- what trainings and the sampler are told -------------------------------------------------------------------------------------------


def test_every_candidate_has_its_own_seed_and_keeps_it_over_its_rungs(
    climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: dict[int, int] = {}
    train = InProcess.train

    def noted(self: InProcess, job: Any, **rest: Any) -> Any:
        if job.number >= 0:  # not of the warm-up
            seeds[job.number] = job.seed
        return train(self, job, **rest)

    monkeypatch.setattr(InProcess, "train", noted)
    study = climbing(trials=12, seed=5)
    run(study, out=tmp_path / "r", meter="cpu_time")
    store = RunFolder.open(tmp_path / "r")
    keys = {trial.number: trial.user_attrs["key"] for trial in store.study().get_trials()}
    assert seeds == {number: seed_of(5, key) for number, key in keys.items()}
    assert 2 <= len(set(seeds.values())) == len(set(keys.values())) < len(keys)


def test_the_sampler_is_told_what_remains_of_the_budget(climbing: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float | None] = []
    decide = FreezeThawSampler.decide

    def listens(self: FreezeThawSampler, *words: Any, **options: Any) -> Any:
        told.append(self.remaining)
        return decide(self, *words, **options)

    monkeypatch.setattr(FreezeThawSampler, "decide", listens)
    run(climbing(trials=4), out=tmp_path / "r", trials=4, budget="1Wh", meter="cpu_time")
    known = [joules for joules in told if joules is not None]
    assert len(known) == len(told) >= 3
    assert known == sorted(known, reverse=True)
    assert 0 < known[-1] < known[0] < 3600.0


# -- several workers -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rules(rings: Maker) -> StopRules:
    """The rules of a study whose trials are in memory and take no energy."""
    study, trials = rings(), optuna.create_study()
    account: Any = SimpleNamespace(spent_joules=lambda: None, spending=lambda what: nullcontext())
    return StopRules(study, trials, Limits(), account, threading.Event(), StopGain(study, trials, None))


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_several_workers_begin_no_trial_beyond_the_limit(rules: StopRules, most: int) -> None:
    def trial(executor: Any) -> None:
        asked = rules.optuna_study.ask()
        time.sleep(0.01 if executor == "a" else 0.03)
        rules.optuna_study.tell(asked, 0.0)

    rules.limits = Limits(trials=most)
    executors: Any = list("abc")
    assert TrialLoop(executors, rules, trial, lambda: 0).go() == f"all {most} trials are done"
    assert len(rules.optuna_study.trials) == most


def test_a_study_whose_last_trial_another_worker_ends_between_two_looks_has_a_reason(rules: StopRules, monkeypatch) -> None:
    rules = replace(rules, limits=Limits(trials=2, label="2 trials"))
    looks: list[int] = []
    monkeypatch.setattr(StopRules, "is_full", lambda self, under_way: looks.append(under_way) is None)
    monkeypatch.setattr(StopRules, "finished", lambda self: 2 if looks else 1)
    assert TrialLoop([object()], rules, lambda executor: None, lambda: 0).go()  # type: ignore[list-item]


def test_an_error_in_one_worker_ends_the_study_for_all(rules: StopRules) -> None:
    begun = threading.Event()

    def trial(executor: Any) -> None:
        rules.optuna_study.ask()
        if executor == "b":
            begun.wait(10)
            raise OSError("database is locked")
        begun.set()
        assert rules.interrupted.wait(10)
        assert rules.end_of_training(None) == BROKEN_OFF

    rules.limits = Limits(trials=1000)
    executors: Any = list("ab")
    with pytest.raises(OSError, match="database is locked"):
        TrialLoop(executors, rules, trial, lambda: 0).go()
    assert rules.reason == BROKEN_OFF
    assert len(rules.optuna_study.trials) <= 2
