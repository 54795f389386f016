"""From a measured trial to the numbers that Optuna is told."""

from __future__ import annotations

from collections.abc import Sequence

from .records.trial import Trial


def objective_values(trial: Trial, objectives: Sequence[str]) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the values in the order of the objectives, or None and which one is unknown.

    A trial with an unknown value is failed: telling a made-up number would put a phantom on the front.
    """
    values: list[float] = []
    for name in objectives:
        value = {
            "train_energy": trial.train_joules,
            "train_co2": trial.grams_co2e,
            "inference_energy": trial.inference_joules_per_1000,
            "parameters": None if trial.parameters is None else float(trial.parameters),
        }.get(name, trial.quality.get(name))
        if value is None or value != value:
            known = ", ".join(sorted(trial.quality))
            return None, f"objective {name!r} is unknown for this trial (quality known: {known}; energy {trial.energy_quality})"
        values.append(float(value))
    return tuple(values), None
