"""From a trial to files that others can use: rebuild, write, check, and only then keep; and models in the file of their own library.

That is skops for scikit-learn, without pickle, which shows whoever loads it the types that it holds, and the native file of boosted trees.
"""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any

from ..argument_types import refuse_wrong_types
from ..records.run_folder import Run
from ..records.trial import Trial
from ..study import Study
from ..training.boosted import BoostedTrees
from ..training.checkpoint import load_sklearn, trusted_in, types_of
from ..training.task import Task
from . import predict
from .card import model_card
from .folder import CONFIG, move_in, staging, write_readable_json
from .model import Exporter, ExportFailed, Predictor, TrainedModel, estimator_predictor, first_line, plain_estimator, rebuild
from .onnx_format import Onnx
from .parity import SCRIPT, Check, compare, example, from_start, origin, write_script
from .refit import REFIT, Refit
from .torch_formats import Pt2, Safetensors, builder_of
from .usage import texts_in
from .variants import variant_of

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


FORMATS: Mapping[str, Exporter] = {exporter.name: exporter for exporter in (Onnx(), Pt2(), Safetensors(), Skops(), Native())}


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the folder, the sorted names of its files, that of the model among them, and the check it passed.

    ``raw`` is what the check read the exported preprocessing with, None where it has none; ``use`` are lines with commands that predict.
    """

    path: Path
    files: tuple[str, ...]
    file: str
    check: Check
    raw: str | None = None
    use: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a few lines on what was written where, how it was checked, and commands that predict with it."""
        check = self.check
        said = [f"checked on {check.examples:,} {check.split} examples: outputs within {check.max_abs_difference:.1e}"]
        said.append(f"{check.metric} {check.quality_exported:.4f} as the model")
        if self.raw is not None and check.raw_max_abs_difference is not None:
            changed = check.raw_decisions_changed or 0
            said[-1] += f"; with its own preprocessing on their {self.raw}: answers within {check.raw_max_abs_difference:.1e}"
            said.append(f"{check.metric} {'unknown' if check.raw_quality is None else f'{check.raw_quality:.4f}'}")
            said += [f"{changed} decision{'s' * (changed != 1)} changed"] if check.metric != "r2" else []
        if check.quality_test is not None:
            said[-1] += f"; test {check.metric} {check.quality_test:.4f} on {check.test_examples:,} examples"
        beside = f"beside it: {', '.join(name for name in self.files if name != self.file)}"
        lines = [f"{self.path / self.file}"]
        for text in (", ".join(said), beside):
            lines += textwrap.wrap(text, 80, break_on_hyphens=False, break_long_words=False)
        return "\n".join([*lines, *(["", *self.use] if self.use else [])])


def export(
    trial: Trial,
    *,
    study: Study,
    task: Task,
    weights: str | Path,
    to: str | Exporter,
    out: str | Path,
    run: Run | None = None,
    variant: str | None = None,
    refit: Refit | None = None,
) -> Exported:
    """Write the model of a trial in a format, after checking the file against the model on all validation data.

    Everything is written into a temporary folder and moved to ``out`` when the check has passed; a failure leaves ``out`` unchanged. The
    trial must be complete, its weights kept; ``to`` is a name of ``FORMATS`` or an exporter of your own; ``out`` is new, empty, or an
    earlier export, which is replaced. ``variant`` is one of ``VARIANTS``; ``refit`` is what `joulefront.search.export.refit.refit` found of
    the trial, task and weights that it gave. The run is the source of hardware, place, command and bill for the card.

    Raises:
        ValueError: If the format is unknown, ``out`` cannot be used, or the trial is not complete.
        ExportFailed: If the model cannot be written in this format, or the file does not predict as the model does.
    """
    refuse_wrong_types(export, locals(), to='write "onnx"')
    exporter = pick_format(to) if isinstance(to, str) else to
    out = Path(out)
    with staging(out) as stage:
        trained = rebuild(trial, study=study, task=task, weights=Path(weights))
        if (why := getattr(plain_estimator(trained.model), "not_exportable", None)) is not None:
            raise ExportFailed(f"trial {trial.number} ({trained.type_name}) cannot be exported: {why}")
        if refit is not None:
            trained = replace(trained, refitted=refit.to_text())
            write_readable_json(stage / REFIT, _finite(refit.to_json()))
        if variant is not None:
            trained = variant_of(trained, variant, exporter.name)
        for name, facts in ((CONFIG, describe(trained, exporter, run)), ("classes.json", list(task.classes))):
            write_readable_json(stage / name, facts)
        write_readable_json(stage / "preprocessing.json", _preprocessing(trained))
        file = exporter.write(trained, stage)
        exported = _read_back(exporter, trained, stage)
        takes = write_script(stage, file, trained)
        model = predict.Model(stage) if file == predict.MODEL else None
        raw = from_start(stage, exported, trained)
        check = compare(trained, exported, raw)
        if check.fault is not None:
            safest = "safetensors" if trained.is_torch else "skops"
            remedy = "pick another trial" if exporter.name == safest else f"use --to {safest}"
            raise ExportFailed(
                f"the {exporter.name} file of trial {trial.number} ({trained.type_name}) is not the model: {check.fault}. "
                f"Nothing was written; {remedy}"
            )
        if takes == "inputs":  # which the file was checked with already
            raw, check = None, replace(check, raw_max_abs_difference=None, raw_decisions_changed=None, raw_quality=None)
        snippet = None if model is not None else exporter.snippet(trained, stage)
        card = model_card(trained, check, to=exporter.name, file=file, snippet=snippet, takes=takes, run=run, seed=study.seed)
        (stage / "README.md").write_text(card, encoding="utf-8")
        names = sorted({*(found.name for found in stage.iterdir()), CONFIG})
        config = describe(trained, exporter, run)
        config["joulefront"] |= {"file": file, "files": names}
        write_readable_json(stage / CONFIG, {**config, "check": _finite(asdict(check))})
        use = () if model is None else _use(model, out, example(task.validation))
        return Exported(out, move_in(stage, out), file, check, None if raw is None else origin(task.validation), use)


