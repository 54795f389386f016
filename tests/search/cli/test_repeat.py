"""The verb as it is typed, and what the other verbs say afterwards."""

import csv
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.page import data_of

from joulefront.search import Study, load, run
from joulefront.search.cli import main
from joulefront.search.records.replicates import read_repeats
from joulefront.search.records.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hold the run that the tests copy; it is made by the first of them."""
    return {"folder": tmp_path_factory.mktemp("kept") / "r"}


@pytest.fixture
def folder(kept: dict[str, Path], rings_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run from a file that is still there for each test."""
    file = rings_file("fine")
    if not kept["folder"].exists():
        main(["run", str(file), "--out", str(kept["folder"]), "--meter", "cpu_time", "--trials", "8"])
        capsys.readouterr()
    path = Path(shutil.copytree(kept["folder"], tmp_path / "r"))
    store = RunFolder.open(path)
    store.save_facts({**store.facts, "origin": {**store.facts["origin"], "source": str(file)}})
    return path


def test_the_verb_prints_a_table_and_what_it_means_and_every_view_shows_it(
    call: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    plain = json.loads(call("front", folder, "--json").out)
    assert "repeats" not in json.dumps(plain)
    said = call("repeat", folder, "--times", 2)
    assert said.code == 0, said.err
    front = load(folder)
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(front)]] == [str(trial.number) for trial in front]
    for part in ("On average the", "The order of the front", "repeats: mean ±", "sd ÷ meter u", "differs from next"):
        assert part in said.out
    assert f"{2 * len(front)} trainings" in said.err
    assert f"{2 * len(front)}/{2 * len(front)}: trial" in said.err
    assert RunFolder.open(folder).facts["sessions"][-1]["command"].startswith("joulefront repeat ")

    rows = json.loads(call("front", folder, "--json").out)
    for before, row, trial in zip(plain, rows, front, strict=True):
        decided = {"ties_best", "sensible"}  # by the repeats from now on
        assert {key: row[key] for key in before if key not in decided} == {key: before[key] for key in before if key not in decided}
        assert row["repeats_accuracy_n"] == row["repeats_train_joules_n"] == 2
        values = [one.train_joules or 0.0 for one in read_repeats(folder).trainings if one.trial == trial.number]
        assert row["repeats_train_joules_mean"] == pytest.approx(sum(values) / 2)
    assert rows[-1]["next_differs_in_energy"] is None
    assert all(row["next_differs_in_energy"] in (True, False) for row in rows[:-1])
    table = list(csv.DictReader(io.StringIO(call("front", folder, "--csv").out)))
    assert [row["repeats_accuracy_n"] for row in table] == ["2"] * len(front)
    assert list(table[0]) == list(rows[0])
    assert list(front.to_frame()["repeats_accuracy_n"]) == [2] * len(front)
    text = call("front", folder).out
    assert re.search(r"repeats +repeats \S?Wh", text)
    assert "standard deviation of trainings with fresh seeds" in " ".join(text.split())  # wherever the line breaks

    assert call("report", folder, "-o", "page.html").code == 0
    page = data_of(Path("page.html"))
    assert "Finalists measured again" in [one["title"] for one in page["sections"]]
    assert page["bill"]["uses"]["repeats"] > 0
    assert [one["again"]["n"] for one in page["members"]] == [2] * len(front)


