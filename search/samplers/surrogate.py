"""What is believed about one objective: a transform that makes it Gaussian, and a Gaussian process over (configuration, epochs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .acquisition import Belief, BoundedLog, Normal
from .gaussian_process import Array, GaussianProcess, Posterior

#: Hyper-parameters are tuned on at most so many measurements: the cost grows with the cube.
_TUNE_POINTS = 120
_FIRST_STEPS, _NEXT_STEPS = 50, 8
#: Room above the best quality, in spreads, that the warp may leave.
_ROOMS = tuple(float(x) for x in np.exp(np.linspace(np.log(0.02), np.log(20.0), 15)))
_ROOM_PRIOR, _ROOM_PRIOR_SD = float(np.log(0.5)), 1.0

#: What an earlier study expects at ``(n, d)`` configurations and ``(r,)`` rungs, ``(n, r)``, standardised.
Trend = Callable[[Array, Array], Array]


@dataclass
class Surrogate:
    """A model of one objective, to be maximised.

    Args:
        process: The Gaussian process.
        warp: Whether the objective approaches a limit that matters (a quality): it is modelled as ``limit - scale * exp(-y)``, so that
            the last percent counts as much as the first ten. How much room there is above the best measurement is part of the fit.
        trend: What an earlier study expects; the Gaussian process then models the difference from the part of it that agrees with this one.

    Attributes:
        mean: Mean of the transformed values.
        sd: Their standard deviation.
        limit: Value that a warped objective approaches.
        scale: Its distance from the limit at ``y = 0``.
    """

    process: GaussianProcess
    warp: bool = False
    trend: Trend | None = None
    mean: float = 0.0
    sd: float = 1.0
    limit: float = 0.0
    scale: float = 1.0
    _room: int = field(default=int(np.argmin(np.abs(np.log(_ROOMS) - _ROOM_PRIOR))))
    _tuned_at: int = 0
    _line: tuple[float, float] = (0.0, 0.0)
    _data: tuple[Array, Array, Array] | None = None

    def fit(self, X: Array, u: Array, values: Array, rng: np.random.Generator) -> None:
        """Learn from ``(n,)`` values of ``(n, d)`` configurations at ``(n,)`` scaled log epochs."""
        n = len(values)
        tune = self._tuned_at == 0 or n >= self._tuned_at + max(2, self._tuned_at // 25) or n < self._tuned_at
        subset = _subset(n, rng) if tune else None
        if self.warp and subset is not None:
            self._choose_room(X[subset], u[subset], values[subset])
        y = self._standardise(values) - self._expected_trend(X, u, self._standardise(values))
        if subset is not None:
            self.process.tune(X[subset], u[subset], y[subset], steps=_FIRST_STEPS if self._tuned_at == 0 else _NEXT_STEPS)
            self._tuned_at = n
        self._data = X, u, y
        self.process.fit(X, u, y)

    def imagine(self, X: Array, u: Array) -> Array:
        """Count ``(n, d)`` running trainings as measured at what is believed of them (constant liar); return that, ``(n,)``.

        Source: Ginsbourger, Le Riche and Carraro 2010, "Kriging is well-suited to parallelize optimization".
        """
        assert self._data is not None
        guess = np.array([self.process.predict(x[None], np.array([at])).mean[0, 0] for x, at in zip(X, u, strict=True)])
        old_X, old_u, y = self._data
        self.process.fit(np.vstack([old_X, X]), np.r_[old_u, u], np.r_[y, guess])
        trend = np.array([self._trend_at(x[None], np.array([at]))[0, 0] for x, at in zip(X, u, strict=True)])
        return self.values(guess + trend)

    def predict(self, X: Array, rungs: Array, *, one_sd: bool = False) -> Posterior:
        """Believe something about ``(n, d)`` configurations at ``(r,)`` rungs, in standardised units; see ``GaussianProcess.predict``."""
        found = self.process.predict(X, rungs, one_sd=one_sd)
        return found if self.trend is None else Posterior(found.mean + self._trend_at(X, rungs), found.sd, found.whitened)

    def belief(self, mean: Array, sd: Array, shift: float = 0.0) -> Belief:
        """Turn standardised means and standard deviations, ``(n,)``, into a belief about the values plus ``shift``."""
        m, s = self.mean + self.sd * mean, self.sd * sd
        return BoundedLog(m, s, self.limit + shift, self.scale) if self.warp else Normal(m + shift, s)

    def values(self, standardised: Array) -> Array:
        """Turn standardised numbers of any shape into values."""
        y = self.mean + self.sd * standardised
        return np.asarray(self.limit - self.scale * np.exp(-y) if self.warp else y)

    def _standardise(self, values: Array) -> Array:
        """Transform and standardise; sets ``limit``, ``scale``, ``mean`` and ``sd``."""
        y = values
        if self.warp:
            best = float(values.max())
            spread = max(best - float(np.quantile(values, 0.25)), 1e-9 * max(1.0, abs(best)))
            self.limit, self.scale = best + spread * _ROOMS[self._room], spread
            y = -np.log((self.limit - values) / spread)
        self.mean, self.sd = float(y.mean()), max(float(y.std()), 1e-9)
        return np.asarray((y - self.mean) / self.sd)

    def _choose_room(self, X: Array, u: Array, values: Array) -> None:
        """Move to a neighbouring room while the likelihood of the values themselves (Jacobian included) grows.

        Source: Snelson, Rasmussen and Ghahramani 2003, "Warped Gaussian processes", eq. 6.
        """

        def loss(room: int) -> float:
            self._room = room
            y = self._standardise(values)
            jacobian = float((y * self.sd + self.mean).sum()) - len(y) * float(np.log(self.sd))
            prior = 0.5 * ((np.log(_ROOMS[room]) - _ROOM_PRIOR) / _ROOM_PRIOR_SD) ** 2
            return float(self.process.loss(self.process.theta, X, u, y)[0] - jacobian + prior)

        best, now = self._room, loss(self._room)
        for step in (1, -1):
            while 0 <= best + step < len(_ROOMS) and (next_loss := loss(best + step)) < now:
                best, now = best + step, next_loss
        self._room = best

    def _expected_trend(self, X: Array, u: Array, y: Array) -> Array:
        """Fit ``y`` as a line of what the earlier study expects, with one pseudo-observation for slope 1; return its values, ``(n,)``."""
        if self.trend is None:
            return np.zeros(len(y))
        rungs, at = np.unique(u, return_inverse=True)
        expected = self.trend(X, rungs)[np.arange(len(X)), at]
        centred = expected - expected.mean()
        slope = float(np.clip((centred @ (y - y.mean()) + 1.0) / (centred @ centred + 1.0), 0.0, 3.0))
        self._line = slope, float(y.mean() - slope * expected.mean())
        return np.asarray(self._line[1] + slope * expected)

    def _trend_at(self, X: Array, rungs: Array) -> Array:
        if self.trend is None:
            return np.zeros((len(X), len(rungs)))
        return self._line[1] + self._line[0] * self.trend(X, rungs)


def _subset(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose what to tune on: the latest measurements, which the search looks at now, and a sample of the others."""
    if n <= _TUNE_POINTS:
        return np.arange(n)
    late = _TUNE_POINTS // 3
    return np.sort(np.r_[rng.choice(n - late, _TUNE_POINTS - late, replace=False), np.arange(n - late, n)])
