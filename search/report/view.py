"""Where everything in the picture of a front goes: points, limits of the axes, ticks, labels, and the means of repeated members.

The still and the interactive picture both draw a `View`, so they show the same front in the same places. A quality that has errors is
drawn on a logarithmic axis of errors: equal steps are equal ratios of the error, see `joulefront.search.pareto.stretch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from statistics import median_high, median_low
from typing import Literal

from ..energy.intervals import Spread
from ..formatting import Unit, digits, percent, unit_for
from ..front import Front
from ..pareto import FRACTIONS, stretch
from ..records.trial import Trial
from ..study import OBJECTIVES
from .facts import TYPICAL_MEDIAN, how_energy_is_known, scale_share

#: Colours of the text, of captions, of the other trials, of the front, and of the recommended trial.
INK, MUTED, PALE, STRONG, PICK = "#1b2a33", "#5f6f79", "#76878f", "#0b6e69", "#b83a06"
#: Colours of the grid and of the axes.
GRID, EDGE = "#e7edf0", "#c5d0d6"

#: Errors that are worth a tick, round ones first; a finer row is only used while there are fewer than ``ENOUGH_TICKS``.
ERRORS = (
    (1.0, 0.1, 0.01, 0.001, 0.5, 0.05, 0.005, 0.2, 0.02, 0.002, 10.0, 100.0, 2.0, 5.0, 20.0, 50.0),
    (0.8, 0.3, 0.03, 0.003, 0.7, 0.4, 0.04, 0.004, 0.9, 0.6, 0.07, 0.15),
    tuple(n / 100 for n in range(1, 100)),
    tuple(n / 200 for n in range(1, 200)),
    tuple(n / 1000 for n in range(1000)),
)
ENOUGH_TICKS = 5
#: Smallest distance between two ticks, as a share of the axis.
TICK_GAP = 0.085

#: The energy axis shows the ends of intervals up to this ratio beyond the points: those of two repeats would press the front together.
FURTHEST = 3.0

#: Name of the crosses in the legends.
REPEATS_LABEL = "repeats: mean and 95 % interval"


@dataclass(frozen=True)
class View:
    """A front ready to be drawn.

    Attributes:
        others: Measured trials that are not on the front.
        line: Members that no other member beats in quality and training energy alone; with two objectives that is every member.
        pick: The recommended trial, which is marked, or None when the front is empty.
        unit: Unit of the energy axis and its limits.
        y_limits: Limits of the quality axis, on the scale of ``y``.
        carbon: Unit of the second axis, and how many of it are emitted for one ``unit``, PUE included; None without an intensity.
    """

    front: Front
    others: tuple[Trial, ...]
    line: tuple[Trial, ...]
    pick: Trial | None
    unit: Unit
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    carbon: tuple[Unit, float] | None

    @classmethod
    def of(cls, front: Front) -> View:
        """Prepare a front."""
        members = front.members
        on_front = {trial.number for trial in members}
        measured = [t for t in front.trials if front.why_not(t) in (None, "not trained to the last rung")]
        joules = [front.joules(trial) for trial in measured] or [360.0, 36000.0]
        unit = unit_for(joules)
        ends = [*joules, *(end for trial in members for end in _energy_ends(front, trial))]
        least, most = max(min(ends), min(joules) / FURTHEST), min(max(ends), FURTHEST * max(joules))
        low, high = log10(unit.of(least)), log10(unit.of(most))
        margin = max(0.06 * (high - low), 0.08)
        x_limits, carbon = (10 ** (low - margin), 10 ** (high + margin)), None
        if front.run is not None and (grams := front.run.grams_co2e(unit.size)):
            mass = unit_for([grams * x_limits[1]], "gCO2e")
            carbon = mass, mass.of(grams)
        return cls(
            front=front,
            others=tuple(trial for trial in measured if trial.number not in on_front),
            line=tuple(t for t in members if not any(_beats(front, other, t) for other in members)),
            pick=front.sensible() if members else None,
            unit=unit,
            x_limits=x_limits,
            y_limits=_quality_limits(front, [stretch(front.objectives[0], trial.values[0]) for trial in measured]),
            carbon=carbon,
        )

    # -- points ----------------------------------------------------------------------------------------------------------------------

    def x(self, trial: Trial) -> float:
        """Place of a trial on the energy axis, in ``unit``."""
        return self.unit.of(self.front.joules(trial))

    def y(self, trial: Trial) -> float:
        """Place of a trial on the quality axis."""
        return self.y_of(trial.values[0])

    def y_of(self, quality: float) -> float:
        """Place of a quality on its axis: stretched by the ratio of errors where it has any, else the quality itself."""
        return stretch(self.front.objectives[0], quality)

    @property
    def inside(self) -> tuple[Trial, ...]:
        """Those of ``others`` that the quality axis shows."""
        return tuple(trial for trial in self.others if self._is_shown(trial))

    @property
    def outside(self) -> tuple[Trial, ...]:
        """Those of ``others`` that are worse than the quality axis shows; the pictures mark them at its worse end."""
        return tuple(trial for trial in self.others if not self._is_shown(trial))

    def _is_shown(self, trial: Trial) -> bool:
        low, high = self.y_limits
        return low <= self.y(trial) <= high

    def spread(self, trial: Trial) -> tuple[float, float]:
        """Two standard uncertainties of the energy to the left and to the right, in ``unit``; never down to zero."""
        span = self.unit.of(_span(self.front, trial))
        return min(span, 0.95 * self.x(trial)), span

    @property
    def bottom(self) -> float:
        """The worse end of the quality axis."""
        return self.y_limits[0] if _more_is_better(self.front) else self.y_limits[1]

    @property
    def steps(self) -> tuple[list[float], list[float]]:
        """Corners of the dominated area from the cheapest member to the right edge, to be joined by steps."""
        if not self.line:
            return [], []
        places = [(self.x(trial), self.y(trial)) for trial in self.line]
        return [*(x for x, _ in places), self.x_limits[1]], [*(y for _, y in places), places[-1][1]]

    # -- words -----------------------------------------------------------------------------------------------------------------------

    @property
    def named(self) -> list[tuple[str, Trial]]:
        """The recommended trial, the best and the default model with the words that name them; one label a trial."""
        if self.pick is None:
            return []
        words = {self.pick.number: "sensible"}
        for word, trial in (("best", self.front.best()), ("default", self.front.baseline)):
            if trial is not None and trial in self.front.members:
                words[trial.number] = f"{words[trial.number]}, {word}" if trial.number in words else word
        members = {trial.number: trial for trial in self.front}
        return [(word, members[number]) for number, word in words.items()]

    def label(self, trial: Trial) -> str:
        """Quality and energy of a trial, as the picture names them."""
        return f"{self.front.quality_text(trial.values[0])} at {digits(self.x(trial))} {self.unit.name}"

    def anchor(self, trial: Trial, text: str) -> tuple[Literal["left", "right"], Literal["top", "bottom"]]:
        """Which corner of a label's box touches its trial, e.g. ``("right", "bottom")`` for a label above and to the left.

        A label goes to the better and cheaper side of its trial, where no other point can be. Where the quality axis leaves no room for it,
        at the usual size of the picture, it goes to the opposite side, which the front does not enter.
        """
        low, high = self.x_limits
        fits = log10(self.x(trial) / low) / log10(high / low) >= 0.0108 * len(text)
        return "right" if fits else "left", "bottom" if fits == _more_is_better(self.front) else "top"

    @property
    def quality_title(self) -> str:
        """Name of the quality."""
        name = self.front.objectives[0]
        return OBJECTIVES[name][2] if name in OBJECTIVES else name

    @property
    def axis_title(self) -> str:
        """Title of the quality axis with its scale."""
        return f"{self.quality_title} (log-error scale)" if is_stretched(self.front) else self.quality_title

    @property
    def subtitle(self) -> str:
        """How many trials, and how their energy is known."""
        trials = self.front.trials
        failed = sum(trial.state == "failed" for trial in trials)
        text = f"{len(self.front)} of {len(trials)} trials on the front" + (f", {failed} failed" if failed else "")
        if (default := self.front.baseline) is not None and self.front.why_not(default) is None:
            text += f" · default model {self.label(default)}"
        how, scale = how_energy_is_known(self.front), scale_share(self.front)
        known = "" if scale is None else f", common scale ±{percent(scale)} %"
        return f"{text} · energy {how}{known}" if how else text


# -- ticks of the quality axis ---------------------------------------------------------------------------------------------------------


def is_stretched(front: Front) -> bool:
    """Whether the quality of this front is drawn by the ratio of errors."""
    return front.objectives[0] in (*FRACTIONS, "error")


def tick_candidates(front: Front) -> list[list[tuple[float, str]]]:
    """Return every possible tick as rows of ``(place, label)``, the most wanted row first; empty when the axis is not stretched."""
    if not is_stretched(front):
        return []
    name = front.objectives[0]
    rows = []
    for errors in ERRORS:
        values = [error if name == "error" else 1.0 - error for error in errors]
        rows.append([(stretch(name, value), f"{value:.6g}") for value in values])
    return rows


def choose_ticks(rows: list[list[tuple[float, str]]], low: float, high: float) -> list[tuple[float, str]]:
    """Take the most wanted ticks between two limits, none closer than ``TICK_GAP`` to another."""
    kept: list[tuple[float, str]] = []
    for row in rows:
        if len(kept) >= ENOUGH_TICKS:
            break
        for place, label in row:
            if low <= place <= high and all(abs(place - other) >= TICK_GAP * (high - low) for other, _ in kept):
                kept.append((place, label))
    return sorted(kept)


# -- repeated members ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cross:
    """The mean of a member's repeats on the axes of a view, with the distances to the ends of its 95 % intervals.

    ``left`` never reaches down to zero: the axis of the energy, in the view's unit, is logarithmic.
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
    found = []
    for trial in view.front:
        quality, energy = _repeated(view.front, trial)
        if quality is None or energy is None or quality.sd is None or energy.sd is None:
            continue
        x, y = view.unit.of(energy.mean), view.y_of(quality.mean)
        low_x, high_x = view.unit.of(energy.low or 0.0), view.unit.of(energy.high or 0.0)
        low_y, high_y = sorted((view.y_of(quality.low or 0.0), view.y_of(quality.high or 0.0)))  # less of an error is further up
        found.append(Cross(trial.number, quality.n, x, y, min(x - low_x, 0.95 * x), high_x - x, y - low_y, high_y - y))
    return tuple(found)


