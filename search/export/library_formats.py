"""A model in the file of its own library: skops for scikit-learn, without pickle; the native file for boosted trees.

Whoever loads a skops file sees which types it holds; a boosting library's own file rounds nothing.
"""

from __future__ import annotations

import copy
from pathlib import Path

from ..training.boosted import BoostedTrees
from ..training.sklearn_files import load_sklearn, trusted_in, types_of
from .model import Exporter, ExportFailed, Predictor, TrainedModel, estimator_predictor, first_line, plain_estimator

SKOPS_FILE = "model.skops"
#: Library -> name of the file, and the lines that read it into ``model`` and predict.
FILES = {"lightgbm": "model.txt", "xgboost": "model.ubj", "catboost": "model.cbm"}
_SNIPPETS = {
    "lightgbm": 'import lightgbm\n\nmodel = lightgbm.Booster(model_file="{file}")\n{output} = model.predict(inputs)\n',
    "xgboost": 'import xgboost\n\nmodel = xgboost.Booster(model_file="{file}")\n{output} = model.inplace_predict(inputs)\n',
    "catboost": 'import catboost\n\nmodel = catboost.CatBoost().load_model("{file}")\n'
    '{output} = model.predict(inputs, prediction_type="{kind}")\n',
}
_BINARY = "{output} = np.stack([1 - {output}, {output}], axis=1)  # of the first and the second class\n"


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
            skops.io.dump(plain_estimator(trained.model), folder / SKOPS_FILE)
        except Exception as error:
            raise ExportFailed(
                f"trial {trained.trial.number} ({trained.type_name}) cannot be written by skops: {first_line(error)}; use --to onnx"
            ) from error
        return SKOPS_FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Load the file as its readers will: only types on the list, and those of the estimator itself."""
        restored = load_sklearn(folder / SKOPS_FILE, types_of(plain_estimator(trained.model)))
        return estimator_predictor(trained.model, trained.task, restored)

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Predict with scikit-learn, naming the listed types that skops does not trust by itself."""
        estimator, task, name = plain_estimator(trained.model), trained.task, trained.output_name
        code = f'import skops.io\n\nmodel = skops.io.load("{SKOPS_FILE}", trusted={trusted_in(folder / SKOPS_FILE)!r})\n'
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


class Native(Exporter):
    """LightGBM's text, XGBoost's UBJSON or CatBoost's own file."""

    name = "native"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write the file of the library."""
        trees = plain_estimator(trained.model)
        if not isinstance(trees, BoostedTrees):
            raise ExportFailed(
                f"trial {trained.trial.number} ({trained.type_name}) is no model of {', '.join(FILES)}, whose files --to native writes; "
                "use --to onnx"
            )
        data = trees.to_bytes()
        assert data is not None
        (folder / FILES[trees.library]).write_bytes(data.tobytes())
        return FILES[trees.library]

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Read the file with its library."""
        import numpy as np

        trees = copy.copy(plain_estimator(trained.model))
        data = np.frombuffer((folder / FILES[trees.library]).read_bytes(), dtype=np.uint8)
        trees.__setstate__({"library": trees.library, "classes": trees.classes, "threads": trees.threads, "model": data})
        return estimator_predictor(trained.model, trained.task, trees)

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Predict with the library alone."""
        trees = plain_estimator(trained.model)
        kind = "Probability" if trees.classes else "RawFormulaVal"
        code = _SNIPPETS[trees.library].format(file=FILES[trees.library], output=trained.output_name, kind=kind)
        return code + (_BINARY.format(output=trained.output_name) if trees.classes == 2 and trees.library != "catboost" else "")
