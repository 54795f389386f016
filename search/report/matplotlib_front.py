"""The front as a still picture, and the style of all still pictures, by matplotlib's object interface: no pyplot, no global state."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from operator import mul
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from ..formatting import Unit, plain, printable
from ..front import Front
from ..whole_file import whole_file
from .view import EDGE, GRID, INK, MUTED, PALE, PICK, REPEATS_LABEL, STRONG, View, choose_ticks, crosses, tick_candidates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Points closer than this, in pixels, have labels that would meet; a label's height in points.
LABEL_ROOM = (250.0, 40.0)
LABEL_POINTS = 16.0
#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def front_figure(front: Front) -> Figure:
    """Draw all measured trials pale and the front strong, over energy in Wh on a logarithmic axis.

    Bars are two standard uncertainties of the energy on each side. The dominated area is shaded. Where the carbon intensity is known,
    a second axis gives gCO2e. The figure has 9 x 5.4 inches; save it with `save_figure`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = View.of(front)
    figure = Figure(figsize=(9.0, 5.4), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, view)
    _points(axes, view)
    if view.carbon is not None:
        _carbon_axis(axes, view, *view.carbon)
    set_titles(figure, view.front.name, f"{view.quality_title} against training energy", _caption(view), size=13)
    return figure


def _frame(axes: Axes, view: View) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*view.x_limits)
    axes.set_ylim(*view.y_limits)
    plain_ticks(axes.xaxis, view.x_limits)
    axes.set_xlabel(f"training energy of the model ({view.unit.name})", color=INK, fontsize=10.5)
    ticks = choose_ticks(tick_candidates(view.front), *view.y_limits)
    if ticks:
        axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_ylabel(view.axis_title, color=INK, fontsize=10.5)
    style_axes(axes, label_size=9.5)


def _points(axes: Axes, view: View) -> None:
    inside, outside = view.inside, view.outside
    axes.scatter([view.x(t) for t in inside], [view.y(t) for t in inside], s=26, color=PALE, alpha=0.9, linewidths=0, label="trial")
    if outside:
        below: dict[str, Any] = {"s": 30, "marker": "v", "color": PALE, "clip_on": False, "linewidths": 0, "label": "trial below the axis"}
        axes.scatter([view.x(t) for t in outside], [view.bottom] * len(outside), **below)
    if not view.line:
        return
    x, y = view.steps
    axes.fill_between(x, y, view.bottom, step="post", color=STRONG, alpha=0.06, linewidth=0)
    axes.step(x[:-1], y[:-1], where="post", color=STRONG, linewidth=2.0, solid_joinstyle="round")
    known = [trial for trial in view.front if trial.train_u_joules]
    if known:
        bars: dict[str, Any] = {"ecolor": STRONG, "elinewidth": 1.1, "capsize": 2.5, "alpha": 0.75, "label": "±2 sd of a repeated training"}
        spans = [view.spread(trial) for trial in known]
        both = [[left for left, _ in spans], [right for _, right in spans]]
        axes.errorbar([view.x(t) for t in known], [view.y(t) for t in known], xerr=both, fmt="none", **bars)
    dots: dict[str, Any] = {"s": 46, "color": STRONG, "edgecolors": "white", "linewidths": 0.9, "zorder": 4, "label": "front"}
    axes.scatter([view.x(t) for t in view.front], [view.y(t) for t in view.front], **dots)
    _crosses(axes, view)
    _labels(axes, view)
    legend = axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, labelcolor=INK)
    legend.set_zorder(3)


def _crosses(axes: Axes, view: View) -> None:
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
        label=REPEATS_LABEL,
    )


def _labels(axes: Axes, view: View) -> None:
    placed: list[tuple[float, float]] = []
    for word, trial in view.named:
        picked = word.startswith("sensible")
        if picked:
            axes.scatter(
                [view.x(trial)], [view.y(trial)], s=170, facecolors="none", edgecolors=PICK, linewidths=2.0, zorder=5, label="sensible"
            )
        text = f"{word}: {view.label(trial)}"
        side, end = view.anchor(trial, text)
        x, y = (float(place) for place in axes.transData.transform((view.x(trial), view.y(trial))))
        near = [b for a, b in placed if abs(x - a) < LABEL_ROOM[0] and abs(y - b) < LABEL_ROOM[1]]
        raised = 0.0
        if near and end == "bottom" and y >= max(near):  # the higher point has the higher label
            raised = max(0.0, LABEL_POINTS - (y - max(near)) * 72.0 / axes.figure.dpi)
        elif near:
            end = "top" if end == "bottom" else "bottom"  # the other side of its point is free
        placed.append((x, y))
        axes.annotate(
            text,
            (view.x(trial), view.y(trial)),
            xytext=(-9 if side == "right" else 11, 10 + raised if end == "bottom" else -9),
            textcoords="offset points",
            ha=side,
            va=end,
            fontsize=9.5,
            fontweight="bold" if picked else "normal",
            color=PICK if picked else INK,
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
        )


