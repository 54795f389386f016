"""Run folders of somebody else: what is damaged or strange in one is said in a line, and nothing else is touched."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import add, make

from joulefront.search.records.files import LARGEST_BYTES, write_json
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.trial import ATTRIBUTE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", ["bill.json", "trials.json", "ledger.jsonl", "repeats.json"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_and_never_waited_for(tmp_path: Path, name: str) -> None:
    make(tmp_path / "r")
    file = tmp_path / "r" / name
    for strange in (os.mkfifo, Path.mkdir, lambda file: file.symlink_to(os.devnull), lambda file: file.symlink_to(name)):
        strange(file)
        with pytest.raises(StoreError, match=f"{name}' must be a file, got a folder, a pipe, a device or a link to nothing; remove it"):
            RunFolder.open(tmp_path / "r")
        file.rmdir() if file.is_dir() else file.unlink()
    assert RunFolder.open(tmp_path / "r").run().trials == ()


@pytest.mark.parametrize("name", ["study.json", "bill.json"])
def test_a_file_that_stands_for_terabytes_is_not_read(tmp_path: Path, name: str) -> None:
    make(tmp_path / "r")
    (tmp_path / "r" / name).touch()
    os.truncate(tmp_path / "r" / name, LARGEST_BYTES + 1)  # nothing is on the disk
    with pytest.raises(ValueError, match=r"is damaged \(it has 1,073,741,825 bytes\); restore it from a copy"):
        RunFolder.open(tmp_path / "r").run()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_lock_that_is_a_link_or_a_pipe_empties_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "r" / ".lock").unlink()
    (tmp_path / "r" / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match="symbolic"), store.lock():
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"
    (tmp_path / "r" / ".lock").unlink()
    os.mkfifo(tmp_path / "r" / ".lock")
    with store.lock(), pytest.raises(StoreError, match="another process"), store.lock():
        pass


#: Gives a trial what only a sampler notes.
CLAIMED = "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (1, 'joulefront:claim', {})"


@pytest.mark.parametrize("name", ["ledger.jsonl", "study.db", "artifacts", "examples"])
def test_a_session_changes_nothing_that_a_link_in_the_folder_leads_to(tmp_path: Path, name: str) -> None:
    store = make(tmp_path / "r")
    place, mine = tmp_path / "r" / name, tmp_path / "mine"
    place.rename(mine) if place.exists() else mine.write_text("precious")
    place.symlink_to(mine)
    with pytest.raises(ValueError, match=f"{name}' must be the run's own, got a link to .*mine'; move that to its place"), store.lock():
        pass


def test_a_ledger_that_stands_for_terabytes_is_no_sessions(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    store.ledger_file.touch()
    os.truncate(store.ledger_file, LARGEST_BYTES + 1)
    with pytest.raises(ValueError, match=r"ledger.jsonl' is damaged \(it has 1,073,741,825 bytes\); restore it"), store.lock():
        pass


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pue": -5}, "pue must be a finite number >= 1"),
        ({"shared": "rings"}, "of a shared study must have an entry 'beat_seconds'"),
        ({"shared": "rings", "beat_seconds": 5.0, "storage": "sqlite:///x"}, "of a shared study must have an entry 'worker'"),
        ({"objectives": []}, "directions must be one for each of its objectives"),
    ],
)
def test_entries_of_study_json_that_do_not_belong_together_are_damage(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    facts = make(tmp_path / "r").facts
    inner = {**facts["study"], **{key: value for key, value in changed.items() if key in facts["study"]}}
    write_json(tmp_path / "r" / "study.json", {**facts, **changed, "study": inner})
    with pytest.raises(StoreError, match=f"study.json' is damaged .*{said}.*; restore it from a copy"):
        RunFolder.open(tmp_path / "r")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE trials SET number = NULL", "is damaged"),
        ("UPDATE trials SET number = 'x'", "is damaged"),
        ("UPDATE trials SET state = 'WHAT'", "study.db cannot be read, LookupError: 'WHAT'"),
        ("UPDATE trials SET datetime_start = 5", "cannot be read, TypeError"),
        ("UPDATE trial_values SET value = NULL", "cannot be read, AssertionError"),
        ("UPDATE trial_params SET param_value = 9e999", "cannot be read, OverflowError"),
        ("UPDATE trial_params SET distribution_json = '[]'", "cannot be read, TypeError"),
        (f"UPDATE trial_user_attributes SET value_json = '{'[' * 9999}'", "cannot be read, RecursionError"),
        ("ALTER TABLE trials RENAME TO rest; CREATE VIEW trials AS SELECT * FROM rest", "trials must be a table, got a view"),
        ("CREATE TRIGGER t AFTER UPDATE ON trials BEGIN DELETE FROM trial_values; END", "t must be a table, got a trigger"),
        ("DELETE FROM trial_values WHERE objective = 1", "trial 0 must have 2 values, one for each objective, got 1"),
        ("UPDATE trial_values SET value = -5.0 WHERE objective = 1", "trial 0: train_energy must not be negative, got -5.0"),
        (
            "UPDATE trial_user_attributes SET value_json = '{\"train_joules\": -1.5}'",
            "train_joules must not be negative, got -1.5",
        ),
        ("UPDATE trial_values SET value = NULL, value_type = 'INF_POS'", "trial 0 must hold finite numbers alone"),
        ("UPDATE trial_user_attributes SET value_json = '{\"train_joules\": NaN}'", "trial 0 must hold finite numbers alone"),
        (f"UPDATE trial_user_attributes SET value_json = '{'[' * 900}{']' * 900}'", "is damaged"),
        ("UPDATE trial_user_attributes SET key = 'worker', value_json = '7'", "trial 0.worker must be an object, got 7"),
        ("UPDATE trial_user_attributes SET key = 'key', value_json = '[]'", r"trial 0.key must be a text, got \[\]"),
        (CLAIMED.format("'7'"), "trial 0.joulefront:claim must be an object, got 7"),
        (CLAIMED.format("'{}'"), "trial 0.joulefront:claim has no entry 'epochs'"),
        (CLAIMED.replace("joulefront:claim", "constraints").format("'\"x\"'"), "trial 0.constraints must be a list, got 'x'"),
        ("UPDATE study_directions SET direction = 'MAXIMIZE'", r"directions of .* must be \['maximize', 'minimize'\]"),
    ],
)
def test_rows_that_optuna_never_writes_are_damage_in_one_line_whoever_reads_them_and_repaired(
    tmp_path: Path, change: str, said: str
) -> None:
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    store.save_snapshot(store.study())
    before = store.run().trials
    with sqlite3.connect(tmp_path / "r" / "study.db") as connection:
        connection.executescript(change)
    stored = (tmp_path / "r" / "study.db").read_bytes()
    (tmp_path / "r" / "trials.json").rename(tmp_path / "copy")
    for use in (RunFolder.run, lambda folder: folder.fail_dead_trials({})):
        with pytest.raises(StoreError, match=said) as caught:
            use(RunFolder.open(tmp_path / "r"))
        assert "joulefront repair makes it again, or restore it" in str(caught.value)
    assert (tmp_path / "r" / "study.db").read_bytes() == stored, "nothing is written to what is damaged"
    (tmp_path / "copy").rename(tmp_path / "r" / "trials.json")
    folder, lost = RunFolder.repair(tmp_path / "r")
    assert (folder.run().trials, lost) == (before, [])


def test_a_trial_that_waits_was_not_begun_by_the_session_that_died(tmp_path: Path) -> None:
    store = make(tmp_path / "r")
    add(store, 0.9, 12.0)
    store.study().enqueue_trial({"width": 3})
    assert RunFolder.open(tmp_path / "r").fail_dead_trials({}) == []


def test_signs_that_move_a_cursor_are_none_in_what_the_database_says(tmp_path: Path) -> None:
    add(make(tmp_path / "r"), 0.9, 12.0)
    with sqlite3.connect(tmp_path / "r" / "study.db") as connection:
        connection.execute("UPDATE trial_params SET param_name = ? WHERE param_name = 'width'", ("wid\x1b[31mth",))
        ((text,),) = connection.execute("SELECT value_json FROM trial_user_attributes WHERE key = ?", (ATTRIBUTE,))
        facts = {**json.loads(text), "reason": "a\x1b]0;b\x07", "hardware_id": "\x9b2J", "extra": {"q\x1b": "\x1b"}}
        connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = ?", (json.dumps(facts), ATTRIBUTE))
    (trial,) = RunFolder.open(tmp_path / "r").run().trials
    assert (trial.params, trial.reason, trial.hardware_id, trial.extra) == ({"wid?[31mth": 3}, "a?]0;b?", "?2J", {"q?": "?"})
