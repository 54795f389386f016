"""A run folder from somebody else runs no code: what it names is imported only where the user says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from joulefront.search import Study, run
from joulefront.search.cli import main
from joulefront.search.training.splits_data import MemoryData


@pytest.fixture
def foreign(rings, tmp_path: Path) -> Path:
    """A finished run whose study.json names a function that leaves a file behind."""
    study: Study = rings(trials=3)
    run(study, out=tmp_path / "r", meter="cpu_time")
    file = tmp_path / "r" / "study.json"
    facts = json.loads(file.read_text())
    facts["origin"] = {"source": "subprocess:getoutput", "options": {"cmd": f"touch {tmp_path / 'ran'}"}, "overrides": {}}
    file.write_text(json.dumps(facts))
    return tmp_path / "r"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["export", "optimise", "repeat"])
def test_what_a_folder_names_is_not_imported_without_the_users_word(foreign: Path, tmp_path: Path, verb: str, capsys) -> None:
    rest = {"export": ["--to", "onnx", "-o", str(tmp_path / "m")], "optimise": ["--no-compile"], "repeat": ["--times", "1"]}[verb]
    with pytest.raises(SystemExit) as stopped:
        main([verb, str(foreign), *rest])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "subprocess:getoutput" in said
    assert "--trust" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_models_are_not_exported_or_measured_on_other_data_than_theirs(rings, tmp_path: Path, monkeypatch, capsys) -> None:
    study: Study = rings(trials=1)
    run(study, out=tmp_path / "r", meter="cpu_time")
    task = study.load_task()
    other = replace(study, task=replace(task, validation=MemoryData(task.validation.inputs.flip(0), task.validation.targets)))
    monkeypatch.setattr("joulefront.search.cli.study_source.study_of", lambda *given, **options: other)
    for words in (["export", str(tmp_path / "r"), "--to", "skops", "-o", str(tmp_path / "m")], ["optimise", str(tmp_path / "r")]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert "was made with other data" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["front", "plot", "report", "compare", "price"])
def test_the_reading_verbs_are_safe_on_it(foreign: Path, tmp_path: Path, verb: str) -> None:
    shutil.copytree(foreign, tmp_path / "other")
    rest = {
        "front": [],
        "plot": ["-o", str(tmp_path / "f.svg")],
        "report": ["-o", str(tmp_path / "r.html")],
        "compare": [str(tmp_path / "other")],
        "price": ["--zones", "FR,US"],
    }[verb]
    main([verb, str(foreign), *rest])
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_study_of_ones_own_is_exported_when_it_is_named_or_trusted(tmp_path: Path, monkeypatch, capsys) -> None:
    text = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    source = text.split("<!-- study -->", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "rings.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    main(["run", "rings.py", "--trials", "2", "--sampler", "random", "--meter", "cpu_time"])
    assert "--study rings.py" in capsys.readouterr().out.splitlines()[-1], "the next command must work as it is printed"
    with pytest.raises(SystemExit):
        main(["export", "runs/rings", "--pick", "best", "--to", "safetensors", "-o", "a"])
    main(["export", "runs/rings", "--pick", "best", "--to", "safetensors", "-o", "b", "--study", "rings.py"])
    main(["export", "runs/rings", "--pick", "best", "--to", "safetensors", "-o", "c", "--trust"])
