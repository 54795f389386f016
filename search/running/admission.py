"""Before a joule is spent: candidates that are too large, ask for a precision the device lacks, or were trained already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records.trial import Trial, from_optuna
from ..samplers.history import EPOCHS_REACHED
from ..space import Candidate, weightless
from ..study import Study
from ..training.task import Task

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: User attribute of an Optuna trial that holds the canonical text of its candidate.
KEY = "key"


def refusal_of(study: Study, candidate: Candidate, task: Task, device: str = "cpu") -> str | None:
    """Say which limit on size a candidate breaks, or which precision the device lacks, or None; costs no training."""
    if candidate.recipe.precision != "float32":
        from ..training.tactics.tactic import require_precision

        try:
            require_precision(candidate.recipe.precision, device)
        except ValueError as error:
            return f"refused before training: {error}"
    limits = {"parameters": study.max_parameters, "flops": study.max_flops, "memory_bytes": study.max_memory_bytes}
    if all(most is None for most in limits.values()):
        return None
    from ..training.cost import count

    try:
        model = weightless(study.space, candidate, task)
    except ValueError as error:  # e.g. a network that the images are too small for: one refused candidate, not the end of the study
        return f"refused before training: {' '.join(str(error).split())}"
    cost = count(model, task, candidate.recipe, memory=study.max_memory_bytes is not None)
    for name, most in limits.items():
        have = getattr(cost, name)
        if most is not None and have is not None and have > most:
            return f"refused before training: {have:,} {name}, more than max_{name} = {most:,}"
    return None


def twin_of(trials: Sequence[FrozenTrial], key: str, epochs: int) -> Trial | None:
    """Return the trial that measured the same candidate at the same epochs, or None."""
    for trial in trials:
        if trial.state.name == "COMPLETE" and trial.user_attrs.get(KEY) == key and trial.user_attrs.get(EPOCHS_REACHED) == epochs:
            return from_optuna(trial)
    return None
