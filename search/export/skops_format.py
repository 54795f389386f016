"""skops: scikit-learn models without pickle; whoever loads one sees which types it holds."""

from __future__ import annotations

from pathlib import Path

from ..training.boosted import BoostedTrees
from ..training.sklearn_files import load_sklearn, trusted_in, types_of
from .model import Exporter, ExportFailed, Predictor, TrainedModel, estimator_predictor, first_line, plain_estimator

FILE = "model.skops"


class Skops(Exporter):
    """Estimators of scikit-learn and what follows its rules."""

    name = "skops"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.skops``."""
        if trained.is_torch:
            raise ExportFailed(
                f"trial {trained.trial.number} is a PyTorch model ({trained.type_name}) and --to skops takes scikit-learn models; "
                "use --to onnx, --to pt2 or --to safetensors"
            )
        if isinstance(plain_estimator(trained.model), BoostedTrees):
            raise ExportFailed(
                f"trial {trained.trial.number} is a model of {plain_estimator(trained.model).library} and --to skops takes those of "
                "scikit-learn; use --to onnx, or --to native for the library's own file"
            )
        if trained.trial.members:
            raise ExportFailed(
                f"trial {trained.trial.number} is an ensemble, which --to skops does not write; use --to onnx, or --pick one of its members"
            )
        import skops.io

        try:
            skops.io.dump(plain_estimator(trained.model), folder / FILE)
        except Exception as error:
            raise ExportFailed(
                f"trial {trained.trial.number} ({trained.type_name}) cannot be written by skops: {first_line(error)}; use --to onnx"
            ) from error
        return FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Load the file as its readers will: only types on the list, and those of the estimator itself."""
        restored = load_sklearn(folder / FILE, types_of(plain_estimator(trained.model)))
        return estimator_predictor(trained.model, trained.task, restored)

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Predict with scikit-learn, naming the listed types that skops does not trust by itself."""
        kind, trusted = trained.task.kind, trusted_in(folder / FILE)
        method = {"regression": "predict", "anomaly": "decision_function"}.get(kind, "predict_proba")
        if not hasattr(plain_estimator(trained.model), method):
            method = "predict"
        return f'import skops.io\n\nmodel = skops.io.load("{FILE}", trusted={trusted!r})\n{trained.output_name} = model.{method}(inputs)\n'
