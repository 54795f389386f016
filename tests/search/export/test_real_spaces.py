"""The families that ship with joulefront survive an export: rebuilt from stored parameters alone, checked on real digits."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from joulefront.search.export import ExportFailed, export
from joulefront.spaces.classical import SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.timm_zoo import TimmZoo
from joulefront.spaces.union import Union

pytestmark = pytest.mark.slow


class RandomTrial:
    """Answers a space at random and remembers what it answered: what Optuna would store."""

    def __init__(self, seed: int) -> None:
        self.random, self.params = random.Random(seed), {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        return self.params.setdefault(name, self.random.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self.params.setdefault(name, self.random.randint(low, high))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.params.setdefault(name, self.random.choice(list(choices)))


def stored(space: Any, seed: int) -> dict[str, Any]:
    draw = RandomTrial(seed)
    space.sample(draw)
    return draw.params


RECIPE = RecipeRanges(learning_rate=(1e-3, 1e-2))


@pytest.mark.parametrize(("seed", "to"), [(0, "onnx"), (1, "onnx"), (2, "pt2"), (3, "safetensors"), (4, "safetensors")])
def test_the_networks_of_the_digits_study(make, tmp_path, seed, to):
    space = Union(Convnet(depths=(1, 3), widths=(4, 16), recipe=RECIPE), Mlp(recipe=RECIPE))
    ready = make("union", space=space, epochs=1, params=stored(space, seed))
    assert export(**ready.arguments, to=to, out=tmp_path / "model").check.max_abs_difference <= 1e-4


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_timm_networks_at_a_resolution_of_their_own(make, tmp_path, name):
    space = TimmZoo(models=(name,), recipe=RecipeRanges(learning_rate=(1e-3, 1e-2), resolution=(32,)))
    ready = make(name, space=space, epochs=1, params=stored(space, 0))
    for to in ("onnx", "pt2") if name == "test_vit" else ("onnx",):
        exported = export(**ready.arguments, to=to, out=tmp_path / to)
        assert exported.check.max_abs_difference <= 1e-4
        assert exported.check.quality_exported == exported.check.quality_model


@pytest.mark.parametrize("estimator", SUPERVISED)
@pytest.mark.parametrize(("kind", "task"), [("classification", "rows"), ("regression", "diabetes")])
def test_classical_estimators_go_to_onnx_and_skops(make, tmp_path, estimator, kind, task):
    space = Classical(kind=kind, estimators=(estimator,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs of a solver do not converge
        ready = make(estimator, task, space=space, params=stored(space, 1))
        for to in ("onnx", "skops"):
            assert export(**ready.arguments, to=to, out=tmp_path / to).check.max_abs_difference <= 1e-4


@pytest.mark.parametrize("estimator", ["decision_tree", "random_forest", "k_neighbours"])
def test_several_labels_go_to_skops(make, tmp_path, estimator):
    space = Classical(kind="multilabel", estimators=(estimator,))
    ready = make(estimator, "labels", space=space, params=stored(space, 1))
    assert export(**ready.arguments, to="skops", out=tmp_path / "model").check.decisions_changed == 0


@pytest.mark.parametrize("estimator", ["isolation_forest", "local_outlier_factor", "one_class_svm"])
def test_detectors_go_to_onnx_and_skops(make, tmp_path, estimator):
    space = Classical(kind="anomaly", estimators=(estimator,))
    ready = make(estimator, "anomalies", space=space, params={**space.defaults(), "estimator": estimator})
    assert export(**ready.arguments, to="skops", out=tmp_path / "skops").check.max_abs_difference == 0.0
    assert export(**ready.arguments, to="onnx", out=tmp_path / "onnx").check.max_abs_difference <= 1e-4


def test_what_skl2onnx_gets_wrong_is_not_handed_out(make, tmp_path):
    """A tree with several labels loses its probabilities on the way; the check sees it, the user gets a format that works."""
    space = Classical(kind="multilabel", estimators=("decision_tree",))
    ready = make("decision_tree", "labels", space=space, params=stored(space, 1))
    with pytest.raises(ExportFailed, match=r"outputs differ .* use --to skops"):
        export(**ready.arguments, to="onnx", out=tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
