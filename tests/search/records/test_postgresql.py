"""Runs whose trials are on a PostgreSQL server, which may go away."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from helpers.postgresql import NotInstalledError, Server, postgresql_server
from helpers.run_folders import add, make

from joulefront.search import Study, run
from joulefront.search.records.database import DatabaseError
from joulefront.search.records.run_folder import RunFolder, StoreError


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg")
    try:
        with postgresql_server() as server:
            yield server
    except NotInstalledError as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.postgresql
def test_two_runs_of_one_name_share_a_server_and_stay_apart(postgresql: Server, tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", "tiny-a", postgresql.url), make(tmp_path / "b", "tiny-b", postgresql.url)
    add(first, 0.9, 12.0)
    add(second, 0.8, 5.0)
    add(second, 0.7, 4.0)
    assert [trial.values for trial in RunFolder.open(tmp_path / "a").run().trials] == [(0.9, 12.0)]
    assert [trial.values for trial in RunFolder.open(tmp_path / "b").run().trials] == [(0.8, 5.0), (0.7, 4.0)]
    assert not (tmp_path / "a" / "study.db").exists()


@pytest.mark.slow
@pytest.mark.postgresql
def test_a_study_runs_and_continues_in_postgresql(postgresql: Server, rings: Callable[..., Study], tmp_path: Path) -> None:
    secret = postgresql.url.replace("me@", "me:se%2Fcret@") + "&sslpassword=se%2Fcret"
    run(rings(), out=tmp_path / "r", trials=2, storage=secret, meter="cpu_time")
    assert not [file for file in (tmp_path / "r").rglob("*") if file.is_file() and re.search(rb"se(%2F|/)cret", file.read_bytes())]
    assert (tmp_path / "r" / "study.json").stat().st_mode & 0o777 == 0o600
    run(rings(), out=tmp_path / "r", trials=3, meter="cpu_time")
    found = RunFolder.open(tmp_path / "r").run()
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    assert all((trial.train_joules or 0.0) > 0 and trial.energy.record for trial in found.trials)


@pytest.mark.postgresql
def test_a_server_that_went_away_is_reported(postgresql: Server, tmp_path: Path) -> None:
    store = make(tmp_path / "r", "tiny-gone", postgresql.url)
    url = "postgresql+psycopg://me:secret@/postgres?host=/nowhere"
    store.save_facts({**store.facts, "storage": url})
    with pytest.raises(StoreError, match="see that it can be reached") as caught:
        RunFolder.open(tmp_path / "r", storage=url).run()
    assert "secret" not in str(caught.value)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        (
            "ALTER TABLE trial_values RENAME TO v",
            "ALTER TABLE v RENAME TO trial_values",
            'relation "trial_values" does not exist.*; restore it from',
        ),
        ("ALTER TABLE trials RENAME state TO s", "ALTER TABLE trials RENAME s TO state", "column trials.state does not.*; restore it from"),
        (
            "ALTER TABLE version_info RENAME TO v",
            "ALTER TABLE v RENAME TO version_info",
            "version_info.* does not.*; restore it",
        ),
        (
            "ALTER TABLE alembic_version RENAME TO v; UPDATE version_info SET library_version = '4.0'",
            f"ALTER TABLE v RENAME TO alembic_version; UPDATE version_info SET library_version = '{optuna.__version__}'",
            "read-only transaction; restore it from a copy",
        ),
        (
            "UPDATE trials SET datetime_start = 'infinity'",
            "UPDATE trials SET datetime_start = now()",
            "too large.*; restore it",
        ),
        (
            "ALTER DATABASE postgres SET default_transaction_read_only = on",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only",
            "see that its user may write there",
        ),
    ],
)
def test_what_no_waiting_mends_on_a_server_has_its_own_remedy(
    postgresql: Server, tmp_path: Path, change: str, back: str, said: str
) -> None:
    add(make(tmp_path / "r", f"tiny-{abs(hash(change))}", postgresql.url), 0.9, 12.0)
    with pytest.raises((StoreError, DatabaseError), match=re.compile(said, re.DOTALL)), changed(postgresql, change, back):
        read_and_write(RunFolder.open(tmp_path / "r"))


def read_and_write(folder: RunFolder) -> None:
    folder.run()
    add(folder, 0.8, 5.0)


@contextmanager
def changed(server: Server, change: str, back: str) -> Iterator[None]:
    try:
        execute(server, change)
        yield
    finally:
        execute(server, back)


def execute(server: Server, statements: str) -> None:
    engine = sqlalchemy.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for one in statements.split("; "):
            connection.execute(sqlalchemy.text(one))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.postgresql
def test_a_server_that_is_away_for_a_while_ends_nothing(
    postgresql: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path / "r", "tiny-away", postgresql.url).study()
    begun = study.ask()
    postgresql.stop()
    back = threading.Timer(4.0, postgresql.start)
    back.start()
    begun.suggest_int("width", 1, 9)
    study.tell(begun, [0.9, 12.0])
    back.join()
    assert [trial.values for trial in RunFolder.open(tmp_path / "r").run().trials] == [(0.9, 12.0)]
    said = capsys.readouterr().err
    assert re.search(r"postgresql\S*: the connection is lost \(.+\); trying for 60 s\n.*connected again after \d+ s", said)
    monkeypatch.setattr("joulefront.search.records.optuna_storage.PATIENCE_SECONDS", 1.0)
    postgresql.stop()
    try:
        with pytest.raises(DatabaseError, match="see that the server runs") as caught:
            study.ask()
    finally:
        postgresql.start()
    assert "invalid data" not in str(caught.value)
