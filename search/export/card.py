"""The model card: what the model is, its quality, the energy that it took and how well that is known, and how to use the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..energy import JOULES_PER_WH
from ..records.run_folder import Run
from .model import TrainedModel
from .parity import Check

LIBRARIES = {"onnx": "onnx", "pt2": "pytorch", "safetensors": "joulefront", "skops": "sklearn", "native": "joulefront"}
#: Names of stored qualities in a card; ``model-index`` has them as well.
METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "auc": "ROC AUC",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "f1": "F1",
    "loss": "Loss",
}
_KNOWN = {
    "measured": "measured",
    "estimated": "an estimate, not a measurement",
    "mixed": "partly measured, partly estimated",
    "absent": "of unknown quality",
}
_IMAGE_FILE = '''

def prepare(path):
    """Turn an image file into model input."""
    image = ImageOps.exif_transpose(Image.open(path))
    if "white" in how and (image.mode in ("I", "F") or image.mode.startswith("I;16")):  # more than 8 bits
        pixels = np.asarray(image).astype("float32") * (255 / how["white"]) + (0.5 if image.mode == "F" else 0)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    if image.has_transparency_data:
        clear, ground = image.convert("RGBA"), how.get("ground", 255)
        image = Image.alpha_composite(Image.new("RGBA", clear.size, (ground, ground, ground, 255)), clear)
    image = image.convert("L" if how["channels"] == 1 else "RGB")
    image = ImageOps.fit(image, (how["width"], how["height"]), Image.Resampling.BILINEAR)  # crops the centre, then resizes
    pixels = np.asarray(image, dtype="float32").reshape(how["height"], how["width"], how["channels"]).transpose(2, 0, 1)
    mean, std = (np.array(how[key], dtype="float32")[:, None, None] for key in ("mean", "std"))
    x = (pixels * how["scale"] - mean) / std
{resize}    return x[None]{flat}


'''
_RESIZE = """    size = tuple(how["input_shape"][1:])
    x = np.stack([np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR)) for channel in x])
