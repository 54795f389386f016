"""A training from set-up to measured model: of a network by its `Loop`, of an estimator epoch by epoch, so that a budget can stop both.

A training that continues from a checkpoint gives bit for bit what one uninterrupted training gives, on a CPU with equal numbers of threads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from .backbone import Transfer
from .boosted import as_trees
from .estimator import as_estimator
from .evaluate import metric_of, quality, quality_and_scores, sign_of
from .feature_cache import FeatureCache
from .features import with_features
from .heads import HEAD_EPOCHS, HEAD_RECIPE, PREPARED, SolvedHead, Tuned, first_images, head_task, probe_of
from .loop import Loop
from .optimizer import Average, Patience
from .recipe import Recipe, kept_for_caller, require_precision
from .results import SOLVED, EpochPoint, FeaturesUsed, Fitted, Phases, ShouldContinue, TrainingFailed, always, no_phases
from .splits_data import fold_tasks
from .tactics.tactic import make_tactics
from .task import Task

#: Features are handed to a head that is solved in blocks of so many.
SOLVED_BATCH = 4096
#: Names in a checkpoint the quality that patience has looked at; the task's own in one without it, of an earlier version.
METRIC = "metric"


@dataclass(frozen=True)
class _Training:
    """What the ways of `fit` hand on to the loop; its arguments of the same names, and no others."""

    epochs: int
    start: Mapping[str, Any] | None
    seed: int
    device: torch.device
    phases: Phases = no_phases
    should_continue: ShouldContinue = always
    check_at: Collection[int] = ()
    metric: str = ""


def fit(
    model: Any,
    task: Task,
    recipe: Recipe,
    *,
    epochs: int,
    start: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    phases: Phases = no_phases,
    should_continue: ShouldContinue = always,
    check_at: Collection[int] = (),
    features: FeatureCache | None = None,
    metric: str = "",
) -> Fitted:
    """Train a model to ``epochs`` epochs, those of ``start`` included, and validate it.

    - ``model``: A ``torch.nn.Module``, or an estimator (see ``estimator.py``).
    - ``start``: Checkpoint of an earlier ``Fitted`` to continue from; the model's own weights are then replaced.
    - ``seed``: Seeds order, augmentation and everything that the model draws while it trains. The initial weights are the caller's.
    - ``phases``: Entered around the set-up, each epoch, each evaluation, and what tactics compute about the finished model.
    - ``should_continue``: Called after every epoch; False ends the training there and the model is measured as it is.
    - ``features``: Where the features of a `Transfer` model are kept and found; None keeps them in memory for this training alone.
    - ``check_at``: Epochs after which a network is validated on the way, so that ``should_continue`` gets its quality; estimators are not.
    - ``metric``: The quality that patience looks at, see `metric_of`; that of the task by default.

    Returns:
        The model with the weights that were measured, its validation quality and what is needed to continue. With ``recipe.patience`` it is
        the model of the last epoch, not of the best: a point of the search states what that many epochs give.

    Raises:
        TrainingFailed: If the loss or an output is not finite.
        ValueError: If ``epochs`` or ``start`` do not fit the recipe, or the device does not have its precision.
    """
    done = 0 if start is None else int(start["epochs"])
    if epochs <= done:
        raise ValueError(f"epochs must be > {done}, the epochs that are already trained, got {epochs}")
    if start is not None and not recipe.resumable:
        raise ValueError(
            f"recipe.schedule={recipe.schedule!r} has a fixed horizon and cannot continue from a checkpoint; train from scratch"
        )
    device = torch.device(device)
    how = _Training(epochs, start, seed, device, phases, should_continue, check_at, metric)
    if task.folds and not isinstance(model, Transfer):
        return _cross_validated(model, task, recipe, how)
    if not isinstance(model, torch.nn.Module):
        return _fit_estimator(model, task, recipe, how)
    require_precision(recipe.precision, device)
    with kept_for_caller(device):  # each epoch seeds what a model or a user's own examples may draw from
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        if isinstance(model, Transfer):
            way = _fit_tuned if isinstance(model.head, Tuned) else _fit_head
            return way(model, task, recipe, how, features)
        return _fit(model, task, recipe, how)


def _cross_validated(model: Any, task: Task, recipe: Recipe, how: _Training) -> Fitted:
    """Train the model on the training split, and one for each fold, whose predictions of the rest make the quality; see ``Task.folds``.

    What the folds take is the price of knowing the quality, not of the model: it is spent within the phase of the evaluation. On the way
    the quality is unknown: that on the few examples of the validation split, by which patience goes, is another one.
    """
    others = [copy.deepcopy(model) for _ in range(task.folds)]
    alone = replace(task, folds=0)

    def should_continue(point: EpochPoint) -> bool:
        return how.should_continue(replace(point, quality=None))

    fitted = fit(model, alone, recipe, **{**vars(how), "should_continue": should_continue, "check_at": ()})
    plain = replace(recipe, patience=None)  # all to the same epoch
    before = [None] * task.folds if how.start is None else how.start["folds"]
    with how.phases("eval", fitted.epochs):
        folds = [
            fit(other, part, plain, epochs=fitted.epochs, start=start, seed=how.seed, device=how.device)
            for other, part, start in zip(others, fold_tasks(task), before, strict=True)
        ]
        found = [fold.scores for fold in folds if fold.scores is not None]
        scores, targets = (np.concatenate([pair[k] for pair in found]) for k in (0, 1))
        known = quality(task.kind, scores, targets, scale=task.target_scale)
    curve = (*(replace(point, quality=None) for point in fitted.curve[:-1]), replace(fitted.curve[-1], quality=known))
    checkpoint = None if fitted.checkpoint is None else {**fitted.checkpoint, "folds": [fold.checkpoint for fold in folds]}
    return replace(fitted, quality=known, curve=curve, checkpoint=checkpoint, scores=(scores, targets))


def _fit_head(model: Transfer, task: Task, recipe: Recipe, how: _Training, features: FeatureCache | None) -> Fitted:
    """Train the head of a model with a frozen backbone on features, by the ordinary loop; return the whole model."""
    found = with_features(model, task, cache=features, phases=how.phases, device=how.device)
    rate = recipe.head_learning_rate or recipe.learning_rate
    plain = replace(recipe, learning_rate=rate, head_learning_rate=None, resolution=None, augment="none", channels_last=False)
    fitted = (_solve if isinstance(model.head, SolvedHead) else _fit)(model.head, found.task, plain, how)
    model.mean, model.deviation = found.mean.to(how.device), found.deviation.to(how.device)
    return replace(fitted, model=model.eval(), features=found.used)


def _solve(head: torch.nn.Module, task: Task, recipe: Recipe, how: _Training) -> Fitted:
    """Solve a head: its first epoch is all of the training."""
    assert isinstance(head, SolvedHead)
    if task.kind not in ("classification", "regression"):
        raise ValueError(f"a solved head needs classes or one value, got a {task.kind} task; take linear")
    with how.phases("setup", 0):
        head.to(how.device).train()
    if how.device.type == "cuda":
        with how.phases("overhead", 0):  # kernels are loaded at their first use: no candidate pays for what later ones find
            copy.deepcopy(head).solve(islice(task.train.batches(SOLVED_BATCH, device=how.device), 1))
    with how.phases("epoch", 1):
        loss = head.solve(task.train.batches(SOLVED_BATCH, device=how.device))
    head.eval()
    if not math.isfinite(loss):
        raise TrainingFailed(f"the loss became {loss} as the head was solved")
    known, scores = _validate(head, None, task, recipe, how.device, how.phases, 1)
    how.should_continue(EpochPoint(1, loss))  # without a quality, by which a rule might end what has ended
    return Fitted(head, 1, dict(known), (EpochPoint(1, loss, known),), None, SOLVED, scores=scores)


def _fit_tuned(model: Transfer, task: Task, recipe: Recipe, how: _Training, features: FeatureCache | None) -> Fitted:
    """Train the head alone, and then a part of the network with it, on maps at the cut or on images; return the whole model."""
    tuned, probe = model.head, probe_of(model)
    assert isinstance(tuned, Tuned)
    rate = recipe.head_learning_rate or recipe.learning_rate
    plain = replace(recipe, learning_rate=rate, head_learning_rate=None, resolution=None)
    if model.feature_set == PREPARED:  # nothing is frozen in front of what is trained
        images = len(task.train) if model.images is None else min(model.images, len(task.train))
        network: torch.nn.Module = model
        part, used = first_images(task, model.images), FeaturesUsed(None, images, 0)
    else:
        maps = with_features(model, task, cache=features, phases=how.phases, device=how.device, standardised=False)
        network, part, used = tuned, maps.task, maps.used
        plain = replace(plain, augment="none", channels_last=False)
    if how.start is None:
        begun = None
        if probe is not None:
            begun = with_features(probe, task, cache=features, phases=how.phases, device=how.device)
            used = begun.used
        with how.phases("setup", 0):
            model.to(how.device)
            if begun is None:
                of_head = tuned.head_task(part, plain, how.device)
            else:
                tuned.standardise_by(begun.mean, begun.deviation)
                of_head = head_task(begun.task)
            _fit(tuned.head, of_head, HEAD_RECIPE, _Training(HEAD_EPOCHS, None, how.seed, how.device))
    fitted = _fit(network, part, plain, how)
    return replace(fitted, model=model.eval(), features=used)


def _fit(model: torch.nn.Module, task: Task, recipe: Recipe, how: _Training) -> Fitted:
    """Train a network: set it up, train and look after each epoch, validate it."""
    phases, tactics, by = how.phases, make_tactics(recipe.tactics), metric_of(task, how.metric)
    curve: list[EpochPoint] = []
    stopped, scores = None, None
    with ExitStack() as undo:
        with phases("setup", 0):
            loop = Loop(model, task, recipe, tactics, undo, epochs=how.epochs, start=how.start, seed=how.seed, device=how.device)
            if how.start is not None and how.start.get(METRIC, task.metric) != by:
                loop.patience = Patience(recipe.patience)  # the best so far is of another quality
        if recipe.compile:
            with phases("compile", 0):
                loop.compile()
        elif how.device.type == "cuda" and not tactics:
            with phases("overhead", 0):  # kernels are loaded and chosen at their first use: no candidate pays for what later ones find
                loop.rehearse()
        if recipe.graph and how.device.type == "cuda":
            with phases("setup", 0):  # each training pays for its own
                loop.capture()
        while loop.epoch < how.epochs and stopped is None:
            with phases("epoch", loop.epoch + 1):
                loss = loop.train_epoch()
            quality = None
            if loop.patience.enabled or (loop.epoch in how.check_at and loop.epoch < how.epochs):
                quality, scores = _validate(model, loop.average, task, recipe, how.device, phases, loop.epoch)
                if loop.patience.enabled and loop.patience.exhausted(_gain(quality, by)):
                    stopped = f"patience: no better validation {by} in {recipe.patience} epochs"
            curve.append(EpochPoint(loop.epoch, loss, quality))
            if not how.should_continue(curve[-1]) and loop.epoch < how.epochs:
                stopped = stopped or f"stopped after epoch {loop.epoch} of {how.epochs}"
        if curve[-1].quality is None:
            quality, scores = _validate(model, loop.average, task, recipe, how.device, phases, loop.epoch)
            curve[-1] = replace(curve[-1], quality=quality)
        checkpoint = {**loop.checkpoint(), METRIC: by} if recipe.resumable else None
        if loop.average is not None:
            loop.average.swap()
        model.eval()
        if tactics:
            # What they report about the finished model is computed here: work of the search, not of the model's training.
            with phases("analysis", loop.epoch):
                undo.close()
    return Fitted(model, loop.epoch, dict(curve[-1].quality or {}), tuple(curve), checkpoint, stopped, loop.extra, scores=scores)


def _gain(found: Mapping[str, float], metric: str) -> float:
    """Return a quality as a number of which more is better; where the data leave it undefined, that of the loss."""
    return sign_of(metric) * found[metric] if metric in found else -found["loss"]


def _fit_estimator(model: Any, task: Task, recipe: Recipe, how: _Training) -> Fitted:
    """Fit an estimator, see ``fit``; its training loss is unknown, so the points of the curve have NaN as their loss."""
    estimator, start, phases, done, cpu = as_estimator(model), how.start, how.phases, 0, torch.device("cpu")
    patience, by_loss = Patience(recipe.patience), getattr(estimator, "stops_by_loss", False)
    by, before = ("loss", "loss") if by_loss else (metric_of(task, how.metric), task.metric)
    with phases("setup", 0):
        inputs, targets = task.train.arrays()
        if start is not None:
            done = int(start["epochs"])
            estimator.sklearn = copy.deepcopy(start["sklearn"])  # training on changes it, and the checkpoint must stay what it is
            if start.get(METRIC, before) == by:
                patience.load(start["patience"])
    curve: list[EpochPoint] = []
    stopped, scores = None, None
    for epoch in range(done + 1, how.epochs + 1):
        with phases("epoch", epoch):
            estimator.fit_epochs(inputs, targets, epoch - 1, epoch, how.seed)
            estimator.sklearn = as_trees(estimator.sklearn, inputs)
        quality = None
        if patience.enabled:
            quality, scores = _validate(estimator, None, task, recipe, cpu, phases, epoch)
            if patience.exhausted(_gain(quality, by)):
                stopped = f"patience: no better validation {by} in {recipe.patience} epochs"
        curve.append(EpochPoint(epoch, float("nan"), quality))
        if not how.should_continue(curve[-1]) and epoch < how.epochs:
            stopped = stopped or f"stopped after epoch {epoch} of {how.epochs}"
        if stopped is not None:
            break
    last = curve[-1]
    if last.quality is None:
        quality, scores = _validate(estimator, None, task, recipe, cpu, phases, last.epoch)
        curve[-1] = last = EpochPoint(last.epoch, last.loss, quality)
    checkpoint = {"epochs": last.epoch, "sklearn": estimator.sklearn, "patience": patience.state(), METRIC: by}
    return Fitted(estimator, last.epoch, dict(last.quality or {}), tuple(curve), checkpoint, stopped, scores=scores)


def _validate(
    model: Any, average: Average | None, task: Task, recipe: Recipe, device: torch.device, phases: Phases, epoch: int
) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Return validation quality and predictions, of the averaged weights where there are any; the trained ones are put back."""
    with phases("eval", epoch):
        if average is None:
            return quality_and_scores(model, task, task.validation, recipe=recipe, device=device)
        average.swap()
        try:
            return quality_and_scores(model, task, task.validation, recipe=recipe, device=device)
        finally:
            average.swap()
