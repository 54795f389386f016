"""Every bundled study passes ``--smoke`` through the command line, and is a recipe that one can read."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from joulefront.search.cli import main
from joulefront.search.cli.options import bundled_studies
from joulefront.search.cli.study_source import find_study
from joulefront.search.records.run_folder import Run
from joulefront.studies import _parts

pytestmark = pytest.mark.slow

FOLDER = Path(_parts.__file__).parent
Smoked = Callable[[str], Run]


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_every_bundled_study_measures_two_tiny_trials(name: str, smoked: Smoked) -> None:
    run = smoked(name)
    assert run.name == name
    assert [trial.state for trial in run.trials] == ["complete"] * 2
    for trial in run.trials:
        assert trial.reason is None or trial.reason.startswith("patience")  # early stopping is one of the tactics
        assert trial.train_joules is not None
        assert trial.train_joules > 0
        assert len(trial.values) == len(run.objectives)
    assert (run.path / "front.png").stat().st_size > 0


@pytest.mark.parametrize("name", ["architectures", "environments", "tactics"])
def test_studies_of_networks_take_images_of_ones_own(name: str, photographs: Path) -> None:
    study = find_study(name, {"data": str(photographs), "smoke": True})
    task = study.load_task()
    assert task.classes == ("blue", "green", "red")
    assert task.input_shape == (3, 32, 32)


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_every_study_is_a_readable_recipe(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    first = docstring.split("\n", 1)[0]
    assert bundled_studies()[name] == first
    assert first.endswith((".", "?"))
    assert len(text.splitlines()) < 200
    assert find_study.__module__ not in text, "a recipe needs no machinery"


def test_a_study_without_its_data_offline_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: pytest.fail("a named folder is never filled"))
    with pytest.raises(SystemExit) as ended:
        main(["run", "cifar10", "--smoke", "--data", str(tmp_path), "--meter", "cpu_time", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "has no cifar10 in torchvision's layout" in errors[0]


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_every_study_takes_a_seed_and_passes_it_on(name: str) -> None:
    module = __import__(f"joulefront.studies.{name}", fromlist=["study"])
    assert "seed" in inspect.signature(module.study).parameters
    if name != "table":  # reads its file at once
        needed = {"data": "nowhere"} if name == "images" else {}
        assert find_study(name, {**needed, "seed": 7}).seed == 7


def test_the_digits_are_those_of_scikit_learn() -> None:
    levels, labels = _parts.digit_levels()
    theirs = load_digits()
    assert np.array_equal(levels[:, 0], theirs.images)
    assert np.array_equal(labels, theirs.target)
    assert labels.dtype == theirs.target.dtype
