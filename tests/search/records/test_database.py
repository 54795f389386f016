"""Which database a URL names, and that its password stands nowhere."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from joulefront.search.records import optuna_storage
from joulefront.search.records.database import (
    cause_of,
    note_given,
    out_of_reach,
    own_url,
    public_url,
    same_database,
    without_password,
)
from joulefront.search.records.optuna_storage import open_storage
from joulefront.search.records.run_folder import RunFolder, StoreError

pytestmark = pytest.mark.filterwarnings("ignore:Query string argument")  # SQLite has no passwords

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:secret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("--storage=postgresql://me:sec/ret@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://me:sec#?r:et@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec@r/et@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec/ret@host:port/db", "postgresql://me:***@host:port/db"),
        ("postgresql://me:secret/db", "postgresql://me:***"),
        ("postgresql://me:123456", "postgresql://me:***"),
        ("postgresql:me:secret@host/db", "postgresql:me:***@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql:///db?user=me&password=secret", "postgresql:///db?password=***&user=me"),
        ("postgresql://me@/db?sslpassword=secret&host=/run", "postgresql://me@/db?host=%2Frun&sslpassword=***"),
        ("wall=http://me:secret@host/x", "wall=http://me:***@host/x"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("wall=http://host:80/x@y", "wall=http://host:80/x@y"),
    ],
)
def test_a_password_is_hidden_and_nothing_else(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("url", ["postgresql://me:secret/db", "postgresql://me:secret", "postgresql://me:123456"])
def test_what_is_no_url_is_refused_without_showing_what_may_be_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"it is no URL|its port must be") as refused:
        public_url(url)
    assert "secret" not in str(refused.value)
    assert "123456" not in str(refused.value)


@pytest.fixture
def nothing_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.usefixtures("nothing_given")
def test_a_folder_keeps_a_url_without_its_password_and_takes_it_from_the_user_or_the_environment() -> None:
    secret = "postgresql+psycopg://me:se%2Fcret@host/db?sslpassword=hidden&sslmode=require"
    public = "postgresql+psycopg://me@host/db?sslmode=require"
    other = "postgresql+psycopg://me:se%2Fcret@elsewhere/db?sslmode=require"
    assert public_url(secret) == public == public_url(public)
    assert own_url(public, secret, {}) == own_url(public, None, {"JOULEFRONT_STORAGE": secret}) == secret
    assert own_url(public, public, {"JOULEFRONT_STORAGE": secret}) == secret  # so that no list of processes shows it
    assert own_url(public, None, {}) is own_url(secret, other, {"JOULEFRONT_STORAGE": "no url"}) is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("postgresql+psycopg://me@host/db", True),
        ("postgresql+psycopg://you:secret@host:5432/db?sslmode=require", True),
        ("postgresql+psycopg2:///db?host=host&user=me&password=secret", True),
        ("postgresql+psycopg://me@elsewhere/db", False),
        ("postgresql+psycopg://me@host:5433/db", False),
        ("postgresql+psycopg://me@host/db2", False),
        ("postgresql+psycopg://me@host/db?options=-csearch_path%3Dtest", False),
        ("mysql://me@host/db", False),
        ("sqlite:///db", False),
        ("no url", False),
    ],
)
def test_a_database_is_told_by_its_place_and_not_by_who_connects_to_it(other: str, same: bool) -> None:
    assert same_database("postgresql+psycopg://me@host/db", other) is same


@pytest.mark.usefixtures("nothing_given")
def test_another_user_of_the_same_database_is_taken_and_another_database_never_gets_the_password() -> None:
    kept = "postgresql+psycopg://me@host/db"
    assert own_url(kept, "postgresql+psycopg://you@host/db", {}) == "postgresql+psycopg://you@host/db"
    for other in ("postgresql+psycopg://me:secret@host/db2", "postgresql+psycopg://me:secret@elsewhere/db"):
        assert own_url(kept, other, {"JOULEFRONT_STORAGE": other}) is None


@pytest.mark.usefixtures("nothing_given")
def test_what_a_session_was_given_is_known_later_without_its_password_and_without_what_a_folder_adds_to_it(tmp_path: Path) -> None:
    for one in ("me:secret@host/db", "you:secret@host/db", "me:secret@host/db"):
        note_given(f"mysql+pymysql://{one}")
    assert (tmp_path / "state" / "joulefront" / "storages").read_text() == "mysql+pymysql://me@host/db\nmysql+pymysql://you@host/db\n"
    assert (tmp_path / "state" / "joulefront").stat().st_mode & 0o777 == 0o700
    assert own_url("mysql+pymysql://me@host/db", None, {}) == "mysql+pymysql://me@host/db"
    assert own_url("mysql+pymysql://other@host/db?local_infile=1", None, {}) == "mysql+pymysql://you@host/db"
    assert own_url("mysql+pymysql://me@host/db", None, {"JOULEFRONT_STORAGE": "mysql+pymysql://me:secret@host/db"}).endswith(
        "secret@host/db"
    )
    for other in ("mysql+pymysql://me@host:3307/db", "mysql+pymysql://me@elsewhere/db", "postgresql+psycopg://me@host/db"):
        assert own_url(other, None, {}) is None


@pytest.mark.parametrize("state", ["relative", "/dev/null"])
def test_without_a_place_for_what_was_given_nothing_is_known(state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("JOULEFRONT_STORAGE", raising=False)
    with pytest.warns(UserWarning, match=r"set JOULEFRONT_STORAGE to mysql\+pymysql://me@host/db for front or export"):
        note_given("mysql+pymysql://me:secret@host/db")
    assert own_url("mysql+pymysql://me@host/db", None, {}) is None


@pytest.mark.parametrize("begun_with", [None, "sqlite:///{}/here.db"])
def test_a_storage_that_is_not_that_of_the_folder_is_refused_with_both_names(tmp_path: Path, begun_with: str | None) -> None:
    kept = None if begun_with is None else begun_with.format(tmp_path)
    described = {"name": "tiny", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]}
    RunFolder.create(tmp_path / "r", {"run_id": "tiny-1", "study": described, "sessions": []}, storage=kept)
    with pytest.raises(StoreError) as caught:
        RunFolder.open(tmp_path / "r", storage=f"postgresql+psycopg://me:{SECRET}@elsewhere/db")
    said = str(caught.value)
    for part in ("--storage must be that of", kept or "study.db", "got postgresql+psycopg://me:***@elsewhere/db; leave --storage out"):
        assert part in said
    RunFolder.open(tmp_path / "r", storage=kept or f"sqlite:///{tmp_path}/r/study.db")


def test_a_driver_that_is_not_installed_is_answered_with_what_installs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ImportError) as refused:
        open_storage(tmp_path / "study.db", "mysql+mysqldb://me@host/db", "write")
    assert "pip install 'joulefront[postgresql]'" in cause_of(refused.value)


def test_two_threads_may_open_the_first_storage_of_a_process_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = list[str]()

    def load(name: str) -> None:
        loaded.append(name)
        if len(loaded) == 1:  # the other thread comes and goes while this one loads
            optuna_storage._load_alembic()

    monkeypatch.delitem(sys.modules, "mako.exceptions", raising=False)
    monkeypatch.setattr(optuna_storage, "importlib", SimpleNamespace(import_module=load))
    optuna_storage._load_alembic()
    assert len(loaded) == 2


@pytest.mark.parametrize(
    "said",
    [
        "(1045, \"Access denied for user 'me'@'localhost' (using password: NO)\")",
        "connection failed: fe_sendauth: no password supplied",
        'connection failed: FATAL:  password authentication failed for user "me"',
    ],
)
def test_whoever_is_refused_for_want_of_a_password_is_told_where_to_give_it(said: str) -> None:
    told = out_of_reach(OSError(said), "mysql+pymysql://me@host/db")
    assert told.endswith("no run folder keeps a password: set JOULEFRONT_STORAGE to the whole URL, with the password of its user")
    assert "reached" not in told


@pytest.mark.parametrize("secret", [f"mysql+pymysql://me:{SECRET}@host/db", f"postgresql+psycopg://me@host/db?password={SECRET}"])
def test_a_password_that_was_hidden_is_no_password(tmp_path: Path, secret: str) -> None:
    shown = without_password(secret)
    facts = {"run_id": "tiny-1", "study": {"objectives": ["accuracy"], "directions": ["maximize"]}, "sessions": []}
    for use in (lambda: RunFolder.create(tmp_path / "r", facts, storage=shown), lambda: open_storage(tmp_path / "s.db", shown, "read")):
        with pytest.raises(ValueError, match=r"\*\*\* stands where its password was; leave it out and set JOULEFRONT_STORAGE to the whole"):
            use()
