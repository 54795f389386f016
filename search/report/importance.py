"""Parameter importance: which parameters predict quality and energy on configurations that the model has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from ..front import Front
from ..records.trial import Trial

if TYPE_CHECKING:
    import numpy as np

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

    measured = [trial for trial in front.trials if front.why_not(trial) in (None, "not trained to the last rung")]
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
