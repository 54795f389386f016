"""Crosses in the pictures of a front: where the repeats of its finalists lie on the average."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..energy.intervals import Spread
from ..records.trial import Trial
from .view import INK, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL = "trained again: mean, 95 % interval"


@dataclass(frozen=True)
class Cross:
    """The mean of a member's repeats on the axes of a view.

    Attributes:
        number: Number of the trial.
        n: Number of repeats.
        x: Place of the mean energy, in the view's unit.
        y: Place of the mean quality on the quality axis.
        left: Distance to the lower end of the energy's interval; never down to zero, the axis is logarithmic.
        right: Distance to its upper end.
        down: Distance to the lower end of the quality's interval on the axis.
        up: Distance to the upper end on the axis.
    """

    number: int
    n: int
    x: float
    y: float
    left: float
    right: float
    down: float
    up: float


def crosses(view: View) -> tuple[Cross, ...]:
    """Return a cross for each member with two repeats or more; none without repeats."""
    finding = view.front.repeated
    if finding is None:
        return ()
    on_front = {trial.number for trial in view.front}
    found = []
    for member in finding.members:
        quality, energy = member.quality, member.energy
        if member.trial.number not in on_front or quality is None or energy is None or quality.sd is None or energy.sd is None:
            continue
        x, y = view.x(_at(member.trial, energy.mean, quality.mean)), view.y(_at(member.trial, energy.mean, quality.mean))
        (low_x, high_x), (low_y, high_y) = _ends(view, member.trial, energy, quality)
        found.append(Cross(member.trial.number, quality.n, x, y, min(x - low_x, 0.95 * x), high_x - x, abs(y - low_y), abs(high_y - y)))
    return tuple(found)


def draw_crosses(axes: Axes, view: View) -> None:
    """Draw the crosses into a still picture."""
    found = crosses(view)
    if not found:
        return
    axes.errorbar(
        [one.x for one in found],
        [one.y for one in found],
        xerr=[[one.left for one in found], [one.right for one in found]],
        yerr=[[one.down for one in found], [one.up for one in found]],
        fmt="x",
        color=INK,
        markersize=5.5,
        elinewidth=0.9,
        alpha=0.8,
        zorder=4.5,
        label=LABEL,
    )


def crosses_trace(view: View) -> Any:
    """Return the crosses as a trace of an interactive picture; None without any."""
    found = crosses(view)
    if not found:
        return None
    import plotly.graph_objects as go

    def bars(plus: list[float], minus: list[float]) -> dict[str, Any]:
        return {"type": "data", "array": plus, "arrayminus": minus, "color": INK, "thickness": 1, "width": 2}

    return go.Scatter(
        x=[one.x for one in found],
        y=[one.y for one in found],
        error_x=bars([one.right for one in found], [one.left for one in found]),
        error_y=bars([one.up for one in found], [one.down for one in found]),
        mode="markers",
        name=LABEL,
        marker={"symbol": "x-thin", "size": 9, "line": {"color": INK, "width": 1.6}},
        text=[f"trial {one.number}, {one.n} repeats" for one in found],
        hovertemplate="%{text}<extra></extra>",
    )


def _at(trial: Trial, joules: float, quality: float) -> Trial:
    return replace(trial, train_joules=joules, values=(quality, *trial.values[1:]))


def _ends(view: View, trial: Trial, energy: Spread, quality: Spread) -> tuple[tuple[float, float], tuple[float, float]]:
    ends = [_at(trial, joules or 0.0, value or 0.0) for joules, value in ((energy.low, quality.low), (energy.high, quality.high))]
    return (view.x(ends[0]), view.x(ends[1])), (view.y(ends[0]), view.y(ends[1]))
