"""ONNX: one graph with a free batch axis, for ONNX Runtime and everything that reads it; it takes raw data where the task says how.

``quiet`` and ``cause`` serve the other PyTorch formats as well: exporters print a lot, which only matters when one of them fails.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..training.blend import Blend
from ..training.boosted import BoostedTrees
from ..training.estimator import is_outlier_detector
from .model import Exporter, ExportFailed, Predictor, TrainedModel, estimator_predictor, first_line, plain_estimator
from .raw_graph import Nodes, core_of, front_of, whole

FILE = "model.onnx"
#: A protobuf message ends at 2 GiB; weights beyond this go into a file of their own.
MAX_INLINE_BYTES = 1_800_000_000
#: Libraries with log handlers of their own, which a redirected stderr does not capture.
LOGGERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "skl2onnx", "onnxmltools")


class Onnx(Exporter):
    """PyTorch through ``torch.onnx.export``, scikit-learn through skl2onnx; around it what a task's preprocessing says."""

    name = "onnx"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.onnx``, its first dimension free; what it takes, class names, kind of task and provenance in its metadata.

        It takes raw data and gives probabilities or values, see ``raw_graph.py``; it takes ``inputs``, prepared, where the preprocessing
        of the task is the user's own, or the weights are too large for one file; a network then gives its raw outputs.
        """
        with quiet() as captured:
            try:
                (self._write_torch if trained.is_torch else self._write_sklearn)(trained, folder / FILE)
            except Exception as error:
                raise ExportFailed(
                    f"trial {trained.trial.number} ({trained.type_name}) cannot be written as ONNX: {cause(error)}; "
                    + trained.instead(self.name),
                    f"{captured.getvalue()}\n{error}",
                ) from error
        return FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Open the model in the file in ONNX Runtime on the CPU: prepared ``inputs`` -> raw outputs."""
        run = session(folder / FILE)
        if trained.is_torch:
            return lambda inputs: run(inputs)[0]
        return estimator_predictor(trained.model, trained.task, SessionEstimator(plain_estimator(trained.model), run))

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Predict with ONNX Runtime, where the file takes ``inputs``."""
        return (
            "import onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{FILE}")\n'
            f'{trained.output_name} = session.run(None, {{"inputs": inputs}})[0]\n'
        )

    def _write_torch(self, trained: TrainedModel, file: Path) -> None:
        core = getattr(trained.model, "core", None)  # that of a variant is made already
        if core is not None:
            self._write_whole(core, trained, file)
            return
        program = torch_core(trained.model, trained.input_shape, trained.output_name)
        size = sum(tensor.nbytes for tensor in trained.model.state_dict().values())
        if size > MAX_INLINE_BYTES:
            program.model.metadata_props.update(metadata(trained, "inputs", [], bare=True))
            program.save(str(file), external_data=True)
            return
        self._write_whole(program.model_proto, trained, file)

    def _write_sklearn(self, trained: TrainedModel, file: Path) -> None:
        from .onnx_sklearn import convert, convert_boosted

        def of_member(one: Any, features: int) -> Any:
            return (convert_boosted if isinstance(one, BoostedTrees) else convert)(one, features)

        estimator, features = plain_estimator(trained.model), trained.input_shape[0]
        blended = isinstance(estimator, Blend)
        self._write_whole(_blend_graph(estimator, features, of_member) if blended else of_member(estimator, features), trained, file)

    def _write_whole(self, core: Any, trained: TrainedModel, file: Path) -> None:
        import onnx

        front = front_of(trained.task.preprocessing, trained.task.input_shape)
        outputs = [output.name for output in core.graph.output]
        bare = front is None and trained.is_torch
        model = core if bare else whole(core, trained, front)
        takes = "inputs" if front is None else front.kind
        onnx.helper.set_model_props(model, metadata(trained, takes, [] if bare else outputs, bare=bare))
        onnx.checker.check_model(model)
        file.write_bytes(model.SerializeToString())


def _blend_graph(blend: Blend, features: int, of_member: Callable[[Any, int], Any]) -> Any:
    """Return a weighted mean of models as one graph: each member's under a prefix, and behind them their mean.

    It leads from ``inputs`` ``(batch, features)`` to the class and probability columns, or to values ``(batch, 1)``; ``of_member``
    returns the graph of one member, with one input ``inputs`` and the outputs of skl2onnx.

    Raises:
        RuntimeError: If a member has no translation.
    """
    import onnx
    from onnx import TensorProto, helper

    graph, means, opsets = Nodes("blend/"), list[str](), {"": 15}
    for place, (one, weight) in enumerate(zip(blend.members, blend.weights.tolist(), strict=True)):
        member = onnx.compose.add_prefix(of_member(one, features), f"member{place}/")
        for opset in member.opset_import:
            opsets[opset.domain] = max(opset.version, opsets.get(opset.domain, 0))
        graph.add("Identity", "inputs", names=[f"member{place}/inputs"])
        graph.nodes += member.graph.node
        graph.initializers += member.graph.initializer
        known = getattr(one, "classes_", [0])
        spread = np.zeros((len(known), blend.classes or 1), dtype=np.float32)
        spread[np.arange(len(known)), np.asarray(known, dtype=int) if blend.classes else 0] = weight
        plain = graph.add("Cast", member.graph.output[-1 if blend.classes else 0].name, to=TensorProto.FLOAT)
        means.append(graph.add("MatMul", graph.add("Reshape", plain, np.array([-1, len(known)])), spread))
    name, width = ("probabilities", blend.classes) if blend.classes else ("values", 1)
    graph.add("Sum", *means, names=[name])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])]
    if blend.classes:
        graph.add("ArgMax", name, names=["label"], axis=1, keepdims=0)
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    inputs = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", features])]
    whole = helper.make_graph(graph.nodes, "joulefront", inputs, outputs, graph.initializers)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(whole, opset_imports=imports, ir_version=8)


def torch_core(model: Any, shape: tuple[int, ...], output: str) -> Any:
    """Return the program of a PyTorch model in ONNX: ``inputs`` ``(batch, *shape)`` to what is named ``output``."""
    import torch

    program = torch.onnx.export(
        model,
        (torch.zeros(2, *shape),),  # two: a batch of one would be traced as a constant
        dynamo=True,
        dynamic_shapes=free_batch(),
        input_names=["inputs"],
        output_names=[output],
        verbose=False,
        optimize=True,
        custom_translation_table=batch_norm_in_steps() if torch.__version__ < "2.7" else None,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program


def free_batch() -> tuple[dict[int, Any], ...]:
    """Return the shape of one input whose first side is free; bounded, for PyTorch 2.6 refuses some networks for any size at all."""
    import torch

    return ({0: torch.export.Dim("batch", min=1, max=2**31 - 1)},)


def batch_norm_in_steps() -> dict[Any, Callable[..., Any]]:
    """Return how a batch norm of a finished model is written in steps, which a runtime folds into the convolution before them.

    PyTorch before 2.7 takes the operator of that name for one with three outputs, of which inference has one, and fails.
    """
    import torch
    from onnxscript import opset18 as op

    # The exporter takes it for this operator only if its arguments are called as the operator's, and what may be None has a default.
    def in_steps(
        input: Any, weight: Any = None, bias: Any = None, running_mean: Any = 0, running_var: Any = 0, momentum: float = 0, eps: float = 0
    ) -> Any:
        deviation, sides = op.Sqrt(op.Add(running_var, eps)), op.Constant(value_ints=list(range(1, len(input.shape) - 1)))
        scale = op.Reciprocal(deviation) if weight is None else op.Div(weight, deviation)
        shift = op.Mul(running_mean, scale)
        shift = op.Neg(shift) if bias is None else op.Sub(bias, shift)
        scaled = op.Add(op.Mul(input, op.Unsqueeze(scale, sides)), op.Unsqueeze(shift, sides))
        return scaled, op.Identity(running_mean), op.Identity(running_var)  # nothing reads the last two

    return {torch.ops.aten._native_batch_norm_legit_no_training.default: in_steps}


def session(file: Path) -> Any:
    """Open the model in an ONNX file and return a function from ``(b, ...)`` prepared inputs to the list of its raw outputs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too; what the session prints bypasses Python and reaches the terminal
    providers = ["CPUExecutionProvider"]
    opened = onnxruntime.InferenceSession(str(file), options, providers=providers)
    facts = opened.get_modelmeta().custom_metadata_map
    if names := json.loads(facts.get("core_outputs", "[]")):
        core = core_of(onnx.load(file), names).SerializeToString()
        opened = onnxruntime.InferenceSession(core, options, providers=providers)
    return lambda inputs: opened.run(None, {"inputs": inputs.astype("float32", copy=False)})