"""
_ARRAY = '''

def prepare(raw):
    """Turn examples ``(n, {raw})``, as the study loads them, into model input."""
    mean, std = (np.array(how[key]){expand} for key in ("mean", "std"))
    x = (np.asarray(raw, dtype="float64") * how["scale"] - mean) / std
    return x{flat}.astype("float32")


'''


def model_card(trained: TrainedModel, check: Check, *, to: str, file: str, snippet: str, run: Run | None, seed: int) -> str:
    """Return the text of ``README.md``: YAML front matter by ``huggingface_hub`` and the body.

    ``co2_eq_emissions`` appears only when the grams are known: an unknown emission is absent, never 0.

    Source: Hugging Face Hub, model card metadata specification (``co2_eq_emissions``, ``model-index``).
    """
    from huggingface_hub import ModelCard, ModelCardData

    trial, task = trained.trial, trained.task
    results = _results(trained, check)
    data = ModelCardData(
        library_name=LIBRARIES.get(to, to),
        pipeline_tag=_task_type(trained),
        tags=["joulefront", "energy", _family(trained), to],
        metrics=[check.metric],
        model_name=f"{trained.study}-trial-{trial.number}",
        eval_results=results,
        **_emissions(trained, run),
    )
    sections = [
        f"# {trained.study}, trial {trial.number}",
        f"{trained.type_name} of the family `{_family(trained)}`, trained on {task.name} for {_epochs(trial.epochs)}"
        + (f", {trial.parameters:,} parameters" if trial.parameters is not None else "")
        + (f", {trial.flops:,} FLOPs per prediction" if trial.flops is not None else "")
        + ". Found by a search for models that are worth their energy.",
        "## Quality\n\n" + _quality(trained, check),
        "## Energy and carbon\n\n" + _energy(trained, run),
        "## Use\n\n" + usage(trained, snippet),
        "## The exported file\n\n"
        + f"`{file}` was compared with the model on all {check.examples:,} validation examples: outputs differ by at most "
        + f"{check.max_abs_difference:.2g} (allowed: {check.tolerance:.2g}), {check.decisions_changed} decisions changed, "
        + f"{check.metric} {check.quality_exported:.6g} against {check.quality_model:.6g}.",
        "## Origin\n\n" + _origin(trained, run, seed),
    ]
    body = "\n\n".join(sections)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def usage(trained: TrainedModel, snippet: str) -> str:
    """Return the section of the card that shows how to prepare data, load the file and read the outputs.

    ``snippet`` is the part of the format: from ``inputs`` to the outputs.
    """
    shape = ", ".join(str(side) for side in trained.input_shape)
    imports, prepare, call = _prepare(trained)
    after = _read_outputs(trained)
    # The code of a format starts with its imports; they move to the top.
    lines = snippet.splitlines()
    theirs = [line for line in lines if line.startswith(("import ", "from "))]
    rest = "\n".join(line for line in lines if line not in theirs).strip("\n")
    inputs = f'inputs = np.zeros((1, {shape}), dtype="float32")  # put yours here{f": {call}" if call else ""}'
    loaded = 'how = json.load(open("preprocessing.json"))\n' if prepare else ""
    top = "\n".join(sorted({"import json", "import numpy as np", *imports, *theirs}, key=lambda line: (line.startswith("from"), line)))
    body = f"{top}\n\n{loaded}{prepare}{inputs}\n{rest}\n{after}"
    return f"The input is float32 `(n, {shape})`, prepared as `preprocessing.json` describes. In this folder:\n\n```python\n{body}```"


def _prepare(trained: TrainedModel) -> tuple[list[str], str, str]:
    """Imports, the code of ``prepare`` and a call of it; empty where the user's own code turns raw data into input."""
    how = trained.task.preprocessing
    flat = "" if trained.is_torch else ".reshape(1, -1)"
    if how.get("kind") == "image" and how.get("mean") is not None and "resize" in how:
        own = tuple(trained.task.input_shape)
        resize = _RESIZE if trained.is_torch and trained.input_shape != own else ""
        return ["from PIL import Image, ImageOps"], _IMAGE_FILE.format(resize=resize, flat=flat), 'prepare("image.png")'
    if how.get("kind") == "table":
        return ["from joulefront.search import prepare"], "\n", 'prepare(how, "rows.csv")'
    if how.get("kind") in ("image", "features") and how.get("mean") is not None and trained.candidate.recipe.resolution is None:
        image = len(trained.task.input_shape) == 3
        raw = ", ".join(str(side) for side in trained.task.input_shape)
        flat = "" if trained.is_torch else ".reshape(len(x), -1)"
        return [], _ARRAY.format(raw=raw, expand="[:, None, None]" if image else "", flat=flat), "prepare(raw)"
    return [], "", ""


def _read_outputs(trained: TrainedModel) -> str:
    task, output = trained.task, trained.output_name
    if task.kind == "classification":
        return f'classes = json.load(open("classes.json"))\nprint([classes[i] for i in {output}.argmax(axis=1)])\n'
    if task.kind == "multilabel":
        border = 0 if trained.is_torch else 0.5
        named = f"[[classes[i] for i in row.nonzero()[0]] for row in {output} > {border}]"
        return f'classes = json.load(open("classes.json"))\nprint({named})\n'
    if task.kind == "anomaly" and trained.is_torch:
        return f"print({output}[:, 1] > {output}[:, 0])  # True: an anomaly\n"
    if task.kind == "anomaly":
        return f"print({output} < 0)  # True: an anomaly\n"
    if task.target_scale is not None:
        mean, deviation = task.target_scale
        return f"print({output}.reshape(-1) * {deviation!r} + {mean!r})  # in the unit of the data\n"
    return f"print({output}.reshape(-1))\n"


