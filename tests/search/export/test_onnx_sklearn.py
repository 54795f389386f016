"""Neighbours and trees as a graph against scikit-learn itself: ties, weights, examples that were trained on, thresholds."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from joulefront.search.export.onnx_sklearn import convert

pytestmark = pytest.mark.slow


def answer(estimator, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(convert(estimator, rows.shape[1]).SerializeToString())
    return session.run(None, {"inputs": rows})[-1]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 4])
def test_digits_seen_and_unseen(k, weights):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    rows = np.concatenate([X[500:800], X[:40]])  # the last 40 lie at distance 0 from themselves
    classifier = KNeighborsClassifier(k, weights=weights).fit(X[:500], y[:500])
    np.testing.assert_allclose(answer(classifier, rows), classifier.predict_proba(rows), atol=1e-6)
    regressor = KNeighborsRegressor(k, weights=weights).fit(X[:500], y[:500].astype(np.float32))
    np.testing.assert_allclose(answer(regressor, rows).reshape(-1), regressor.predict(rows), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), features=st.integers(1, 5), weights=st.sampled_from(["uniform", "distance"]))
def test_any_numbers(seed, k, features, weights):
    generator = np.random.default_rng(seed)
    X, y = generator.normal(size=(30, features)).astype(np.float32), generator.integers(0, 3, 30)
    rows = generator.normal(size=(11, features)).astype(np.float32)
    model = KNeighborsClassifier(k, weights=weights, algorithm="brute").fit(X, y)
    np.testing.assert_allclose(answer(model, rows), model.predict_proba(rows), atol=1e-5)


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_thresholds_between_neighbouring_floats_divide_the_same_rows(kind):
    places = np.random.default_rng(0).integers(0, 40, 400)
    rows = (np.float32(1).view(np.int32) + places.astype(np.int32)).view(np.float32)[:, None]  # 40 numbers in float32 next to each other
    model = kind(max_iter=5, random_state=0).fit(rows, places % 3 > 0)
    expected = model.predict_proba(rows) if kind is HistGradientBoostingClassifier else model.predict(rows)[:, None]
    np.testing.assert_allclose(answer(model, rows), expected, atol=1e-6)
    assert answer(model, rows[:1]).shape == expected[:1].shape


@pytest.mark.filterwarnings("ignore:Attribute `prob:FutureWarning")  # skl2onnx reads them
@pytest.mark.parametrize("last", [SVC(), LinearSVC(), SGDClassifier(), RidgeClassifier()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_without_probabilities_gives_its_decision_alone_and_behind_a_step(classes, last):
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    y = np.digitize(X.sum(axis=1), [-1.0, 1.0][: classes - 1])
    for estimator in (last, make_pipeline(StandardScaler(), last)):
        estimator.fit(X, y)
        wanted = estimator.decision_function(X).reshape(len(X), -1)
        np.testing.assert_allclose(answer(estimator, X), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "cosine"}, "only Euclidean distances do"), ({"weights": lambda d: d * 0 + 1}, "that are a function")],
)
def test_what_the_graph_cannot_express_is_refused(options, message):
    X = np.eye(6, dtype=np.float32)
    with pytest.raises(RuntimeError, match=message):
        convert(KNeighborsClassifier(2, **options).fit(X, np.arange(6) % 2), 6)
