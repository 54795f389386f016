import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from joulefront.search.training.arrays import dataset
from joulefront.search.training.evaluate import area_under_curve, quality
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.results import TrainingFailed


def probabilities(random, n, k, *, ties=False):
    raw = random.dirichlet(np.ones(k), n)
    return np.round(raw, 1) / np.round(raw, 1).sum(axis=1, keepdims=True) if ties else raw


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 60), st.booleans())
def test_classification_equals_scikit_learn(seed, classes, n, ties):
    random = np.random.default_rng(seed)
    scores = probabilities(random, n, classes, ties=ties)
    targets = random.integers(0, classes, n)
    found = quality("classification", scores, targets)
    predicted = scores.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that occur only in predictions
        assert found["accuracy"] == pytest.approx(oracle.accuracy_score(targets, predicted))
        assert found["error"] == pytest.approx(oracle.zero_one_loss(targets, predicted))
        assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(targets, predicted))
        assert found["macro_f1"] == pytest.approx(oracle.f1_score(targets, predicted, average="macro"))
    truth = scores[np.arange(n), targets]
    assert found["loss"] == pytest.approx(-np.log(np.clip(truth, np.finfo(np.float32).eps, 1)).mean())
    if len(np.unique(targets)) == classes:
        expected = (
            oracle.roc_auc_score(targets, scores[:, 1])
            if classes == 2
            else oracle.roc_auc_score(targets, scores, multi_class="ovr", average="macro")
        )
        assert found["auc"] == pytest.approx(expected)


def test_log_loss_equals_scikit_learn():
    random = np.random.default_rng(0)
    scores, targets = probabilities(random, 100, 4).astype(np.float32), random.integers(0, 4, 100)
    assert quality("classification", scores, targets)["loss"] == pytest.approx(oracle.log_loss(targets, scores), rel=1e-5)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 40))
def test_multilabel_equals_scikit_learn_label_by_label(seed, labels, n):
    random = np.random.default_rng(seed)
    scores, targets = random.random((n, labels)), random.integers(0, 2, (n, labels)).astype(np.float32)
    found = quality("multilabel", scores, targets)
    predicted = (scores > 0.5).astype(int)
    assert found["accuracy"] == pytest.approx((predicted == targets).all(axis=1).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = [oracle.f1_score(targets[:, k], predicted[:, k], zero_division=0) for k in range(labels)]
        balanced = [oracle.balanced_accuracy_score(targets[:, k], predicted[:, k]) for k in range(labels)]
    assert found["macro_f1"] == pytest.approx(np.mean(each))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    areas = [oracle.roc_auc_score(targets[:, k], scores[:, k]) for k in range(labels) if 0 < targets[:, k].sum() < n]
    assert found.get("auc") == (pytest.approx(np.mean(areas)) if areas else None)


def test_regression_equals_scikit_learn_in_the_users_unit():
    random = np.random.default_rng(0)
    targets, values = random.normal(size=50), random.normal(size=50)
    found = quality("regression", values, targets, scale=(100.0, 7.0))
    truth, guess = targets * 7 + 100, values * 7 + 100
    assert found["r2"] == pytest.approx(oracle.r2_score(truth, guess))
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(truth, guess))
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(truth, guess))
    assert found["loss"] == pytest.approx(oracle.mean_squared_error(targets, values))


@pytest.mark.parametrize("guess", [3.0, 2.0])
def test_r2_of_a_constant_target_is_that_of_scikit_learn(guess):
    targets, values = np.full(5, 3.0), np.full(5, guess)
    assert quality("regression", values, targets)["r2"] == oracle.r2_score(targets, values)


def test_anomaly_scores_may_have_one_column_or_two():
    random = np.random.default_rng(0)
    targets, score = random.integers(0, 2, 80), random.random(80)
    one = quality("anomaly", score, targets)
    assert one == quality("anomaly", np.stack([1 - score, score], axis=1), targets)
    assert one["auc"] == pytest.approx(oracle.roc_auc_score(targets, score))
    assert one["f1"] == pytest.approx(oracle.f1_score(targets, score > 0.5))


def test_what_cannot_be_known_is_absent():
    scores = np.array([[0.2, 0.8], [0.6, 0.4]])
    found = quality("classification", scores, np.array([1, 1]))
    assert "auc" not in found
    assert found["balanced_accuracy"] == 0.5  # over the classes that occur


def test_imbalance_shows_in_the_metrics_that_weigh_classes_alike():
    targets = np.repeat([0, 1], [95, 5])
    always = np.tile([0.9, 0.1], (100, 1))
    found = quality("classification", always, targets)
    assert found["accuracy"] == 0.95
    assert found["balanced_accuracy"] == 0.5
    assert found["auc"] == 0.5
    assert found["macro_f1"] < 0.5


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    scores = np.array([score for score, _ in pairs], dtype=float)
    positive = np.array([flag for _, flag in pairs])
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[positive] for b in scores[~positive]]
    assert area_under_curve(scores, positive) == (pytest.approx(np.mean(wins)) if wins else None)


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        ((torch.zeros(4, 3),), "tuple"),
        ({"logits": torch.zeros(4, 3)}, "dict"),
        (np.zeros((4, 3)), "ndarray"),
        (None, "NoneType"),
        (torch.zeros(4, 1), r"torch.float32 \(4, 1\)"),
        (torch.zeros(3, 3), r"torch.float32 \(3, 3\)"),
        (torch.zeros(()), r"torch.float32 \(\)"),
        (torch.zeros(4, 3, dtype=torch.complex64), r"torch.complex64 \(4, 3\)"),
        (torch.zeros(4, 3, dtype=torch.int64), r"torch.int64 \(4, 3\)"),
    ],
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_model_that_answers_anything_but_a_row_an_example_is_told_so(outputs, got, mode):
    class Odd(torch.nn.Linear):
        def forward(self, x):
            return outputs if self.training == (mode == "train") else super().forward(x)

    rows = [(torch.zeros(2), k % 3) for k in range(4)]
    task = dataset(rows, list(rows), classes="abc")
    with pytest.raises(TrainingFailed, match=rf"must return a tensor of floats \(4, 3\), got {got}; return its logits alone"):
        fit(Odd(2, 3), task, Recipe(threads=1, batch_size=4), epochs=1)
