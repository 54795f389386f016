"""The trained model that is exported, and the seam to the formats."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..records.trial import Trial
from ..space import Candidate, FixedTrial, Space
from ..study import Study
from ..training.blend import Blend
from ..training.boosted import BoostedTrees
from ..training.estimator import SingleEpoch, as_estimator, full_probabilities, is_outlier_detector
from ..training.recipe import Recipe
from ..training.task import Task

#: Normalised float32 inputs ``(b, *shape)`` -> raw outputs: logits or probabilities ``(b, k)``, values or scores ``(b,)`` or ``(b, 1)``.
Predictor = Callable[[np.ndarray], np.ndarray]


class ExportFailed(RuntimeError):  # noqa: N818 - named like TrainingFailed
    """A model could not be exported, or its file does not predict as the model does; nothing was written.

    ``details`` is what the libraries printed meanwhile, for ``--debug``.
    """

    def __init__(self, message: str, details: str = "") -> None:
        """Keep one line for the user and the details for ``--debug``."""
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with its candidate, task and trial, the space that built it, the name of the study, and its ``variant`` if it is one.

    A variant keeps the ``original`` that it was made of.

    ``metric`` is the quality by which it is judged, that of the study.
    ``refitted`` says how the trial's model was trained again with the validation split, after which only the test split is left to check
    it: that is then ``task.validation``. The model is a ``torch.nn.Module`` on the CPU in eval mode, or a fitted estimator.
    """

    model: Any
    candidate: Candidate
    space: Space
    task: Task
    trial: Trial
    study: str
    metric: str
    variant: str | None = None
    refitted: str | None = None
    original: Any = None

    @property
    def split(self) -> str:
        """Name of the split that checks the exported file."""
        return "validation" if self.refitted is None else "test"

    @property
    def before(self) -> str:
        """What tells the model that the search measured from this one, for the card; empty where they are the same."""
        return f"it became this {self.variant} variant" if self.variant else "it was trained again" if self.refitted else ""

    @property
    def is_torch(self) -> bool:
        """Whether the model is a PyTorch module."""
        return is_torch(self.model)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input as the model takes it: images at the recipe's resolution, one flat row for an estimator."""
        if not self.is_torch:
            return (math.prod(self.task.input_shape),)
        return self.task.shape_at(self.candidate.recipe.resolution)

    @property
    def output_name(self) -> str:
        """What the outputs are: ``logits``, ``probabilities``, ``scores`` or ``values``."""
        if self.task.kind == "regression":
            return "values"
        if self.is_torch:
            return "logits"
        return "scores" if is_outlier_detector(plain_estimator(self.model)) else "probabilities"

    @property
    def type_name(self) -> str:
        """Class of the model, for messages and the card."""
        named: str | None = getattr(self.model, "named", None)
        return named or type(self.model if self.is_torch else plain_estimator(self.model)).__name__

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the formats that take such a model, those that keep it as it is first."""
        if self.is_torch:
            return "safetensors", "pt2", "onnx"
        if self.trial.members:
            return ("onnx",)
        return "native" if isinstance(plain_estimator(self.model), BoostedTrees) else "skops", "onnx"

    def instead(self, of: str) -> str:
        """Return how an error ends that a format raises: with the others that take such a model."""
        others = [f"--to {name}" for name in self.formats if name != of]
        return f"use {' or '.join(others) or f'--pick trial=N of its members {list(self.trial.members)}'}"

    def predictor(self) -> Predictor:
        """The model itself as a function of arrays."""
        return torch_predictor(self.model) if self.is_torch else estimator_predictor(self.model, self.task)


class Exporter(Protocol):
    """One format: how a model is written, read back, and used by its recipient."""

    @property
    def name(self) -> str:
        """Name of the format for ``--to``."""

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write the model into ``folder`` and return the name of its file.

        Raises:
            ExportFailed: If this model cannot be written in this format; the message names the cause and another format.
        """

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Read the written file back, from the disk alone, as a function of arrays."""

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Python that loads the file in the current folder and predicts ``inputs``; it goes into the model card."""


def rebuild(trial: Trial, *, study: Study, task: Task, weights: Path) -> TrainedModel:
    """Build the model of a trial from its stored parameters alone and load its weights.

    Raises:
        ValueError: If the trial is not complete or the space has changed since.
        ExportFailed: If the weights are missing or belong to another model.
    """
    from ..training.checkpoint import DamagedError, load_weights
    from ..training.evaluate import metric_of

    if trial.state != "complete":
        raise ValueError(f"trial {trial.number} must be complete to be exported, got {trial.state}; pick a trial of the front")
    if not weights.exists():
        raise ExportFailed(
            f"the weights of trial {trial.number} are gone ({weights}): only trials on the front are kept. Pick one of those; "
            "if this is one, restore its file from a copy, or search again in a new --out"
        )
    if trial.members:
        candidate, model = Candidate({"family": "ensemble", "members": list(trial.members)}, Recipe()), SingleEpoch(Blend())
    else:
        candidate = study.space.sample(FixedTrial(trial.params))
        model = build(study.space, candidate, task)
    try:
        model = load_weights(weights, model, trial.artifact_sha256)
    except DamagedError as error:
        raise ExportFailed(
            f"{first_line(error)}; nothing was read from it. Restore it from a copy, pick another trial, or search again in a new --out"
        ) from error
    except Exception as error:
        raise ExportFailed(
            f"the weights {weights.name} do not fit the model that space {study.space.name!r} builds for trial {trial.number} "
            f"({first_line(error)}); were the space or the data changed since the run?"
        ) from error
    if is_torch(model):
        model = model.to("cpu").float().eval()
    return TrainedModel(model, candidate, study.space, task, trial, study.name, metric_of(task, study.objectives[0]))


def build(space: Space, candidate: Candidate, task: Task) -> Any:
    """Build the model; pretrained weights that cannot be reached are left out, since the trained ones replace them."""
    try:
        return space.build(candidate, task)
    except OSError:  # the hub is not reachable, or the local file was moved
        if "weights" not in candidate.architecture:
            raise
        return space.build(replace(candidate, architecture={**candidate.architecture, "weights": "none", "prepared": True}), task)


def is_torch(model: Any) -> bool:
    """Whether a model is a PyTorch module, without importing PyTorch for one that is not."""
    return callable(getattr(model, "state_dict", None)) and callable(getattr(model, "forward", None))


def plain_estimator(model: Any) -> Any:
    """The scikit-learn object inside a wrapper of ours, or the object itself."""
    return getattr(model, "sklearn", model)


def torch_predictor(model: Any) -> Predictor:
    """A PyTorch module as a function of arrays."""

    def predict(inputs: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(inputs)).float().numpy())

    return predict


def estimator_predictor(model: Any, task: Task, sklearn: Any = None) -> Predictor:
    """An estimator as a function of arrays, in the form of ``Estimator.predict_scores`` with a column for each class of the task.

    ``sklearn`` takes the place of the scikit-learn object inside, e.g. one that was read back from a file; the model is not changed.
    """
    estimator = copy.copy(as_estimator(model))
    known = estimator.sklearn
    if sklearn is not None:
        estimator.sklearn = sklearn

    def predict(inputs: np.ndarray) -> np.ndarray:
        return full_probabilities(estimator.predict_scores(inputs.reshape(len(inputs), -1)), known, task)

    return predict


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
