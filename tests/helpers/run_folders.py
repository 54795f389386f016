"""A run folder without a study, and trials that are written into it."""

from pathlib import Path

import optuna

from helpers.trials import make_trial
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import ATTRIBUTE

STUDY = {
    "name": "tiny",
    "objectives": ["accuracy", "train_energy"],
    "directions": ["maximize", "minimize"],
    "rungs": [1, 3],
}


def make(path: Path, run_id: str = "tiny-1", storage: str | None = None) -> RunFolder:
    return RunFolder.create(path, {"run_id": run_id, "study": STUDY, "sessions": []}, storage=storage)


def add(store: RunFolder, accuracy: float, joules: float) -> None:
    trial = make_trial(0, "complete", {"width": 3}, 2, (accuracy, joules), {"accuracy": accuracy}, joules, extra={"threads": 1})
    store.study().add_trial(
        optuna.trial.create_trial(
            params={"width": 3, "epochs": 2},
            distributions={name: optuna.distributions.IntDistribution(1, 9) for name in ("width", "epochs")},
            values=list(trial.values),
            user_attrs={ATTRIBUTE: trial.facts()},
        )
    )
