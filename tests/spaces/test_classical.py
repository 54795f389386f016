import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from joulefront.search.space import FixedTrial
from joulefront.search.training.estimator import Estimator
from joulefront.search.training.task import KINDS
from joulefront.spaces.classical import DETECTORS, SUPERVISED, Classical, FidelityEstimator, serving

TREES = {"max_depth": 6, "min_leaf": 1, "features": 0.5}


def estimator(name, kind, contract, shape=(5,), n=90, space=None, **settings):
    task = contract.make_task(shape, kind, n=n)
    params = {"estimator": name, **{f"{name}.{key}": value for key, value in settings.items()}}
    space = space or Classical(estimators=("linear", name))
    return space.build(space.sample(FixedTrial(params)), task), task


BOOSTING = {"learning_rate": 0.1, "max_depth": 3, "min_leaf": 2}


def through_skops(sklearn):
    """What a checkpoint on disk brings back."""
    data = skops.io.dumps(sklearn)
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("random_forest", "classification", TREES),
        ("extra_trees", "regression", TREES),
        ("gradient_boosting", "classification", BOOSTING),
        ("gradient_boosting", "regression", BOOSTING),
        ("linear", "regression", {"regularisation": 1.0}),
        ("linear", "classification", {"regularisation": 1.0}),
        ("k_neighbours", "classification", {"neighbours": 3, "weighting": "distance"}),
        ("isolation_forest", "anomaly", {"contamination": 0.1, "features": 1.0}),
        ("local_outlier_factor", "anomaly", {"contamination": 0.1, "neighbours": 4}),
        ("one_class_svm", "anomaly", {"contamination": 0.1, "gamma": 0.1}),
    ],
)
def test_going_on_from_a_stored_estimator_is_the_same_as_never_having_stopped(contract, name, kind, settings):
    """So a lineage pays the increment only and loses nothing."""
    straight, stopped, carried = (estimator(name, kind, contract, **settings)[0] for _ in range(3))
    X, y = contract.make_task((5,), kind).train.arrays()
    for epoch in (1, 2, 3):
        straight.fit_epochs(X, y, epoch - 1, epoch, seed=1)
    stopped.fit_epochs(X, y, 0, 1, seed=1)
    carried.sklearn = through_skops(stopped.sklearn)
    for epoch in (2, 3):
        carried.fit_epochs(X, y, epoch - 1, epoch, seed=1)
    assert np.array_equal(straight.predict_scores(X), carried.predict_scores(X))


@pytest.mark.parametrize(("name", "settings"), [("random_forest", TREES), ("extra_trees", TREES), ("gradient_boosting", BOOSTING)])
def test_added_trees_and_rounds_are_those_of_one_large_fit(contract, name, settings):
    whole, task = estimator(name, "classification", contract, **settings)
    stepwise, _ = estimator(name, "classification", contract, **settings)
    X, y = task.train.arrays()
    whole.fit_epochs(X, y, 0, 3, seed=1)
    for epoch in (1, 2, 3):
        stepwise.fit_epochs(X, y, epoch - 1, epoch, seed=1)
    assert np.allclose(whole.predict_scores(X), stepwise.predict_scores(X), atol=1e-12)


def test_epochs_are_trees_and_rounds(contract):
    forest, task = estimator("random_forest", "classification", contract, **TREES)
    X, y = task.train.arrays()
    for epoch in (1, 2, 3):
        forest.fit_epochs(X, y, epoch - 1, epoch, seed=0)
        assert len(forest.sklearn.estimators_) == 8 * epoch
    boosting, _ = estimator("gradient_boosting", "regression", contract, learning_rate=0.1, max_depth=3, min_leaf=2)
    boosting.fit_epochs(X, y, 0, 2, seed=0)
    assert boosting.sklearn.n_iter_ == 16


def test_solver_steps_continue_from_the_last_weights(contract):
    linear, task = estimator("linear", "classification", contract, regularisation=1e3, space=Classical(iterations_per_epoch=2))
    X, y = task.train.arrays()
    losses = []
    for epoch in range(1, 6):
        linear.fit_epochs(X, y, epoch - 1, epoch, seed=0)
        assert max(linear.sklearn.n_iter_) <= 2
        losses.append(-np.log(linear.predict_scores(X)[np.arange(len(y)), y]).mean())
    assert losses[-1] < 0.5 * losses[0], "two steps from scratch each time would give the same loss each time"


def test_few_coefficients_are_found_by_steps_of_newton_of_which_an_epoch_has_a_tenth(contract):
    for features, solver, most in ((5, "newton-cholesky", 2), (60, "lbfgs", 20)):
        linear, task = estimator("linear", "classification", contract, shape=(features,), regularisation=1.0)
        X, y = task.train.arrays()
        linear.fit_epochs(X, y, 0, 1, seed=0)
        assert linear.sklearn.solver == solver
        assert max(linear.sklearn.n_iter_) <= most
        few = linear.predict_scores(X)
        linear.fit_epochs(X, y, 1, 9, seed=0)
        converged = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(X, y).predict_proba(X)
        assert np.abs(linear.predict_scores(X) - converged).max() < 0.01
        assert np.abs(few - converged).max() < 0.3, "an epoch is near the end of the way"