def _results(trained: TrainedModel, check: Check) -> list[Any]:
    from huggingface_hub import EvalResult

    splits = [("validation", check.quality_exported)]
    if check.quality_test is not None:
        splits.append(("test", check.quality_test))
    return [
        EvalResult(
            task_type=_task_type(trained),
            dataset_type=trained.task.name.lower().replace(" ", "-"),
            dataset_name=trained.task.name,
            dataset_split=split,
            metric_type=check.metric,
            metric_name=METRICS.get(check.metric, check.metric),
            metric_value=round(value, 6),
        )
        for split, value in splits
        if math.isfinite(value)
    ]


def _task_type(trained: TrainedModel) -> str:
    images = len(trained.task.input_shape) == 3
    if trained.task.kind == "regression":
        return "other" if images else "tabular-regression"
    return "image-classification" if images else "tabular-classification"


def _emissions(trained: TrainedModel, run: Run | None) -> dict[str, Any]:
    trial = trained.trial
    if trial.grams_co2e is None:
        return {}
    intensity = _facts(run).get("intensity") or {}
    meters = sorted({part.source for part in trial.components.values() if part.joules is not None})
    source = f"joulefront: energy {trial.energy_quality} ({', '.join(meters) or 'unknown meter'})"
    if _facts(run).get("carbon"):
        source += f" times the intensity of the hours in which it was trained ({_facts(run)['carbon'][-1]['forecast']}, a forecast)"
    elif intensity.get("grams_per_kwh") is not None:
        source += f" times {intensity['grams_per_kwh']:g} gCO2e/kWh ({_joined(intensity, 'source', 'year')})"
    emissions: dict[str, Any] = {
        "emissions": float(f"{trial.grams_co2e:.6g}"),
        "source": source,
        "training_type": "fine-tuning" if _fine_tuned(trained) else "pre-training",
    }
    if intensity.get("zone"):
        emissions["geographical_location"] = str(intensity["zone"])
    if _hardware(run):
        emissions["hardware_used"] = _hardware(run)
    return {"co2_eq_emissions": emissions}


def _quality(trained: TrainedModel, check: Check) -> str:
    name = METRICS.get(check.metric, check.metric)
    rows = ["| split | examples | metric | value |", "|---|---:|---|---:|"]
    rows.append(f"| validation (what the search optimised) | {check.examples:,} | {name} | {check.quality_exported:.4f} |")
    for key, value in trained.trial.quality.items():
        if key not in (check.metric, "error") and math.isfinite(value):
            rows.append(f"| validation, as the trial stored it | {check.examples:,} | {METRICS.get(key, key)} | {value:.4f} |")
    if check.quality_test is not None:
        rows.append(f"| test (never seen by the search) | {check.test_examples:,} | {name} | {check.quality_test:.4f} |")
    notes = (
        []
        if check.quality_test is not None
        else ["There was no test split: the validation figure is optimistic, because the search selected by it."]
    )
    if check.quality_recorded is not None and abs(check.quality_recorded - check.quality_model) > 1e-6:
        notes.append(
            f"The trial stored {check.quality_recorded:.6f}; in float32 on the CPU the same weights give {check.quality_model:.6f} "
            f"({check.quality_model - check.quality_recorded:+.6f})."
        )
    return "\n".join(rows) + ("\n\n" + " ".join(notes) if notes else "")


