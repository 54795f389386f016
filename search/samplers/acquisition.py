"""What a decision weighs: the state of a search, and the expected hypervolume improvement (EHVI) that a training adds to it per energy.

It is exact for independent marginals of any number of objectives, all to be maximised; of a training, and of a plan that may stop early:
"train to rung ``n``, measure, and continue to ``t`` only where that pays".

The region that no measured point dominates is cut into disjoint boxes; the volume that a point ``Y`` adds is the sum over boxes of the
product over objectives of ``min(Y, upper) - lower`` (where positive), and its expectation is a product of one-dimensional integrals.

Sources: Emmerich, Deutz and Klinkenberg 2011, "Hypervolume-based expected improvement: monotonicity properties and exact computation";
Yang et al. 2019, "Efficient computation of expected hypervolume improvement using box decomposition algorithms" (arXiv 1904.12672);
Dinkelbach 1967, "On nonlinear fractional programming", for the fixed point of a plan.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoding import Array, Encoder, ObservationTable
from .gaussian_process import Marginal
from .history import Belief, History
from .surrogates import Predictions, SurrogateModels

#: With four or more objectives the number of boxes grows with the cube of the front or faster: at most so many of its points are kept.
_MAX_FRONT_MANY_OBJECTIVES = 24

#: Added to every training, as a share of the cost of a median complete one: else negligible gains at negligible cost win forever.
COST_FLOOR = 0.05

#: Gauss-Hermite quadrature over the measurement at the stopping rung, and the steps of the fixed point.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FIXED_POINT_STEPS = 4


@dataclass(frozen=True)
class SearchSettings:
    """How a study is searched; see ``FreezeThawSampler``, whose ``min_accuracy`` is the ``quality_floor`` here."""

    rungs: tuple[int, ...]
    resume: bool
    minimized: tuple[bool, ...]
    complete_only: bool
    quality_floor: float | None
    startup: int
    ladders: int
    hedge: float


@dataclass(frozen=True)
class Boxes:
    """A partition of the region above the reference point that no point dominates into disjoint boxes.

    Their corners ``lower`` and ``upper`` are ``(k, d)``, the latter with infinities.
    """

    lower: Array
    upper: Array

    def expected_gain(self, marginals: list[Marginal]) -> Array:
        """Return the expected hypervolume improvement of ``n`` points, ``(n,)``, from one marginal per objective."""
        product: Array | None = None
        for (levels, low, high), marginal in zip(self._levels, marginals, strict=True):
            finite = np.isfinite(levels)
            improvement = marginal.expected_improvement(levels[finite])
            if not finite.all():
                improvement = np.hstack([improvement, np.zeros((len(improvement), 1))])  # nothing exceeds infinity
            length = improvement[:, low] - improvement[:, high]
            product = length if product is None else product * length
        assert product is not None
        return np.asarray(product.sum(1))

    @cached_property
    def _levels(self) -> list[tuple[Array, NDArray[np.int64], NDArray[np.int64]]]:
        """By axis the different coordinates of the corners, and which of them the boxes begin and end at."""
        found = []
        for low, high in zip(self.lower.T, self.upper.T, strict=True):
            levels, where = np.unique(np.r_[low, high], return_inverse=True)
            found.append((levels, where[: len(low)], where[len(low) :]))
        return found


@dataclass(frozen=True)
class SearchState:
    """The measurements of a study and the hypervolume that they span.

    The table was made of the history by the encoder. ``points`` are the measured and running ones that count, as objectives to be
    maximised, ``(n, k)``; the reference point is ``(k,)``, and ``boxes`` partition the region that no point dominates. ``median_cost`` is
    that of complete trainings, in the user's unit.
    """

    history: History
    encoder: Encoder
    table: ObservationTable
    points: Array
    reference: Array
    boxes: Boxes
    median_cost: float

    @property
    def hypervolume(self) -> float:
        """Volume that the points dominate, costs by their logarithm."""
        return dominated_volume(self.points, self.reference)


@dataclass(frozen=True)
class ScoredCandidates:
    """Trainings to choose from: a row per configuration, a column per rung.

    ``config`` is the index of the measured configuration in the table, -1 for a fresh one, ``(n,)``; ``genes`` are ``(n, size)``. ``gain``
    is the expected hypervolume improvement (EHVI), -inf where the training is not possible, ``cost`` the energy still to pay, ``step_cost``
    that of the first training of the plan, and ``rate`` the gain per energy, the acquisition value; all ``(n, r)``.
    """

    genes: Array
    config: NDArray[np.int64]
    gain: Array
    cost: Array
    step_cost: Array
    rate: Array

    @property
    def best(self) -> Array:
        """Best rate of each row, ``(n,)``."""
        return np.asarray(self.rate.max(1))

    def concatenate(self, other: ScoredCandidates) -> ScoredCandidates:
        """Return the rows of both."""
        return ScoredCandidates(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True)
class Decision:
    """The training to run next.

    ``params`` leave out the epochs; ``epochs`` are the total that it will have been trained for, ``parent`` the trial whose checkpoint is
    resumed. Gain and cost, in the user's unit, are those of the plan that it starts; ``step_cost`` is that of this training alone, and
    ``belief`` the quality that it is expected to have. They are None during the initial design, and without a model. ``arm`` is what has
    proposed it, see `proposals`.
    """

    params: Mapping[str, Any]
    key: str
    epochs: int
    parent: int | None
    gain: float | None = None
    cost: float | None = None
    step_cost: float | None = None
    belief: Belief | None = None
    arm: str | None = None


def front_of(points: Array) -> Array:
    """Return the non-dominated rows of ``(n, d)`` points to be maximised, without duplicates, sorted by the first axis."""
    import moocore

    return np.unique(moocore.filter_dominated(points, maximise=True), axis=0)


def boxes_above(front: Array, reference: Array) -> Boxes:
    """Partition the region above ``reference (d,)`` that no point of ``front (n, d)``, to be maximised, dominates into boxes.

    Points that do not exceed the reference point are ignored.
    """
    points = front[(front > reference).all(1)]
    if len(points):
        points = front_of(points)
    if len(reference) > 3 and len(points) > _MAX_FRONT_MANY_OBJECTIVES:
        # An even thinning; the volume that the others dominate counts as not dominated, so gains are overestimated a little.
        points = points[np.linspace(0, len(points) - 1, _MAX_FRONT_MANY_OBJECTIVES).round().astype(int)]
    lower, upper = _partition(points, reference)
    return Boxes(lower, upper)


def _partition(points: Array, reference: Array) -> tuple[Array, Array]:
    """Cut the last axis into slabs at the values of the points, and each slab recursively by the points that reach it."""
    d = len(reference)
    if d == 1:
        top = points.max() if len(points) else reference[0]
        return np.array([[top]]), np.array([[np.inf]])
    edges = np.unique(np.r_[reference[-1], points[:, -1]])
    if d == 2:  # each slab is a single box, above the best of the points that reach it
        order = np.argsort(points[:, 1])
        best = np.r_[np.maximum.accumulate(points[order[::-1], 0])[::-1], reference[0]]
        top = best[np.searchsorted(points[order, 1], edges, side="right")]
        return np.c_[top, edges], np.c_[np.full(len(edges), np.inf), np.r_[edges[1:], np.inf]]
    lowers, uppers = [], []
    for low, high in zip(edges, np.r_[edges[1:], np.inf], strict=True):
        reach = points[points[:, -1] >= high][:, :-1] if np.isfinite(high) else points[:0, :-1]
        lower, upper = _partition(front_of(reach) if len(reach) else reach, reference[:-1])
        lowers.append(np.c_[lower, np.full(len(lower), low)])
        uppers.append(np.c_[upper, np.full(len(upper), high)])
    return np.vstack(lowers), np.vstack(uppers)


def dominated_volume(points: Array, reference: Array) -> float:
    """Return the volume that ``(n, d)`` points to be maximised dominate above the reference point, in the units of the axes."""
    import moocore

    above = points[(points > reference).all(1)] if len(points) else points
    return float(moocore.hypervolume(above, ref=reference, maximise=True)) if len(above) else 0.0


def added_volumes(points: Array, reference: Array) -> Array:
    """Return what each of ``(n, d)`` points, to be maximised, adds to the volume that those before it dominate, ``(n,)``."""
    added, above = np.zeros(len(points)), np.flatnonzero((points > reference).all(1))
    if points.shape[1] != 2:
        volume, best = 0.0, points[:0]
        for row in above:
            if not (best >= points[row]).all(1).any():
                best = np.vstack([best[~(best <= points[row]).all(1)], points[row]])
                added[row], volume = -volume, dominated_volume(best, reference)
                added[row] += volume
        return added
    # Each decision asks for this: along a front of two objectives it is ten times faster, or more.
    front = [(float(reference[0]), np.inf), (np.inf, float(reference[1]))]  # the first objective rises, the second falls
    for row, (x, y) in zip(above, points[above].tolist(), strict=True):
        begin = end = bisect_right(front, (x, np.inf))
        while front[begin - 1][1] <= y:  # steps of the front that the point covers
            begin -= 1
        if front[end][1] < y:
            edges = pairwise([*(left for left, _ in front[begin - 1 : end]), x])
            added[row] = sum((right - left) * (y - floor) for (left, right), (_, floor) in zip(edges, front[begin : end + 1], strict=True))
            front[begin:end] = [(x, y)]
    return added


def lookahead_rates(
    models: SurrogateModels,
    boxes: Boxes,
    predictions: Predictions,
    rate: Array,
    cost: Array,
    *,
    rows: NDArray[np.int64],
    first: int,
    cost_floor: float,
    remaining: float = np.inf,
    resume: bool,
    last_only: bool,
) -> Array:
    """Return the best gain per energy of training ``rows`` to rung ``first`` and then perhaps further, ``(len(rows),)``.

    It is the expected gain over all measurements at ``first``, divided by the energy that is expected to be paid. The best policy for such
    a ratio continues exactly where the further gain exceeds the ratio times the further cost, so a few fixed-point steps find it.

    ``rate`` and ``cost`` are those of going straight to each rung, ``(n, r)``; ``cost_floor`` is added to every training. Rungs that cost
    more than ``remaining`` in total cannot be continued to. With ``resume`` continuing pays only the difference; with ``last_only`` a
    stopped training is worth nothing.
    """
    stop_gain = _gain_given_measurement(models, predictions, boxes, rows, first, first)
    stop_gain = np.zeros_like(stop_gain) if last_only else stop_gain
    targets = [rate.shape[1] - 1] if last_only else range(first + 1, rate.shape[1])
    gains = [_gain_given_measurement(models, predictions, boxes, rows, first, target) for target in targets]
    further_gain = np.stack(gains) - stop_gain  # (targets, nodes, rows)
    further_cost = np.stack([cost[rows, t] - cost[rows, first] if resume else cost[rows, t] + cost_floor for t in targets])
    # What is paid in the end: a continuation's cost counts from where it is now, a training from scratch comes on top of the first.
    total_cost = np.stack([cost[rows, t] + (0.0 if resume else cost[rows, first]) for t in targets])
    affordable = (total_cost <= remaining)[:, None]
    best = np.maximum(rate[rows].max(1), 0.0)
    for _ in range(_FIXED_POINT_STEPS):
        surplus = np.where(affordable, further_gain - best * further_cost[:, None], -np.inf)
        choice = surplus.argmax(0)[None]  # (1, nodes, rows)
        proceed = np.take_along_axis(surplus, choice, 0)[0] > 0
        gained = stop_gain + np.where(proceed, np.take_along_axis(further_gain, choice, 0)[0], 0.0)
        costs = np.broadcast_to(further_cost[:, None], further_gain.shape)
        paid = np.where(proceed, np.take_along_axis(costs, choice, 0)[0], 0.0)
        best = np.maximum(best, _WEIGHTS @ gained / (cost[rows, first] + cost_floor + _WEIGHTS @ paid))
    return np.asarray(best)


def _gain_given_measurement(
    models: SurrogateModels, predictions: Predictions, boxes: Boxes, rows: NDArray[np.int64], measured: int, target: int
) -> Array:
    """Expected gain at rung ``target`` after each possible measurement of the quality at rung ``measured``, ``(nodes, rows)``."""
    quality = predictions.objectives[0]
    measurement_sd = np.sqrt(quality.sd[rows, measured] ** 2 + models.noise(measured))
    explained = models.covariance(predictions, measured, target)[rows] / measurement_sd
    mean = quality.mean[rows, target][None] + np.outer(_NODES, explained)
    sd = np.sqrt(np.maximum(quality.sd[rows, target] ** 2 - explained**2, 1e-9))
    columns = [(mean.ravel(), np.tile(sd, len(_NODES)))]
    columns += [(np.tile(p.mean[rows, target], len(_NODES)), np.tile(p.sd[rows, target], len(_NODES))) for p in predictions.objectives[1:]]
    gain = boxes.expected_gain(models.marginals_of(columns, target)).reshape(len(_NODES), len(rows))
    return np.asarray(gain * predictions.feasibility[rows, target])