def _span(front: Front, trial: Trial) -> float:
    """Two standard uncertainties of a training's energy in joules.

    Repeated trainings spread by more than the meter errs: by what the trial's own repeats say, else by what is typical.
    """
    _, energy = _repeated(front, trial)
    if energy is not None and energy.sd is not None:
        return 2.0 * energy.sd
    least = 0.0 if trial.train_u_joules is None else TYPICAL_MEDIAN * front.joules(trial)
    return 2.0 * max(trial.train_u_joules or 0.0, least)


def _repeated(front: Front, trial: Trial) -> tuple[Spread | None, Spread | None]:
    """Quality and energy of a member's repeats."""
    member = None if front.repeated is None else front.repeated.summary_of(trial.number)
    return (None, None) if member is None else (member.quality, member.energy)


def _energy_ends(front: Front, trial: Trial) -> list[float]:
    """Joules that the intervals at a member reach to, that of its mean in repeats, too."""
    joules, span, (_, again) = front.joules(trial), _span(front, trial), _repeated(front, trial)
    return [joules - span, joules + span, *([] if again is None else [end for end in (again.low, again.high) if end is not None])]


def _beats(front: Front, one: Trial, two: Trial) -> bool:
    better = (front.gain(one), -front.joules(one)), (front.gain(two), -front.joules(two))
    return better[0][0] >= better[1][0] and better[0][1] >= better[1][1] and better[0] != better[1]


