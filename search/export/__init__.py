"""Export a trained model: a file in a format, checked against the model, with a model card and a script that predicts raw files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Import a public name at first use.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"joulefront.search.export has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
