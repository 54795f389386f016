"""The notebook is the longest example that a reader follows: its cells run in order, from a CSV file to the exported model."""

import json
import runpy
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "studies" / "first_study.ipynb"
pytestmark = pytest.mark.slow


def test_the_notebook_leads_from_own_data_over_the_front_to_an_exported_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    checks = "\nassert chosen in front.trials and chosen.train_joules > 0\nassert exported.check.fault is None\n"
    (tmp_path / "notebook.py").write_text(code + checks, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("notebook.py", run_name="__main__")
    assert {file.name for file in (tmp_path / "model").iterdir()} >= {"model.onnx", "README.md", "preprocessing.json"}


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs")] == []
