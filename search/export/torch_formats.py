"""The formats of PyTorch: pt2, a graph with its weights that loads without the model's code, and safetensors, the weights alone.

A safetensors export is rebuilt by the study's space from ``config.json``: ``load_model``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..space import Candidate, Space
from ..study import Study
from ..training.task import Task
from .folder import CONFIG
from .model import Exporter, ExportFailed, Predictor, TrainedModel, build, first_line, torch_predictor
from .onnx_format import cause, quiet

PT2_FILE = "model.pt2"


class Pt2(Exporter):
    """PyTorch models as an exported program."""

    name = "pt2"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.pt2`` with a free batch axis."""
        _require_torch(trained, self.name)
        import torch

        with quiet() as captured:
            try:
                program = torch.export.export(
                    trained.model,
                    (torch.zeros(2, *trained.input_shape),),  # two: a batch of one would be traced as a constant
                    dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                    strict=False,
                )
                torch.export.save(program, folder / PT2_FILE)
            except Exception as error:
                raise ExportFailed(
                    f"trial {trained.trial.number} ({trained.type_name}) cannot be traced by torch.export: {cause(error)}; "
                    "use --to safetensors",
                    f"{captured.getvalue()}\n{error}",
                ) from error
        return PT2_FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Load the program from the disk."""
        import torch

        with quiet():
            return torch_predictor(torch.export.load(folder / PT2_FILE).module())

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Predict with plain PyTorch."""
        return (
            "import torch\n\n"
            f'model = torch.export.load("{PT2_FILE}").module()\n'
            "with torch.no_grad():\n"
            f"    {trained.output_name} = model(torch.from_numpy(inputs)).numpy()\n"
        )


SAFETENSORS_FILE = "model.safetensors"


class Safetensors(Exporter):
    """The state of a PyTorch model, with tensors that are shared stored once."""

    name = "safetensors"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.safetensors``."""
        _require_torch(trained, self.name)
        from safetensors.torch import save_model

        try:
            save_model(trained.model, str(folder / SAFETENSORS_FILE), metadata={"format": "pt"})
        except Exception as error:
            raise ExportFailed(
                f"trial {trained.trial.number} ({trained.type_name}) cannot be written as safetensors: {first_line(error)}; use --to pt2"
            ) from error
        return SAFETENSORS_FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Build the model again from ``config.json`` and load the file into it."""
        return torch_predictor(_load(folder, trained.space, trained.task))

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Build the model with the study's space; plain PyTorch from there."""
        origin = read_config(folder).get("origin") or {}
        if origin.get("source"):
            options = {name: value for name, value in (origin.get("options") or {}).items() if value is not None}
            imported, made = "from joulefront.search import find_study", f"find_study({origin['source']!r}, {options!r})"
        else:
            imported, made = "from my_study import study as make_study", f"make_study()  # the function that made {trained.study!r}"
        return (
            f"import torch\nfrom joulefront.search.export import load_model\n{imported}\n\n"
            f"study = {made}\n"
            'model = load_model(".", study)\n'
            "with torch.no_grad():\n"
            f"    {trained.output_name} = model(torch.from_numpy(inputs)).numpy()\n"
        )


def _require_torch(trained: TrainedModel, to: str) -> None:
    if not trained.is_torch:
        raise ExportFailed(
            f"trial {trained.trial.number} is a scikit-learn model ({trained.type_name}) and --to {to} takes PyTorch models; "
            "use --to skops or --to onnx"
        )


def load_model(folder: str | Path, study: Study) -> Any:
    """Build the model that ``export(..., to="safetensors")`` wrote, on the CPU in eval mode, with the study that it came from.

    Raises:
        ValueError: If the folder holds no such export, or the study has another space.
    """
    config = read_config(Path(folder))
    if not (Path(folder) / SAFETENSORS_FILE).is_file():
        raise ValueError(f"{str(folder)!r} must hold {SAFETENSORS_FILE}; give a folder written by joulefront export --to safetensors")
    if config["space"] != study.space.name:
        raise ValueError(
            f"the model was built by space {config['space']!r}, study {study.name!r} has {study.space.name!r}; give its own study"
        )
    return _load(Path(folder), study.space, study.load_task())


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read the ``config.json`` of an export.

    Raises:
        ValueError: If there is none.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{str(folder)!r} must hold {CONFIG}; give a folder written by joulefront export")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _load(folder: Path, space: Space, task: Task) -> Any:
    from safetensors.torch import load_model as load_into

    model = build(space, Candidate.from_json(read_config(folder)), task)
    load_into(model, str(folder / SAFETENSORS_FILE), strict=True)
    return model.float().eval()
