import numpy as np
import pytest

from joulefront.search.samplers.gaussian_process import GaussianProcess


def problem(n: int = 30, seed: int = 0) -> tuple[GaussianProcess, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.random((n, 5))
    X[:, 3:] = X[:, 3:] > 0.5
    u = rng.choice([0.0, 0.5, 1.0], n)
    y = np.sin(4 * X[:, 0]) + X[:, 3] + u
    return GaussianProcess(np.array([0, 1, 2, 3, 3]), np.array([True, True, True, False, False])), X, u, (y - y.mean()) / y.std()


def covariance(gp: GaussianProcess, a: np.ndarray, u: float, b: np.ndarray, v: float) -> float:
    """The kernel of one pair of points, written out."""
    g, w = gp.count, len(gp.warped)
    scale = np.exp(gp.theta[:g])[gp.groups]
    a0, a1, a2, length = np.exp(gp.theta[g : g + 4])
    alpha, beta = np.exp(gp.theta[g + 6 : g + 6 + w]), np.exp(gp.theta[g + 6 + w :])

    def warp(x: np.ndarray) -> np.ndarray:
        z = x.astype(float).copy()
        z[gp.warped] = 1 - (1 - np.clip(x[gp.warped], 1e-4, 1 - 1e-4) ** alpha) ** beta
        return z / scale

    r = np.sqrt(5) * np.linalg.norm(warp(a) - warp(b))
    matern = (1 + r + r * r / 3) * np.exp(-r)
    return float(matern * (a0 + a1 * np.exp(-0.5 * ((u - v) / length) ** 2)) + a2 * np.exp(-0.5 * ((u - v) / 0.7) ** 2))


def dense(gp: GaussianProcess, A: np.ndarray, u: np.ndarray, B: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.array([[covariance(gp, a, s, b, t) for b, t in zip(B, v, strict=True)] for a, s in zip(A, u, strict=True)])


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    gp, X, u, y = problem()
    theta = gp.prior_mean + 0.3 * np.random.default_rng(1).normal(size=len(gp.theta))
    _, gradient = gp.loss(theta, X, u, y)
    steps = 1e-6 * np.eye(len(theta))
    slope = [(gp.loss(theta + step, X, u, y)[0] - gp.loss(theta - step, X, u, y)[0]) / 2e-6 for step in steps]
    assert gradient == pytest.approx(slope, abs=1e-5)


def test_predictions_are_those_of_the_textbook_formula() -> None:
    gp, X, u, y = problem()
    gp.tune(X, u, y, steps=20)
    gp.fit(X, u, y)
    Q, rungs = np.random.default_rng(2).random((4, 5)), np.array([0.0, 0.3, 1.0])
    found = gp.predict(Q, rungs)
    low, high = gp.theta[gp.count + 4 : gp.count + 6]
    K = dense(gp, X, u, X, u) + np.diag(np.exp(low + (high - low) * u) + 1e-6)
    for j, rung in enumerate(rungs):
        v = np.full(len(Q), rung)
        cross = dense(gp, Q, v, X, u)
        assert found.mean[:, j] == pytest.approx(cross @ np.linalg.solve(K, y), abs=1e-6)
        covariances = dense(gp, Q, v, Q, v) - cross @ np.linalg.solve(K, cross.T)
        assert found.sd[:, j] ** 2 == pytest.approx(np.diag(covariances), abs=1e-6)
    both = dense(gp, Q, np.zeros(4), Q, np.ones(4)) - dense(gp, Q, np.zeros(4), X, u) @ np.linalg.solve(K, dense(gp, X, u, Q, np.ones(4)))
    assert gp.covariance(found, rungs, 0, 2) == pytest.approx(np.diag(both), abs=1e-6)


def test_tuning_lowers_the_loss_and_finds_the_parameter_that_matters() -> None:
    rng = np.random.default_rng(0)
    X, u = rng.random((60, 3)), np.zeros(60)
    y = np.sin(6 * X[:, 1])
    gp = GaussianProcess(np.arange(3), np.zeros(3, dtype=bool))
    before = gp.loss(gp.theta, X, u, (y - y.mean()) / y.std())[0]
    assert gp.tune(X, u, (y - y.mean()) / y.std(), steps=50) < before
    assert gp.theta[1] < gp.theta[0] - 0.5
    assert gp.theta[1] < gp.theta[2] - 0.5


def test_a_short_training_tells_about_a_long_one() -> None:
    rng = np.random.default_rng(3)
    X, u = np.vstack([rng.random((20, 2))] * 2), np.repeat([0.0, 1.0], 20)
    y = np.r_[X[:20, 0], X[:20, 0] + 1]
    gp = GaussianProcess(np.arange(2), np.ones(2, dtype=bool))
    z = (y - y.mean()) / y.std()
    gp.tune(X, u, z, steps=40)
    keep = np.arange(40) != 25  # the long training of one configuration is not known
    gp.fit(X[keep], u[keep], z[keep])
    long_known_short = gp.predict(X[[25]], np.array([1.0]))
    assert long_known_short.mean[0, 0] == pytest.approx(z[25], abs=0.1)
