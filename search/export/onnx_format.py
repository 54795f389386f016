"""Exporters of other libraries talk a lot; here they are heard only when something fails.

ONNX: one graph with a free batch axis, for ONNX Runtime and everything that reads it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .model import ExportFailed, Predictor, TrainedModel, estimator_predictor, first_line, plain_estimator

if TYPE_CHECKING:
    from .model import Exporter

FILE = "model.onnx"
#: A protobuf message ends at 2 GiB; weights beyond this go into a file of their own.
MAX_INLINE_BYTES = 1_800_000_000
#: Libraries that log through handlers of their own, which a redirected stderr does not reach.
LOGGERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "skl2onnx")


class Onnx:
    """PyTorch through ``torch.onnx.export``, scikit-learn through skl2onnx."""

    name = "onnx"

    def write(self, subject: TrainedModel, folder: Path) -> str:
        """Write ``model.onnx``: input ``inputs``, first dimension free; class names and provenance in its metadata."""
        with quiet() as heard:
            try:
                (self._write_torch if subject.is_torch else self._write_sklearn)(subject, folder / FILE)
            except Exception as error:
                remedy = "--to pt2 or --to safetensors" if subject.is_torch else "--to skops"
                raise ExportFailed(
                    f"trial {subject.trial.number} ({subject.type_name}) cannot be written as ONNX: {cause(error)}; use {remedy}",
                    f"{heard.getvalue()}\n{error}",
                ) from error
        return FILE

    def load(self, subject: TrainedModel, folder: Path) -> Predictor:
        """Open the file in ONNX Runtime on the CPU."""
        ask = session(folder / FILE)
        if subject.is_torch:
            return lambda inputs: ask(inputs)[0]
        return estimator_predictor(subject.model, subject.task, StandIn(plain_estimator(subject.model), ask))

    def snippet(self, subject: TrainedModel, folder: Path) -> str:
        """Predict with ONNX Runtime."""
        index = "0" if subject.is_torch or subject.task.kind == "regression" else "-1"
        return (
            "import onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{FILE}")\n'
            f'{subject.output_name} = session.run(None, {{"inputs": inputs}})[{index}]\n'
        )

    def _write_torch(self, subject: TrainedModel, file: Path) -> None:
        import torch

        program = torch.onnx.export(
            subject.model,
            (torch.zeros(2, *subject.input_shape),),  # two: a batch of one would be taken for a constant
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["inputs"],
            output_names=[subject.output_name],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        program.model.metadata_props.update(_metadata(subject))
        size = sum(tensor.numel() * tensor.element_size() for tensor in subject.model.state_dict().values())
        program.save(str(file), external_data=size > MAX_INLINE_BYTES)

    def _write_sklearn(self, subject: TrainedModel, file: Path) -> None:
        import onnx

        from .onnx_sklearn import convert

        graph = convert(plain_estimator(subject.model), subject.input_shape[0])
        onnx.helper.set_model_props(graph, _metadata(subject))
        file.write_bytes(graph.SerializeToString())


def session(file: Path) -> Any:
    """Open an ONNX file and return a function from ``(b, ...)`` inputs to the list of its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the session's warnings go past Python to the terminal
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: opened.run(None, {"inputs": inputs.astype("float32", copy=False)})


class StandIn:
    """An ONNX session behind the method names of the scikit-learn object that it was made of."""

    def __init__(self, estimator: Any, ask: Any) -> None:
        self._ask = ask
        self._several = isinstance(getattr(estimator, "classes_", None), list)
        if is_detector(estimator):
            self._estimator_type = "outlier_detector"
        if hasattr(estimator, "classes_"):
            self.classes_ = estimator.classes_
        # Only what the estimator has: which of them is there decides how its scores are read.
        for name, method in (("predict_proba", self._last), ("decision_function", self._decision), ("predict", self._first)):
            if callable(getattr(estimator, name, None)) and not (name == "decision_function" and hasattr(estimator, "predict_proba")):
                setattr(self, name, method)

    def _first(self, rows: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self._ask(rows)[0]
        return answer.reshape(-1) if answer.ndim == 2 and answer.shape[1] == 1 else answer

    def _last(self, rows: np.ndarray) -> Any:
        answer = self._ask(rows)[-1]
        return list(answer) if self._several else answer

    def _decision(self, rows: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self._ask(rows)[-1]
        return answer.reshape(-1) if answer.ndim == 2 and answer.shape[1] == 1 else answer


def is_detector(estimator: Any) -> bool:
    """Whether scikit-learn counts an estimator as an outlier detector."""
    from sklearn.base import is_outlier_detector

    return bool(is_outlier_detector(estimator))


def _metadata(subject: TrainedModel) -> dict[str, str]:
    return {
        "classes": json.dumps(list(subject.task.classes)),
        "output": subject.output_name,
        "study": subject.study,
        "trial": str(subject.trial.number),
    }


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect what is printed, logged or warned inside into the returned text; nothing reaches the terminal."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for logger in loggers:
                logger.handlers, logger.propagate = [handler], False
            yield heard
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            for warning in warned:
                heard.write(f"{warning.category.__name__}: {warning.message}\n")


def cause(error: BaseException) -> str:
    """Find the one line that says why a graph could not be made: the operator, or the first reason in the chain of causes."""
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


if TYPE_CHECKING:
    import numpy as np

    _: Exporter = Onnx()
