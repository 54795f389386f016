"""Proposals that need no model: fresh configurations for it to score, the first trainings of a study, and a hedge against a wrong one.

Arms without a model share the budget with the model, by what each has earned per energy.
Three arms propose: ``model`` (expected improvement per energy), ``halving`` (random configurations, of which the best third by
non-dominated rank goes on, as in asynchronous successive halving) and ``mutation`` (a neighbour of a model on the front, trained as long as
that). Each of the latter two is sure of a floor; what is left goes by what the arms have added to the hypervolume per energy, lately more
than at first. An arm is due when it has had less of the energy than its share.

Sources: Li et al. 2020, "A system for massively parallel hyperparameter tuning" (arXiv 1810.05934), for the rule of promotion; Schmucker et
al. 2021, "Multi-objective asynchronous successive halving" (arXiv 2106.12639), for the rank; Hoffman, Brochu and de Freitas 2011,
"Portfolio allocation for Bayesian optimization" (arXiv 1009.5419), for a portfolio of acquisition functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .acquisition import Decision, SearchSettings, SearchState, added_volumes
from .encoding import Array, Encoder, Encoding, ObservationTable
from .history import History

MODEL, HALVING, MUTATION = "model", "halving", "mutation"
ARMS = (MODEL, HALVING, MUTATION)
#: One in so many goes on to the next rung, as everywhere in successive halving.
ETA = 3
#: The model has at least this share: arms that live on luck look good while everything is new.
MODEL_SHARE = 0.6
#: What an arm has added counts half after so large a share of the energy has been spent since.
HALF_LIFE = 0.25
#: Mutations that are tried until one is new.
_TRIES = 32
#: The initial design draws so many configurations at most before the space counts as exhausted.
_MAX_DRAWS = 64

#: Scores ``(n, size)`` genes, which become candidates for the next training; returns the acquisition value of each, ``(n,)``.
Score = Callable[[Array], Array]

#: So many of the best configurations are refined.
_REFINED = 8


@dataclass(frozen=True)
class ProposalContext:
    """What a proposal may use.

    Attributes:
        parents: Genes of good configurations, ``(m, size)``.
        fresh: Configurations to score at first; of the best, ``refined`` variations are scored in each of two further rounds.
        measured: Genes of all measured configurations, ``(c, size)``.
        regret: Quality that each of them lacks against the best that was not more expensive, ``(c,)``; 0 on the front.
        known: Whether a row of genes is a configuration that was measured, is running or failed; isomorphic ones included.
    """

    encoding: Encoding
    parents: Array
    fresh: int
    refined: int
    measured: Array = field(default_factory=lambda: np.zeros((0, 0)))
    regret: Array = field(default_factory=lambda: np.zeros(0))
    known: Callable[[Array], bool] = lambda genes: False


class Proposal(Protocol):
    """The seam for generators of fresh configurations."""

    def explore(self, context: ProposalContext, score: Score, rng: np.random.Generator) -> None:
        """Score configurations, about ``context.fresh + 2 * context.refined`` of them; any of them may be trained next.

        A proposal must not keep state between calls: then equal seeds give equal proposals, whichever worker decides.
        """


@dataclass(frozen=True)
class UniformEdits:
    """The default: mutations of good configurations with uniform choice of the parameter, and two rounds of refining the best."""

    def explore(self, context: ProposalContext, score: Score, rng: np.random.Generator) -> None:
        """Score random configurations and mutants, then mutants of the best."""
        genes = propose(context.encoding, context.parents, rng, context.fresh)
        rates = score(genes)
        for _ in range(2 if context.refined and context.encoding.size else 0):
            top = genes[np.argsort(-rates, kind="stable")[:_REFINED]]
            near = mutate(context.encoding, np.repeat(top, context.refined // _REFINED, 0), rng, widths=(0.02, 0.1), changes=2.0)
            genes, rates = np.vstack([genes, near]), np.r_[rates, score(near)]


#: The default proposal.
UNIFORM = UniformEdits()


def propose(encoding: Encoding, parents: Array, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` configurations: 40 % uniformly, 45 % mutants of the parents, 15 % mutated children of two of them.

    Without parents ``(m, size)`` everything is drawn uniformly.
    """
    if not len(parents) or not encoding.size:
        return encoding.random(rng, count)
    uniform, children = round(0.4 * count), round(0.15 * count)
    mutants = mutate(encoding, parents[rng.integers(len(parents), size=count - uniform - children)], rng)
    crossed = cross(encoding, parents, rng, children)
    return np.vstack([encoding.random(rng, uniform), mutants, mutate(encoding, crossed, rng)])


