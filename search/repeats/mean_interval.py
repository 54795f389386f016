"""Means and differences of means with their intervals, for the few values that trainings allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A sample of one quantity.

    Attributes:
        n: Number of values.
        mean: Their mean.
        sd: Their standard deviation; None for one value.
        low: Lower end of the interval of the mean; None for one value.
        high: Its upper end.
        least: Smallest value.
        most: Largest value.
    """

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
        mean = fmean(known)
        if len(known) < 2:
            return cls(1, mean, None, None, None, mean, mean)
        sd = stdev(known)
        half = _t(len(known) - 1) * sd / sqrt(len(known))
        return cls(len(known), mean, sd, mean - half, mean + half, min(known), max(known))

    def outside(self, value: float) -> bool:
        """Whether a value lies outside of the range of this sample.

        Of one more value from the same distribution 2 in n + 1 do, by chance alone.
        """
        return not self.least <= value <= self.most


@dataclass(frozen=True)
class Difference:
    """By how much the second of two means is larger, with an interval.

    Attributes:
        mean: The difference.
        low: Lower end of its interval.
        high: Upper end.
        df: Degrees of freedom; infinite when neither sample spreads.
    """

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
        mean, total = two.mean - one.mean, sum(parts)
        df = total**2 / (parts[0] ** 2 / (one.n - 1) + parts[1] ** 2 / (two.n - 1)) if total > 0 and total**2 > 0 else float("inf")
        half = _t(df) * sqrt(total)
        return cls(mean, mean - half, mean + half, df)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero: the two can be told apart."""
        return self.low > 0 or self.high < 0


def _t(df: float) -> float:
    """The quantile of Student's t distribution that leaves half of what is not covered on each side."""
    from scipy.special import ndtri, stdtrit  # not scipy.stats: that takes a second to load

    share = 0.5 + CONFIDENCE / 2
    return float(ndtri(share) if df == float("inf") else stdtrit(df, share))
