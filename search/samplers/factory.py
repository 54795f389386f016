"""From the name of a sampler to a sampler for a study, and the exhaustive sampler that Optuna does not have for ask and tell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from ..hints import Hints
from ..space import RandomTrial, Sizes, Space, canonical
from ..study import ENERGY_OBJECTIVES, SAMPLERS, Study
from ..training.task import Task
from .freeze_thaw import FreezeThawSampler
from .frozen_features import StoredFeatures, features_paid, withheld
from .history import Comparable

#: Random candidates that are checked for a training that can be resumed.
_RESUMABLE_SAMPLE = 32


def energy_axis(study: Study) -> int:
    """Return the index of the objective that measures the cost of training: its energy or its carbon."""
    return next(index for index, name in enumerate(study.objectives) if name in ENERGY_OBJECTIVES)


def any_resumable(space: Space) -> bool:
    """Whether any candidate can be resumed from a checkpoint; under a schedule with a fixed horizon none can."""
    return any(space.sample(RandomTrial(seed)).recipe.resumable for seed in range(_RESUMABLE_SAMPLE))


def make_sampler(
    name: str,
    *,
    rungs: Sequence[int],
    seed: int,
    study: Study,
    task: Task | None = None,
    prior_trials: Sequence[Sequence[optuna.trial.FrozenTrial]] = (),
    stored: StoredFeatures | None = None,
) -> optuna.samplers.BaseSampler:
    """Return a seeded sampler for a study.

    NSGA-II gets a population of 20: with Optuna's 50 a study of a usual size never finishes its first generation.
    ``freeze-thaw`` alone takes trials of earlier studies, and knows what features they left (``stored``); the task is needed only
    where there are some, and where the sizes of candidates are features.

    Raises:
        ValueError: If the name is unknown, or there are prior trials for a sampler that cannot use them.
    """
    if prior_trials and name != "freeze-thaw":
        raise ValueError(f"--warm-start needs --sampler freeze-thaw, got {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "freeze-thaw":
            stored = stored if Hints(study.space).shares_features else None  # else every candidate of a decision is asked for them
            return FreezeThawSampler(
                rungs=list(rungs),
                resume=any_resumable(study.space),
                seed=seed,
                min_accuracy=study.min_accuracy,
                energy=energy_axis(study),
                key=partial(canonical, study.space),
                complete_only=study.complete_only,
                ladders=1,  # where no default model is a complete training: few noisy examples would not lead to one
                prior_trials=prior_trials,
                features=Sizes(study.space, task) if study.sizes and task is not None else None,
                paid=partial(features_paid, study.space, share=validation_share(task), stored=stored)
                if study.objectives[energy_axis(study)] == "train_energy"
                else None,
                withheld=partial(withheld, study, stored=stored) if Hints(study.space).staged else None,
            )
        others: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
            "tpe": optuna.samplers.TPESampler,
            "nsga2": partial(optuna.samplers.NSGAIISampler, population_size=20),
            "gp": optuna.samplers.GPSampler,
            "grid": GridSampler,
            "random": RandomSampler,
        }
        if name in others:
            return others[name](seed=seed)
    raise ValueError(f"sampler must be {', '.join(SAMPLERS)}, got {name!r}")


def validation_share(task: Task | None) -> float:
    """Return how many validation examples there are for each training example; 0 where that is unknown."""
    return len(task.validation) / max(1, len(task.train)) if task is not None else 0.0


def keep_apart(sampler: optuna.samplers.BaseSampler, comparable: Comparable) -> optuna.samplers.BaseSampler:
    """Return a sampler that decides by comparable trials alone, those of one kind of hardware, where its study has others, too.

    Random draws look at no trial. A grid covers its space once, whatever hardware trains which part of it.
    """
    if isinstance(sampler, FreezeThawSampler):
        sampler.comparable = comparable
    return sampler if isinstance(sampler, FreezeThawSampler | RandomSampler | GridSampler) else ComparableSampler(sampler, comparable)


def _of_comparable(name: str) -> Any:
    """Return a method that passes its arguments on to the sampler inside, with a study that has comparable trials only."""

    def method(self: ComparableSampler, study: optuna.Study, *arguments: Any) -> Any:
        return getattr(self.sampler, name)(_ComparableStudy(study, self.comparable, self._attrs), *arguments)

    return method


class ComparableSampler(optuna.samplers.BaseSampler):
    """A sampler of Optuna that sees some trials of its study only."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, comparable: Comparable) -> None:
        self.sampler, self.comparable = sampler, comparable
        self._attrs: dict[str, Any] = {}

    infer_relative_search_space = _of_comparable("infer_relative_search_space")
    sample_relative = _of_comparable("sample_relative")
    sample_independent = _of_comparable("sample_independent")
    before_trial = _of_comparable("before_trial")
    after_trial = _of_comparable("after_trial")

    def reseed_rng(self) -> None:
        """Draw from another seed."""
        self.sampler.reseed_rng()


class _ComparableStudy:
    def __init__(self, study: optuna.Study, comparable: Comparable, attrs: dict[str, Any]) -> None:
        self._study, self._comparable, self._storage = study, comparable, _OwnAttributes(study._storage, attrs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, deepcopy: bool = True, states: Any = None, use_cache: bool = False) -> list[FrozenTrial]:
        return list(self._comparable(self._study._get_trials(deepcopy, states, use_cache)))

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._get_trials()


class _OwnAttributes:
    """A storage with own attributes of the study: there Optuna keeps the parents of a generation, which are trials of one hardware here."""

    def __init__(self, storage: Any, attrs: dict[str, Any]) -> None:
        self._kept, self._attrs = storage, attrs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attrs

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._attrs[key] = value


class GridSampler(optuna.samplers.BruteForceSampler):
    """Optuna's exhaustive sampler, for ask and tell: every combination of a finite space once, in random order.

    ``exhausted``, whether every combination has been tried, is updated at every ``tell``.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.exhausted = False

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Draw a value for which some combination has not been tried; a continuous range, which no grid enumerates, raises ValueError."""
        if isinstance(param_distribution, FloatDistribution) and param_distribution.step is None:
            raise ValueError(f"--sampler grid needs choices or steps, got a continuous range for {param_name}; use --sampler random")
        return super().sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Record whether the space is exhausted; Optuna's own method would stop ``Study.optimize``, which ask and tell do not use."""
        recorder = _StopRecorder(study)
        super().after_trial(recorder, trial, state, values)  # type: ignore[arg-type]  # stands in for the study
        self.exhausted = recorder.stopped


class _StopRecorder:
    def __init__(self, study: optuna.Study) -> None:
        self._study, self.stopped = study, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def stop(self) -> None:
        self.stopped = True
