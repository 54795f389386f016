"""The verb worker: what it refuses before anything is loaded, and how it stops a study."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from joulefront.search.records.shared_study import SharedStudy

SAID = {"name": "mine", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]}


@pytest.fixture
def shared(tmp_path: Path) -> SharedStudy:
    optuna.create_study(study_name="bare", storage=f"sqlite:///{tmp_path}/s.db", directions=["maximize", "minimize"])
    study = optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path}/s.db", directions=["maximize", "minimize"])
    found = SharedStudy(study)
    found.describe({"format": 1, "study": SAID, "origin": {"source": "/somewhere/mine.py", "options": {}, "overrides": {}}})
    return found


def refused(said: Any, *words: str) -> None:
    assert said.code == 2
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


@pytest.mark.slow
def test_a_worker_needs_a_storage_that_holds_its_study(
    call: Callable[..., Any], shared: SharedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOULEFRONT_STORAGE", raising=False)
    refused(call("worker", "--study", "mine"), "--storage must be the URL that joulefront run was given, got none")
    refused(call("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/none.db"), "cannot be used", "joulefront run --storage")
    assert not (tmp_path / "none.db").exists()
    url = f"sqlite:///{tmp_path}/s.db"
    refused(call("worker", "--study", "yours", "--storage", url), "got 'yours'", "bare, mine")
    refused(call("worker", "--study", "bare", "--storage", url), "of another program")
    (tmp_path / "empty.db").touch()
    refused(
        call("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/empty.db"), "there is none yet", "joulefront run --storage"
    )
    refused(call("worker", "--study", "mine", "--storage", "s.db"), "it is no URL of a database", "postgresql+psycopg://")
    assert not (tmp_path / "runs").exists()


def test_code_that_the_storage_names_runs_only_when_the_user_of_this_machine_names_it(
    call: Callable[..., Any], shared: SharedStudy, tmp_path: Path
) -> None:
    refused(
        call("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/s.db"), "would run that code", "--source /somewhere/mine.py"
    )


def test_data_that_this_machine_does_not_have_is_asked_for(call: Callable[..., Any], shared: SharedStudy, tmp_path: Path) -> None:
    words = ("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/s.db", "--out", tmp_path / "r")
    shared.describe(
        {"format": 1, "study": SAID, "origin": {"source": "table", "options": {"data": "/nowhere/t.csv", "target": "y"}, "overrides": {}}}
    )
    refused(call(*words), "'/nowhere/t.csv' on this machine", "--data")


def test_stopping_a_study_is_told_to_all_its_workers(call: Callable[..., Any], shared: SharedStudy, tmp_path: Path) -> None:
    words = ("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/s.db")
    assert call(*words, "--stop").code == 0
    assert shared.look()[1] == "joulefront worker --stop"
    later = call(*words)
    assert later.code == 0
    assert "mine is stopped" in later.err


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"study": 5}, "joulefront:study.study must be an object, got 5"),
        ({"beat_seconds": -1}, "beat_seconds must lie in (0, 86400], got -1"),
        ({"limits": {"budget": None, "trials": -5}}, "limits.trials must be >= 1, got -5"),
        ({"origin": {"source": "digits", "overrides": {"rungs": {"a": 1}}}}, "joulefront:study.origin.overrides.rungs must be a list"),
        ({"pue": float("nan")}, "NaN"),
        ({"run_id": "../../x"}, "run_id must be no path, for files are named after it, got '../../x'"),
        ({"price_per_kwh": ["x", "EUR"]}, "price_per_kwh must be a number and a currency, got ['x', 'EUR']"),
    ],
)
def test_a_study_that_somebody_has_damaged_is_refused(
    call: Callable[..., Any], shared: SharedStudy, tmp_path: Path, facts: Any, words: str
) -> None:
    shared.describe({"format": 1, "study": SAID, **facts})
    refused(call("worker", "--study", "mine", "--storage", f"sqlite:///{tmp_path}/s.db"), words, "the study 'mine' is damaged", "restore")
