"""Other tasks than classes, and other models than networks, are trained by the same loop."""

import contextlib

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression

from joulefront.search.training.arrays import arrays
from joulefront.search.training.evaluate import predict
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe

pytestmark = pytest.mark.slow


def test_predictions_of_a_regression_are_in_the_users_unit(line):
    torch.manual_seed(0)
    fitted = fit(torch.nn.Linear(2, 1), line, Recipe(batch_size=16, learning_rate=3e-2), epochs=12)
    values = predict(fitted.model, line, line.validation, recipe=Recipe())
    truth = line.validation.arrays()[1] * line.target_scale[1] + line.target_scale[0]
    assert values.shape == truth.shape
    assert fitted.quality["rmse"] == pytest.approx(float(np.sqrt(((values - truth) ** 2).mean())), rel=5e-3)
    assert fitted.quality["r2"] > 0.99


def test_multilabel_tasks_train_and_are_measured():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(400, 5))
    task = arrays(inputs, (inputs[:, :3] > 0).astype(int), classes=("a", "b", "c"))
    assert task.kind == "multilabel"
    torch.manual_seed(0)
    fitted = fit(torch.nn.Linear(5, 3), task, Recipe(batch_size=16, learning_rate=5e-2), epochs=10)
    assert fitted.quality["macro_f1"] > 0.9
    assert predict(fitted.model, task, task.test, recipe=Recipe()).shape == (len(task.test), 3)


def test_scikit_learn_goes_the_same_way_as_networks(spots, line):
    seen = []

    def phases(kind, index):
        seen.append((kind, index))
        return contextlib.nullcontext()

    fitted = fit(RandomForestClassifier(n_estimators=20), spots, Recipe(), epochs=2, seed=1, phases=phases)
    assert seen == [("setup", 0), ("epoch", 1), ("epoch", 2), ("eval", 2)]
    assert fitted.quality["accuracy"] > 0.8
    inputs, targets = spots.validation.arrays()
    assert fitted.quality["accuracy"] == pytest.approx(fitted.model.sklearn.score(inputs, targets))
    assert fit(LinearRegression(), line, Recipe(), epochs=1).quality["r2"] == pytest.approx(1.0)


def test_anomaly_detectors_are_scored_without_labels():
    random = np.random.default_rng(0)
    inputs = np.concatenate([random.normal(size=(300, 3)), random.normal(size=(15, 3)) + 6])
    labels = np.repeat([0, 1], [300, 15])
    task = arrays(inputs, labels, kind="anomaly")
    fitted = fit(IsolationForest(), task, Recipe(), epochs=1)
    assert fitted.quality["auc"] > 0.95
    assert {"f1", "macro_f1", "balanced_accuracy"} <= fitted.quality.keys()
