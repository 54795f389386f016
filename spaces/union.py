"""Spaces of other spaces: several families that compete for the same front, or each candidate several times, to measure chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..search.hints import Hints, Wrapper
from ..search.space import Candidate, FrozenPart, Space, Suggest
from ..search.training.task import Task
from .recipes import TACTIC, RecipeRanges

#: The parameter that numbers the repeats.
REPEAT = "repeat"


def _some(hint: str) -> Any:
    """Return a property: whether a hint, see ``Hints``, is true of some member of a union."""
    return property(lambda union: any(getattr(Hints(member), hint) for member in union.spaces))


@dataclass(frozen=True, init=False)
class Union:
    """The candidates of all given spaces; the categorical parameter ``family`` picks one.

    Parameters of a member are named ``family.parameter``. Fields of the recipe that are equal in all members that have a recipe keep their
    plain names, so that what a sampler learns about the learning rate in one family applies to the others. A union among the members is
    replaced by its own.

    Raises:
        ValueError: If there are fewer than two members, or two have the same name.
    """

    spaces: tuple[Space, ...]
    name: str

    def __init__(self, *spaces: Space, name: str = "union") -> None:
        members = tuple(member for space in spaces for member in (space.spaces if isinstance(space, Union) else (space,)))
        if strange := [member for member in members if isinstance(member, type) or not hasattr(member, "name")]:
            raise ValueError(f"a union takes spaces, got {strange[0]!r}; for example Union(Mlp(), Convnet())")
        names = [member.name for member in members]
        if len(members) < 2:
            raise ValueError(f"a union needs at least two spaces, got {names}; use the space itself")
        if len(set(names)) != len(names):
            raise ValueError(f"the spaces of a union need different names, got {names}; give one of them a name=")
        object.__setattr__(self, "spaces", members)
        object.__setattr__(self, "name", name)

    @property
    def epochs_are_passes(self) -> bool:
        """Whether an epoch is a pass over the data in all members; they share their rungs."""
        return all(Hints(member).epochs_are_passes for member in self.spaces)

    steps, staged, shares_features = _some("steps"), _some("staged"), _some("shares_features")

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a family, then a candidate of it."""
        family = trial.suggest_categorical("family", tuple(member.name for member in self.spaces))
        return self._member(family).sample(Prefixed(trial, f"{family}.", self.shared()))

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model of the candidate's family."""
        return self._member(candidate.architecture["family"]).build(candidate, task)

    def check(self, task: Task) -> None:
        """Check the models of each member, see ``Hints.check``."""
        for member in self.spaces:
            Hints(member).check(task)

    def fitted_to(self, task: Task) -> Union:
        """Return the union of what each member is without the models that cannot take the data, see ``Hints.fitted_to``."""
        return Union(*(Hints(member).fitted_to(task) for member in self.spaces), name=self.name)

    def key(self, candidate: Candidate) -> str:
        """Return the canonical text of the candidate's family."""
        return self._member(candidate.architecture["family"]).key(candidate)

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        """Return the features that the candidate's family needs, see ``TransferFamily.frozen``; None where it needs none."""
        return Hints(self._member(candidate.architecture["family"])).frozen(candidate)

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary choice of the first member that has one; empty where none has."""
        for member in self.spaces:
            if wanted := Hints(member).defaults():
                return _named(member, wanted)
        return {}

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choices of all members, but for those that are begun only after another, see ``FineTuning``."""
        first = [member for member in self.spaces if Hints(member).after is None]
        return tuple(_named(member, wanted) for member in first for wanted in Hints(member).starts())

    def waits(self, params: Mapping[str, Any]) -> bool:
        """Whether parameters are of a family that is begun only after another, see ``FineTuning``."""
        return Hints(self._member(params["family"])).after is not None if "family" in params else False

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float] | None:
        """Return what the candidate's family says of fine-tuning, see ``FineTuning.tuning``; None where it does none."""
        return Hints(self._member(candidate.architecture["family"])).tuning(candidate)

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the parameters of a fine-tuning that goes on from a head with these parameters; None where there is none."""
        family, shared = params.get("family"), self.shared()
        follower = next((member for member in self.spaces if family is not None and Hints(member).after == family), None)
        drawn = None if follower is None else Hints(follower).going_on(_plain(params, family))
        if follower is None or drawn is None:
            return None
        return {"family": follower.name, **{name if name in shared else f"{follower.name}.{name}": drawn[name] for name in drawn}}

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return what the family of parameters says of a head on more images or pixels, see ``TransferFamily.further``."""
        return self._said(params, lambda hints, own: hints.further(own, larger))

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        """Return what the family of parameters says of fewer epochs, see ``Boosting.shortened``."""
        return self._said(params, lambda hints, own: hints.shortened(own, times)) or params

    def _said(
        self, params: Mapping[str, Any], ask: Callable[[Hints, Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> Mapping[str, Any] | None:
        """Return the parameters, or None, that the family of some says of its own, by the names of the union."""
        family, shared = params.get("family"), self.shared()
        member = next((one for one in self.spaces if one.name == family), None)
        drawn = None if member is None else ask(Hints(member), _plain(params, family))
        if drawn is None:
            return None
        return {name if name == "family" or name in shared else f"{family}.{name}": value for name, value in drawn.items()}

    def shared(self) -> frozenset[str]:
        """Return the names of the recipe parameters that mean the same in all members."""
        recipes = [recipe for member in self.spaces if isinstance(recipe := getattr(member, "recipe", None), RecipeRanges)]
        names = [item.name for item in fields(RecipeRanges)] if recipes else []
        equal = {name for name in names if all(getattr(recipe, name) == getattr(recipes[0], name) for recipe in recipes)}
        if "tactics" in equal:
            for tactic, settings in recipes[0].tactics.items():
                equal |= {TACTIC + tactic, *(f"{TACTIC}{tactic}.{key}" for key in settings)}
        return frozenset(equal)

    def _member(self, family: str) -> Space:
        for member in self.spaces:
            if member.name == family:
                return member
        known = ", ".join(member.name for member in self.spaces)
        raise ValueError(f"family must be one of {known}, got {family!r}; the study may have changed since the trial was made")


def _plain(params: Mapping[str, Any], family: str | None) -> Mapping[str, Any]:
    """Return parameters by the names that a family knows."""
    return {name.removeprefix(f"{family}."): value for name, value in params.items()}


def _named(member: Space, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a member by the names of the union, shared ones or not."""
    return {"family": member.name, **wanted, **{f"{member.name}.{name}": value for name, value in wanted.items()}}


@dataclass(frozen=True)
class Prefixed:
    """A trial whose parameters get a prefix, except the ``shared`` ones, which mean the same in all families."""

    trial: Suggest
    prefix: str
    shared: frozenset[str]

    @property
    def params(self) -> Mapping[str, Any]:
        """What the trial has drawn or stored, by the names that the family knows."""
        return {name.removeprefix(self.prefix): value for name, value in getattr(self.trial, "params", {}).items()}

    def _name(self, name: str) -> str:
        return name if name in self.shared else self.prefix + name

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Suggest under the full name."""
        return self.trial.suggest_float(self._name(name), low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest under the full name."""
        return self.trial.suggest_int(self._name(name), low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest under the full name."""
        return self.trial.suggest_categorical(self._name(name), choices)


@dataclass(frozen=True)
class Repeated(Wrapper):
    """Adds the parameter ``repeat``, which changes nothing but the seed of a training.

    With ``sampler="grid"`` each candidate is trained ``times`` times. To a sampler that learns, it is a parameter without effect.
    """

    times: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError if ``times`` is less than 1, or there is no space."""
        if not hasattr(self.space, "sample"):
            raise ValueError(f"repeated.space must be a space, got {self.space!r}; for example Repeated(Mlp(), times=5)")
        if self.times < 1:
            raise ValueError(f"repeated.times must be >= 1, got {self.times}; 1 trains every candidate once")

    def inner(self, candidate: Candidate) -> Candidate:
        """Return the candidate without its number."""
        return replace(candidate, architecture={name: value for name, value in candidate.architecture.items() if name != REPEAT})

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate and the number of its repeat."""
        candidate = self.space.sample(trial)
        return replace(candidate, architecture={**candidate.architecture, REPEAT: trial.suggest_int(REPEAT, 1, self.times)})

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary choice of the space that is repeated, the first time; empty where it has none."""
        return _first(Hints(self.space).defaults())

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choices of its families, the first time."""
        return tuple(map(_first, Hints(self.space).starts()))

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what goes on from the candidate inside, the first time."""
        return _first(Hints(self.space).going_on(_unnumbered(params)) or {}) or None

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return the next step of the candidate inside, the first time."""
        return _first(Hints(self.space).further(_unnumbered(params), larger) or {}) or None

    def key(self, candidate: Candidate) -> str:
        """Return canonical text; repeats differ in it, and so in the seed that is made of it."""
        return json.dumps({"candidate": super().key(candidate), REPEAT: candidate.architecture[REPEAT]}, sort_keys=True)


def _unnumbered(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in params.items() if name != REPEAT}


def _first(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**wanted, REPEAT: 1} if wanted else {}


if TYPE_CHECKING:
    _: Space = Union(Union())
