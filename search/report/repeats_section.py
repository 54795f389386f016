"""The section of the report about finalists that were trained again."""

from __future__ import annotations

from ..records.replicate_summary import findings
from ..records.run_folder import Run
from ..repeats.text import legend, sentences, table_of
from .markup import paragraph, section, table


def repeats_section(run: Run) -> str:
    """Means and intervals of the repeats, which neighbours can be told apart, luck and drift; only when there are repeats."""
    finding = findings(run.repeats, run.trials, run.objectives[0], run.directions[0])
    if not finding.members:
        return ""
    head, rows = table_of(finding)
    said = [f"{len(plan.trials)} models {plan.times} times in {plan.order} order on {plan.started[:10]}" for plan in run.repeats.plans]
    return section(
        "Finalists measured again",
        paragraph("Trained from scratch with fresh seeds: " + "; ".join(said) + ". They are no trials and no points of the front."),
        table(head, rows, right=range(len(head))),
        paragraph(legend(finding), "muted small"),
        *(paragraph(line) for line in sentences(finding, run.repeats)),
    )
