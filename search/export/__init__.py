"""Export a trained model: a file in a format, checked against the model, with a model card."""

from .export import FORMATS, Exported, export
from .model import Exporter, ExportFailed, TrainedModel
from .parity import Check
from .torch_formats import load_model

__all__ = ["FORMATS", "Check", "ExportFailed", "Exported", "Exporter", "TrainedModel", "export", "load_model"]
