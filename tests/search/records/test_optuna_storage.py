"""A session has its SQLite file in memory, and writes a trial at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._rdb.storage import _VersionManager
from optuna.trial import TrialState

from joulefront.search.records.database import DatabaseError, connect, make_study
from joulefront.search.records.optuna_storage import keep, open_storage
from joulefront.search.records.run_folder import RunFolder

STUDY = {"name": "tiny", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1, 3]}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "r", {"run_id": "tiny-1", "study": STUDY, "sessions": []})


def as_stored(folder: RunFolder) -> list[optuna.trial.FrozenTrial]:
    """What somebody else finds in the file."""
    return folder.study(read_only=True).get_trials()


def draw(trial: optuna.Trial) -> None:
    trial.suggest_int("width", 1, 9, log=True)
    trial.suggest_categorical("norm", ("batch", None, 3))
    trial.suggest_float("rate", 0.1, 0.9)


def facts(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    own = trial.number, trial.state, trial.params, trial.distributions, trial.user_attrs, trial.system_attrs
    return (*own, trial.values, trial.datetime_start, trial.datetime_complete)


@pytest.mark.slow
def test_the_file_holds_what_the_session_has_and_the_next_session_goes_on(folder: RunFolder) -> None:
    study = folder.study(alone=True)
    for number in range(3):
        study.enqueue_trial({"width": 4 + number}, user_attrs={"asked": number})
        trial = study.ask()
        draw(trial)
        keep(study)
        trial.set_user_attr("notes", {"joules": [1.0, None]})
        trial.set_user_attr("asked", "again")
        study.tell(trial, [0.5, number])
    study.tell(study.ask(), state=TrialState.FAIL)
    assert [facts(trial) for trial in as_stored(folder)] == [facts(trial) for trial in study.get_trials()]
    assert [trial.params["width"] for trial in as_stored(folder)[:3]] == [4, 5, 6]
    again = folder.study(alone=True)
    assert [facts(trial) for trial in again.get_trials()] == [facts(trial) for trial in study.get_trials()]
    assert again.metric_names == ["accuracy", "train_energy"]
    trial = again.ask()
    draw(trial)
    again.tell(trial, [0.6, 1.0])
    assert trial.number == 4
    assert as_stored(folder)[4].values == [0.6, 1.0]


def test_the_file_has_a_trial_before_its_training_begins(folder: RunFolder) -> None:
    study = folder.study(alone=True)
    trial = study.ask()
    draw(trial)
    assert as_stored(folder) == []
    keep(study)
    (open_one,) = as_stored(folder)
    assert open_one.state == TrialState.RUNNING
    assert open_one.params == trial.params


def test_trials_that_end_in_another_order_keep_their_numbers(folder: RunFolder) -> None:
    study = folder.study(alone=True)
    slow, quick = study.ask(), study.ask()
    study.tell(quick, [0.1, 1.0])
    study.tell(slow, [0.2, 2.0])
    assert [(trial.number, trial.values) for trial in as_stored(folder)] == [(0, [0.2, 2.0]), (1, [0.1, 1.0])]


def test_a_trial_costs_two_transactions(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    study, commits = folder.study(alone=True), []
    storage = study._storage._disk  # type: ignore[attr-defined]
    import sqlalchemy

    sqlalchemy.event.listen(storage.engine, "commit", lambda connection: commits.append(1))
    trial = study.ask()
    draw(trial)
    keep(study)
    trial.set_user_attr("a", 1)
    trial.set_user_attr("b", 2)
    study.tell(trial, [0.5, 1.0])
    assert len(commits) == 2


def test_a_file_that_somebody_else_has_written_to_is_not_mixed_up(folder: RunFolder) -> None:
    study = folder.study(alone=True)
    folder.study().tell(folder.study().ask().number, [0.1, 1.0])
    with pytest.raises(RuntimeError, match="another process has written trial 0"):
        study.tell(study.ask(), [0.2, 2.0])


def test_a_file_that_cannot_be_written_any_more_is_named_with_the_remedy(folder: RunFolder) -> None:
    study = folder.study(alone=True)
    with sqlite3.connect(folder.path / "study.db") as database:
        database.execute("DROP TABLE trial_params")
    trial = study.ask()
    draw(trial)
    with pytest.raises(DatabaseError, match=r"study\.db cannot be used any more .*run the same command again"):
        study.tell(trial, [0.2, 2.0])


def test_other_storages_have_everything_at_once(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "s.db", None, "create")
    make_study(storage, "tiny", STUDY["objectives"], STUDY["directions"])  # type: ignore[arg-type]
    study = optuna.load_study(study_name="tiny", storage=storage)
    study.ask()
    keep(study)
    rows = connect(tmp_path / "s.db", "read").execute("SELECT COUNT(*) FROM trials").fetchone()
    assert rows == (1,)


def test_the_migrations_of_optuna_are_loaded_for_tables_of_another_version_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_storage(tmp_path / "s.db", None, "create")
    with sqlite3.connect(tmp_path / "s.db") as database:
        made_by = database.execute("SELECT library_version FROM version_info").fetchone()
    assert made_by == (optuna.__version__,)
    loaded, scripts = list[object](), _VersionManager._create_alembic_script
    monkeypatch.setattr(_VersionManager, "_create_alembic_script", lambda tables: loaded.append(tables) or scripts(tables))
    open_storage(tmp_path / "s.db", None, "write")
    open_storage(tmp_path / "s.db", None, "read")
    assert loaded == []
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("UPDATE version_info SET library_version = '4.0.0'")
    open_storage(tmp_path / "s.db", None, "write")  # its tables are the same
    assert loaded
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")
    with pytest.raises(RuntimeError, match="optuna storage upgrade"):
        open_storage(tmp_path / "s.db", None, "write")
