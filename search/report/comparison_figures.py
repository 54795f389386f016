"""Still pictures of comparisons: energy against operations by family, and families against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Any

from ..formatting import Unit, unit_for
from ..records.run_folder import Run
from ..records.trial import Trial
from .baseline_comparison import BASELINE, BaselineComparison, Group, compare_to_baseline, interval_text, spread_text
from .baseline_comparison import to_text as baseline_to_text
from .energy_relations import (
    POOLED,
    Relation,
    by_construction,
    cpu_utilisation,
    epoch_joules,
    family_of,
    operation_costs,
    operation_costs_to_text,
    points_of,
    relations,
    training_flops,
)
from .energy_relations import to_text as relations_to_text
from .matplotlib_front import plain_ticks, save_figure, set_titles, style_axes
from .view import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save_comparison(run: Run, of: str, path: str | Path) -> tuple[str, Path]:
    """Draw one of the comparisons, ``relations`` or ``tactics``, to a file that ends in .png or .svg.

    Return the tables behind the picture, and where it lies.

    Raises:
        ValueError: If there is no such comparison, the run has nothing to compare, or the ending is another one.
    """
    if of == "relations":
        found = relations(run)
        parts = [relations_to_text(found), by_construction(run), operation_costs_to_text(operation_costs(run))]
        return "\n\n".join(text for text in parts if text), save_figure(relations_figure(run, found), path)
    if of == "tactics":
        compared = compare_to_baseline(run)
        text = f"{baseline_to_text(compared, run.objectives[0])}\n\n{spread_text(compared)}"
        return text, save_figure(baseline_figure(run, compared), path)
    raise ValueError(f"--of must be front, relations or tactics, got {of!r}")


def relations_figure(run: Run, found: Sequence[Relation]) -> Figure:
    """Draw the energy of an epoch over operations, parameters and utilisation, one panel each with its ``relations``, a colour a family.

    Raises:
        ValueError: If the trials come from different hardware, or there is none.
    """
    points = points_of(run)
    if not points:
        raise ValueError("the run has no measured trial to draw")
    families = sorted({family_of(trial) for trial in points})
    gpu = any(trial.energy.gpu_utilisation is not None for trial in points)
    wanted: list[tuple[str, str, Any, bool]] = [
        ("FLOPs of a forward pass", "training FLOPs of an epoch", training_flops, True),
        ("parameters", "parameters", lambda trial: trial.parameters, True),
        ("GPU utilisation", "GPU utilisation, share of the time", lambda trial: trial.energy.gpu_utilisation, False)
        if gpu
        else ("CPU utilisation", "CPU-seconds per second and thread", cpu_utilisation, False),
    ]
    panels = [one for one in wanted if sum(one[2](trial) is not None for trial in points) > 1]
    figure, axes = _panels(len(panels), width=4.6)
    unit = unit_for(epoch_joules(trial) for trial in points)
    for axis, (predictor, title, place, logarithmic) in zip(axes, panels, strict=True):
        for number, family in enumerate(families):
            own = [trial for trial in points if family_of(trial) == family and place(trial) is not None]
            axis.scatter(
                [place(trial) for trial in own],
                [unit.of(epoch_joules(trial)) for trial in own],
                s=30,
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number % len(MARKERS)],
                alpha=0.8,
                linewidths=0,
                label=f"{family} ({_rho(found, predictor, family if len(families) > 1 else POOLED)})",
            )
        axis.set_yscale("log")
        if logarithmic:
            axis.set_xscale("log")
        axis.set_xlabel(title, color=INK, fontsize=10)
        axis.set_title(f"all: {_rho(found, predictor, POOLED)}", fontsize=10, color=INK, loc="left")
        # below the panel: no corner is certain to be free of points
        axis.legend(fontsize=8, frameon=False, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    if panels:
        axes[0].set_ylabel(f"training energy of an epoch ({unit.name})", color=INK, fontsize=10)
    how = ", ".join(sorted({trial.energy_quality for trial in points}))
    set_titles(figure, run.name, "energy against operations, size and utilisation", f"Spearman's rho with n · energy {how}", size=12)
    return figure


def baseline_figure(run: Run, found: Sequence[BaselineComparison]) -> Figure:
    """Draw quality over energy for every family of ``compare_to_baseline``, one panel each, over the line of the baseline.

    A point is the mean of the repeats of one setting at one number of epochs; its bar is the standard deviation of a single training.
    """
    base = [group for one in found if one.family == BASELINE for group in one.groups]
    families = list(dict.fromkeys(one.family for one in found if one.family != BASELINE))
    unit = unit_for(group.joules for one in found for group in one.groups)
    figure, axes = _panels(len(families), width=3.1)
    for axis, family in zip(axes, families, strict=True):
        _line(axis, base, unit, INK, "o", BASELINE)
        for number, one in enumerate(one for one in found if one.family == family):
            _line(axis, one.groups, unit, COLORS[(number + 1) % len(COLORS)], MARKERS[(number + 1) % len(MARKERS)], _legend_text(one))
        axis.set_xscale("log")
        axis.set_title(family, fontsize=10, color=INK, loc="left")
        axis.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="lower right")
        axis.set_xlabel(f"training energy ({unit.name})", color=INK, fontsize=9.5)
        plain_ticks(axis.xaxis, axis.get_xlim())
    if families:
        axes[0].set_ylabel(run.objectives[0], color=INK, fontsize=10)
    trials = [trial for one in found for group in one.groups for trial in group.trials]
    how = ", ".join(sorted({trial.energy_quality for trial in trials}))
    caption = f"each point the mean of repeats, bars: standard deviation of one training · n = {len(trials)} · energy {how}"
    set_titles(figure, run.name, f"each family against {BASELINE} training", caption, size=12)
    return figure


def _panels(count: int, *, width: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width * count, width), 4.4), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(count, 1), sharey=True, squeeze=False)[0]
    for axis in axes:
        style_axes(axis, label_size=8.5)
    return figure, axes


def _line(axis: Axes, groups: Sequence[Group], unit: Unit, color: str, marker: str, label: str) -> None:
    x = [unit.of(group.joules) for group in groups]
    y = [group.quality for group in groups]
    spread = [_deviation(group.trials) for group in groups]
    axis.errorbar(x, y, yerr=spread, color=color, marker=marker, markersize=5, linewidth=1.3, elinewidth=0.9, capsize=2, label=label)


def _legend_text(one: BaselineComparison) -> str:
    name = one.setting or one.family
    if one.equal_quality is None or one.factor is None:
        return name
    return f"{name}\n{interval_text(one.equal_quality, one.factor)}"


def _deviation(trials: Sequence[Trial]) -> float:
    return stdev(trial.values[0] for trial in trials) if len(trials) > 1 else float("nan")  # no bar: that of one training is unknown


def _rho(found: Sequence[Relation], predictor: str, family: str) -> str:
    one = next((one for one in found if (one.predictor, one.family) == (predictor, family)), None)
    if one is None or one.rho is None:
        return "too few points" if one is None else f"n = {one.n}"
    return f"rho {one.rho:+.2f}, n = {one.n}"
