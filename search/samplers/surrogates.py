"""Surrogates of a study: one per objective, one per constraint, and one of the probability that a training fails.

Each is an output transform that makes the values about Gaussian, and a Gaussian process over (configuration, epochs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy  # loads each of its parts at the first use
from numpy.typing import NDArray

from .encoding import Array, Encoder, ObservationTable, diverged
from .gaussian_process import BoundedLogNormal, GaussianProcess, Marginal, Normal, Posterior

#: Hyper-parameters are tuned on at most so many observations: the cost grows with the cube.
_TUNE_POINTS = 120
#: L-BFGS steps of the first tuning and of later ones, which start from the previous optimum.
_FIRST_STEPS, _NEXT_STEPS = 50, 8
#: The hyper-parameters are also tuned from their prior when there are so many times the observations of the last time.
_RESTART = 1.5
#: Known noise counts at most so much, as a share of the variance of all measurements.
_LARGEST_NOISE = 4.0
#: Candidate distances of the limit from the best quality, in spreads, and their log-normal prior.
_HEADROOMS = tuple(float(x) for x in np.exp(np.linspace(np.log(0.02), np.log(20.0), 15)))
_HEADROOM_PRIOR, _HEADROOM_PRIOR_SD = float(np.log(0.5)), 1.0
#: The models are fitted to at most so many observations.
_MAX_ROWS = 200
#: No configuration is less feasible, as models can be wrong, once one is: before, all that looks hopeless must not be worth the same.
_MIN_FEASIBILITY = 0.02

#: Mean function from earlier studies (the trend of universal kriging), standardised: ``(n, d)`` inputs and ``(r,)`` rungs -> ``(n, r)``.
Trend = Callable[[Array, Array], Array]


@dataclass
class Surrogate:
    """A model of one objective or constraint.

    With ``warp`` the objective approaches a limit that matters (a quality): it is modelled as ``limit - scale * exp(-y)``, so that the last
    percent counts as much as the first ten. The distance of the limit from the best observation is part of the fit. With a ``trend``, a
    mean function from earlier studies, the Gaussian process models the difference from a line fitted to it. ``mean`` and ``sd`` are those
    of the transformed values.
    """

    process: GaussianProcess
    warp: bool = False
    trend: Trend | None = None
    mean: float = 0.0
    sd: float = 1.0
    limit: float = 0.0
    scale: float = 1.0
    best: float | None = None
    _headroom: int = field(default=int(np.argmin(np.abs(np.log(_HEADROOMS) - _HEADROOM_PRIOR))))
    _tuned_at: int = 0
    _trend_line: tuple[float, float] = (0.0, 0.0)
    _data: tuple[Array, Array, Array, Array] | None = None
    _restarted_at: int = 0
    _typical_noise: float = 0.0

    def fit(self, X: Array, u: Array, values: Array, rng: np.random.Generator, *, noise: Array | None = None) -> None:
        """Fit to ``(n,)`` values of ``(n, d)`` configurations at ``(n,)`` scaled log epochs.

        ``noise (n,)`` is their known standard deviation; 0 by default.
        """
        noise = np.zeros(len(values)) if noise is None else noise
        n = len(values)
        tune = self._tuned_at == 0 or n >= self._tuned_at + max(2, self._tuned_at // 25) or n < self._tuned_at
        subset = _subset(n, rng) if tune else None
        if self.warp and subset is not None:
            self._choose_headroom(X[subset], u[subset], values[subset], noise[subset])
        y = self._standardise(values) - self._fit_trend(X, u, self._standardise(values))
        known = self._variance(values, noise)
        if subset is not None:
            restart = n >= _RESTART * self._restarted_at
            steps = _FIRST_STEPS if restart else _NEXT_STEPS
            self.process.tune(X[subset], u[subset], y[subset], known[subset], steps=steps, restart=restart and self._tuned_at > 0)
            self._tuned_at, self._restarted_at = n, n if restart else self._restarted_at
        self._data, self._typical_noise = (X, u, y, known), float(np.median(noise))
        self.process.fit(X, u, y, known)

    def fantasize(self, X: Array, u: Array) -> Array:
        """Condition on ``(n, d)`` running trainings at their posterior means (the Kriging believer); return those values, ``(n,)``.

        Source: Ginsbourger, Le Riche and Carraro 2010, "Kriging is well-suited to parallelize optimization".
        """
        assert self._data is not None
        guess = np.array([self.process.predict(x[None], np.array([at])).mean[0, 0] for x, at in zip(X, u, strict=True)])
        old_X, old_u, y, known = self._data
        self.process.fit(np.vstack([old_X, X]), np.r_[old_u, u], np.r_[y, guess], np.r_[known, np.zeros(len(guess))])
        trend = np.array([self._trend_at(x[None], np.array([at]))[0, 0] for x, at in zip(X, u, strict=True)])
        return self.values(guess + trend)

    def predict(self, X: Array, rungs: Array, *, first_sd_only: bool = False) -> Posterior:
        """Return the posterior of ``(n, d)`` configurations at ``(r,)`` rungs, standardised; see ``GaussianProcess.predict``."""
        found = self.process.predict(X, rungs, first_sd_only=first_sd_only)
        return found if self.trend is None else Posterior(found.mean + self._trend_at(X, rungs), found.sd, found.whitened)

    @property
    def supported(self) -> bool:
        """Whether the measurements support the trend; True without one."""
        return self.trend is None or self._trend_line[0] > 0

    def believed(self, X: Array, u: Array, noise: Array | None, shift: Array | float) -> tuple[Array, Array]:
        """Return the expectation of measurements, less ``shift``, and it with one standard deviation of their noise, ``(n,)`` each."""
        rungs, at = np.unique(u, return_inverse=True)
        mean = self.process.mean(X, u) + self._trend_at(X, rungs)[np.arange(len(X)), at]
        known = np.zeros(len(u)) if noise is None else self._variance(self.values(mean), noise)
        return self.values(mean) - shift, self.values(mean + np.sqrt(self.process.noise(u) + known)) - shift

    def marginal(self, mean: Array, sd: Array, shift: float = 0.0) -> Marginal:
        """Turn standardised means and standard deviations, ``(n,)``, into the marginal of the values plus ``shift``."""
        m, s = self.mean + self.sd * mean, self.sd * sd
        return BoundedLogNormal(m, s, self.limit + shift, self.scale) if self.warp else Normal(m + shift, s)

    def values(self, standardised: Array) -> Array:
        """Invert the output transform for standardised numbers of any shape."""
        y = self.mean + self.sd * standardised
        return np.asarray(self.limit - self.scale * np.exp(-y) if self.warp else y)

    def _standardise(self, values: Array) -> Array:
        """Apply the output transform; sets ``limit``, ``scale``, ``mean`` and ``sd``."""
        y = values
        if self.warp:
            best = float(values.max())
            spread = max(best - float(np.quantile(values, 0.25)), 1e-9 * max(1.0, abs(best)))
            self.limit, self.scale, self.best = best + spread * _HEADROOMS[self._headroom], spread, best
            y = -np.log((self.limit - values) / spread)
        self.mean, self.sd = float(y.mean()), max(float(y.std()), 1e-9)
        return np.asarray((y - self.mean) / self.sd)

    def noise_at(self, mean: float) -> float:
        """Return the variance of the known noise where the standardised expectation is ``mean``, standardised."""
        at = self.values(np.array([mean]))
        return float(self._variance(at, np.full(1, self._typical_noise))[0])

    def _variance(self, values: Array, noise: Array) -> Array:
        """Standardise the variance of ``(n,)`` values whose noise has the standard deviations ``noise``, by the slope of the transform."""
        slope = 1.0 / np.maximum(self.limit - values, np.maximum(noise, 1e-300)) if self.warp else np.ones(len(values))
        return np.asarray(np.minimum((noise * slope / self.sd) ** 2, _LARGEST_NOISE))

    def _choose_headroom(self, X: Array, u: Array, values: Array, noise: Array) -> None:
        """Move the limit to a neighbouring candidate while the likelihood of the values (with the Jacobian) grows.

        Source: Snelson, Rasmussen and Ghahramani 2003, "Warped Gaussian processes", eq. 6.
        """

        def loss(headroom: int) -> float:
            self._headroom = headroom
            y = self._standardise(values)
            jacobian = float((y * self.sd + self.mean).sum()) - len(y) * float(np.log(self.sd))
            prior = 0.5 * ((np.log(_HEADROOMS[headroom]) - _HEADROOM_PRIOR) / _HEADROOM_PRIOR_SD) ** 2
            return float(self.process.loss(self.process.theta, X, u, y, self._variance(values, noise))[0] - jacobian + prior)

        best, now = self._headroom, loss(self._headroom)
        for step in (1, -1):
            while 0 <= best + step < len(_HEADROOMS) and (next_loss := loss(best + step)) < now:
                best, now = best + step, next_loss
        self._headroom = best

    def _fit_trend(self, X: Array, u: Array, y: Array) -> Array:
        """Regress ``y`` on the trend, with one pseudo-observation for slope 1; return the fitted values, ``(n,)``.

        The trend is left out where it predicts measurements that were left out worse than none at all.
        """
        if self.trend is None:
            return np.zeros(len(y))
        rungs, at = np.unique(u, return_inverse=True)
        expected, count = self.trend(X, rungs)[np.arange(len(X)), at], np.bincount(at)
        # That longer is better all studies agree on: only what sets configurations of one rung apart counts.
        here, wanted = (values - (np.bincount(at, values) / count)[at] for values in (expected, y))
        both, alone = here * wanted, here * here
        left_out = (both.sum() - both + 1.0) / (alone.sum() - alone + 1.0)
        helps = np.sum((wanted - np.clip(left_out, 0.0, 3.0) * here) ** 2) <= np.sum(wanted**2)
        slope = float(np.clip((both.sum() + 1.0) / (alone.sum() + 1.0), 0.0, 3.0)) if helps else 0.0
        self._trend_line = slope, float(y.mean() - slope * expected.mean())
        return np.asarray(self._trend_line[1] + slope * expected)

    def _trend_at(self, X: Array, rungs: Array) -> Array:
        if self.trend is None:
            return np.zeros((len(X), len(rungs)))
        return self._trend_line[1] + self._trend_line[0] * self.trend(X, rungs)


def _subset(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose what to tune on: the latest observations, from the region that is searched now, and a sample of the others."""
    if n <= _TUNE_POINTS:
        return np.arange(n)
    late = _TUNE_POINTS // 3
    return np.sort(np.r_[rng.choice(n - late, _TUNE_POINTS - late, replace=False), np.arange(n - late, n)])


