"""The formats of a model beside ONNX, which has a file of its own, and all of them by name.

For PyTorch pt2, a graph with its weights that loads without the model's code, and safetensors, the weights alone, of which ``load_model``
makes the model again by ``config.json``; for scikit-learn skops, without pickle, which shows whoever loads it the types that it holds; for
boosted trees the file of their own library.
"""

from __future__ import annotations

import copy
import hashlib
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
from ..training.boosted import BoostedTrees
from ..training.checkpoint import load_sklearn, trusted_in, types_of
from ..training.task import Data, Task
from .model import Exporter, ExportFailed, Predictor, TrainedModel, build, estimator_predictor, first_line, plain_estimator, torch_predictor
from .onnx_format import Onnx, cause, free_batch, quiet

#: Describes an export; its ``joulefront`` key tells a later export that it may replace the files.
CONFIG = "config.json"
PT2_FILE = "model.pt2"


class Pt2(Exporter):
    """PyTorch models as an exported program."""

    name = "pt2"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.pt2`` with a free batch axis."""
        _refuse_others(trained, self.name)
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
#: The metadata of that file, with one key, since more are in any order: the SHA-256 of what builds the model that the weights are of.
BUILT = "joulefront_model_sha256"


class Safetensors(Exporter):
    """The state of a PyTorch model, with tensors that are shared stored once."""

    name = "safetensors"

    def write(self, trained: TrainedModel, folder: Path) -> str:
        """Write ``model.safetensors``."""
        _refuse_others(trained, self.name)
        from safetensors.torch import save_model

        try:
            save_model(trained.model, str(folder / SAFETENSORS_FILE), metadata={BUILT: _built(folder)})
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
        _refuse_others(trained, self.name)
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
        _refuse_others(trained, self.name)
        trees = plain_estimator(trained.model)
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


FORMATS: Mapping[str, Exporter] = {exporter.name: exporter for exporter in (Onnx(), Pt2(), Safetensors(), Skops(), Native())}


def pick_format(name: str) -> Exporter:
    """Return the exporter of a format.

    Raises:
        ValueError: If there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise ValueError(f"--to must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]


def _refuse_others(trained: TrainedModel, to: str) -> None:
    """Refuse a model of a kind that a format does not take."""
    if to in trained.formats:
        return
    plain = plain_estimator(trained.model)
    library = "PyTorch" if trained.is_torch else plain.library if isinstance(plain, BoostedTrees) else "scikit-learn"
    what = "an ensemble" if trained.trial.members else f"a model of {library} ({trained.type_name})"
    raise ExportFailed(f"trial {trained.trial.number} is {what}, which --to {to} does not write; {trained.instead(to)}")


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
    if study is not None and config["space"] != study.space.name:
        said = f"the model was built by space {config['space']!r}, study {study.name!r} has {study.space.name!r}"
        raise ValueError(f"{said}; give its own study")
    return _load(folder, _builder(config) if study is None else study.space, recorded_task(folder))


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


def _built(folder: Path) -> str:
    """Return the SHA-256 of what builds the model of an export, as its ``config.json`` has it."""
    config = read_config(folder)
    built = {name: config.get(name) for name in ("builder", "architecture")} | {"shape": config["task"]["shape"]}
    return hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest()


def _load(folder: Path, space: Space, task: Task) -> Any:
    from safetensors import safe_open
    from safetensors.torch import load_file
    from safetensors.torch import load_model as load_into

    with safe_open(folder / SAFETENSORS_FILE, "pt") as file:
        if (file.metadata() or {}).get(BUILT, _built(folder)) != _built(folder):  # earlier versions wrote none
            raise ValueError(f"{str(folder)!r} is damaged, or of another version ({CONFIG} is of another model); export the model again")
    model = build(space, Candidate.from_json(read_config(folder)), task)
    state = load_file(folder / SAFETENSORS_FILE)
    for name, buffer in list(model.named_buffers()):
        if name in state and buffer.ndim == 0 < state[name].ndim:  # statistics that an untrained model has no length of
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, state[name])
    load_into(model, str(folder / SAFETENSORS_FILE), strict=True)
    return model.float().eval()
