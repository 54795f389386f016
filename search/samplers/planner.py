"""Choosing the next training: the largest expected hypervolume improvement (EHVI) per unit of energy still to pay.

Every configuration, paused or fresh, is scored at every rung. The most promising ones are valued a second time with the option to stop
early, see `acquisition`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .acquisition import COST_FLOOR, Decision, ScoredCandidates, SearchSettings, SearchState, boxes_above, front_of, lookahead_rates
from .encoding import Array, Encoder, ObservationTable, tabulate
from .history import Belief, History
from .proposals import MODEL, UNIFORM, Proposal, ProposalContext
from .surrogates import Predictions, SurrogateModels

#: Random configurations whose predicted complete trainings give the reference point and the median cost.
_REFERENCE_SAMPLE = 200
#: Quantile of their quality that stands for the lowest useful one.
_FLOOR_QUANTILE = 0.1
#: The reference lies beyond the dearest training by this share of the range of costs, and by so many decades at least: a complete training
#: is worth something also where all configurations cost the same.
_MARGIN, _MARGIN_DECADES = 0.05, 0.05
#: At most so many paused configurations are scored: those closest to the front.
_MAX_PAUSED = 150
#: At most so many of the best configurations are valued with the option to stop early.
_MAX_LOOKED_AHEAD = 24
#: A decision scores so many fresh configurations, and so many variations of the best in each of two further rounds.
_FRESH, _VARIATIONS = 240, 64
#: User-defined features take longer than everything else: with them both numbers are divided by this.
_FEATURES_DIVISOR = 2
#: Of so many of the best candidates several are decided on at once: two tell about the same where the model's correlation between their
#: configurations is larger than this, and none has less than this share of the best one's rate.
_MAX_RANKED, _ALIKE, _WORTHWHILE = 48, 0.8, 0.3
#: What is less probable to be feasible no arm begins.
_HOPELESS = 0.2
#: An increment costs at least this share of the training from scratch, whatever the models predict.
MIN_INCREMENT = 0.01


@dataclass
class Planner:
    """Scores what could be trained next, by the surrogates of a study.

    ``warm_starts`` gives the genes of good configurations of earlier studies; ``paid`` tells of a configuration how much of its energy was
    paid already by others, in the user's unit, and ``withheld`` whether it must not be begun now. ``inflation`` is by how much the spread
    of fresh configurations, and of paused ones, turned out larger than the models believe, ``bias`` see ``Belief``.
    """

    settings: SearchSettings
    models: SurrogateModels
    warm_starts: Callable[[Encoder], Array] | None = None
    proposal: Proposal = UNIFORM
    paid: Callable[[Mapping[str, Any]], float] | None = None
    withheld: Callable[[Mapping[str, Any]], bool] | None = None
    inflation: tuple[float, float] = (1.0, 1.0)
    bias: tuple[float, float] = (0.0, 0.0)

    def fit(self, history: History, encoder: Encoder, rng: np.random.Generator) -> SearchState:
        """Fit the models to the history, add the running trainings at their expected values, and partition the objective space."""
        settings = self.settings
        self.inflation = history.inflation(fresh=True), history.inflation(fresh=False)
        self.bias = history.bias(fresh=True), history.bias(fresh=False)
        table = tabulate(history, encoder, settings.minimized, resume=settings.resume)
        failed = np.array([encoder.genes(key, history.params[key]) for key in sorted(history.failed - history.observations.keys())])
        self.models.fit(table, encoder, failed, rng)
        last = settings.rungs[-1]
        counts = table.feasible & ((table.epochs >= last) if settings.complete_only else True)
        points, margin = self._settled(table, counts)
        running = history.running
        if running:
            genes = encoder.encoding.settle(np.array([encoder.encoding.genes(trial.params) for trial in running]))
            epochs = np.array([trial.epochs for trial in running], dtype=float)
            fantasies = self.models.fantasize(encoder.columns(genes), epochs)
            some = fantasies[(epochs >= last) | (not settings.complete_only)]
            points, margin = np.vstack([points, some]), np.vstack([margin, some])
        random = encoder.encoding.random(rng, _REFERENCE_SAMPLE)
        quality, energy = self.models.predict_complete(encoder.columns(random))
        reference = self._reference(table, quality.mean[:, 0], quality.sd[:, 0], energy, rng)
        return SearchState(history, encoder, table, points, reference, boxes_above(margin, reference), float(np.median(energy)))

    def score(
        self, state: SearchState, rng: np.random.Generator, remaining: float | None = None, largest_step: float | None = None
    ) -> ScoredCandidates:
        """Score paused configurations and fresh ones.

        Left out are trainings that cost more than ``remaining``, in the user's unit, or the share ``largest_step`` of
        ``state.median_cost``.
        """
        table, history, encoder = state.table, state.history, state.encoder
        unavailable = {trial.key for trial in history.running} | history.failed
        done = unavailable | history.ended()
        open_ = np.flatnonzero(~self._closed(table).all(1))
        paused = np.array([i for i in open_ if table.keys[i] not in done], dtype=np.int64)
        paused = _closest_to_front(table, paused)
        divisor = 1 if encoder.features is None else _FEATURES_DIVISOR
        seen = history.observations.keys() | unavailable
        context = ProposalContext(
            encoder.encoding,
            self._parents(state),
            _FRESH // divisor,
            _VARIATIONS // divisor,
            table.genes,
            _regret(table),
            lambda genes: history.canonical_or_raw(encoder.encoding.params(genes)) in seen,
        )
        parts: list[ScoredCandidates] = []

        def rate_fresh(genes: Array) -> Array:
            parts.append(self._score(state, genes, np.full(len(genes), -1), remaining, largest_step))
            return parts[-1].best

        if len(paused):
            parts.append(self._score(state, table.genes[paused], paused, remaining, largest_step))
        self.proposal.explore(context, rate_fresh, rng)
        found = reduce(ScoredCandidates.concatenate, parts)
        self._look_ahead(state, found, np.inf if remaining is None else remaining)
        return found

    def ranked_rows(self, state: SearchState, candidates: ScoredCandidates) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """Yield row, key and parameters by falling rate, without duplicates and without what is measured, running or failed."""
        history = state.history
        seen = {trial.key for trial in history.running} | history.failed
        order = np.argsort(-candidates.best, kind="stable")
        order = order[np.isfinite(candidates.best[order])]
        for chunk in np.split(order, range(_MAX_RANKED, len(order), _MAX_RANKED)):
            for i, decoded in zip(chunk.tolist(), state.encoder.encoding.rows(candidates.genes[chunk]), strict=True):
                if candidates.config[i] >= 0:
                    key = state.table.keys[candidates.config[i]]
                    params = history.params[key]
                else:
                    params = decoded
                    key = history.canonical_or_raw(params)
                    if key in history.observations:
                        continue
                if key not in seen:
                    seen.add(key)
                    yield i, key, params

    def batch(self, state: SearchState, candidates: ScoredCandidates, excluded: AbstractSet[str], count: int) -> list[Decision]:
        """Return up to ``count`` decisions, the best first, of which no two would tell about the same: one fit serves them all."""
        ranked: list[tuple[int, str, Mapping[str, Any]]] = []
        for one in self.ranked_rows(state, candidates):
            if one[1] in excluded:
                continue
            if ranked and candidates.best[one[0]] < _WORTHWHILE * candidates.best[ranked[0][0]]:
                break
            ranked.append(one)
            if len(ranked) == (_MAX_RANKED if count > 1 else 1):
                break
        if not ranked:
            return []
        columns = state.encoder.columns(candidates.genes[np.array([row for row, _, _ in ranked])])
        open_ = np.ones(len(ranked), dtype=bool)
        found: list[Decision] = []
        while len(found) < count and open_.any():
            index = int(np.argmax(open_))
            found.append(self._decision(state, candidates, *ranked[index]))
            open_ &= self.models.quality.process.likeness(columns, columns[[index]])[:, 0] < _ALIKE
            open_[index] = False
        return found

    def _decision(self, state: SearchState, candidates: ScoredCandidates, i: int, key: str, params: Mapping[str, Any]) -> Decision:
        """Return the decision that a scored row stands for."""
        rungs = np.array(self.settings.rungs)
        config, target = int(candidates.config[i]), int(np.argmax(candidates.rate[i]))
        resumable = bool(state.table.resumable[config]) if config >= 0 else self.settings.resume
        parent = state.history.longest(key) if config >= 0 and resumable else None
        step = int((rungs <= state.table.trained_to[config]).sum()) if config >= 0 else 0
        return Decision(
            params,
            key,
            int(rungs[step if resumable else target]),
            None if parent is None else parent.number,
            float(candidates.gain[i, target]),
            float(candidates.cost[i, target]),
            float(candidates.step_cost[i, target]),
            self.belief(state, candidates.genes[i], step if resumable else target, fresh=config < 0),
            MODEL,
        )

    def belief(self, state: SearchState, genes: Array, rung: int, *, fresh: bool) -> Belief:
        """Return what the quality of one configuration, ``(size,)``, is expected to be when it is measured at a rung."""
        model = self.models.quality
        at = self.models.scaled(np.array([self.settings.rungs[rung]], dtype=float))
        found = model.predict(state.encoder.columns(genes[None]), at)
        sd = float(np.hypot(found.sd[0, 0], np.sqrt(self.models.noise_at(found.mean[0, 0], rung))))
        return Belief(
            model.mean + model.sd * float(found.mean[0, 0]),
            model.sd * sd,
            model.limit,
            model.scale,
            float(state.table.transform.signs[0]),
            self.inflation[0 if fresh else 1],
            self.bias[0 if fresh else 1],
            model.best,
        )

    def affordable(self, state: SearchState, decision: Decision, remaining: float | None) -> Decision | None:
        """Return the decision with its expected cost; None where it hardly is feasible, or costs more than remains."""
        table = state.table
        genes = table.genes[table.keys.index(decision.key)] if decision.key in table.keys else state.encoder.encoding.genes(decision.params)
        predictions = self.models.predict(state.encoder.columns(genes[None]))
        energy, rung = predictions.energy[0], self.settings.rungs.index(decision.epochs)
        if predictions.feasibility[0, rung] < _HOPELESS:
            return None
        paid = 10 ** -table.values[:, 1] if table.transform.logarithmic[1] else table.epochs
        done = 0.0 if decision.parent is None else float(paid[table.numbers == decision.parent][0])
        cost = max(float(energy[rung]) - done, MIN_INCREMENT * float(energy[0]))
        return replace(decision, cost=cost, step_cost=cost) if remaining is None or cost <= remaining else None

    def _settled(self, table: ObservationTable, counts: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Return the points of the front, and above where an improvement is more than noise, ``(m, k)`` each.

        A lucky measurement counts for what the models believe of it, none for more than was measured. What is better by less than a
        standard deviation of the noise is a tie: near copies of a trained configuration earn nothing.
        """
        points = table.values[counts].copy()
        mean, lifted = (found[counts] for found in self.models.believed(table))
        points[:, 0] = np.minimum(points[:, 0], mean[:, 0])
        return points, points + np.maximum(lifted - mean, 0.0)

    def _reference(self, table: ObservationTable, mean: Array, sd: Array, energy: Array, rng: np.random.Generator) -> Array:
        """Choose the reference point: the lowest useful quality, and a little more than a random complete training costs at most.

        The quality floor, unless the user has set one, is a low quantile of what random configurations are predicted to reach when they are
        trained completely.
        """
        best = float(table.values[:, 0].max())
        reference = table.values.min(0) - 1e-9
        if table.transform.logarithmic[1]:
            reference[1] = min(reference[1], -float(np.log10(energy.max())))
            reference[1] -= max(_MARGIN_DECADES, _MARGIN * float(table.values[:, 1].max() - reference[1]))
        if self.settings.quality_floor is not None:
            reference[0] = table.transform.signs[0] * self.settings.quality_floor
        else:
            sample = self.models.quality.values(mean + sd * rng.normal(size=len(mean)))
            reference[0] = float(np.quantile(sample, _FLOOR_QUANTILE))
        reference[0] = min(reference[0], best - 1e-6 * max(1.0, abs(best)))
        return np.asarray(reference)

    def _parents(self, state: SearchState) -> Array:
        """Configurations worth varying: those on the front, those predicted best when complete, and good ones of earlier studies."""
        table = state.table
        on_front = np.zeros(len(table.keys), dtype=bool)
        front = front_of(table.values[table.feasible]) if table.feasible.any() else table.values[:0]
        rows = np.flatnonzero(table.feasible)
        on_front[table.config[rows[(table.values[rows][:, None, :] == front[None]).all(2).any(1)]]] = True
        order = {int(i): None for i in np.flatnonzero(on_front)}
        near = _closest_to_front(table, np.arange(len(table.keys)))
        expected = self.models.quality.predict(table.columns[near], np.ones(1)).mean[:, 0]
        order |= {int(near[i]): None for i in np.argsort(-expected, kind="stable")[: max(6, len(near) // 8)]}
        parents = table.genes[list(order)]
        if self.warm_starts is None or not self.models.quality.supported:
            return parents
        return np.vstack([parents, self.warm_starts(state.encoder)])

    def _score(
        self, state: SearchState, genes: Array, config: NDArray[np.int64], remaining: float | None, largest_step: float | None
    ) -> ScoredCandidates:
        settings, table, encoding = self.settings, state.table, state.encoder.encoding
        predictions, (first, resumable) = self._predictions(state, genes, config), self.first_rung(table, config)
        rungs = np.array(settings.rungs, dtype=float)
        trained_to = np.where(config >= 0, table.trained_to[config], 0.0)
        gain = np.stack([state.boxes.expected_gain(self.models.marginals(predictions, r)) for r in range(len(rungs))], 1)
        gain = gain * predictions.feasibility
        if settings.complete_only:
            gain[:, :-1] = 0.0
        energy = 10 ** -table.values[table.longest_row[config], 1] if table.transform.logarithmic[1] else trained_to
        others = 0.0 if self.paid is None else np.array([self.paid(encoding.params(row)) for row in genes], dtype=float)
        paid = np.where((config >= 0) & resumable, energy, others)
        cost = np.maximum(predictions.energy - paid[:, None], MIN_INCREMENT * predictions.energy)
        rate = gain / (cost + COST_FLOOR * state.median_cost)
        excluded = (config >= 0)[:, None] & self._closed(table)[config]
        if remaining is not None:
            excluded |= cost > remaining
        if self.withheld is not None:
            withheld = [k < 0 and self.withheld(encoding.params(row)) for k, row in zip(config, genes, strict=True)]
            excluded |= np.array(withheld)[:, None]
        step_cost = np.where(resumable[:, None], cost[np.arange(len(cost)), np.minimum(first, len(rungs) - 1)][:, None], cost)
        if largest_step is not None:
            excluded |= step_cost > largest_step * state.median_cost
        rate = np.where(excluded, -np.inf, rate)
        return ScoredCandidates(genes, config, np.where(excluded, -np.inf, gain), cost, step_cost, rate)

    def _look_ahead(self, state: SearchState, candidates: ScoredCandidates, remaining: float) -> None:
        """Raise, in place, the rates of the most promising rows to what they are worth when the training may stop at a rung."""
        settings, last = self.settings, len(self.settings.rungs) - 1
        top = np.argsort(-candidates.best, kind="stable")[:_MAX_LOOKED_AHEAD]
        config, rate, cost = candidates.config[top], candidates.rate[top], candidates.cost[top]
        predictions = self._predictions(state, candidates.genes[top], config)
        first, resumable = self.first_rung(state.table, config)
        for rung, resume in product(range(last), (True, False)):
            rows = np.flatnonzero((resumable == resume) & ((first == rung) if resume else (first <= rung)))
            # A continuation is decided again at its next rung: its row keeps the target of the plan and only gains in rate.
            column = rate[rows].argmax(1) if resume else np.full(len(rows), rung)
            possible = np.isfinite(rate[rows, column])
            rows, column = rows[possible], column[possible]
            if not len(rows):
                continue
            found = lookahead_rates(
                self.models,
                state.boxes,
                predictions,
                rate,
                cost,
                rows=rows,
                first=rung,
                cost_floor=COST_FLOOR * state.median_cost,
                remaining=remaining,
                resume=resume,
                last_only=settings.complete_only,
            )
            rate[rows, column] = np.maximum(rate[rows, column], found)
        candidates.rate[top] = rate

    def _predictions(self, state: SearchState, genes: Array, config: NDArray[np.int64]) -> Predictions:
        return self.models.inflated(self.models.predict(state.encoder.columns(genes)), config < 0, self.inflation)

    def first_rung(self, table: ObservationTable, config: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the next rung of each row, -1 in ``config`` being a fresh one, and whether it is reached by resuming a checkpoint.

        Beyond the last rung there is none, and the number of rungs is returned.
        """
        trained_to = np.where(config >= 0, table.trained_to[config], 0.0)
        resumable = np.where(config >= 0, table.resumable[config], self.settings.resume)
        return (np.array(self.settings.rungs) <= trained_to[:, None]).sum(1), resumable

    def _closed(self, table: ObservationTable) -> NDArray[np.bool_]:
        """Return the rungs at which another training of a measured configuration tells nothing new, ``(c, r)``.

        A checkpoint has passed all that are shorter. Where each length is a training of its own, a shorter one is another model: cheaper,
        and known rather well.
        """
        rungs, longest = np.array(self.settings.rungs), table.epochs[table.longest_row][:, None]
        passed = table.resumable[:, None] | (rungs >= longest)
        passed[table.config] |= table.epochs[:, None] == rungs
        return np.asarray((rungs <= table.trained_to[:, None]) & passed)


def _closest_to_front(table: ObservationTable, configs: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(configs) <= _MAX_PAUSED:
        return configs
    return configs[np.sort(np.argsort(_regret(table)[configs], kind="stable")[:_MAX_PAUSED])]


def _regret(table: ObservationTable) -> Array:
    """Quality that the longest training of each configuration lacks against the best that was not more expensive, ``(c,)``."""
    by_cost = np.argsort(-table.values[:, 1], kind="stable")
    best_so_far = np.empty(len(by_cost))
    best_so_far[by_cost] = np.maximum.accumulate(table.values[by_cost, 0])
    return np.asarray((best_so_far - table.values[:, 0])[table.longest_row])