def cross(encoding: Encoding, parents: Array, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` children, every gene from one of two parents; not settled."""
    mothers, fathers = (parents[rng.integers(len(parents), size=count)] for _ in range(2))
    return np.where(rng.random(mothers.shape) < 0.5, encoding.fill(mothers, rng), encoding.fill(fathers, rng))


def mutate(
    encoding: Encoding, genes: Array, rng: np.random.Generator, *, widths: tuple[float, ...] = (0.05, 0.2), changes: float = 1.5
) -> Array:
    """Change a few genes of every row of ``(n, size)``, at least one and ``changes`` in the mean.

    ``widths`` are standard deviations of the steps of ordered parameters, as shares of their range; rows draw one of them.
    """
    genes = encoding.fill(genes, rng)
    n, size = genes.shape
    change = rng.random((n, size)) < min(1.0, changes / size)
    change[np.arange(n), rng.integers(size, size=n)] |= ~change.any(1)
    step = rng.normal(size=(n, size)) * rng.choice(widths, size=(n, 1))
    moved = np.clip(genes + step, 0.0, 1.0)
    choices = encoding.choices()
    categorical = choices > 0
    if categorical.any():
        shift = 1 + np.floor(rng.random((n, int(categorical.sum()))) * (choices[categorical] - 1))  # another choice than the present one
        moved[:, categorical] = (genes[:, categorical] + shift) % choices[categorical]
    return encoding.settle(np.where(change, moved, genes))


@dataclass(frozen=True)
class Earnings:
    """What the arms have had and brought: energy, and hypervolume per energy with what was lately counting more, ``(3,)`` each."""

    spent: Array
    rate: Array

    def shares(self, floor: float) -> Array:
        """Return the share of the energy that each arm is to have, ``(3,)``.

        Those without a model have the floor, and the model at least ``MODEL_SHARE``; the rest goes by the squares of the rates.
        """
        known = np.nan_to_num(self.rate) ** 2
        weights = known / known.sum() if known.sum() > 0 else np.array([1.0, 0.0, 0.0])
        return np.array([MODEL_SHARE, floor, floor]) + (1 - MODEL_SHARE - 2 * floor) * weights

    def due(self, floor: float) -> str:
        """Return the arm that is furthest behind its share; at first that which needs no model of learning curves."""
        total = self.spent.sum()
        return ARMS[int(np.argmax(self.shares(floor) * total - self.spent))] if total > 0 else HALVING


def earnings(state: SearchState) -> Earnings:
    """Replay the measurements of a study by the trial that made each, and add up energy and hypervolume by arm.

    Trials before the models were used belong to no arm; energy is in the user's unit, increments of what was resumed.
    """
    table, spent, gained = state.table, np.zeros(len(ARMS)), np.zeros(len(ARMS))
    paid = _increments(table)
    later = paid.sum() - np.cumsum(paid)  # energy that has been spent since
    decay = 0.5 ** (later / max(HALF_LIFE * paid.sum(), 1e-300))
    weighted = np.zeros(len(ARMS))
    counts = np.flatnonzero(table.feasible)
    gains = np.zeros(len(paid))
    gains[counts] = added_volumes(table.values[counts], state.reference)
    for row, number in enumerate(table.numbers):
        arm = state.history.arms.get(int(number))
        if arm is not None:
            index = ARMS.index(arm)
            spent[index] += paid[row]
            gained[index] += decay[row] * gains[row]
            weighted[index] += decay[row] * paid[row]
    return Earnings(spent, np.where(weighted > 0, gained / np.maximum(weighted, 1e-300), np.nan))


def _increments(table: ObservationTable) -> Array:
    """Energy that each measurement has cost, ``(n,)``: of a training that was resumed what came on top."""
    found = 10 ** -table.values[:, 1] if table.transform.logarithmic[1] else table.epochs.copy()
    order = np.lexsort((table.epochs, table.config))
    before, after = order[:-1], order[1:]
    resumed = (table.config[before] == table.config[after]) & table.resumable[table.config[after]]
    found[after[resumed]] = np.maximum(found[after] - found[before], 0.0)[resumed]
    return found


def halving_decision(settings: SearchSettings, state: SearchState, rng: np.random.Generator, taken: AbstractSet[str]) -> Decision | None:
    """Return the next training of successive halving: the best promotion that is open, the highest rung first, else a random configuration.

    A rung promotes its best by non-dominated rank, one for three measurements at it or above; among equals, the best quality goes on. What
    has gone on keeps its place in the rank.
    """
    table, history, rungs, ended = state.table, state.history, settings.rungs, state.history.ended()
    for lower, upper in reversed(list(pairwise(rungs))):
        rows = np.flatnonzero((table.epochs >= lower) & (table.epochs < upper) & table.feasible)
        here = np.union1d(rows, np.flatnonzero((table.epochs >= upper) & table.feasible))
        if not len(rows):
            continue
        promoted = len(here) // ETA - len(np.unique(table.config[table.epochs >= upper]))
        if promoted < 1:
            continue
        order = rows[np.lexsort((-table.values[rows, 0], nondominated_rank(table.values[rows])))]
        for row in order[:promoted]:
            key = table.keys[table.config[row]]
            if key in taken or key in ended or table.trained_to[table.config[row]] >= upper:
                continue
            resumable = history.resumable(key, resume=settings.resume)
            parent = history.longest(key)
            return Decision(history.params[key], key, upper, parent.number if resumable and parent else None, arm=HALVING)
    return _new(state.encoder.encoding.random(rng, _TRIES), rungs[0], HALVING, state, taken)


def mutation_decision(settings: SearchSettings, state: SearchState, rng: np.random.Generator, taken: AbstractSet[str]) -> Decision | None:
    """Return a neighbour of a random model on the front; where it can be continued it begins at the lowest rung, else as long as that."""
    table = state.table
    rows = np.flatnonzero(table.feasible & (table.values > state.reference).all(1))
    if not len(rows) or not state.encoder.encoding.size:
        return None
    rows = rows[nondominated_rank(table.values[rows]) == 0]
    row = int(rng.choice(rows))
    genes = mutate(state.encoder.encoding, np.repeat(table.genes[[table.config[row]]], _TRIES, 0), rng)
    epochs = (
        settings.rungs[0] if settings.resume else max(rung for rung in settings.rungs if rung <= max(table.epochs[row], settings.rungs[0]))
    )
    return _new(genes, int(epochs), MUTATION, state, taken)


def _new(genes: Array, epochs: int, arm: str, state: SearchState, taken: AbstractSet[str]) -> Decision | None:
    for row in genes:
        params = state.encoder.encoding.params(row)
        key = state.history.canonical_or_raw(params)
        if key not in state.history.observations and key not in taken:
            return Decision(params, key, epochs, None, arm=arm)
    return None


def nondominated_rank(points: Array) -> NDArray[np.int64]:
    """Return the rank of ``(n, d)`` points to be maximised, ``(n,)``: 0 on the front, 1 on the front of the rest, and so on."""
    import moocore

    return np.asarray(moocore.pareto_rank(points, maximise=True))


def initial_design(
    settings: SearchSettings,
    history: History,
    encoder: Encoder,
    rng: np.random.Generator,
    excluded: frozenset[str],
    warm_starts: Callable[[Encoder], Array] | None,
    withheld: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Decision | None:
    """Return the next training of the initial design; None when the models can take over.

    Random configurations at the lowest rung, those of earlier studies first; then ``settings.ladders`` complete trainings, rung by rung.
    Trainings that are running count as done, those that failed are replaced. ``warm_starts`` gives the genes of good configurations of
    earlier studies; those whose keys are ``excluded`` or that are ``withheld`` are not chosen.
    """
    running = {trial.key for trial in history.running}
    usable = history.observations.keys() - history.failed
    tried = history.observations.keys() | running | history.failed
    wanted = settings.startup if warm_starts is None else max(2, settings.startup // 2)
    if (len(usable | running) < wanted and len(tried) < 8 * wanted) or len(usable) < 2:
        drawn = encoder.encoding.random(rng, _MAX_DRAWS)
        for genes in drawn if warm_starts is None else np.vstack([warm_starts(encoder), drawn]):
            params = encoder.encoding.params(genes)
            if withheld is not None and withheld(params):
                continue
            key = history.canonical_or_raw(params)
            if key not in tried | excluded:
                return Decision(params, key, settings.rungs[0], None)
        if len(usable) < 2:
            return None if len(usable) else random_decision(settings.rungs[0], history, encoder, rng)
    return _ladder(settings, history, running | excluded)


def _ladder(settings: SearchSettings, history: History, unavailable: AbstractSet[str]) -> Decision | None:
    """Continue one of the first complete trainings, or start one; None when there are enough or none can be chosen.

    A single ladder starts from the cheapest of the better half. Of several, the first starts from the most accurate configuration, the
    others from the cheapest of the better half of the rest.
    """
    if not settings.ladders:
        return None
    last, first = settings.rungs[-1], settings.rungs[0]
    observations = history.observations
    usable = [key for key, points in observations.items() if key not in history.failed and any(p.feasible for p in points.values())]
    # What the study began with at a higher rung has only that one, and what ended before the first rung went on to it: neither is a
    # ladder, and may be far too expensive for one.
    climbed = {key for key in usable if sum(epochs >= first for epochs in observations[key]) > 1}
    climbed |= {trial.key for trial in history.running if trial.epochs > first and trial.key in observations}
    reached = {key: history.trained_to(key, resume=settings.resume) for key in usable}
    ended = history.ended()
    complete = {key for key in usable if reached[key] >= last or key in ended}
    if sum(reached[key] >= last or len(observations[key]) > 1 for key in complete) >= settings.ladders:  # not what is solved at once
        return None
    eligible = [key for key in usable if key in climbed and key not in complete and key not in unavailable]
    if len(climbed) < settings.ladders:
        sign = -1.0 if settings.minimized[0] else 1.0
        cheap = 1.0 if settings.minimized[1] else -1.0
        # Also what begins at a higher rung: else those alone were left that were ended early because they cost too much.
        shortest = {key: observations[key][min(observations[key])].values for key in usable}
        starts = [key for key in usable if key not in climbed | complete | unavailable]
        starts.sort(key=lambda key: -sign * shortest[key][0])
        if starts and (climbed or settings.ladders == 1):
            starts = sorted(starts[: max(1, len(starts) // 2)], key=lambda key: cheap * shortest[key][1])
        eligible += starts[:1]
    if not eligible:
        return None
    key = eligible[0]
    parent = history.longest(key)
    assert parent is not None
    epochs = next(rung for rung in settings.rungs if rung > reached[key])
    return Decision(history.params[key], key, epochs, parent.number if history.resumable(key, resume=settings.resume) else None)


def random_decision(epochs: int, history: History, encoder: Encoder, rng: np.random.Generator) -> Decision:
    """Draw any configuration, be it one that was tried: nothing else is left."""
    params = encoder.encoding.params(encoder.encoding.random(rng, 1)[0])
    return Decision(params, history.canonical_or_raw(params), epochs, None)