class SessionEstimator:
    """An ONNX session behind the method names of the scikit-learn object that it was converted from."""

    def __init__(self, estimator: Any, run: Any) -> None:
        self._run = run
        self._several = isinstance(getattr(estimator, "classes_", None), list)
        if is_outlier_detector(estimator):
            self._estimator_type = "outlier_detector"
        if hasattr(estimator, "classes_"):
            self.classes_ = estimator.classes_
        # Only what the estimator has: its methods decide how its scores are read.
        methods = {"predict_proba": self._last, "decision_function": self._column, "predict": partial(self._column, index=0)}
        for name, method in methods.items():
            if callable(getattr(estimator, name, None)) and not (name == "decision_function" and hasattr(estimator, "predict_proba")):
                setattr(self, name, method)

    def _last(self, rows: np.ndarray) -> Any:
        outputs = self._run(rows)[-1]
        return list(outputs) if self._several else outputs

    def _column(self, rows: np.ndarray, index: int = -1) -> np.ndarray:
        outputs: np.ndarray = self._run(rows)[index]
        return outputs.reshape(-1) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


def metadata(trained: TrainedModel, takes: str, outputs: list[str], *, bare: bool = False) -> dict[str, str]:
    """Return what the file says of itself: what it ``takes`` (see ``Front.kind``), and all that ``predict.py`` needs.

    ``outputs`` are those of the model inside; a ``bare`` model gives its raw outputs, others answers.
    """
    task = trained.task
    target = task.preprocessing.get("target", "")
    return {
        "classes": json.dumps(list(task.classes), ensure_ascii=False),
        "kind": task.kind,
        "takes": takes,
        "preprocessing": json.dumps(dict(task.preprocessing), ensure_ascii=False),
        "target": target if isinstance(target, str) else ", ".join(target),
        "target_scale": json.dumps(task.target_scale),
        "output": trained.output_name if bare else "answers",
        "core_outputs": json.dumps(outputs),
        "study": trained.study,
        "trial": str(trained.trial.number),
        **({"variant": trained.variant} if trained.variant else {}),
    }


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect what is printed, logged or warned inside into the returned text; nothing reaches the terminal."""
    captured = io.StringIO()
    handler = logging.StreamHandler(captured)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    with contextlib.redirect_stdout(captured), contextlib.redirect_stderr(captured), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for logger in loggers:
                logger.handlers, logger.propagate = [handler], False
            yield captured
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            for warning in warned:
                captured.write(f"{warning.category.__name__}: {warning.message}\n")


def cause(error: BaseException) -> str:
    """Return the one line that explains why a graph could not be made: the operator, or the first reason in the chain of causes."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for one in chain:
        operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", str(one))
        if operator:
            return f"operator {operator.group(1)} has no translation to ONNX"
        converter = re.search(r"Unable to find a (?:shape calculator|converter) for (?:type|alias) '(?:<class ')?([\w.]+)", str(one))
        if converter:
            return f"skl2onnx has no converter for {converter.group(1).rpartition('.')[2]}"
    return f"{type(chain[-1]).__name__}: {first_line(chain[-1])}"
