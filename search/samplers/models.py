"""Everything that is believed about a study: each objective, the constraints, and whether a training fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .acquisition import Belief
from .encoding import Array
from .gaussian_process import GaussianProcess, Posterior
from .surrogate import Surrogate, Trend
from .table import Encoder, Table

#: Beyond so many measurements the models learn from a selection.
_MOST_ROWS = 800
_LEAST_CHANCE = 0.02


@dataclass(frozen=True)
class View:
    """Beliefs about ``n`` configurations at the ``r`` rungs of a study.

    Attributes:
        objectives: One posterior per objective.
        energy: Expected energy of the training from scratch, ``(n, r)``, in the user's unit.
        chance: Probability that it neither fails nor breaks a constraint, ``(n,)``.
    """

    objectives: tuple[Posterior, ...]
    energy: Array
    chance: Array


@dataclass
class Models:
    """Surrogates of one study; hyper-parameters are kept from one decision to the next.

    Args:
        rungs: Epochs at which models are measured.
        warp: Whether the quality is warped.
        input_warp: Whether the scales of the parameters are learned.
        trends: What earlier studies expect of each objective.
    """

    rungs: tuple[int, ...]
    warp: bool = True
    input_warp: bool = True
    trends: Sequence[Trend] = ()
    _objectives: list[Surrogate] = field(default_factory=list)
    _limits: dict[str, Surrogate] = field(default_factory=dict)
    _failure: Surrogate | None = None
    _shape: object = None
    _per_epoch: bool = False

    def fit(self, table: Table, encoder: Encoder, failed: Array, rng: np.random.Generator) -> None:
        """Learn from a study's measurements.

        Args:
            table: The measurements.
            encoder: Inputs of the models.
            failed: Genes of configurations that failed, ``(m, size)``.
            rng: Source of randomness.
        """
        count = table.values.shape[1]
        shape = (encoder.encoding.distributions, count)
        if shape != self._shape:
            trends: list[Trend | None] = [*self.trends] or [None] * count
            self._shape, self._limits, self._failure = shape, {}, None
            self._objectives = [Surrogate(self._process(encoder), warp=j == 0 and self.warp, trend=trends[j]) for j in range(count)]
        rows = _select(table, rng)
        X, u = table.columns[table.config[rows]], self.scaled(table.epochs[rows])
        # Energy grows about as the epochs do; the model learns the rest.
        self._per_epoch = bool(table.axes.logarithmic[1])
        for j, model in enumerate(self._objectives):
            model.fit(X, u, table.values[rows, j] + (np.log10(table.epochs[rows]) if j == 1 and self._per_epoch else 0.0), rng)
        self._limits = {name: self._limits.get(name) or Surrogate(self._process(encoder)) for name in table.constraints}
        for name, limit in self._limits.items():
            known = np.isfinite(table.constraints[name][rows])
            limit.fit(X[known], u[known], table.constraints[name][rows][known], rng)
        if not len(failed):
            self._failure = None
            return
        self._failure = self._failure or Surrogate(self._process(encoder))
        inputs = np.vstack([table.columns, encoder.columns(failed)])[-_MOST_ROWS:]
        outcome = np.r_[np.zeros(len(table.columns)), np.ones(len(failed))][-_MOST_ROWS:]
        self._failure.fit(inputs, np.zeros(len(inputs)), outcome, rng)

    def imagine(self, X: Array, epochs: Array) -> Array:
        """Count running trainings as measured; return their expected values, ``(n, k)``."""
        u = self.scaled(epochs)
        values = np.stack([model.imagine(X, u) for model in self._objectives], 1)
        if self._per_epoch:
            values[:, 1] -= np.log10(epochs)
        return values

    def view(self, X: Array) -> View:
        """Believe something about ``(n, d)`` configurations at all rungs."""
        u = self.scaled(np.array(self.rungs, dtype=float))
        # What is uncertain in costs beyond the first rung is the growth with the epochs, which all configurations share: it is no reason to
        # hope that one of them is cheap. (With it, cheap trainings are repeated for ever in the hope of cheaper ones.)
        found = tuple(model.predict(X, u, one_sd=j > 0) for j, model in enumerate(self._objectives))
        chance = np.ones(len(X))
        for limit in self._limits.values():
            there = limit.predict(X, u[-1:])
            chance *= ndtr(-(limit.mean + limit.sd * there.mean[:, 0]) / (limit.sd * there.sd[:, 0]))
        if self._failure is not None:
            chance *= 1 - np.clip(self._failure.values(self._failure.predict(X, u[:1]).mean[:, 0]), 0.0, 1.0)
        return View(found, self._energy(found[1].mean), np.maximum(chance, _LEAST_CHANCE))

    def complete(self, X: Array) -> tuple[Posterior, Array]:
        """Believe something about complete trainings of ``(n, d)`` configurations: their quality, and their energy ``(n,)``."""
        u = self.scaled(np.array(self.rungs, dtype=float))[-1:]
        energy = np.repeat(self._objectives[1].predict(X, u).mean, len(self.rungs), 1)
        return self.quality.predict(X, u), self._energy(energy)[:, -1]

    def _energy(self, standardised: Array) -> Array:
        """Energy of the trainings to each rung, ``(n, r)``, in the user's unit; epochs where the second objective is no energy."""
        if self._per_epoch:
            return np.asarray(10 ** -(self._objectives[1].values(standardised) + self._shift))
        return np.tile(np.array(self.rungs, dtype=float), (len(standardised), 1))

    def beliefs(self, view: View, rung: int) -> list[Belief]:
        """Return the belief about each objective at one rung."""
        columns = [(found.mean[:, rung], found.sd[:, rung]) for found in view.objectives]
        return self.beliefs_of(columns, rung)

    def beliefs_of(self, columns: Sequence[tuple[Array, Array]], rung: int) -> list[Belief]:
        """Turn standardised means and standard deviations per objective into beliefs about the values at one rung."""
        return [
            model.belief(mean, sd, float(self._shift[rung]) if j == 1 and self._per_epoch else 0.0)
            for j, (model, (mean, sd)) in enumerate(zip(self._objectives, columns, strict=True))
        ]

    def expected(self, X: Array, u: Array, objective: int) -> Array:
        """Return the standardised expectation of one objective at ``(r,)`` scaled log epochs, ``(n, r)``."""
        return self._objectives[objective].predict(X, u).mean

    def expected_values(self, view: View, rung: int) -> Array:
        """Return the medians of the objectives at one rung, as axes, ``(n, k)``."""
        values = np.stack([model.values(found.mean[:, rung]) for model, found in zip(self._objectives, view.objectives, strict=True)], 1)
        if self._per_epoch:
            values[:, 1] += self._shift[rung]
        return values

    def covariance(self, view: View, first: int, second: int) -> Array:
        """Return the covariance of each configuration's quality between two rungs, standardised, ``(n,)``."""
        u = self.scaled(np.array(self.rungs, dtype=float))
        return self.quality.process.covariance(view.objectives[0], u, first, second)

    def noise(self, rung: int) -> float:
        """Return the variance of a repeated measurement of the quality at a rung, standardised."""
        return self.quality.process.noise(self.scaled(np.array([self.rungs[rung]], dtype=float)))

    @property
    def quality(self) -> Surrogate:
        """The model of the first objective."""
        return self._objectives[0]

    def scaled(self, epochs: Array) -> Array:
        """Scale epochs: 0 at the first rung, 1 at the last, logarithmic between."""
        first, last = self.rungs[0], self.rungs[-1]
        return np.asarray(np.log(epochs / first) / np.log(last / first)) if last > first else np.zeros(len(epochs))

    @property
    def _shift(self) -> Array:
        return np.asarray(-np.log10(np.array(self.rungs, dtype=float)))

    def _process(self, encoder: Encoder) -> GaussianProcess:
        return GaussianProcess(encoder.groups, encoder.numeric & self.input_warp)


def _select(table: Table, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows to learn from: all of them, or the best by quality at their epochs, the latest and a random sample of the rest."""
    n = len(table.values)
    if n <= _MOST_ROWS:
        return np.arange(n)
    third = _MOST_ROWS // 3
    rank = np.empty(n)
    for epochs in np.unique(table.epochs):
        here = np.flatnonzero(table.epochs == epochs)
        rank[here[np.argsort(-table.values[here, 0])]] = np.arange(len(here))
    chosen = np.unique(np.r_[np.argsort(rank)[:third], np.arange(n - third, n)])
    rest = np.setdiff1d(np.arange(n), chosen)
    return np.sort(np.r_[chosen, rng.choice(rest, _MOST_ROWS - len(chosen), replace=False)])
