"""Boosted trees to ONNX: LightGBM and XGBoost by onnxmltools, CatBoost by itself, all with the same input and outputs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..training.boosted import BoostedTrees
from .onnx_sklearn import rounded_down

#: The newest operator set that onnxmltools writes for these trees.
OPSET = 15


def convert(trees: BoostedTrees, features: int) -> Any:
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
    import onnx

    odds = graph.node[0].output[0]
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"))
    graph.node.extend(
        [
            onnx.helper.make_node("Sigmoid", [odds], ["second"]),
            onnx.helper.make_node("Sub", ["one", "second"], ["first"]),
            onnx.helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
            onnx.helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        [
            onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["batch"]),
            onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 2]),
        ]
    )
