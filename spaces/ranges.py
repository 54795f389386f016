"""What a study may leave open: a range, a tuple of choices or a fixed value, and how a trial draws from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ..search.space import Suggest

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether equal ratios are equally likely.
        step: Distance of neighbouring values, or None for every value.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        """Refuse a range that nothing can be drawn from.

        Raises:
            ValueError: If the ends are the wrong way round, or the scale does not fit them.
        """
        if not self.low <= self.high:
            raise ValueError(f"a range needs low <= high, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"a logarithmic range needs low > 0, got {self.low}; use log=False or a larger low")
        if self.log and self.step is not None:
            raise ValueError(f"a range is either logarithmic or has a step, got log=True and step={self.step}")


#: A number field: a fixed number, ``(low, high)`` for a range, a tuple of any other length for choices, or a ``Range``.
Ints: TypeAlias = int | tuple[int, ...] | Range
Floats: TypeAlias = float | tuple[float, ...] | Range
#: Any other field: a fixed value, or a tuple of choices (also when there are two of them).
Options: TypeAlias = T | tuple[T, ...]


def whole(trial: Suggest, name: str, what: Ints, *, log: bool = False) -> int:
    """Draw a whole number.

    Args:
        trial: Where the value comes from.
        name: Name of the parameter.
        what: The field of a space, see ``Ints``.
        log: Scale of a plain ``(low, high)``.

    Raises:
        ValueError: If a bound is not a whole number.
    """
    what = _pair(what, log=log)
    if not isinstance(what, Range):
        return int(one_of(trial, name, what))
    step = 1 if what.step is None else what.step
    if any(value != int(value) for value in (what.low, what.high, step)):
        raise ValueError(f"{name} needs whole numbers, got {what}")
    if what.low == what.high:
        return int(what.low)
    return trial.suggest_int(name, int(what.low), int(what.high), step=int(step), log=what.log)


def number(trial: Suggest, name: str, what: Floats, *, log: bool = False) -> float:
    """Draw a number; see ``whole`` for the arguments."""
    what = _pair(what, log=log)
    if not isinstance(what, Range):
        return float(one_of(trial, name, what))
    if what.low == what.high:
        return float(what.low)
    return trial.suggest_float(name, float(what.low), float(what.high), step=what.step, log=what.log)


def one_of(trial: Suggest, name: str, what: Any) -> Any:
    """Draw one of the choices of a tuple; anything else is fixed and no parameter of the search.

    Raises:
        ValueError: If the tuple is empty.
    """
    if not isinstance(what, tuple):
        return what
    if not what:
        raise ValueError(f"{name} needs at least one choice, got an empty tuple")
    return what[0] if len(what) == 1 else trial.suggest_categorical(name, what)


def _pair(what: Any, *, log: bool) -> Any:
    """Read a plain ``(low, high)`` as a range."""
    return Range(what[0], what[1], log=log) if isinstance(what, tuple) and len(what) == 2 else what
