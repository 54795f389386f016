import copy

import numpy as np
import pytest
import skops.io

from joulefront.search.training.boosted import LIBRARIES, BoostedEstimator, installed

SETTINGS = {"shrinkage": 0.1, "leaves": 15, "depth": 4, "min_leaf": 5, "features": 1.0, "l2": 0.1}
HERE = [name for name in LIBRARIES if installed(name)]


def rows(kind, n=400):
    random = np.random.default_rng(0)
    X = random.normal(size=(n, 6)).astype(np.float32)
    total = X[:, 0] + X[:, 1] * X[:, 2]
    return X, {"regression": total, "two": (total > 0).astype(int), "three": np.digitize(total, [-1, 1])}[kind]


def make(library, kind, **options):
    classes = {"regression": 0, "two": 2, "three": 3}[kind]
    task = "regression" if kind == "regression" else "classification"
    return BoostedEstimator(library, SETTINGS, kind=task, classes=classes, rounds_per_epoch=4, **options)


def trained(estimator, X, y, first=1, last=3):
    for epoch in range(first, last + 1):
        estimator.fit_epochs(X, y, epoch - 1, epoch, seed=3)
    return estimator


@pytest.mark.parametrize("kind", ["regression", "two", "three"])
@pytest.mark.parametrize("library", HERE)
def test_going_on_from_a_stored_model_is_the_same_as_never_having_stopped(library, kind):
    X, y = rows(kind)
    straight, stopped, carried = trained(make(library, kind), X, y), trained(make(library, kind), X, y, 1, 1), make(library, kind)
    data = skops.io.dumps(stopped.sklearn)
    carried.sklearn = skops.io.loads(data, trusted=["joulefront.search.training.boosted.BoostedTrees"])
    np.testing.assert_array_equal(carried.predict_scores(X), stopped.predict_scores(X))
    trained(carried, X, y, 2, 3)
    np.testing.assert_allclose(carried.predict_scores(X), straight.predict_scores(X), rtol=1e-6, atol=1e-9)
    shape = {"regression": (len(X),), "two": (len(X), 2), "three": (len(X), 3)}[kind]
    assert straight.predict_scores(X).shape == shape


@pytest.mark.parametrize("library", HERE)
def test_more_epochs_are_more_rounds_and_fit_the_training_rows_better(library):
    X, y = rows("regression")
    errors = [np.mean((trained(make(library, "regression"), X, y, 1, last).predict_scores(X) - y) ** 2) for last in (1, 3, 9)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("library", HERE)
def test_balanced_weights_make_a_rare_class_count(library):
    X, _ = rows("two", 800)
    y = (X[:, 0] + np.random.default_rng(1).normal(size=len(X)) > 2.2).astype(int)
    plain, even = (trained(make(library, "two", balanced=balanced), X, y).sklearn.predict(X).sum() for balanced in (False, True))
    assert even > 1.5 * y.sum() > plain


def test_a_share_of_the_rows_is_drawn_once_and_costs_less():
    X, y = rows("two")
    few = make("lightgbm", "two", share=0.25)
    trained(few, X, y)
    assert few._data.num_data() == 100


def test_a_class_that_the_training_rows_lack_keeps_its_column():
    X, y = rows("three")
    estimator = trained(make("lightgbm", "three"), X[y != 1], y[y != 1])
    assert estimator.predict_scores(X).shape == (len(X), 3)


def test_what_it_cannot_serve_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="one target at a time"):
        BoostedEstimator("lightgbm", SETTINGS, kind="multilabel", classes=3, rounds_per_epoch=4)
    monkeypatch.setattr("joulefront.search.training.boosted.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'joulefront\[xgboost\]'"):
        make("xgboost", "two")


def test_a_copy_predicts_as_the_model_does():
    X, y = rows("two")
    estimator = trained(make("lightgbm", "two"), X, y)
    np.testing.assert_array_equal(copy.deepcopy(estimator.sklearn).predict_proba(X), estimator.predict_scores(X))
