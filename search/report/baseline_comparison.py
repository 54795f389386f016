"""Families against a baseline family: the energy of each setting for the same quality, with an uncertainty from repeats, and a picture."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import TYPE_CHECKING

from ..energy.intervals import student_t
from ..formatting import Unit, grid, joules_text, unit_for
from ..records.run_folder import Run
from ..records.trial import Trial
from .energy_relations import family_of
from .matplotlib_front import COLORS, MARKERS, plain_ticks, save_figure, set_titles, side_by_side
from .view import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The family that others are compared with, where a run has it.
BASELINE = "plain"
#: Parameters that do not belong to the setting of a training.
NO_SETTING = ("family", "repeat")
#: Results of tactics that get a column of their own: name in ``Trial.extra`` -> title.
COLUMNS = {"activation_nonzero_share": "non-zero", "modelled_asic_energy_ratio": "modelled ASIC"}


@dataclass(frozen=True)
class Group:
    """The repeats of one setting at one number of epochs, which early stopping may not have reached.

    Quality and validation energy (None when unknown) are means, the training energy ``joules`` is a geometric mean.
    """

    family: str
    setting: str
    epochs: int
    trials: tuple[Trial, ...]
    quality: float
    joules: float
    evaluation_joules: float | None


@dataclass(frozen=True)
class BaselineComparison:
    """One setting, what distinguishes it from the others of its family, against the baseline.

    Attributes:
        groups: One for each number of epochs, ascending.
        equal_epochs: Energy over the baseline's at the same number of epochs, geometric mean; None where nothing can be compared.
        equal_quality: Energy over what the baseline needs for the same quality, geometric mean over those numbers of epochs whose
            quality lies within the baseline's; None where none does. They are ``compared`` numbers.
        u_log: Standard uncertainty of the logarithm of ``equal_quality``, from the spread of the repeats, which is known with so many
            degrees of ``freedom``; None where nothing was repeated.
        columns: Means of ``COLUMNS`` at the largest number of epochs.
        best: The group of the best quality, of an error the least.
    """

    family: str
    setting: str
    groups: tuple[Group, ...]
    equal_epochs: float | None
    equal_quality: float | None
    u_log: float | None
    compared: int
    columns: dict[str, float]
    best: Group
    freedom: int = 0

    @property
    def factor(self) -> float | None:
        """By which factor ``equal_quality`` may be off either way, with 95 %: few repeats know the spread badly. None without any."""
        return None if self.u_log is None else exp(student_t(0.975, self.freedom) * self.u_log)

    @property
    def verdict(self) -> str:
        """Whether it saves energy at equal quality, judged by the 95 % interval."""
        if self.equal_quality is None or self.factor is None:
            return "not comparable"
        if 1 / self.factor <= self.equal_quality <= self.factor:
            return "no difference shown"
        return "saves" if self.equal_quality < 1 else "costs more"


def compare_to_baseline(run: Run) -> tuple[BaselineComparison, ...]:
    """Compare every setting of every family with the baseline, the baseline itself included.

    Between the baseline's numbers of epochs the logarithm of its energy is taken as linear in the quality; beyond them nothing is compared.
    A run with repeats (``spaces.union.Repeated``) is best; without them there is no uncertainty.

    Raises:
        ValueError: If the run has no measured trial of that family.
    """
    groups = groups_of(run)
    base = sorted((group for group in groups if group.family == BASELINE), key=lambda group: group.epochs)
    if not base:
        raise ValueError(f"the run has no measured trial of a family named {BASELINE!r} to compare the others with")
    sign = 1.0 if run.directions[0] == "maximize" else -1.0
    spreads = _spreads(groups)
    freedom = sum(len(group.trials) - 1 for group in groups)
    by_setting: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        by_setting[group.family, group.setting].append(group)
    found = []
    for (family, setting), own in by_setting.items():
        own.sort(key=lambda group: group.epochs)
        same = [log(group.joules / other.joules) for group in own for other in base if other.epochs == group.epochs]
        placed = [(group, line) for group in own if family != BASELINE and (line := _needed(base, sign * group.quality, sign))]
        logs = [log(group.joules) - needed for group, (needed, _, _) in placed]
        last = own[-1].trials
        columns = {name: fmean(trial.extra[name] for trial in last) for name in COLUMNS if all(name in trial.extra for trial in last)}
        mean = exp(fmean(logs)) if logs else None
        u_log = sqrt(_variance_of_sum(placed, base, *spreads)) / len(logs) if logs and spreads else None
        best, equal = max(own, key=lambda group: sign * group.quality), exp(fmean(same)) if same else None
        found.append(BaselineComparison(family, setting, tuple(own), equal, mean, u_log, len(logs), columns, best, freedom))
    return tuple(sorted(found, key=lambda one: (one.family != BASELINE, one.family, one.setting)))


def groups_of(run: Run) -> tuple[Group, ...]:
    """Gather the repeats of each setting at each requested number of epochs."""
    found: dict[tuple[str, str, int], list[Trial]] = defaultdict(list)
    for trial in run.trials:
        if trial.state == "complete" and trial.values and trial.train_joules and "copy_of" not in trial.extra:
            found[family_of(trial), setting_of(trial), trial.horizon].append(trial)
    return tuple(_group(*key, trials) for key, trials in sorted(found.items()))


def setting_of(trial: Trial) -> str:
    """Describe what distinguishes a trial from others of its family, without the number of its repeat.

    >>> setting_of(Trial(0, "complete", {"family": "freeze", "tactic.freeze.share": 0.34, "repeat": 2}, 1))
    'share 0.34'
    """
    short = {name.rsplit(".", 1)[-1]: value for name, value in trial.params.items() if name not in NO_SETTING}
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}".replace(" null", " none") for name, value in short.items()
    )


def _group(family: str, setting: str, epochs: int, trials: Sequence[Trial]) -> Group:
    known = [trial.energy.evaluation_joules for trial in trials if trial.energy.evaluation_joules is not None]
    return Group(
        family,
        setting,
        epochs,
        tuple(trials),
        fmean(trial.values[0] for trial in trials),
        exp(fmean(log(trial.train_joules or 1.0) for trial in trials)),
        fmean(known) if len(known) == len(trials) else None,
    )


#: Log-joules that the baseline needs for a quality, their slope over the quality, and the shares of its groups in them, by their index.
_Line = tuple[float, float, dict[int, float]]


def _needed(base: Sequence[Group], quality: float, sign: float) -> _Line | None:
    for index, (before, after) in enumerate(pairwise(base)):
        low, high = sign * before.quality, sign * after.quality
        if low < high and low <= quality <= high:
            slope, share = (log(after.joules) - log(before.joules)) / (high - low), (quality - low) / (high - low)
            return log(before.joules) + slope * (quality - low), slope, {index: 1 - share, index + 1: share}
    return None


def _variance_of_sum(placed: Sequence[tuple[Group, _Line]], base: Sequence[Group], quality_sd: float, log_sd: float) -> float:
    """Variance of the sum of the logarithms: a group of the baseline moves all those together whose lines end at it."""
    found = sum(((slope * quality_sd) ** 2 + log_sd**2) / len(group.trials) for group, (_, slope, _) in placed)
    for index, group in enumerate(base):
        parts = [(shares.get(index, 0.0), slope) for _, (_, slope, shares) in placed]
        moved = (quality_sd * sum(share * slope for share, slope in parts)) ** 2 + (log_sd * sum(share for share, _ in parts)) ** 2
        found += moved / len(group.trials)
    return found


def _spreads(groups: Iterable[Group]) -> tuple[float, float] | None:
    """Standard deviations of the quality and of the logarithm of the energy within groups, pooled; None where nothing was repeated."""
    several = [group.trials for group in groups if len(group.trials) > 1]
    freedom = sum(len(trials) - 1 for trials in several)
    if not freedom:
        return None
    qualities = [variance(trial.values[0] for trial in trials) * (len(trials) - 1) for trials in several]
    energies = [variance(log(trial.train_joules or 1.0) for trial in trials) * (len(trials) - 1) for trials in several]
    return sqrt(sum(qualities) / freedom), sqrt(sum(energies) / freedom)


def to_text(found: Sequence[BaselineComparison], quality: str = "accuracy") -> str:
    """Render the comparisons as a table, one row a setting."""
    cells = cells_of(found, quality)
    return grid(cells, [2 <= place <= 6 or place > 8 for place in range(len(cells[0]))])


def cells_of(found: Sequence[BaselineComparison], quality: str = "accuracy", decimals: int = 4) -> list[list[str]]:
    """The head and one row a setting, as text."""
    used = [name for name in COLUMNS if any(name in one.columns for one in found)]
    head = ["family", "setting", "n", f"best {quality}", "energy", "validation", "equal epochs", "equal quality", ""]
    head += [COLUMNS[name] for name in used]
    rows = [head]
    for one in found:
        best = one.best
        n = sum(len(group.trials) for group in one.groups)
        paid = "-" if best.evaluation_joules is None else f"+{joules_text(best.evaluation_joules)}"
        same = "-" if one.equal_epochs is None else f"x {times_text(one.equal_epochs)}"
        columns = [f"{one.columns[name]:.3f}" if name in one.columns else "-" for name in used]
        rows.append(
            [one.family, one.setting, str(n), f"{best.quality:.{decimals}f}", joules_text(best.joules), paid, same, *_judged(one), *columns]
        )
    return rows


def _judged(one: BaselineComparison) -> tuple[str, str]:
    if one.family == BASELINE:
        return "x 1", "the baseline"
    if one.equal_quality is None:
        return "-", one.verdict
    if one.factor is None:
        return f"x {times_text(one.equal_quality)} (no repeats)", one.verdict
    return interval_text(one.equal_quality, one.factor), one.verdict


def interval_text(times: float, factor: float) -> str:
    """How many times the energy, with its 95 % interval."""
    return f"x {times_text(times)} ({times_text(times / factor)} to {times_text(times * factor)})"


def times_text(times: float) -> str:
    """How many times the energy: two decimals, two digits below a tenth."""
    return f"{times:.2f}" if times >= 0.1 else f"{times:.2g}"


def spread_text(found: Sequence[BaselineComparison]) -> str:
    """Explain the intervals and the columns."""
    known = "No setting was repeated, so how far chance alone moves these figures is unknown (joulefront.spaces.union.Repeated)."
    if (spreads := _spreads([group for one in found for group in one.groups])) is not None:
        deviations = f"{spreads[0]:.4f} in quality and {100 * spreads[1]:.1f} % in energy"
        known = f"In brackets the 95 % interval; repeats of one setting have a standard deviation of {deviations}."
    return (
        f"{known} Equal epochs, equal quality: training energy over that of plain training, without validation. "
        "Non-zero: share of the activations; modelled ASIC: inference energy on hardware that skips zeros over that on hardware that does "
        "not, a model and not a measurement."
    )


def draw_comparison(run: Run, path: str | Path) -> tuple[str, Path]:
    """Draw the comparison to a file that ends in .png or .svg; return the table behind the picture, and where it lies.

    Raises:
        ValueError: If the run has nothing to compare with, or the file has another ending.
    """
    found = compare_to_baseline(run)
    return f"{to_text(found, run.objectives[0])}\n\n{spread_text(found)}", save_figure(baseline_figure(run, found), path)


def baseline_figure(run: Run, found: Sequence[BaselineComparison]) -> Figure:
    """Draw quality over energy for every family of ``compare_to_baseline``, one panel each, over the line of the baseline.

    A point is the mean of the repeats of one setting at one number of epochs; its bar is the standard deviation of a single training.
    """
    base = [group for one in found if one.family == BASELINE for group in one.groups]
    families = list(dict.fromkeys(one.family for one in found if one.family != BASELINE))
    unit = unit_for(group.joules for one in found for group in one.groups)
    figure, axes = side_by_side(len(families), width=3.1)
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


def _line(axis: Axes, groups: Sequence[Group], unit: Unit, color: str, marker: str, label: str) -> None:
    x = [unit.of(group.joules) for group in groups]
    y = [group.quality for group in groups]
    # No bar for one training: its deviation is unknown.
    spread = [stdev(one.values[0] for one in group.trials) if len(group.trials) > 1 else nan for group in groups]
    axis.errorbar(x, y, yerr=spread, color=color, marker=marker, markersize=5, linewidth=1.3, elinewidth=0.9, capsize=2, label=label)


def _legend_text(one: BaselineComparison) -> str:
    name = one.setting or one.family
    if one.equal_quality is None or one.factor is None:
        return name
    return f"{name}\n{interval_text(one.equal_quality, one.factor)}"
