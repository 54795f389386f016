"""Which trials are of one candidate: duplicates, lineages and who trains them, and candidates with the same kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..hints import Hints
from ..records.trial import EXCUSED, KEY, WORKER, Trial, from_optuna
from ..samplers.history import EPOCHS_REACHED, FINISHED, FROM_SCRATCH, RESUME_FROM
from ..space import Candidate, FixedTrial, Space
from ..stopping.limits import Limits
from ..study import Study

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

#: The best of the first models is trained again at the rungs that have between these shares of its epochs.
SHORTER = (1 / 12, 2 / 5)


@dataclass(frozen=True)
class Refusal:
    """Why a trial is not trained here and now; it is ``excused`` where that says nothing against its candidate."""

    reason: str
    excused: bool = False


@dataclass
class Lost:
    """Trainings from scratch that were lost with the worker they ran in, to be taken up again by later trials."""

    _waiting: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def note(self, key: str, params: Mapping[str, Any], limits: Limits) -> Limits:
        """Let a candidate be trained again, beside the trials that the limits allow, but once: it may be the reason after all."""
        new = key not in self._waiting
        self._waiting.setdefault(key, dict(params))
        return replace(limits, trials=limits.trials and limits.trials + new)

    def next(self) -> Mapping[str, Any] | None:
        """Return the parameters of a training that nobody has taken up again yet, or None."""
        for key, params in self._waiting.items():
            if params is not None:
                self._waiting[key] = None
                return params
        return None


def of_the_same_kernels(space: Space, candidate: Candidate, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have compiled what a candidate compiles."""
    compiled = [(trial, space.sample(FixedTrial(trial.params))) for trial in trials if trial.energy.compiled]
    wanted = (candidate.architecture, candidate.recipe.kernels)
    return [trial for trial, one in compiled if (one.architecture, one.recipe.kernels) == wanted]


def duplicate_of(trials: Sequence[FrozenTrial], key: str, epochs: int) -> Trial | None:
    """Return the trial that measured the same candidate at the same epochs, or None; ``trials`` are those of like hardware."""
    for trial in trials:
        if trial.state.name == "COMPLETE" and trial.user_attrs.get(KEY) == key and trial.user_attrs.get(EPOCHS_REACHED) == epochs:
            return from_optuna(trial)
    return None


def claimed(trials: Sequence[FrozenTrial], asked: FrozenTrial, epochs: int, parent: int | None) -> Refusal | None:
    """Return why a candidate must not be trained now though no trial has measured it: another worker does, or has gone further; or None.

    A lineage is one worker's at a time. What is trained from scratch to other epochs is another training. ``trials`` are those of like
    hardware, as they are under the lock of all workers.
    """
    alike = [trial for trial in trials if trial.user_attrs.get(KEY) == asked.user_attrs[KEY] and trial.number != asked.number]
    for trial in alike:
        resumes = trial.user_attrs.get(RESUME_FROM) is not None or parent is not None
        if trial.state.name == "RUNNING" and (resumes or trial.params.get("epochs") == epochs):
            return Refusal(f"trial {trial.number} trains the same candidate at another worker", excused=True)
        if parent is not None and trial.state.name == "COMPLETE" and trial.user_attrs.get(RESUME_FROM) == parent:
            return Refusal(f"trial {trial.number} has continued trial {parent} meanwhile", excused=True)
    return None


def expected_joules(trials: Sequence[Trial], epochs: int, parent: Trial | None) -> float | None:
    """Return about what a training will take, by its own epochs so far or the cheapest of any model; None where nothing is known."""
    if parent is not None and parent.train_joules is not None:
        return parent.train_joules / max(1, parent.epochs) * (epochs - parent.epochs)
    known = [trial.train_joules / trial.epochs for trial in trials if trial.state == "complete" and trial.epochs and trial.train_joules]
    return min(known) * epochs if known else None


def resumable(trials: Sequence[Trial], stored: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that the sampler may continue from their checkpoints; `stored` are the same as Optuna holds them.

    They are not complete trainings, none has continued them yet, and nothing has ended their candidate.
    """
    over = {_candidate(trial) for trial in stored if _ends_its_candidate(trial)}
    parents = {trial.parent for trial in trials if trial.state == "complete"}
    return {
        trial.number
        for trial in trials
        if trial.state == "complete"
        and not trial.complete_training
        and trial.number not in parents
        and _candidate(stored[trial.number]) not in over
    }


def _candidate(trial: optuna.trial.FrozenTrial) -> tuple[Any, Any]:
    """Return what tells candidates apart: on other hardware the same parameters are another one's energies."""
    return trial.user_attrs.get(KEY), trial.user_attrs.get(WORKER, {}).get("hardware_id")


def _ends_its_candidate(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether no trial of the same candidate will ever continue from a checkpoint."""
    failed = trial.state.name == "FAIL" and EXCUSED not in trial.user_attrs
    return failed or FINISHED in trial.user_attrs or FROM_SCRATCH in trial.user_attrs


def shorter(study: Study, first: int, trials: Sequence[FrozenTrial]) -> Mapping[str, Any] | None:
    """Return the best of the ``first`` models for a part of its epochs, until its shorter trainings are measured, too; or None.

    What a study begins with at a higher rung was never measured below it, and the sampler only goes up: there a nearly equal model may lie
    that takes a fifth of the energy, with a learning rate that fits. Where epochs are passes over the data the first are short already.
    """
    if study.sampler != "freeze-thaw" or study.complete_only or Hints(study.space).epochs_are_passes:
        return None
    known = [trial for trial in trials[:first] if trial.state.name == "COMPLETE" and KEY in trial.user_attrs]
    if not known or not first <= len(trials) < first + len(study.rungs):
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    best = max(known, key=lambda trial: sign * trial.values[0])
    reached, params = best.user_attrs[EPOCHS_REACHED], {name: value for name, value in best.params.items() if name != "epochs"}
    wanted = [rung for rung in reversed(study.rungs) if SHORTER[0] <= rung / reached <= SHORTER[1]]
    plans = ({**Hints(study.space).shortened(params, reached / rung), "epochs": rung} for rung in wanted)
    return next((plan for plan in plans if all(trial.params != plan for trial in trials)), None)
