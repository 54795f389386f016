"""The first trainings, before there is anything to learn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .encoding import Array
from .history import History
from .plan import Decision, Rules
from .table import Encoder

#: A configuration is drawn so many times at most before the space counts as exhausted.
_DRAWS = 64


def start(
    rules: Rules,
    history: History,
    encoder: Encoder,
    rng: np.random.Generator,
    refused: frozenset[str],
    seeds: Callable[[Encoder], Array] | None,
) -> Decision | None:
    """Return the next training of the initial design; None when the models can take over.

    Random configurations at the lowest rung, those of earlier studies first; then a complete training of the cheapest of the better half,
    rung by rung. With more ladders than one the most accurate is trained first, then the cheapest of the better half of the others.
    Trainings that run count as done, those that failed are replaced.
    """
    busy = {claim.key for claim in history.running}
    alive = history.points.keys() - history.failed
    attempts = len(history.points.keys() | busy | history.failed)
    wanted = rules.startup if seeds is None else max(2, rules.startup // 2)
    taken = history.points.keys() | busy | history.failed | refused
    if (len(alive | busy) < wanted and attempts < 8 * wanted) or len(alive) < 2:
        drawn = encoder.encoding.random(rng, _DRAWS)
        for genes in drawn if seeds is None else np.vstack([seeds(encoder), drawn]):
            params = encoder.encoding.params(genes)
            key = history.proposed(params)
            if key not in taken:
                return Decision(params, key, rules.rungs[0], None)
        if len(alive) < 2:
            return None if len(alive) else _lowest(rules, history, encoder, rng)
    return _ladder(rules, history, busy | refused)


def _lowest(rules: Rules, history: History, encoder: Encoder, rng: np.random.Generator) -> Decision:
    """Nothing has succeeded and nothing else can be drawn: try something again."""
    params = encoder.encoding.params(encoder.encoding.random(rng, 1)[0])
    return Decision(params, history.proposed(params), rules.rungs[0], None)


def _ladder(rules: Rules, history: History, busy: set[str] | frozenset[str]) -> Decision | None:
    """Continue one of the first complete trainings, or start one."""
    last, first = rules.rungs[-1], rules.rungs[0]
    alive = [key for key in history.points if key not in history.failed and any(p.feasible for p in history.points[key].values())]
    running_up = {claim.key for claim in history.running if claim.epochs > first}
    climbed = {key for key in alive if max(history.points[key]) > first} | running_up
    reached = {key: history.trained_to(key, resume=rules.resume) for key in alive}
    complete = {key for key in alive if reached[key] >= last or key in history.finished}
    if len(complete) >= rules.ladders:
        return None
    on_the_way = [key for key in alive if key in climbed and key not in complete and key not in busy]
    if len(climbed) < rules.ladders:
        sign = -1.0 if rules.minimized[0] else 1.0
        cheap = 1.0 if rules.minimized[1] else -1.0
        fresh = [key for key in alive if key not in climbed | complete | busy and first in history.points[key]]
        fresh.sort(key=lambda key: -sign * history.points[key][first].values[0])
        if fresh and (climbed or rules.ladders == 1):
            fresh = sorted(fresh[: max(1, len(fresh) // 2)], key=lambda key: cheap * history.points[key][first].values[1])
        on_the_way += fresh[:1]
    if not on_the_way:
        return None
    key = on_the_way[0]
    point = history.longest(key)
    assert point is not None
    epochs = next(rung for rung in rules.rungs if rung > reached[key])
    return Decision(history.params[key], key, epochs, point.number if history.goes_on(key, resume=rules.resume) else None)
