"""What was lost with its worker is taken up again."""

from pathlib import Path
from typing import Any

import pytest
from helpers.workers import Sleeper, sleeping, sleeping_study

from joulefront.search import run
from joulefront.search.execution.job import Job, Outcome
from joulefront.search.records.run_folder import RunFolder


@pytest.mark.slow
@pytest.mark.parametrize("excused", [True, False])
def test_a_continuation_that_is_lost_with_its_worker_goes_on_later_and_one_that_failed_by_itself_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excused: bool
) -> None:
    """What an executor says of an actor of Ray that died, see ``RayWorker``; the sampler decides when the lineage goes on."""
    train, lost = Sleeper.train, list[Job]()

    def dying(self: Sleeper, job: Job, *, phases: Any, **words: Any) -> Outcome:
        if job.start is None or lost:
            return train(self, job, phases=phases, **words)
        lost.append(job)
        with phases("setup", 0):
            return Outcome(0, failed="the actor died (ActorDiedError)", excused=excused)

    monkeypatch.setattr(Sleeper, "train", dying)
    with sleeping(0.0):
        run(sleeping_study("freeze-thaw"), out=tmp_path / "r", trials=12, meter="cpu_time")
    trials = RunFolder.open(tmp_path / "r").run().trials
    (failed,) = [trial for trial in trials if trial.state == "failed"]
    assert failed.number == lost[0].number
    assert failed.parent is not None
    again = [trial for trial in trials if trial.state == "complete" and trial.params == failed.params and trial.number > failed.number]
    first = next((trial for trial in again if trial.parent == failed.parent), None)
    assert (first is not None) == excused
    assert all(trial is first or trial.parent != failed.parent for trial in again), "its epochs are trained and paid once"
    assert first is None or first.epochs > trials[failed.parent].epochs
