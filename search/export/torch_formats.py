"""The formats of PyTorch: pt2, a graph with its weights that loads without the model's code, and safetensors, the weights alone.

A safetensors export is rebuilt by the study's space from ``config.json``: ``load_model``.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..argument_types import refuse_wrong_types
from ..space import Candidate, Space
from ..study import Study
from ..training.task import Data, Task
from .folder import CONFIG
from .model import Exporter, ExportFailed, Predictor, TrainedModel, build, first_line, torch_predictor
from .onnx_format import cause, free_batch, quiet

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
                    dynamic_shapes=free_batch(),
                    strict=False,
                )
                file = io.BytesIO()  # torch's writer ends the whole process where a file that it holds open cannot be finished
                torch.export.save(program, file)
            except Exception as error:
                raise ExportFailed(
                    f"trial {trained.trial.number} ({trained.type_name}) cannot be traced by torch.export: {cause(error)}; "
                    "use --to safetensors",
                    f"{captured.getvalue()}\n{error}",
                ) from error
        (folder / PT2_FILE).write_bytes(file.getvalue())
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
        written = (folder / SAFETENSORS_FILE).read_bytes()
        (folder / SAFETENSORS_FILE).unlink()  # its owner alone may read what the library has made
        (folder / SAFETENSORS_FILE).write_bytes(written)
        return SAFETENSORS_FILE

    def load(self, trained: TrainedModel, folder: Path) -> Predictor:
        """Build the model again from what lies in the folder, as ``load_model`` does, and load the file into it."""
        known = read_config(folder).get("builder") is not None
        return torch_predictor(load_model(folder) if known else _load(folder, trained.space, recorded_task(folder)))

    def snippet(self, trained: TrainedModel, folder: Path) -> str:
        """Build the model with its family, or for a family of the user's own with the study's space; plain PyTorch from there."""
        origin = read_config(folder).get("origin") or {}
        imported, made = "", ""
        if read_config(folder).get("builder") is None:
            imported = "from my_study import study as make_study\n"
            made = f"study = make_study()  # the function that made {trained.study!r}\n"
            if origin.get("source"):
                options = {name: value for name, value in (origin.get("options") or {}).items() if value is not None}
                imported, made = "from joulefront.search import find_study\n", f"study = find_study({origin['source']!r}, {options!r})\n"
        return (
            f"import torch\nfrom joulefront.search.export import load_model\n{imported}\n{made}"
            f'model = load_model("."{", study" if made else ""})\n'
            "with torch.no_grad():\n"
            f"    {trained.output_name} = model(torch.from_numpy(inputs)).numpy()\n"
        )


def _require_torch(trained: TrainedModel, to: str) -> None:
    if not trained.is_torch:
        raise ExportFailed(
            f"trial {trained.trial.number} is a scikit-learn model ({trained.type_name}) and --to {to} takes PyTorch models; "
            "use --to skops or --to onnx"
        )


def load_model(folder: str | Path, study: Study | None = None) -> Any:
    """Build the model that ``export(..., to="safetensors")`` wrote, on the CPU in eval mode; the data of the study is not read.

    Without a study the family that built it is taken with its defaults, where it is one of joulefront's own: the stored architecture says
    all. A model of your own family needs the study that it came from.

    Raises:
        ValueError: If the folder holds no such export, or the study has another space.
    """
    refuse_wrong_types(load_model, locals())
    try:
        return _loaded(Path(folder), study)
    except Exception as error:  # whatever the libraries raise on files of somebody else
        lacks_a_library = isinstance(error, ImportError) and not str(error.name).startswith("joulefront.")
        if lacks_a_library or type(error) in (ValueError, ExportFailed):
            raise
        raise ValueError(f"{str(folder)!r} is damaged, or of another version ({first_line(error)}); export the model again") from error


def _loaded(folder: Path, study: Study | None) -> Any:
    config = read_config(folder)
    if not (folder / SAFETENSORS_FILE).is_file():
        raise ValueError(f"{str(folder)!r} must hold {SAFETENSORS_FILE}; give a folder written by joulefront export --to safetensors")
    task = recorded_task(folder)
    if study is None:
        return _load(folder, _builder(config), task)
    if config["space"] != study.space.name:
        raise ValueError(
            f"the model was built by space {config['space']!r}, study {study.name!r} has {study.space.name!r}; give its own study"
        )
    return _load(folder, study.space, task)


def builder_of(space: Space, candidate: Candidate) -> str | None:
    """Return ``module:class`` of the family that builds a candidate, None where it is not one of joulefront's own."""
    members: tuple[Space, ...] = getattr(space, "spaces", (space,))
    family = next((one for one in members if one.name == candidate.architecture.get("family")), members[0] if len(members) == 1 else None)
    kind: Any = type(family)
    known = kind.__module__.startswith("joulefront.spaces.") and is_dataclass(kind)
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING] if known else []
    return f"{kind.__module__}:{kind.__qualname__}" if known and needed in ([], ["weights"]) else None


def _builder(config: Mapping[str, Any]) -> Space:
    name = str(config.get("builder") or "")
    if not re.fullmatch(r"joulefront\.spaces\.[a-z_]+:[A-Za-z]+", name):  # nothing else is imported: the folder may be somebody else's
        raise ValueError("the model is of a family of its own; give the study that it came from: load_model(folder, study)")
    module, _, kind = name.partition(":")
    family = getattr(importlib.import_module(module), kind)
    needed = {one.name for one in fields(family) if one.default is MISSING and one.default_factory is MISSING}
    found = importlib.import_module("joulefront.spaces.weights").find("auto") if needed else None
    built: Space = family(weights=found) if needed else family()
    return built


class Absent(Data):
    """A split of which only the length is kept.

    What a family looks at when it builds, e.g. to whiten images, is noise: the weights that are loaded replace it.
    """

    def __init__(self, length: int, shape: Sequence[int], kind: str) -> None:
        self._length, self._shape, self._kind = length, tuple(shape), kind

    def __len__(self) -> int:
        return self._length

    def batches(self, batch_size: int, **options: Any) -> Iterator[tuple[Any, Any]]:
        """Yield one batch of noise."""
        import torch

        count, side = min(batch_size, self._length), options.get("resolution")
        shape = (self._shape[0], side, side) if side is not None and len(self._shape) == 3 else self._shape
        yield torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)), torch.zeros(count, dtype=torch.int64)

    def arrays(self) -> tuple[Any, Any]:
        """Return noise, too."""
        inputs, targets = next(self.batches(self._length))
        return inputs.flatten(1).numpy(), targets.numpy()


def recorded_task(folder: Path) -> Task:
    """Return the task of an export without its data."""
    task = read_config(folder)["task"]
    how = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
    checked = task["validation"] if "validation" in task else task["test"]  # of a refit
    train, validation = (Absent(length, task["shape"], task["kind"]) for length in (task["train"], checked))
    scale = None if task["scale"] is None else (task["scale"][0], task["scale"][1])
    return Task(task["name"], task["kind"], train, validation, None, tuple(task["shape"]), classes, how, scale)


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
    from safetensors.torch import load_file
    from safetensors.torch import load_model as load_into

    model = build(space, Candidate.from_json(read_config(folder)), task)
    state = load_file(folder / SAFETENSORS_FILE)
    for name, buffer in list(model.named_buffers()):
        if name in state and buffer.ndim == 0 < state[name].ndim:  # statistics that an untrained model has no length of
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, state[name])
    load_into(model, str(folder / SAFETENSORS_FILE), strict=True)
    return model.float().eval()
