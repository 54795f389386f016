"""The seam to the families of candidates: a space samples candidates from a trial and builds their models.

Beside Optuna's trials two others answer ``suggest_*``: `RandomTrial` draws without a sampler (warming up, estimates), `FixedTrial` replays
stored parameters. `Sizes` counts parameters and FLOPs of a candidate before anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from math import isclose, isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .argument_types import plain_values
from .formatting import own_place
from .training.recipe import Recipe
from .training.task import Task

Number = TypeVar("Number", int, float)
#: Random candidates that show whether a space can be searched; enough to meet the rarer of nested choices.
CHECKED = 60


def canonical(space: Space, params: Mapping[str, Any]) -> str:
    """Return the canonical text of a candidate; while conditional parameters are missing, that of the parameters themselves."""
    try:
        return space.key(space.sample(FixedTrial(params)))
    except ValueError:
        return json.dumps(dict(params), sort_keys=True, default=str)


class FrozenPart(NamedTuple):
    """What a candidate with a frozen backbone needs of it: trials pay it once for all that need the same.

    Attributes:
        features: Name of the features, equal for candidates that share them.
        share: Of the training images that they are needed of; those of the validation images are needed as well.
        work: What an image takes, in a unit of the family's own, by which features that nobody has computed yet are compared with others.
    """

    features: str
    share: float
    work: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """One architecture and the way to train it; all of it is JSON.

    Attributes:
        architecture: What ``Space.build`` needs, e.g. ``{"family": "convnet", "width": 16, "depth": 3}``.
        recipe: How it is trained.
    """

    architecture: Mapping[str, Any]
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary that ``from_json`` reads back."""
        return {"architecture": dict(self.architecture), "recipe": self.recipe.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Read what ``to_json`` wrote."""
        return cls(dict(data["architecture"]), Recipe.from_json(data["recipe"]))

    @property
    def key(self) -> str:
        """Text that is equal for equal candidates, whatever the order of their keys."""
        return json.dumps(self.to_json(), sort_keys=True)


class Suggest(Protocol):
    """The part of ``optuna.Trial`` that a space may use."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Suggest a number in ``[low, high]``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest a whole number in ``[low, high]``."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of the choices (None, bool, int, float or str)."""


class Space(Protocol):
    """One family of candidates; what it may say beside these four members is in ``hints.py``.

    A model is a ``torch.nn.Module`` whose ``forward`` takes ``(b, *task.input_shape)`` (at the recipe's resolution) and gives
    ``(b, task.outputs)``, or an ``Estimator`` around a scikit-learn model (``search/training/estimator.py``).
    """

    @property
    def name(self) -> str:
        """Short name of the family."""

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate; called with stored parameters it must give the same candidate again."""

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model; weights are drawn from torch's global generator, which the caller seeds."""

    def key(self, candidate: Candidate) -> str:
        """Canonical text of the candidate: equal for candidates that are the same model trained in the same way.

        A subclass inherits that of all of its settings.
        """
        return candidate.key


class RandomTrial:
    """Answers ``suggest_*`` uniformly at random (log-uniformly with ``log``) and remembers its answers.

    ``params`` are those so far, as Optuna would store them. A subclass may draw otherwise, and take note of what is asked.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Draw a number in ``[low, high]``."""
        self._range(name, low, high, step, log, whole=False)
        if name not in self.params:
            self.params[name] = min(max(self._float(name, low, high, step, log), low), high)
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw a whole number in ``[low, high]``."""
        self._range(name, low, high, None if step == 1 else step, log, whole=True)
        if name not in self.params:
            self.params[name] = min(max(self._int(name, low, high, step, log), low), low + (high - low) // step * step)
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of the choices."""
        self._choices(name, choices)
        if name not in self.params:
            self.params[name] = self._choice(name, choices)
        return self.params[name]

    def _range(self, name: str, low: float, high: float, step: float | None, log: bool, *, whole: bool) -> None:
        """Take note of the range that a parameter is drawn from; a step of None is the smallest."""

    def _choices(self, name: str, choices: Sequence[Any]) -> None:
        """Take note of the choices that a parameter is drawn from."""

    def _float(self, name: str, low: float, high: float, step: float | None, log: bool) -> float:
        if step is not None:
            return low + step * int(self._random.integers(int((high - low) / step + 1e-9) + 1))
        return float(np.exp(self._random.uniform(np.log(low), np.log(high)))) if log else float(self._random.uniform(low, high))

    def _int(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        if log:
            return round(float(np.exp(self._random.uniform(np.log(low - 0.499), np.log(high + 0.499)))))
        return low + step * int(self._random.integers((high - low) // step + 1))

    def _choice(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self._random.integers(len(choices)))]


class NearestTrial(RandomTrial):
    """Answers ``suggest_*`` with the wanted values, as near as the ranges allow; the rest gets the middle or the first choice.

    >>> trial = NearestTrial({"width": 100})
    >>> trial.suggest_int("width", 8, 64), trial.suggest_categorical("norm", ("batch", "none"))
    (64, 'batch')
    """

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        super().__init__(0)
        self._wanted = wanted

    def _float(self, name: str, low: float, high: float, step: float | None, log: bool) -> float:
        middle, wanted = (low * high) ** 0.5 if log and low > 0 else (low + high) / 2, self._wanted.get(name)
        value = float(wanted) if isinstance(wanted, Real) and isfinite(wanted) else middle
        return value if step is None else low + step * round((value - low) / step)

    def _int(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        return round(self._float(name, low, high, step, log))

    def _choice(self, name: str, choices: Sequence[Any]) -> Any:
        wanted = self._wanted.get(name)
        if name in self._wanted and wanted in choices:
            return wanted
        numbers = [one for one in choices if isinstance(one, int | float) and not isinstance(one, bool)]
        if numbers and len(numbers) == len(choices) and isinstance(wanted, int | float):
            return min(numbers, key=lambda one: abs(one - wanted))
        return choices[0]


class SpaceError(ValueError):
    """A space draws what would break a search or mislead it."""


class _Checked(RandomTrial):
    """Refuses what no storage keeps, the study's own name, and one name for two ranges, of which only the first would count."""

    def __init__(self, seed: int, *, finite: bool) -> None:
        super().__init__(seed)
        self._finite = finite
        self._drawn: dict[str, Any] = {}

    def _require(self, name: str, what: Any) -> None:
        if name == "epochs":
            raise SpaceError("the parameter 'epochs' of the space has the name of the study's own, the length of a training; rename it")
        if self._drawn.setdefault(name, what) != what:
            own = "which is a field of the recipe" if name in Recipe.__dataclass_fields__ else "both in one candidate"
            raise SpaceError(f"the space draws the parameter {name!r} from {self._drawn[name]} and from {what}, {own}; rename one of them")

    def _choices(self, name: str, choices: Sequence[Any]) -> None:
        self._require(name, plain_choices(name, choices))

    def _range(self, name: str, low: float, high: float, step: float | None, log: bool, *, whole: bool) -> None:
        if self._finite and step is None and not whole:
            raise SpaceError(f"--sampler grid needs choices or steps, got a continuous range for {name}; use --sampler random")
        self._require(name, (low, high, step, log))
        if not (np.isfinite([low, high]).all() and low <= high):
            raise SpaceError(f"the bounds of {name!r} must be two numbers, the lower first, got {low} and {high}; correct them")
        if step is not None and not step > 0:
            raise SpaceError(f"the step of {name!r} must be > 0, got {step}; give another, or leave it out")
        if log and (low <= 0 or step is not None):
            got = f"a lower bound of {low}" if low <= 0 else f"a step of {step}"
            said = f"the parameter {name!r} with log must have a lower bound > 0 and no step, got {got}"
            raise SpaceError(f"{said}; correct it or leave out log")


def plain_choices(name: str, choices: Sequence[Any]) -> tuple[Any, ...]:
    """Return choices as a storage keeps them: None, truth values, numbers (of NumPy, too) and texts.

    Raises:
        SpaceError: If there are none, two are equal, or one is something else, as a tuple or an array is.
    """
    if isinstance(choices, str | Set) or not hasattr(choices, "__iter__"):
        raise SpaceError(f"the choices of {name!r} must be a list, got {choices!r}; write them in [] in an order that stays")
    plain = tuple(map(plain_values, choices))
    if not plain:
        raise SpaceError(f"the parameter {name!r} needs at least one choice, got none")
    first: dict[Any, Any] = {}
    for choice in plain:
        if type(choice) not in (type(None), bool, int, float, str) or (isinstance(choice, float) and not isfinite(choice)):
            said = f"the choices of {name!r} must be None, bool, int, finite float or str, got the {type(choice).__name__} {choice!r}"
            raise SpaceError(f"{said}; choose by a text or a number and look the value up by it")
        if type(first.setdefault(choice, choice)) is not type(choice):
            raise SpaceError(f"the choices of {name!r} must differ, got {first[choice]!r} and {choice!r}, which are equal; leave one out")
    return plain


def check_space(space: Space, *, finite: bool = False) -> set[str]:
    """Draw some candidates before anything is paid for, and return the names of their parameters; a ``finite`` space is all choices.

    Raises:
        SpaceError: If the space draws what would break the search or mislead it, or never draws at all; other errors of a space belong to
            their candidates.
    """
    failed, names = 0, set[str]()
    for seed in range(CHECKED):
        try:
            drawn = space.sample(trial := _Checked(seed, finite=finite))
            again = space.sample(FixedTrial(trial.params))
        except SpaceError:
            raise
        except (Exception, SystemExit) as error:  # e.g. a candidate that cannot be: it is rejected when it is proposed
            failed += 1
            if failed == CHECKED:
                said = f"the space {space.name!r} must draw candidates, got {type(error).__name__}: {error}{own_place(error)} each time"
                raise SpaceError(f"{said}; correct what draws them") from error
            continue
        names |= trial.params.keys()
        if again != drawn:
            got = f"{drawn.architecture} and {again.architecture}"
            said = f"the space {space.name!r} must give one candidate for one set of parameters, got {got}"
            raise SpaceError(f"{said}; draw all that differs by trial.suggest_...")
    return names


def check_first(space: Space, first: Sequence[Mapping[str, Any]], known: Set[str]) -> None:
    """Check the parameters of the trials that a study begins with; what they leave out is drawn. ``known`` are names of the space.

    Raises:
        SpaceError: If one is none of the space's, or has a value that it never draws: it would be dropped, or trained beside the study.
    """
    for k, wanted in enumerate(first):
        candidate = space.sample(drawn := NearestTrial(wanted))
        fixed = {**vars(candidate.recipe), **candidate.architecture}
        for name, value in wanted.items():
            near = drawn.params.get(name, value)
            if name == "epochs" and not (isinstance(value, Integral) and int(value) >= 1):
                raise SpaceError(f"study.first[{k}].epochs must be a whole number >= 1, got {value!r}; correct it or leave it out")
            if near != value and not (isinstance(near, float) and isinstance(value, Real) and isclose(near, value)):
                raise SpaceError(f"study.first[{k}].{name} must be a value that the space draws, got {value!r}; the nearest is {near!r}")
            if name not in {*drawn.params, *known, "epochs"} and fixed.get(name.rpartition(".")[2], fixed) != value:
                meant = get_close_matches(name, {*drawn.params, *known}, 1) or [f"one of {', '.join(sorted(known))}"]
                raise SpaceError(f"study.first[{k}].{name} must be a parameter of the space, got an unknown name; write {meant[0]}")


@dataclass(frozen=True)
class FixedTrial:
    """Stored parameters, by name, that answer ``suggest_*`` in place of an Optuna trial.

    They may come from a folder of somebody else, so a choice must be one of the space's own: a space may import or open what it is called.
    Numbers name nothing and are taken as they are, also outside of the range: a range that was narrowed since must not lock old weights.
    """

    params: Mapping[str, Any]

    def _value(self, name: str) -> Any:
        if name not in self.params:
            raise ValueError(
                f"stored parameters have no {name!r}; the space has changed since the trial was made. Stored: {sorted(self.params)}"
            )
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Return the stored number."""
        return self._number(name, float, "a finite number")

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the stored whole number."""
        return self._number(name, int, "a whole number")

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the choice that is stored.

        Raises:
            ValueError: If it is none of the space's choices.
        """
        value = self._value(name)
        if value not in choices:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}; the space has changed since the trial was made"
            )
        return choices[list(choices).index(value)]

    def _number(self, name: str, kind: Callable[[Any], Number], rule: str) -> Number:
        value = self._value(name)
        if not isinstance(value, Real) or not isfinite(value) or kind(value) != value:
            raise ValueError(f"{name} must be {rule}, got {value!r}; the space has changed since the trial was made")
        return kind(value)


class Sizes:
    """Parameters and forward FLOPs of a candidate, as ``features`` of ``FreezeThawSampler``; the task gives the shapes.

    Counting builds the network without weights, which for large networks takes longer than deciding; every architecture is counted once.
    """

    def __init__(self, space: Space, task: Task) -> None:
        self._space, self._task = space, task
        self._known: dict[str, tuple[float, float]] = {}

    def __call__(self, params: Mapping[str, Any]) -> tuple[float, float]:
        """Return ``(parameters, FLOPs)``; zeros for what cannot be built or has no such size, e.g. a tree."""
        try:
            candidate = self._space.sample(FixedTrial(params))
        except ValueError:  # conditional parameters that are not all drawn yet
            return 0.0, 0.0
        # The resolution is the one part of a recipe that changes the FLOPs.
        name = json.dumps([candidate.architecture, candidate.recipe.resolution], sort_keys=True, default=str)
        if name not in self._known:
            self._known[name] = self._count(candidate)
        return self._known[name]

    def _count(self, candidate: Candidate) -> tuple[float, float]:
        from .training.cost import count

        try:
            cost = count(weightless(self._space, candidate, self._task), self._task, candidate.recipe)
        except (Exception, SystemExit):  # whatever a space raises for a candidate that it cannot build: it is rejected when it is proposed
            return 0.0, 0.0
        return float(cost.parameters or 0), float(cost.flops or 0)


def weightless(space: Space, candidate: Candidate, task: Task) -> Any:
    """Build the model without memory for its weights where it can be: a candidate that is too large must not fill the memory."""
    import torch

    try:
        with torch.device("meta"):
            return space.build(candidate, task)
    except (Exception, SystemExit):  # a user's model may compute with its weights while it is built
        return space.build(candidate, task)