def _carbon_axis(axes: Axes, view: View, mass: Unit, factor: float) -> None:
    second = axes.secondary_xaxis("top", functions=(partial(mul, factor), partial(mul, 1.0 / factor)))
    plain_ticks(second.xaxis, (view.x_limits[0] * factor, view.x_limits[1] * factor))
    second.set_xlabel(mass.name, color=MUTED, fontsize=9.5)
    second.tick_params(colors=MUTED, labelsize=9, which="both", length=3)
    second.spines["top"].set_color(EDGE)


def _caption(view: View) -> str:
    text = view.subtitle
    facts = view.front.run.facts if view.front.run else {}
    if view.carbon is not None and facts.get("intensity"):
        place = facts["intensity"]
        where = ", ".join(str(place[key]) for key in ("zone", "source", "year") if place.get(key))
        text += f"\ngCO2e at {plain(place['grams_per_kwh'])} g/kWh ({where})"
    return text


# -- what all still pictures share -----------------------------------------------------------------------------------------------------


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png or .svg; equal runs give equal files: no creation date, and SVG ids that do not change from run to run.

    Raises:
        ValueError: If the ending is neither .png nor .svg.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    target = Path(path)
    kind = target.suffix.lower()[1:]
    if kind not in ("png", "svg"):
        raise ValueError(f"-o {str(path)!r}: this picture ends in .png or .svg, for example {target.stem or 'relations'}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    for text in figure.findobj(Text):  # names come from folders and studies: a $ in them is no formula, and XML holds no escape sequence
        text.set_parse_math(False)
        text.set_text(printable(text.get_text()))
    look = rc_context({"svg.hashsalt": "joulefront", "svg.fonttype": "none"})
    with look, whole_file(target) as unfinished, warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", "Glyph ")
        figure.savefig(unfinished, format=kind, metadata={"Date": None} if kind == "svg" else None)
    lacking = len({str(one.message) for one in said if "missing from font" in str(one.message)})
    if kind == "png" and lacking:
        warnings.warn(
            f"{target}: matplotlib's font lacks {lacking} of its letters, drawn as boxes; write .svg, which has them", stacklevel=2
        )
    return target


def set_titles(figure: Figure, name: str, title: str, caption: str, *, size: float) -> None:
    """Write the bold name of a run with the title above a figure, in two lines where they need them, and a caption below it."""
    from matplotlib.text import Annotation

    room = 72.0 * figure.get_figwidth() / size  # in letters as wide as they are high, which few are
    beside, name = len(name) + 0.6 * len(title) <= room, fill(printable(name), int(0.85 * room))
    bold = figure.suptitle(name if beside else f"{name}\n", x=0.01, ha="left", fontsize=size, fontweight="bold", color=INK)
    title = f"  {title}" if beside else title
    figure.add_artist(Annotation(title, (float(beside), 0), xycoords=bold, ha="left", va="bottom", fontsize=size, color=INK))
    caption = "\n".join(fill(line, int(14.5 * figure.get_figwidth())) for line in caption.splitlines())
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=MUTED)


def style_axes(axes: Axes, *, label_size: float) -> None:
    """Draw a pale grid behind the points, and only the left and the lower spine."""
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=label_size, which="both", length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(EDGE)


def plain_ticks(axis: Any, limits: tuple[float, float]) -> None:
    """Write 0.1, 1, 10 instead of powers, and 2 and 5 between them where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = limits[1] / limits[0]
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if decades < 300 else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}" if value >= 1e-4 else f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def side_by_side(count: int, *, width: float) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure of so many panels beside one another, each so many inches wide, with a common vertical axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width * count, width), 4.4), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(count, 1), sharey=True, squeeze=False)[0]
    for axis in axes:
        style_axes(axis, label_size=8.5)
    return figure, axes
