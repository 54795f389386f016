"""A Pareto front in numbers: its knee, and its hypervolume, the dominated share of a box that stays the same during a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

#: Qualities whose best value is 1; what is left to 1 is an error, and errors are compared by their ratio.
FRACTIONS = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "r2")
#: Qualities of which less is better.
LESS_IS_BETTER = ("error", "loss", "rmse", "mae")
#: Keeps a model without any error at a finite place.
SMALLEST_ERROR = 0.005
#: Objectives that a meter reads, and those that are compared by their ratio, not by their difference.
METERED = ("train_energy", "inference_energy")
LOGARITHMIC = (*METERED, "train_co2", "parameters")

#: Half-width of a logarithmic axis: three decades on each side of the first measured trial.
DECADES = 3.0


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

    Both axes are scaled to the extremes of the front, energy (> 0) in logarithms, so the answer does not depend on units. More gain is
    better; `Front.knee` passes ``stretch``-ed qualities. Points within 1e-9 of the maximum count as equal, and the cheapest of them is
    taken. When no point lies above the chord (one or two points, a straight or hollow front) there is no knee, and the point with the
    greatest gain is returned.

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


@dataclass(frozen=True)
class Axis:
    """One side of the box: an objective with the values that count as 0 and as 1.

    Attributes:
        worst: Value that scores 0; the reference point of the hypervolume has this coordinate.
        best: Value that scores 1.
        log: Whether scores are linear in the logarithm of the value.
    """

    name: str
    worst: float
    best: float
    log: bool = False

    def score(self, value: float) -> float:
        """Place a value between ``worst`` (0) and ``best`` (1); what lies outside is clipped.

        >>> Axis("train_energy", worst=1000.0, best=10.0, log=True).score(100.0)
        0.5
        """
        if self.log:
            if value <= 0:
                return 1.0 if self.best < self.worst else 0.0
            part = (log10(value) - log10(self.worst)) / (log10(self.best) - log10(self.worst))
        else:
            part = (value - self.worst) / (self.best - self.worst)
        return min(1.0, max(0.0, part))

    def to_text(self) -> str:
        """Describe where the axis begins and ends."""
        return f"{self.name} from {self.worst:.4g} (0) to {self.best:.4g} (1){', logarithmic' if self.log else ''}"


def make_box(
    objectives: Sequence[str], directions: Sequence[str], first: Sequence[float], *, quality_floor: float | None = None
) -> tuple[Axis, ...]:
    """Make the box of a run from facts that do not change while it runs, among them the values of the first measured trial.

    A quality that is maximised goes from ``quality_floor`` (0 by default), under which a model is of no use, to 1; one that is minimised,
    an error, from 1 to 0. Energy, carbon and parameters are logarithmic and reach ``DECADES`` on each side of the first measured trial, so
    that a factor of ten is worth one sixth of the axis whatever the unit. Because the box depends on the first trial alone, the hypervolume
    of a growing set of trials never falls.
    """
    axes = []
    for place, (name, direction, value) in enumerate(zip(objectives, directions, first, strict=True)):
        up = direction == "maximize"
        if name in LOGARITHMIC:
            middle, factor = max(value, 1e-12), 10.0**DECADES
            low, high = middle / factor, middle * factor
            axes.append(Axis(name, low, high, True) if up else Axis(name, high, low, True))
        elif up:
            floor = quality_floor if place == 0 and quality_floor is not None and quality_floor < 1.0 else 0.0
            axes.append(Axis(name, floor, 1.0))
        else:
            axes.append(Axis(name, 1.0, 0.0))
    return tuple(axes)


def normalised_hypervolume(values: Sequence[Sequence[float]], box: Sequence[Axis]) -> float:
    """Share of the box that is dominated by at least one of the points, ``(n, m)``, where the box has ``m`` axes.

    It is 0 when nothing is better than the reference point, and 1 when one point is best in everything.

    Source:
        Exact, by moocore: Fonseca, Paquete, Lopez-Ibanez 2006, "An improved dimension-sweep algorithm for the hypervolume
        indicator", IEEE CEC, and its successors.
    """
    import moocore

    scores = [[axis.score(value) for axis, value in zip(box, row, strict=True)] for row in values]
    return float(moocore.hypervolume(scores, ref=[0.0] * len(box), maximise=True)) if scores else 0.0
