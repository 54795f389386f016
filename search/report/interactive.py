"""The front as an interactive picture, by plotly: hover tells what a model is and what it cost."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, Any

from ..front import Front
from ..runs import Run
from ..trial import Trial
from .view import INK, KNEE, MUTED, PALE, STRONG, View, short_component

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"

#: What the tool bar offers: nothing that sends the data to a service; the camera saves at twice the size.
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud", "lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}

#: Keeps the carbon axis on the energy axis while the reader zooms; plotly links axes of equal ranges only.
FOLLOW = """
var plot = document.getElementById('{plot_id}'), busy = false;
plot.on('plotly_relayout', function () {
  if (busy || !plot.layout.xaxis2) return;
  var shift = Math.log10(plot.layout.meta.grams_per_wh), range = plot.layout.xaxis.range;
  busy = true;
  Plotly.relayout(plot, {'xaxis2.range': [range[0] + shift, range[1] + shift]}).then(function () { busy = false; });
});
"""


def front_plotly(source: Run | Front) -> Figure:
    """Draw the front for a browser or a notebook; hover shows parameters, energy by component and its quality.

    Args:
        source: A run, or a front.
    """
    import plotly.graph_objects as go

    view = View.of(source)
    front = view.front
    figure = go.Figure()
    figure.add_trace(_markers(view, view.others, "trial", {"color": PALE, "size": 8, "opacity": 0.8}))
    if view.line:
        figure.add_trace(
            go.Scatter(
                x=[*(_wh(trial) for trial in view.line), view.x_limits[1] * 10],
                y=[*(trial.values[0] for trial in view.line), view.line[-1].values[0]],
                mode="none",
                line={"shape": "hv"},
                fill="tozeroy" if front.directions[0] == "maximize" else None,
                fillcolor="rgba(11,110,105,0.06)",
                hoverinfo="skip",
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[_wh(trial) for trial in view.line],
                y=[trial.values[0] for trial in view.line],
                mode="lines",
                line={"shape": "hv", "color": STRONG, "width": 2.5},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        member = _markers(view, front.members, "front", {"color": STRONG, "size": 11, "line": {"color": "white", "width": 1.2}})
        member.error_x = {
            "type": "data",
            "array": [2.0 * (trial.train_u_joules or 0.0) / 3600.0 for trial in front],
            "arrayminus": [min(2.0 * (trial.train_u_joules or 0.0) / 3600.0, 0.95 * _wh(trial)) for trial in front],
            "color": STRONG,
            "thickness": 1.2,
            "width": 3,
        }
        figure.add_trace(member)
    if view.knee is not None:
        ring = {"color": "rgba(0,0,0,0)", "size": 20, "line": {"color": KNEE, "width": 3}}
        figure.add_trace(_markers(view, (view.knee,), "knee", ring))
        figure.add_annotation(
            x=log10(_wh(view.knee)),
            y=view.knee.values[0],
            text=f"<b>knee</b> {view.knee.values[0]:.4g} at {_wh(view.knee):.3g} Wh",
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
            xshift=-10,
            yshift=8,
            font={"color": KNEE, "size": 13},
        )
    _layout(figure, view)
    return figure


def _markers(view: View, trials: tuple[Trial, ...], name: str, marker: dict[str, Any]) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[_wh(trial) for trial in trials],
        y=[trial.values[0] for trial in trials],
        mode="markers",
        name=name,
        marker=marker,
        text=[hover(view.front, trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def hover(front: Front, trial: Trial) -> str:
    """Everything about one model, as plotly's small HTML."""
    energy = f"{trial.train_wh or 0.0:.4g} Wh" + (f" ± {2 * trial.train_u_joules / 3600:.2g}" if trial.train_u_joules else "")
    lines = [
        f"<b>trial {trial.number}</b>, {trial.epochs} epoch{'' if trial.epochs == 1 else 's'}",
        f"{front.objectives[0]} <b>{trial.values[0]:.4f}</b>",
    ]
    lines.append(f"training <b>{energy}</b>, {trial.energy_quality}")
    for name, part in trial.components.items():
        known = "unknown" if part.joules is None else f"{part.joules / 3600:.4g} Wh"
        lines.append(f"   {escape(short_component(name))}: {known}, {part.quality} by {escape(part.source)}")
    if trial.grams_co2e is not None:
        lines.append(f"{trial.grams_co2e:.3g} gCO2e")
    if trial.inference_joules_per_1000 is not None:
        lines.append(f"inference {trial.inference_joules_per_1000:.3g} J per 1,000")
    if trial.parameters is not None:
        lines.append(f"{trial.parameters:,} parameters")
    lines += [
        f"{escape(str(name))} = {escape(f'{value:.4g}' if isinstance(value, float) else str(value))}"
        for name, value in trial.params.items()
    ]
    return "<br>".join(lines)


def _layout(figure: Any, view: View) -> None:
    import plotly.graph_objects as go

    low, high = (log10(limit) for limit in view.x_limits)
    axis = {"gridcolor": "#e7edf0", "zeroline": False, "linecolor": "#c5d0d6", "tickcolor": "#c5d0d6", "ticks": "outside", "ticklen": 4}
    figure.update_layout(
        title={
            "text": f"<b>{escape(view.front.name)}</b>  {view.quality_title} against training energy"
            f"<br><span style='font-size:12px;color:{MUTED}'>{escape(view.subtitle)}</span>",
            "x": 0.01,
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
            "font": {"size": 18},
        },
        font={"family": FONT, "color": INK, "size": 13},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"bgcolor": "white", "bordercolor": STRONG, "font": {"family": FONT, "size": 12, "color": INK}, "align": "left"},
        legend={"x": 0.99, "y": 0.03, "xanchor": "right", "yanchor": "bottom", "bgcolor": "rgba(255,255,255,0.85)"},
        margin={"l": 70, "r": 30, "t": 118, "b": 60},
        xaxis={
            **axis,
            "type": "log",
            "range": [low, high],
            "title": "training energy of the model (Wh)",
            "dtick": "D2" if high - low < 2.5 else 1,
        },
        yaxis={**axis, "range": list(view.y_limits), "title": view.quality_title},
    )
    if view.grams_per_wh:
        shift = log10(view.grams_per_wh)
        figure.add_trace(go.Scatter(x=[None], y=[None], xaxis="x2", showlegend=False, hoverinfo="skip"))
        figure.update_layout(
            meta={"grams_per_wh": view.grams_per_wh},
            xaxis2={
                "type": "log",
                "range": [low + shift, high + shift],
                "overlaying": "x",
                "side": "top",
                "title": {"text": "gCO2e", "font": {"color": MUTED, "size": 12}},
                "tickfont": {"color": MUTED, "size": 11},
                "showgrid": False,
                "dtick": "D2" if high - low < 2.5 else 1,
                "ticks": "outside",
                "tickcolor": "#c5d0d6",
                "linecolor": "#c5d0d6",
            },
        )


def _wh(trial: Trial) -> float:
    return (trial.train_joules or 0.0) / 3600.0
