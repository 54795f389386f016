"""Expected hypervolume improvement (EHVI), exactly, for independent marginals of any number of objectives, all to be maximised.

Of a training, and of a plan that may stop early: "train to rung ``n``, measure, and continue to ``t`` only where that pays".

The region that no measured point dominates is cut into disjoint boxes; the volume that a point ``Y`` adds is the sum over boxes of the
product over objectives of ``min(Y, upper) - lower`` (where positive), and its expectation is a product of one-dimensional integrals.

Sources: Emmerich, Deutz and Klinkenberg 2011, "Hypervolume-based expected improvement: monotonicity properties and exact computation";
Yang et al. 2019, "Efficient computation of expected hypervolume improvement using box decomposition algorithms" (arXiv 1904.12672);
Dinkelbach 1967, "On nonlinear fractional programming", for the fixed point of a plan.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .encoding import Array
from .gaussian_process import Marginal
from .surrogates import Predictions, SurrogateModels

#: With four or more objectives the number of boxes grows with the cube of the front or faster: at most so many of its points are kept.
_MAX_FRONT_MANY_OBJECTIVES = 24

#: Gauss-Hermite quadrature over the measurement at the stopping rung, and the steps of the fixed point.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FIXED_POINT_STEPS = 4


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
    added = np.zeros(len(points))
    above = np.flatnonzero((points > reference).all(1))
    if points.shape[1] != 2:
        volume, front = 0.0, points[:0]
        for row in above:
            if not (front >= points[row]).all(1).any():
                front = np.vstack([front[~(front <= points[row]).all(1)], points[row]])
                added[row], volume = -volume, dominated_volume(front, reference)
                added[row] += volume
        return added
    least_x, least_y = reference.tolist()
    xs, ys = list[float](), list[float]()  # the front so far: x rises, y falls
    for row, (x, y) in zip(above, points[above].tolist(), strict=True):
        end = begin = bisect_right(xs, x)
        floor = ys[end] if end < len(ys) else least_y
        if floor >= y or (end and xs[end - 1] == x and ys[end - 1] >= y):
            continue
        right, gain = x, 0.0
        while begin and ys[begin - 1] <= y:  # steps of the front that the point covers
            begin -= 1
            gain += (right - xs[begin]) * (y - floor)
            right, floor = xs[begin], ys[begin]
        added[row] = gain + (right - (xs[begin - 1] if begin else least_x)) * (y - floor)
        xs[begin:end], ys[begin:end] = [x], [y]
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
    return np.asarray(gain * predictions.feasibility[rows])
