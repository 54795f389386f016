"""A Gaussian process over (configuration, epochs): one model of all rungs, so that short trainings inform about long ones.

``f(x, u) = g(x) + h(x, u) + m(u) + noise(u)`` with ``u`` in ``[0, 1]`` the scaled logarithm of the epochs: the level of a configuration
at any length, the shape of its own learning curve, and the curve that all share. Kernel
``K = M(x, x') (a0 + a1 E(u, u')) + a2 E2(u, u')`` with a Matérn-5/2 ``M`` (one length-scale per parameter, inputs warped by the Kumaraswamy
distribution function) and squared exponentials ``E``; hyper-parameters at the maximum of the posterior, by L-BFGS with exact gradients.

Sources: Swersky et al. 2014, "Freeze-thaw Bayesian optimization" (arXiv 1406.3896); Rasmussen and Williams 2006, "Gaussian processes for
machine learning", eq. 5.9; Cowen-Rivers et al. 2022, "HEBO" (arXiv 2012.03826), for the input warp and its prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy  # loads each of its parts at the first use
from numpy.typing import NDArray

from .encoding import Array

#: Variance added to the diagonal of the kernel matrix.
_JITTER = 1e-6
#: Inputs are kept so far from 0 and 1, where the derivatives of the warp are not finite.
_EDGE = 1e-4
#: Length-scale, in scaled log epochs, of the learning curve that all configurations share.
_SHARED_CURVE_LENGTH = 0.7


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of ``n`` configurations at ``r`` rungs, ``(n, r)``; the standard deviation is without observation noise.

    ``whitened`` is the prior covariance with the ``m`` measurements, whitened, ``(m, r, n)``; see ``GaussianProcess.covariance``.
    ``inflation`` is what the standard deviations were multiplied by, ``(n, r)``; None for 1.
    """

    mean: Array
    sd: Array
    whitened: Array
    inflation: Array | None = None

    def inflated(self, factors: Array) -> Posterior:
        """Multiply the standard deviations by ``(n, r)`` factors; correlations stay."""
        return Posterior(self.mean, self.sd * factors, self.whitened, factors)


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


