"""scikit-learn models on disk, read back only where every type in the file is on a list.

The files are skops': a schema in JSON, whose nodes name the type to be made and the loader that makes it, and arrays beside it. Some
loaders *call* what a node names, so a name is never trusted for its package: a file is read only if each of its nodes is one of the
pairs below. They are what the bundled families store; the types of a model that the user's own study has built may be added.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Classes of scikit-learn whose attributes are set without a call, by module.
_OBJECTS = {
    "_loss.link": ("HalfLogitLink", "IdentityLink", "Interval", "LogitLink", "MultinomialLogit"),
    "_loss.loss": ("HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError"),
    "ensemble._forest": ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"),
    "ensemble._hist_gradient_boosting.binning": ("_BinMapper",),
    "ensemble._hist_gradient_boosting.gradient_boosting": ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
    "ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "metrics._dist_metrics": ("EuclideanDistance32", "EuclideanDistance64"),
    **{"ensemble._iforest": ("IsolationForest",), "preprocessing._label": ("LabelEncoder",), "svm._classes": ("OneClassSVM",)},
    **{"linear_model._coordinate_descent": ("ElasticNet",), "linear_model._logistic": ("LogisticRegression",)},
    **{"neighbors._ball_tree": ("BallTree",), "neighbors._kd_tree": ("KDTree",), "neighbors._lof": ("LocalOutlierFactor",)},
    **{"neighbors._classification": ("KNeighborsClassifier",), "neighbors._regression": ("KNeighborsRegressor",)},
    "tree._classes": ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"),
}
#: Loaders of skops that hold plain data, make a type without calling it, or fill one of the types below, each with what it may name.
#: Source: the schemas that skops 0.16 writes for the families of ``spaces/classical.py``, and skops' ``io/_sklearn.py``, ``io/_numpy.py``.
NODES: Mapping[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "JsonNode": frozenset({"builtins.str", "builtins.int", "builtins.float", "builtins.bool", "builtins.NoneType"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "SparseMatrixNode": frozenset(
        f"scipy.sparse._{kind}.{kind}_{shape}" for kind in ("csr", "csc", "coo") for shape in ("array", "matrix")
    ),
    "TypeNode": frozenset(f"builtins.{name}" for name in ("str", "int", "float", "bool", "object")) | {"numpy.float64", "numpy.int64"},
    "NdArrayNode": frozenset(
        {"numpy.ndarray", "numpy.bool", "numpy.bool_", "numpy.str_", "numpy.uint8"}
        | {f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (32, 64)}
        | {f"numpy.float{bits}" for bits in (32, 64)}
    ),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "LossNode": frozenset(f"sklearn._loss._loss.Cy{name}" for name in ("HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError"))
    | frozenset(f"sklearn.linear_model._sgd_fast.{name}" for name in ("Hinge", "Log", "ModifiedHuber", "SquaredLoss", "Huber")),
    "ObjectNode": frozenset(f"sklearn.{module}.{name}" for module, names in _OBJECTS.items() for name in names)
    | {"joulefront.search.training.boosted.BoostedTrees"}  # bytes of a tree model, which its library reads
    | {"joulefront.search.training.blend.Blend"}  # others of this list, and their weights
    | {"joulefront.spaces.foundation.InContext"},  # rows; which weights are loaded the space says
}
#: What estimators outside of the bundled families hold when they are fitted, read for models of a user's own study alone.
INTERNALS = frozenset(
    {
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(f"sklearn.gaussian_process.kernels.{name}" for name in ("ConstantKernel", "Matern", "Product", "RBF", "Sum", "WhiteKernel")),
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    }
)
#: No schema of ours is larger; a larger one is not parsed at all.
LARGEST_SCHEMA_BYTES = 256 << 20


def is_sklearn_file(path: Path) -> bool:
    """Whether a weights file is one of skops'; nothing in it is made. A file that is no ZIP archive, as all are, raises ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "schema.json" in archive.namelist()
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a weights file of this project, got one that is damaged or of another kind ({error})") from None


def types_of(model: Any) -> frozenset[str]:
    """Names of the estimators that the file of a model may hold beside the listed ones; ``model`` is what the study has built.

    A bundled family needs none. A model of the user's own study may hold its own class and, since estimators hold one another once they
    are fitted, all those of the installed scikit-learn: classes with their attributes set, none of which is called.
    """
    if _name(type(model)) in NODES["ObjectNode"]:
        return frozenset()
    from sklearn.utils import all_estimators

    return frozenset({_name(type(model)), *(_name(kind) for _, kind in all_estimators())}) | INTERNALS


def foreign_types(path: Path, own: frozenset[str] = frozenset()) -> list[str]:
    """Return what a skops file would make that is not on the list nor among ``own``, as ``loader of type``; empty when it may be read.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("schema.json").file_size > LARGEST_SCHEMA_BYTES:
                return ["a schema of more than 256 MiB"]
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, RecursionError) as error:
        raise ValueError(f"{path} must be a skops file, got one that is damaged: {error}") from None
    listed = frozenset.union(own, *NODES.values())
    found = set()
    for node in _nodes(schema):
        loader, name = str(node.get("__loader__")), f"{node.get('__module__')}.{node.get('__class__')}"
        # A cached node is a second reference to what another node makes.
        allowed = listed if loader == "CachedNode" else NODES.get(loader, frozenset()) | (own if loader == "ObjectNode" else frozenset())
        if name not in allowed:
            found.add(f"{loader} of {name}")
    return sorted(found)


def load_sklearn(path: Path, own: frozenset[str] = frozenset()) -> Any:
    """Read a skops file whose every node is on the list, or among the ``own`` estimators, see ``types_of``.

    Raises:
        ValueError: If the file is damaged or holds anything else; nothing of it has been made then.
    """
    foreign = foreign_types(path, own)
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise ValueError(
            f"{path} must hold scikit-learn models of the listed types only, got {shown}; the file was not read: "
            "it comes from another version or from somebody who wants code to run"
        )
    import skops.io

    try:
        return skops.io.load(path, trusted=sorted(frozenset.union(own, *NODES.values())))
    except Exception as error:  # skops, numpy and zipfile each have their own for a damaged file
        raise ValueError(f"{path} must be a whole skops file, got one that is damaged: {type(error).__name__}: {error}") from error


def trusted_in(path: Path) -> list[str]:
    """Types of a file that skops does not trust by itself, all of them on the list: what a reader of the file has to name."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=path)) & frozenset.union(*NODES.values()))


def _nodes(item: Any) -> Iterator[Mapping[str, Any]]:
    stack = [item]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if "__loader__" in item or "__class__" in item or "__module__" in item:
                yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
