"""Workers of one study without a folder in common: files in a bucket, trials in a MariaDB server; each with the real server."""

import json
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.mariadb import mariadb_server
from helpers.postgresql import NotInstalledError
from helpers.workers import in_processes, sleeping, sleeping_study, work
from sqlalchemy.exc import OperationalError

from joulefront.search.records import shared_study
from joulefront.search.records.database import DatabaseError, make_study
from joulefront.search.records.optuna_storage import _is_lost, open_storage
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.shared_study import ArtifactStore, SharedStudy, WorkerState, check_place


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket of a server of our own, and its client."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed: uv sync --group servers")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: uv sync --group servers")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "nobody")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="weights")
        try:
            yield client
        finally:
            server.stop()


def names(client: Any) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket="weights").get("Contents", [])]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    url = f"sqlite:///{tmp_path_factory.mktemp('storage')}/s.db"
    return optuna.create_study(study_name="s", storage=url, directions=["maximize", "minimize"])


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({"joules": -1e9}, "must not be negative, got -1000000000.0 J"),
        ({"joules": "much"}, "joules must be a number, got 'much'"),
        ({"joules": float("nan")}, "the number NaN is out of range"),
        ({"beat": 1 << 80}, "is out of range"),
        ({"open_joules": [1]}, "open_joules must be an object"),
        ([1], "must be an object, got "),
    ],
)
def test_what_another_says_it_has_spent_is_checked_before_it_counts(study: optuna.Study, entry: Any, wrong: str) -> None:
    said = {"id": "other", "host": "there", **entry} if isinstance(entry, dict) else entry
    study._storage.set_study_system_attr(study._study_id, "joulefront:worker:other", said)
    with pytest.raises(ValueError, match="the study 's' is damaged") as refused:
        SharedStudy(study).look()
    assert wrong in str(refused.value)
    study._storage.set_study_system_attr(
        study._study_id, "joulefront:worker:other", {"id": "somebody else", "host": "there", "joules": 3.0, "of a later version": 1}
    )
    states, stopped = SharedStudy(study).look()
    assert states == {"other": WorkerState("other", "there", joules=3.0)}
    assert stopped is None


@pytest.mark.parametrize(
    ("sessions", "wrong"),
    [
        ("none", "sessions must be a list"),
        ([{"by_state_joules": {"complete": "x"}}], "complete must be a number"),
        ([{"by_state_joules": {}, "by_component_joules": {"cpu": 1.0}}], "must have the same components"),
    ],
)
def test_the_bill_of_another_is_checked_as_that_of_a_file(study: optuna.Study, sessions: Any, wrong: str) -> None:
    study.set_user_attr("joulefront:bill:other", sessions)
    with pytest.raises(ValueError, match="the study 's' is damaged") as refused:
        SharedStudy(study).bills()
    assert wrong in str(refused.value)


def test_nobody_gives_another_worker_its_name_or_its_sessions(study: optuna.Study) -> None:
    told = {"name": "s", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]}
    SharedStudy(study).describe({"format": 1, "study": told, "worker": "another", "sessions": [5], "storage": "sqlite:////elsewhere.db"})
    assert SharedStudy(study).description() == {"format": 1, "study": told}


@pytest.mark.parametrize("table", ["trials", "trial_values", "study_user_attributes"])
def test_a_table_that_was_lost_is_not_made_again_empty(tmp_path: Path, table: str) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(study_name="s", storage=url).add_trial(optuna.trial.create_trial(value=1.0))
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(DatabaseError, match=f"its table {table} is lost"):
        open_storage(tmp_path / "study.db", url, "create")


def test_a_study_of_other_directions_is_not_joined(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "study.db", f"sqlite:///{tmp_path}/s.db", "create")
    make_study(storage, "s", ["accuracy", "train_energy"], ["maximize", "minimize"])
    with pytest.raises(ValueError, match=r"must have the directions \['maximize', 'maximize'\], got \['maximize', 'minimize'\]"):
        make_study(storage, "s", ["accuracy", "train_energy"], ["maximize", "maximize"])


