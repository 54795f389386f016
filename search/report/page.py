"""The report: one self-contained HTML page about a run. `report_html` lists its sections in their order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..energy import JOULES_PER_WH
from ..formatting import energy_text
from ..front import Front
from ..records.run_folder import Run
from ..whole_file import whole_file
from .charts import bill_chart, hypervolume_trace, importance_chart, trace_chart
from .data_section import data_section
from .facts import grams_per_wh, pue_of, sessions_of, wall_text
from .html import page, paragraph, section, tile
from .importance import Importance, importance
from .plotly_front import CONFIG, FOLLOW, front_plotly
from .sections import (
    anchor_section,
    baseline_section,
    carbon_section,
    estimate_section,
    failures_section,
    front_table,
    measured_section,
    projection_section,
    relations_section,
    repeats_section,
    reproduce_section,
    statement_section,
    trials_section,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def report_html(run: Run, path: str | Path) -> Path:
    """Write the report of a run, finished or not; the page holds its charts and their library, and fetches nothing.

    Raises:
        ValueError: If the file does not end in ``.html``.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"-o {str(path)!r}: a report is an HTML page, write for example {target.stem or 'report'}.html")
    front = Front.of(run)
    body = "".join(
        [
            _head(run, front),
            _tiles(run, front),
            section("Front", _chart(front_plotly(front), "front", first=True, script=FOLLOW), front_table(front)),
            repeats_section(run),
            data_section(run),
            _growth(front),
            _bill(run),
            _importances(front),
            measured_section(run),
            estimate_section(run),
            projection_section(run),
            carbon_section(run),
            anchor_section(run),
            baseline_section(run),
            relations_section(run),
            failures_section(run),
            trials_section(run),
            statement_section(run),
            reproduce_section(run),
        ]
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as unfinished:
        unfinished.write_text(page(f"{run.name} - report", body), encoding="utf-8")
    return target


def _head(run: Run, front: Front) -> str:
    study = run.facts.get("study") or {}
    sessions = sessions_of(run)
    lines = [str(study.get("description") or "")]
    when = [str(session["started"])[:16].replace("T", " ") for session in sessions if session.get("started")]
    if when:
        lines.append(
            f"Started {when[0]} UTC, {len(sessions)} session{'' if len(sessions) == 1 else 's'}; sampler {study.get('sampler', '-')}."
        )
    running = sum(trial.state == "running" for trial in run.trials)
    if running:
        lines.append("1 trial is still running." if running == 1 else f"{running} trials are still running.")
    if front.complete_only:
        lines.append("Only models trained to the last rung count for the front.")
    return "<h1>" + paragraph(run.name)[3:-4] + "</h1>" + "".join(paragraph(text, "muted") for text in lines if text)


def _tiles(run: Run, front: Front) -> str:
    joules = run.bill.total_joules
    tiles = []
    if len(front):
        for trial, word in ((front.best(), "best"), (front.sensible(), "sensible")):
            tiles.append(tile(f"{trial.values[0]:.4f}", f"{word} {front.objectives[0]}, {energy_text(trial.train_wh)} to train"))
    tiles.append(tile(energy_text(None if joules is None else joules / JOULES_PER_WH), "energy of the whole search"))
    grams = grams_per_wh(run.facts)
    if grams is not None and joules is not None:
        pue = pue_of(run)
        tiles.append(
            tile(energy_text(joules / JOULES_PER_WH * grams, "gCO2e"), "of the whole search" + ("" if pue == 1 else f", PUE {pue:g}"))
        )
    failed = sum(trial.state == "failed" for trial in run.trials)
    tiles.append(tile(str(len(run.trials)), f"trials, {failed} failed, {len(front)} on the front"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _growth(front: Front) -> str:
    steps = hypervolume_trace(front)
    if not steps:
        return ""
    unknown = sum(trial.increment_joules is None for trial in front.trials if trial.state != "running")
    text = "Share of a box that the front dominates. The study and its first measured trial fix the box: "
    text += "; ".join(axis.to_text() for axis in front.box) + "." if front.box else "there is none yet."
    text += " The energy axis counts trials, failed ones included; deciding and idling are in the bill below."
    if unknown:
        text += f" The cost of {unknown} trial{'' if unknown == 1 else 's'} is unknown and not on the axis."
    return section("Hypervolume against Wh spent", _chart(trace_chart(steps), "growth"), paragraph(text, "muted small"))


def _bill(run: Run) -> str:
    bill = run.bill
    if bill.total_joules is None:
        return section("Energy of the search", paragraph("Unknown: nothing could be measured or estimated."))
    parts = sum(bill.by_state.values())
    text = f"The ledger recorded {energy_text(bill.total_joules / JOULES_PER_WH)} in {bill.seconds / 60:.1f} min"
    if bill.u_joules is not None:
        text += f", ± {energy_text(2 * bill.u_joules / JOULES_PER_WH)} (two standard uncertainties, the meter's gain included)"
    states = ", ".join(f"{name} {energy_text(joules / JOULES_PER_WH)}" for name, joules in bill.by_state.items())
    text += f": {states}; together {100 * parts / bill.total_joules:.2f} % of it." if states else "."
    text += "".join(f" {more}" for more in (bill.gaps(), wall_text(bill)) if more)
    return section("Energy of the search", _chart(bill_chart(bill), "bill"), paragraph(text, "muted small"))


def _importances(front: Front) -> str:
    found = [importance(front, "quality"), importance(front, "energy")]
    blocks = "".join(f"<div>{_importance(one, f'importance-{place}')}</div>" for place, one in enumerate(found))
    method = next((one.method() for one in found if one.parameters), "")
    return section("Parameter importance", f'<div class="two">{blocks}</div>', paragraph(method, "muted small") if method else "")


def _importance(found: Importance, name: str) -> str:
    title = f"<h3>for {found.target}</h3>"
    if not found.parameters:
        return title + paragraph(f"No ranking: {found.reason} (n = {found.trials} trials).", "muted")
    fit = f"The forest explains {100 * (found.r2 or 0.0):.0f} % of the variance on held-out configurations."
    return title + _chart(importance_chart(found), name) + paragraph(fit, "muted small")


def _chart(figure: Figure, name: str, *, first: bool = False, script: str | None = None) -> str:
    """Embed a chart; the library comes with the first one."""
    config = CONFIG if first else {**CONFIG, "displayModeBar": False}
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=first, div_id=name, config=config, post_script=script, default_height=560 if first else "100%"
    )
    return text
