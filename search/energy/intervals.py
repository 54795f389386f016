"""Means, differences of means, straight lines and rank correlation, each with an interval or p-value that holds for few values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

#: Confidence of every interval.
CONFIDENCE = 0.95
#: Up to this many pairs every order is tried; 8! = 40,320.
EXACT = 8


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval; a bound is infinite when the data allow none."""

    value: float
    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    @classmethod
    def around(cls, value: float, half: float) -> Interval:
        """Return a number with as much on both sides."""
        return cls(value, value - half, value + half)

    @property
    def half(self) -> float:
        """Return half of the width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Line:
    """A straight line ``y = slope * x + intercept`` fitted by least squares.

    Attributes:
        r: Pearson's correlation; None when x or y do not vary.
        residual_sd: Standard deviation of y about the line; None with two points, as the standard errors are.
        x_squares: Sum of squared deviations of x from its mean.
    """

    slope: Interval
    intercept: Interval
    r: float | None
    residual_sd: float | None
    slope_error: float | None
    intercept_error: float | None
    n: int
    x_mean: float
    x_squares: float

    def predict(self, x: float) -> Interval:
        """Return y at `x` with the interval for one new observation there.

        Source: Draper and Smith, Applied Regression Analysis, 3rd edition, equation 3.1.4 (prediction of one observation).
        """
        value = self.slope.value * x + self.intercept.value
        if self.residual_sd is None:
            return Interval.around(value, math.inf)
        spread = math.sqrt(1 + 1 / self.n + (x - self.x_mean) ** 2 / self.x_squares)
        return Interval.around(value, _t(self.n - 2) * self.residual_sd * spread)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a straight line by least squares to x and y of shape ``(n,)``.

    Source: Draper and Smith, Applied Regression Analysis, 3rd edition, section 1.4 (the standard errors).

    Raises:
        ValueError: Fewer than two points, different lengths, numbers that are not finite, or x without any variation.
    """
    n = len(x)
    if n != len(y) or n < 2:
        raise ValueError(f"x and y must have one length >= 2, got {n} and {len(y)}")
    if not all(math.isfinite(value) for value in (*x, *y)):
        raise ValueError("x and y must be finite; leave out what is unknown")
    x_mean, y_mean = statistics.fmean(x), statistics.fmean(y)
    x_squares = math.fsum((value - x_mean) ** 2 for value in x)
    y_squares = math.fsum((value - y_mean) ** 2 for value in y)
    if x_squares <= (1e-12 * max(abs(value) for value in x)) ** 2:
        raise ValueError(f"x must vary, got {n} times {x_mean!r}; a line needs loads of different size")
    products = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    slope = products / x_squares
    intercept = y_mean - slope * x_mean
    r = products / math.sqrt(x_squares * y_squares) if y_squares > 0 else None
    if n == 2:
        ends = Interval.around(slope, math.inf), Interval.around(intercept, math.inf)
        return Line(*ends, r, None, None, None, n, x_mean, x_squares)
    sd = math.sqrt(math.fsum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True)) / (n - 2))
    slope_error, intercept_error = sd / math.sqrt(x_squares), sd * math.sqrt(1 / n + x_mean**2 / x_squares)
    ends = Interval.around(slope, _t(n - 2) * slope_error), Interval.around(intercept, _t(n - 2) * intercept_error)
    return Line(*ends, r, sd, slope_error, intercept_error, n, x_mean, x_squares)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean with Student's interval; unbounded for a single value.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("values must not be empty; a mean needs at least one measurement")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval.around(mean, math.inf)
    return Interval.around(mean, _t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values)))


def _t(dof: float) -> float:
    """Return by how many standard errors an interval reaches to each side."""
    return student_t(0.5 + CONFIDENCE / 2, dof)


def student_t(probability: float, dof: float) -> float:
    """Return the quantile of Student's t distribution; with infinite degrees of freedom, of the normal distribution.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 < probability < 1 or not dof > 0:
        raise ValueError(f"probability must lie in (0, 1) and dof be > 0, got {probability} and {dof}")
    from scipy.special import ndtri, stdtrit  # not scipy.stats: that takes a second to load

    return float(ndtri(probability) if math.isinf(dof) else stdtrit(dof, probability))


def spearman(pairs: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Spearman's rank correlation and its two-sided p-value; None where fewer than 3 pairs or a constant allow none.

    With up to ``EXACT`` pairs the p-value is the share of all orders that correlate as strongly; beyond, that of the t distribution.
    """
    if len(pairs) < 3 or any(len({pair[side] for pair in pairs}) < 2 for side in (0, 1)):
        return None, None
    import numpy as np
    from scipy.stats import rankdata, spearmanr

    x, y = np.array(pairs, dtype=float).T
    found = spearmanr(x, y)
    rho = float(found.statistic)
    if len(pairs) > EXACT:
        return rho, float(found.pvalue)
    ranks = rankdata(x) - (len(x) + 1) / 2
    orders = np.array(list(permutations(rankdata(y) - (len(y) + 1) / 2)))
    strength = np.abs(orders @ ranks)
    here = abs(float((rankdata(y) - (len(y) + 1) / 2) @ ranks))
    return rho, float((strength >= here - 1e-9).mean())


@dataclass(frozen=True)
class Spread:
    """A sample of ``n`` values of one quantity; ``low`` and ``high`` are the interval of the mean, None as ``sd`` is for one value."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of some values with the interval of Student's t distribution; None without any."""
        known = list(values)
        if not known:
            return None
        mean = statistics.fmean(known)
        if len(known) < 2:
            return cls(1, mean, None, None, None, mean, mean)
        interval = mean_interval(known)
        return cls(len(known), mean, statistics.stdev(known), interval.low, interval.high, min(known), max(known))

    def outside(self, value: float) -> bool:
        """Whether a value lies outside of the range of this sample.

        Of one more value from the same distribution 2 in n + 1 do, by chance alone.
        """
        return not self.least <= value <= self.most


@dataclass(frozen=True)
class Difference:
    """By how much the second of two means is larger, with an interval; the degrees of freedom are infinite when neither sample spreads."""

    mean: float
    low: float
    high: float
    df: float

    @classmethod
    def of(cls, one: Spread | None, two: Spread | None) -> Difference | None:
        """Return the difference of two means by Welch's interval; None unless both have two values or more.

        Source:
            Welch 1947, "The generalization of 'Student's' problem when several different population variances are involved",
            Biometrika 34, with Satterthwaite's degrees of freedom.
        """
        if one is None or two is None or one.sd is None or two.sd is None:
            return None
        parts = one.sd**2 / one.n, two.sd**2 / two.n
        total, mean = sum(parts), two.mean - one.mean
        df = total**2 / (parts[0] ** 2 / (one.n - 1) + parts[1] ** 2 / (two.n - 1)) if total > 0 and total**2 > 0 else float("inf")
        half = _t(df) * math.sqrt(total)
        return cls(mean, mean - half, mean + half, df)

    @classmethod
    def of_logarithms(cls, one: Spread | None, two: Spread | None) -> Difference | None:
        """Return the difference of the logarithms of two positive means, whose samples spread by a share of their size as energies do.

        The standard deviation of a logarithm is taken for that of the value over its mean. Otherwise as `of`.
        """
        if one is None or two is None or not (one.mean > 0 and two.mean > 0):
            return cls.of(one, two)
        return cls.of(*(replace(each, mean=math.log(each.mean), sd=each.sd and each.sd / each.mean) for each in (one, two)))

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero: the two can be told apart."""
        return self.low > 0 or self.high < 0
