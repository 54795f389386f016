"""The sections of the report page that need no chart: each function turns a run into one titled block of HTML.

A section that has nothing to show for a run returns an empty string, which leaves it out of the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from statistics import fmean, median, stdev
from typing import Any

from ..energy import JOULES_PER_WH
from ..formatting import digits, energy_text, unit_for
from ..front import Front
from ..records.replicate_summary import compare_replicates
from ..records.run_folder import Run
from ..records.trial import Trial
from ..stopping.projection import projection_errors
from .baseline_comparison import BASELINE, cells_of, compare_to_baseline, spread_text
from .energy_relations import Relation, by_construction, family_of, operation_costs, p_text, relations
from .facts import flatten, hardware_lines, sessions_of, short_component
from .html import badge, paragraph, section, table
from .replication_text import legend, sentences, table_of
from .statement import statement
from .table import FOREIGN, columns_of, footnote, model_text


def estimate_section(run: Run) -> str:
    """The estimated cost of the study, before and while it ran, against its actual cost; only when it was estimated."""
    rows = []
    guess = run.facts.get("estimate")
    if isinstance(guess, Mapping) and guess.get("joules") is not None:
        rows += _rows(guess, run, "before the study")
    refined = run.facts.get("expected")
    for found in refined if isinstance(refined, list) else []:
        rows += _rows(found, run, f"at {found['share']:.0%} of it, after {found['done']} trials")
    head = ["", "estimate", "90 % interval", "actual", "actual / estimate", "inside"]
    return section("Estimate against actual", table(head, rows, right=(1, 2, 3, 4))) if rows else ""


def projection_section(run: Run) -> str:
    """How well the first epochs predicted the energy of a training; only when some training continued to a higher rung."""
    found = projection_errors(run.trials, run.rungs)
    if not found:
        return ""
    rows = [[str(one.known), str(one.target), str(one.n), f"{one.median:.1%}", f"{one.worst:.1%}", f"{one.bias:+.1%}"] for one in found]
    return section(
        "Projected energy of trainings",
        paragraph(
            "The energy of the first epochs, plus their mean without the very first for each epoch to come (STEP, arXiv 2307.05520), "
            "against what the training cost."
        ),
        table(["epochs known", "projected to", "n", "median error", "largest", "bias"], rows, right=range(6)),
    )


def _rows(guess: Mapping[str, Any], run: Run, when: str) -> list[list[str]]:
    rows = []
    for name, key, actual, scale in (
        ("energy (Wh)", "joules", _searched(run), JOULES_PER_WH),
        ("trials", "trials", float(sum(trial.state != "running" for trial in run.trials)), 1.0),
        ("time (s)", "seconds", run.bill.seconds or None, 1.0),
    ):
        if guess.get(key) is None:
            continue
        low, high = guess.get(f"low_{key}"), guess.get(f"high_{key}")
        if low is not None and low == high:
            continue  # a limit that the user gave, not an estimate
        span = "-" if low is None or high is None else f"{digits(low / scale)} to {digits(high / scale)}"
        # The last epoch may exceed a limit: it counts as kept when it is kept to the three digits shown.
        inside = "-" if actual is None or low is None or high is None else "yes" if 0.995 * low <= actual <= 1.005 * high else "no"
        ratio = "-" if actual is None or not guess[key] else f"{actual / guess[key]:.2f}"
        rows.append(
            [f"{name}, {when}", digits(guess[key] / scale), span, "unknown" if actual is None else digits(actual / scale), ratio, inside]
        )
    return rows


def _searched(run: Run) -> float | None:
    """Joules of the search itself: the estimate does not include repeats of the finalists."""
    total = run.bill.total_joules
    return None if total is None else total - run.bill.by_state.get("repeats", 0.0)


def repeats_section(run: Run) -> str:
    """Means and intervals of the repeats, which neighbours differ, optimism and drift; only when there are repeats."""
    comparison = compare_replicates(run.repeats, run.trials, run.objectives[0], run.directions[0])
    if not comparison.members:
        return ""
    head, rows = table_of(comparison)
    plans = [f"{len(plan.trials)} models {plan.times} times in {plan.order} order on {plan.started[:10]}" for plan in run.repeats.plans]
    return section(
        "Finalists measured again",
        paragraph("Trained from scratch with fresh seeds: " + "; ".join(plans) + ". Repeats are neither trials nor points of the front."),
        table(head, rows, right=range(len(head))),
        paragraph(legend(comparison), "muted small"),
        *(paragraph(line) for line in sentences(comparison, run.repeats)),
    )


def front_table(front: Front) -> str:
    """The members of the front."""
    if not front.members:
        return paragraph("No trial is on the front yet.", "muted")
    columns = columns_of(front)
    rows = [[column.show(trial) for column in columns] for trial in front]
    right = [place for place, column in enumerate(columns) if column.right]
    return table([column.title for column in columns], rows, right=right) + paragraph(footnote(front), "muted small")


def measured_section(run: Run) -> str:
    """Energy per component with its meter, and which components were not measured and why."""
    bill, rows = run.bill, []
    for name, joules in sorted(bill.by_component.items(), key=lambda item: -item[1]):
        share = "-" if not bill.total_joules else f"{100 * joules / bill.total_joules:.1f} %"
        kind = badge(bill.quality_by_component.get(name, "unknown"))
        lost = f"no reading for {bill.unknown_seconds[name]:.1f} s" if name in bill.unknown_seconds else ""
        rows.append(
            [short_component(name), digits(joules / JOULES_PER_WH), share, kind, bill.source_by_component.get(name, "unknown"), lost]
        )
    if wall := bill.at_wall:
        why = "the whole machine, not part of the sum" + ("" if wall.reason is None else f"; {wall.reason}")
        rows.append(["at the wall", digits(wall.joules / JOULES_PER_WH), "-", badge(wall.quality), wall.source, why])
    rows += [[short_component(name), "unknown", "-", badge("absent"), "-", reason] for name, reason in bill.absent.items()]
    kinds = Counter(trial.energy_quality for trial in run.trials if trial.state == "complete")
    counted = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return section(
        "Measurement sources",
        paragraph(
            "Measured: read from a meter. Estimated: computed from processor time and a power model. Absent: unknown, and not counted."
        ),
        table(["component", "Wh", "share", "quality", "meter", "remarks"], rows, right=(1, 2), markup=(3,)) if rows else "",
        paragraph(f"Training energy of the complete trials: {counted}.", "muted small") if counted else "",
    )


def failures_section(run: Run) -> str:
    """What failed, why, and what it cost."""
    failed = [trial for trial in run.trials if trial.state == "failed"]
    if not failed:
        return ""
    groups: dict[str, list[Trial]] = {}
    for trial in failed:
        groups.setdefault((trial.reason or "unknown").splitlines()[0], []).append(trial)
    rows = []
    for reason, trials in sorted(groups.items(), key=lambda item: -len(item[1])):
        known = [trial.increment_joules for trial in trials if trial.increment_joules is not None]
        cost = digits(sum(known) / JOULES_PER_WH) if known else "unknown"
        numbers = ", ".join(str(trial.number) for trial in trials[:12]) + (" …" if len(trials) > 12 else "")
        rows.append([str(len(trials)), cost + (" at least" if known and len(known) < len(trials) else ""), reason, numbers])
    return section("Failed trials", table(["number", "Wh", "reason", "trials"], rows, right=(0, 1)))


def relations_section(run: Run) -> str:
    """Rank correlations of size, operations and utilisation with the energy, and the energy of an operation."""
    try:
        found = relations(run)
    except ValueError as error:
        return section("Size, operations and energy", paragraph(str(error), "muted"))
    predictors = list(dict.fromkeys(one.predictor for one in found))
    rows = []
    for family in dict.fromkeys(one.family for one in found):
        cells = {one.predictor: one for one in found if one.family == family}
        shown = [_relation(cells[name]) for name in predictors]
        if any(text != "-" for text in shown):
            rows.append([family, *shown])
    if not rows:
        return ""
    method = "Spearman's rank correlation with the training energy of an epoch; each configuration is one point. Few points prove little."
    warning = by_construction(run)
    return section(
        "Size, operations and energy",
        paragraph(method + (f" {warning}" if warning else "")),
        table(["family", *predictors], rows),
        _operation_costs_table(run),
    )


def _operation_costs_table(run: Run) -> str:
    found = operation_costs(run)
    if not found:
        return ""
    rows = [
        [
            one.family,
            str(one.n),
            digits(one.joules_per_gflop),
            f"{digits(one.low)} to {digits(one.high)}",
            "-" if one.exponent is None else f"{one.exponent:.2f}",
        ]
        for one in found
    ]
    head = ["family", "n", "J per GFLOP of training, median", "range", "b of energy ~ FLOPs^b"]
    return table(head, rows, right=(1, 2, 3, 4))


def baseline_section(run: Run) -> str:
    """Each family against the family of plain training; only when the run has that one."""
    if BASELINE not in {family_of(trial) for trial in run.trials if trial.state == "complete"}:
        return ""
    head, *rows = cells_of(compare_to_baseline(run), run.objectives[0])
    right = tuple(range(2, 7)) + tuple(range(9, len(head)))
    return section("Against plain training", paragraph(spread_text(compare_to_baseline(run))), table(head, rows, right=right))


def _relation(one: Relation) -> str:
    if one.rho is None:
        return "-"
    p_value = "" if one.p_value is None else f", p {p_text(one.p_value)}"
    return f"{one.rho:+.2f} (n = {one.n}{p_value})"


def anchor_section(run: Run) -> str:
    """Drift of the configuration that was trained repeatedly through the study; only when the run has one.

    ``run.facts["anchor"]`` is ``{"joules": [...]}``, one energy per repeat in the order of time, and may name its ``params``.
    """
    anchor = run.facts.get("anchor")
    joules = [float(x) for x in anchor.get("joules", []) if x is not None] if isinstance(anchor, Mapping) else []
    if not joules:
        return ""
    middle = median(joules)
    parts = [f"n = {len(joules)}", f"median {digits(middle / JOULES_PER_WH)} Wh"]
    if len(joules) > 1:
        parts.append(f"standard deviation {100 * stdev(joules) / fmean(joules):.1f} %")
        parts.append(f"last against first {100 * (joules[-1] / joules[0] - 1):+.1f} %")
    described = ", ".join(f"{name} {value}" for name, value in flatten(anchor.get("params") or {}).items()) if anchor else ""
    rows = [[str(place + 1), digits(value / JOULES_PER_WH), f"{100 * (value / middle - 1):+.1f} %"] for place, value in enumerate(joules)]
    return section(
        "Drift of the anchor",
        paragraph("The same configuration, trained repeatedly through the study: what changes is the machine. " + "; ".join(parts) + "."),
        paragraph(described, "muted small") if described else "",
        table(["repeat", "Wh", "against the median"], rows, right=(0, 1, 2)),
    )


def carbon_section(run: Run) -> str:
    """In which hours the trainings ran, and the grams saved by waiting for clean ones; only when grams follow a forecast.

    ``run.facts["carbon"]`` holds one entry per session, see `joulefront.search.running.carbon_log.CarbonLog.to_json`.
    """
    sessions = run.facts.get("carbon") or []
    if not sessions:
        return ""
    rows = [
        [hour["hour"][:16].replace("T", " "), digits(hour["joules"] / JOULES_PER_WH), energy_text(hour["grams"], "gCO2e")]
        for session in sessions
        for hour in session["hours"]
    ]
    lines = [paragraph(_carbon_sentence(session)) for session in sessions]
    return section("Carbon by the hour", *lines, table(["hour (UTC)", "trained, Wh", "emitted"], rows, right=(1, 2)) if rows else "")


def _carbon_sentence(session: Mapping[str, Any]) -> str:
    trained, where = session["trainings"], f"Grams follow a forecast ({session['forecast']})"
    if trained["grams"] is None or trained["grams_at_once"] is None:
        return f"{where}. It did not cover every hour, or an energy was unknown: the grams of this session are unknown."
    text = f"{where}; the trainings of this session emitted {energy_text(trained['grams'], 'gCO2e')}."
    if not session["deadline"]:
        return text
    text += f" Large ones could wait for clean hours until {session['deadline'][:16].replace('T', ' ')} UTC."
    if not session["hours_waited"]:
        return text + " None waited."
    share = "" if not trained["grams_at_once"] else f", {100 * (trained['grams'] / trained['grams_at_once'] - 1):+.0f} %"
    text += f" Against the same trainings without waiting ({energy_text(trained['grams_at_once'], 'gCO2e')}){share}"
    cost = energy_text(session["wait_joules"] / JOULES_PER_WH)
    grams = "" if session["wait_grams"] is None else f" ({energy_text(session['wait_grams'], 'gCO2e')})"
    return text + f"; while it waited {session['hours_waited']:.1f} h the machine took {cost}{grams} as far as it was metered."


def trials_section(run: Run) -> str:
    """Every trial, folded away."""
    unit = unit_for(max((trial.train_wh or 0.0 for trial in run.trials), default=0.0) or 1.0)
    rows = []
    for trial in run.trials:
        quality = f"{trial.values[0]:.4f}" if trial.values else "-"
        train = None if trial.train_joules is None else trial.train_joules / JOULES_PER_WH / unit.size
        spent = None if trial.increment_joules is None else trial.increment_joules / JOULES_PER_WH / unit.size
        parent = "-" if trial.parent is None else str(trial.parent)
        number = f"{trial.number} {FOREIGN}" if trial.energy.contended else str(trial.number)
        numbers = [number, trial.state, str(trial.epochs), quality, digits(train), digits(spent)]
        rows.append([*numbers, badge(trial.energy_quality), parent, model_text(trial), trial.reason or ""])
    energies = [f"train {unit.name}", f"search {unit.name}"]
    head = ["trial", "state", "epochs", run.objectives[0], *energies, "energy", "continues", "model", "reason"]
    inner = table(head, rows, right=(0, 2, 3, 4, 5, 7), markup=(6,))
    meaning = f"train: energy of the model from scratch; search: what this trial added to the bill; {FOREIGN}: beside other programs."
    return section(
        "All trials", f"<details><summary>{len(rows)} trials</summary>{paragraph(meaning, 'muted small')}{inner}</details>" if rows else ""
    )


def statement_section(run: Run) -> str:
    """The impact statement, ready to copy."""
    use = "Markdown for a paper or a model card. It counts the whole search, not only the best model."
    return section("Impact statement", paragraph(use, "muted small"), f"<pre>{escape(statement(run))}</pre>")


def reproduce_section(run: Run) -> str:
    """Study, hardware, commands and versions: what it takes to reproduce the run."""
    study: dict[str, Any] = {key: value for key, value in dict(run.facts.get("study") or {}).items() if key != "directions"}
    rows = [[name, value] for name, value in flatten(study).items()]
    rows += [["budget", str(run.facts["budget"])]] if run.facts.get("budget") else []
    rows += [["hardware", line] for line in hardware_lines(run)]
    for number, session in enumerate(sessions_of(run), 1):
        facts = {key: value for key, value in session.items() if key not in ("hardware", "hardware_id", "versions")}
        rows.append([f"session {number}", "; ".join(f"{name} {value}" for name, value in flatten(facts).items())])
    for session in sessions_of(run)[-1:]:
        rows.append(["versions", ", ".join(f"{name} {version}" for name, version in flatten(session.get("versions") or {}).items())])
    return section("Reproduction", table(["", ""], rows) if rows else "")
