"""Trainings that end because they do not get better."""

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe

pytestmark = pytest.mark.slow


def test_patience_stops_a_training_that_does_not_get_better(spots, net):
    frozen = Recipe(batch_size=32, optimizer="sgd", learning_rate=1e-12, schedule="constant", patience=2, momentum=0.0)
    model = net(spots)
    model[1] = torch.nn.Identity()  # batch statistics would move without any learning
    fitted = fit(model, spots, frozen, epochs=9)
    assert fitted.epochs == 3
    assert "patience" in fitted.stopped
    assert all(point.quality is not None for point in fitted.curve)


@pytest.fixture
def skewed(monkeypatch):
    """Every validation finds the same accuracy, and less of an error with each epoch."""

    def validated(*given):
        epoch = given[-1]
        found = {"accuracy": 0.9, "balanced_accuracy": 0.5 + epoch / 100, "error": 0.5 - epoch / 100, "loss": 1.0}
        return found, (np.zeros(1), np.zeros(1))

    monkeypatch.setattr("joulefront.search.training.fit._validate", validated)


@pytest.mark.parametrize("network", [True, False])
@pytest.mark.parametrize(("metric", "epochs"), [("balanced_accuracy", 4), ("error", 4), ("", 2), ("loss", 2), ("train_energy", 2)])
def test_patience_looks_at_the_quality_of_the_study_or_at_that_of_the_task(spots, net, skewed, metric, epochs, network):
    model = net(spots) if network else GaussianNB()
    fitted = fit(model, spots, Recipe(batch_size=256, patience=1), epochs=4, metric=metric)
    assert fitted.epochs == epochs
    assert (fitted.stopped is None) == (epochs == 4)
    if fitted.stopped is not None:
        assert f"no better validation {metric if metric == 'loss' else 'accuracy'} in 1 epochs" in fitted.stopped


@pytest.mark.parametrize("network", [True, False])
def test_patience_does_not_compare_with_another_quality_of_an_earlier_session(spots, net, skewed, network):
    model = net(spots) if network else GaussianNB()
    recipe = Recipe(batch_size=256, schedule="constant", patience=2)
    before = fit(model, spots, recipe, epochs=2)
    old = {name: value for name, value in before.checkpoint.items() if name != "metric"}  # of a version that always took the task's own
    assert fit(model, spots, recipe, epochs=5, start=old).epochs == 3
    assert fit(model, spots, recipe, epochs=5, start=old, metric="balanced_accuracy").epochs == 5
    assert fit(model, spots, recipe, epochs=5, start=before.checkpoint, metric="balanced_accuracy").epochs == 5
