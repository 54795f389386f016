"""Expected hypervolume improvement, exactly, for independent beliefs about any number of objectives (all of them to be maximised).

The region that no measured point dominates is cut into disjoint boxes; the volume that a point ``Y`` adds is the sum over boxes of the
product over objectives of ``min(Y, upper) - lower`` (where positive), and its expectation is a product of one-dimensional integrals.

Sources: Emmerich, Deutz and Klinkenberg 2011, "Hypervolume-based expected improvement: monotonicity properties and exact computation";
Yang et al. 2019, "Efficient computation of expected hypervolume improvement using box decomposition algorithms" (arXiv 1904.12672).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

#: With four objectives and more the number of boxes grows with the cube of the front: keep so many of its points.
_MANY_OBJECTIVES_FRONT = 24


class Marginal(Protocol):
    """What is believed about one objective of ``n`` points."""

    def expected_improvement(self, level: Array) -> Array:
        """Return the expected amount by which each point exceeds each level: ``(m,)`` levels give ``(n, m)``."""
        ...


@dataclass(frozen=True)
class Normal:
    """A Gaussian belief.

    Attributes:
        mean: ``(n,)``.
        sd: ``(n,)``, positive.
    """

    mean: Array
    sd: Array

    def expected_improvement(self, level: Array) -> Array:
        """Expected improvement over each level."""
        z = (self.mean[:, None] - level[None, :]) / self.sd[:, None]
        return np.asarray(self.sd[:, None] * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


@dataclass(frozen=True)
class BoundedLogNormal:
    """A belief about ``best - scale * exp(-y)`` with Gaussian ``y``: a quality that approaches a limit.

    Attributes:
        mean: Mean of ``y``, ``(n,)``.
        sd: Standard deviation of ``y``, ``(n,)``, positive.
        best: The limit.
        scale: Distance from the limit at ``y = 0``.
    """

    mean: Array
    sd: Array
    best: float
    scale: float

    def expected_improvement(self, level: Array) -> Array:
        """Expected improvement over each level: the price of a put option on a log-normal shortfall (Black and Scholes 1973)."""
        room = np.maximum((self.best - level) / self.scale, 1e-300)
        z = (np.log(room)[None, :] + self.mean[:, None]) / self.sd[:, None]
        shortfall = np.exp(np.minimum(-self.mean + 0.5 * self.sd**2, 500.0))[:, None]
        return np.asarray(self.scale * np.maximum(room[None, :] * ndtr(z) - shortfall * ndtr(z - self.sd[:, None]), 0.0))

    def quantile(self, q: float) -> Array:
        """Return the quality at normal score ``q``."""
        return np.asarray(self.best - self.scale * np.exp(-(self.mean + q * self.sd)))


@dataclass(frozen=True)
class Boxes:
    """Disjoint boxes that cover what is above the reference point and not dominated.

    Attributes:
        lower: ``(k, d)``.
        upper: ``(k, d)``, with infinities.
    """

    lower: Array
    upper: Array

    def expected_gain(self, marginals: list[Marginal]) -> Array:
        """Return the expected hypervolume improvement of ``n`` points, ``(n,)``, from one belief per objective."""
        product: Array | None = None
        for axis, belief in enumerate(marginals):
            levels, where = np.unique(np.r_[self.lower[:, axis], self.upper[:, axis]], return_inverse=True)
            finite = np.isfinite(levels)
            expected_improvement = belief.expected_improvement(levels[finite])
            if not finite.all():
                expected_improvement = np.hstack(
                    [expected_improvement, np.zeros((len(expected_improvement), 1))]
                )  # nothing exceeds infinity
            k = len(self.lower)
            length = expected_improvement[:, where[:k]] - expected_improvement[:, where[k:]]
            product = length if product is None else product * length
        assert product is not None
        return np.asarray(product.sum(1))


def front_of(points: Array) -> Array:
    """Return the non-dominated rows of ``(n, d)`` points to be maximised, without duplicates, sorted by the first axis."""
    points = np.unique(points, axis=0)
    if points.shape[1] == 2:
        order = points[::-1]  # first axis falling
        best_before = np.r_[-np.inf, np.maximum.accumulate(order[:, 1])[:-1]]
        return np.asarray(order[order[:, 1] > best_before][::-1])
    keep = np.ones(len(points), dtype=bool)
    for i, point in enumerate(points):
        if keep[i]:
            keep &= ~((points <= point).all(1) & (points < point).any(1))
    return points[keep]


def boxes_above(front: Array, reference: Array) -> Boxes:
    """Cut the non-dominated region above ``reference`` into boxes.

    Args:
        front: Points to be maximised, ``(n, d)``; those that do not exceed the reference point are ignored.
        reference: ``(d,)``.
    """
    points = front[(front > reference).all(1)]
    if len(points):
        points = front_of(points)
    if len(reference) > 3 and len(points) > _MANY_OBJECTIVES_FRONT:
        # Points that matter most to the boxes are those far from each other; the volume of the rest is counted as free.
        points = points[np.linspace(0, len(points) - 1, _MANY_OBJECTIVES_FRONT).round().astype(int)]
    lower, upper = _cut(points, reference)
    return Boxes(lower, upper)


def _cut(points: Array, reference: Array) -> tuple[Array, Array]:
    """Slabs between the values of the last axis, each cut in the remaining axes by the points that reach it."""
    d = len(reference)
    if d == 1:
        top = points.max() if len(points) else reference[0]
        return np.array([[top]]), np.array([[np.inf]])
    edges = np.unique(np.r_[reference[-1], points[:, -1]])
    lowers, uppers = [], []
    for low, high in zip(edges, np.r_[edges[1:], np.inf], strict=True):
        reach = points[points[:, -1] >= high][:, :-1] if np.isfinite(high) else points[:0, :-1]
        lower, upper = _cut(front_of(reach) if len(reach) else reach, reference[:-1])
        lowers.append(np.c_[lower, np.full(len(lower), low)])
        uppers.append(np.c_[upper, np.full(len(upper), high)])
    return np.vstack(lowers), np.vstack(uppers)


def dominated_volume(points: Array, reference: Array) -> float:
    """Return the volume that ``(n, d)`` points to be maximised dominate above the reference point."""
    points = points[(points > reference).all(1)] if len(points) else points
    if not len(points):
        return 0.0
    if len(reference) == 1:
        return float(points.max() - reference[0])
    edges = np.unique(np.r_[reference[-1], points[:, -1]])
    slabs = pairwise(edges)
    return float(sum((high - low) * dominated_volume(points[points[:, -1] >= high][:, :-1], reference[:-1]) for low, high in slabs))
