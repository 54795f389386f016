"""From a trial to a folder that others can use: rebuild, write, check, and only then move in, or upload.

Everything is written to a temporary folder; a failure leaves the one that was asked for as it is.
"""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any

from ..argument_types import refuse_wrong_types
from ..formatting import known
from ..records.files import finite
from ..records.run_folder import Run
from ..records.trial import Trial
from ..study import Study
from ..training.task import Task
from ..whole_file import named_when_full
from . import predict
from .card import model_card
from .formats import CONFIG, builder_of, pick_format
from .model import Exporter, ExportFailed, Predictor, TrainedModel, first_line, plain_estimator, rebuild
from .parity import SCRIPT, Check, compare, example, from_start, origin, write_script
from .usage import texts_in
from .variants import REFIT, Refit, variant_of

#: How the temporary folder of an export begins; a killed one leaves it.
PREFIX = ".joulefront-export-"


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
        said.append(f"{check.metric} {known(check.quality_exported, '.4f')} as the model")
        if self.raw is not None and check.raw_max_abs_difference is not None:
            changed = check.raw_decisions_changed or 0
            said[-1] += f"; with its own preprocessing on their {self.raw}: answers within {check.raw_max_abs_difference:.1e}"
            said.append(f"{check.metric} {known(check.raw_quality, '.4f')}")
            said += [f"{changed} decision{'s' * (changed != 1)} changed"] if check.metric != "r2" else []
        if check.quality_test is not None:
            said[-1] += f"; test {check.metric} {known(check.quality_test, '.4f')} on {check.test_examples:,} examples"
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
    earlier export, which is replaced. ``variant`` is one of ``VARIANTS``; ``refit`` is what `joulefront.search.export.variants.refit` found
    of the trial, task and weights that it gave. The run is the source of hardware, place, command and bill for the card.

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
            write_readable_json(stage / REFIT, finite(asdict(refit)))
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
            remedy = "pick another trial" if exporter.name == trained.formats[0] else f"use --to {trained.formats[0]}"
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
        write_readable_json(stage / CONFIG, {**config, "check": finite(asdict(check))})
        use = () if model is None else _use(model, out, example(task.validation))
        return Exported(out, move_in(stage, out), file, check, None if raw is None else origin(task.validation), use)


def describe(trained: TrainedModel, exporter: Exporter, run: Run | None) -> dict[str, Any]:
    """Everything that is needed to build the model again, as JSON."""
    ours = None
    with suppress(PackageNotFoundError):
        ours = version("joulefront")
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
        raise ExportFailed(f"{said}, {trained.instead(exporter.name)}") from error


def _use(model: predict.Model, out: Path, file: str | None) -> tuple[str, ...]:
    """Return commands that predict, for a shell: with joulefront, and without."""
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
        f"  pip install {' '.join(dict.fromkeys(('onnxruntime', 'numpy', predict.READS[model.takes][1])))}",
        f"  python {quote(str(out / SCRIPT))} {quote(named)}",
    )


def _preprocessing(trained: TrainedModel) -> dict[str, Any]:
    task = trained.task
    resized = trained.is_torch and trained.input_shape != tuple(task.input_shape)
    then = f"resize the normalised image to {trained.input_shape[1:]} with antialiased bilinear interpolation"
    return {
        **task.preprocessing,
        **({"then": then} if resized else {}),
        "input_shape": list(trained.input_shape),
        "dtype": "float32",
        **({"target_mean": task.target_scale[0], "target_std": task.target_scale[1]} if task.target_scale is not None else {}),
    }


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of ``out``; it is gone afterwards, whatever happened.

    Raises:
        ValueError: If ``out`` is a file, holds something other than an export, or cannot be written.
        OSError: If the disk is full; the error names ``out``.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"-o {str(out)!r} is a file; give a folder that is empty or does not exist yet")
    try:
        inside = [file.name for file in out.iterdir() if not file.name.startswith(PREFIX)] if out.is_dir() else []  # a killed export's
        strange = [] if earlier_files(out) else sorted(inside)
        if strange:
            raise ValueError(
                f"-o {str(out)!r} is not empty ({strange[0]}{', ...' if len(strange) > 1 else ''}) and holds no earlier export; "
                "give a folder that is empty or does not exist yet"
            )
        near = out.absolute()
        while not near.exists():
            near = near.parent
        stage = tempfile.TemporaryDirectory(prefix=PREFIX, dir=near, ignore_cleanup_errors=True)
    except OSError as error:
        raise ValueError(f"-o {str(out)!r} cannot be written ({error.strerror or error}); give another folder") from error
    with stage as folder, named_when_full(out):
        yield Path(folder)


def move_in(stage: Path, out: Path) -> tuple[str, ...]:
    """Move the files of ``stage`` into ``out``, each atomically and the config last; remove what only the earlier export had.

    Other files beside an earlier export stay.

    Raises:
        ValueError: If the folder cannot be written.
    """
    names = sorted(file.name for file in stage.iterdir())
    try:
        out.mkdir(parents=True, exist_ok=True)
        old = earlier_files(out)
        for name in sorted(names, key=lambda name: name == CONFIG):
            os.replace(stage / name, out / name)
        for name in set(old) - set(names):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"-o {str(out)!r} cannot be written ({error.strerror or error}); give another folder") from error
    return tuple(names)


def earlier_files(out: Path) -> tuple[str, ...]:
    """Names of the files of an earlier export in ``out``; empty when there is none."""
    try:
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        names = config["joulefront"]["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(name for name in names if isinstance(name, str) and Path(name).name == name)


def write_readable_json(file: Path, data: Any) -> None:
    """Write JSON that people can read as well; halves of signs, as names of files may have, are escapes in it."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8", errors="backslashreplace")


def check_push(repository: str, network: bool) -> None:
    """See that a folder may be uploaded, before anything is made.

    Raises:
        ValueError: If the network was not allowed, there is no token, or the name is none of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not listed

    if not network:
        raise ValueError("--push must come with --network, which allows the upload; add it")
    if not os.environ.get("HF_TOKEN"):
        raise ValueError("--push needs a token that may write: set HF_TOKEN to one of huggingface.co/settings/tokens")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push must be NAME or USER/NAME, got {repository!r}: {error}") from error


def upload(folder: Path, repository: str) -> str:
    """Upload an export to a repository of the Hugging Face hub, which is made where there is none; returns its address.

    Raises:
        RuntimeError: If the hub refuses it or cannot be reached; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=os.environ["HF_TOKEN"])
        found = api.create_repo(repository, exist_ok=True, private=True)
        api.upload_folder(folder_path=folder, repo_id=found.repo_id, commit_message="Exported by joulefront")
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise RuntimeError(f"{folder} is complete, but could not be uploaded to {repository}: {line}; try again, or upload it") from error
    return str(found)
