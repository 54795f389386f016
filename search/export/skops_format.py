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
        estimator, task, name = plain_estimator(trained.model), trained.task, trained.output_name
        code = f'import skops.io\n\nmodel = skops.io.load("{FILE}", trusted={trusted_in(folder / FILE)!r})\n'
        known = getattr(estimator, "classes_", None)
        if name == "scores":
            return f"{code}{name} = model.decision_function(inputs)\n"
        if task.kind == "regression" or isinstance(known, list):  # of several labels: 0 and 1
            return f"{code}{name} = model.predict(inputs)\n"
        if not hasattr(estimator, "predict_proba"):
            return f"{code}{name} = model.predict(inputs)[:, None] == np.arange({task.outputs})  # the class alone\n"
        if known is None or len(known) == task.outputs:
            return f"{code}{name} = model.predict_proba(inputs)\n"
        spread = f"{name} = np.zeros((len(inputs), {task.outputs}))  # a class that the training data lacked has 0\n"
        return f"{code}{spread}{name}[:, model.classes_] = model.predict_proba(inputs)\n"
