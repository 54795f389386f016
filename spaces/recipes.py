"""Which trainings a space allows: every field of ``Recipe`` as a range, a choice or a fixed value, tactics included."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar, get_type_hints

from ..search.argument_types import refuse_wrong_types
from ..search.space import Candidate, Space, Suggest
from ..search.training.recipe import Recipe
from ..search.training.tactics.tactic import make_tactics

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; neighbours are a ``step`` apart, None for every value."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the bounds are in the wrong order, or do not fit the scale."""
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"a range needs low <= high, both finite, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"a logarithmic range needs low > 0, got {self.low}; use log=False or a larger low")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"the step of a range must be > 0, got {self.step}; give another, or leave it out")
        if self.log and self.step is not None:
            raise ValueError(f"a range is either logarithmic or has a step, got log=True and step={self.step}")


#: A number field: a fixed number, ``(low, high)`` for a range, a tuple of any other length for choices, or a ``Range``.
Ints: TypeAlias = int | tuple[int, ...] | Range
Floats: TypeAlias = float | tuple[float, ...] | Range
#: Any other field: a fixed value, or a tuple of choices (also when there are two of them).
Options: TypeAlias = T | tuple[T, ...]
#: ``True`` for the default ranges, ``False`` for off, or settings that replace some of the default ranges.
Use: TypeAlias = bool | Mapping[str, Any]


def suggest_int(trial: Suggest, name: str, what: Ints, *, log: bool = False) -> int:
    """Draw a whole number from the field of a space, see ``Ints``; ``log`` is the scale of a plain ``(low, high)``."""
    what = _pair(what, log=log)
    if not isinstance(what, Range):
        return int(suggest_categorical(trial, name, what))
    if what.low == what.high:
        return int(what.low)
    return trial.suggest_int(name, int(what.low), int(what.high), step=int(what.step or 1), log=what.log)


def suggest_float(trial: Suggest, name: str, what: Floats, *, log: bool = False) -> float:
    """Draw a number; see ``suggest_int`` for the arguments."""
    what = _pair(what, log=log)
    if not isinstance(what, Range):
        return float(suggest_categorical(trial, name, what))
    if what.low == what.high:
        return float(what.low)
    return trial.suggest_float(name, float(what.low), float(what.high), step=what.step, log=what.log)


def suggest_categorical(trial: Suggest, name: str, what: Any) -> Any:
    """Draw one of the choices of a tuple, ValueError if it is empty; anything else is fixed and no parameter of the search."""
    if not isinstance(what, tuple):
        return what
    if not what:
        raise ValueError(f"{name} needs at least one choice, got an empty tuple")
    return what[0] if len(what) == 1 else trial.suggest_categorical(name, what)


def _pair(what: Any, *, log: bool = False) -> Any:
    return Range(what[0], what[1], log=log) if isinstance(what, tuple) and len(what) == 2 else what


def ends_of(what: Any) -> tuple[Any, ...]:
    """Return what decides whether all values of a field are allowed: the ends of a range, after a step too; choices; or the fixed value."""
    if isinstance(what, Range):
        return (what.low, what.high) if what.step is None else (what.low, what.high, min(what.low + what.step, what.high))
    return what if isinstance(what, tuple) else (what,)


class Domain(NamedTuple):
    """What every value of a field must be, in words and as a test; of a pair of ``choices`` both are values, no ends of a range."""

    rule: str
    test: Callable[[Any], bool]
    choices: bool = False

    def check(self, name: str, what: Any) -> None:
        """Raise ValueError for a range, choices or a value that leave the domain; the message has the name and the rule."""
        values = (what,) if self.choices and isinstance(what, Range) else ends_of(what if self.choices else _pair(what))
        for value in values or (what,):
            held = False
            with suppress(TypeError):  # of a text, None and the like
                held = not isinstance(value, bool) and self.test(value)
            if not held:
                remedy = f"write {tuple(value)}" if isinstance(value, list) else "correct it, or leave it out for the usual ones"
                raise ValueError(f"{name} must be {self.rule}, got {value!r}; {remedy}")