def pick_format(name: str) -> Exporter:
    """Return the exporter of a format.

    Raises:
        ValueError: If there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise ValueError(f"--to must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]


def describe(trained: TrainedModel, exporter: Exporter, run: Run | None) -> dict[str, Any]:
    """Everything that is needed to build the model again, as JSON."""
    try:
        ours = version("joulefront")
    except PackageNotFoundError:
        ours = None
    task, trial = trained.task, trained.trial
    return {
        "joulefront": {"version": ours, "format": exporter.name, "files": []},
        "study": trained.study,
        "origin": None if run is None else run.facts.get("origin"),
        "trial": trial.number,
        "epochs": trial.epochs,
        "variant": trained.variant,
        "params": dict(trial.params),
        "space": trained.space.name,
        "builder": builder_of(trained.space, trained.candidate),
        **trained.candidate.to_json(),
        "task": {
            "name": task.name,
            "kind": task.kind,
            "outputs": task.outputs,
            "metric": trained.metric,
            "shape": list(task.input_shape),
            "scale": task.target_scale,
            "train": len(task.train),
            trained.split: len(task.validation),
        },
        "input": {"name": "inputs", "shape": ["batch", *trained.input_shape], "dtype": "float32"},
        "output": {"name": trained.output_name, "classes": len(task.classes) or None},
    }


def _read_back(exporter: Exporter, trained: TrainedModel, folder: Path) -> Predictor:
    try:
        return exporter.load(trained, folder)
    except Exception as error:
        said = f"the exported {exporter.name} file cannot be read back ({first_line(error)}); nothing was written"
        raise ExportFailed(f"{said}, use {'--to safetensors' if trained.is_torch else '--to skops'}") from error


def _use(model: predict.Model, out: Path, file: str | None) -> tuple[str, ...]:
    """Return commands that predict, for a shell: with joulefront, and without."""
    packages = {"image": "pillow", "audio": "soundfile", "table": "pandas"}.get(model.takes, "")
    if file is not None and file.startswith(f"{Path.cwd()}/"):
        file = str(Path(file).relative_to(Path.cwd()))
    named = file or {"image": "PHOTO.jpg", "audio": "SOUND.wav", "table": "ROWS.csv"}.get(model.takes, "ARRAY.npy")
    following = f"next: joulefront predict {quote(str(out))} {quote(named)}"
    if model.takes == "table" and (free := texts_in(model.how)):
        lacks = f"elsewhere pip install 'joulefront[text]' is needed, for {', '.join(map(repr, free))} is free text"
        return following, f"{lacks}; without these columns (run ... --pretrained no) onnxruntime, numpy and pandas do"
    return (
        following,
        "or, where joulefront is not installed:",
        f"  pip install onnxruntime numpy {packages}".rstrip(),
        f"  python {quote(str(out / SCRIPT))} {quote(named)}",
    )


def _preprocessing(trained: TrainedModel) -> dict[str, Any]:
    task = trained.task
    resized = trained.is_torch and trained.input_shape != tuple(task.input_shape)
    return {
        **task.preprocessing,
        **(
            {"then": f"resize the normalised image to {trained.input_shape[1:]} with antialiased bilinear interpolation"} if resized else {}
        ),
        "input_shape": list(trained.input_shape),
        "dtype": "float32",
        **({"target_mean": task.target_scale[0], "target_std": task.target_scale[1]} if task.target_scale is not None else {}),
    }


def _finite(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in data.items()}