def test_a_study_that_was_deleted_while_it_is_in_use_and_values_that_are_none_are_said(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(study_name="s", storage=open_storage(tmp_path / "study.db", url, "create"))
    trial = study.ask()
    trial.set_user_attr("a", 1)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = 'x'")
    with pytest.raises(ValueError, match=r"cannot be read, JSONDecodeError.*; restore it from a copy"):
        study._storage.get_trial(trial._trial_id)
    optuna.delete_study(study_name="s", storage=url)
    with pytest.raises(DatabaseError, match="it was deleted there; restore it from a copy, or run in a new --out"):
        study.ask()


@pytest.mark.parametrize("words", ['FATAL: database "work" does not exist', "FATAL: password authentication failed for user"])
def test_a_server_that_will_not_come_back_is_not_waited_for(words: str) -> None:
    assert not _is_lost(OperationalError("SELECT 1", None, Exception(words)))
    assert _is_lost(OperationalError("SELECT 1", None, Exception("server closed the connection unexpectedly")))


@pytest.mark.slow
def test_what_one_worker_has_trained_another_continues_from_the_bucket_alone(bucket: Any, tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/s.db", tmp_path / "log"
    study = sleeping_study("freeze-thaw", rungs=(1, 2, 4))
    with sleeping(0.0, log):
        work(url, tmp_path / "first", study, trials=4, epoch_joules=1.0, artifacts="s3://weights/some/where")
        before = {line.split()[0] for line in log.read_text().splitlines()}
        (tmp_path / "first").rename(tmp_path / "on-another-machine")
        work(url, tmp_path / "second", study, trials=16, epoch_joules=1.0)
    trials = RunFolder.open(tmp_path / "second").run().trials
    across = [trial for trial in trials if trial.parent is not None and str(trial.parent) in before and str(trial.number) not in before]
    assert across, "the second has continued what the first has trained"
    for trial in across:
        epochs = [int(line.split()[1]) for line in log.read_text().splitlines() if line.split()[0] == str(trial.number)]
        assert min(epochs) == trials[trial.parent or 0].epochs + 1, "from its checkpoint, not from scratch"
    kept = [name for name in names(bucket) if name.startswith("some/where/")]
    ledgers = [name for name in kept if "-ledger-" in name]
    assert len(ledgers) == 2, kept
    text = bucket.get_object(Bucket="weights", Key=ledgers[0])["Body"].read().decode()
    assert json.loads(text.splitlines()[-1])["event"] == "stop", "the ledger as it ended"
    assert any(name.endswith(".weights") for name in kept)
    assert not (tmp_path / "second" / "shared").exists()


def test_a_bucket_that_cannot_be_written_is_said_and_ends_no_study(bucket: Any, tmp_path: Path) -> None:
    file = tmp_path / "trial-00000.weights"
    file.write_bytes(b"weights")
    with pytest.raises(OSError, match="s3://nowhere/x cannot be written"):
        ArtifactStore("s3://nowhere/x", "run").put(file)
    file.unlink()
    assert not ArtifactStore("s3://nowhere/x", "run").get(file)
    store = ArtifactStore("s3://weights", "run")
    file.write_bytes(b"weights")
    store.put(file)
    assert "run-trial-00000.weights" in names(bucket)
    store.remove(file)
    assert "run-trial-00000.weights" not in names(bucket)


def test_a_bucket_without_its_library_is_refused_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_study, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"boto3 must be installed for --artifacts s3://weights/some/where; do pip install 'joulefront\[s3\]'"
    ):
        check_place("s3://weights/some/where")


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    """URL of a server of our own."""
    pytest.importorskip("pymysql", reason="PyMySQL is not installed: uv sync --group servers")
    try:
        with mariadb_server() as url:
            yield url
    except NotInstalledError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_three_workers_share_a_study_in_mariadb(mariadb: str, tmp_path: Path) -> None:
    log, study = tmp_path / "log", sleeping_study("freeze-thaw", name="many")
    in_processes(*(partial(work, mariadb, tmp_path / f"r{n}", study, trials=15, save_seconds=0.5) for n in range(3)), log=log)
    folder = RunFolder.open(tmp_path / "r0")
    run, (states, _) = folder.run(), SharedStudy(folder.study()).look()
    assert [trial.number for trial in run.trials] == list(range(15))
    assert all(trial.state != "running" for trial in run.trials)
    assert run.bill.total_joules == pytest.approx(sum(state.joules for state in states.values()))
    trained = [(trial.params["width"], trial.params["learning_rate"], trial.epochs) for trial in run.trials if trial.values]
    assert len(trained) == len(set(trained)), "nothing is trained twice"


@pytest.mark.slow
def test_the_lock_of_a_study_in_mariadb_is_held_by_one_at_a_time_and_given_up_after_a_while(mariadb: str) -> None:
    from joulefront.search.records.optuna_storage import open_storage

    make_study(open_storage(Path("none"), mariadb, "create"), "locked", ["accuracy"], ["maximize"])
    one, two = (SharedStudy(optuna.load_study(study_name="locked", storage=open_storage(Path("none"), mariadb, "write"))) for _ in range(2))
    with one.exclusive() as held:
        assert held
        with two.exclusive(wait_seconds=0.3) as also:
            assert not also
    with two.exclusive(wait_seconds=5.0) as held:
        assert held
