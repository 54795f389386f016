"""From a sampler's name to the sampler.

Every combination of a finite space once, in random order: for comparisons, where each setting must get its share.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from ..space import FixedTrial, RandomTrial, Sizes, Space
from ..study import ENERGY_OBJECTIVES

if TYPE_CHECKING:
    from ..study import Study
    from ..training.task import Task

#: Random candidates that are asked whether any training of a space can go on.
_ASKED = 32


def energy_axis(study: Study) -> int:
    """Return the index of the objective in whose unit a budget can be told: training energy or training carbon."""
    return next(index for index, name in enumerate(study.objectives) if name in ENERGY_OBJECTIVES)


def any_goes_on(space: Space) -> bool:
    """Whether any candidate can be continued from a checkpoint; under a schedule with a fixed horizon none can."""
    return any(space.sample(RandomTrial(seed)).recipe.resumable for seed in range(_ASKED))


def canonical(space: Space, params: Mapping[str, Any]) -> str:
    """Return the canonical text of a candidate; one whose conditional parameters are not all drawn yet stands for itself."""
    try:
        return space.key(space.sample(FixedTrial(params)))
    except ValueError:
        return json.dumps(dict(params), sort_keys=True, default=str)


def make_sampler(
    name: str,
    *,
    rungs: Sequence[int],
    seed: int,
    study: Study,
    task: Task | None = None,
    prior: Sequence[Sequence[optuna.trial.FrozenTrial]] = (),
) -> optuna.samplers.BaseSampler:
    """Return the sampler of this name, seeded; ``task`` is the study's, for samplers that are told the sizes of candidates.

    NSGA-II gets a population of 20: with Optuna's 50 a study of a usual size never finishes its first generation.

    Raises:
        ValueError: If the name is unknown, or there is prior knowledge for a sampler that cannot use it.
    """
    if prior and name != "freeze-thaw":
        raise ValueError(f"--warm-start needs --sampler freeze-thaw, got {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "freeze-thaw":
            from .freeze_thaw import FreezeThawSampler

            return FreezeThawSampler(
                rungs=list(rungs),
                resume=any_goes_on(study.space),
                seed=seed,
                min_accuracy=study.min_accuracy,
                energy=energy_axis(study),
                key=lambda params: canonical(study.space, params),
                complete_only=study.complete_only,
                prior_trials=prior,
                features=Sizes(study.space, task) if study.sizes and task is not None else None,
            )
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "grid":
            return GridSampler(seed=seed)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
    raise ValueError(f"unknown sampler {name!r}; choose freeze-thaw, tpe, nsga2, gp, random or grid")


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
