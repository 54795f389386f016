"""The value of a plan that may stop early: "train to rung ``n``, measure, and continue to ``t`` only where that pays".

It is the expected gain over all measurements at ``n``, divided by the energy that is expected to be paid. The best policy for such a ratio
continues exactly where the further gain exceeds the ratio times the further cost, so a few fixed-point steps find it.

Source: Dinkelbach 1967, "On nonlinear fractional programming", for the fixed point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .ehvi import Boxes
from .encoding import Array
from .surrogates import Predictions, SurrogateModels

#: Gauss-Hermite quadrature over the measurement at the stopping rung, and the steps of the fixed point.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FIXED_POINT_STEPS = 4


def lookahead_rates(
    models: SurrogateModels,
    boxes: Boxes,
    predictions: Predictions,
    rate: Array,
    cost: Array,
    *,
    rows: NDArray[np.int64],
    first: int,
    cost_floor: float,
    remaining: float = np.inf,
    resume: bool,
    last_only: bool,
) -> Array:
    """Return the best gain per energy of training ``rows`` to rung ``first`` and then perhaps further, ``(len(rows),)``.

    ``rate`` and ``cost`` are those of going straight to each rung, ``(n, r)``; ``cost_floor`` is added to every training. Rungs that cost
    more than ``remaining`` in total cannot be continued to. With ``resume`` continuing pays only the difference; with ``last_only`` a
    stopped training is worth nothing.
    """
    stop_gain = _gain_given_measurement(models, predictions, boxes, rows, first, first)
    stop_gain = np.zeros_like(stop_gain) if last_only else stop_gain
    targets = [rate.shape[1] - 1] if last_only else range(first + 1, rate.shape[1])
    gains = [_gain_given_measurement(models, predictions, boxes, rows, first, target) for target in targets]
    further_gain = np.stack(gains) - stop_gain  # (targets, nodes, rows)
    further_cost = np.stack([cost[rows, t] - cost[rows, first] if resume else cost[rows, t] + cost_floor for t in targets])
    # What is paid in the end: a continuation's cost counts from where it is now, a training from scratch comes on top of the first.
    total_cost = np.stack([cost[rows, t] + (0.0 if resume else cost[rows, first]) for t in targets])
    affordable = (total_cost <= remaining)[:, None]
    best = np.maximum(rate[rows].max(1), 0.0)
    for _ in range(_FIXED_POINT_STEPS):
        surplus = np.where(affordable, further_gain - best * further_cost[:, None], -np.inf)
        choice = surplus.argmax(0)[None]  # (1, nodes, rows)
        proceed = np.take_along_axis(surplus, choice, 0)[0] > 0
        gained = stop_gain + np.where(proceed, np.take_along_axis(further_gain, choice, 0)[0], 0.0)
        costs = np.broadcast_to(further_cost[:, None], further_gain.shape)
        paid = np.where(proceed, np.take_along_axis(costs, choice, 0)[0], 0.0)
        best = np.maximum(best, _WEIGHTS @ gained / (cost[rows, first] + cost_floor + _WEIGHTS @ paid))
    return np.asarray(best)


def _gain_given_measurement(
    models: SurrogateModels, predictions: Predictions, boxes: Boxes, rows: NDArray[np.int64], measured: int, target: int
) -> Array:
    """Expected gain at rung ``target`` after each possible measurement of the quality at rung ``measured``, ``(nodes, rows)``."""
    quality = predictions.objectives[0]
    measurement_sd = np.sqrt(quality.sd[rows, measured] ** 2 + models.noise(measured))
    explained = models.covariance(predictions, measured, target)[rows] / measurement_sd
    mean = quality.mean[rows, target][None] + np.outer(_NODES, explained)
    sd = np.sqrt(np.maximum(quality.sd[rows, target] ** 2 - explained**2, 1e-9))
    columns = [(mean.ravel(), np.tile(sd, len(_NODES)))]
    columns += [(np.tile(p.mean[rows, target], len(_NODES)), np.tile(p.sd[rows, target], len(_NODES))) for p in predictions.objectives[1:]]
    gain = boxes.expected_gain(models.marginals_of(columns, target)).reshape(len(_NODES), len(rows))
    return np.asarray(gain * predictions.feasibility[rows])
