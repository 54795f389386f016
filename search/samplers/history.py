"""The trials of a study, grouped by configuration; every finished trial is read once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

from ..records.trial import ATTRIBUTE, EXCUSED
from ..space import FixedTrial, FrozenPart, Space
from ..study import Study
from .beliefs import Belief

#: User attribute: number of the trial whose checkpoint a trial resumes; the objective reads it with ``resume_from``.
RESUME_FROM = "resume_from"
#: System attribute: what a worker is about to train, written before the parameters reach the storage.
CLAIM = "joulefront:claim"
#: User attribute that the objective may set: epochs really trained, where a budget or the user ended the trial early.
EPOCHS_REACHED = "epochs_reached"
#: User attribute that the objective may set: the training ended by itself (patience), and more epochs would not be used.
FINISHED = "finished"
#: User attribute that the objective may set: every length of this configuration is a training of its own (fixed-horizon schedule).
FROM_SCRATCH = "from_scratch"
#: Fine-tuning waits for so many heads, and until its first rung costs at most this share of what is left.
HEADS, LARGEST_SHARE = 6, 0.1
#: Features with more work than any before cost at most this share of what is left.
LARGEST_STEP = 0.3
#: What the next step of 32 pixels gains in accuracy before anything is measured, with its spread, and what it has to promise.
#: Source: 96 to 128 to 160 pixels, three seeds of 30,000 images (studies/results/images.md): -0.001 to 0.014, 0.009 in the mean.
GAIN, SPREAD, WORTH = 0.01, 0.01, 0.005
#: A configuration counts as failed after so many kills at the same epochs: it may exhaust the memory of the machine.
MAX_KILLS = 3

#: User attribute that the objective may set: standard deviation of the measured quality, known from its validation examples.
QUALITY_SD = "quality_sd"

Key = Callable[[Mapping[str, Any]], Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Observation:
    """One complete trial.

    Epochs count from scratch. ``values`` are the objectives in the user's units, the quality first, the energy second; ``quality_sd`` is
    the known noise of the quality, 0 where nothing is known of it.
    """

    number: int
    key: str
    epochs: int
    values: tuple[float, ...]
    constraints: Mapping[str, float]
    quality_sd: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether no constraint is violated."""
        return all(value <= 0 for value in self.constraints.values())


@dataclass(frozen=True)
class RunningTrial:
    """What a running trial is training (``X_pending`` in BoTorch's terms).

    ``params`` leave out the epochs; ``epochs`` are the total that it will have been trained for.
    """

    number: int
    key: str
    params: Mapping[str, Any]
    epochs: int


