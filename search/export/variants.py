"""What can be made of a picked model before it is exported: variants that may be cheaper to use, and the model trained again on more rows.

The variants are 8-bit integers calibrated on validation examples, and half precision; ``joulefront optimise`` measures what they save,
``joulefront export --variant`` writes them. With ``--refit`` only the rows of the test split are left out, which say whether that was worth
its joules.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..argument_types import refuse_wrong_types
from ..billing.trial_energy import trial_energy
from ..certainty import shares_differ
from ..energy import measure
from ..formatting import joules_text, known
from ..records.examples import SHARES
from ..records.run import Run
from ..records.trial import Trial
from ..space import FixedTrial
from ..study import Study
from ..training.checkpoint import save_weights
from ..training.evaluate import evaluate, sign_of
from ..training.fit import fit
from ..training.recipe import kept_for_caller
from ..training.splits_data import training_and_validation
from ..training.task import Data, Task
from .model import ExportFailed, TrainedModel, first_line, rebuild
from .onnx_format import quiet, torch_core

#: Variants that can be exported, and the format that takes each.
VARIANTS = {"int8": "onnx", "bfloat16": "pt2"}
#: Batches of validation examples from which the ranges of activations are learnt.
CALIBRATED_FROM = 8


def quantised(model: Any) -> Any:
    """Weights of linear and recurrent layers as 8-bit integers, activations quantised on the fly; CPU only, convolutions stay.

    Raises:
        ValueError: If the model has no such layer.
    """
    kinds = {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}
    if not any(type(part) in kinds for part in model.modules()):
        raise ValueError("the model must have a linear or recurrent layer for dynamic quantisation, got none")
    quantise: Any = torch.ao.quantization.quantize_dynamic
    return quantise(model.to("cpu"), kinds, dtype=torch.qint8)


def pruned(model: Any, share: float) -> Any:
    """The model with the smallest weights of all its matrices and kernels set to zero; the tensors stay dense."""
    weights = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    sizes = torch.cat([tensor.detach().abs().flatten() for tensor in weights])
    threshold = sizes.kthvalue(max(1, round(share * len(sizes)))).values
    with torch.no_grad():
        for tensor in weights:
            tensor.mul_(tensor.abs() > threshold)
    return model


class InBfloat16(nn.Module):
    """A model whose weights and activations are bfloat16; inputs and outputs stay float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(torch.bfloat16)  # what it was is compared with it
        self.named = f"{type(model).__name__} in bfloat16"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs in float32."""
        outputs: torch.Tensor = self.model(inputs.to(torch.bfloat16)).float()
        return outputs


class InOnnxRuntime(nn.Module):
    """A graph, prepared ``inputs`` -> raw outputs, that ONNX Runtime computes with as many threads as PyTorch has."""

    def __init__(self, core: Any, named: str) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(core.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.core, self.named = core, named

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        return torch.from_numpy(self.session.run(None, {"inputs": inputs.float().contiguous().numpy()})[0])


def in_onnx(model: nn.Module, shape: Iterable[int]) -> InOnnxRuntime:
    """Return a model in ONNX Runtime; ``shape`` is that of one input."""
    return InOnnxRuntime(torch_core(model, tuple(shape), "outputs").model_proto, f"{type(model).__name__} in ONNX")


def in_int8(model: nn.Module, shape: Iterable[int], inputs: Iterator[np.ndarray]) -> InOnnxRuntime:
    """Return a model in ONNX Runtime whose weights and activations are 8-bit integers; batches of ``inputs`` show the ranges.

    Source: static quantisation with min-max ranges, Jacob et al. 2018, arXiv:1712.05877, as onnxruntime.quantization has it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(kept, None)
            return None if batch is None else {"inputs": batch}

    kept = islice(inputs, CALIBRATED_FROM)
    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, ready, small = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        onnx.save(torch_core(model, tuple(shape), "logits").model_proto, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(ready, small, Batches(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return InOnnxRuntime(onnx.load(small), f"{type(model).__name__} in 8-bit integers")


def inputs_of(data: Data, resolution: int | None) -> Iterator[np.ndarray]:
    """Yield batches of inputs as a model takes them."""
    for inputs, _ in data.batches(32, resolution=resolution):
        yield inputs.float().contiguous().numpy()


def variant_of(trained: TrainedModel, variant: str, to: str) -> TrainedModel:
    """Return a variant of a trained model, to be exported.

    Raises:
        ValueError: If there is no such variant, or the format does not take it.
        ExportFailed: If the model has none.
    """
    if variant not in VARIANTS:
        raise ValueError(f"--variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if to != VARIANTS[variant]:
        raise ValueError(f"--variant {variant} must be written as {VARIANTS[variant]}, got {to}; give --to {VARIANTS[variant]}")
    if not trained.is_torch:
        raise ExportFailed(f"trial {trained.trial.number} is a {trained.type_name}: variants are for PyTorch models; leave out --variant")
    try:
        feed = inputs_of(trained.task.validation, trained.candidate.recipe.resolution)
        made = InBfloat16(trained.model) if variant == "bfloat16" else in_int8(trained.model, trained.input_shape, feed)
    except Exception as error:
        raise ExportFailed(f"trial {trained.trial.number} has no variant {variant}: {first_line(error)}; leave out --variant") from error
    return replace(trained, model=made.eval(), variant=variant, original=trained.model)


#: Its file beside an exported model.
REFIT = "refit.json"


@dataclass(frozen=True)
class Refit:
    """What a refit has cost and brought.

    ``examples`` are those that it was trained on, ``before`` and ``after`` the quality ``metric`` on the test split of ``tested`` examples,
    NaN where that is undefined, and ``joules`` what it took, that validation included; None where nothing is measured or estimated here.
    """

    examples: int
    tested: int
    metric: str
    before: float
    after: float
    joules: float | None

    def to_text(self) -> str:
        """Return one sentence."""
        paid = "an unknown amount of energy" if self.joules is None else joules_text(self.joules)
        verdict = ""
        if self.metric in SHARES:
            told = shares_differ(self.before, self.after, self.tested)
            gain = sign_of(self.metric) * (self.after - self.before)
            verdict = ", a tie" if not told else ", better" if gain > 0 else ", worse: leave --refit out"
        change = f"test {self.metric} {known(self.after, '.4f')}, {known(self.before, '.4f')} before, on {self.tested:,} examples"
        return f"refitted on {self.examples:,} examples for {paid}: {change}{verdict}"


def refit(
    trial: Trial, *, study: Study, task: Task, weights: Path, folder: Path, meter: str = "auto", run: Run | None = None
) -> tuple[Trial, Task, Path, Refit]:
    """Train the model of a trial from scratch on its training and validation examples, to the same epochs of the same schedule.

    Returns:
        What ``export`` takes in place of trial, task and weights, and as ``refit``. The trial has the energy of this training, and its
        carbon where the run has an intensity that is no forecast. The task's validation split is that of the test, the only examples that
        the new model has not seen; it has no other.

    Raises:
        ValueError: If there is no test split to check it on, or the data is not in memory.
    """
    refuse_wrong_types(refit, locals())
    if task.test is None or len(task.test) == 0:
        raise ValueError("--refit needs a test split, which says whether it was worth it; leave --refit out, or give the study one")
    if trial.members:
        named = ", ".join(map(str, dict.fromkeys(trial.members)))
        raise ValueError(f"--refit trains one model again, and trial {trial.number} is an ensemble; --pick trial=N of its members {named}")
    candidate = study.space.sample(FixedTrial(trial.params))
    recipe = replace(candidate.recipe, patience=None)
    whole = replace(task, train=training_and_validation(task), validation=task.test, test=None, folds=0)

    def train() -> Any:
        with kept_for_caller("cpu"):
            torch.manual_seed(study.seed)
            model, end = study.space.build(candidate, whole), trial.epochs
            return fit(model, whole, recipe, epochs=trial.horizon, seed=study.seed, should_continue=lambda point: point.epoch < end)

    old = rebuild(trial, study=study, task=task, weights=weights)
    before = evaluate(old.model, task, task.test, recipe=recipe).get(old.metric, math.nan)
    fitted, record = measure(train, meter, name="refit")
    path = folder / "refit.weights"
    sha256 = save_weights(path, fitted, with_checkpoint=False)
    after = fitted.quality.get(old.metric, math.nan)
    done = Refit(len(whole.train), len(task.test), old.metric, before, after, record.joules)
    energy = trial_energy(record, [replace(record, kind="epoch")], parent=None, predictions=0, intensity=None)
    if run is not None and run.facts.get("carbon") is None:
        energy = replace(energy, grams_co2e=run.grams_co2e(record.joules))
    return replace(trial, artifact_sha256=sha256, quality=dict(fitted.quality), energy=energy), whole, path, done
