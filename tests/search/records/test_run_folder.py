import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from helpers import forked
from helpers.run_folders import STUDY, add, make
from helpers.trials import make_trial

from joulefront.search.records import database
from joulefront.search.records.database import DatabaseError, Mode
from joulefront.search.records.files import write_json
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.trial import ATTRIBUTE, EXCUSED


@pytest.mark.slow
def test_what_was_stored_is_read_back_by_another_session(tmp_path: Path) -> None:
    add(make(tmp_path / "r"), 0.9, 12.0)
    found = RunFolder.open(tmp_path / "r").run()
    assert (found.name, found.objectives, found.directions, found.rungs) == (
        "tiny",
        ("accuracy", "train_energy"),
        ("maximize", "minimize"),
        (1, 3),
    )
    [trial] = found.trials
    assert (trial.params, trial.epochs, trial.values, trial.train_joules) == ({"width": 3}, 2, (0.9, 12.0), 12.0)
    assert found.bill.total_joules is None


def test_a_dashboard_sees_the_names_of_the_objectives(tmp_path: Path) -> None:
    assert make(tmp_path / "r").study().metric_names == ["accuracy", "train_energy"]


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    make(tmp_path / "r")
    (tmp_path / "r" / "study.json").unlink()
    with pytest.raises(StoreError, match="not a run folder; choose another --out"):
        make(tmp_path / "r")


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must be a path in UTF-8.*choose another --out"):
        RunFolder.create(tmp_path / os.fsdecode(b"caf\xe9"), {"study": {"name": "n"}, "run_id": "r"})
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert make(tmp_path / "r").run().trials == ()


