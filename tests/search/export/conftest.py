"""Small trained models of every kind, each with the space, the study, the trial and the weights file that an export starts from."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.trials import changed, make_trial
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from joulefront.search.records.trial import ComponentEnergy, Trial
from joulefront.search.space import Candidate, FixedTrial
from joulefront.search.study import Study
from joulefront.search.training.checkpoint import save_weights
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import MemoryData
from joulefront.search.training.task import Task


@dataclass(frozen=True)
class Ready:
    """Everything that ``export`` takes, for one trained model."""

    trial: Trial
    study: Study
    task: Task
    weights: Path
    is_torch: bool

    @property
    def arguments(self) -> dict[str, Any]:
        return {"trial": self.trial, "study": self.study, "task": self.task, "weights": self.weights}

    def but(self, **changes: Any) -> Ready:
        return replace(self, trial=changed(self.trial, **changes))


def convnet(width: int, task: Task) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(task.input_shape[0], width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(4 * width, task.outputs),
    )


def mlp(width: int, task: Task) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(task.input_shape)), width), nn.GELU(), nn.Linear(width, task.outputs))


ESTIMATORS: dict[str, Callable[[int], Any]] = {
    "pipeline": lambda width: make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)),
    "forest": lambda width: RandomForestClassifier(width),
    "boosting": lambda width: HistGradientBoostingClassifier(max_iter=width, max_depth=3),
    "neighbours": lambda width: KNeighborsClassifier(3),
    "detector": lambda width: IsolationForest(n_estimators=width),
    "regressor": lambda width: RandomForestRegressor(width),
}


@dataclass(frozen=True)
class TinySpace:
    """Keeps the rules of the Space protocol with a handful of tiny models."""

    families: tuple[str, ...]
    resolution: int | None = None
    name: str = "tiny"

    def sample(self, trial: Any) -> Candidate:
        family = trial.suggest_categorical("family", self.families)
        width = trial.suggest_int("width", 2, 32)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        recipe = Recipe(learning_rate=rate, batch_size=64, resolution=self.resolution)
        return Candidate({"family": family, "width": width}, recipe)

    def build(self, candidate: Candidate, task: Task) -> Any:
        family, width = candidate.architecture["family"], candidate.architecture["width"]
        return {"convnet": convnet, "mlp": mlp}[family](width, task) if family in ("convnet", "mlp") else ESTIMATORS[family](width)

    def key(self, candidate: Candidate) -> str:
        return candidate.key


def digits(*, flat: bool = False, test: bool = True) -> Task:
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32) / 16
    inputs = images if flat else images.reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels)
    mean, deviation = [float(images.mean())] * (64 if flat else 1), [float(images.std())] * (64 if flat else 1)
    train, validation, held_out = (
        MemoryData(inputs[a:b], targets[a:b], mean=mean, deviation=deviation) for a, b in ((0, 1000), (1000, 1333), (1333, 1797))
    )
    preprocessing = {"divide_by": 16, "mean": mean[:1], "std": deviation[:1]}
    shape = (64,) if flat else (1, 8, 8)
    classes = tuple(str(number) for number in range(10))
    return Task("digits", "classification", train, validation, held_out if test else None, shape, classes, preprocessing)


def diabetes() -> Task:
    X, y = load_diabetes(return_X_y=True)
    inputs, raw = torch.tensor(X * 20, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    mean, deviation = float(raw[:300].mean()), float(raw[:300].std())
    targets = (raw - mean) / deviation
    return Task(
        "diabetes",
        "regression",
        MemoryData(inputs[:300], targets[:300]),
        MemoryData(inputs[300:], targets[300:]),
        None,
        (10,),
        target_scale=(mean, deviation),
    )


def anomalies() -> Task:
    generator = torch.Generator().manual_seed(0)
    normal, strange = torch.randn(400, 6, generator=generator), 4 + torch.randn(40, 6, generator=generator)
    inputs, targets = torch.cat([normal, strange]), torch.cat([torch.zeros(400), torch.ones(40)]).long()
    order = torch.randperm(440, generator=generator)
    inputs, targets = inputs[order], targets[order]
    return Task("anomalies", "anomaly", MemoryData(inputs[:220], targets[:220]), MemoryData(inputs[220:], targets[220:]), None, (6,))


def labels() -> Task:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(400, 5, generator=generator)
    targets = (inputs[:, :3] > 0.2).float()
    train, validation = MemoryData(inputs[:300], targets[:300]), MemoryData(inputs[300:], targets[300:])
    return Task("labels", "multilabel", train, validation, None, (5,), ("red", "green", "blue"))


def train(
    folder: Path,
    family: str,
    task: Task,
    *,
    width: int = 8,
    space: Any = None,
    epochs: int = 2,
    resolution: int | None = None,
    params: dict[str, Any] | None = None,
) -> Ready:
    space = space or TinySpace((family,), resolution)
    params = params or {"family": family, "width": width, "learning_rate": 0.01}
    study = Study("small", task, space, objectives=(task.metric, "train_energy"), seed=3)
    candidate = space.sample(FixedTrial(params))
    torch.manual_seed(0)
    fitted = fit(space.build(candidate, task), task, candidate.recipe, epochs=epochs, seed=0)
    weights = folder / f"{family}.weights"
    save_weights(weights, fitted, with_checkpoint=False)
    trial = make_trial(
        number=7,
        state="complete",
        params=params,
        epochs=epochs,
        quality=fitted.quality,
        train_joules=123.4,
        train_u_joules=1.5,
        grams_co2e=0.0019,
        energy_quality="estimated",
        components={"cpu": ComponentEnergy(123.4, "estimated", "cpu_time"), "dram": ComponentEnergy(None, "absent", "rapl")},
        artifact=weights.name,
    )
    return Ready(trial, study, task, weights, isinstance(fitted.model, nn.Module))


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ready]:
    """Train a model, once for each set of arguments."""
    done: dict[Any, Ready] = {}
    tasks: dict[str, Callable[[], Task]] = {
        "digits": digits,
        "no test": lambda: digits(test=False),
        "rows": lambda: digits(flat=True),
        "diabetes": diabetes,
        "anomalies": anomalies,
        "labels": labels,
    }

    def make(family: str, task: str | Task = "digits", **options: Any) -> Ready:
        if isinstance(task, Task):
            return train(tmp_path_factory.mktemp(family), family, task, **options)
        key = (family, task, str(sorted(options.items(), key=str)))
        if key not in done:
            done[key] = train(tmp_path_factory.mktemp(family), family, tasks[task](), **options)
        return done[key]

    return make


@pytest.fixture
def run_card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the code of a card unchanged, in its folder, with files as arguments; returns its names, with what it ``printed``."""

    def run(folder: Path, *files: Path) -> dict[str, Any]:
        found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        assert found
        compile(found.group(1), "README.md", "exec")
        monkeypatch.setattr(sys, "argv", ["card.py", *map(str, files)])
        monkeypatch.syspath_prepend(str(folder))
        printed = io.StringIO()
        names: dict[str, Any] = {}
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            for name in ("predict", "columns", "table_file", "table_encodings", "table_numbers"):
                sys.modules.pop(name, None)
            exec(found.group(1), names)
        for name in ("predict", "columns", "table_file", "table_encodings", "table_numbers"):
            sys.modules.pop(name, None)
        return {**names, "printed": printed.getvalue()}

    return run


@pytest.fixture(scope="session")
def tiny_space() -> type[TinySpace]:
    return TinySpace
