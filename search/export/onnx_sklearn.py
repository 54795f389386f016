"""scikit-learn to ONNX by skl2onnx with three of its gaps closed, and boosted trees: one input, one form of outputs.

The largest gap is k nearest neighbours, converted here in float64, as scikit-learn computes them. LightGBM and XGBoost are converted by
onnxmltools, CatBoost by itself.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..training.boosted import BoostedTrees
from .raw_graph import Nodes

#: Operator sets that every ONNX Runtime since 1.15 supports and skl2onnx has converters for.
OPSETS = {"": 18, "ai.onnx.ml": 3}
#: Metrics that are the Euclidean distance.
EUCLIDEAN = ("euclidean", "l2")
_FLOAT, _DOUBLE, _INT64 = 1, 11, 7  # element types of ONNX's TensorProto
#: Version of each operator in operator set 18.
_VERSIONS = {"Add": 14, "Div": 14, "Mul": 14, "ReduceMean": 18, "ReduceSumSquare": 18, "TopK": 11}
_VERSIONS |= dict.fromkeys(("ArgMax", "Cast", "Gather", "MatMul", "Max", "Reciprocal", "ReduceSum", "Sqrt", "Unsqueeze"), 13)


def convert(estimator: Any, features: int) -> Any:
    """Return the ONNX graph of an estimator with one input ``inputs`` ``(batch, features)``, free in the batch.

    Classifiers give plain probability columns in place of a list of dictionaries. Histogram gradient boosting keeps its tree nodes as
    numpy scalars, which newer versions of onnx refuse as attributes, so they are handed over as Python numbers; of its thresholds skl2onnx
    would write the nearest float32. Neighbours have a converter of our own, ``convert_neighbours``.

    Raises:
        RuntimeError: If skl2onnx has no converter for a part of the estimator; its first line names the part.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common._registration import get_converter
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    from sklearn.base import is_classifier
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    def plain(converter: Any) -> Any:
        def write(scope: Any, operator: Any, container: Any) -> None:
            operator.raw_operator = copy.deepcopy(operator.raw_operator)
            for tree in chain.from_iterable(operator.raw_operator._predictors):
                tree.nodes["num_threshold"] = rounded_down(tree.nodes["num_threshold"])
            converter(scope, operator, PlainNumbers(container))

        return write

    if hasattr(estimator, "flatten_transform"):  # of a VotingClassifier; what it concerns, transform, is not converted
        estimator = copy.copy(estimator).set_params(flatten_transform=False)
    trees = {HistGradientBoostingClassifier: "Classifier", HistGradientBoostingRegressor: "Regressor"}
    converters: dict[Any, Any] = {family: plain(get_converter(f"SklearnHistGradientBoosting{kind}")) for family, kind in trees.items()}
    converters |= {KNeighborsClassifier: convert_neighbours, KNeighborsRegressor: convert_neighbours}
    shapes = {
        KNeighborsClassifier: calculate_linear_classifier_output_shapes,
        KNeighborsRegressor: calculate_linear_regressor_output_shapes,
        HistGradientBoostingClassifier: calculate_linear_classifier_output_shapes,
        HistGradientBoostingRegressor: calculate_linear_regressor_output_shapes,
    }
    make = partial(
        convert_sklearn,
        estimator,
        name="joulefront",
        initial_types=[("inputs", FloatTensorType([None, features]))],
        target_opset=OPSETS,
        custom_conversion_functions=converters,
        custom_shape_calculators=shapes,
    )
    try:
        graph = make(options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None)
    except NameError:  # a family that never writes dictionaries, LinearSVC, does not know the option
        graph = make(options={id(estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator): {}})
    known: Any = getattr(estimator, "classes_", ())
    if is_classifier(estimator) and not isinstance(known, list) and len(known) == 2 and not hasattr(estimator, "predict_proba"):
        _decide_by_one_score(graph, int(known[1]))
    return graph


def _decide_by_one_score(graph: Any, positive: int) -> None:
    """Let the last output be ``decision_function`` ``(batch, 1)``: of two classes skl2onnx writes one score, ``-s, s`` or ``s, -s``."""
    from onnx import helper

    label, scores = (output.name for output in graph.graph.output)
    nodes = Nodes("decision/")
    is_positive = nodes.add("Equal", nodes.add("Reshape", label, np.array([-1, 1])), np.array(positive))
    size = nodes.add("Abs", nodes.add("Gather", scores, np.array([-1]), axis=1))
    nodes.add("Mul", size, nodes.add("Where", is_positive, np.float32(1), np.float32(-1)), names=["decision"])
    nodes.append_to(graph.graph)
    graph.graph.output.pop()
    graph.graph.output.append(helper.make_tensor_value_info("decision", _FLOAT, [None, 1]))


