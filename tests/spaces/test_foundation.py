"""Foundation models of tables with a stub of their libraries' interface: what they are given, stored without weights, and refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from joulefront.search.export.model import ExportFailed
from joulefront.search.export.write import export
from joulefront.search.records.trial import Trial
from joulefront.search.space import NearestTrial
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.checkpoint import load_weights, save_weights
from joulefront.search.training.fit import fit
from joulefront.spaces.foundation import Foundation, find_weights


class Stub:
    """The signature that both libraries share: weights by path, rows by ``fit``; answers with the class of the nearest row."""

    made: ClassVar[list[dict[str, object]]] = []

    def __init__(self, *, model_path: str, device: str, n_estimators: int, random_state: int, **options: object) -> None:
        assert Path(model_path).is_file()
        self.made.append({"model_path": model_path, "device": device, "n_estimators": n_estimators, **options})

    def fit(self, X: np.ndarray, y: np.ndarray) -> Stub:
        self.X, self.y, self.classes_ = X, y, np.unique(y)
        self.made[-1]["rows"] = len(X)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        nearest = self.y[((X[:, None] - self.X[None]) ** 2).sum(axis=2).argmin(axis=1)]
        return (nearest[:, None] == self.classes_[None]).astype(float)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of weights, and a stub in the place of TabICL."""
    module = ModuleType("tabicl")
    module.__spec__, module.TabICLClassifier = ModuleSpec("tabicl", None), Stub
    monkeypatch.setitem(sys.modules, "tabicl", module)
    monkeypatch.setattr(Stub, "made", [])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tabicl-classifier-v2-20260212.ckpt").write_bytes(b"weights")
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3)).astype(np.float32)
    return arrays(X, (X[:, 0] > 0).astype(int))


def test_it_is_a_space_like_every_other(weights, contract):
    contract.check(Foundation(folder=str(weights)), contract.make_task((5,)), 3)


def test_rows_are_the_context_and_an_epoch_is_a_share_of_them(weights, task):
    space = Foundation(folder=str(weights), members=4)
    candidate = space.sample(NearestTrial({}))
    for epochs in (1, 27):
        fitted = fit(space.build(candidate, task), task, candidate.recipe, epochs=epochs, seed=3)
    rows = [one["rows"] for one in Stub.made if one["rows"]]
    assert rows[0] == 16
    assert rows[-1] == len(task.train)
    given = Stub.made[-1]
    assert {given["device"], given["n_estimators"], given["allow_auto_download"]} == {"cpu", 4, False}
    assert fitted.quality["accuracy"] > 0.8


def test_a_stored_model_has_rows_and_no_weights_and_wants_the_same_ones(weights, task, tmp_path):
    space = Foundation(folder=str(weights), members=1)
    candidate = space.sample(NearestTrial({}))
    fitted = fit(space.build(candidate, task), task, candidate.recipe, epochs=27, seed=3)
    file = tmp_path / "trial-00000.weights"
    sha256 = save_weights(file, fitted, with_checkpoint=True)
    X = task.validation.arrays()[0]
    again = load_weights(file, space.build(candidate, task), sha256)
    np.testing.assert_array_equal(again.predict_scores(X), fitted.model.predict_scores(X))
    trial = Trial(0, "complete", {"members": 1}, 27, artifact=file.name, artifact_sha256=sha256)
    study = Study("t", task, replace(space, members=(1,)), trials=1)
    with pytest.raises(ExportFailed, match="no exported file holds; pick another trial"):
        export(trial, study=study, task=task, weights=file, to="onnx", out=tmp_path / "out")
    next(weights.iterdir()).write_bytes(b"others")
    with pytest.raises(ValueError, match="must be the weights that the search used"):
        load_weights(file, space.build(candidate, task), sha256).predict_scores(X)


def test_what_is_missing_is_said(weights, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="must be a folder with weights of tabicl or tabpfn"):
        find_weights(tmp_path / "nowhere", regression=False)
    with pytest.raises(ValueError, match=r"must hold a file like tabicl-regressor-\*.ckpt .* it holds tabicl-classifier"):
        find_weights(weights, regression=True)
    (weights / "tabpfn-v2-regressor.ckpt").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "tabpfn", None)
    monkeypatch.setattr("joulefront.spaces.foundation.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'joulefront\[tabpfn\]'"):
        find_weights(weights, regression=True)
