"""The impact statement of a study, for a model card, a LaTeX paper, a bibliography, a program, and a collection of energy reports (BoAmps).

Each form says what the text says and no more: what is unknown is stated so, left out or null, and no factor is guessed.

Source:
    Henderson et al. 2020, "Towards the systematic reporting of the energy and carbon footprints of machine learning" (JMLR 21), for the
    items: energy with PUE, carbon with its intensity and region, hardware, software, and everything that was run, not only the best model.
    BoAmps: Boavizta and Data for Good, "Budget of AI Measures and Power Standard", github.com/Boavizta/BoAmps, folder ``model``.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

from ..certainty import splits_in
from ..energy import JOULES_PER_KWH, SECONDS_PER_HOUR
from ..formatting import Unit, digits, energies, grams_text, joules_text, unit_for
from ..front import Front
from ..records.bill import REPEATS
from ..records.run_folder import Run
from ..records.trial import Trial
from .facts import hardware_lines, short_component, wall_text

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


def statement(run: Run) -> str:
    """Return a Markdown section on the energy and carbon of the whole search and of its models.

    What is unknown is stated as unknown; no factor is guessed.
    """
    return "\n".join(["## Energy and carbon", "", *_sentences(run), "", *_table(run)]) + "\n"


def _sentences(run: Run) -> list[str]:
    bill = run.bill
    count = {state: sum(trial.state == state for trial in run.trials) for state in ("complete", "failed", "running")}
    trials = f"{len(run.trials)} trials ({count['complete']} complete, {count['failed']} failed" + (
        f", {count['running']} unfinished)" if count["running"] else ")"
    )
    if bill.total_joules is None:
        lines = [f"The energy of this search is unknown: nothing could be measured or estimated. It made {trials}."]
    else:
        shown, unit = energies([bill.total_joules, None if bill.u_joules is None else 2 * bill.u_joules])
        spread = "" if bill.u_joules is None else f" ± {shown[1]} {unit} (two standard uncertainties)"
        lines = [
            f"The whole search used **{shown[0]} {unit}**{spread} at the machine in "
            f"{digits(bill.seconds / SECONDS_PER_HOUR)} h. It made {trials}; failed ones, deciding and idling are included"
            f"{', and finalists that were trained again' if bill.by_state.get(REPEATS) else ''}."
        ]
        lines += [more for more in (bill.gaps(), wall_text(bill), run.comparable().apart()) if more]
        lines.append(_carbon(run, bill.total_joules))
    front = Front.of(run)
    if len(front):
        best, sensible = front.best(), front.sensible()
        common = unit_for([bill.total_joules or front.joules(best)])
        lines.append(
            f"Training the best model once from scratch takes {_model(front, best, common)}; "
            f"the sensible one, {front.choice.why}, takes {_model(front, sensible, common)}."
        )
    machines = hardware_lines(run)
    lines.append(f"Hardware: {'; '.join(machines) if machines else 'not recorded'}.")
    for session in run.sessions[-1:]:
        versions = ", ".join(f"{name} {version}" for name, version in (session.get("versions") or {}).items())
        lines.append(f"Software: {versions or 'not recorded'}.")
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:]


def _carbon(run: Run, joules: float) -> str:
    site = f"power usage effectiveness {run.pue:g}" + (" (the machine alone)" if run.pue == 1 else "")
    if run.intensity is None:
        return f"Its carbon is not stated: the place of the computation is unknown ({site})."
    return f"That is **{grams_text(run.grams_co2e(joules))}** with {site} and {run.intensity.describe()}."


def _model(front: Front, trial: Trial, unit: Unit) -> str:
    carbon = "" if trial.grams_co2e is None else f" ({grams_text(trial.grams_co2e)})"
    quality = f"{front.objectives[0]} {front.quality_text(trial.values[0])}"
    return f"{unit.number(front.joules(trial))} {unit.name}{carbon} for {quality} (trial {trial.number})"


def _table(run: Run) -> list[str]:
    bill = run.bill
    if not bill.components and not bill.absent:
        return ["No component was metered."]
    unit = unit_for([*bill.by_component.values(), bill.total_joules])
    lines = [f"| component | {unit.name} | quality | meter |", "|---|---:|---|---|"]
    for name, part in bill.components.items():
        lines.append(f"| {short_component(name)} | {unit.number(part.joules)} | {part.quality} | {part.source} |")
    reasons = {name: reason.replace("|", "\\|").replace("\n", " ") for name, reason in bill.absent.items()}
    lines += [f"| {short_component(name)} | unknown | absent | {plain} |" for name, plain in reasons.items()]
    if bill.total_joules is not None:
        lines.append(f"| **all** | **{unit.number(bill.total_joules)}** | | |")
    return lines


def facts(run: Run) -> dict[str, Any]:
    """What the statement rests on, units in the keys, None where unknown."""
    bill, front, place, sessions = run.bill, Front.of(run), run.facts.get("intensity"), run.sessions
    states = [trial.state for trial in run.trials]
    parts: list[dict[str, Any]] = [
        {"component": short_component(name), "kwh": _kwh(part.joules), "how": part.quality, "meter": part.source}
        for name, part in bill.components.items()
    ]
    parts += [{"component": short_component(name), "kwh": None, "how": "absent", "why": why} for name, why in bill.absent.items()]
    return {
        "study": run.name,
        "run_id": run.facts.get("run_id"),
        "started": (sessions[0].get("started") if sessions else None),
        "ended": (sessions[-1].get("ended") if sessions else None),
        "trials": {state: states.count(state) for state in ("complete", "failed", "running")},
        "kwh": _kwh(bill.total_joules),
        "two_standard_uncertainties_kwh": None if bill.u_joules is None else _kwh(2 * bill.u_joules),
        "hours": bill.seconds / SECONDS_PER_HOUR,
        "not_in_the_sum": bill.gaps(),
        "components": parts,
        "wall_kwh": None if bill.at_wall is None else _kwh(bill.at_wall.joules),
        "pue": run.pue,
        "grams_co2e": run.grams_co2e(bill.total_joules),
        "place": dict(place) if place else None,
        "models": {name: _model_facts(front, pick()) for name, pick in (("sensible", front.sensible), ("best", front.best))}
        if len(front)
        else {},
        "hardware": hardware_lines(run),
        "software": dict(sessions[-1].get("versions") or {}) if sessions else {},
    }


def _kwh(joules: float | None) -> float | None:
    return None if joules is None else joules / JOULES_PER_KWH


def _model_facts(front: Front, trial: Trial) -> dict[str, Any]:
    one, known = front.standing(trial), {"trial": trial.number, front.objectives[0]: trial.values[0]}
    return {**known, "low": one.low, "high": one.high, "kwh": _kwh(front.joules(trial)), "grams_co2e": trial.grams_co2e}


def latex(found: Mapping[str, Any]) -> str:
    """A paragraph and a table for a paper; every text of the run is escaped."""
    trials, models = found["trials"], found["models"]
    made = f"{sum(trials.values())} trials ({trials['failed']} failed)"
    if found["kwh"] is None:
        return f"The energy of the search is unknown: nothing could be measured or estimated. It made {made}.\n"
    unit = unit_for([found["kwh"] * JOULES_PER_KWH])

    def shown(kwh: float | None) -> str:
        return "unknown" if kwh is None else unit.number(kwh * JOULES_PER_KWH)

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
        carbon = f"that is {grams_text(grams)} at {factor}"
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
    energy = "energy unknown" if found["kwh"] is None else joules_text(found["kwh"] * JOULES_PER_KWH)
    entry = [
        f"  title = {{{{Energy-aware search {escaped(found['study'])}}}}}",
        f"  howpublished = {{joulefront {escaped(version)}}}",
        *([f"  year = {{{year[0]}}}"] if year else []),
        f"  note = {{{sum(found['trials'].values())} trials, {escaped(energy)}}}",
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
    session = next(iter(run.sessions[-1:]), {})
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
        **{f"{kind}TrackingMode": one["meter"] for kind in ("cpu", "gpu") for one in used if one["component"].startswith(kind)},
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
            "taskDescription": f"Search over {sum(found['trials'].values())} trials, all of them included; study {found['study']}",
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


def _kind(run: Run) -> str:
    found, data_type = (run.facts.get("fingerprint") or {}).get("data", {}), _data_type(run)
    kind = str(found.get("kind") or "supervised learning")
    return kind if data_type == "other" else f"{data_type} {kind}"


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
    for trial in (one for one in run.trials if not one.members):  # an ensemble was not trained itself
        families.setdefault(trial.family or run.name, []).append(trial)
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
        named = device.get("name", device) if isinstance(device, Mapping) else device
        rows.append({"componentType": "gpu", "nbComponent": 1, "componentName": str(named)})
    if memory := machine.get("memory_bytes"):
        rows.append({"componentType": "ram", "nbComponent": 1, "memorySize": round(float(memory) / 1e9)})
    return rows