def _energy(trained: TrainedModel, run: Run | None) -> str:
    trial = trained.trial
    lines = []
    if trial.train_joules is None:
        lines.append("The energy of the training is unknown: no meter could read it.")
    else:
        spread = "" if trial.train_u_joules is None else f" ± {trial.train_u_joules:.2g} J (random standard uncertainty)"
        spent = f"**{trial.train_joules:.4g} J** ({trial.train_wh:.4g} Wh)"
        lines.append(f"Training this model from scratch took {spent}{spread}; {_KNOWN[trial.energy_quality]}.")
    if trial.components:
        lines.append("\n| component | energy | quality | meter |\n|---|---:|---|---|")
        for name, part in trial.components.items():
            lines.append(f"| {name} | {'unknown' if part.joules is None else f'{part.joules:.4g} J'} | {part.quality} | {part.source} |")
        lines.append("")
    lines += [
        f"The energy of the pretraining of {one['model']} is {_pretraining(one)} and not included." for one in _pretrained(trained, run)
    ]
    if trial.grams_co2e is not None:
        lines.append(f"Carbon: {trial.grams_co2e:.4g} gCO2e, the energy times the intensity of the grid.")
    else:
        lines.append("Carbon: unknown, because no zone was given (`--zone`).")
    if trial.inference_joules_per_1000 is not None:
        spread = "" if trial.energy.inference_u_joules_per_1000 is None else f" ± {trial.energy.inference_u_joules_per_1000:.2g} J"
        lines.append(f"1,000 predictions of the trained model took {trial.inference_joules_per_1000:.4g} J{spread}.")
    if run is not None and run.bill.total_joules is not None:
        lines.append(
            f"The whole search spent {run.bill.total_joules / JOULES_PER_WH:.4g} Wh on {len(run.trials)} trials, "
            "failed ones and overhead included."
        )
    if _hardware(run):
        lines.append(f"Hardware: {_hardware(run)}.")
    return "\n".join(lines)


def _origin(trained: TrainedModel, run: Run | None, seed: int) -> str:
    lines = [f"- study `{trained.study}`, trial {trained.trial.number}, seed {seed}"]
    session = _session(run)
    if session.get("command"):
        lines.append(f"- command: `{session['command']}`")
    versions = session.get("versions") or {}
    if versions:
        lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for one in _pretrained(trained, run):
        size, licence = f"{one['bytes'] / 1e6:.1f} MB", one["licence"] or "licence unknown"
        lines.append(f"- pretrained weights: `{one['model']}` from {one['origin']} ({licence}, {size}, SHA-256 `{one['sha256']}`)")
    lines.append("- parameters: " + ", ".join(f"{name} = {value}" for name, value in sorted(trained.trial.params.items())))
    lines.append("- architecture and recipe in full: `config.json`")
    return "\n".join(lines)


def _facts(run: Run | None) -> Mapping[str, Any]:
    return run.facts if run is not None else {}


def _session(run: Run | None) -> Mapping[str, Any]:
    sessions = _facts(run).get("sessions") or [{}]
    found: Mapping[str, Any] = sessions[0]
    return found


def _hardware(run: Run | None) -> str:
    known = _session(run).get("hardware") or {}
    if isinstance(known, str):
        return known
    return ", ".join(dict.fromkeys(_names(known)))


def _names(value: Any, key: str = "") -> list[str]:
    if isinstance(value, Mapping):
        return [name for inner, part in value.items() for name in _names(part, str(inner))]
    if isinstance(value, list | tuple):
        return [name for part in value for name in _names(part, key)]
    wanted = ("cpu", "gpu", "name", "model", "model_name", "cpu_model", "gpu_name")
    return [value] if isinstance(value, str) and value and key in wanted else []


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _family(trained: TrainedModel) -> str:
    return str(trained.candidate.architecture.get("family", trained.space.name))


def _fine_tuned(trained: TrainedModel) -> bool:
    return str(trained.candidate.architecture.get("weights", "none")) != "none" or bool(trained.candidate.architecture.get("pretrained"))


def _pretrained(trained: TrainedModel, run: Run | None) -> list[Mapping[str, Any]]:
    """Return what is known of the pretrained weights in a model; a file that only its path names is that of the study."""
    named = str(trained.candidate.architecture.get("weights", "none"))
    known = _facts(run).get("study", {}).get("weights", []) if _fine_tuned(trained) else []
    return [one for one in known if "@" not in named or named == f"{one['model']}@{one['sha256'][:16]}"]


def _pretraining(weights: Mapping[str, Any]) -> str:
    if weights["pretraining_joules"] is not None:
        return f"{weights['pretraining_joules'] / JOULES_PER_WH:.4g} Wh"
    grams = weights["pretraining_grams_co2e"]
    return "unknown" if grams is None else f"unknown (its own card states {grams:g} gCO2e)"


def _joined(data: Mapping[str, Any], *keys: str) -> str:
    return ", ".join(str(data[key]) for key in keys if data.get(key) is not None)
