"""What to train next: the training with the largest expected hypervolume gain per unit of energy still to pay.

What a training is worth when it may be stopped: see the next rung first, go on only if that pays.

The value of a plan "train to rung ``n``, look, and continue to ``t`` where that pays" is the expected gain over what is seen at ``n``,
divided by the energy that is expected to be paid. The best policy for such a ratio continues exactly where the further gain exceeds the
ratio times the further cost (Dinkelbach 1967, "On nonlinear fractional programming"), so a few fixed-point steps find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decisions import Decision, Options, Rules, Situation
from .ehvi import Boxes, boxes_above, front_of
from .encoding import Array
from .history import History
from .observations import Encoder, Table, tabulate
from .proposals import UNIFORM, Proposal, ProposalContext
from .surrogates import Models, View

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


#: At most so many paused configurations are scored: those closest to the front.
_MOST_PAUSED = 300
#: Plans that may stop early are valued for so many of the best configurations.
_LOOKED_AHEAD = 48


@dataclass
class Planner:
    """Scores what could be trained.

    Args:
        rules: How the study is searched.
        models: What is believed about it.
        seeds: Genes of good configurations of earlier studies.
        proposal: How fresh configurations are looked for.
    """

    rules: Rules
    models: Models
    seeds: Callable[[Encoder], Array] | None = None
    proposal: Proposal = UNIFORM

    def situation(self, history: History, encoder: Encoder, rng: np.random.Generator) -> Situation:
        """Fit the models and set up the hypervolume."""
        rules = self.rules
        table = tabulate(history, encoder, rules.minimized, resume=rules.resume)
        failed = np.array([encoder.genes(key, history.params[key]) for key in sorted(history.failed - history.points.keys())])
        self.models.fit(table, encoder, failed, rng)
        last = rules.rungs[-1]
        counts = table.feasible & ((table.epochs >= last) if rules.complete_only else True)
        points = table.values[counts]
        running = history.running
        if running:
            genes = encoder.encoding.settle(np.array([encoder.encoding.genes(claim.params) for claim in running]))
            epochs = np.array([claim.epochs for claim in running], dtype=float)
            imagined = self.models.imagine(encoder.columns(genes), epochs)
            points = np.vstack([points, imagined[(epochs >= last) | (not rules.complete_only)]])
        random = encoder.encoding.random(rng, 200)
        quality, energy = self.models.complete(encoder.columns(random))
        typical = float(np.median(energy))
        reference = self._reference(table, quality.mean[:, 0], quality.sd[:, 0], energy, rng)
        return Situation(table, points, reference, boxes_above(points, reference), typical)

    def _reference(self, table: Table, mean: Array, sd: Array, energy: Array, rng: np.random.Generator) -> Array:
        """Choose the reference point: a quality of use, and the most that a random complete training costs.

        The floor of the quality is the 10th percentile of what random configurations are believed to reach when trained completely.
        """
        best = float(table.values[:, 0].max())
        reference = table.values.min(0) - 1e-9
        if table.axes.logarithmic[1]:
            reference[1] = min(reference[1], -float(np.log10(energy.max())))
        if self.rules.floor is not None:
            reference[0] = table.axes.signs[0] * self.rules.floor
        elif self.rules.estimate_floor:
            reference[0] = float(np.quantile(self.models.quality.values(mean + sd * rng.normal(size=len(mean))), 0.1))
        reference[0] = min(reference[0], best - 1e-6 * max(1.0, abs(best)))
        return np.asarray(reference)

    def options(
        self,
        situation: Situation,
        history: History,
        encoder: Encoder,
        rng: np.random.Generator,
        remaining: float | None = None,
        largest_step: float | None = None,
    ) -> Options:
        """Score paused configurations and fresh ones."""
        table, rules = situation.table, self.rules
        busy = {claim.key for claim in history.running} | history.failed
        over = busy | history.finished
        paused = np.array(
            [i for i, key in enumerate(table.keys) if table.trained_to[i] < rules.rungs[-1] and key not in over], dtype=np.int64
        )
        paused = _closest_to_front(table, paused)
        scale = 1 if encoder.features is None else 4  # features take longer than everything else
        seen = history.points.keys() | busy
        ground = ProposalContext(
            encoder.encoding,
            self._parents(situation, encoder),
            rules.fresh // scale,
            rules.refined // scale,
            table.genes,
            _lack(table),
            lambda genes: history.proposed(encoder.encoding.params(genes)) in seen,
        )
        parts: list[Options] = []

        def score(genes: Array) -> Array:
            parts.append(self._score(situation, encoder, genes, np.full(len(genes), -1), remaining, largest_step))
            return parts[-1].best

        self.proposal.explore(ground, score, rng)
        found = reduce(Options.and_, parts)
        if not len(paused):
            return found
        return self._score(situation, encoder, table.genes[paused], paused, remaining, largest_step).and_(found)

    def open_rows(
        self, situation: Situation, options: Options, history: History, encoder: Encoder
    ) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """Go through options by falling rate: index, key and parameters; what is trained, running or listed before is left out."""
        seen = {claim.key for claim in history.running} | history.failed
        for i in np.argsort(-options.best, kind="stable"):
            if not np.isfinite(options.best[i]):
                return
            if options.config[i] >= 0:
                key = situation.table.keys[options.config[i]]
                params = history.params[key]
            else:
                params = encoder.encoding.params(options.genes[i])
                key = history.proposed(params)
                if key in history.points:
                    continue
            if key not in seen:
                seen.add(key)
                yield int(i), key, params

    def ranked(self, situation: Situation, options: Options, history: History, encoder: Encoder) -> Iterator[Decision]:
        """Turn scored options into decisions, the best first."""
        rungs = np.array(self.rules.rungs)
        for i, key, params in self.open_rows(situation, options, history, encoder):
            config, target = int(options.config[i]), int(np.argmax(options.rate[i]))
            goes_on = bool(situation.table.goes_on[config]) if config >= 0 else self.rules.resume
            longest = history.longest(key) if config >= 0 and goes_on else None
            step = int(np.flatnonzero(rungs > situation.table.trained_to[config])[0]) if config >= 0 else 0
            yield Decision(
                params,
                key,
                int(rungs[step if goes_on else target]),
                None if longest is None else longest.number,
                float(options.gain[i, target]),
                float(options.cost[i, target]),
                float(options.pays[i, target]),
            )

    def _parents(self, situation: Situation, encoder: Encoder) -> Array:
        """Configurations worth varying: those of the front, those believed best when complete, and good ones of earlier studies."""
        table = situation.table
        on_front = np.zeros(len(table.keys), dtype=bool)
        front = front_of(table.values[table.feasible]) if table.feasible.any() else table.values[:0]
        rows = np.flatnonzero(table.feasible)
        on_front[table.config[rows[(table.values[rows][:, None, :] == front[None]).all(2).any(1)]]] = True
        rank = {int(i): None for i in np.flatnonzero(on_front)}
        near = _closest_to_front(table, np.arange(len(table.keys)))
        expected = self.models.quality.predict(table.columns[near], np.ones(1)).mean[:, 0]
        rank |= {int(near[i]): None for i in np.argsort(-expected, kind="stable")[: max(6, len(near) // 8)]}
        parents = table.genes[list(rank)]
        return parents if self.seeds is None else np.vstack([parents, self.seeds(encoder)])

    def _score(
        self,
        situation: Situation,
        encoder: Encoder,
        genes: Array,
        config: NDArray[np.int64],
        remaining: float | None,
        largest_step: float | None,
    ) -> Options:
        """Expected gain and cost of training each configuration to each rung."""
        rules, table = self.rules, situation.table
        view = self.models.view(encoder.columns(genes))
        rungs = np.array(rules.rungs, dtype=float)
        goes_on = np.where(config >= 0, table.goes_on[config], rules.resume)
        current = np.where(config >= 0, table.trained_to[config], 0.0)
        gain = np.stack([situation.boxes.expected_gain(self.models.beliefs(view, r)) for r in range(len(rungs))], 1) * view.chance[:, None]
        if rules.complete_only:
            gain[:, :-1] = 0.0
        energy = 10 ** -table.values[table.longest_row[config], 1] if table.axes.logarithmic[1] else current
        paid = np.where((config >= 0) & goes_on, energy, 0.0)
        cost = np.maximum(view.energy - paid[:, None], 0.01 * view.energy)
        rate = gain / (cost + rules.least_cost * situation.typical) ** rules.per_joule
        done = rungs[None, :] <= current[:, None]
        if remaining is not None:
            done |= cost > remaining
        first = np.argmax(rungs[None, :] > current[:, None], 1)
        pays = np.where(goes_on[:, None], cost[np.arange(len(cost)), first][:, None], cost)
        if largest_step is not None:
            done |= pays > largest_step * situation.typical
        rate = np.where(done, -np.inf, rate)
        if rules.look_ahead and rules.per_joule == 1.0:
            self._look_ahead(situation, view, rate, cost, first, goes_on, np.inf if remaining is None else remaining)
        return Options(genes, config, np.where(done, -np.inf, gain), cost, pays, rate)

    def _look_ahead(
        self,
        situation: Situation,
        view: View,
        rate: Array,
        cost: Array,
        first: NDArray[np.int64],
        goes_on: NDArray[np.bool_],
        remaining: float,
    ) -> None:
        """Raise the rates of the most promising rows to what they are worth when the training may stop at a rung."""
        rules, last = self.rules, len(self.rules.rungs) - 1
        top = np.argsort(-rate.max(1), kind="stable")[:_LOOKED_AHEAD]
        for rung, resume in product(range(last), (True, False)):
            rows = top[(goes_on[top] == resume) & ((first[top] == rung) if resume else (first[top] <= rung))]
            # A continuation is decided again at its next rung: its row keeps the target of the plan and only gains in rate.
            column = rate[rows].argmax(1) if resume else np.full(len(rows), rung)
            possible = np.isfinite(rate[rows, column])
            rows, column = rows[possible], column[possible]
            if not len(rows):
                continue
            found = rates_with_option(
                self.models,
                situation.boxes,
                view,
                rate,
                cost,
                rows=rows,
                first=rung,
                least=rules.least_cost * situation.typical,
                remaining=remaining,
                resume=resume,
                last_only=rules.complete_only,
            )
            rate[rows, column] = np.maximum(rate[rows, column], found)


def _closest_to_front(table: Table, configs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the configurations whose longest training lacks least quality against the best that was not dearer."""
    if len(configs) <= _MOST_PAUSED:
        return configs
    return configs[np.sort(np.argsort(_lack(table)[configs], kind="stable")[:_MOST_PAUSED])]


def _lack(table: Table) -> Array:
    """Quality that the longest training of each configuration lacks against the best that was not dearer, ``(c,)``."""
    by_cost = np.argsort(-table.values[:, 1], kind="stable")
    best_so_far = np.empty(len(by_cost))
    best_so_far[by_cost] = np.maximum.accumulate(table.values[by_cost, 0])
    return np.asarray((best_so_far - table.values[:, 0])[table.longest_row])
