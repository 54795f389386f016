"""The front as an interactive picture, by plotly: hovering over a point shows the model, its parameters and its energy."""

from __future__ import annotations

from html import escape
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..formatting import count_text, grams_text, joules_text, plain
from ..front import Front
from ..records.trial import Trial
from ..whole_file import whole_file
from .facts import short_component
from .page import asset
from .view import (
    EDGE,
    ENOUGH_TICKS,
    GRID,
    INK,
    MUTED,
    PALE,
    PICK,
    REPEATS_LABEL,
    STRONG,
    TICK_GAP,
    Cross,
    View,
    choose_ticks,
    crosses,
    tick_candidates,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"

#: Look of every chart: layout and axes.
STYLE: dict[str, Any] = {
    "font": {"family": FONT, "color": INK, "size": 13},
    "paper_bgcolor": "white",
    "plot_bgcolor": "white",
    "hoverlabel": {"bgcolor": "white", "bordercolor": STRONG, "font": {"family": FONT, "size": 12, "color": INK}, "align": "left"},
}
AXIS: dict[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": EDGE, "tickcolor": EDGE, "ticks": "outside"}

#: What the tool bar offers: nothing that sends the data to a service; the camera saves at twice the size.
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud", "lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}

#: The picture fills the window and no more.
WHOLE_WINDOW = "<style>html, body { margin: 0; overflow: hidden; }</style>"


def front_plotly(front: Front) -> Figure:
    """Draw the front for a browser or a notebook; hover shows parameters, energy by component and its quality."""
    import plotly.graph_objects as go

    view = View.of(front)
    figure = go.Figure()
    figure.add_trace(_markers(view, view.inside, "trial", {"color": PALE, "size": 8, "opacity": 0.9}))
    if outside := view.outside:
        edge = _markers(view, outside, f"{len(outside)} below the axis", {"color": PALE, "size": 9, "symbol": "triangle-down"})
        edge.y, edge.cliponaxis = [view.bottom] * len(outside), False
        figure.add_trace(edge)
    if view.line:
        x, y = view.steps
        area = {"fill": "toself", "fillcolor": "rgba(11,110,105,0.06)", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(x=[*x, x[-1], x[0]], y=[*y, view.bottom, view.bottom], line={"shape": "hv", "width": 0}, **area))
        line = {"shape": "hv", "color": STRONG, "width": 2.5}
        figure.add_trace(go.Scatter(x=x[:-1], y=y[:-1], mode="lines", line=line, hoverinfo="skip", showlegend=False))
        member = _markers(view, front.members, "front", {"color": STRONG, "size": 11, "line": {"color": "white", "width": 1.2}})
        spans = [view.spread(trial) for trial in front]
        member.error_x = _bars([right for _, right in spans], [left for left, _ in spans], color=STRONG, thickness=1.2, width=3)
        figure.add_trace(member)
        if repeats := crosses(view):
            figure.add_trace(_crosses(repeats))
    if view.pick is not None:
        ring = {"color": "rgba(0,0,0,0)", "size": 20, "line": {"color": PICK, "width": 3}}
        figure.add_trace(_markers(view, (view.pick,), "sensible", ring))
    for word, trial in view.named:
        text = f"{word} {view.label(trial)}"
        side, end = view.anchor(trial, text)
        figure.add_annotation(
            x=log10(view.x(trial)),
            y=view.y(trial),
            text=f"<b>{word}</b> {view.label(trial)}",
            showarrow=False,
            xanchor=side,
            yanchor=end,
            xshift=-10 if side == "right" else 12,
            yshift=11 if end == "bottom" else -11,
            bgcolor="rgba(255,255,255,0.7)",
            font={"color": PICK if word.startswith("sensible") else INK, "size": 13},
        )
    _layout(figure, view)
    return figure


def front_html(front: Front, path: str | Path) -> Path:
    """Write the interactive front as one self-contained HTML file; it opens without a network."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text: str = front_plotly(front).to_html(
        include_plotlyjs=True, full_html=True, default_height="100vh", div_id="front", post_script=asset("plotly_zoom.js"), config=CONFIG
    )
    with whole_file(target) as unfinished:
        text = text.replace("<head>", f"<head><title>{escape(front.name)} - front</title>{WHOLE_WINDOW}", 1)
        unfinished.write_text(text, encoding="utf-8")
    return target


def _crosses(repeats: tuple[Cross, ...]) -> Any:
    import plotly.graph_objects as go

    look = {"color": INK, "thickness": 1, "width": 2}
    return go.Scatter(
        x=[one.x for one in repeats],
        y=[one.y for one in repeats],
        error_x=_bars([one.right for one in repeats], [one.left for one in repeats], **look),
        error_y=_bars([one.up for one in repeats], [one.down for one in repeats], **look),
        mode="markers",
        name=REPEATS_LABEL,
        marker={"symbol": "x-thin", "size": 9, "line": {"color": INK, "width": 1.6}},
        text=[f"trial {one.number}, {one.n} repeats" for one in repeats],
        hovertemplate="%{text}<extra></extra>",
    )


def _bars(plus: list[float], minus: list[float], **look: Any) -> dict[str, Any]:
    return {"type": "data", "array": plus, "arrayminus": minus, **look}


def _markers(view: View, trials: tuple[Trial, ...], name: str, marker: dict[str, Any]) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[view.x(trial) for trial in trials],
        y=[view.y(trial) for trial in trials],
        mode="markers",
        name=name,
        marker=marker,
        text=[hover(view.front, trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def hover(front: Front, trial: Trial) -> str:
    """Describe one model in the HTML that plotly's hover labels understand."""
    energy = joules_text(trial.train_joules) + (f" ± {joules_text(2 * trial.train_u_joules)}" if trial.train_u_joules else "")
    lines = [f"<b>trial {trial.number}</b>, {count_text(trial.epochs, 'epoch')}"]
    lines += [f"{front.objectives[0]} <b>{front.quality_text(trial.values[0])}</b>"]
    lines.append(f"training <b>{energy}</b>, {trial.energy_quality}")
    for name, part in trial.components.items():
        lines.append(f"   {escape(short_component(name))}: {joules_text(part.joules)}, {part.quality} by {escape(part.source)}")
    if trial.grams_co2e is not None:
        lines.append(grams_text(trial.grams_co2e))
    if trial.inference_joules_per_1000 is not None:
        lines.append(f"inference {plain(trial.inference_joules_per_1000)} J per 1,000")
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
    every = tick_candidates(view.front)
    mass, factor = view.carbon or (None, 1.0)
    shift = log10(factor)
    heading = [escape(text) for text in (view.front.name, f"{view.quality_title} against training energy", view.subtitle)]
    figure.update_layout(
        title={
            "text": f"<b>{heading[0]}</b>  {heading[1]}<br><span style='font-size:12px;color:{MUTED}'>{heading[2]}</span>",
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 40},  # below the buttons
            "font": {"size": 18},
        },
        **STYLE,
        legend={"x": 0.99, "y": 0.03, "xanchor": "right", "yanchor": "bottom", "bgcolor": "rgba(255,255,255,0.85)"},
        margin={"l": 70, "r": 30, "t": 136 if mass else 98, "b": 60},
        xaxis={
            **AXIS,
            "type": "log",
            "range": [low, high],
            "title": f"training energy of the model ({view.unit.name})",
            **_log_ticks(low, high),
        },
        yaxis={**AXIS, "range": list(view.y_limits), "title": view.axis_title},
        meta={"ticks": every, "gap": TICK_GAP, "enough": ENOUGH_TICKS, "carbon_shift": shift, "heading": heading},
    )
    ticks = choose_ticks(every, *view.y_limits)
    if ticks:
        figure.update_yaxes(tickmode="array", tickvals=[place for place, _ in ticks], ticktext=[label for _, label in ticks])
    if mass is not None:
        figure.add_trace(go.Scatter(x=[None], y=[None], xaxis="x2", showlegend=False, hoverinfo="skip"))
        figure.update_layout(
            xaxis2={
                **AXIS,
                "type": "log",
                "range": [low + shift, high + shift],
                "overlaying": "x",
                "side": "top",
                "title": {"text": mass.name, "font": {"color": MUTED, "size": 12}},
                "tickfont": {"color": MUTED, "size": 11},
                "showgrid": False,
                **_log_ticks(low + shift, high + shift),
            }
        )


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 with their numbers in full; plotly itself writes the 2 of 0.002 as a small 2. Over many decades only the tens."""
    if high - low >= 2.5:
        return {"dtick": 1}
    places = [digit * 10.0**decade for decade in range(floor(low) - 1, floor(high) + 2) for digit in (1, 2, 5)]
    return {"tickmode": "array", "tickvals": places, "ticktext": [f"{place:.6g}" for place in places]}