def test_two_sessions_cannot_hold_one_folder_and_the_lock_ends_with_the_first(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    with store.lock(), pytest.raises(StoreError, match="another process"), RunFolder.open(tmp_path / "r").lock():
        pass
    with RunFolder.open(tmp_path / "r").lock():
        pass


def test_weights_are_dropped_except_for_those_to_keep(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    for number in range(4):
        store.artifact(number).write_bytes(b"weights")
    (tmp_path / "r" / "artifacts" / "notes.txt").write_text("mine")
    store.keep_artifacts([1, 3, 7])
    assert [store.artifact(number).exists() for number in range(4)] == [False, True, False, True]
    assert (tmp_path / "r" / "artifacts" / "notes.txt").exists()


@pytest.mark.slow
def test_trials_of_a_dead_session_are_closed_with_their_energy(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    asked = store.study().ask()
    asked.suggest_int("width", 1, 9)
    assert store.run().trials[1].state == "running"
    assert store.fail_dead_trials({asked.number: 33.0}) == [1]
    dead = RunFolder.open(tmp_path / "r").run().trials[1]
    assert (dead.state, dead.increment_joules) == ("failed", 33.0)
    assert "killed" in str(dead.reason)
    assert store.run().trials[0].state == "complete"
    assert store.fail_dead_trials({}) == []
    assert [trial.user_attrs.get(EXCUSED) for trial in store.study().get_trials()] == [None, "killed"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_password_that_cannot_be_told_from_the_host_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must be written %40") as caught:
        make(tmp_path / "r", storage="postgresql://me:sec@ret@host/db")
    assert "ret@" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_storage_without_its_driver_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"pg8000.*install the driver") as caught:
        make(tmp_path / "r", storage="postgresql+pg8000://me:secret@localhost/db")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "r").exists()


# -- copies, starts that are broken off, reading ---------------------------------------------------------------------------------------


def test_a_copy_of_a_killed_run_shows_the_same_trials_whatever_the_clock_says(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    store.save_snapshot(store.study())
    add(store, 0.8, 5.0)  # and killed before the next snapshot
    ahead = time.time() + 3600  # the clock was put back since
    os.utime(tmp_path / "r" / "trials.json", (ahead, ahead))
    subprocess.run(["cp", "-r", tmp_path / "r", tmp_path / "copy"], check=True)
    for folder in ("r", "copy"):
        assert [trial.values for trial in RunFolder.open(tmp_path / folder).run().trials] == [(0.9, 12.0), (0.8, 5.0)]


@pytest.mark.slow
def test_a_snapshot_of_the_same_content_spares_the_database_library(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    store.save_snapshot(store.study())
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    program = (
        "import sys; from joulefront.search.records.run_folder import RunFolder\n"
        "assert len(RunFolder.open(sys.argv[1]).run().trials) == 1; assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "copy")], check=True)


@pytest.mark.slow
def test_a_transaction_that_a_kill_broke_off_is_read_as_it_was_before_and_left_as_it_is(tmp_path: Path) -> None:
    add(make(tmp_path / "r"), 0.9, 12.0)
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN')\n"
        "c.execute('CREATE TABLE big AS WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n LIMIT 50000) SELECT x FROM n')\n"
        "c.execute('UPDATE trials SET state = 2'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "r" / "study.db")], check=False)
    assert (tmp_path / "r" / "study.db-journal").stat().st_size > 0
    before = contents(tmp_path / "r")
    assert [trial.state for trial in RunFolder.open(tmp_path / "r").run().trials] == ["complete"]
    assert contents(tmp_path / "r") == before


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with its time of change and its content."""
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["create_study", "set_metric_names"])
def test_a_start_that_is_killed_while_its_tables_are_made_begins_again_with_the_same_call(tmp_path: Path, moment: str) -> None:
    program = (
        "import os, sys, pathlib, optuna; from joulefront.search.records.run_folder import RunFolder\n"
        f"die = lambda *a, **k: os.kill(os.getpid(), 9); optuna.create_study, optuna.Study.set_metric_names = {{\n"
        "'create_study': (die, die), 'set_metric_names': (optuna.create_study, die)}[sys.argv[2]]\n"
        f"RunFolder.create(pathlib.Path(sys.argv[1]), {{'run_id': 'tiny-0', 'study': {STUDY!r}, 'sessions': []}})"
    )
    forked.run("-c", program, tmp_path / "r", moment)
    assert (tmp_path / "r" / "study.db").exists()
    assert not RunFolder.exists(tmp_path / "r")
    with pytest.raises(StoreError, match="broken off before its first trial; run the same command again"):
        RunFolder.open(tmp_path / "r")
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    assert len(RunFolder.open(tmp_path / "r").run().trials) == 1


@pytest.mark.slow
def test_reading_changes_no_file_and_makes_none(tmp_path: Path) -> None:
    add(make(tmp_path / "r"), 0.9, 12.0)
    with sqlite3.connect(tmp_path / "victim.db") as victim:
        victim.execute("CREATE TABLE mine (x)")
    before = contents(tmp_path)
    RunFolder.open(tmp_path / "r").run()
    assert contents(tmp_path) == before
    shutil.copytree(tmp_path / "r", tmp_path / "foreign")
    facts = json.loads((tmp_path / "foreign" / "study.json").read_text())
    for name in ("victim.db", "none.db"):
        write_json(tmp_path / "foreign" / "study.json", {**facts, "storage": f"sqlite:///{tmp_path / name}"})
        before = contents(tmp_path)
        with pytest.raises(StoreError, match="is not contacted"):
            RunFolder.open(tmp_path / "foreign").run()
        assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_server_that_only_the_folder_names_gets_no_contact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    store = make(tmp_path / "r")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{kind}://me@127.0.0.1:{server.getsockname()[1]}/db?local_infile=1"
        monkeypatch.setenv("JOULEFRONT_STORAGE", url.replace("127.0.0.1", "127.0.0.2"))
        facts = {**store.facts, "storage": url, "artifacts": str(tmp_path)}
        foreign = store.save_facts(facts)
        for use in (foreign.run, foreign.study, lambda: foreign.fetch_artifact(0)):
            with pytest.raises(StoreError, match=r"must be one that you have given .* is not contacted; if it is yours, set JOULEFRONT_"):
                use()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_server_may_ask_for_files_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("pymysql")
    greeting = b"\x0a8.0.30\0\7\0\0\x0012345678\0\xff\xf7\x2d\2\0\xff\xff\x15" + bytes(10) + b"123456789012\0mysql_native_password\0"
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers: list[bytes] = []

        def answer() -> None:
            contact, _ = server.accept()
            with contact:
                contact.sendall(len(greeting).to_bytes(3, "little") + b"\0" + greeting)
                answers.append(contact.recv(999))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(StoreError):
            make(tmp_path / "r", storage=f"mysql+pymysql://me@127.0.0.1:{server.getsockname()[1]}/db?local_infile=1")
        thread.join()
    assert not answers[0][4] & 0x80  # CLIENT_LOCAL_FILES


@pytest.mark.parametrize("name", ["really?", "50%", "a%41b", "{x}", "a#b?c=d&e"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    add(make(tmp_path / name), 0.9, 12.0)
    assert len(RunFolder.open(tmp_path / name).run().trials) == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_is_no_run_folder_is_never_advised_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    for name in ("file", "photos"):
        with pytest.raises(StoreError, match="not a run folder") as caught:
            RunFolder.open(tmp_path / name)
        assert "Delete" not in str(caught.value)
    with pytest.raises(StoreError, match="choose another --out") as caught:
        make(tmp_path / "photos")
    assert "Delete" not in str(caught.value)


# -- what goes wrong while a study runs ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_database_that_is_deleted_while_it_is_used_is_named_and_repaired_from_the_snapshot(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    study = store.study()
    for number, accuracy in enumerate((0.9, None, 0.8)):
        trial = study.ask()
        width, rate = trial.suggest_int("width", 1, 9), trial.suggest_float("rate", 0.1, 1.0, log=True)
        trial.suggest_categorical("kind", ["a", "b"])
        trial.suggest_int("epochs", 1, 3)
        facts = make_trial(
            number, "complete", {"width": width, "rate": rate}, 2, quality={"accuracy": accuracy or 0.0}, train_joules=5.0, reason="NaN"
        )
        trial.set_user_attr(ATTRIBUTE, facts.facts())
        trial.set_user_attr(EXCUSED, "ended")
        study.tell(trial, None if accuracy is None else [accuracy, 5.0], state=None if accuracy else optuna.trial.TrialState.FAIL)
    store.save_snapshot(study)
    before, stored = store.run().trials, study.get_trials()
    for number in (0, 2, 3):
        store.artifact(number).write_bytes(b"weights")
    with pytest.raises(StoreError, match="nothing to repair"):
        RunFolder.repair(tmp_path / "r")
    (tmp_path / "r" / "study.db").unlink()
    with pytest.raises(DatabaseError, match="was deleted while it was in use; joulefront repair"):
        study.ask()
    with pytest.raises(StoreError, match=r"lost its study\.db; joulefront repair"):
        RunFolder.open(tmp_path / "r")
    store, lost = RunFolder.repair(tmp_path / "r")
    assert lost == ["trial-00003.weights"]
    assert RunFolder.open(tmp_path / "r").run().trials == store.run(store.study()).trials == before
    for old, new in zip(stored, store.study().get_trials(), strict=True):
        for name in ("number", "state", "params", "distributions", "values", "user_attrs", "system_attrs"):
            assert getattr(new, name) == getattr(old, name), name
    (tmp_path / "r" / "study.db").write_bytes(b"nonsense" * 999)
    kept = json.loads((tmp_path / "r" / "trials.json").read_text())
    write_json(tmp_path / "r" / "trials.json", {**kept, "run_id": "another"})
    with pytest.raises(StoreError, match="must be of the run"):
        RunFolder.repair(tmp_path / "r")
    del kept["run_id"]  # as versions wrote it that had none
    write_json(tmp_path / "r" / "trials.json", kept)
    assert RunFolder.repair(tmp_path / "r")[0].run().trials == before
    assert (tmp_path / "r" / "study.db.damaged").exists()
    (tmp_path / "r" / "study.db").unlink()
    write_json(tmp_path / "r" / "trials.json", {"trials": []})
    with pytest.raises(StoreError, match=r"older version \(.*\); restore"):
        RunFolder.repair(tmp_path / "r")


@pytest.mark.parametrize(("pragma", "named"), [("max_page_count = 1", "disk is full; free some space"), ("query_only = 1", "permissions")])
def test_what_waiting_cannot_mend_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, named: str
) -> None:
    store = make(tmp_path / "r")

    really = database.connect

    def connect(file: Path, mode: Mode) -> sqlite3.Connection:
        connection = really(file, mode)
        connection.execute(f"PRAGMA {pragma}")
        return connection

    monkeypatch.setattr(database, "connect", connect)
    study = store.study()
    monkeypatch.undo()
    with pytest.raises(DatabaseError, match=rf"study\.db.*{named}.*run the same command again") as caught:
        study.set_user_attr("large", "x" * 1_000_000)
    assert "invalid data" not in str(caught.value)


def test_a_file_that_finds_no_space_is_named_and_leaves_no_half_of_itself(tmp_path: Path) -> None:
    program = (
        "import pathlib, resource, signal, sys; from joulefront.search.records.files import LARGEST_BYTES, write_json\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_json(pathlib.Path(sys.argv[1]), {'x': 'y' * 5000})"
    )
    write_json(tmp_path / "a.json", {"x": 1})
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.json")], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(f"File too large: {str(tmp_path / 'a.json')!r}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_disk_that_is_full_at_the_start_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("joulefront.search.records.database.connect", full)
    with pytest.raises(StoreError, match=r"study\.db' cannot be written: the disk is full; free some space"):
        RunFolder.create(tmp_path / "r", {"study": STUDY, "run_id": "r", "sessions": []})


def test_trials_of_another_study_are_neither_shown_nor_made_the_trials_of_this_one(tmp_path: Path) -> None:
    ours, other = make(tmp_path / "r"), make(tmp_path / "other", "other-1")
    for store, accuracy in ((ours, 0.8), (other, 0.9)):
        add(store, accuracy, 12.0)
        store.save_snapshot(store.study())
    shutil.copy(tmp_path / "other" / "trials.json", tmp_path / "r" / "trials.json")
    assert [trial.values for trial in RunFolder.open(tmp_path / "r").run().trials] == [(0.8, 12.0)]
    (tmp_path / "r" / "study.db").unlink()
    with pytest.raises(StoreError, match=r"must be of the run 'tiny-1', got one of 'other-1'.*; restore"):
        RunFolder.repair(tmp_path / "r")
    assert not (tmp_path / "r" / "study.db").exists()
