"""Expected hypervolume improvement (EHVI), exactly, for independent marginals of any number of objectives, all to be maximised.

The region that no measured point dominates is cut into disjoint boxes; the volume that a point ``Y`` adds is the sum over boxes of the
product over objectives of ``min(Y, upper) - lower`` (where positive), and its expectation is a product of one-dimensional integrals.

Sources: Emmerich, Deutz and Klinkenberg 2011, "Hypervolume-based expected improvement: monotonicity properties and exact computation";
Yang et al. 2019, "Efficient computation of expected hypervolume improvement using box decomposition algorithms" (arXiv 1904.12672).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy  # loads each of its parts at the first use
from numpy.typing import NDArray

from .encoding import Array

#: With four or more objectives the number of boxes grows with the cube of the front or faster: at most so many of its points are kept.
_MAX_FRONT_MANY_OBJECTIVES = 24


class Marginal(Protocol):
    """The predictive distribution of one objective at ``n`` points."""

    def expected_improvement(self, levels: Array) -> Array:
        """Return the expected improvement of each point over each of ``(m,)`` levels, ``(n, m)``."""


@dataclass(frozen=True)
class Normal:
    """A Gaussian marginal with mean and positive standard deviation, ``(n,)`` each."""

    mean: Array
    sd: Array

    def expected_improvement(self, levels: Array) -> Array:
        """Closed form of the expected improvement of a Gaussian, ``(n, m)``."""
        z = (self.mean[:, None] - levels[None, :]) / self.sd[:, None]
        return np.asarray(self.sd[:, None] * (z * scipy.special.ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


@dataclass(frozen=True)
class BoundedLogNormal:
    """A marginal of ``limit - scale * exp(-y)`` with Gaussian ``y``: a quality that approaches a limit, which is never exceeded.

    ``mean`` and ``sd`` are those of ``y``, ``(n,)``, the latter positive; ``scale`` is the distance from the limit at ``y = 0``.
    """

    mean: Array
    sd: Array
    limit: float
    scale: float

    def expected_improvement(self, levels: Array) -> Array:
        """Closed form: the price of a put option on a log-normal shortfall, ``(n, m)``.

        Source: Black and Scholes 1973, "The pricing of options and corporate liabilities".
        """
        headroom = np.maximum((self.limit - levels) / self.scale, 1e-300)
        z = (np.log(headroom)[None, :] + self.mean[:, None]) / self.sd[:, None]
        shortfall = np.exp(np.minimum(-self.mean + 0.5 * self.sd**2, 500.0))[:, None]
        reached, priced = scipy.special.ndtr(z), scipy.special.ndtr(z - self.sd[:, None])
        return np.asarray(self.scale * np.maximum(headroom[None, :] * reached - shortfall * priced, 0.0))


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
