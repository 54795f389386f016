"""Export a trained model: a file in a format, checked against the model, with a model card and a script that predicts raw files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..argument_types import lazily

if TYPE_CHECKING:
    from .formats import FORMATS as FORMATS
    from .formats import load_model as load_model
    from .model import Exporter as Exporter
    from .model import ExportFailed as ExportFailed
    from .model import TrainedModel as TrainedModel
    from .parity import Check as Check
    from .write import Exported as Exported
    from .write import export as export

#: Where each public name lives; imported at first use, so that ``joulefront predict`` loads no PyTorch.
_HOMES = {
    "FORMATS": ".formats",
    "Check": ".parity",
    "ExportFailed": ".model",
    "Exported": ".write",
    "Exporter": ".model",
    "TrainedModel": ".model",
    "export": ".write",
    "load_model": ".formats",
}
__all__ = ["FORMATS", "Check", "ExportFailed", "Exported", "Exporter", "TrainedModel", "export", "load_model"]
__getattr__ = lazily(__name__, _HOMES)