def test_as_json_every_number_has_its_unit_in_its_key(call: Callable[..., Any], folder: Path) -> None:
    found = json.loads(call("repeat", folder, "--times", 1, "--pick", "knee", "--json").out)
    assert set(found) == {"members", "order_survives", "mean_fall_of_accuracy", "drift"}
    (member,) = found["members"]
    assert member["repeats_accuracy_n"] == 1
    assert member["repeats_accuracy_sd"] is None
    assert member["next_trial"] is None
    assert found["order_survives"] is None
    assert found["drift"] == {"n": 0, "rank_correlation": None, "p_value": None}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--times", 0], ["--times must be >= 1, got 0", "5 is usual"]),
        (["--order", "alphabetic"], ["--order must be one of random, abba, given", "'alphabetic'"]),
        (["--most", 0], ["--max-members must be >= 1, got 0"]),
        (["--max-members", 0], ["--max-members must be >= 1, got 0"]),
        (["--pick", "fastest"], ["must be a rule, got 'fastest'", "knee"]),
        (["--pick", "trial=99"], ["trial 99 does not exist", "nearest"]),
        (["--meter", "dowsing"], ["meter (--meter) must be", "'dowsing'"]),
        (["--cpu-watts", 321], ["metered otherwise", "--cpu-watts of the search"]),
        (["--device", "abacus"], ["--device", "'abacus'"]),
        (["--idle", -1], ["idle_seconds (--idle) must be between 0 and 86,400 s"]),
        (["--anchor", -1], ["anchor_every (--anchor) must be >= 0 trainings, got -1"]),
        (["--seed", -1], ["--seed must be >= 0, got -1"]),
        (["--study", "nowhere.py"], ["'nowhere.py' does not exist"]),
        (["--tmies", 3], ["--tmies", "joulefront repeat --help"]),
    ],
)
def test_a_wrong_word_costs_nothing_and_gets_its_remedy(call: Callable[..., Any], folder: Path, words: list[Any], parts: list[str]) -> None:
    said = call("repeat", folder, *words)
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == 2, said
    assert len(lines) == 1, said.err
    for part in parts:
        assert part in lines[0]
    assert not (folder / "repeats.json").exists()
    assert len(RunFolder.open(folder).facts["sessions"]) == 1


def test_a_folder_without_a_run_and_a_run_without_a_front_are_said(
    call: Callable[..., Any], rings_file: Callable[[str], Path], tmp_path: Path
) -> None:
    said = call("repeat", "runs/nothing")
    assert said.code == 2
    assert "'runs/nothing' does not exist" in said.err
    call("run", rings_file("nan"), "--out", "broken", "--trials", 2, "--meter", "cpu_time")
    said = call("repeat", "broken")
    assert said.code == 2
    assert "the front of 'rings' is empty" in said.err


def test_a_run_that_came_from_python_asks_for_its_study(
    call: Callable[..., Any], rings: Callable[..., Study], rings_file: Callable[[str], Path], tmp_path: Path
) -> None:
    run(rings(trials=2), out=tmp_path / "p", meter="cpu_time")
    said = call("repeat", "p")
    assert said.code == 2
    assert "came from Python: give --study" in said.err
    said = call("repeat", "p", "--study", rings_file("fine"), "--times", 1, "--pick", "best")
    assert said.code == 0, said.err


def test_a_damaged_file_of_repeats_is_never_overwritten(call: Callable[..., Any], folder: Path) -> None:
    (folder / "repeats.json").write_text('{"plans": [')
    for verb in ("repeat", "front"):
        said = call(verb, folder)
        assert said.code == 2
        assert "repeats.json' is damaged" in said.err
    assert (folder / "repeats.json").read_text() == '{"plans": ['


def test_when_every_repeat_fails_the_exit_code_says_so(call: Callable[..., Any], folder: Path, rings_file: Callable[[str], Path]) -> None:
    said = call("repeat", folder, "--study", rings_file("nan"), "--times", 1, "--pick", "best")
    assert said.code == 1
    assert "no repeat has a result: the training loss became nan" in said.err
    assert "1 of 1 repeats have no result" in said.out
    assert RunFolder.open(folder).run().bill.by_state["repeats"] > 0


def test_after_ctrl_c_the_command_to_go_on_is_printed(call: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = print

    def print_and_stop(*words: Any, **options: Any) -> None:
        real(*words, **options)
        if str(words[0]).startswith("1/3: "):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("builtins.print", print_and_stop)
    said = call("repeat", folder, "--times", 3, "--pick", "best")
    assert said.code == 130, "a shell must not go on with && as if all were trained"
    assert f"continue: joulefront repeat {folder} --times 3 --pick best" in said.err
    assert len(read_repeats(folder).trainings) == 1
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    assert call("repeat", folder, "--times", 3, "--pick", "best").code == 0
    assert [one.round for one in read_repeats(folder).trainings] == [0, 1, 2]
