import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, OneClassSVM

from joulefront.search.training.estimator import Estimator, SingleEpoch, as_estimator, full_probabilities, plain_scores
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import MemoryData
from joulefront.search.training.task import Task


class Labels:
    """A classifier that has nothing but predict."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)

    def predict(self, X):
        return self.classes_[(X[:, 0] * 100).astype(int) % len(self.classes_)]


X, y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(5), LogisticRegression(), RidgeClassifier(), SVC(), Labels()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_probabilities_that_agree_with_predict(model, classes):
    rows = y < classes
    model.fit(X[rows], y[rows])
    scores = plain_scores(model, X)
    assert scores.shape == (200, classes)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    if not isinstance(model, (SVC, RandomForestClassifier)):  # these break ties in their own way
        np.testing.assert_array_equal(scores.argmax(axis=1), model.predict(X))


@pytest.mark.parametrize("model", [IsolationForest(random_state=0), OneClassSVM(), LocalOutlierFactor(novelty=True)], ids=str)
def test_detectors_call_an_anomaly_what_scores_over_one_half(model):
    model.fit(X)
    scores = plain_scores(model, X * 3)
    assert scores.shape == (200,)
    np.testing.assert_array_equal(scores > 0.5, model.predict(X * 3) == -1)


def test_a_regressor_gives_its_values():
    model = LinearRegression().fit(X, y)
    np.testing.assert_allclose(plain_scores(model, X), model.predict(X))


def test_a_plain_estimator_works_in_its_first_epoch_alone():
    fits = []

    class Counting(LogisticRegression):
        def fit(self, X, y):
            fits.append(len(X))
            return super().fit(X, y)

    wrapped = as_estimator(Counting())
    assert isinstance(wrapped, SingleEpoch)
    for epoch in range(3):
        wrapped.fit_epochs(X, y, epoch, epoch + 1, seed=0)
    assert fits == [200]


def test_the_seed_reaches_the_estimator():
    wrapped = SingleEpoch(RandomForestClassifier(3))
    wrapped.fit_epochs(X, y, 0, 1, seed=2**40 + 7)
    assert wrapped.sklearn.random_state == 7


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"must be a torch.nn.Module or have fit and predict"):
        as_estimator("resnet18")


def test_an_own_wrapper_is_taken_as_it_is():
    wrapper = SingleEpoch(LogisticRegression())
    assert isinstance(wrapper, Estimator)
    assert as_estimator(wrapper) is wrapper


def test_classes_that_training_never_saw_get_probability_zero(spots):
    model = LogisticRegression().fit(X[y != 1], y[y != 1])
    task = Task("t", "classification", spots.train, spots.validation, None, (6,), ("a", "b", "c"))
    full = full_probabilities(plain_scores(model, X), model, task)
    assert full.shape == (200, 3)
    assert (full[:, 1] == 0).all()


def test_the_seed_reaches_the_steps_of_a_pipeline():
    def scores(seed):
        model = SingleEpoch(make_pipeline(StandardScaler(), RandomForestClassifier(5)))
        model.fit_epochs(X, y, 0, 1, seed)
        return model.predict_scores(X)

    assert np.array_equal(scores(3), scores(3))
    assert not np.array_equal(scores(3), scores(4))


def test_a_forest_of_several_labels_gives_the_probability_of_each():
    labels = np.stack([y == 1, y == 2, np.zeros(len(y))], axis=1).astype(int)
    model = RandomForestClassifier(10, random_state=0).fit(X, labels)
    scores = plain_scores(model, X)
    assert scores.shape == (200, 3)
    assert (scores[:, 2] == 0).all()
    assert ((scores[:, :2] > 0.5) == labels[:, :2]).mean() > 0.95


def test_a_class_in_place_of_an_instance_and_a_regressor_of_classes_are_refused_in_plain_words():
    with pytest.raises(ValueError, match=r"must be an instance, got the class LinearRegression; return LinearRegression\(\.\.\.\)"):
        as_estimator(LinearRegression)
    data = MemoryData(torch.tensor(X, dtype=torch.float32), torch.tensor(y))
    task = Task("t", "classification", data, data, None, (6,), ("a", "b", "c"))
    with pytest.raises(ValueError, match="must be a classifier, got the values of LinearRegression; one has classes_"):
        evaluate(LinearRegression().fit(X, y), task, data, recipe=Recipe())
