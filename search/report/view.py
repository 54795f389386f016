"""What the pictures of a front have in common: the points, the limits of the axes, the words.

Where the ticks of a quality axis go that is stretched by the ratio of errors.

Crosses in the pictures of a front: where the repeats of its finalists lie on the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log10
from statistics import median_high, median_low
from typing import TYPE_CHECKING, Any

from ..energy.intervals import Spread
from ..formatting import Unit, unit_for
from ..front import FRACTIONS, Front, stretch
from ..records.run_folder import Run
from ..records.trial import Trial
from ..study import OBJECTIVES
from .table import scale_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Errors that are worth a tick, round ones first; a finer row is only used while there are fewer than ``ENOUGH`` ticks.
ERRORS = (
    (1.0, 0.1, 0.01, 0.001, 0.5, 0.05, 0.005, 0.2, 0.02, 0.002, 10.0, 100.0, 2.0, 5.0, 20.0, 50.0),
    (0.8, 0.3, 0.03, 0.003, 0.7, 0.4, 0.04, 0.004, 0.9, 0.6, 0.07, 0.15),
    tuple(n / 100 for n in range(1, 100)),
    tuple(n / 200 for n in range(1, 200)),
    tuple(n / 1000 for n in range(1, 1000)),
)
ENOUGH = 5

#: Least distance between two ticks, as a share of the axis.
GAP = 0.085


def is_stretched(front: Front) -> bool:
    """Whether the quality of this front is drawn by the ratio of errors."""
    return front.objectives[0] in (*FRACTIONS, "error")


def candidates(front: Front) -> list[list[tuple[float, str]]]:
    """Every tick there could be as rows of ``(place, label)``, the most wanted row first; empty when the axis is not stretched."""
    if not is_stretched(front):
        return []
    name = front.objectives[0]
    rows = []
    for errors in ERRORS:
        values = [error if name == "error" else 1.0 - error for error in errors]
        rows.append([(stretch(name, value), f"{value:.6g}") for value in values])
    return rows


def choose(rows: list[list[tuple[float, str]]], low: float, high: float) -> list[tuple[float, str]]:
    """Take the wanted ticks between two limits that keep their distance from those already taken."""
    kept: list[tuple[float, str]] = []
    for row in rows:
        if len(kept) >= ENOUGH:
            break
        for place, label in row:
            if low <= place <= high and all(abs(place - other) >= GAP * (high - low) for other, _ in kept):
                kept.append((place, label))
    return sorted(kept)


INK, MUTED, PALE, STRONG, KNEE = "#1b2a33", "#5f6f79", "#a9bac4", "#0b6e69", "#d9480f"


@dataclass(frozen=True)
class View:
    """A front ready to be drawn.

    Attributes:
        front: The front.
        others: Measured trials that are not on the front.
        line: Members that no other member beats in quality and training energy alone; with two objectives that is every member.
        knee: The marked trial, or None when the front is empty.
        unit: Unit of the energy axis: Wh, or a part or multiple of it.
        x_limits: Limits of the energy axis in ``unit``.
        y_limits: Limits of the quality axis, where ``y`` places the trials.
        below: Measured trials that are worse than the quality axis shows.
        grams_per_wh: Carbon of a watt-hour at the place of the run, PUE included; None without an intensity.
    """

    front: Front
    others: tuple[Trial, ...]
    line: tuple[Trial, ...]
    knee: Trial | None
    unit: Unit
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    below: int
    grams_per_wh: float | None

    @classmethod
    def of(cls, source: Run | Front) -> View:
        """Prepare a run or a front."""
        front = source if isinstance(source, Front) else Front.of(source)
        members = front.members
        on_front = {trial.number for trial in members}
        measured = [t for t in front.trials if front.why_not(t) in (None, "not trained to the last rung")]
        others = tuple(trial for trial in measured if trial.number not in on_front)
        wh = [front.joules(trial) / 3600.0 for trial in measured] or [0.1, 10.0]
        unit = unit_for(max(wh))
        energies = [value / unit.size for value in wh]
        low, high = log10(min(energies)), log10(max(energies))
        margin = max(0.06 * (high - low), 0.08)
        y_limits = _quality_limits(front, [_place(front, trial) for trial in measured])
        below = sum(not y_limits[0] <= _place(front, trial) <= y_limits[1] for trial in others)
        facts = front.run.facts if front.run else {}
        line = Front(members, ("quality", "joules"), (front.directions[0], "minimize"))
        return cls(
            front=front,
            others=others,
            line=tuple(t for t in members if not any(_beats(front, other, t) for other in line.trials)),
            knee=front.knee() if members else None,
            unit=unit,
            x_limits=(10 ** (low - margin), 10 ** (high + margin)),
            y_limits=y_limits,
            below=below,
            grams_per_wh=grams_per_wh(facts),
        )

    def x(self, trial: Trial) -> float:
        """Place of a trial on the energy axis, in ``unit``."""
        return self.front.joules(trial) / 3600.0 / self.unit.size

    def y(self, trial: Trial) -> float:
        """Place of a trial on the quality axis: by the ratio of errors where the quality has any, else the quality itself."""
        return _place(self.front, trial)

    def share(self, trial: Trial) -> float:
        """Where a trial stands on the energy axis, 0 left to 1 right."""
        low, high = self.x_limits
        return log10(self.x(trial) / low) / log10(high / low)

    @property
    def named(self) -> list[tuple[str, Trial]]:
        """The knee and the best with the words that name them; one label where both are one trial."""
        if self.knee is None:
            return []
        best = self.front.best()
        return [("knee, best", best)] if self.knee is best else [("knee", self.knee), ("best", best)]

    def fits_on_the_left(self, trial: Trial, text: str) -> bool:
        """Whether a label has room between the quality axis and its trial, at the usual size of the picture."""
        return self.share(trial) >= 0.0095 * len(text)

    def spread(self, trial: Trial) -> tuple[float, float]:
        """Two standard uncertainties of the energy to the left and to the right, in ``unit``; never down to zero."""
        span = 2.0 * (trial.train_u_joules or 0.0) / 3600.0 / self.unit.size
        return min(span, 0.95 * self.x(trial)), span

    @property
    def bottom(self) -> float:
        """The worse end of the quality axis."""
        return self.y_limits[0] if _upwards(self.front) else self.y_limits[1]

    @property
    def steps(self) -> tuple[list[float], list[float]]:
        """Corners of the dominated area from the cheapest member to the right edge, to be joined by steps."""
        if not self.line:
            return [], []
        places = [(self.x(trial), self.y(trial)) for trial in self.line]
        return [*(x for x, _ in places), self.x_limits[1]], [*(y for _, y in places), places[-1][1]]

    @property
    def axis_title(self) -> str:
        """Title of the quality axis with its scale."""
        return f"{self.quality_title} (log-error scale)" if is_stretched(self.front) else self.quality_title

    def label(self, trial: Trial) -> str:
        """Quality and energy of a trial, as the picture names them."""
        return f"{trial.values[0]:.4g} at {self.x(trial):.3g} {self.unit.name}"

    @property
    def quality_title(self) -> str:
        """Name of the quality."""
        name = self.front.objectives[0]
        return OBJECTIVES[name][2] if name in OBJECTIVES else name

    @property
    def title(self) -> str:
        """What the picture shows."""
        return f"{self.front.name}: {self.quality_title} against training energy"

    @property
    def subtitle(self) -> str:
        """How many trials, and how their energy is known."""
        trials = self.front.trials
        failed = sum(trial.state == "failed" for trial in trials)
        text = f"{len(self.front)} of {len(trials)} trials on the front" + (f", {failed} failed" if failed else "")
        how = how_energy_is_known(self.front)
        scale = scale_share(self.front)
        known = "" if scale is None else f", scale ±{100 * scale:.2g} % for all alike"
        return f"{text} · energy {how}{known}" if how else text


def grams_per_wh(facts: Mapping[str, Any]) -> float | None:
    """Carbon of one watt-hour at the place of a run, PUE included; None without an intensity."""
    place = facts.get("intensity")
    return None if not place else float(place["grams_per_kwh"]) * float(facts.get("pue") or 1.0) / 1000.0


def how_energy_is_known(front: Front) -> str:
    """Say per kind of component how the energy of the trials is known, e.g. ``measured (gpu by nvml), estimated (cpu by cpu_time)``."""
    found: dict[str, set[str]] = {}
    for trial in front.trials:
        if front.why_not(trial) is None:
            for name, part in trial.components.items():
                if part.quality != "absent":
                    found.setdefault(part.quality, set()).add(f"{name.split(':')[0]} by {part.source}")
    if not found:
        return " and ".join(sorted({trial.energy_quality for trial in front}))
    order = [kind for kind in ("measured", "mixed", "estimated") if kind in found]
    return ", ".join(f"{kind} ({', '.join(sorted(found[kind]))})" for kind in order)


def short_component(name: str) -> str:
    """Name of a component for people: a GPU's UUID is cut.

    >>> short_component("gpu:GPU-1a2b3c4d-5e6f-0000")
    'gpu 1a2b3c4d'
    """
    kind, _, rest = name.partition(":")
    return f"{kind} {rest.removeprefix('GPU-')[:8]}".strip()


def _beats(front: Front, one: Trial, two: Trial) -> bool:
    better = (front.gain(one), -front.joules(one)), (front.gain(two), -front.joules(two))
    return better[0][0] >= better[1][0] and better[0][1] >= better[1][1] and better[0] != better[1]


def _upwards(front: Front) -> bool:
    return is_stretched(front) or front.directions[0] == "maximize"


def _place(front: Front, trial: Trial) -> float:
    return front.stretched(trial) if is_stretched(front) else trial.values[0]


def _quality_limits(front: Front, values: list[float]) -> tuple[float, float]:
    """Show the front and its surroundings: models at chance level must not press the front flat."""
    if not values:
        return 0.0, 1.0
    members = [_place(front, trial) for trial in front] or values
    low, high = min(members), max(members)
    if high == low:  # a single level is no scale: show how the better half of the others did
        low, high = (median_low(values), high) if _upwards(front) else (low, median_high(values))
    height = max(high - low, 0.02 * max(abs(high), abs(low)), 1e-6)
    if _upwards(front):
        return max(min(values), low - 0.45 * height) - 0.07 * height, high + 0.12 * height
    return low - 0.12 * height, min(max(values), high + 0.45 * height) + 0.07 * height


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
