"""The impact statement of a study, for a paper or a model card.

Source:
    Henderson et al. 2020, "Towards the systematic reporting of the energy and carbon footprints of machine learning" (JMLR 21), for the
    items: energy with PUE, carbon with its intensity and region, hardware, software, and everything that was run, not only the best model.
"""

from __future__ import annotations

from ..carbon.intensity import Intensity
from ..energy import JOULES_PER_WH, SECONDS_PER_HOUR
from ..formatting import Unit, digits, energies, energy_text, unit_for
from ..front import Front
from ..records.bill import REPEATS
from ..records.run_folder import Run
from ..records.trial import Trial
from .facts import hardware_lines, pue_of, sessions_of, short_component, wall_text


def statement(run: Run) -> str:
    """Return a Markdown section on the energy and carbon of the whole search and of its models.

    What is unknown is stated as unknown; no factor is guessed.
    """
    return "\n".join(["## Energy and carbon", "", *_sentences(run), "", *_table(run)]) + "\n"


def _sentences(run: Run) -> list[str]:
    bill, pue = run.bill, pue_of(run)
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
        lines.append(_carbon(run, bill.total_joules, pue))
    front = Front.of(run)
    if len(front):
        best, sensible = front.best(), front.sensible()
        common = unit_for((run.bill.total_joules or front.joules(best)) / JOULES_PER_WH)
        lines.append(
            f"Training the best model once from scratch takes {_model(front, best, common)}; "
            f"the sensible one, {front.choice.why}, takes {_model(front, sensible, common)}."
        )
    machines = hardware_lines(run)
    lines.append(f"Hardware: {'; '.join(machines) if machines else 'not recorded'}.")
    for session in sessions_of(run)[-1:]:
        versions = ", ".join(f"{name} {version}" for name, version in (session.get("versions") or {}).items())
        lines.append(f"Software: {versions or 'not recorded'}.")
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:]


def _carbon(run: Run, joules: float, pue: float) -> str:
    place = run.facts.get("intensity")
    site = f"power usage effectiveness {pue:g}" + (" (the machine alone)" if pue == 1 else "")
    if not place:
        return f"Its carbon is not stated: the place of the computation is unknown ({site})."
    intensity = Intensity.from_json(dict(place))
    return f"That is **{energy_text(run.grams_co2e(joules), 'gCO2e')}** with {site} and {intensity.describe()}."


def _model(front: Front, trial: Trial, unit: Unit) -> str:
    carbon = "" if trial.grams_co2e is None else f" ({energy_text(trial.grams_co2e, 'gCO2e')})"
    energy = f"{digits(front.joules(trial) / JOULES_PER_WH / unit.size)} {unit.name}"
    return f"{energy}{carbon} for {front.objectives[0]} {front.quality_text(trial.values[0])} (trial {trial.number})"


def _table(run: Run) -> list[str]:
    bill = run.bill
    if not bill.by_component and not bill.absent:
        return ["No component was metered."]
    unit = unit_for(max([*bill.by_component.values(), bill.total_joules or 0.0]) / JOULES_PER_WH)
    size = unit.size * JOULES_PER_WH
    lines = [f"| component | {unit.name} | quality | meter |", "|---|---:|---|---|"]
    for name, joules in bill.by_component.items():
        quality, meter = bill.quality_by_component.get(name, "unknown"), bill.source_by_component.get(name, "unknown")
        lines.append(f"| {short_component(name)} | {digits(joules / size)} | {quality} | {meter} |")
    lines += [f"| {short_component(name)} | unknown | absent | {_cell(reason)} |" for name, reason in bill.absent.items()]
    if bill.total_joules is not None:
        lines.append(f"| **all** | **{digits(bill.total_joules / size)}** | | |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
