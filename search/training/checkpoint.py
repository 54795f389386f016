"""Weights, checkpoints and scikit-learn models on disk, in files that run no code when they are read.

The files of scikit-learn are skops': a schema in JSON, whose nodes name the type to be made and the loader that makes it, and arrays beside
it. Some loaders *call* what a node names, so a name is never trusted for its package: a file is read only if each of its nodes is one of
the pairs below. They are what the bundled families store; the types of a model that the user's own study has built may be added.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..whole_file import sha256_of, whole_file
from .backbone import Transfer
from .estimator import Estimator, as_estimator
from .results import Fitted

#: Classes of scikit-learn whose attributes are set without a call, by module.
_OBJECTS = {
    "_loss.link": ("HalfLogitLink", "IdentityLink", "Interval", "LogitLink", "MultinomialLogit"),
    "_loss.loss": ("HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError"),
    "ensemble._forest": ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"),
    "ensemble._hist_gradient_boosting.binning": ("_BinMapper",),
    "ensemble._hist_gradient_boosting.gradient_boosting": ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
    "ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "metrics._dist_metrics": ("EuclideanDistance32", "EuclideanDistance64"),
    "ensemble._iforest": ("IsolationForest",),
    "preprocessing._label": ("LabelEncoder",),
    "svm._classes": ("OneClassSVM",),
    "linear_model._coordinate_descent": ("ElasticNet",),
    "linear_model._logistic": ("LogisticRegression",),
    "neighbors._ball_tree": ("BallTree",),
    "neighbors._kd_tree": ("KDTree",),
    "neighbors._lof": ("LocalOutlierFactor",),
    "neighbors._classification": ("KNeighborsClassifier",),
    "neighbors._regression": ("KNeighborsRegressor",),
    "tree._classes": ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"),
}
#: Loaders of skops that hold plain data, make a type without calling it, or fill one of the types below, each with what it may name.
#: Source: the schemas that skops 0.16 writes for the families of ``spaces/classical.py``, and skops' ``io/_sklearn.py``, ``io/_numpy.py``.
NODES: Mapping[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict", "sklearn.utils._bunch.Bunch"}),
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
        *(f"sklearn.calibration.{name}" for name in ("_CalibratedClassifier", "_SigmoidCalibration")),
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
            if sum(one.file_size for one in archive.infolist()) > path.stat().st_size:  # it may unpack to more than there is memory
                raise ValueError("its parts are compressed, as ours never are")
            return "schema.json" in archive.namelist()
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a weights file of this project, got one that is damaged or of another kind ({error})") from None


def types_of(model: Any) -> frozenset[str]:
    """Names of what the file of a model may hold beside the listed types; ``model`` is what the study has built.

    A bundled family needs none. A model of the user's own study may hold its own class, those of its parts and its functions, and, since
    estimators hold one another once they are fitted, all estimators of the installed scikit-learn: classes with their attributes set, and
    functions by name, none of which is called.
    """
    if _name(type(model)) in NODES["ObjectNode"]:
        return frozenset()
    from sklearn.utils import all_estimators

    parts = [model, *getattr(model, "get_params", dict)().values()]
    own = {_name(type(part)) for part in parts if hasattr(part, "fit") or hasattr(part, "get_params")}
    own |= {_name(part) for part in parts if callable(part) and hasattr(part, "__name__")}
    return frozenset({*own, *(_name(kind) for _, kind in all_estimators())}) | INTERNALS


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
        # A cached node is a second reference to what another node makes; an object and a function are looked up, and not called.
        more = own if loader in ("ObjectNode", "FunctionNode") else frozenset()
        allowed = listed if loader == "CachedNode" else NODES.get(loader, frozenset()) | more
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


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', None) or 'numpy'}.{getattr(kind, '__qualname__', kind.__name__)}"  # a ufunc may have neither


class DamagedError(ValueError):
    """A weights file is not the one that was written."""


def save_weights(path: str | Path, fitted: Fitted, *, with_checkpoint: bool) -> str:
    """Write a model's measured weights, whole or not at all, and return the SHA-256 of the file in hexadecimal.

    PyTorch's format for a network, skops' for scikit-learn. Of a `Transfer` model the file holds the head and names the backbone, which its
    space builds from the origin of the weights. The checkpoint, what ``fit(start=...)`` needs to continue, makes the file three to four
    times as large.

    Raises:
        OSError: If it cannot be written, e.g. to a full disk; the error names the file.
    """
    path = Path(path)
    checkpoint = fitted.checkpoint if with_checkpoint else None
    with whole_file(path) as unfinished:
        if isinstance(fitted.model, torch.nn.Module):
            model, frozen = fitted.model, fitted.model if isinstance(fitted.model, Transfer) else None
            state = model.state_dict() if frozen is None else frozen.own_state()
            stored = {
                "weights": {name: tensor.detach().cpu() for name, tensor in state.items()},
                "checkpoint": None if checkpoint is None else dict(checkpoint),
                **({} if frozen is None else {"backbone": frozen.backbone.identity}),
            }
            with unfinished.open("wb") as opened:  # by its name, torch would not say why it cannot write
                torch.save(stored, opened)
        else:
            import skops.io

            going_on = None if checkpoint is None else {name: value for name, value in checkpoint.items() if name != "sklearn"}
            skops.io.dump({"sklearn": fitted.model.sklearn, "checkpoint": going_on}, unfinished)
        return sha256_of(unfinished)


def check_weights(path: str | Path, sha256: str | None) -> None:
    """Find out whether a weights file is the one that was written; nothing in it is made.

    Without the ``sha256`` that `save_weights` returned, the parts are compared with the CRC-32 that a ZIP archive holds.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If it is another one.
    """
    path = Path(path)
    _require(path)
    if sha256 is not None:
        if (found := sha256_of(path)) != sha256:
            raise DamagedError(f"{path} is damaged: its SHA-256 must be {str(sha256)[:12]}..., got {found[:12]}...")
        return
    try:
        is_sklearn_file(path)
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as error:  # zipfile raises its own, and those of struct, zlib and the operating system
        raise DamagedError(f"{path} is damaged, or no weights file: {error}") from error
    if bad is not None:
        raise DamagedError(f"{path} is damaged: the CRC-32 of its part {bad} is wrong")


def load_weights(path: str | Path, model: Any, sha256: str | None = None) -> Any:
    """Put stored weights into a freshly built model and return it, ready to predict; ``sha256`` is None where it was not kept.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If it is not the file that was written.
        ValueError: If the file does not fit the model, or holds more than weights.
    """
    check_weights(path, sha256)
    stored = _read(Path(path), model)
    if isinstance(model, torch.nn.Module):
        try:
            (model.load_own_state if isinstance(model, Transfer) else model.load_state_dict)(stored["weights"])
        except (RuntimeError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} must fit the model {type(model).__name__}; has the space changed? {reason}") from error
        return model.eval()
    estimator: Estimator = as_estimator(model)
    estimator.sklearn = stored["sklearn"]
    return estimator


def load_checkpoint(path: str | Path, model: Any) -> Mapping[str, Any] | None:
    """Return what ``fit(start=...)`` needs, or None where the file was written without it.

    The freshly built model says which kind of file is read at all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is of a model of another kind, or holds more than weights.
    """
    stored = _read(Path(path), model)
    checkpoint: Mapping[str, Any] | None = stored["checkpoint"]
    if checkpoint is not None and "sklearn" in stored:
        return {**checkpoint, "sklearn": stored["sklearn"]}
    return checkpoint


def _read(path: Path, model: Any) -> dict[str, Any]:
    """Read a file of the model's kind: what the file claims to be decides nothing."""
    _require(path)
    network, sklearn = isinstance(model, torch.nn.Module), is_sklearn_file(path)
    if network and sklearn:
        raise ValueError(f"{path} must hold the weights of a network, got a scikit-learn model; the space built {type(model).__name__}")
    if not network and not sklearn:
        raise ValueError(f"{path} must hold a scikit-learn model, got the weights of a network; the space built {type(model).__name__}")
    if sklearn:
        stored = load_sklearn(path, types_of(as_estimator(model).sklearn))
    else:
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch, zipfile and pickle each have their own, with advice to load a foreign file all the same
            raise DamagedError(f"{path} must be a weights file of this project, got one that is damaged or foreign") from error
    if not isinstance(stored, dict) or not {"checkpoint", "weights" if network else "sklearn"} <= stored.keys():
        raise ValueError(f"{path} must be a weights file of this project, got {type(stored).__name__} without its parts")
    backbone = model.backbone.identity if isinstance(model, Transfer) else None
    if stored.get("backbone") != backbone:
        raise ValueError(f"{path} must be of a model with the backbone {backbone}, got {stored.get('backbone')}; give the same weights")
    return stored


def _require(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; they are kept only for trials that can still matter")
