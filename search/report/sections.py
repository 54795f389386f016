"""What the page shows folded away, below what one decides by: each function turns a run into a titled block of sentences and tables.

A block that has nothing to show for a run is None, which leaves it out of the page. Every text is plain: the page writes it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from ..formatting import Unit, digits, grams_text, joules_text, unit_for
from ..front import Front
from ..records.replicates import compare_replicates
from ..records.run_folder import Run
from ..records.trial import Trial
from ..stopping.projection import projection_errors
from ..training.summary import summary_text
from .baseline_comparison import BASELINE, cells_of, compare_to_baseline, spread_text
from .energy_relations import Relation, by_construction, family_of, operation_cells, operation_costs, p_text, relations
from .facts import flatten, hardware_lines
from .replication_text import legend, sentences, table_of

WH = unit_for([])
#: So many rows of a table about the data are shown.
SHOWN = 200


@dataclass(frozen=True)
class Table:
    """A table of texts; ``right`` numbers the columns that are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """A titled block: sentences, then tables, then ``notes`` on these."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def sections(run: Run, unit: Unit = WH, *, ranking: bool = True) -> list[Section]:
    """Return the blocks that a run has, in their order; energies are in one unit.

    Without ``ranking`` what predicts the energy is left out: its library takes longer to load than all else.
    """
    found = (
        data_section(run),
        repeats_section(run),
        estimate_section(run, unit),
        projection_section(run),
        carbon_section(run, unit),
        anchor_section(run, unit),
        baseline_section(run),
        relations_section(run) if ranking else None,
        failures_section(run, unit),
        reproduce_section(run),
    )
    return [one for one in found if one is not None]


def data_section(run: Run) -> Section | None:
    """Classes with counts per split, guessing, columns used and dropped, and what was probably not meant, as ``inspect`` prints it.

    Only for runs that keep it.
    """
    found = run.facts.get("data")
    try:
        return _data_section(found) if isinstance(found, Mapping) else None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # a dictionary that varies with the kind of data
        raise ValueError(f"study.json of {run.name!r} is damaged (data: {error!r}); restore it from a copy") from error


def _data_section(found: Mapping[str, Any]) -> Section:
    head, *rest = summary_text({**found, "classes": {}, "columns": [], "warnings": []}).split("\n\n")
    classes: Mapping[str, Mapping[str, int]] = found.get("classes") or {}
    counts = [[name, *(f"{split[name]:,}" for split in classes.values())] for name in next(iter(classes.values()), {})]
    columns = [
        [
            str(one["name"]),
            str(one["as"]),
            str(one.get("features", "-")),
            str(one.get("reason", f"{one['levels']} values" if "levels" in one else "")),
        ]
        for one in found.get("columns", [])
    ]
    tables = [Table(["class", *classes], counts[:SHOWN], tuple(range(1, len(classes) + 1)))] if counts else []
    tables += [Table(["column", "used as", "features", "remarks"], columns[:SHOWN], (2,))] if columns else []
    notes = [f"{len(columns) - SHOWN} more columns"] if len(columns) > SHOWN else []
    return Section("Data", [head.splitlines()[0], *rest], tables, [*notes, *(f"Warning: {text}" for text in found.get("warnings", []))])


def estimate_section(run: Run, unit: Unit = WH) -> Section | None:
    """The estimated cost of the study, before and while it ran, against its actual cost; only when it was estimated."""
    rows = []
    guess = run.facts.get("estimate")
    if isinstance(guess, Mapping) and guess.get("joules") is not None:
        rows += _rows(guess, run, "before the study", unit)
    refined = run.facts.get("expected")
    for found in refined if isinstance(refined, list) else []:
        rows += _rows(found, run, f"at {found['share']:.0%} of it, after {found['done']} trials", unit)
    head = ["", "estimate", "90 % interval", "actual", "actual / estimate", "inside"]
    return Section("Estimate against actual", tables=[Table(head, rows, (1, 2, 3, 4))]) if rows else None


def projection_section(run: Run) -> Section | None:
    """How well the first epochs predicted the energy of a training; only when some training continued to a higher rung."""
    found = projection_errors(run.trials, run.rungs)
    if not found:
        return None
    rows = [[str(one.known), str(one.target), str(one.n), f"{one.median:.1%}", f"{one.worst:.1%}", f"{one.bias:+.1%}"] for one in found]
    text = (
        "The energy of the first epochs, plus their mean without the very first for each epoch to come (STEP, arXiv 2307.05520), "
        "against what the training cost."
    )
    head = ["epochs known", "projected to", "n", "median error", "largest", "bias"]
    return Section("Projected energy of trainings", [text], [Table(head, rows, tuple(range(6)))])


def _rows(guess: Mapping[str, Any], run: Run, when: str, unit: Unit) -> list[list[str]]:
    rows, spent = [], run.bill.search_joules
    if spent is not None:
        spent -= run.bill.overhead_parts.get("showing", 0.0)  # it is spent after the study, and no estimate is of it
    for name, key, actual, scale in (
        (f"energy ({unit.name})", "joules", spent, unit.size),
        ("trials", "trials", float(sum(trial.state != "running" for trial in run.trials)), 1.0),
        ("time (s)", "seconds", run.bill.seconds - run.bill.again_seconds or None, 1.0),
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


def repeats_section(run: Run) -> Section | None:
    """Means and intervals of the repeats, which neighbours differ, optimism and drift; only when there are repeats."""
    comparison = compare_replicates(run.repeats, run.trials, run.objectives[0], run.directions[0])
    if not comparison.members:
        return None
    decimals = Front.of(run).decimals
    head, rows = table_of(comparison, decimals)
    plans = [f"{len(plan.trials)} models {plan.times} times in {plan.order} order on {plan.started[:10]}" for plan in run.repeats.plans]
    text = f"Trained from scratch with fresh seeds: {'; '.join(plans)}. Repeats are neither trials nor points of the front."
    notes = [legend(comparison), *sentences(comparison, run.repeats, decimals)]
    return Section("Finalists measured again", [text], [Table(head, rows, tuple(range(len(head))))], notes)


def failures_section(run: Run, unit: Unit = WH) -> Section | None:
    """What failed, why, and what it cost."""
    failed = [trial for trial in run.trials if trial.state == "failed"]
    if not failed:
        return None
    groups: dict[str, list[Trial]] = {}
    for trial in failed:
        groups.setdefault((trial.reason or "unknown").splitlines()[0], []).append(trial)
    rows = []
    for reason, trials in sorted(groups.items(), key=lambda item: -len(item[1])):
        known = [trial.increment_joules for trial in trials if trial.increment_joules is not None]
        cost = unit.number(sum(known)) if known else "unknown"
        numbers = ", ".join(str(trial.number) for trial in trials[:12]) + (" …" if len(trials) > 12 else "")
        rows.append([str(len(trials)), cost + (" at least" if known and len(known) < len(trials) else ""), reason, numbers])
    return Section("Failed trials", tables=[Table(["number", unit.name, "reason", "trials"], rows, (0, 1))])


def relations_section(run: Run) -> Section | None:
    """Rank correlations of size, operations and utilisation with the energy, and the energy of an operation."""
    try:
        found = relations(run)
    except ValueError as error:
        return Section("Size, operations and energy", [str(error)])
    predictors = list(dict.fromkeys(one.predictor for one in found))
    rows = []
    for family in dict.fromkeys(one.family for one in found):
        cells = {one.predictor: one for one in found if one.family == family}
        shown = [_relation(cells[name]) for name in predictors]
        if any(text != "-" for text in shown):
            rows.append([family, *shown])
    if not rows:
        return None
    method = "Spearman's rank correlation with the training energy of an epoch; each configuration is one point. Few points prove little."
    warning = by_construction(run)
    lines = [method + (f" {warning}" if warning else "")]
    head, *each = operation_cells(operation_costs(run))
    costs = [Table(head, each, tuple(range(1, len(head))))] if each else []
    return Section("Size, operations and energy", lines, [Table(["family", *predictors], rows), *costs])


def baseline_section(run: Run) -> Section | None:
    """Each family against the family of plain training; only when the run has that one."""
    if BASELINE not in {family_of(trial) for trial in run.trials if trial.state == "complete"}:
        return None
    found = compare_to_baseline(run)
    head, *rows = cells_of(found, run.objectives[0], Front.of(run).decimals)
    right = tuple(range(2, 7)) + tuple(range(9, len(head)))
    return Section("Against plain training", [spread_text(found)], [Table(head, rows, right)])


def _relation(one: Relation) -> str:
    if one.rho is None:
        return "-"
    p_value = "" if one.p_value is None else f", p {p_text(one.p_value)}"
    return f"{one.rho:+.2f} (n = {one.n}{p_value})"


def anchor_section(run: Run, unit: Unit = WH) -> Section | None:
    """Drift of the configuration that was trained repeatedly through the study; only when the run has one.

    ``run.facts["anchor"]`` is ``{"joules": [...]}``, one energy per repeat in the order of time, and may name its ``params``.
    """
    anchor = run.facts.get("anchor")
    joules = [float(x) for x in anchor.get("joules", []) if x is not None] if isinstance(anchor, Mapping) else []
    if not joules:
        return None
    middle = median(joules)
    parts = [f"n = {len(joules)}", f"median {unit.number(middle)} {unit.name}"]
    if len(joules) > 1:
        parts += [f"standard deviation {100 * stdev(joules) / fmean(joules):.1f} %"] if any(joules) else []
        parts.append(f"last against first {_change(joules[-1], joules[0])}")
    described = ", ".join(f"{name} {value}" for name, value in flatten(anchor.get("params") or {}).items()) if anchor else ""
    rows = [[str(place), unit.number(value), _change(value, middle)] for place, value in enumerate(joules, 1)]
    text = f"The same configuration, trained repeatedly through the study: what changes is the machine. {'; '.join(parts)}."
    lines = [text, described] if described else [text]
    return Section("Drift of the anchor", lines, [Table(["repeat", unit.name, "against the median"], rows, (0, 1, 2))])


def _change(value: float, before: float) -> str:
    """A change in percent; unknown against a meter's 0."""
    return f"{100 * (value / before - 1):+.1f} %" if before else "-"