def rounded_down(thresholds: Sequence[float]) -> list[float]:
    """Return thresholds in float32 that divide inputs in float32, at or below and above, as those in float64 do."""
    exact = np.asarray(thresholds, dtype=np.float64)
    near = exact.astype(np.float32)
    down = np.where(near.astype(np.float64) > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return [float(value) for value in down]


class PlainNumbers:
    """A container of skl2onnx whose nodes get Python numbers as attributes; everything else passes through."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> Any:
        """Add a node whose list attributes are freed of numpy scalars."""
        return self._container.add_node(*args, **{name: _plain(value) for name, value in attributes.items()})


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    numbers = [item.item() if hasattr(item, "item") else item for item in value]
    return [int(number) if isinstance(number, bool) else number for number in numbers]


def convert_neighbours(scope: Any, operator: Any, container: Any) -> None:
    """Write a k-neighbours classifier or regressor of one target with Euclidean distances, as a converter for skl2onnx.

    skl2onnx's own graph computes distances in float32, which picks other neighbours where two are about equally far, and weights classes by
    the squared distance. Here, as in scikit-learn, the squared distances are ``|x|² - 2 x·t + |t|²`` in float64, and weights are 1 or the
    inverse distance. An example that equals a training example gets its weight from a distance of 1e-12 and so decides alone.

    Raises:
        RuntimeError: If the metric, the weights or the number of targets is another one.
    """
    model = operator.raw_operator
    power = getattr(model, "effective_metric_params_", {}).get("p", 2)
    if model.effective_metric_ not in EUCLIDEAN and not (model.effective_metric_ == "minkowski" and power == 2):
        raise RuntimeError(f"neighbours with metric={model.effective_metric_!r} have no translation to ONNX; only Euclidean distances do")
    if model.weights not in ("uniform", "distance"):
        raise RuntimeError("neighbours with weights that are a function have no translation to ONNX")
    classes = getattr(model, "classes_", None)
    targets = np.asarray(model._y)
    if isinstance(classes, list) or (targets.ndim == 2 and targets.shape[1] > 1):
        raise RuntimeError("neighbours with several targets have no translation to ONNX")
    known = np.asarray(model._fit_X, dtype=np.float64)
    # One column for each class, or the values themselves: a neighbour votes with its row.
    votes = np.eye(len(classes))[targets.reshape(-1)] if classes is not None else targets.reshape(-1, 1).astype(np.float64)
    graph = _Graph(scope, container)
    x = graph.node("Cast", operator.inputs[0].full_name, to=_DOUBLE)
    lengths = graph.node("ReduceSumSquare", x, graph.constant(np.array([1])), keepdims=1)
    product = graph.node("MatMul", x, graph.constant(-2.0 * known.T))
    squares = graph.node("Add", graph.node("Add", lengths, product), graph.constant((known**2).sum(axis=1)[None]))
    nearest, rows = graph.node("TopK", squares, graph.constant(np.array([model.n_neighbors])), outputs=2, axis=1, largest=0, sorted=1)
    voted = graph.node("Gather", graph.constant(votes), rows, axis=0)  # (b, k, columns)
    if model.weights == "distance":
        distance = graph.node("Sqrt", graph.node("Max", nearest, graph.constant(np.array([1e-24]))))
        weights = graph.node("Reciprocal", distance)
        weights = graph.node("Div", weights, graph.node("ReduceSum", weights, graph.constant(np.array([1])), keepdims=1))
        voted = graph.node("Mul", voted, graph.node("Unsqueeze", weights, graph.constant(np.array([2]))))
        mean = graph.node("ReduceSum", voted, graph.constant(np.array([1])), keepdims=0)
    else:
        mean = graph.node("ReduceMean", voted, graph.constant(np.array([1])), keepdims=0)
    if classes is None:
        graph.node("Cast", mean, to=_FLOAT, names=[operator.outputs[0].full_name])
        return
    best = graph.node("ArgMax", mean, axis=1, keepdims=0)
    graph.node("Gather", graph.constant(np.asarray(classes).astype(np.int64)), best, axis=0, names=[operator.outputs[0].full_name])
    graph.node("Cast", mean, to=_FLOAT, names=[operator.outputs[1].full_name])


class _Graph:
    """Nodes and constants with names of their own in a container of skl2onnx."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def node(self, kind: str, *inputs: str, outputs: int = 1, names: list[str] | None = None, **attributes: Any) -> Any:
        names = names or [self._scope.get_unique_variable_name(f"{kind}_out") for _ in range(outputs)]
        self._container.add_node(
            kind, list(inputs), names, op_version=_VERSIONS[kind], name=self._scope.get_unique_operator_name(kind), **attributes
        )
        return names[0] if len(names) == 1 else names

    def constant(self, values: Any) -> str:
        name: str = self._scope.get_unique_variable_name("constant")
        kind = _INT64 if values.dtype.kind == "i" else _DOUBLE
        self._container.add_initializer(name, kind, list(values.shape), values.ravel().tolist())
        return name


#: The newest operator set that onnxmltools writes for these trees.
OPSET = 15


def convert_boosted(trees: BoostedTrees, features: int) -> Any:
    """Return the ONNX graph of boosted trees: ``inputs`` ``(batch, features)`` to the class and plain probability columns, or to values.

    Raises:
        RuntimeError: If the library's converter cannot write them.
    """
    graph = {"lightgbm": _lightgbm, "xgboost": _xgboost, "catboost": _catboost}[trees.library](trees, features)
    for output in graph.graph.output:  # the converters state a batch of one, at which ONNX Runtime wonders aloud
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    return graph


def _inputs(features: int) -> list[tuple[str, Any]]:
    from onnxmltools.convert.common.data_types import FloatTensorType

    return [("inputs", FloatTensorType([None, features]))]


def _lightgbm(trees: BoostedTrees, features: int) -> Any:
    import lightgbm
    from onnxmltools import convert_lightgbm

    lines = trees.model.model_to_string(num_iteration=-1).splitlines()
    for k, line in enumerate(lines):
        if line.startswith("threshold="):
            lines[k] = "threshold=" + " ".join(map(repr, rounded_down([float(value) for value in line.partition("=")[2].split()])))
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes=")) + "\n"
    return convert_lightgbm(lightgbm.Booster(model_str=text), initial_types=_inputs(features), zipmap=False, target_opset=OPSET)


def _xgboost(trees: BoostedTrees, features: int) -> Any:
    from onnxmltools import convert_xgboost

    return convert_xgboost(trees.model, initial_types=_inputs(features), target_opset=OPSET)


def _catboost(trees: BoostedTrees, features: int) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        trees.model.save_model(str(file := Path(folder) / "model.onnx"), format="onnx")
        graph = onnx.load(file)
    for node in [node for node in graph.graph.node if node.op_type == "ZipMap"]:
        graph.graph.node.remove(node)
        (old,) = [output for output in graph.graph.output if output.name == node.output[0]]
        graph.graph.output.remove(old)
        graph.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, ["batch", trees.classes]))
    if trees.classes == 2 and [node.op_type for node in graph.graph.node] == ["TreeEnsembleRegressor"]:
        _with_classes(graph.graph)  # a model whose rounds were added in steps has forgotten that its values are log-odds
    graph.ir_version = max(graph.ir_version, 8)  # before 4 every constant had to be an input
    if not any(opset.domain == "" for opset in graph.opset_import):
        graph.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    graph.graph.input[0].name = "inputs"
    for node in graph.graph.node:
        node.input[:] = ["inputs" if name == "features" else name for name in node.input]
    del features
    return graph


def _with_classes(graph: Any) -> None:
    """Make the class and two columns of probabilities out of the log-odds ``(batch, 1)`` of a graph."""
    from onnx import TensorProto, helper

    nodes = Nodes("classes/")
    second = nodes.add("Sigmoid", graph.node[0].output[0])
    nodes.add("Concat", nodes.add("Sub", np.ones(1, dtype=np.float32), second), second, names=["probabilities"], axis=1)
    nodes.add("ArgMax", "probabilities", names=["label"], axis=1, keepdims=0)
    nodes.append_to(graph)
    del graph.output[:]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])
    graph.output.extend([label, helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])])
