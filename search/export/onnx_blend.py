"""A weighted mean of models as one ONNX graph: each member's graph under a prefix, and behind them their mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..training.blend import Blend


def convert(blend: Blend, features: int, of_member: Callable[[Any, int], Any]) -> Any:
    """Return the graph: ``inputs`` ``(batch, features)`` to the class and probability columns, or to values ``(batch, 1)``.

    ``of_member`` returns the graph of one member, with one input ``inputs`` and the outputs of skl2onnx.

    Raises:
        RuntimeError: If a member has no translation.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, means = [], [], []
    opsets: dict[str, int] = {}
    for place, (one, weight) in enumerate(zip(blend.members, blend.weights.tolist(), strict=True)):
        prefix = f"member{place}/"
        graph = onnx.compose.add_prefix(of_member(one, features), prefix)
        for opset in graph.opset_import:
            opsets[opset.domain] = max(opset.version, opsets.get(opset.domain, 0))
        nodes += [helper.make_node("Identity", ["inputs"], [f"{prefix}inputs"], name=f"{prefix}inputs"), *graph.graph.node]
        constants += list(graph.graph.initializer)
        found, shape = graph.graph.output[-1 if blend.classes else 0].name, np.array([-1, _columns(one)], dtype=np.int64)
        spread = np.zeros((_columns(one), blend.classes or 1), dtype=np.float32)
        spread[np.arange(len(spread)), np.asarray(one.classes_, dtype=int) if blend.classes else 0] = weight
        constants += [numpy_helper.from_array(shape, f"{prefix}shape"), numpy_helper.from_array(spread, f"{prefix}spread")]
        nodes += [
            helper.make_node("Cast", [found], [f"{prefix}plain"], to=TensorProto.FLOAT, name=f"{prefix}cast"),
            helper.make_node("Reshape", [f"{prefix}plain", f"{prefix}shape"], [f"{prefix}columns"], name=f"{prefix}reshape"),
            helper.make_node("MatMul", [f"{prefix}columns", f"{prefix}spread"], [f"{prefix}part"], name=f"{prefix}matmul"),
        ]
        means.append(f"{prefix}part")
    name, width = ("probabilities", blend.classes) if blend.classes else ("values", 1)
    nodes.append(helper.make_node("Sum", means, [name], name="blend/sum"))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])]
    if blend.classes:
        nodes.append(helper.make_node("ArgMax", [name], ["label"], axis=1, keepdims=0, name="blend/label"))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    inputs = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", features])]
    whole = helper.make_graph(nodes, "joulefront", inputs, outputs, constants)
    opsets[""] = max(15, opsets.get("", 0))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(whole, opset_imports=imports, ir_version=8)


def _columns(member: Any) -> int:
    return len(member.classes_) if hasattr(member, "classes_") else 1
