"""The program: one process a part, results stored at once, a failure costs its own part only; and the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hardware import check, training_parts
from hardware.context import Context
from hardware.table import RESULTS, TABLE, Figure, as_result, at_least, at_most, holds, load, make_table, near_one, store
from joulefront.search.cli import main

SCRIPT = Path(check.__file__)


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (at_most("x", 1.0, 2.0), "met"),
        (at_most("x", 3.0, 2.0), "missed"),
        (at_most("x", None, 2.0), "not run"),
        (at_least("x", 3.0, 2.0), "met"),
        (near_one("x", 1.03, 0.02), "missed"),
        (near_one("x", 0.99, 0.02), "met"),
        (holds("x", False, "yes"), "missed"),
        (holds("x", None, "yes"), "not run"),
        (Figure("x", 3.0, "W"), "for information"),
    ],
)
def test_a_figure_knows_its_verdict(figure, verdict):
    assert figure.verdict == verdict


def test_the_table_names_card_driver_date_and_every_part_and_the_last_folder_counts(tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    where = {"card": "H100", "driver": "580.1", "date": "2026-11-27"}
    for folder in folders:
        folder.mkdir()
    store(folders[0], "tick", as_result([at_most("period", 0.3, 0.1, "s")]) | where)
    store(folders[0], "facts", {"error": "one | two", **where})
    store(folders[1], "tick", as_result([at_most("period", 0.05, 0.1, "s")]) | where)
    lines = make_table(folders, ["facts", "tick", "study"]).splitlines()
    assert lines[3] == "| H100 | 580.1 | 2026-11-27 | tick | period | 0.05 s | ≤ 0.1 s | met |"
    assert lines[2].endswith("| facts | the part itself | one \\| two | ends without an error | missed |")
    assert lines[4].endswith("| study |  |  |  | not run |")


def test_a_folder_without_results_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(ValueError, match="--table must name a folder"):
        make_table([tmp_path], ["facts"])


def test_storing_one_part_keeps_the_others(tmp_path):
    store(tmp_path, "facts", {"figures": []})
    store(tmp_path, "tick", {"error": "x"})
    store(tmp_path, "tick", {"figures": []})
    assert load(tmp_path) == {"facts": {"figures": []}, "tick": {"figures": []}}


def test_all_parts_together_take_what_is_promised():
    seconds = [limit for _, limit in check.PARTS.values()]
    assert check.PARTS["facts"][1] + check.PARTS["tick"][1] <= 120
    # Limits, not expectations: a run in which several parts hang is cut by --minutes.
    assert sum(seconds) <= 60 * check.MINUTES * 1.6


def test_an_unknown_part_and_a_missing_folder_are_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("OUT", raising=False)
    for words, text in ((["--only", "tock", "--out", str(tmp_path)], "got tock"), (["--only", "tick"], "--out must name")):
        with pytest.raises(SystemExit) as ended:
            check.main(words)
        assert ended.value.code == 2
        assert text in capsys.readouterr().err


def test_a_part_for_which_no_time_is_left_is_not_run(tmp_path, capsys):
    assert check.main(["--out", str(tmp_path), "--only", "facts", "--minutes", "0.1"]) == 0
    assert "of --minutes 0.1 were left" in load(tmp_path)["facts"]["why"]
    assert "| facts |" in (tmp_path / TABLE).read_text()


@pytest.mark.slow
def test_parts_fail_alone_in_one_line_and_the_table_comes_from_the_file(tmp_path, capsys):
    """As on the first occasion: a bare checkout, another folder, a machine on which the driver is missing."""
    words = [sys.executable, str(SCRIPT), "--device", "cpu", "--only", "facts,power_limit", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}, check=False
    )
    results = json.loads((tmp_path / "out" / RESULTS).read_text())
    if all(not result.get("error") for result in results.values()):
        pytest.skip("this machine has an NVIDIA driver")
    assert done.returncode == 1, done.stderr
    assert set(results) == {"facts", "power_limit"}
    for result in results.values():
        assert result["error"].startswith("NVMLError")
        assert "\n" not in result["error"]
    capsys.readouterr()
    assert check.main(["--table", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == done.stdout == (tmp_path / "out" / TABLE).read_text()


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_ended(tmp_path):
    given = check.argparse.Namespace(out=tmp_path, device="cpu", scale=0.1, data=None, set_power_limit=False)
    environment = check.bare_environment(tmp_path)
    assert check.run_part(given, "study", 0.5, environment) == {"error": "took longer than 0 s and was ended"}


def test_made_pictures_are_the_same_each_time_and_have_every_class(tmp_path):
    folder = training_parts.image_folder(tmp_path, None, 40)
    assert sorted(path.name for path in (folder / "train").iterdir()) == [f"class{k}" for k in range(10)]
    assert len(list(folder.rglob("*.jpg"))) == 40
    assert training_parts.image_folder(tmp_path, folder, 3) == folder


@pytest.mark.slow
def test_our_loop_trains_in_every_precision_of_this_device(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training_parts, "VARIANTS", (("float32", {}), ("bfloat16", {"precision": "bfloat16"}), ("float16", {"precision": "float16"}))
    )
    result = training_parts.training(Context(tmp_path, "cpu", 0.1))
    figures = {row["name"]: Figure(**row) for row in result["figures"]}
    verdicts = {name.split(":")[0]: figure.verdict for name, figure in figures.items() if "trained, finite" in name}
    assert verdicts == {"float32": "met", "bfloat16": "met", "float16": "not run"}
    assert figures["float32: energy of the last epoch"].value > 0


@pytest.mark.slow
def test_our_loop_and_the_usual_one_train_the_same_images(tmp_path):
    result = training_parts.loader(Context(tmp_path, "cpu", 0.1))
    assert len(result["details"]["ours_per_second"]) == len(result["details"]["usual_per_second"]) == 3
    assert min(result["details"]["ours_per_second"]) > 0


@pytest.mark.slow
def test_the_sums_of_a_study_close(tmp_path, monkeypatch, capsys):
    def in_this_process(words, **_):
        code = 0
        try:
            main(words[3:])  # the libraries are loaded already
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    monkeypatch.setattr(training_parts, "subprocess", SimpleNamespace(run=in_this_process))
    result = training_parts.study(Context(tmp_path, "cpu", 0.1))
    figures = [Figure(**row) for row in result["figures"]]
    assert [figure.name for figure in figures if figure.verdict == "missed"] == [], result["details"]["steps"]
    assert sum(" / " in figure.name and figure.verdict == "met" for figure in figures) == 3


@pytest.mark.slow
def test_a_part_that_is_ended_on_the_way_keeps_what_it_had_found(tmp_path, monkeypatch):
    program = (
        "import os, pathlib, time; file = pathlib.Path(os.environ['JOULEFRONT_ANSWER']);"
        " file.write_text('{\"figures\": [1]}'); time.sleep(600)"
    )
    script = tmp_path / "part.py"
    script.write_text(program)
    monkeypatch.setattr(check, "__file__", str(script))
    given = check.argparse.Namespace(out=tmp_path, device="cpu", scale=0.1, data=None, set_power_limit=False)
    result = check.run_part(given, "training", 2.0, check.bare_environment(tmp_path))
    assert result == {"figures": [1], "error": "took longer than 2 s and was ended"}
