"""The smaller charts of the report page: hypervolume over energy, where the energy went, importance of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..energy import JOULES_PER_WH
from ..formatting import energy_text, unit_for
from ..front import Front
from ..hypervolume import normalised_hypervolume
from ..records.bill import Bill
from .facts import short_component
from .importance import Importance
from .plotly_front import AXIS, STYLE
from .view import EDGE, INK, MUTED, PICK, STRONG

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


#: Colours of the parts of a bill, by state and by component.
STATE_COLORS = {
    "complete": STRONG,
    "stopped": "#6a994e",
    "pruned": "#a7c957",
    "failed": PICK,
    "repeats": "#3f7cac",
    "features": "#c08a2d",
    "overhead": "#7a8f9b",
    "idle": "#c9d4da",
    "not attributed": "#8a5a83",
}
PART_COLORS = ("#0b6e69", "#3f7cac", "#c08a2d", "#7a8f9b", "#8a5a83", "#6a994e")


@dataclass(frozen=True)
class Step:
    """Hypervolume after a trial, in the box of the whole run, and the Wh of all trials by then, without deciding and idling."""

    trial: int
    wh: float
    hypervolume: float


def hypervolume_trace(front: Front) -> tuple[Step, ...]:
    """Return the hypervolume after each finished trial, in the order of their numbers.

    A trial of unknown increment does not move the energy; the report counts those trials.
    """
    import moocore

    upwards = [direction == "maximize" for direction in front.directions]
    kept: list[tuple[float, ...]] = []
    joules, volume, steps = 0.0, 0.0, []
    for trial in sorted(front.trials, key=lambda trial: trial.number):
        if trial.state == "running":
            continue
        joules += trial.increment_joules or 0.0
        if front.why_not(trial) is None:
            kept.append(trial.values)
            keep = moocore.is_nondominated(kept, maximise=upwards)
            kept = [values for values, stays in zip(kept, keep, strict=True) if stays]
            volume = normalised_hypervolume(kept, front.box)
        steps.append(Step(trial.number, joules / JOULES_PER_WH, volume))
    return tuple(steps)


def trace_chart(steps: Sequence[Step]) -> Figure:
    """Draw the hypervolume against the energy that the trials had cost."""
    import plotly.graph_objects as go

    rises = [
        step
        for before, step in zip([None, *steps[:-1]], steps, strict=True)
        if before is None or step.hypervolume > before.hypervolume + 1e-12
    ]
    unit = unit_for(steps[-1].wh) if steps else unit_for(1.0)
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0.0, *(step.wh / unit.size for step in steps)],
            y=[0.0, *(step.hypervolume for step in steps)],
            mode="lines",
            line={"shape": "hv", "color": STRONG, "width": 2.5},
            fill="tozeroy",
            fillcolor="rgba(11,110,105,0.06)",
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[step.wh / unit.size for step in rises],
            y=[step.hypervolume for step in rises],
            mode="markers",
            marker={"color": STRONG, "size": 8, "line": {"color": "white", "width": 1}},
            text=[f"trial {step.trial} raised it to {step.hypervolume:.4f} at {energy_text(step.wh)}" for step in rises],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_layout(
        **_plain(height=320),
        xaxis={**AXIS, "title": f"{unit.name} spent on trials", "rangemode": "tozero"},
        yaxis={**AXIS, "title": "hypervolume"},
    )
    return figure


def bill_chart(bill: Bill) -> Figure:
    """Draw where the energy went, once by state of the trials and once by component; both bars are as long as the total."""
    import plotly.graph_objects as go

    unit = unit_for((bill.total_joules or 0.0) / JOULES_PER_WH)
    figure = go.Figure()
    parts = {short_component(name): joules for name, joules in bill.by_component.items()}
    for row, values, colors in (
        ("by component", parts, dict(zip(parts, PART_COLORS * len(parts), strict=False))),
        ("by state", bill.by_state, STATE_COLORS),
    ):
        for name, joules in with_remainder(values, bill.total_joules).items():
            share = f" ({100 * joules / bill.total_joules:.1f} %)" if bill.total_joules else ""
            figure.add_trace(
                go.Bar(
                    x=[joules / JOULES_PER_WH / unit.size],
                    y=[row],
                    orientation="h",
                    name=name,
                    marker={"color": colors.get(name, "#8a5a83"), "line": {"color": "white", "width": 1.5}},
                    text=[name],
                    textposition="inside",
                    insidetextanchor="middle",
                    constraintext="inside",
                    textfont={"color": INK if name == "idle" else "white"},
                    hovertext=[f"{name}: {energy_text(joules / JOULES_PER_WH)}{share}"],
                    hovertemplate="%{hovertext}<extra></extra>",
                )
            )
    figure.update_layout(
        **_plain(height=230, left=105),
        barmode="stack",
        bargap=0.35,
        xaxis={**AXIS, "title": unit.name},
        yaxis={"linecolor": "white", "ticks": ""},
    )
    return figure


def with_remainder(values: Mapping[str, float], total_joules: float | None) -> dict[str, float]:
    """Return the parts above zero, and what they lack of the total as ``not attributed`` when that is more than 0.1 %."""
    found = {name: joules for name, joules in values.items() if joules > 0}
    missing = (total_joules or 0.0) - sum(found.values())
    if total_joules and found and missing > 1e-3 * total_joules:
        found["not attributed"] = missing
    return found


def importance_chart(found: Importance) -> Figure:
    """Draw the importances as bars with the standard deviation over the shuffles, the most important on top."""
    import plotly.graph_objects as go

    shown = list(reversed(found.parameters[:8]))
    figure = go.Figure(
        go.Bar(
            x=[max(0.0, drop) for _, drop, _ in shown],
            y=[name for name, _, _ in shown],
            orientation="h",
            marker={"color": STRONG},
            error_x={"type": "data", "array": [sd for _, _, sd in shown], "color": MUTED, "thickness": 1.2, "width": 3},
            hovertext=[f"{name}: R² falls by {drop:.3f} ± {sd:.3f}" for name, drop, sd in shown],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    figure.update_layout(
        **_plain(height=max(190, 90 + 30 * len(shown)), left=150),
        xaxis={**AXIS, "title": "R² lost when shuffled", "rangemode": "tozero"},
        yaxis={"linecolor": EDGE, "automargin": True},
    )
    return figure


def _plain(*, height: int, left: int = 70) -> dict[str, Any]:
    return {"height": height, **STYLE, "showlegend": False, "margin": {"l": left, "r": 20, "t": 15, "b": 55}}