def _more_is_better(front: Front) -> bool:
    """Whether better is up on the quality axis."""
    return is_stretched(front) or front.directions[0] == "maximize"


def _quality_limits(front: Front, values: list[float]) -> tuple[float, float]:
    """Show the front and its surroundings: models at chance level must not press the front flat."""
    if not values:
        return 0.0, 1.0
    members = [stretch(front.objectives[0], trial.values[0]) for trial in front] or values
    low, high = min(members), max(members)
    if high == low:  # a single level is no scale: show how the better half of the others did
        low, high = (median_low(values), high) if _more_is_better(front) else (low, median_high(values))
    # One level alone on the scale of errors has ticks only where the axis is long enough.
    height = max(high - low, 0.5 if is_stretched(front) and high == low else 0.02 * max(abs(high), abs(low)), 1e-6)
    again = [end for one, _ in (_repeated(front, trial) for trial in front) if one is not None for end in (one.low, one.high)]
    ends = [min(max(stretch(front.objectives[0], end), low - height), high + height) for end in again if end is not None]
    # Models that were stopped early may be better than all members where these must be complete.
    if _more_is_better(front):
        return min([max(min(values), low - 0.45 * height), *ends]) - 0.07 * height, max([*values, *ends]) + 0.12 * height
    return min([*values, *ends]) - 0.12 * height, max([min(max(values), high + 0.45 * height), *ends]) + 0.07 * height
