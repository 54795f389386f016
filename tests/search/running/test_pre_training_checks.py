import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.workers import sleeping, sleeping_study

from joulefront.search import Candidate, Study, run
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.session import Session
from joulefront.search.running.trial_runner import duplicate_of
from joulefront.search.study import rejection_of
from joulefront.search.training.recipe import Recipe

CANDIDATE = Candidate({"family": "own", "width": 10}, Recipe(batch_size=64))


@pytest.mark.parametrize("limit", ["max_parameters", "max_flops", "max_memory_bytes"])
def test_a_candidate_above_a_limit_is_refused_and_the_limit_is_named(rings: Callable[..., Study], limit: str) -> None:
    study = rings(**{limit: 1})
    assert f"more than {limit} = 1" in str(rejection_of(study, CANDIDATE, study.load_task()))


def test_a_candidate_within_the_limits_is_let_in(rings: Callable[..., Study]) -> None:
    study = rings(max_parameters=10**6, max_flops=10**9, max_memory_bytes=10**9)
    assert rejection_of(study, CANDIDATE, study.load_task()) is None
    assert rejection_of(rings(), CANDIDATE, study.load_task()) is None


def test_a_precision_that_the_device_lacks_is_refused_before_training(rings: Callable[..., Study]) -> None:
    study = rings()
    half = Candidate(CANDIDATE.architecture, Recipe(precision="float16"))
    refusal = str(rejection_of(study, half, study.load_task(), "cpu"))
    assert refusal.startswith("refused before training: recipe.precision must be one that cpu computes in natively")
    assert refusal.endswith("got 'float16'")
    brain = Candidate(CANDIDATE.architecture, Recipe(precision="bfloat16"))
    assert rejection_of(study, brain, study.load_task(), "cpu") is None


def test_only_a_complete_trial_of_the_same_candidate_and_epochs_is_a_duplicate() -> None:
    def frozen(number: int, key: str, epochs: int, state: str = "COMPLETE") -> Any:
        attributes = {"key": key, "epochs_reached": epochs}
        done = SimpleNamespace(name=state, is_finished=lambda: True)
        facts = {"number": number, "state": done, "user_attrs": attributes, "system_attrs": {}}
        return SimpleNamespace(**facts, params={"epochs": epochs}, values=[0.5, 1.0])

    trials = [frozen(0, "a", 3, "FAIL"), frozen(1, "b", 3), frozen(2, "a", 1), frozen(3, "a", 3)]
    duplicate = duplicate_of(trials, "a", 3)
    assert duplicate is not None
    assert duplicate.number == 3
    assert duplicate_of(trials, "a", 9) is None


def test_a_candidate_that_cannot_be_built_is_refused_with_the_reason(rings: Callable[..., Study]) -> None:
    from dataclasses import replace

    from joulefront.spaces.own import Own

    def make(architecture: Any, task: Any) -> Any:
        raise ValueError("the images are too small for this network")

    study = rings(max_parameters=10)
    broken = replace(study, space=Own(lambda trial: {}, make))
    assert "too small for this network" in str(rejection_of(broken, CANDIDATE, study.load_task()))


@pytest.mark.slow
def test_a_trial_whose_session_ended_before_its_training_is_no_trial_of_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, out = sleeping_study(first=({"width": 77},)), tmp_path / "r"
    with sleeping(), monkeypatch.context() as slow:
        slow.setattr(Session, "warm_up", lambda self, executor, job, timed_out: time.sleep(1.1))
        run(study, out=out, trials=2, timeout_seconds=1.0, meter="cpu_time")
    (refused,) = RunFolder.open(out).run().trials
    assert refused.reason == "the timeout of 1 s has passed before its training began"
    with sleeping():
        run(study, out=out, trials=2, meter="cpu_time")
    found = RunFolder.open(out).run().trials
    assert [trial.state for trial in found] == ["failed", "complete", "complete"]
    assert found[1].params["width"] == refused.params["width"]  # what the study begins with is not lost with it