def words(*allowed: Any, units: bool = False) -> Domain:
    """Return the domain of some words, and of ``units``: the widths of hidden layers, joined by dashes."""
    rule = f"one of {', '.join(map(str, allowed))}" + (", or units such as 256-64" if units else "")
    return Domain(rule, lambda word: word in allowed or (units and bool(re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", word))), choices=True)


#: Numbers of layers and the like, from 0 or 1; choices of such; shares without all, without nothing; above 0; one number; caps, or None.
Naturals: TypeAlias = Annotated[Ints, Domain("a whole number >= 0", lambda n: 0 <= n == n // 1)]
Counts: TypeAlias = Annotated[Ints, Domain("a whole number >= 1", lambda n: 1 <= n == n // 1)]
_ONE = Domain("a whole number >= 1", lambda n: 1 <= n == n // 1, choices=True)
Sizes: TypeAlias = Annotated[Options[int], _ONE]
Drops: TypeAlias = Annotated[Floats, Domain("a number >= 0 and < 1", lambda share: 0 <= share < 1)]
Parts: TypeAlias = Annotated[Floats, Domain("a number > 0 and <= 1", lambda share: 0 < share <= 1)]
Rates: TypeAlias = Annotated[Floats, Domain("a number > 0", lambda rate: 0 < rate < math.inf)]
Count: TypeAlias = Annotated[int, _ONE]
Caps: TypeAlias = Annotated[Options[int | None], Domain("a whole number >= 1 or None", lambda n: n is None or 1 <= n == n // 1, True)]


_NUMBERS = ("batch_size", "learning_rate", "weight_decay", "momentum", "label_smoothing", "head_learning_rate")
_LOG = frozenset({"learning_rate", "weight_decay", "batch_size", "head_learning_rate"})
#: The recipe that somebody takes who does not search: PyTorch's own rate and weight decay of AdamW.
ORDINARY: Mapping[str, Any] = {"learning_rate": 1e-3, "weight_decay": 1e-2, "batch_size": 64, "augment": "none", "precision": "float32"}
#: Prefix of every parameter of a tactic.
TACTIC = "tactic."
#: Ranges that are worth searching; further settings of a tactic keep their defaults.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # keep 0.2 interleaved is the setting of the paper (arXiv 2408.12561)
    "sparse_backprop": {"keep": Range(0.2, 0.8), "schedule": ("interleave", "constant")},
    # below 1e-3 the penalty is lost in the noise of the loss, above 1 it is all of the loss
    "activation_sparsity": {"weight": Range(1e-3, 1.0, log=True)},
    "freeze": {"share": Range(0.25, 1.0), "from_epoch": (1, 2, 4)},
    "progressive_resizing": {"start": Range(0.5, 0.9), "ramp_epochs": (2, 4, 8)},
}


@dataclass(frozen=True)
class RecipeRanges:
    """The open fields of a ``Recipe``; the parameters of the search have the names of the fields.

    Number fields (learning rates, weight decay, momentum, batch size, label smoothing) read ``(low, high)`` as a range, logarithmic
    except for momentum and label smoothing; in all other fields, and in the settings of tactics, a tuple lists choices.

    The momentum is a parameter only of trials with SGD. A tactic is switched by the parameter ``tactic.<name>`` unless its setting ``on``
    is ``True``; its settings, each a range, choice or fixed value, are named ``tactic.<name>.<setting>``. The prefix keeps them apart from
    parameters of the architecture: the zoos have a ``freeze`` of their own.
    """

    optimizer: Options[str] = "adamw"
    learning_rate: Floats = (3e-4, 3e-2)
    weight_decay: Floats = (1e-4, 1e-1)
    momentum: Floats = 0.9
    batch_size: Ints = (32, 256)
    schedule: Options[str] = "anytime"
    averaging: Options[bool] = True
    resolution: Options[int | None] = None
    augment: Options[str] = "none"
    label_smoothing: Floats = 0.0
    precision: Options[str] = "float32"
    accumulation: Options[int] = 1
    channels_last: Options[bool] = False
    compile: Options[bool] = False
    graph: Options[bool] = False
    threads: Options[int | None] = None
    head_learning_rate: Floats | None = None
    patience: Options[int | None] = None
    tactics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError where an end of a range, or a choice, is none that ``Recipe`` allows."""
        for name in self.__dataclass_fields__.keys() - {"tactics"}:
            what, usual = getattr(self, name), self.__dataclass_fields__[name].default
            remedy = f"write {tuple(what)}" if isinstance(what, list) else f"leave it out for {usual!r}"
            for value in ends_of(_pair(what, log=name in _LOG) if name in _NUMBERS else what):
                refuse_wrong_types(Recipe, {name: value}, "recipe.", **{name: remedy})
                Recipe(**{name: value})

    def sample(self, trial: Suggest) -> Recipe:
        """Draw a recipe."""
        values: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            what = getattr(self, name)
            if name == "tactics":
                values[name] = {key: drawn for key, settings in what.items() if (drawn := _tactic(trial, key, settings)) is not None}
            elif name == "momentum" and values["optimizer"] != "sgd":
                continue
            elif name in _NUMBERS and what is not None:
                values[name] = (suggest_int if name == "batch_size" else suggest_float)(trial, name, what, log=name in _LOG)
            else:
                values[name] = suggest_categorical(trial, name, what)
        return Recipe(**values)


def _tactic(trial: Suggest, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if not suggest_categorical(trial, TACTIC + name, settings.get("on", (False, True))):
        return None
    drawn: dict[str, Any] = {}
    for key, what in settings.items():
        whole = isinstance(what, Range) and isinstance(what.low, int) and isinstance(what.high, int)
        draw: Any = suggest_int if whole else suggest_float if isinstance(what, Range) else suggest_categorical
        drawn |= {} if key == "on" else {key: draw(trial, f"{TACTIC}{name}.{key}", what)}
    return drawn


@dataclass(frozen=True)
class TacticRanges:
    """The tactics that a study searches; all are off unless named.

    Each tactic that is on here becomes a switch of the search, ``tactic.<name>``, and its settings become parameters
    ``tactic.<name>.<setting>`` of those trials in which the switch is on::

        Convnet(recipe=RecipeRanges(tactics=TacticRanges(sparse_backprop=True, freeze={"share": (0.5, 1.0)}).settings()))

    With ``always`` the tactics are used in every trial, so that only their settings are searched. Progressive resizing needs models that
    take any image size. Of ``power_limits_watts`` each competes with the others and with the GPU's own limit.
    """

    sparse_backprop: Use = False
    activation_sparsity: Use = False
    freeze: Use = False
    progressive_resizing: Use = False
    power_limits_watts: tuple[float, ...] = ()
    always: bool = False

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the ranges by tactic, for ``RecipeRanges.tactics``; a setting that a tactic does not have or take raises ValueError."""
        uses: dict[str, Any] = {name: getattr(self, name) for name in DEFAULTS}
        found = {name: {**DEFAULTS[name], **({} if use is True else use)} for name, use in uses.items() if use is not False}
        if self.power_limits_watts:
            found["power_limit"] = {"watts": tuple(self.power_limits_watts)}
        for name, given in found.items():
            for key, value in ((key, value) for key, what in given.items() for value in ends_of(what)):
                make_tactics({name: {key: value}})
        return {name: {"on": True, **settings} for name, settings in found.items()} if self.always else found


class Bounded(Space):
    """What a family is whose annotations have a `Domain`."""

    def __post_init__(self) -> None:
        """Raise ValueError where a field leaves its domain."""
        hints: dict[str, Any] = {}
        with suppress(NameError):  # an annotation that cannot be read at run time
            hints = get_type_hints(type(self), include_extras=True)
        for name, domain in ((name, one) for name, hint in hints.items() for one in getattr(hint, "__metadata__", ())):
            if isinstance(domain, Domain):
                domain.check(f"{type(self).__name__}.{name}", getattr(self, name))


class Family(Bounded):
    """What the families of networks share: an architecture is drawn first, then its training, from ``recipe``."""

    recipe: RecipeRanges
    name: str

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings that ``build`` needs."""
        raise NotImplementedError

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a model and its training; a range of the family that cannot be drawn from raises ValueError."""
        return Candidate({"family": self.name, **self.architecture(trial)}, self.recipe.sample(trial))

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters that an expert begins with, an ``epochs`` among them where a few are enough; empty where there are none."""
        return {}


def parts_of(candidate: Candidate) -> dict[str, Any]:
    """Return what ``Family.architecture`` drew, without the name of the family."""
    return {key: value for key, value in candidate.architecture.items() if key != "family"}


#: A training without any parameter of the search.
FIXED = RecipeRanges(learning_rate=1e-3, weight_decay=0.0, batch_size=128)
