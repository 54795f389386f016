"""Boosted trees in the file of their own library, which reads it without this project and without rounding."""

from __future__ import annotations

import copy
from pathlib import Path

from ..training.boosted import BoostedTrees
from .model import Exporter, ExportFailed, Predictor, TrainedModel, estimator_predictor, plain_estimator

#: Library -> name of the file, and the lines that read it into ``model`` and predict.
FILES = {"lightgbm": "model.txt", "xgboost": "model.ubj", "catboost": "model.cbm"}
_SNIPPETS = {
    "lightgbm": 'import lightgbm\n\nmodel = lightgbm.Booster(model_file="{file}")\n{output} = model.predict(inputs)\n',
    "xgboost": 'import xgboost\n\nmodel = xgboost.Booster(model_file="{file}")\n{output} = model.inplace_predict(inputs)\n',
    "catboost": 'import catboost\n\nmodel = catboost.CatBoost().load_model("{file}")\n'
    '{output} = model.predict(inputs, prediction_type="{kind}")\n',
}
_BINARY = "{output} = np.stack([1 - {output}, {output}], axis=1)  # of the first and the second class\n"


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
