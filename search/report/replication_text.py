"""The results of repeated trainings, for the terminal, the report and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..energy.intervals import Difference
from ..formatting import digits, fitted, paragraphs, unit_for
from ..records.replicates import Repeats, ReplicateComparison, ReplicateSummary, drift, row_of
from .table import energy_spread_text, quality_text

#: Title of the column that gives way first on a narrow terminal.
OVER_METER = "sd ÷ meter u"
#: The machine is said to drift when fewer than this share of steady machines would show as large a correlation.
SIGNIFICANT = 0.05


def table_of(comparison: ReplicateComparison, decimals: int = 4) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of members; all columns are numbers or short words, aligned to the right.

    So many ``decimals`` of a quality mean anything.
    """
    unit = unit_for(
        joules for one in comparison.members for joules in (one.trial.train_joules, None if one.energy is None else one.energy.mean)
    )
    name = comparison.objective
    head = ["trial", name, "repeats", unit.name, f"repeats {unit.name}", "n", OVER_METER, "differs from next"]
    rows = []
    for member in comparison.members:
        pair = comparison.after(member.trial.number)
        rows.append(
            [
                str(member.trial.number),
                f"{member.searched:.{decimals}f}",
                quality_text(member.quality, decimals),
                unit.number(member.trial.train_joules),
                energy_spread_text(member.energy, unit),
                str(member.quality.n if member.quality else 0) + (f" ({member.failed} failed)" if member.failed else ""),
                digits(member.spread_over_meter),
                "" if pair is None else _differences({"energy": pair.energy, name: pair.quality}),
            ]
        )
    return head, rows


def legend(comparison: ReplicateComparison, shown: str | None = None) -> str:
    """Explain the columns: all of them, or those whose titles the text of the table has."""
    counted = "of n trainings" if shown is None or " n " in shown else "of trainings"
    ratio = f"; {OVER_METER}: standard deviation of the energy over the random uncertainty of the meter"
    return (
        f"repeats: mean ± standard deviation {counted} with fresh seeds{ratio if shown is None or OVER_METER in shown else ''}; "
        f"differs from next: whether energy and {comparison.objective} differ from those of the next row "
        "(95 % interval of the difference, Welch)."
    )


def sentences(comparison: ReplicateComparison, repeats: Repeats, decimals: int = 4) -> list[str]:
    """Return one line each: was the search lucky, does the order survive, did the machine drift, what failed."""
    return [line for line in (_luck(comparison, decimals), _order(comparison), _drifted(repeats), _failed(comparison, repeats)) if line]


def to_text(comparison: ReplicateComparison, repeats: Repeats, decimals: int = 4) -> str:
    """Render the table and the sentences for a terminal."""
    head, rows = table_of(comparison, decimals)
    table = fitted([head, *rows], [True] * len(head), optional=(OVER_METER, "n"))
    said = map(paragraphs, (legend(comparison, table), *sentences(comparison, repeats, decimals)))
    return "\n".join([table, "", *said])


def to_json(comparison: ReplicateComparison, repeats: Repeats) -> dict[str, Any]:
    """Return everything with stable keys and units in them; None where unknown."""
    n, rho, p_value = drift(repeats)
    return {
        "members": [row_of(comparison, member) for member in comparison.members],
        "order_survives": comparison.order_survives,
        f"mean_fall_of_{comparison.objective}": None if comparison.optimism is None else comparison.optimism.mean,
        "drift": {"n": n, "rank_correlation": rho, "p_value": p_value},
    }


def _differences(differences: Mapping[str, Difference | None]) -> str:
    """Name what differs clearly, e.g. ``energy, accuracy``, ``accuracy unknown`` or ``nothing``."""
    known = {name: f"{name} unknown" if one is None else name for name, one in differences.items() if one is None or one.clear}
    return ", ".join(known.values()) or "nothing"


def _luck(comparison: ReplicateComparison, decimals: int) -> str:
    """The optimism of the selection in one line: the best of many noisy values is too good on average."""
    if comparison.optimism is None:
        return ""
    quality = [member for member in comparison.members if member.quality_outside]
    energy = [member for member in comparison.members if member.energy_outside]
    outside = []
    if quality:
        outside.append(f"the {comparison.objective} of {_numbers(quality)}")
    if energy:
        outside.append(f"the energy of {_numbers(energy)}")
    sizes = {member.quality.n for member in comparison.members if member.quality is not None}
    chance = f" (by chance alone {2 / (min(sizes) + 1):.0%} do)" if len(sizes) == 1 and min(sizes) > 1 else ""
    text = f"What the search measured lies outside the range of the repeats for {' and '.join(outside)}{chance}. " if outside else ""
    optimism = comparison.optimism
    span = (
        ""
        if optimism.low is None or optimism.high is None
        else f" (95 % interval {_worse(optimism.low, decimals)} to {_worse(optimism.high, decimals)})"
    )
    whose = "the member's" if optimism.n == 1 else "the members'"
    return f"{text}On average {whose} {comparison.objective} is {_worse(optimism.mean, decimals)} than in the search{span}."


def _worse(optimism: float, decimals: int) -> str:
    return f"{abs(optimism):.{decimals}f} {'worse' if optimism >= 0 else 'better'}"


def _order(comparison: ReplicateComparison) -> str:
    if not comparison.pairs:
        return ""
    swapped = [f"{pair.cheaper} and {pair.other}" for pair in comparison.pairs if pair.order_kept is False]
    if swapped:
        return f"The order of the front does not survive between trials {', '.join(swapped)}."
    return "The order of the front survives." if comparison.order_survives else "Whether the order of the front survives is unknown."


def _drifted(repeats: Repeats) -> str:
    n, rho, p_value = drift(repeats)
    if rho is None or p_value is None:
        return ""
    steady = all(plan.order != "given" for plan in repeats.plans)
    drifted = "the machine drifted, which widens the intervals" + (" but favours no trial" if steady else " and favours some trials")
    verdict = drifted if p_value < SIGNIFICANT else "no drift was found"
    return f"Energy against the position in the plan: rank correlation {rho:+.2f} (n = {n}, p {p_value:.2g}): {verdict}."


def _failed(comparison: ReplicateComparison, repeats: Repeats) -> str:
    failed = [one for one in repeats.trainings if one.failed is not None and comparison.summary_of(one.trial) is not None]
    if not failed:
        return ""
    reasons = sorted({f"trial {one.trial}: {one.failed}" for one in failed})
    return (
        f"{len(failed)} of {len(repeats.trainings)} repeats have no result ({'; '.join(reasons[:4])}{'; …' if len(reasons) > 4 else ''})."
    )


def _numbers(members: Sequence[ReplicateSummary]) -> str:
    numbers = [str(member.trial.number) for member in members]
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
