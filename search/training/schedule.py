"""Learning rate over the steps of a training, as a factor of the peak."""

from __future__ import annotations

import math

from .recipe import Recipe

#: Share of the first epoch over which the learning rate rises. Long enough to settle Adam's second moments and short enough
#: that a model of one epoch loses nothing to it.
WARMUP_EPOCHS = 0.3
#: Share of the steps before the peak, start and end relative to the peak.
#: Source: Smith & Topin 2018, arXiv:1708.07120; the values are PyTorch's defaults for OneCycleLR.
ONE_CYCLE = (0.3, 1 / 25, 1 / 25e4)


def learning_rate_factor(recipe: Recipe, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """Return what the peak learning rate is multiplied with at one optimiser step.

    Args:
        recipe: Names the schedule.
        step: Number of the step over the whole lineage, from 0.
        steps_per_epoch: Optimiser steps in one epoch.
        total_steps: Steps of the whole training; only the schedules with a fixed horizon read it.

    Returns:
        A factor in ``[0, 1]``. For ``anytime`` and ``constant`` it does not depend on ``total_steps``, so that a training can go on.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "one_cycle":
        share, low, end = ONE_CYCLE
        peak = max(1.0, share * (total_steps - 1))
        if step <= peak:
            return _cosine(low, 1.0, step / peak)
        return _cosine(1.0, end, (step - peak) / max(1.0, total_steps - 1 - peak))
    warmup = max(1.0, WARMUP_EPOCHS * steps_per_epoch)
    rise = min(1.0, (step + 1) / warmup)
    if recipe.schedule == "anytime":
        return rise
    return rise * _cosine(1.0, 0.0, step / max(1, total_steps))


def _cosine(first: float, last: float, share: float) -> float:
    """Go from ``first`` to ``last`` along half a cosine; ``share`` in [0, 1] is the way done."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