@dataclass(frozen=True)
class Predictions:
    """Predictions for ``n`` configurations at the ``r`` rungs of a study, with a standardised posterior per objective.

    ``energy`` is expected for the training from scratch, ``(n, r)``, in the user's unit; ``feasibility``, ``(n, r)``, is the probability
    that it neither fails nor breaks a constraint there.
    """

    objectives: tuple[Posterior, ...]
    energy: Array
    feasibility: Array


@dataclass
class SurrogateModels:
    """The surrogates of one study; hyper-parameters are kept from one decision to the next.

    ``trends`` are mean functions from earlier studies.
    """

    rungs: tuple[int, ...]
    trends: Sequence[Trend] = ()
    _objectives: list[Surrogate] = field(default_factory=list)
    _constraints: dict[str, Surrogate] = field(default_factory=dict)
    _failure: Surrogate | None = None
    _shape: object = None
    _per_epoch: bool = False
    _least: float = _MIN_FEASIBILITY

    def fit(self, table: ObservationTable, encoder: Encoder, failed: Array, rng: np.random.Generator) -> None:
        """Fit all surrogates to the observations, and to the genes of configurations that failed, ``(m, size)``."""
        count = table.values.shape[1]
        shape = (encoder.encoding.distributions, count)
        if shape != self._shape:
            trends: list[Trend | None] = [*self.trends] or [None] * count
            self._shape, self._constraints, self._failure = shape, {}, None
            self._objectives = [Surrogate(self._process(encoder), warp=j == 0, trend=trends[j]) for j in range(count)]
        rows, bad = select_rows(table, rng), diverged(table)
        X, u = table.columns[table.config[rows]], self.scaled(table.epochs[rows])
        # Energy is about proportional to the epochs; the model is fitted to the energy per epoch.
        self._per_epoch = bool(table.transform.logarithmic[1])
        for j, model in enumerate(self._objectives):
            values = table.values[rows, j] + (np.log10(table.epochs[rows]) if j == 1 and self._per_epoch else 0.0)
            good = ~bad[rows] if j == 0 else np.ones(len(rows), dtype=bool)
            model.fit(X[good], u[good], values[good], rng, noise=table.quality_sd[rows][good] if j == 0 else None)
        limits = {name: _bounded(values[rows]) for name, values in table.constraints.items() if not np.isnan(values[rows]).all()}
        self._least = _MIN_FEASIBILITY if table.feasible.any() else np.finfo(float).tiny
        self._constraints = {name: self._constraints.get(name) or Surrogate(self._process(encoder)) for name in limits}
        for name, model in self._constraints.items():
            known = ~np.isnan(limits[name])
            model.fit(X[known], u[known], limits[name][known], rng)
        if not len(failed) and not bad.any():
            self._failure = None
            return
        lost = np.zeros(len(table.columns))
        lost[table.config[bad]] = 1.0
        self._failure = self._failure or Surrogate(self._process(encoder))
        inputs = np.vstack([table.columns, *([encoder.columns(failed)] if len(failed) else [])])[-_MAX_ROWS:]
        outcome = np.r_[lost, np.ones(len(failed))][-_MAX_ROWS:]
        self._failure.fit(inputs, np.zeros(len(inputs)), outcome, rng)

    def believed(self, table: ObservationTable) -> tuple[Array, Array]:
        """Return what the models believe of the measurements without their noise, and that with a standard deviation of it, ``(n, k)``."""
        X, u = table.columns[table.config], self.scaled(table.epochs)
        shift = np.log10(table.epochs) if self._per_epoch else np.zeros(len(u))
        pairs = [
            model.believed(X, u, table.quality_sd if j == 0 else None, shift if j == 1 else 0.0) for j, model in enumerate(self._objectives)
        ]
        mean, lifted = (np.stack([pair[i] for pair in pairs], 1) for i in (0, 1))
        return mean, lifted

    def fantasize(self, X: Array, epochs: Array) -> Array:
        """Condition the objectives on running trainings at their expected values; return those, ``(n, k)``."""
        u = self.scaled(epochs)
        values = np.stack([model.fantasize(X, u) for model in self._objectives], 1)
        if self._per_epoch:
            values[:, 1] -= np.log10(epochs)
        return values

    def predict(self, X: Array) -> Predictions:
        """Predict ``(n, d)`` configurations at all rungs."""
        u = self.scaled(np.array(self.rungs, dtype=float))
        # Beyond the first rung the uncertainty of costs is that of their growth with the epochs, which all configurations share. It must
        # not make a single one look promising: otherwise cheap trainings are repeated forever in the hope of cheaper ones.
        found = tuple(model.predict(X, u, first_sd_only=j > 0) for j, model in enumerate(self._objectives))
        # A constraint counts at the rung that a training would end at. It may hold at some only, and at the last one so little is measured
        # that what breaks it at the first may look feasible there for long.
        feasibility = np.ones((len(X), len(u)))
        for model in self._constraints.values():
            there = model.predict(X, u)
            feasibility *= scipy.special.ndtr(-(model.mean + model.sd * there.mean) / (model.sd * there.sd))
        if self._failure is not None:
            feasibility *= 1 - np.clip(self._failure.values(self._failure.predict(X, u[:1]).mean), 0.0, 1.0)
        return Predictions(found, self._energy(found[1].mean), np.maximum(feasibility, self._least))

    def inflated(self, predictions: Predictions, fresh: NDArray[np.bool_], factors: tuple[float, float]) -> Predictions:
        """Widen the spread of the quality by a factor for ``fresh (n,)`` configurations, and by another one for what training on adds.

        Of a fresh configuration the first holds for what its first rung would tell: a near copy of a trained one, of which that is known,
        looks no less certain at higher rungs than that itself.
        """
        quality = predictions.objectives[0]
        variance = quality.sd**2
        told = np.stack([self.covariance(predictions, 0, rung) for rung in range(len(self.rungs))], 1) ** 2 / variance[:, :1]
        told = np.where(fresh[:, None], np.minimum(told, variance), 0.0)
        found = quality.inflated(np.sqrt(factors[1] ** 2 + (factors[0] ** 2 - factors[1] ** 2) * told / variance))
        return Predictions((found, *predictions.objectives[1:]), predictions.energy, predictions.feasibility)

    def predict_complete(self, X: Array) -> tuple[Posterior, Array]:
        """Predict complete trainings of ``(n, d)`` configurations: their quality, and their energy ``(n,)``."""
        u = self.scaled(np.array(self.rungs, dtype=float))[-1:]
        energy = np.repeat(self._objectives[1].predict(X, u).mean, len(self.rungs), 1)
        return self.quality.predict(X, u), self._energy(energy)[:, -1]

    def _energy(self, standardised: Array) -> Array:
        """Energy of the trainings to each rung, ``(n, r)``, in the user's unit; the epochs where the second objective is not a cost."""
        if self._per_epoch:
            return np.asarray(10 ** -(self._objectives[1].values(standardised) + self._shift))
        return np.tile(np.array(self.rungs, dtype=float), (len(standardised), 1))

    def marginals(self, predictions: Predictions, rung: int) -> list[Marginal]:
        """Return the marginal of each objective at one rung."""
        columns = [(found.mean[:, rung], found.sd[:, rung]) for found in predictions.objectives]
        return self.marginals_of(columns, rung)

    def marginals_of(self, columns: Sequence[tuple[Array, Array]], rung: int) -> list[Marginal]:
        """Turn standardised means and standard deviations per objective into the marginals of the values at one rung."""
        return [
            model.marginal(mean, sd, float(self._shift[rung]) if j == 1 and self._per_epoch else 0.0)
            for j, (model, (mean, sd)) in enumerate(zip(self._objectives, columns, strict=True))
        ]

    def expected(self, X: Array, u: Array, objective: int) -> Array:
        """Return the standardised expectation of one objective at ``(r,)`` scaled log epochs, ``(n, r)``."""
        return self._objectives[objective].predict(X, u).mean

    def expected_values(self, predictions: Predictions, rung: int) -> Array:
        """Return the medians of the objectives at one rung, to be maximised, ``(n, k)``."""
        columns = zip(self._objectives, predictions.objectives, strict=True)
        values = np.stack([model.values(found.mean[:, rung]) for model, found in columns], 1)
        if self._per_epoch:
            values[:, 1] += self._shift[rung]
        return values

    def covariance(self, predictions: Predictions, first: int, second: int) -> Array:
        """Return the posterior covariance of each configuration's quality between two rungs, standardised, ``(n,)``."""
        u = self.scaled(np.array(self.rungs, dtype=float))
        return self.quality.process.covariance(predictions.objectives[0], u, first, second)

    def noise(self, rung: int) -> float:
        """Return the variance of a repeated measurement of the quality at a rung, standardised."""
        return float(self.quality.process.noise(self.scaled(np.array([self.rungs[rung]], dtype=float)))[0])

    def noise_at(self, mean: float, rung: int) -> float:
        """Return the variance of a measurement of a quality that is expected to be ``mean``, standardised."""
        return self.noise(rung) + self.quality.noise_at(mean)

    @property
    def quality(self) -> Surrogate:
        """The model of the first objective."""
        return self._objectives[0]

    def scaled(self, epochs: Array) -> Array:
        """Scale epochs logarithmically: 0 at the first rung, 1 at the last."""
        first, last = self.rungs[0], self.rungs[-1]
        return np.asarray(np.log(epochs / first) / np.log(last / first)) if last > first else np.zeros(len(epochs))

    @property
    def _shift(self) -> Array:
        return np.asarray(-np.log10(np.array(self.rungs, dtype=float)))

    def _process(self, encoder: Encoder) -> GaussianProcess:
        return GaussianProcess(encoder.groups, encoder.numeric)


def _bounded(values: Array) -> Array:
    """Return constraint values in which an infinite one is as large as the largest finite one, and NaN, which is unknown, stays."""
    most = float(np.abs(values[np.isfinite(values)]).max(initial=1.0))
    return np.clip(values, -most, most)


def select_rows(table: ObservationTable, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose the rows to fit: all of them, or the best by quality at their epochs, the latest and a random sample of the rest, ``(m,)``."""
    n = len(table.values)
    if n <= _MAX_ROWS:
        return np.arange(n)
    third = _MAX_ROWS // 3
    rank = np.empty(n)
    for epochs in np.unique(table.epochs):
        here = np.flatnonzero(table.epochs == epochs)
        rank[here[np.argsort(-table.values[here, 0])]] = np.arange(len(here))
    chosen = np.unique(np.r_[np.argsort(rank)[:third], np.arange(n - third, n)])
    rest = np.setdiff1d(np.arange(n), chosen)
    return np.sort(np.r_[chosen, rng.choice(rest, _MAX_ROWS - len(chosen), replace=False)])
