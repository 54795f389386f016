"""The model card: what the model is, its quality, the energy that it took and how well that is known, and how to use the file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from ..certainty import examples_text, folds_in, splits_in
from ..formatting import count_text, grams_text, joules_text, known, percent, plain, printable
from ..front import Front
from ..pareto import LESS_IS_BETTER
from ..records.run import EPOCHS_OF, learner, machine_names
from ..records.run_folder import Run
from ..training.results import SOLVED
from .model import TrainedModel
from .parity import Check, origin
from .usage import code, markdown, usage

LIBRARIES = {"onnx": "onnx", "pt2": "pytorch", "safetensors": "joulefront", "skops": "sklearn", "native": "joulefront"}
#: Names of stored qualities in a card; ``model-index`` has them as well.
METRICS = {
    "accuracy": "Accuracy",
    "error": "Error",
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
#: What a model of each kind cannot do, whatever its figures.
_LIMITS = (
    "It knows the classes and the kind of data that it was trained on; anything else gets one of its answers, too.",
    "A probability is as sure as the training made it: it was not calibrated.",
)


def model_card(
    trained: TrainedModel, check: Check, *, to: str, file: str, snippet: str | None, takes: str, run: Run | None, seed: int
) -> str:
    """Return the text of ``README.md``: YAML front matter by ``huggingface_hub`` and the body; for ``snippet`` and ``takes`` see ``usage``.

    ``co2_eq_emissions`` appears only when the grams are known: an unknown emission is absent, never 0.

    Source: Hugging Face Hub, model card metadata specification (``co2_eq_emissions``, ``model-index``).
    """
    from huggingface_hub import ModelCard, ModelCardData

    trial, task = trained.trial, trained.task
    results = _results(trained, check)
    data = ModelCardData(
        library_name=LIBRARIES.get(to, to),
        pipeline_tag=_task_type(trained),
        tags=["joulefront", "energy", printable(_family(trained)), to],
        metrics=[check.metric],
        model_name=printable(f"{trained.study}-trial-{trial.number}"),
        eval_results=results,
        **_emissions(trained, run),
    )
    sections = [
        f"# {markdown(trained.study)}, trial {trial.number}",
        f"{markdown(trained.type_name)} of the family {code(_family(trained))}, trained on {markdown(task.name)} for "
        + _epochs(trained)
        + (f", {trial.parameters:,} parameters" if trial.parameters is not None else "")
        + (f", {trial.flops:,} FLOPs per prediction" if trial.flops is not None else "")
        + ". Found by a search for models that are worth their energy.",
        "## Quality\n\n" + _quality(trained, check, run),
        "## Energy and carbon\n\n" + _energy(trained, run),
        "## Use\n\n" + usage(trained, takes, snippet),
        "## The exported file\n\n"
        + f"`{file}` was compared with the "
        + ("model" if trained.variant is None else f"{trained.variant} variant of the model")
        + f" on all {check.examples:,} {check.split} examples: outputs differ by at most "
        + f"{check.max_abs_difference:.2g} (allowed: {check.tolerance:.2g}), {check.decisions_changed} decisions changed, "
        + f"{check.metric} {known(check.quality_exported, '.6g')} against {known(check.quality_model, '.6g')}."
        + _variant_text(trained, check)
        + _raw_check(trained, check),
        "## Limits\n\n" + _limits(trained, check),
        "## Origin\n\n" + _origin(trained, run, seed),
    ]
    body = "\n\n".join(sections)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _variant_text(trained: TrainedModel, check: Check) -> str:
    """Say how often a variant decides otherwise than the trained model, and that the energy of making it is not in the card."""
    if check.variant_decisions_changed is None:
        return ""
    changed = f" The variant decides {check.variant_decisions_changed:,} of these examples otherwise than the trained model."
    return changed + " Making it took energy, too, which is not in the figures above; `joulefront optimise` measures it."


def _results(trained: TrainedModel, check: Check) -> list[Any]:
    from huggingface_hub import EvalResult

    splits = [(check.split, check.quality_exported)]
    if check.quality_test is not None:
        splits.append(("test", check.quality_test))
    return [
        EvalResult(
            task_type=_task_type(trained),
            dataset_type=printable(trained.task.name).lower().replace(" ", "-"),
            dataset_name=printable(trained.task.name),
            dataset_split=split,
            metric_type=check.metric,
            metric_name=METRICS.get(check.metric, check.metric),
            metric_value=round(value, 6),
        )
        for split, value in splits
        if math.isfinite(value)
    ]


def _task_type(trained: TrainedModel) -> str:
    if trained.task.preprocessing.get("kind") == "audio":
        return "audio-classification"
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
        stated = ", ".join(str(intensity[key]) for key in ("source", "year") if intensity.get(key) is not None)
        source += f" times {intensity['grams_per_kwh']:g} gCO2e/kWh ({stated})"
    source += _site(run)
    emissions: dict[str, Any] = {
        "emissions": float(f"{trial.grams_co2e:.6g}"),
        "source": source,
        "training_type": "fine-tuning" if _fine_tuned(trained) else "pre-training",
    }
    if intensity.get("zone"):
        emissions["geographical_location"] = str(intensity["zone"])
    if hardware := _hardware(trained, run):
        emissions["hardware_used"] = hardware
    return {"co2_eq_emissions": {name: printable(one) if isinstance(one, str) else one for name, one in emissions.items()}}


def _site(run: Run | None) -> str:
    return "" if run is None or run.pue == 1.0 else f" times a PUE of {run.pue:g}"


def _raw_check(trained: TrainedModel, check: Check) -> str:
    if check.raw_max_abs_difference is None:
        return ""
    from_rows = (
        f" With its own preprocessing, from the {origin(trained.task.validation)} of the same examples, its answers differ by at most "
    )
    changed = f"{check.raw_max_abs_difference:.2g}, {check.raw_decisions_changed} decisions changed"
    return f"{from_rows}{changed}, {check.metric} {known(check.raw_quality, '.6g')}."


def _limits(trained: TrainedModel, check: Check) -> str:
    lines = [*_LIMITS] if trained.task.kind in ("classification", "multilabel") else [_LIMITS[0].replace("the classes and ", "")]
    measured = f"Its {METRICS.get(check.metric, check.metric)} was measured on data of one source; on other data it is unknown."
    untested = "" if check.quality_test is not None or trained.refitted else " There was no test split."
    return "\n".join(f"- {line}" for line in (*lines, measured + untested))


def _standing(trained: TrainedModel, run: Run | None) -> list[str]:
    """Say how surely the quality is known, what guessing and the default model reach, and where on the front the model stands."""
    front = None if run is None or not run.trials else Front.of(run)
    if front is None or not len(front):
        return []
    trial, name = trained.trial, markdown(front.objectives[0])
    lines = []
    standing = front.standing(trial)
    if standing.low is not None and standing.high is not None:
        on = examples_text(standing.examples, front.evidence.folds) if standing.examples else "the validation split"
        whose = f" of the model before {trained.before}" if trained.before else ""
        ends = f"{front.quality_text(standing.low)} to {front.quality_text(standing.high)}"
        lines.append(f"95 % interval{whose} on {on}: {ends} ({standing.method}).")
    if front.choice.guessing is not None:
        lines.append(f"Guessing gives {name} {plain(front.choice.guessing)}.")
    if (base := front.baseline) is not None:
        spent = "" if base.train_joules is None else f" for {plain(base.train_joules, 4)} J"
        own = " It is this model." if base.number == trial.number else ""
        lines.append(f"The default model (trial {base.number}) reaches {name} {plain(base.values[0], 4)}{spent}.{own}")
    subject = f"The model before {trained.before}" if trained.before else "It"
    place = next((k for k, one in enumerate(front.members, 1) if one.number == trial.number), None)
    if place is None:
        lines.append(f"{subject} is not on the front of {name} against energy.")
    else:
        named = [rule for rule, one in (("sensible", front.choice.pick), ("best", front.choice.best)) if one == trial.number]
        picked = f", {' and '.join(named)}" if named else ""
        which = f"number {place} from the cheapest of the {len(front)} models on the front of {name} against energy"
        lines.append(f"{subject} is {which}{picked}.")
        if front.choice.pick == trial.number:
            lines.append(markdown(front.choice.why[:1].upper() + front.choice.why[1:].rstrip(".") + "."))
    return [" ".join(lines)]


def _quality(trained: TrainedModel, check: Check, run: Run | None) -> str:
    name = METRICS.get(check.metric, check.metric)
    rows = ["| split | examples | metric | value |", "|---|---:|---|---:|"]
    folds = trained.task.folds
    counted = len(trained.task.train) + check.examples if folds else check.examples
    stored = f"validation, {folds} models of {folds} folds" if folds else "validation, as the trial stored it"
    own, searched = trained.variant is None and not folds, check.split
    if trained.refitted:
        stored = searched = "test (never seen by the search)"
    elif own:
        searched += " (what the search optimised)"
    stored += f", before it became this {trained.variant} variant" if trained.variant is not None else ""
    rows.append(f"| {searched} | {check.examples:,} | {name} | {_shown(check.metric, check.quality_exported)} |")
    for key, value in trained.trial.quality.items():
        if (key != "error" if key != check.metric else not own) and math.isfinite(value):
            optimised = " (what the search optimised)" if key == check.metric and not trained.refitted else ""
            rows.append(f"| {stored}{optimised} | {counted:,} | {METRICS.get(key) or markdown(key)} | {_shown(key, value)} |")
    if check.quality_test is not None:
        rows.append(f"| test (never seen by the search) | {check.test_examples:,} | {name} | {_shown(check.metric, check.quality_test)} |")
    notes = []
    if check.quality_test is None and not trained.refitted:
        notes.append("There was no test split: the validation figure is optimistic, because the search selected by it.")
    if trained.variant is None and check.quality_recorded is not None and abs(check.quality_recorded - check.quality_model) > 1e-6:
        notes.append(
            f"The trial stored {check.quality_recorded:.6f}; in float32 on the CPU the same weights give {check.quality_model:.6f} "
            f"({check.quality_model - check.quality_recorded:+.6f})."
        )
    notes += [f"The model was trained again on the training and validation examples: {trained.refitted}."] if trained.refitted else []
    notes = [*_standing(trained, run), *notes]
    return "\n".join(rows) + ("\n\n" + "\n\n".join(notes) if notes else "")


def _shown(metric: str, value: float) -> str:
    """A quality with four decimals; errors and losses with four digits: any of them may be small."""
    return plain(value, 4) if metric in LESS_IS_BETTER and math.isfinite(value) else known(value, ".4f")


def _energy(trained: TrainedModel, run: Run | None) -> str:
    trial = trained.trial
    lines = []
    if trial.train_joules is None:
        lines.append("The energy of the training is unknown: no meter could read it.")
    else:
        spread = "" if trial.train_u_joules is None else f" ± {plain(trial.train_u_joules, 2)} J (random standard uncertainty)"
        spent = f"**{plain(trial.train_joules, 4)} J** ({joules_text(trial.train_joules)})"
        lines.append(f"Training this model from scratch took {spent}{spread}; {_KNOWN[trial.energy_quality]}.")
        joules, scale = (trial.energy.record.get(key) for key in ("joules", "u_systematic_joules"))
        if joules and scale:
            share = f"±{percent(scale / joules)} % (standard uncertainty)"
            lines.append(f"The scale of the meter, common to all models of the study, is known to {share}.")
    if trial.components:
        lines.append("\n| component | energy | quality | meter |\n|---|---:|---|---|")
        for name, part in trial.components.items():
            known = "unknown" if part.joules is None else f"{plain(part.joules, 4)} J"
            lines.append(f"| {markdown(name)} | {known} | {part.quality} | {markdown(part.source)} |")
        lines.append("")
    lines += [
        f"The energy of the pretraining of {markdown(one['model'])} is {_pretraining(one)} and not included."
        for one in _pretrained(trained, run)
    ]
    if trial.grams_co2e is not None:
        lines.append(f"Carbon: {grams_text(trial.grams_co2e)}, the energy times the intensity of the grid{_site(run)}.")
    else:
        hours = "the forecast does not cover all hours of the training" if _facts(run).get("carbon") else "no zone was given (`--zone`)"
        lines.append(f"Carbon: unknown, because {'the energy is' if trial.train_joules is None else hours}.")
    if trial.inference_joules_per_1000 is not None and trained.variant is not None:
        lines.append(
            f"What a prediction of this {trained.variant} variant takes was not measured: `joulefront optimise` does that, beside the "
            "unchanged model."
        )
    elif trial.inference_joules_per_1000 is not None:
        u_joules = trial.energy.inference_u_joules_per_1000
        spread = "" if u_joules is None else f" ± {plain(u_joules, 2)} J (random standard uncertainty)"
        lines.append(f"1,000 predictions of the trained model took {plain(trial.inference_joules_per_1000, 4)} J{spread}.")
    if run is not None and run.bill.search_joules is not None:
        again = f"; training finalists again took {joules_text(run.bill.again_joules)} more" if run.bill.again_joules else ""
        spent = f"{joules_text(run.bill.search_joules)} on {len(run.trials)} trials"
        lines.append(f"The whole search spent {spent}, failed ones and overhead included{again}.")
        lines += [markdown(gaps)] if (gaps := run.bill.gaps()) else []
    if hardware := _hardware(trained, run):
        lines.append(f"Hardware: {markdown(hardware)}.")
    return "\n".join(lines)


def _origin(trained: TrainedModel, run: Run | None, seed: int) -> str:
    lines = [f"- study {code(trained.study)}, trial {trained.trial.number}, seed {seed}"]
    session = _session(trained, run)
    if session.get("command"):
        lines.append(f"- command: {code(session['command'])}")
    if versions := session.get("versions") or {}:
        lines.append("- versions: " + markdown(", ".join(f"{name} {version}" for name, version in versions.items())))
    for one in _pretrained(trained, run):
        size, licence = f"{one['bytes'] / 1e6:.1f} MB", one["licence"] or "licence unknown"
        whose = markdown(f"{one['origin']} ({licence}, {size}")
        lines.append(f"- pretrained weights: {code(one['model'])} from {whose}, SHA-256 {code(one['sha256'])})")
    if seen := (_facts(run).get("fingerprint") or {}).get("data"):
        shown = hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]
        counts = ", ".join(f"{split} {count:,}" for split, count in splits_in(_facts(run)).items())
        folds = f" ({folds_in(_facts(run))} folds of training and validation)" if folds_in(_facts(run)) else ""
        lines.append(f"- data: {markdown(trained.task.name)}, {counts} examples{folds}, fingerprint `{shown}`")
    lines.append("- recipe: " + ", ".join([_epochs(trained), *(markdown(f"{name} = {value}") for name, value in _recipe(trained))]))
    lines.append("- parameters: " + markdown(", ".join(f"{name} = {value}" for name, value in sorted(trained.trial.params.items()))))
    lines.append("- architecture and recipe in full: `config.json`")
    return "\n".join(lines)


def _epochs(trained: TrainedModel) -> str:
    """Say for how many epochs it was trained, and what one is where it is no pass over the data."""
    unit = EPOCHS_OF.get(learner(trained.trial) or _family(trained))
    return count_text(trained.trial.epochs, "epoch") + (f" (each {unit})" if unit else "")


def _recipe(trained: TrainedModel) -> list[tuple[str, Any]]:
    """Return what the training has read of its recipe: where nothing is trained by steps, that is little."""
    recipe = trained.candidate.to_json()["recipe"]
    stepless = not trained.is_torch or trained.trial.reason == SOLVED
    unread = set(recipe) - {"patience", "threads"} if stepless else {"momentum"} if recipe["optimizer"] != "sgd" else set[str]()
    return [(name, value) for name, value in sorted(recipe.items()) if name not in unread and value is not None and value != {}]


def _facts(run: Run | None) -> Mapping[str, Any]:
    return run.facts if run is not None else {}


def _session(trained: TrainedModel, run: Run | None) -> Mapping[str, Any]:
    """The first session on the hardware of the trial, or the first one."""
    sessions: list[Mapping[str, Any]] = _facts(run).get("sessions") or [{}]
    return next((one for one in sessions if trained.trial.hardware_id in (None, one.get("hardware_id"))), sessions[0])


def _hardware(trained: TrainedModel, run: Run | None) -> str:
    return ", ".join(dict.fromkeys(machine_names(_session(trained, run).get("hardware") or {})))


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
        return joules_text(weights["pretraining_joules"])
    grams = weights["pretraining_grams_co2e"]
    return "unknown" if grams is None else f"unknown (its own card states {grams:g} gCO2e)"
