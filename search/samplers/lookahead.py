"""What a training is worth when it may be stopped: see the next rung first, go on only if that pays.

The value of a plan "train to rung ``n``, look, and continue to ``t`` where that pays" is the expected gain over what is seen at ``n``,
divided by the energy that is expected to be paid. The best policy for such a ratio continues exactly where the further gain exceeds the
ratio times the further cost (Dinkelbach 1967, "On nonlinear fractional programming"), so a few fixed-point steps find it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .acquisition import Boxes
from .encoding import Array
from .models import Models, View

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_STEPS = 4


def rates_with_option(
    models: Models,
    boxes: Boxes,
    view: View,
    rate: Array,
    cost: Array,
    *,
    rows: NDArray[np.int64],
    first: int,
    least: float,
    remaining: float = np.inf,
    resume: bool,
    last_only: bool,
) -> Array:
    """Return the best gain per energy of training to rung ``first`` and then perhaps further, ``(len(rows),)``.

    Args:
        models: Beliefs.
        boxes: What no point dominates.
        view: Beliefs about ``(n,)`` configurations.
        rate: Gain per energy of going straight to each rung, ``(n, r)``.
        cost: Energy to go straight to each rung, ``(n, r)``.
        rows: Configurations to look at.
        first: Rung at which the training may be stopped, not the last.
        least: What any training costs besides.
        remaining: Energy left: going on to where it does not reach is no option.
        resume: Whether going on pays only the difference.
        last_only: Whether a stopped training is worth nothing.
    """
    here = _known(models, view, boxes, rows, first, first)
    here = np.zeros_like(here) if last_only else here
    targets = [rate.shape[1] - 1] if last_only else range(first + 1, rate.shape[1])
    more = np.stack([_known(models, view, boxes, rows, first, target) for target in targets]) - here  # (targets, nodes, rows)
    further = np.stack([cost[rows, t] - cost[rows, first] if resume else cost[rows, t] + least for t in targets])
    # What is paid in the end: a continuation's cost counts from where it is now, a training from scratch comes on top of the first.
    together = np.stack([cost[rows, t] + (0.0 if resume else cost[rows, first]) for t in targets])
    fits = (together <= remaining)[:, None]
    best = np.maximum(rate[rows].max(1), 0.0)
    for _ in range(_STEPS):
        surplus = np.where(fits, more - best * further[:, None], -np.inf)
        choice = surplus.argmax(0)  # (nodes, rows)
        go = np.take_along_axis(surplus, choice[None], 0)[0] > 0
        gained = here + np.where(go, np.take_along_axis(more, choice[None], 0)[0], 0.0)
        paid = np.where(go, np.take_along_axis(np.broadcast_to(further[:, None], more.shape), choice[None], 0)[0], 0.0)
        best = np.maximum(best, _WEIGHTS @ gained / (cost[rows, first] + least + _WEIGHTS @ paid))
    return np.asarray(best)


def _known(models: Models, view: View, boxes: Boxes, rows: NDArray[np.int64], seen: int, target: int) -> Array:
    """Expected gain at rung ``target`` after each possible quality at rung ``seen``, ``(nodes, rows)``."""
    quality = view.objectives[0]
    spread = np.sqrt(quality.sd[rows, seen] ** 2 + models.noise(seen))
    told = models.covariance(view, seen, target)[rows] / spread
    mean = quality.mean[rows, target][None] + np.outer(_NODES, told)
    sd = np.sqrt(np.maximum(quality.sd[rows, target] ** 2 - told**2, 1e-9))
    columns = [(mean.ravel(), np.tile(sd, len(_NODES)))]
    columns += [(np.tile(p.mean[rows, target], len(_NODES)), np.tile(p.sd[rows, target], len(_NODES))) for p in view.objectives[1:]]
    gain = boxes.expected_gain(models.beliefs_of(columns, target)).reshape(len(_NODES), len(rows))
    return np.asarray(gain * view.chance[rows])