def test_the_share_of_the_data_triples_and_all_steps_cost_at_most_one_and_a_half_fits(contract):
    neighbours, task = estimator("k_neighbours", "classification", contract, neighbours=1, weighting="uniform", n=405)
    X, y = task.train.arrays()
    fitted = []
    for epoch in range(1, 28):
        before = getattr(neighbours.sklearn, "_fit_X", None)
        neighbours.fit_epochs(X, y, epoch - 1, epoch, seed=0)
        if neighbours.sklearn._fit_X is not before:
            fitted.append((epoch, len(neighbours.sklearn._fit_X)))
    assert fitted == [(1, 10), (3, 30), (9, 90), (27, 270)]
    assert sum(rows for _, rows in fitted) <= 1.5 * len(X)


def test_a_larger_share_holds_the_smaller_one_and_the_seed_decides_which_rows(contract):
    def rows(seed, epochs):
        neighbours, task = estimator("k_neighbours", "classification", contract, neighbours=1, weighting="uniform")
        neighbours.fit_epochs(*task.train.arrays(), 0, epochs, seed=seed)
        return {tuple(row) for row in neighbours.sklearn._fit_X}

    assert rows(0, 1) < rows(0, 9) < rows(0, 27)
    assert rows(0, 3) != rows(1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_learns_from_normal_examples_and_ranks_anomalies_first(contract, name):
    space = Classical(estimators=("linear", name))
    params = {"estimator": name, f"{name}.contamination": 0.05, f"{name}.features": 1.0, f"{name}.neighbours": 5, f"{name}.gamma": 0.05}
    task = contract.make_task((5,), "anomaly", n=300)
    detector = space.build(space.sample(FixedTrial(params)), task)
    X, y = task.train.arrays()
    detector.fit_epochs(X, y, 0, 27, seed=0)
    Xv, yv = task.validation.arrays()
    scores = detector.predict_scores(Xv)
    assert scores.shape == (len(Xv),)
    assert scores[yv == 1].min() > scores[yv == 0].max()
    assert (scores[yv == 1] > 0.5).all()
    assert (scores[yv == 0] > 0.5).mean() < 0.2
    without = space.build(space.sample(FixedTrial(params)), task)
    without.fit_epochs(X[y == 0], y[y == 0], 0, 27, seed=0)
    assert np.array_equal(without.predict_scores(Xv), scores)


def test_scores_of_far_outliers_stay_different():
    class Detector:
        _estimator_type = "outlier_detector"

        def decision_function(self, X):
            return -X[:, 0]

    model = FidelityEstimator(Detector(), name="isolation_forest", per_epoch={}, full_epochs=1, detector=True)
    scores = model.predict_scores(np.array([[-1e6], [-1.0], [0.0], [1.0], [1e6], [2e6]]))
    assert (np.diff(scores) > 0).all()
    assert scores[2] == 0.5


def test_a_detector_without_normal_examples_is_rejected(contract):
    detector, _ = estimator("one_class_svm", "anomaly", contract, contamination=0.1, gamma=0.1)
    with pytest.raises(ValueError, match=r"normal examples.*got 0"):
        detector.fit_epochs(np.zeros((5, 2)), np.ones(5), 0, 1, seed=0)


def test_the_kind_of_the_task_decides_who_competes(contract):
    assert serving("classification") == serving("regression") == SUPERVISED
    assert set(DETECTORS) < set(serving("anomaly"))
    for kind in KINDS:
        space = Classical(kind=kind)
        for candidate, _ in contract.trials(space, 12):
            assert isinstance(space.build(candidate, contract.make_task((5,), kind)), Estimator)


@pytest.mark.parametrize(
    ("name", "kind"), [("one_class_svm", "classification"), ("linear", "multilabel"), ("isolation_forest", "regression")]
)
def test_an_estimator_that_cannot_serve_the_task_is_named(contract, name, kind):
    with pytest.raises(ValueError, match=f"{name} cannot serve a task of kind '{kind}'"):
        estimator(name, kind, contract, regularisation=1.0, contamination=0.1, gamma=0.1, features=1.0)


def test_unknown_names_and_no_work_are_refused():
    with pytest.raises(ValueError, match="got 'forest'"):
        Classical(estimators=("forest",))
    with pytest.raises(ValueError, match=r"Classical\.trees_per_epoch must be a whole number >= 1, got 0"):
        Classical(trees_per_epoch=0)


def test_fit_trains_them_epoch_by_epoch_and_continues(contract):
    from joulefront.search.training.fit import fit

    model, task = estimator("extra_trees", "classification", contract, **TREES)
    space = Classical(estimators="extra_trees")
    recipe = space.sample(FixedTrial({f"extra_trees.{key}": value for key, value in TREES.items()})).recipe
    first = fit(model, task, recipe, epochs=1)
    again, _ = estimator("extra_trees", "classification", contract, **TREES)
    second = fit(again, task, recipe, epochs=3, start=first.checkpoint)
    assert second.epochs == 3
    assert len(second.model.sklearn.estimators_) == 24
    assert second.quality["accuracy"] > 0.8
