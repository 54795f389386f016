"""The normalised hypervolume of a front: the dominated share of a box that stays the same during a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

#: Objectives that a meter reads, and those that are compared by their ratio, not by their difference.
METERED = ("train_energy", "inference_energy")
LOGARITHMIC = (*METERED, "train_co2", "parameters")

#: Half-width of a logarithmic axis: three decades on each side of the first measured trial.
DECADES = 3.0


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
