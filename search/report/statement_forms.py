"""The impact statement for a LaTeX paper, a bibliography, a program, and a public collection of energy reports (BoAmps).

Each form says what the text says and no more: what is unknown is left out or null, and no factor is guessed.

Source:
    BoAmps: Boavizta and Data for Good, "Budget of AI Measures and Power Standard", github.com/Boavizta/BoAmps, folder ``model``.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ..certainty import splits_in
from ..energy import JOULES_PER_KWH, SECONDS_PER_HOUR
from ..formatting import digits, energy_text, unit_for
from ..front import Front
from ..records.run_folder import Run
from ..records.trial import Trial
from .facts import hardware_lines, pue_of, sessions_of, short_component
from .statement import statement

SPECIFICATION = "https://github.com/Boavizta/BoAmps/tree/main/model"
#: Families that are libraries of their own.
BOOSTING = ("lightgbm", "xgboost", "catboost")
#: Largest relative errors that BoAmps calls high and medium quality; beyond the second it is low.
HIGH, MEDIUM = 0.10, 0.25
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "µ": r"\textmu{}", "±": r"\textpm{}", "²": r"\textsuperscript{2}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def forms(run: Run) -> list[dict[str, str]]:
    """Return the statement in every form: ``name`` and ``text``."""
    found = facts(run)
    boamps = report(run, found)
    why = "BoAmps asks for an energy, and nothing could be measured or estimated in this run."
    if found["kwh"] is not None:
        why = "BoAmps asks for the time of the report, and this run does not say when it was."
    return [
        {"name": "text", "text": statement(run)},
        {"name": "LaTeX", "text": latex(found)},
        {"name": "BibTeX", "text": bibtex(found)},
        {"name": "JSON", "text": json.dumps(found, indent=2, ensure_ascii=False)},
        {"name": "BoAmps", "text": why if boamps is None else json.dumps(boamps, indent=2, ensure_ascii=False)},
    ]


def facts(run: Run) -> dict[str, Any]:
    """What the statement rests on, units in the keys, None where unknown."""
    bill, front, pue, place = run.bill, Front.of(run), pue_of(run), run.facts.get("intensity")
    total = bill.total_joules
    states = [trial.state for trial in run.trials]
    sessions = sessions_of(run)
    parts: list[dict[str, Any]] = [
        {
            "component": short_component(name),
            "kwh": joules / JOULES_PER_KWH,
            "how": bill.quality_by_component.get(name, "unknown"),
            "meter": bill.source_by_component.get(name, "unknown"),
        }
        for name, joules in bill.by_component.items()
    ]
    parts += [{"component": short_component(name), "kwh": None, "how": "absent", "why": why} for name, why in bill.absent.items()]
    return {
        "study": run.name,
        "run_id": run.facts.get("run_id"),
        "started": (sessions[0].get("started") if sessions else None),
        "ended": (sessions[-1].get("ended") if sessions else None),
        "trials": {state: states.count(state) for state in ("complete", "failed", "running")},
        "kwh": None if total is None else total / JOULES_PER_KWH,
        "two_standard_uncertainties_kwh": None if bill.u_joules is None else 2 * bill.u_joules / JOULES_PER_KWH,
        "hours": bill.seconds / SECONDS_PER_HOUR,
        "not_in_the_sum": bill.gaps(),
        "components": parts,
        "wall_kwh": None if bill.at_wall is None else bill.at_wall.joules / JOULES_PER_KWH,
        "pue": pue,
        "grams_co2e": run.grams_co2e(total),
        "place": dict(place) if place else None,
        "models": {name: _model(front, pick()) for name, pick in (("sensible", front.sensible), ("best", front.best))}
        if len(front)
        else {},
        "hardware": hardware_lines(run),
        "software": dict(sessions[-1].get("versions") or {}) if sessions else {},
    }


def _model(front: Front, trial: Trial) -> dict[str, Any]:
    one = front.standing(trial)
    kwh = front.joules(trial) / JOULES_PER_KWH
    return {
        "trial": trial.number,
        front.objectives[0]: trial.values[0],
        "low": one.low,
        "high": one.high,
        "kwh": kwh,
        "grams_co2e": trial.grams_co2e,
    }


def latex(found: Mapping[str, Any]) -> str:
    """A paragraph and a table for a paper; every text of the run is escaped."""
    trials, models = found["trials"], found["models"]
    made = f"{sum(trials.values())} trainings ({trials['failed']} failed)"
    if found["kwh"] is None:
        return f"The energy of the search is unknown: nothing could be measured or estimated. It made {made}.\n"
    unit = unit_for(found["kwh"] * 1000)

    def shown(kwh: float | None) -> str:
        return "unknown" if kwh is None else digits(kwh * 1000 / unit.size)

    spread = (
        ""
        if found["two_standard_uncertainties_kwh"] is None
        else f" ± {shown(found['two_standard_uncertainties_kwh'])} {unit.name} (two standard uncertainties)"
    )
    place, grams = found["place"], found["grams_co2e"]
    carbon = "its carbon is not stated, because the place of the computation is unknown"
    if grams is not None:
        where = f"{place.get('zone') or 'given by the user'}, {place.get('source')}"
        factor = f"{digits(float(place['grams_per_kwh']))} gCO2e/kWh ({where}) and a PUE of {found['pue']:g}"
        carbon = f"that is {energy_text(grams, 'gCO2e')} at {factor}"
    used = f"{shown(found['kwh'])} {unit.name}{spread} in {digits(found['hours'])} h"
    lines = [f"The whole search used {used} for {made}, deciding and idling included; {carbon}."]
    if models:
        one = models["sensible"]
        lines.append(f"Training the recommended model once takes {shown(one['kwh'])} {unit.name}.")
    lines += [found["not_in_the_sum"]] if found["not_in_the_sum"] else []
    rows = [[part["component"], shown(part["kwh"]), part["how"], part.get("meter") or part.get("why", "")] for part in found["components"]]
    body = "\n".join(" & ".join(map(escaped, row)) + r" \\" for row in rows)
    table = (
        f"\\begin{{tabular}}{{lrll}}\ncomponent & {escaped(unit.name)} & how & meter \\\\\n\\hline\n{body}\n\\end{{tabular}}\n"
        if rows
        else ""
    )
    return f"% needs \\usepackage{{textcomp}}\n{escaped(' '.join(lines))}\n\n{table}"


def escaped(text: str) -> str:
    r"""A text with LaTeX's own characters escaped, in one line.

    >>> escaped("5 % of_this\\x")
    '5 \\% of\\_this\\textbackslash{}x'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def bibtex(found: Mapping[str, Any]) -> str:
    """Entries for the measured search and for how to report one."""
    key = re.sub(r"[^A-Za-z0-9-]", "-", str(found["run_id"] or found["study"]))[:60]
    version = found["software"].get("joulefront", "unknown version")
    year = re.match(r"\d{4}", str(found["started"] or ""))
    energy = "energy unknown" if found["kwh"] is None else energy_text(found["kwh"] * 1000)
    entry = [
        f"  title = {{{{Energy-aware search {escaped(found['study'])}}}}}",
        f"  howpublished = {{joulefront {escaped(version)}}}",
        *([f"  year = {{{year[0]}}}"] if year else []),
        f"  note = {{{sum(found['trials'].values())} trainings, {escaped(energy)}}}",
    ]
    how = [
        "  title = {Towards the Systematic Reporting of the Energy and Carbon Footprints of Machine Learning}",
        "  author = {Henderson, Peter and Hu, Jieru and Romoff, Joshua and Brunskill, Emma and Jurafsky, Dan and Pineau, Joelle}",
        "  journal = {Journal of Machine Learning Research}",
        "  volume = {21}",
        "  number = {248}",
        "  pages = {1--43}",
        "  year = {2020}",
    ]
    return f"@misc{{{key},\n" + ",\n".join(entry) + "\n}\n\n@article{henderson2020systematic,\n" + ",\n".join(how) + "\n}\n"


