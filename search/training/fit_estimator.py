"""Training of classical models, epoch by epoch so that a budget can stop them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .estimator import Estimator, as_estimator
from .evaluate import evaluate
from .fitted import EpochPoint, Fitted, GoOn, Phases
from .patience import Patience
from .recipe import Recipe
from .task import Task


def fit_estimator(
    model: Any,
    task: Task,
    recipe: Recipe,
    *,
    epochs: int,
    start: Mapping[str, Any] | None,
    seed: int,
    phases: Phases,
    go_on: GoOn,
) -> Fitted:
    """Fit an estimator; the arguments are those of ``fit``.

    Its training loss is not known while it trains, so the points of the curve carry NaN as their loss.
    """
    estimator = as_estimator(model)
    patience = Patience(recipe.patience)
    done = 0
    with phases("setup", 0):
        inputs, targets = task.train.arrays()
        if start is not None:
            done = int(start["epochs"])
            estimator.sklearn = start["sklearn"]
            patience.load(start["patience"])
    curve: list[EpochPoint] = []
    stopped = None
    for epoch in range(done + 1, epochs + 1):
        with phases("epoch", epoch):
            estimator.fit_epochs(inputs, targets, epoch - 1, epoch, seed)
        quality = None
        if patience.asked:
            quality = _validate(estimator, task, recipe, phases, epoch)
            if patience.exhausted(quality.get(task.metric, -quality["loss"])):
                stopped = f"patience: no better validation {task.metric} in {recipe.patience} epochs"
        curve.append(EpochPoint(epoch, float("nan"), quality))
        if not go_on(curve[-1]) and epoch < epochs:
            stopped = stopped or f"stopped after epoch {epoch} of {epochs}"
        if stopped is not None:
            break
    last = curve[-1]
    if last.quality is None:
        curve[-1] = last = EpochPoint(last.epoch, last.loss, _validate(estimator, task, recipe, phases, last.epoch))
    checkpoint = {"epochs": last.epoch, "sklearn": estimator.sklearn, "patience": patience.state()}
    return Fitted(estimator, last.epoch, dict(last.quality or {}), tuple(curve), checkpoint, stopped)


def _validate(estimator: Estimator, task: Task, recipe: Recipe, phases: Phases, epoch: int) -> dict[str, float]:
    with phases("eval", epoch):
        return evaluate(estimator, task, task.validation, recipe=recipe)
