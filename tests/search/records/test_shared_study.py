"""Workers of one study without a folder in common: files in a bucket, trials in a MariaDB server; each with the real server."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.mariadb import mariadb_server
from helpers.postgresql import NotInstalledError
from helpers.workers import in_processes, sleeping, sleeping_study, work

from joulefront.search.records import shared_study
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.shared_study import ArtifactStore, SharedStudy, check_place


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
    from joulefront.search.records.database import make_study, open_storage

    make_study(open_storage(Path("none"), mariadb, "create"), "locked", ["accuracy"], ["maximize"])
    one, two = (SharedStudy(optuna.load_study(study_name="locked", storage=open_storage(Path("none"), mariadb, "write"))) for _ in range(2))
    with one.exclusive() as held:
        assert held
        with two.exclusive(wait_seconds=0.3) as also:
            assert not also
    with two.exclusive(wait_seconds=5.0) as held:
        assert held
