"""The verb `export`: picks, duplicates, formats, and what cannot be exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Circle, refused, say

from joulefront.search.cli import main
from joulefront.search.cli.read import trained
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import Trial

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("pick", ["knee", "best", "cheapest", "accuracy>=0.1", "energy<=1kWh"])
def test_every_pick_is_exported_from_another_folder(circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pick: str) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = say("export", "--trust", circle.path, "--pick", pick, "--to", "safetensors", "-o", "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    rows = json.loads(say("front", circle.path, "--json")[0])
    assert config["trial"] in [row["trial"] for row in rows]
    assert "outputs within 0.0e+00" in out


def test_a_duplicate_is_exported_with_the_weights_of_the_trial_that_it_repeats(same: Circle, tmp_path: Path) -> None:
    trials = RunFolder.open(same.path).run().trials
    assert [trial.extra.get("copy_of") for trial in trials] == [None, 0, 0]
    assert [trial.increment_joules for trial in trials[1:]] == [0.0, 0.0]
    for pick in ("trial=0", "trial=2", "knee"):
        say("export", "--trust", same.path, "--pick", pick, "--to", "safetensors", "-o", tmp_path / pick)
    files = [(tmp_path / pick / "model.safetensors").read_bytes() for pick in ("trial=0", "trial=2", "knee")]
    assert files[0] == files[1] == files[2]


def test_a_duplicate_of_a_duplicate_leads_to_the_trial_that_was_trained() -> None:
    trials = [
        Trial(0, "complete", {}, 1),
        Trial(1, "complete", {}, 1, extra={"copy_of": 0}),
        Trial(2, "complete", {}, 1, extra={"copy_of": 1}),
    ]
    assert trained(trials[2], trials) is trials[0]
    assert trained(trials[0], trials) is trials[0]


@pytest.mark.parametrize(
    ("pick", "parts"),
    [
        ("accuracy>=0.95", ["nearest is trial=1", "0.9000"]),
        ("accuracy>=90", ["0.95 or 95%, not 95"]),
        ("energy<=1J", ["nearest is trial=0", "energy<=10mWh"]),
        ("energy<=5", ["no unit", "energy<=5Wh"]),
        ("trial=7", ["trial 7 does not exist", "nearest is trial=1"]),
        ("trial=1.5", ["by its number"]),
        ("fastest", ["must be a rule, got 'fastest'", "knee"]),
        ("speed>=3", ["'speed' was not measured", "accuracy"]),
    ],
)
def test_a_pick_that_no_trial_meets_names_the_nearest(call: Callable[..., Any], folder: Path, pick: str, parts: list[str]) -> None:
    refused(call("export", folder, "--pick", pick, "--to", "onnx", "-o", "model"), *parts)
    assert not Path("model").exists()


def test_an_unknown_format_lists_the_known_ones(call: Callable[..., Any], folder: Path) -> None:
    refused(call("export", folder, "--to", "docx", "-o", "model"), "'docx'", "onnx, pt2, safetensors, skops")
    assert not Path("model").exists()


def test_a_run_that_came_from_python_asks_for_its_study(call: Callable[..., Any], folder: Path) -> None:
    refused(call("export", folder, "--to", "safetensors", "-o", "model"), "came from Python", "--study my_study.py")


def failed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return next(line for line in err.splitlines() if line.startswith("error: "))


def test_a_network_cannot_be_written_as_skops(circle: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, "export", "--trust", circle.path, "--to", "skops", "-o", tmp_path / "model")
    assert "--to" in line
    assert not (tmp_path / "model").exists()


def test_a_model_that_onnx_cannot_hold_names_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Circle(tmp_path, "choosy", "--trials", "1")
    line = failed(capsys, "export", "--trust", run.path, "--to", "onnx", "-o", tmp_path / "model")
    assert "--to safetensors" in line
    assert not (tmp_path / "model").exists()
    say("export", "--trust", run.path, "--to", "safetensors", "-o", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_an_export_without_weights_names_why_they_were_not_kept(circle: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunFolder.open(circle.path)
    gone = [trial.number for trial in store.run().trials if not store.artifact(trial.number).exists()]
    if not gone:
        pytest.skip("all five trials are on the front this time")
    line = failed(capsys, "export", "--trust", circle.path, "--pick", f"trial={gone[0]}", "--to", "safetensors", "-o", tmp_path / "model")
    assert "only trials on the front are kept" in line
