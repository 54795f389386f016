"""A study, a space and a tactic of one's own need one file and not a line in the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from joulefront.search.cli.options import bundled_studies
from joulefront.search.cli.study_source import find_study
from joulefront.search.records.run_folder import Run

OWN = '''"""A study, a space and a tactic of one's own, in one file outside the package."""

import numpy as np
from dataclasses import dataclass
from torch import nn

from joulefront.search.space import Candidate
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.tactics.tactic import NoOp
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Union


class Loud(NoOp):
    """Counts its epochs."""

    def __init__(self, *, volume=1.0):
        self.volume, self.epochs = volume, 0

    def start_epoch(self, epoch, epochs):
        self.epochs += 1

    def detach(self):
        return {"loud_epochs": self.epochs, "loud_volume": self.volume}


@dataclass(frozen=True)
class Linear:
    """A linear model."""

    recipe: RecipeRanges
    name: str = "linear"

    def sample(self, trial):
        bias = trial.suggest_categorical("bias", (False, True))
        return Candidate({"family": self.name, "bias": bias}, self.recipe.sample(trial))

    def build(self, candidate, task):
        return nn.Linear(task.input_shape[0], task.outputs, bias=candidate.architecture["bias"])

    def key(self, candidate):
        return candidate.key


def study(seed=0):
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(90, 4)).astype("float32")
    recipe = RecipeRanges(batch_size=16, tactics={"joulefront_user_study_own:Loud": {"on": True, "volume": (1.0, 2.0)}})
    return Study(
        name="own",
        task=lambda: arrays(inputs, (inputs[:, 0] > 0).astype(int), seed=seed),
        space=Union(Linear(recipe), Linear(recipe, name="other")),
        rungs=(2, 4),
        trials=2,
        seed=seed,
    )
'''


@pytest.mark.slow
def test_one_file_outside_the_package_adds_a_study_a_space_and_a_tactic(tmp_path: Path, smoke: Callable[..., Run]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    run = smoke(str(tmp_path / "own.py"), tmp_path / "run")
    assert [trial.state for trial in run.trials] == ["complete"] * 2
    for trial in run.trials:
        assert trial.params["family"] in ("linear", "other")
        assert trial.extra["loud_epochs"] == 2
        assert trial.extra["loud_volume"] == trial.params["tactic.joulefront_user_study_own:Loud.volume"]


def test_a_file_in_the_folder_of_studies_is_listed_without_a_line_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import joulefront.studies

    (tmp_path / "extra.py").write_text(OWN)
    (tmp_path / "_helper.py").write_text('"""Not a study."""\n')
    monkeypatch.setattr(joulefront.studies, "__path__", [str(tmp_path)])
    monkeypatch.setattr(joulefront.studies.__spec__, "submodule_search_locations", [str(tmp_path)])
    assert bundled_studies() == {"extra": "A study, a space and a tactic of one's own, in one file outside the package."}
    assert find_study("extra", {"seed": 3}).seed == 3


@pytest.mark.parametrize("inside", ["rows = 300\n", None], ids=["module", "package"])
def test_a_study_imports_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str | None) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"neighbour_of_{'module' if inside else 'package'}"
    if inside is None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("from .inner import rows\n")
        (tmp_path / name / "inner.py").write_text("rows = 300\n")
    else:
        (tmp_path / f"{name}.py").write_text(inside)
    lines = [f"from {name} import rows", "from joulefront.studies.digits import study as digits", "assert rows == 300", "study = digits"]
    (tmp_path / "beside.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert find_study("beside.py", {}).name == "digits"