class GaussianProcess:
    """Exact regression on up to about a thousand points.

    ``groups`` is the index of the parameter behind each input column, ``(d,)``; columns of one parameter share a length-scale. ``warped``
    are the input columns whose scale is learned (numbers in ``[0, 1]``), ``(d,)``.
    """

    def __init__(self, groups: NDArray[np.int64], warped: NDArray[np.bool_]) -> None:
        self.groups = groups
        self.count = int(groups.max()) + 1 if len(groups) else 0
        self.warped = np.flatnonzero(warped)
        g, w = self.count, len(self.warped)
        # theta: log length-scales | log a0, a1, a2, length of E, noise at u=0, noise at u=1 | log a, log b of the input warps
        self.prior_mean = np.r_[
            np.full(g, np.log(0.5) + 0.5 * np.log(max(g, 1)) / 2), np.log([0.5, 0.3, 0.5, 0.5, 1e-3, 1e-3]), np.zeros(2 * w)
        ]
        self.prior_sd = np.r_[np.full(g, 1.0), [1.0, 1.0, 1.0, 0.7, 2.0, 2.0], np.full(2 * w, 0.5)]
        self.low = np.r_[np.full(g, np.log(0.05)), np.log([1e-4, 1e-4, 1e-4, 0.1, 1e-6, 1e-6]), np.full(2 * w, -1.5)]
        self.high = np.r_[np.full(g, np.log(30.0)), np.log([30.0, 30.0, 30.0, 5.0, 1.0, 1.0]), np.full(2 * w, 1.5)]
        self.theta = self.prior_mean.copy()

    def tune(self, X: Array, u: Array, y: Array, known: Array | float = 0.0, *, steps: int, restart: bool = False) -> float:
        """Improve the hyper-parameters by at most ``steps`` L-BFGS steps; return the negative log posterior reached.

        ``X (n, d)`` are encoded configurations, ``u (n,)`` scaled log epochs, ``y (n,)`` targets of about zero mean and unit variance,
        ``known (n,)`` the variance of their known noise, to which that of the rungs is added. With ``restart`` the prior mean is a second
        start: the optimum of few measurements can be a trap for more.
        """
        results = [
            scipy.optimize.minimize(
                self.loss,
                start,
                (X, u, y, known),
                "L-BFGS-B",
                jac=True,
                bounds=list(zip(self.low, self.high, strict=True)),
                options={"maxiter": steps},
            )
            for start in ((self.theta, self.prior_mean) if restart else (self.theta,))
        ]
        best = min(results, key=lambda result: float(result.fun) if np.isfinite(result.fun) else np.inf)
        if np.isfinite(best.fun):
            self.theta = np.asarray(best.x)
        return float(best.fun)

    def fit(self, X: Array, u: Array, y: Array, known: Array | float = 0.0) -> None:
        """Condition on measurements with the present hyper-parameters; see ``tune`` for the arguments."""
        self.W, self.u = self._scaled(X), u
        times, plus = self._curves(u, u)
        K = _matern(_squared_distances(self.W, self.W), slope=False)[0] * times + plus
        K[np.diag_indices_from(K)] += self.noise(u) + known
        self.L = scipy.linalg.cholesky(K, lower=True, check_finite=False)
        self.alpha = scipy.linalg.cho_solve((self.L, True), y, check_finite=False)

    def predict(self, X: Array, rungs: Array, *, first_sd_only: bool = False) -> Posterior:
        """Return the posterior of ``(n, d)`` configurations, each at all of ``(r,)`` scaled log epochs.

        ``first_sd_only`` repeats the standard deviation at the first rung for all: computing it takes most of the time.
        """
        M, _ = _matern(_squared_distances(self.W, self._scaled(X)), slope=False)
        m, n, r = len(self.u), len(X), len(rungs)
        K = np.empty((m, r, n))
        for j, rung in enumerate(rungs):
            times, plus = self._curves(self.u, np.array([rung]))
            np.multiply(M, times, out=K[:, j])
            K[:, j] += plus
        mean = np.tensordot(self.alpha, K, 1)
        needed = np.ascontiguousarray(K[:, :1]) if first_sd_only else K
        whitened = scipy.linalg.solve_triangular(self.L, needed.reshape(m, -1), lower=True, check_finite=False).reshape(needed.shape)
        variance = self.amplitude - np.einsum("ijk,ijk->jk", whitened, whitened)
        sd = np.sqrt(np.maximum(variance, 1e-9)).T
        return Posterior(mean.T, np.repeat(sd, r, 1) if first_sd_only else sd, whitened)

    def mean(self, X: Array, u: Array) -> Array:
        """Return the posterior mean of ``(n, d)`` configurations, each at its own of ``(n,)`` scaled log epochs, ``(n,)``."""
        times, plus = self._curves(u, self.u)
        return np.asarray((_matern(_squared_distances(self._scaled(X), self.W), slope=False)[0] * times + plus) @ self.alpha)

    def likeness(self, X: Array, Y: Array) -> Array:
        """Return the correlation of ``(n, d)`` with ``(m, d)`` configurations, the epochs left aside, ``(n, m)``."""
        return _matern(_squared_distances(self._scaled(X), self._scaled(Y)), slope=False)[0]

    def covariance(self, posterior: Posterior, rungs: Array, first: int, second: int) -> Array:
        """Return the posterior covariance of each configuration between two of the rungs passed to ``predict``, ``(n,)``."""
        times, plus = self._curves(rungs[[first]], rungs[[second]])
        prior = times[0, 0] + plus[0, 0]
        found = prior - np.einsum("ik,ik->k", posterior.whitened[:, first], posterior.whitened[:, second])
        return np.asarray(found if posterior.inflation is None else found * posterior.inflation[:, first] * posterior.inflation[:, second])

    @property
    def amplitude(self) -> float:
        """Prior variance."""
        return float(np.exp(self.theta[self.count : self.count + 3]).sum())

    def loss(self, theta: Array, X: Array, u: Array, y: Array, known: Array | float = 0.0) -> tuple[float, Array]:
        """Return the negative log posterior of the hyper-parameters and its gradient."""
        g, w = self.count, len(self.warped)
        scale, (a0, a1, a2, length) = np.exp(theta[:g])[self.groups], np.exp(theta[g : g + 4])
        Z, da, db = self._warp(X, theta)
        W = Z / scale
        gap = (u[:, None] - u[None, :]) ** 2
        E, E2 = np.exp(-0.5 * gap / length**2), np.exp(-0.5 * gap / _SHARED_CURVE_LENGTH**2)
        M, slope = _matern(_squared_distances(W, W))
        noise = self.noise(u, theta)
        K = M * (a0 + a1 * E) + a2 * E2
        K[np.diag_indices_from(K)] += noise + known
        try:
            L = scipy.linalg.cholesky(K, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse = scipy.linalg.cho_solve((L, True), np.eye(len(y)), check_finite=False)
        alpha = inverse @ y
        off = (theta - self.prior_mean) / self.prior_sd
        value = 0.5 * y @ alpha + np.log(np.diag(L)).sum() + 0.5 * off @ off
        S = 0.5 * (inverse - np.outer(alpha, alpha))  # d loss / d K
        grad = off / self.prior_sd
        SM = S * M
        grad[g] += a0 * SM.sum()
        grad[g + 1] += a1 * (SM * E).sum()
        grad[g + 2] += a2 * (S * E2).sum()
        grad[g + 3] += a1 * (SM * E * gap).sum() / length**2
        part = np.diag(S) * (noise - _JITTER)
        grad[g + 4] += (part * (1 - u)).sum()
        grad[g + 5] += (part * u).sum()
        G = S * (a0 + a1 * E) * slope  # d loss / d squared distance
        ones, GW = G.sum(1), G @ W
        moved = ones[:, None] * W - GW
        per_column = -4.0 * (W * moved).sum(0)  # d loss / d log length-scale
        grad[:g] += np.bincount(self.groups, per_column, minlength=g) if g else 0.0
        if w:
            inner = 4.0 * moved[:, self.warped] / scale[self.warped]
            grad[g + 6 : g + 6 + w] += (inner * da).sum(0)
            grad[g + 6 + w :] += (inner * db).sum(0)
        return float(value), grad

    def _warp(self, X: Array, theta: Array) -> tuple[Array, Array, Array]:
        """Warp the ordered columns; also return the derivatives by log a and log b, ``(n, warped)``."""
        w = len(self.warped)
        if not w:
            return X, np.zeros((len(X), 0)), np.zeros((len(X), 0))
        a, b = np.exp(theta[self.count + 6 : self.count + 6 + w]), np.exp(theta[self.count + 6 + w :])
        x = np.clip(X[:, self.warped], _EDGE, 1 - _EDGE)
        log_x = np.log(x)
        power = np.exp(a * log_x)
        log_rest = np.log1p(-power)
        rest = np.exp(b * log_rest)
        Z = X.copy()
        Z[:, self.warped] = 1 - rest
        return Z, b * rest / (1 - power) * power * log_x * a, -rest * log_rest * b

    def _scaled(self, X: Array) -> Array:
        return np.asarray(self._warp(X, self.theta)[0] / np.exp(self.theta[: self.count])[self.groups])

    def noise(self, u: Array, theta: Array | None = None) -> Array:
        """Return the variance of a measurement at ``(n,)`` scaled log epochs, ``(n,)``, with the present hyper-parameters by default."""
        low, high = (self.theta if theta is None else theta)[self.count + 4 : self.count + 6]
        return np.asarray(np.exp(low + (high - low) * u) + _JITTER)

    def _curves(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Factor and summand of the kernel of the configurations, ``(len(u), len(v))`` each."""
        a0, a1, a2, length = np.exp(self.theta[self.count : self.count + 4])
        gap = (u[:, None] - v[None, :]) ** 2
        return a0 + a1 * np.exp(-0.5 * gap / length**2), a2 * np.exp(-0.5 * gap / _SHARED_CURVE_LENGTH**2)


def _squared_distances(A: Array, B: Array) -> Array:
    """Squared Euclidean distances, ``(len(A), len(B))``."""
    D = (A * A).sum(1)[:, None] + (B * B).sum(1)[None, :] - 2.0 * A @ B.T
    return np.asarray(np.maximum(D, 0.0, out=D))


def _matern(D: Array, *, slope: bool = True) -> tuple[Array, Array]:
    """Matérn-5/2 of squared distances, and its derivative by them."""
    r = np.sqrt(5.0 * D)
    decay = np.exp(-r)
    value = (1 + r + r * r / 3) * decay
    return value, (-5.0 / 6.0) * (1 + r) * decay if slope else value
