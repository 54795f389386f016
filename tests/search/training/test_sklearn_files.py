"""Files of scikit-learn models: what bundled families store comes back, and nothing a hostile file names is ever called."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelSpreading
from skops.io._audit import NODE_TYPE_MAPPING

from joulefront.search.space import RandomTrial
from joulefront.search.training.checkpoint import (
    NODES,
    foreign_types,
    is_sklearn_file,
    load_checkpoint,
    load_sklearn,
    load_weights,
    trusted_in,
)
from joulefront.spaces.classical import Classical, serving

X = np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
TARGETS = {
    "classification": np.digitize(X[:, 0], [-0.5, 0.5]),
    "regression": X[:, 0] * 2,
    "anomaly": (X[:, 0] > 1.8).astype(float),
    "multilabel": (X[:, :3] > 0).astype(int),
}
FAMILIES = [(kind, name) for kind in TARGETS for name in serving(kind)]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file as a trial leaves it."""
    skops.io.dump({"sklearn": RandomForestClassifier(3).fit(X, TARGETS["classification"]), "checkpoint": None}, tmp_path / "good")
    return tmp_path / "good"


def crafted(good: Path, node: dict[str, Any], name: str = "bad") -> Path:
    """The file with one more entry in its dictionary: what a stranger could have put there."""
    target = good.with_name(name)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(target, "w") as archive:
        for item in source.namelist():
            data = source.read(item)
            if item == "schema.json":
                schema = json.loads(data)
                schema["content"]["extra"] = node
                schema["key_types"]["content"].append(schema["key_types"]["content"][0])
                data = json.dumps(schema).encode()
            archive.writestr(item, data)
    return target


def calls(marker: Path) -> dict[str, Any]:
    """A reduce node that calls numpy's test helper, which executes a string."""
    code = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "is_json": True, "__id__": 901}
    arguments = [
        {**code, "content": json.dumps(f"open({str(marker)!r}, 'w')")},
        {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}, "__id__": 902}
        | {"key_types": {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [], "__id__": 903}},
    ]
    content = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": arguments, "__id__": 904}
    return {
        "__class__": "runstring",
        "__module__": "numpy.testing._private.utils",
        "__loader__": "ConstructorFromReduceNode",
        "content": content,
        "__id__": 905,
    }


def test_the_attack_works_on_a_reader_that_trusts_what_the_file_names(good: Path, tmp_path: Path) -> None:
    bad = crafted(good, calls(tmp_path / "ran"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # the code has run by then
            skops.io.load(bad, trusted=skops.io.get_untrusted_types(file=bad))
    assert (tmp_path / "ran").exists(), "this file is no test of anything if it cannot run code anywhere"


@pytest.mark.parametrize("reader", ["weights", "checkpoint", "load"])
def test_a_file_that_calls_something_is_refused_before_anything_of_it_is_made(good: Path, tmp_path: Path, reader: str) -> None:
    bad = crafted(good, calls(tmp_path / "ran"))
    read = {
        "weights": lambda: load_weights(bad, RandomForestClassifier()),
        "checkpoint": lambda: load_checkpoint(bad, RandomForestClassifier()),
        "load": lambda: load_sklearn(bad),
    }[reader]
    with pytest.raises(ValueError, match=r"ConstructorFromReduceNode of numpy\.testing"):
        read()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", sorted({loader for loader, _ in NODE_TYPE_MAPPING}))
@pytest.mark.parametrize("target", ["builtins.eval", "numpy.testing._private.utils.runstring", "sklearn.utils.validation.check_array"])
def test_no_loader_of_skops_may_name_a_function(good: Path, loader: str, target: str) -> None:
    module, _, name = target.rpartition(".")
    bad = crafted(good, {"__class__": name, "__module__": module, "__loader__": loader, "content": None, "__id__": 900})
    assert foreign_types(bad) == [f"{loader} of {target}"]
    with pytest.raises(ValueError, match="listed types only"):
        load_sklearn(bad)


def test_a_type_on_the_list_is_not_trusted_to_another_loader(good: Path) -> None:
    bad = crafted(good, {"__class__": "Tree", "__module__": "sklearn.tree._tree", "__loader__": "ConstructorFromReduceNode", "__id__": 900})
    assert foreign_types(bad) == ["ConstructorFromReduceNode of sklearn.tree._tree.Tree"]


def test_a_node_without_a_loader_is_foreign(good: Path) -> None:
    assert foreign_types(crafted(good, {"__class__": "eval", "__module__": "builtins"})) == ["None of builtins.eval"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), FAMILIES)
def test_what_a_bundled_family_stores_comes_back(kind: str, name: str, tmp_path: Path) -> None:
    space = Classical(kind=kind, estimators=(name,))  # type: ignore[arg-type]
    task = SimpleNamespace(kind=kind, outputs=3, classes=("a", "b", "c"))
    candidate = space.sample(RandomTrial(0))
    model = space.build(candidate, task)  # type: ignore[arg-type]
    model.fit_epochs(X, TARGETS[kind], 0, 3, 0)
    skops.io.dump({"sklearn": model.sklearn, "checkpoint": {"epochs": 3, "patience": {"best": float("-inf")}}}, tmp_path / "w")
    assert foreign_types(tmp_path / "w") == []
    restored = load_sklearn(tmp_path / "w")["sklearn"]
    method = "decision_function" if hasattr(restored, "decision_function") else "predict"
    assert np.allclose(getattr(restored, method)(X), getattr(model.sklearn, method)(X))
    assert set(trusted_in(tmp_path / "w")) == set(skops.io.get_untrusted_types(file=tmp_path / "w"))


OWN = [
    make_pipeline(ColumnTransformer([("numbers", StandardScaler(), [0, 1]), ("codes", OneHotEncoder(), [5])]), RidgeClassifier()),
    LabelSpreading(kernel="knn"),
    MLPClassifier(max_iter=3),
    SGDClassifier(),
    GradientBoostingClassifier(n_estimators=2),
]


@pytest.mark.parametrize("model", OWN, ids=lambda model: type(model).__name__)
@pytest.mark.filterwarnings("ignore")
def test_the_estimators_of_a_users_own_study_are_read_for_that_study_alone(model: Any, tmp_path: Path) -> None:
    inputs = np.c_[X, np.arange(len(X)) % 3]
    fitted = clone(model).fit(inputs, TARGETS["classification"])
    skops.io.dump({"sklearn": fitted, "checkpoint": None}, tmp_path / "w")
    restored = load_weights(tmp_path / "w", clone(model)).sklearn
    assert (restored.predict(inputs) == fitted.predict(inputs)).all()
    with pytest.raises(ValueError, match=rf"sklearn\..*{type(model).__name__}"):
        load_weights(tmp_path / "w", RandomForestClassifier())
    with pytest.raises(ValueError, match="listed types only"):
        load_weights(crafted(tmp_path / "w", calls(tmp_path / "ran")), clone(model))
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_said_to_be_damaged(good: Path) -> None:
    data = good.read_bytes()
    for cut in (0, 1, len(data) // 2, len(data) - 30):
        good.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="damaged"):
            is_sklearn_file(good) and load_sklearn(good)
    shutil.copy(__file__, good)
    with pytest.raises(ValueError, match="damaged or of another kind"):
        is_sklearn_file(good)


def test_the_list_names_types_and_no_packages() -> None:
    assert all(name.count(".") >= 1 and not name.endswith((".", "*")) for names in NODES.values() for name in names)
    assert not {loader for loader in NODES if any(word in loader for word in ("Reduce", "Function", "Method", "Partial", "Operator"))}