def carbon_section(run: Run, unit: Unit = WH) -> Section | None:
    """In which hours the trainings ran, and the grams saved by waiting for clean ones; only when grams follow a forecast.

    ``run.facts["carbon"]`` holds one entry per session, see `joulefront.search.running.carbon_session.CarbonLog.to_json`.
    """
    sessions = run.facts.get("carbon") or []
    if not sessions:
        return None
    rows = [
        [hour["hour"][:16].replace("T", " "), unit.number(hour["joules"]), grams_text(hour["grams"])]
        for session in sessions
        for hour in session["hours"]
    ]
    tables = [Table(["hour (UTC)", f"trained, {unit.name}", "emitted"], rows, (1, 2))] if rows else []
    return Section("Carbon by the hour", [_carbon_sentence(session) for session in sessions], tables)


def _carbon_sentence(session: Mapping[str, Any]) -> str:
    trained, where = session["trainings"], f"Grams follow a forecast ({session['forecast']})"
    if trained["grams"] is None or trained["grams_at_once"] is None:
        return f"{where}. It did not cover every hour, or an energy was unknown: the grams of this session are unknown."
    text = f"{where}; the trainings of this session emitted {grams_text(trained['grams'])}."
    if not session["deadline"]:
        return text
    text += f" Large ones could wait for clean hours until {session['deadline'][:16].replace('T', ' ')} UTC."
    if not session["hours_waited"]:
        return text + " None waited."
    share = "" if not trained["grams_at_once"] else f", {100 * (trained['grams'] / trained['grams_at_once'] - 1):+.0f} %"
    text += f" Against the same trainings without waiting ({grams_text(trained['grams_at_once'])}){share}"
    cost = "an unknown energy" if session["wait_joules"] is None else joules_text(session["wait_joules"])
    grams = "" if session["wait_grams"] is None else f" ({grams_text(session['wait_grams'])})"
    return text + f"; while it waited {digits(session['hours_waited'])} h the machine took {cost}{grams} as far as it was metered."


def reproduce_section(run: Run) -> Section | None:
    """Study, hardware, commands and versions: what it takes to reproduce the run."""
    study: dict[str, Any] = {key: value for key, value in dict(run.facts.get("study") or {}).items() if key != "directions"}
    rows = [[name, value] for name, value in flatten(study).items()]
    rows += [["budget", str(run.facts["budget"])]] if run.facts.get("budget") else []
    rows += [["hardware", line] for line in hardware_lines(run)]
    for number, session in enumerate(run.sessions, 1):
        facts = {key: value for key, value in session.items() if key not in ("hardware", "hardware_id", "versions")}
        rows.append([f"session {number}", "; ".join(f"{name} {value}" for name, value in flatten(facts).items())])
    for session in run.sessions[-1:]:
        rows.append(["versions", ", ".join(f"{name} {version}" for name, version in flatten(session.get("versions") or {}).items())])
    return Section("Reproduction", tables=[Table(["what", "value"], rows)]) if rows else None
