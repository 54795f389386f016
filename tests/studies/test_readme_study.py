"""The study of the README is what a reader would copy: it has to be short and it has to run."""

import ast
import re
from pathlib import Path

import pytest

from joulefront.search.cli import main
from joulefront.search.records.run_folder import RunFolder

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def text() -> str:
    found = re.search(r"<!-- study -->\s*```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, "README.md has no python block after the marker <!-- study -->"
    return found[1]


def test_the_readme_is_at_most_120_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_study_of_the_readme_is_at_most_thirty_lines_with_an_own_dataset_and_an_own_model(text: str) -> None:
    tree = ast.parse(text)
    assert len(text.strip().splitlines()) <= 30
    assert "study" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used & {"Linear", "Sequential", "Conv2d", "Module"}, "an own model is built from torch.nn"


@pytest.mark.slow
def test_the_study_of_the_readme_runs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_study.py").write_text(text)
    main(["run", "my_study.py", "--trials", "2", "--sampler", "random", "--meter", "cpu_time", "--out", "r"])
    trials = RunFolder.open("r").run().trials
    assert [(trial.state, trial.reason) for trial in trials] == [("complete", None)] * 2
    assert "next: joulefront export" in capsys.readouterr().out