def report(run: Run, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report that BoAmps' schema describes; None without an energy or a moment, which it asks for."""
    moment = _moment(found["ended"] or found["started"])
    if found["kwh"] is None or moment is None:
        return None
    session = next(iter(sessions_of(run)[-1:]), {})
    machine, software = session.get("hardware") or {}, found["software"]
    version = str(software.get("joulefront", "unknown"))
    used = [part for part in found["components"] if part["kwh"] is not None]
    u_kwh = found["two_standard_uncertainties_kwh"]  # unknown where a component was lost: then the error is, too
    error = u_kwh / found["kwh"] if found["kwh"] and u_kwh is not None else math.inf
    place = found["place"] or {}
    accuracy = found["models"].get("sensible", {}).get("accuracy")
    measure = {
        "measurementMethod": "joulefront: " + ", ".join(f"{part['component']} {part['how']} by {part['meter']}" for part in used),
        "version": version,
        **_tracking(used),
        "unit": "kWh",  # required until version 1.0 of the format; since then it is always kWh
        "powerConsumption": found["kwh"],
        "measurementDuration": found["hours"] * SECONDS_PER_HOUR,
        **({"measurementDateTime": begun} if (begun := _moment(found["started"])) else {}),
    }
    return {
        "header": {
            "formatVersion": "0.1",
            "formatVersionSpecificationUri": SPECIFICATION,
            "reportId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"joulefront:{found['run_id'] or found['study']}")),
            "reportDatetime": moment,
            "reportStatus": "final" if found["ended"] else "draft",
        },
        "task": {
            "taskStage": "training",
            "taskFamily": _kind(run),
            "algorithms": _algorithms(run, software),
            "dataset": [_dataset(run)],
            **({"measuredAccuracy": accuracy} if accuracy is not None else {}),
            "taskDescription": f"Search over {sum(found['trials'].values())} trainings, all of them included; study {found['study']}",
        },
        "measures": [measure],
        "system": {"os": str(machine.get("system") or "unknown")},
        "software": {"language": "python", **({"version": str(software["python"])} if "python" in software else {})},
        "infrastructure": {"infraType": "other", "components": _components(machine)},
        **(
            {
                "environment": {
                    "country": str(place.get("region") or place["zone"]),
                    "powerSourceCarbonIntensity": float(place["grams_per_kwh"]),
                }
            }
            if place.get("zone")
            else {}
        ),
        "quality": "high" if error <= HIGH else "medium" if error <= MEDIUM else "low",
    }


def _moment(text: Any) -> str | None:
    """An ISO time as BoAmps writes it; None where it is none."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", str(text or ""))
    return f"{found[1]} {found[2]}" if found else None


def _tracking(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the processors were read."""
    return {f"{kind}TrackingMode": part["meter"] for kind in ("cpu", "gpu") for part in parts if str(part["component"]).startswith(kind)}


def _kind(run: Run) -> str:
    found = (run.facts.get("fingerprint") or {}).get("data", {})
    return " ".join(
        word for word in (_data_type(run) if _data_type(run) != "other" else "", str(found.get("kind") or "supervised learning")) if word
    )


def _data_type(run: Run) -> str:
    """What BoAmps calls the data: image, audio, tabular or text where the run knows it."""
    found = run.facts.get("data") or {}
    for key, name in (("images", "image"), ("sound", "audio"), ("columns", "tabular"), ("text", "text")):
        if key in found:
            return name
    shape = (run.facts.get("fingerprint") or {}).get("data", {}).get("input_shape") or []
    return "image" if len(shape) == 3 and shape[0] in (1, 3, 4) else "other"


def _dataset(run: Run) -> dict[str, Any]:
    splits = splits_in(run.facts)
    quantity = {"dataQuantity": sum(splits.values())} if splits else {}
    return {"dataUsage": "input", "dataType": _data_type(run), **quantity}


def _algorithms(run: Run, software: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a family that was trained, with its largest model and longest training."""
    families: dict[str, list[Trial]] = {}
    for trial in run.trials:
        families.setdefault(str(trial.params.get("family") or run.name), []).append(trial)
    rows = []
    for name, trials in sorted(families.items()):
        sizes = [trial.parameters for trial in trials if trial.parameters is not None]
        framework = "torch" if sizes else name if name in BOOSTING else "scikit-learn"
        rows.append(
            {
                "trainingType": "supervisedLearning",
                "algorithmType": "neural network" if sizes else "machine learning",
                "algorithmName": name,
                "framework": framework,
                **({"frameworkVersion": str(software[framework])} if framework in software else {}),
                **({"parametersNumber": max(sizes) / 1e9} if sizes else {}),
                "epochsNumber": max(trial.epochs for trial in trials),
            }
        )
    return rows or [{"trainingType": "supervisedLearning"}]


def _components(machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Processors and memory of the machine."""
    name = machine.get("cpu_model") or machine.get("cpu")
    rows: list[dict[str, Any]] = [
        {"componentType": "cpu", "nbComponent": int(machine.get("sockets") or 1), **({"componentName": str(name)} if name else {})}
    ]
    for device in [machine["gpu"]] if "gpu" in machine else list((machine.get("devices") or {}).values()):
        rows.append(
            {
                "componentType": "gpu",
                "nbComponent": 1,
                "componentName": str(device.get("name", device) if isinstance(device, Mapping) else device),
            }
        )
    if memory := machine.get("memory_bytes"):
        rows.append({"componentType": "ram", "nbComponent": 1, "memorySize": round(float(memory) / 1e9)})
    return rows
