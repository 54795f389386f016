"""The trials that a study begins with, before its sampler decides, and what it tells before them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from joulefront.search import Study, run
from joulefront.search.records.run_folder import RunFolder

pytestmark = pytest.mark.slow

FIRST = ({"width": 7, "learning_rate": 0.02, "epochs": 2}, {"width": 11})


@pytest.mark.parametrize("sampler", ["freeze-thaw", "random", "tpe"])
def test_a_study_begins_with_its_first_candidates_and_draws_what_they_leave_out(
    rings: Callable[..., Study], tmp_path: Path, sampler: str
) -> None:
    study = replace(rings(trials=4), sampler=sampler, first=FIRST)
    run(study, out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert {**trials[0].params, "epochs": trials[0].epochs} == FIRST[0]
    assert trials[1].params["width"] == 11
    assert 1e-3 <= trials[1].params["learning_rate"] <= 1e-1
    assert len(trials) == 4


def test_a_run_that_goes_on_does_not_begin_again(rings: Callable[..., Study], tmp_path: Path) -> None:
    study = replace(rings(), first=FIRST)
    run(study, out=tmp_path / "r", trials=1)
    run(study, out=tmp_path / "r", trials=4)
    widths = [trial.params["width"] for trial in RunFolder.open(tmp_path / "r").run().trials]
    assert widths[:2] == [7, 11]
    assert len(widths) == 4


def test_the_notice_is_told_once_before_the_first_trial(rings: Callable[..., Study], tmp_path: Path) -> None:
    told = []
    run(replace(rings(trials=1), notice="weights were found"), out=tmp_path / "r", listener=lambda progress: told.append(progress.message))
    assert told.count("weights were found") == 1
    assert told.index("weights were found") < next(k for k, message in enumerate(told) if message.startswith("trial 0"))


def test_the_folder_says_which_weights_its_candidates_start_from(rings: Callable[..., Study], tmp_path: Path) -> None:
    facts = {"model": "resnet18", "origin": "a file", "licence": None, "sha256": "ab", "bytes": 3, "pretraining_joules": None}
    run(replace(rings(trials=1), weights=(facts,)), out=tmp_path / "r")
    assert RunFolder.open(tmp_path / "r").facts["study"]["weights"] == [facts]
