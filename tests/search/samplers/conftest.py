from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

RUNGS = [1, 3, 9, 27]


def curve(trial: optuna.Trial) -> tuple[float, float]:
    """A learning curve with an optimum inside; energy grows with epochs and width. The space is conditional."""
    kind = trial.suggest_categorical("kind", ["conv", "mlp"])
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    width = trial.suggest_int("width", 1, 8) if kind == "conv" else 1 + trial.suggest_float("share", 0.0, 1.0, step=0.25) * 7
    epochs = trial.suggest_int("epochs", RUNGS[0], RUNGS[-1])
    quality = 0.9 - 0.05 * (math.log10(lr) + 2) ** 2 - 0.02 * abs(width - 5) - 0.1 * (kind == "mlp") - 0.5 * epochs**-0.7
    return quality, 10.0 * epochs * width


@pytest.fixture
def objective() -> Callable[[optuna.Trial], tuple[float, float]]:
    return curve


@pytest.fixture
def search() -> Callable[..., optuna.Study]:
    def run(
        trials: int, *, objective: Any = curve, directions: tuple[str, ...] = ("maximize", "minimize"), catch: Any = (), **options: Any
    ) -> optuna.Study:
        sampler = FreezeThawSampler(options.pop("rungs", RUNGS), **options)
        study = optuna.create_study(directions=list(directions), sampler=sampler)
        study.optimize(objective, trials, catch=catch)
        return study

    return run


@pytest.fixture(scope="package")
def searched() -> Callable[[int], optuna.Study]:
    """A plain search after so many trials, from one of 90 made once: its sampler decides by the trials and the number of the next one."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    study.optimize(curve, 90)

    def first(trials: int) -> optuna.Study:
        copy = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
        copy.add_trials(study.trials[:trials])
        return copy

    return first


@pytest.fixture(scope="package")
def studied() -> tuple[FreezeThawSampler, optuna.Study]:
    """A study of 40 trials and its sampler, to be looked at."""
    sampler = FreezeThawSampler(RUNGS)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(curve, 40)
    return sampler, study
