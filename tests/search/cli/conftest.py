"""Run folders that the tests of the verbs read: two that were trained, and one that was written without any training."""

import shutil
from pathlib import Path

import optuna
import pytest
from helpers.command_line import Circle
from helpers.trials import make_trial

from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import ATTRIBUTE


@pytest.fixture(scope="session")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    return Circle(tmp_path_factory.mktemp("circle"), "fine", "--zone", "FR", "--meter", "cpu_time", "--seed", "3")


@pytest.fixture(scope="session")
def same(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """A space with a single candidate: all trials but the first are copies."""
    return Circle(tmp_path_factory.mktemp("same"), "one", "--trials", "3")


@pytest.fixture(scope="session")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a study of three trials leaves it, without any training."""
    path = tmp_path_factory.mktemp("written") / "run"
    described = {
        "name": "written",
        "objectives": ["accuracy", "train_energy"],
        "directions": ["maximize", "minimize"],
        "rungs": [1, 3],
        "sampler": "random",
        "seed": 0,
        "space": "own",
        "description": "",
        "min_accuracy": None,
        "complete_only": False,
    }
    store = RunFolder.create(
        path, {"run_id": "written-1", "study": described, "origin": None, "intensity": None, "pue": 1.0, "sessions": []}
    )
    study = store.study()
    for number, (accuracy, joules, epochs) in enumerate([(0.7, 36.0, 1), (0.9, 360.0, 3), (0.6, 400.0, 3)]):
        params = {"width": 4 + number}
        trial = make_trial(
            number,
            "complete",
            params,
            epochs,
            (accuracy, joules),
            {"accuracy": accuracy},
            train_joules=joules,
            increment_joules=joules + 5.0,
            parameters=100,
            energy_quality="estimated",
            complete_training=epochs == 3,
        )
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={"width": optuna.distributions.IntDistribution(1, 9)},
                values=list(trial.values),
                user_attrs={ATTRIBUTE: trial.facts()},
            )
        )
    return path


@pytest.fixture
def folder(written_run: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(written_run, tmp_path / "run"))
