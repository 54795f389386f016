"""Every combination of a finite space once, in random order: for comparisons, where each setting must get its share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState


class GridSampler(optuna.samplers.BruteForceSampler):
    """Optuna's exhaustive sampler, for a loop that asks and tells.

    Attributes:
        exhausted: Whether every combination has been tried, known as soon as a trial has been told.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.exhausted = False

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Draw a value below which something has not been tried.

        Raises:
            ValueError: If the parameter is a range of numbers without steps, which no grid can go through.
        """
        if isinstance(param_distribution, FloatDistribution) and param_distribution.step is None:
            raise ValueError(f"--sampler grid needs choices or steps, but {param_name} is a range of numbers; take --sampler random")
        return super().sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Note whether anything is left; Optuna's own would stop ``Study.optimize``, which is not what runs here."""
        ending = _Ending(study)
        super().after_trial(ending, trial, state, values)  # type: ignore[arg-type]  # stands in for the study
        self.exhausted = ending.asked


class _Ending:
    """Stands for a study and takes note when it is to stop."""

    def __init__(self, study: optuna.Study) -> None:
        self._study, self.asked = study, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def stop(self) -> None:
        self.asked = True
