"""What predicts energy: size, operations and utilisation, per family and pooled, with a picture; which parameters do, and the quality.

Source:
    Douwes and Serizel 2024 (arXiv 2409.05080), who ask it for audio models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log, log10
from pathlib import Path
from random import Random
from statistics import linear_regression, median
from typing import TYPE_CHECKING, Any, Literal

from ..energy.intervals import spearman
from ..formatting import digits, grid, unit_for
from ..front import Front
from ..records.run_folder import Run
from ..records.trial import Trial
from .matplotlib_front import COLORS, MARKERS, save_figure, set_titles, side_by_side
from .view import INK

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

POOLED = "all families"

#: Candidate predictors of the energy: name -> value for a trial, or None when unknown.
PREDICTORS: dict[str, Callable[[Trial], float | None]] = {
    "FLOPs of a forward pass": lambda trial: None if trial.flops is None else float(trial.flops),
    "parameters": lambda trial: None if trial.parameters is None else float(trial.parameters),
    "training seconds per epoch": lambda trial: (
        trial.energy.train_seconds / trial.epochs if trial.energy.train_seconds and trial.epochs else None
    ),
    "CPU utilisation": lambda trial: cpu_utilisation(trial),
    "GPU utilisation": lambda trial: trial.energy.gpu_utilisation,
}

#: Operations of a training step over those of its forward pass: the backward pass computes two gradients of the same size.
#: Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1; nominal, tactics that leave out work do less.
TRAINING_OVER_FORWARD = 3


@dataclass(frozen=True)
class Relation:
    """Rank correlation of one predictor with the training energy of an epoch.

    Of ``n`` configurations each is one point, however many epochs it was trained for. ``rho`` is Spearman's rank correlation and
    ``p_value`` the two-sided p-value of none; None with fewer than 3 points or no spread.
    """

    predictor: str
    family: str
    n: int
    rho: float | None
    p_value: float | None


@dataclass(frozen=True)
class OperationCost:
    """Median, smallest and largest energy of 10^9 floating-point operations of training in one family.

    ``exponent`` is b of energy ~ FLOPs^b by least squares of the logarithms; None with fewer than 3 points or no spread. A value below 1
    means a part of the energy does not grow with the operations (launching, memory, data).
    """

    family: str
    n: int
    joules_per_gflop: float
    low: float
    high: float
    exponent: float | None


def cpu_utilisation(trial: Trial) -> float | None:
    """CPU-seconds of the training for each second of it and each of its threads; above 1 when other threads worked as well."""
    threads = trial.extra.get("threads")
    if trial.energy.cpu_seconds is None or not trial.energy.train_seconds or not threads:
        return None
    return trial.energy.cpu_seconds / (trial.energy.train_seconds * float(threads))


def training_flops(trial: Trial) -> float | None:
    """Floating-point operations of an epoch of training: three forward passes an example; None when unknown."""
    examples = trial.extra.get("train_examples")
    return None if trial.flops is None or not examples else TRAINING_OVER_FORWARD * float(trial.flops) * float(examples)


def family_of(trial: Trial) -> str:
    """The family of a model: what its parameters call ``family``, ``model`` or ``estimator``."""
    for name in ("family", "model", "estimator"):
        for key, value in trial.params.items():
            if key == name or key.endswith((f".{name}", f"_{name}")):
                return str(value)
    return "one family"


def relations(run: Run) -> tuple[Relation, ...]:
    """Correlate size, operations and time with the energy of an epoch, per family and pooled.

    The energy is that of an epoch, since in that of a whole training the number of epochs would hide everything else. Of the trials that
    continue one another only the longest counts: they are one model.

    Raises:
        ValueError: If the trials come from different hardware; their energies have no common scale.
    """
    points = points_of(run)
    families = sorted({family_of(trial) for trial in points})
    found = []
    for name, predict in PREDICTORS.items():
        for family in [*(families if len(families) > 1 else []), POOLED]:
            pairs = [(x, epoch_joules(t)) for t in points if family in (POOLED, family_of(t)) and (x := predict(t)) is not None]
            found.append(Relation(name, family, len(pairs), *spearman(pairs)))
    known = {one.predictor for one in found if one.n}
    return tuple(one for one in found if one.predictor in known)


def operation_costs(run: Run) -> tuple[OperationCost, ...]:
    """Energy of 10^9 operations of training, per family and pooled, see ``relations``; empty where the operations are unknown."""
    pairs = [(family_of(trial), flops, epoch_joules(trial)) for trial in points_of(run) if (flops := training_flops(trial))]
    families = sorted({family for family, _, _ in pairs})
    found = []
    for family in [*(families if len(families) > 1 else []), *([POOLED] if pairs else [])]:
        own = [(flops, joules) for name, flops, joules in pairs if family in (POOLED, name)]
        each = [joules / flops * 1e9 for flops, joules in own]
        x, y = [log(flops) for flops, _ in own], [log(joules) for _, joules in own]
        exponent = linear_regression(x, y).slope if len(own) > 2 and len(set(x)) > 1 else None
        found.append(OperationCost(family, len(own), median(each), min(each), max(each), exponent))
    return tuple(found)


def points_of(run: Run) -> list[Trial]:
    """The measured configurations, each at its longest training.

    Raises:
        ValueError: If the trials come from different hardware.
    """
    hardware = sorted({trial.hardware_id for trial in run.trials if trial.hardware_id})
    if len(hardware) > 1:
        raise ValueError(f"relations need the energies of one machine, got trials of {', '.join(hardware)}; call it once per machine")
    best: dict[tuple[str, str | None], Trial] = {}
    for trial in run.trials:
        if trial.state == "complete" and trial.train_joules and trial.epochs and not trial.members:  # an ensemble is no training
            key = _configuration(trial), trial.hardware_id
            best[key] = max(best.get(key, trial), trial, key=lambda one: one.epochs)
    return list(best.values())


def epoch_joules(trial: Trial) -> float:
    """Training energy of an epoch."""
    return (trial.train_joules or 0.0) / trial.epochs


def by_construction(run: Run) -> str | None:
    """Return a warning when the energy was computed from the seconds themselves, so that their correlation proves nothing; else None."""
    sources = {part.source for trial in points_of(run) for part in trial.components.values() if part.joules is not None}
    if sources != {"cpu_time"}:
        return None
    return "The energy of this run is estimated from CPU-seconds, so time predicts it by construction; that is not a finding."


def to_text(found: Iterable[Relation]) -> str:
    """Render the relations as a table."""
    cells = [["against energy of an epoch", "family", "n", "Spearman", "p"]]
    for one in found:
        rho = "-" if one.rho is None else f"{one.rho:+.2f}"
        cells.append([one.predictor, one.family, str(one.n), rho, p_text(one.p_value)])
    return grid(cells, [False, False, True, True, True])


def operation_cells(found: Iterable[OperationCost]) -> list[list[str]]:
    """The head and one row a family of the energies of operations, as text."""
    cells = [["energy of operations", "n", "J per GFLOP, median", "lowest", "highest", "energy ~ FLOPs^b"]]
    for one in found:
        exponent = "-" if one.exponent is None else f"b = {one.exponent:.2f}"
        cells.append([one.family, str(one.n), *map(digits, (one.joules_per_gflop, one.low, one.high)), exponent])
    return cells


def p_text(p_value: float | None) -> str:
    """A p-value for people; below 0.0001 only that."""
    return "-" if p_value is None else f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"


def draw_relations(run: Run, path: str | Path) -> tuple[str, Path]:
    """Draw the relations to a file that ends in .png or .svg; return the tables behind the picture, and where it lies.

    Raises:
        ValueError: If the trials come from different hardware, there is none, or the file has another ending.
    """
    found = relations(run)
    parts = [to_text(found), by_construction(run), grid(operation_cells(operation_costs(run)), [False, *[True] * 5])]
    return "\n\n".join(text for text in parts if text), save_figure(relations_figure(run, found), path)


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
    figure, axes = side_by_side(len(panels), width=4.6)
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


def _rho(found: Sequence[Relation], predictor: str, family: str) -> str:
    one = next((one for one in found if (one.predictor, one.family) == (predictor, family)), None)
    if one is None or one.rho is None:
        return "too few points" if one is None else f"n = {one.n}"
    return f"rho {one.rho:+.2f}, n = {one.n}"


FOLDS, TREES, REPEATS = 5, 100, 5
#: Fewer different configurations than this allow no ranking.
MIN_CONFIGURATIONS = 8
#: Of more trials so many are used, whole configurations chosen at random: the ranking costs seconds however long the search was.
MOST_TRIALS = 300
#: Below this share of explained variance on held-out configurations the importances mean nothing.
MIN_R2 = 0.1


@dataclass(frozen=True)
class Importance:
    """How much each parameter helps to predict a target on held-out configurations.

    Attributes:
        target: What was predicted, e.g. ``accuracy`` or ``log10 training energy``.
        parameters: ``(name, drop of R² when it is shuffled, standard deviation over the shuffles)``, most important first.
        r2: Share of the variance that is explained on held-out configurations; None when nothing was fitted.
        trials: Number of trials used, with so many different ``configurations`` among them; ``of`` all measured ones.
        reason: Why there is no ranking, or None.
    """

    target: str
    parameters: tuple[tuple[str, float, float], ...] = ()
    r2: float | None = None
    trials: int = 0
    configurations: int = 0
    of: int = 0
    reason: str | None = None

    def method(self) -> str:
        """Describe the method in one sentence."""
        return (
            f"Permutation importance of a random forest ({TREES} trees) on held-out configurations: {FOLDS}-fold cross-validation in which "
            f"all epochs of a configuration stay together, {REPEATS} shuffles; n = {self.trials} trials of {self.configurations} "
            f"configurations{f', chosen at random among {self.of} trials' if self.of > self.trials else ''}."
        )


def importance(front: Front, target: Literal["quality", "energy"]) -> Importance:
    """Rank the parameters, ``epochs`` among them, by what shuffling them costs.

    A configuration that does not have a parameter (another family) counts as a value of its own. Energies enter as logarithms.
    ``target`` is ``quality`` for the first objective, ``energy`` for the training energy. Without a ranking the result holds the reason.

    Source:
        Breiman 2001, "Random forests", Machine Learning 45, for the shuffling; scikit-learn's forest.
    """
    import numpy as np

    measured = [one for one in front.trials if front.why_not(one) in (None, "not trained to the last rung") and not one.members]
    trials = _some(measured)
    title = front.objectives[0] if target == "quality" else "log10 training energy"
    groups = [_configuration(trial) for trial in trials]
    names, columns = _columns(trials)
    count = len(set(groups))
    if count < MIN_CONFIGURATIONS:
        reason = f"{count} different configurations were measured; at least {MIN_CONFIGURATIONS} are needed"
        return Importance(title, trials=len(trials), configurations=count, reason=reason)
    if not names:
        return Importance(title, trials=len(trials), configurations=count, of=len(measured), reason="no parameter varied")
    y = np.array([trial.values[0] if target == "quality" else log10(front.joules(trial)) for trial in trials])
    if np.ptp(y) == 0:
        return Importance(title, trials=len(trials), configurations=count, of=len(measured), reason="all trials have the same value")
    r2, drops = _held_out(np.array(columns).T, y, groups)
    if r2 < MIN_R2:
        reason = f"the parameters explain too little of it on held-out configurations (R² = {r2:.2f})"
        return Importance(title, r2=r2, trials=len(trials), configurations=count, of=len(measured), reason=reason)
    ranked = sorted(zip(names, drops.mean(axis=1), drops.std(axis=1), strict=True), key=lambda row: -row[1])
    return Importance(title, tuple((name, float(drop), float(sd)) for name, drop, sd in ranked), r2, len(trials), count, len(measured))


def _configuration(trial: Trial) -> str:
    return json.dumps(dict(trial.params), sort_keys=True, default=str)


def _some(trials: Sequence[Trial]) -> list[Trial]:
    """At most `MOST_TRIALS` of them, in their order: all trials of configurations that are drawn with a fixed seed."""
    if len(trials) <= MOST_TRIALS:
        return list(trials)
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_configuration(trial), []).append(trial)
    chosen: list[Trial] = []
    for name in Random(0).sample(sorted(groups), len(groups)):
        if len(chosen) + len(groups[name]) <= MOST_TRIALS:
            chosen += groups[name]
    return sorted(chosen, key=lambda trial: trial.number)


def _columns(trials: Sequence[Trial]) -> tuple[list[str], list[list[float]]]:
    """Return the names of the parameters that vary, and one column of numbers each."""
    every: list[dict[str, Any]] = [{**trial.params, "epochs": trial.epochs} for trial in trials]
    names = sorted({name for row in every for name in row})
    found, columns = [], []
    for name in names:
        values = [row.get(name) for row in every]
        known = [value for value in values if value is not None]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
            below = min(map(float, known), default=0.0) - 1.0  # "does not have it" is a value of its own
            column = [below if value is None else float(value) for value in values]
        else:
            order = sorted({str(value) for value in values})
            column = [float(order.index(str(value))) for value in values]
        if len(set(column)) > 1:
            found.append(name)
            columns.append(column)
    return found, columns


def _held_out(X: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> tuple[float, np.ndarray]:
    """Return R² of the held-out predictions, and ``(parameters, repeats)`` what shuffling each parameter takes from it."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import GroupKFold

    random = np.random.default_rng(0)
    n, p = X.shape
    plain, shuffled = np.empty(n), np.empty((p, REPEATS, n))
    for train, test in GroupKFold(n_splits=FOLDS).split(X, y, groups):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0).fit(X[train], y[train])
        plain[test] = forest.predict(X[test])
        # All shuffled copies in one call: calling the forest costs more than its trees do.
        copies = np.tile(X[test], (p * REPEATS, 1, 1)).reshape(p, REPEATS, len(test), p)
        for j in range(p):
            for r in range(REPEATS):
                copies[j, r, :, j] = X[random.permutation(n)[: len(test)], j]
        shuffled[:, :, test] = forest.predict(copies.reshape(-1, p)).reshape(p, REPEATS, len(test))
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1.0 - float(((y - plain) ** 2).sum()) / spread
    return r2, (((y - shuffled) ** 2).sum(axis=2) / spread) - (1.0 - r2)
