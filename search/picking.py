"""From a rule in the user's words to one trial of a front."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .front import Front
    from .records.trial import Trial

JOULES = {"J": 1.0, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6}
RULES = "knee, best, cheapest, trial=N, accuracy>=0.95 (cheapest that reaches it), energy<=5Wh (most accurate within it)"

_RULE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=|>=|<=)\s*([-+0-9.eE]+?)\s*([A-Za-z%]*)\s*")


#: Qualities whose best value is 1; what is left to 1 is an error, and errors are compared by their ratio.
FRACTIONS = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "r2")

#: Keeps a model without any error at a finite place.
SMALLEST_ERROR = 0.005


def stretch(name: str, value: float) -> float:
    """Place a quality so that equal steps are equal ratios of the error, more is better: ``-log10(1 - value + 0.005)``.

    On a plain axis the step from 10 % to 60 % accuracy would hide the one from 95 % to 99 %. A quality that has no known best value
    stays as it is.

    >>> round(stretch("accuracy", 0.995), 6), round(stretch("error", 0.005), 6), stretch("likelihood", 3.0)
    (2.0, 2.0, 3.0)
    """
    if name in FRACTIONS:
        return -log10(max(1.0 - value, 0.0) + SMALLEST_ERROR)
    return -log10(max(value, 0.0) + SMALLEST_ERROR) if name == "error" else value


def knee_index(joules: Sequence[float], gains: Sequence[float]) -> int:
    """Return the point farthest above the chord from the cheapest point to the best one.

    Both axes are scaled to the extremes of the front, energy in logarithms, so the answer does not depend on units. Points within 1e-9
    of the maximum count as equal, and the cheapest of them is taken. When no point lies above the chord (one or two points, a straight or
    hollow front) there is no knee, and the point with the greatest gain is returned.

    Args:
        joules: Energy of each point, > 0.
        gains: Quality of each point, more is better; `Front.knee` passes ``stretch``-ed ones.

    Source:
        Distance to the line through the extremes: Das 1999, "On characterizing the knee of the Pareto curve based on
        normal-boundary intersection", Structural Optimization 18, in two dimensions.
    """
    order = sorted(range(len(joules)), key=lambda i: (joules[i], -gains[i]))
    cheapest, best = order[0], max(order, key=lambda i: (gains[i], -joules[i]))
    width, height = log10(joules[best]) - log10(joules[cheapest]), gains[best] - gains[cheapest]
    if width <= 0 or height <= 0:
        return best

    def above(i: int) -> float:
        return (gains[i] - gains[cheapest]) / height - (log10(joules[i]) - log10(joules[cheapest])) / width

    greatest = max(above(i) for i in order)
    return best if greatest <= 1e-9 else next(i for i in order if above(i) >= greatest - 1e-9)


def pick(front: Front, rule: str) -> Trial:
    """Return the trial that a rule names.

    Args:
        front: Where to pick. ``trial=N`` may name any complete trial of the run, the other rules choose among the members.
        rule: ``knee``, ``best``, ``cheapest``, ``trial=N``, ``QUALITY>=X`` (``<=`` for an error) or ``energy<=5Wh``.

    Raises:
        ValueError: If the rule cannot be read or no trial meets it; the message names the nearest trial that does.
    """
    simple = {"knee": front.knee, "best": front.best, "cheapest": front.cheapest}
    if rule.strip() in simple:
        return simple[rule.strip()]()
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValueError(f"--pick {rule!r} is no rule; write one of {RULES}")
    name, sign, text, unit = match.groups()
    try:
        bound = float(text)
    except ValueError:
        raise ValueError(f"--pick {rule!r}: {text!r} is no number; write one of {RULES}") from None
    if name == "trial":
        return _by_number(front, rule, sign, bound, unit)
    if name == "energy":
        return _by_energy(front, rule, sign, bound, unit)
    return _by_quality(front, rule, name, sign, bound, unit)


def _by_number(front: Front, rule: str, sign: str, bound: float, unit: str) -> Trial:
    if sign != "=" or unit or bound != int(bound):
        raise ValueError(f"--pick {rule!r}: a trial is named by its number, for example trial=12")
    number = int(bound)
    complete = [trial for trial in front.trials if trial.state == "complete"]
    for trial in complete:
        if trial.number == number:
            return trial
    said = next((f"is {t.state}" + (f" ({t.reason})" if t.reason else "") for t in front.trials if t.number == number), "does not exist")
    if not complete:
        raise ValueError(f"--pick {rule!r}: trial {number} {said}, and no trial of this run is complete")
    members = list(front) or complete
    near = min(members, key=lambda trial: abs(trial.number - number))
    raise ValueError(f"--pick {rule!r}: trial {number} {said}; on the front the nearest is trial={near.number} ({front.describe(near)})")


def _by_energy(front: Front, rule: str, sign: str, bound: float, unit: str) -> Trial:
    if unit not in JOULES:
        said = f"unknown unit {unit!r}" if unit else "no unit"
        raise ValueError(f"--pick {rule!r} has {said}; write one of {', '.join(JOULES)}, for example energy<={bound:g}Wh")
    if sign != "<=":
        raise ValueError(f"--pick {rule!r}: energy is bounded from above; write energy<={bound:g}{unit}")
    inside = [trial for trial in front.members if front.joules(trial) <= bound * JOULES[unit]]
    if inside:
        return max(inside, key=lambda trial: (front.gain(trial), -front.joules(trial)))
    near = front.cheapest()
    raise ValueError(
        f"--pick {rule!r}: no trial of the front needs so little; the nearest is trial={near.number} ({front.describe(near)}). "
        f"Try energy<={_up(front.joules(near) / JOULES[unit])}{unit}, or --pick cheapest"
    )


def _by_quality(front: Front, rule: str, name: str, sign: str, bound: float, unit: str) -> Trial:
    members = front.members
    values = {trial.number: value for trial in members if (value := front.quality_of(trial, name)) is not None}
    if not members:
        front.cheapest()  # says why the front is empty
    if not values:
        known = sorted({front.objectives[0], *(key for trial in members for key in trial.quality)})
        raise ValueError(f"--pick {rule!r}: {name!r} was not measured in this run (known: {', '.join(known)}); write one of {RULES}")
    down = name in ("error", "loss") or (name == front.objectives[0] and front.directions[0] == "minimize")
    wanted = "<=" if down else ">="
    if unit or sign != wanted:
        shown = f"{bound / 100:g}" if unit == "%" else f"{bound:g}"
        raise ValueError(
            f"--pick {rule!r}: {name} is bounded from {'above' if down else 'below'}, without a unit; write {name}{wanted}{shown}"
        )
    measured = [trial for trial in members if trial.number in values]
    reached = [trial for trial in measured if (values[trial.number] <= bound if down else values[trial.number] >= bound)]
    if reached:
        return min(reached, key=lambda trial: (front.joules(trial), -front.gain(trial)))
    near = min(measured, key=lambda trial: ((values[trial.number] if down else -values[trial.number]), front.joules(trial)))
    hint = f" ({name} is a fraction: 0.95, not 95)" if not down and 1.0 < bound <= 100.0 and name != "r2" else ""
    raise ValueError(
        f"--pick {rule!r}: no trial of the front reaches it{hint}; "
        f"the nearest is trial={near.number} with {name} {values[near.number]:.4f} ({front.describe(near)})"
    )


def _up(value: float) -> str:
    """Three significant digits of a positive number, rounded up so that the bound lets it through."""
    step = 10.0 ** (floor(log10(value)) - 2)
    return f"{ceil(value / step) * step:.3g}"