@dataclass
class History:
    """Trials of a study by configuration, which is its canonical text (``key`` None: that of the parameters themselves).

    Of isomorphic configurations ``params`` are those of the first trial. Of equal measurements ``observations`` holds the first: later ones
    are copies without weights. ``finished`` are trainings that ended by themselves, ``from_scratch`` those that cannot be resumed;
    ``kills`` counts by configuration and epochs. ``arms`` tells which arm of the sampler has proposed a trial, ``surprises`` whether it was
    a fresh configuration and how many standard deviations its quality was off, by the models alone. ``distributions`` are the latest of
    each parameter, without the epochs.
    """

    key: Key | None
    epochs_name: str
    energy: int = 1
    params: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    observations: dict[str, dict[int, Observation]] = field(default_factory=dict)
    requested_epochs: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    from_scratch: set[str] = field(default_factory=set)
    kills: dict[tuple[str, int], int] = field(default_factory=dict)
    arms: dict[int, str] = field(default_factory=dict)
    surprises: list[tuple[bool, float]] = field(default_factory=list)
    running: tuple[RunningTrial, ...] = ()
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    epochs_distribution: BaseDistribution | None = None
    _read: set[int] = field(default_factory=set)

    def update(self, trials: Sequence[FrozenTrial], *, exclude: int | None = None) -> None:
        """Read the trials that have finished since the last call, and those that are running.

        ``exclude`` is the number of a trial to leave out: the one whose parameters are being decided.
        """
        running = []
        for trial in trials:
            if trial.number == exclude or trial.number in self._read:
                continue
            if trial.state.is_finished():
                self._read.add(trial.number)
                self._add(trial)
            elif trial.state == TrialState.RUNNING and (found := self.running_trial(trial)) is not None:
                running.append(found)
        self.running = tuple(running)

    def running_trial(self, trial: FrozenTrial) -> RunningTrial | None:
        """Return what an unfinished trial is training; None while that is not known."""
        claim = trial.system_attrs.get(CLAIM)
        if claim:
            return RunningTrial(trial.number, claim["key"], claim["params"], int(claim["epochs"]))
        if self.epochs_name not in trial.params:
            return None
        params = self.without_epochs(trial.params)
        return RunningTrial(trial.number, self.canonical(params), params, int(trial.params[self.epochs_name]))

    def canonical(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration."""
        return json.dumps(params if self.key is None else self.key(params), sort_keys=True, default=repr)

    def canonical_or_raw(self, params: Mapping[str, Any]) -> str:
        """Return the canonical text of a configuration that has not been trained, or that of its raw parameters where the key fails.

        In a conditional space the parameters of such a configuration are a prediction; where it is wrong the user's key may raise.
        """
        try:
            return self.canonical(params)
        except (KeyError, ValueError, TypeError, AttributeError):
            return json.dumps(params, sort_keys=True, default=repr)

    def without_epochs(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of the configuration."""
        return {name: value for name, value in params.items() if name != self.epochs_name}

    def longest(self, key: str) -> Observation | None:
        """Return the longest measured training of a configuration."""
        points = self.observations.get(key)
        return points[max(points)] if points else None

    def resumable(self, key: str, *, resume: bool) -> bool:
        """Whether a longer training of a measured configuration resumes its checkpoint; ``resume`` is the setting of the study."""
        return resume and key not in self.from_scratch

    def trained_to(self, key: str, *, resume: bool) -> int:
        """Return the epochs above which another training of a measured configuration gives a new observation.

        A checkpoint is resumed where it ended. A training from scratch that ended before the requested epochs would end there again.
        """
        return max(self.observations[key]) if self.resumable(key, resume=resume) else self.requested_epochs[key]

    def _add(self, trial: FrozenTrial) -> None:
        params = self.without_epochs(trial.params)
        for name, distribution in trial.distributions.items():
            if name == self.epochs_name:
                self.epochs_distribution = distribution
            else:
                self.distributions[name] = distribution
        if self.epochs_name not in trial.params:
            return  # it failed before it was known what it trains
        key = self.canonical(params)
        self.params.setdefault(key, params)
        valid = trial.state == TrialState.COMPLETE and trial.values is not None and all(math.isfinite(v) for v in trial.values)
        requested = int(trial.params[self.epochs_name])
        if trial.user_attrs.get(FROM_SCRATCH):
            self.from_scratch.add(key)
        if not valid:
            self._add_failure(key, requested, trial.user_attrs.get(EXCUSED))
            return
        assert trial.values is not None
        epochs = int(trial.user_attrs.get(EPOCHS_REACHED, requested))
        noted = trial.user_attrs.get(ATTRIBUTE, {}).get("extra", {}).get(QUALITY_SD)
        spread = max(0.0, float(trial.user_attrs.get(QUALITY_SD, noted) or 0.0))
        point = Observation(trial.number, key, epochs, energy_second(trial.values, self.energy), constraints_of(trial), spread)
        claim = trial.system_attrs.get(CLAIM) or {}
        if claim.get("arm"):
            self.arms[trial.number] = claim["arm"]
        if claim.get("belief") and int(claim["epochs"]) == epochs:
            z_score = Belief(*claim["belief"]).raw_z_score(float(trial.values[0]))
            self.surprises.append((trial.user_attrs.get(RESUME_FROM) is None, z_score))
        self.observations.setdefault(key, {}).setdefault(epochs, point)
        self.requested_epochs[key] = max(self.requested_epochs.get(key, 0), requested, epochs)
        if trial.user_attrs.get(FINISHED):
            self.finished.add(key)

    def _add_failure(self, key: str, epochs: int, excuse: str | None) -> None:
        if excuse == "killed":
            self.kills[key, epochs] = self.kills.get((key, epochs), 0) + 1
        if excuse is None or self.kills.get((key, epochs), 0) >= MAX_KILLS:
            self.failed.add(key)


def energy_second(items: Sequence[T], energy: int) -> tuple[T, ...]:
    """Reorder per-objective items: the quality, the energy, then the others.

    >>> energy_second(["accuracy", "parameters", "energy"], 2)
    ('accuracy', 'energy', 'parameters')
    """
    return (items[0], items[energy], *(item for index, item in enumerate(items) if index not in (0, energy)))


def resume_from(trial: Any) -> int | None:
    """Return the number of the trial whose checkpoint this trial resumes, or None when it starts from scratch.

    Works in the objective and on finished trials; in the objective, call it after the parameters have been suggested.
    """
    number = trial.user_attrs.get(RESUME_FROM)
    return None if number is None else int(number)


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """Read a trial's constraint values, those of ``trial.set_constraint`` (Optuna 5) and of ``constraints_func``."""
    found = {str(index): float(value) for index, value in enumerate(trial.system_attrs.get("constraints") or ())}
    for name, value in trial.system_attrs.items():
        if name.startswith("constraints:"):
            found[name.removeprefix("constraints:")] = float(value)
    return found


def features_paid(space: Space, trials: Sequence[FrozenTrial], *, share: float = 0.0) -> Callable[[Mapping[str, Any]], float] | None:
    """Return what of a candidate's price earlier trials have paid: features of its frozen backbone, for as many images; None without any.

    The function takes the parameters of a candidate and returns joules. Features that nobody has computed yet cost more than their price:
    those of the validation images come on top, ``share`` of what all training images take; then it is negative. A space whose models have a
    frozen backbone has a method ``frozen(candidate)``, which returns a ``FrozenPart``, or None for a candidate without one: what its
    features cost is in the inputs of the task, and was paid as that was loaded.
    """
    known, inputs = _prices(space, trials)
    each = median(joules / work for _, joules, work in known.values()) if known else 0.0

    def paid(params: Mapping[str, Any]) -> float:
        found: FrozenPart | None = _asked(space, "frozen", params)
        if found is None:
            return inputs
        if found.features not in known:
            return -share * each * found.work
        largest, joules, _ = known[found.features]
        return min(found.share, largest) * joules

    return paid if known or inputs else None


def withheld(study: Study, trials: Sequence[FrozenTrial], remaining: float | None) -> Callable[[Mapping[str, Any]], bool]:
    """Return which parameters must not be begun yet.

    That is fine-tuning before `following` has begun it, and what the budget does not carry: a space with such families says by
    ``waits(params)`` whether parameters are of one, and by ``tuning(candidate)`` which features it begins on, a ``FrozenPart``, and what an
    epoch costs, in passes of the frozen network over its images. And it is heads on features with more work than any before, which
    `further` begins. ``remaining`` is what is left, in the unit of the energy; None for no limit.
    """
    space: Any = study.space
    waits = getattr(space, "waits", lambda params: False)
    known, _ = _prices(space, trials)
    begun = any(trial.state == TrialState.COMPLETE and waits(trial.params) for trial in trials)
    steps = callable(getattr(space, "further", None))
    most = max((work for _, _, work in known.values()), default=math.inf) if steps else math.inf

    def dear(params: Mapping[str, Any]) -> bool:
        if waits(params):
            return not begun or not _carried(study, known, params, remaining)
        found: FrozenPart | None = _asked(space, "frozen", params) if most < math.inf else None
        return found is not None and found.work > most

    return dear


def scheduled(search: OptunaStudy, study: Study, noise: float) -> Mapping[str, Any] | None:
    """Return the parameters of what no sampler begins by itself: more pixels, see `further`, or fine-tuning, see `following`; or None."""
    trials, left = search.get_trials(deepcopy=False), getattr(search.sampler, "remaining", None)
    return further(study, trials, left, noise=noise) or following(study, trials, left)


def further(study: Study, trials: Sequence[FrozenTrial], remaining: float | None, *, noise: float = 0.0) -> Mapping[str, Any] | None:
    """Return the parameters of the next head on features with more work than those before; None where that does not pay, or costs too much.

    The dearest features so far have been tried on a part of the images. Where they promise a gain on the next cheaper ones, by what was
    gained on as many images, the best of their heads gets all images; where it does so also there, it is tried on the next dearer ones. Few
    validation examples say little: ``noise`` is the standard error of what was gained (0: it is taken as it is), and the rest is what such
    steps gain elsewhere. A space with such steps has a method ``further(params, larger)``.
    """
    space: Any = study.space
    ask = getattr(space, "further", None)
    if ask is None or study.sampler != "freeze-thaw" or "train_energy" not in study.objectives:
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    tried = [(trial, found) for trial in trials if (found := _asked(space, "frozen", trial.params)) is not None]
    heads = [(one, part) for one, part in tried if one.state == TrialState.COMPLETE and ask(one.params, False) is not None]
    best: dict[tuple[float, float], FrozenTrial] = {}
    for trial, part in sorted(heads, key=lambda head: sign * head[0].values[0]):
        best[part.work, part.share] = trial
    works = sorted({work for work, _ in best})
    if len(heads) < max(HEADS, len(study.first)) or len(works) < 2:
        return None
    share = max((share for work, share in best if work == works[-1] and (works[-2], share) in best), default=None)
    if share is None:
        return None
    top, below = best[works[-1], share], best[works[-2], share]
    gained, weight = sign * (top.values[0] - below.values[0]), (SPREAD / noise) ** 2 if noise else math.inf
    if (gained if weight == math.inf else (GAIN + weight * gained) / (1.0 + weight)) <= WORTH:
        return None
    own = {name: value for name, value in top.params.items() if name != "epochs"}
    params: Mapping[str, Any] | None = ask(own, share == 1.0)
    wanted = None if params is None else _asked(space, "frozen", params)
    if params is None or wanted is None or any(part.features == wanted.features and part.share >= wanted.share for _, part in tried):
        return None
    known, _ = _prices(space, trials)
    new = wanted.share - known.get(wanted.features, (0.0, 0.0, 0.0))[0]
    joules = median(joules / work for _, joules, work in known.values()) * wanted.work * new if known else 0.0
    epochs = top.user_attrs.get(EPOCHS_REACHED, study.rungs[0])
    return {**params, "epochs": epochs} if remaining is None or joules <= LARGEST_STEP * remaining else None


def following(study: Study, trials: Sequence[FrozenTrial], remaining: float | None) -> Mapping[str, Any] | None:
    """Return the parameters of the first fine-tuning, which goes on from the best head; None while it has to wait, or has begun."""
    space: Any = study.space
    waits = study.sampler == "freeze-thaw" and callable(getattr(space, "waits", None))
    if not waits or any(space.waits(trial.params) for trial in trials):
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    heads = [trial for trial in trials if trial.state == TrialState.COMPLETE and space.going_on(trial.params) is not None]
    if len(heads) < max(HEADS, len(study.first)):
        return None
    best = max(heads, key=lambda trial: sign * trial.values[0])
    params: Mapping[str, Any] = space.going_on(best.params)
    return params if _carried(study, _prices(space, trials)[0], params, remaining) else None


def _carried(study: Study, known: Mapping[str, tuple[float, float, float]], params: Mapping[str, Any], remaining: float | None) -> bool:
    """Whether the first rung of a fine-tuning is a small part of what is left; not where nothing is known of its cost."""
    found: tuple[FrozenPart, float] | None = _asked(study.space, "tuning", params)
    if found is None or found[0].features not in known:
        return False
    joules = known[found[0].features][1] * found[0].share * found[1] * study.rungs[0]
    return remaining is None or "train_energy" not in study.objectives or joules <= LARGEST_SHARE * remaining


def _prices(space: Space, trials: Sequence[FrozenTrial]) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Return by features the largest share of the images that was paid, joules for all of them, and their work; and those of the inputs."""
    known: dict[str, tuple[float, float, float]] = {}
    inputs: list[float] = []
    for trial in trials:
        joules = trial.user_attrs.get(ATTRIBUTE, {}).get("features_joules") if trial.state == TrialState.COMPLETE else None
        found: FrozenPart | None = _asked(space, "frozen", trial.params) if joules else None
        if joules and found is None:
            inputs.append(joules)
        elif joules and found is not None and found.share > known.get(found.features, (0.0, 0.0, 0.0))[0]:
            known[found.features] = found.share, joules / found.share, found.work
    return known, min(inputs, default=0.0)


def _asked(space: Space, what: str, params: Mapping[str, Any]) -> Any:
    """Return what a method of a space says of the candidate with these parameters; None while some of them are not drawn yet."""
    ask = getattr(space, what, None)
    try:
        return None if ask is None else ask(space.sample(FixedTrial(params)))
    except ValueError:
        return None
