"""What was said in advance against what it became: the cost of the study, and the energy of single trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..formatting import digits
from ..records.run_folder import Run
from ..stopping.projection import projection_errors
from .markup import paragraph, section, table

HEAD = ["", "said", "90 % interval", "actual", "actual / said", "inside"]


def estimate_section(run: Run) -> str:
    """What the study was estimated to cost, before and while it ran, against what it cost; only when something was said."""
    rows = []
    guess = run.facts.get("estimate")
    if isinstance(guess, Mapping) and guess.get("joules") is not None:
        rows += _rows(guess, run, "before the study")
    said = run.facts.get("expected")
    for found in said if isinstance(said, list) else []:
        rows += _rows(found, run, f"at {found['share']:.0%} of it, after {found['done']} trials")
    return section("Estimate against actual", table(HEAD, rows, right=(1, 2, 3, 4))) if rows else ""


def projection_section(run: Run) -> str:
    """How well the energy of a training was told from its first epochs; only when some training went on to a higher rung."""
    found = projection_errors(run.trials, run.rungs)
    if not found:
        return ""
    rows = [[str(one.known), str(one.target), str(one.n), f"{one.median:.1%}", f"{one.worst:.1%}", f"{one.bias:+.1%}"] for one in found]
    return section(
        "Projected energy of trainings",
        paragraph(
            "The energy of the first epochs, and their mean without the very first for each to come (STEP, arXiv 2307.05520), against "
            "what the training did cost."
        ),
        table(["epochs known", "projected to", "n", "median error", "largest", "bias"], rows, right=range(6)),
    )


def _rows(guess: Mapping[str, Any], run: Run, when: str) -> list[list[str]]:
    rows = []
    for name, key, actual, scale in (
        ("energy (Wh)", "joules", _searched(run), 3600.0),
        ("trials", "trials", float(sum(trial.state != "running" for trial in run.trials)), 1.0),
        ("time (s)", "seconds", run.bill.seconds or None, 1.0),
    ):
        if guess.get(key) is None:
            continue
        low, high = guess.get(f"low_{key}"), guess.get(f"high_{key}")
        if low is not None and low == high:
            continue  # a limit that was given, not an estimate
        span = "-" if low is None or high is None else f"{digits(low / scale)} to {digits(high / scale)}"
        # A study may run over its limit by the last epoch, so that a limit is met when it is met to the three digits shown.
        inside = "-" if actual is None or low is None or high is None else "yes" if 0.995 * low <= actual <= 1.005 * high else "no"
        ratio = "-" if actual is None or not guess[key] else f"{actual / guess[key]:.2f}"
        rows.append(
            [f"{name}, {when}", digits(guess[key] / scale), span, "unknown" if actual is None else digits(actual / scale), ratio, inside]
        )
    return rows


def _searched(run: Run) -> float | None:
    """What the search itself has cost: finalists that were measured again afterwards were no part of the estimate."""
    total = run.bill.total_joules
    return None if total is None else total - run.bill.by_state.get("repeats", 0.0)
