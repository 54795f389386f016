"""Trials for tests, with the energy written flat beside the rest."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from joulefront.search.records.trial import State, Trial, TrialEnergy

#: Objectives and directions of the usual front.
TWO = (("accuracy", "train_energy"), ("maximize", "minimize"))
ENERGY = {("energy_quality" if name == "quality" else name): name for name in TrialEnergy.__dataclass_fields__}


def make_trial(
    number: int = 0,
    state: State = "complete",
    params: Mapping[str, Any] | None = None,
    epochs: int = 1,
    values: tuple[float, ...] = (),
    quality: Mapping[str, float] | None = None,
    train_joules: float | None = None,
    train_u_joules: float | None = None,
    **facts: Any,
) -> Trial:
    """Make a trial; ``facts`` are fields of it or of its energy (``energy_quality`` is the quality of the latter)."""
    trial = Trial(number, state, params or {}, epochs, values, quality or {})
    return changed(trial, train_joules=train_joules, train_u_joules=train_u_joules, **facts)


def changed(trial: Trial, **facts: Any) -> Trial:
    """Return a trial with other facts of its own or of its energy."""
    energy = {ENERGY[name]: value for name, value in facts.items() if name in ENERGY}
    own = {name: value for name, value in facts.items() if name not in ENERGY}
    return replace(trial, energy=replace(trial.energy, **energy), **own)


def complete(number: int, accuracy: float, joules: float | None, **facts: Any) -> Trial:
    """Make a complete trial of accuracy against training energy; unknown energy is NaN among its values."""
    facts = {"energy_quality": "measured", "values": (accuracy, joules if joules is not None else math.nan), **facts}
    return make_trial(number, "complete", facts.pop("params", {}), facts.pop("epochs", 1), train_joules=joules, **facts)
