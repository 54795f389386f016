"""The single edits of a space: another choice of one parameter, or a step up or down.

A distribution over chains of edits of a configuration, and how it is fitted to the chains that ended well.

Which edit comes next is a softmax over all of them, linear in the present values of the configuration; so is whether the chain stops. A
fitted policy maximises the likelihood of observed chains with importance weights, so that from each start it approaches the distribution
``base(chain) * exp(score(end) / temperature)`` of all chains, whichever policy drew them.

Source: the idea of Dai et al. 2020, "Learning discrete energy-based models via auxiliary-variable local exploration" (arXiv 2011.05363):
a sampler that starts from data and learns the local edits that lead to low energy. There a network learns over a whole training; here a
linear policy is fitted anew at every decision, from a few hundred chains, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .encoding import Array, Encoding

#: Longest chain of edits.
MAX_EDITS = 4
#: Without knowledge a chain stops with this probability after each edit: 1.9 edits on average.
_STOP = 0.5


@dataclass(frozen=True)
class Edits:
    """The single edits of a space.

    Args:
        encoding: The space.
    """

    encoding: Encoding

    @cached_property
    def gene(self) -> NDArray[np.int64]:
        """Parameter that each edit changes, ``(a,)``."""
        return np.asarray(np.repeat(np.arange(self.encoding.size), self._count), dtype=np.int64)

    @cached_property
    def value(self) -> Array:
        """Choice that it sets; -1 or 1, the direction, where the parameter is ordered, ``(a,)``."""
        choices = self.encoding.choices()
        return np.asarray(np.concatenate([np.arange(c) if c else np.array([-1, 1]) for c in choices]), dtype=float)

    @cached_property
    def ordered(self) -> NDArray[np.bool_]:
        """Whether the parameter is ordered, ``(a,)``."""
        return np.asarray(self.encoding.choices()[self.gene] == 0)

    @cached_property
    def base(self) -> Array:
        """Logarithm of the unlearned probability of each edit and, last, of the stop, ``(a + 1,)``: parameters uniformly, then values."""
        choices = self.encoding.choices()
        others = np.where(choices > 0, choices - 1, 2)[self.gene]
        return np.asarray(np.r_[-np.log(others * self.encoding.size), np.log(_STOP / (1 - _STOP))])

    @property
    def _count(self) -> NDArray[np.int64]:
        choices = self.encoding.choices()
        return np.where(choices > 0, choices, 2)

    def allowed(self, genes: Array, edited: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
        """Tell which edits change something, and whether the chain may stop, ``(n, a + 1)``.

        Args:
            genes: Settled configurations, ``(n, size)``.
            edited: Parameters that the chain has changed already, ``(n, size)``.
            step: Edits made so far.
        """
        here = genes[:, self.gene]
        possible = ~np.isnan(here) & ~edited[:, self.gene]
        limit = np.where(self.value < 0, here > 0.0, here < 1.0)
        possible &= np.where(self.ordered, limit, here != self.value)
        # A configuration without any edit left stops.
        return np.column_stack([possible, np.full(len(genes), step > 0) | ~possible.any(1)])

    def features(self, genes: Array, step: int) -> Array:
        """Describe configurations to the policy: a one, the edits made so far and the present values, ``(n, 1 + MAX_EDITS + columns)``."""
        columns = self.encoding.columns(genes) - np.where(self.encoding.numeric_columns, 0.5, 0.0)
        made = np.zeros((len(genes), MAX_EDITS))
        made[:, step] = 1.0
        # One of many present values says little by itself.
        return np.column_stack([np.ones(len(genes)), made, columns / np.sqrt(max(1, self.encoding.size))])

    def apply(self, genes: Array, action: NDArray[np.int64], rng: np.random.Generator, widths: tuple[float, ...]) -> Array:
        """Make one edit in each row; not settled."""
        rows, gene = np.arange(len(genes)), self.gene[action]
        length = np.abs(rng.normal(size=len(genes))) * rng.choice(widths, size=len(genes))
        moved = np.clip(genes[rows, gene] + self.value[action] * length, 0.0, 1.0)
        changed = genes.copy()
        changed[rows, gene] = np.where(self.ordered[action], moved, self.value[action])
        return changed

    def towards(self, rank: Array, genes: Array, ends: Array) -> NDArray[np.int64]:
        """Return the edit of the parameter with the least rank that brings each row to its end, ``(n,)``.

        Args:
            rank: ``(n, size)``; infinite for parameters that stay.
            genes: ``(n, size)``.
            ends: ``(n, size)``.
        """
        rows, gene = np.arange(len(genes)), rank.argmin(1)
        end = ends[rows, gene]
        offset = np.where(self.encoding.choices()[gene] > 0, end, end > genes[rows, gene])
        return np.asarray(np.cumsum(np.r_[0, self._count])[gene] + offset, dtype=np.int64)


#: At so many of the steps an edit of the unlearned policy is made: what was once without success stays possible, and weights bounded.
_EXPLORE = 0.2
#: Importance ratios are cut off at this logarithm.
_MAX_RATIO = 3.0
#: Chains of less than this share of the largest weight are not learned from.
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True)
class Steps:
    """Single decisions of chains.

    Attributes:
        chain: Chain that each belongs to, ``(s,)``.
        features: What the policy knew, ``(s, d)``.
        allowed: ``(s, a + 1)``.
        action: Edit, or the last for the stop, ``(s,)``.
    """

    chain: NDArray[np.int64]
    features: Array
    allowed: NDArray[np.bool_]
    action: NDArray[np.int64]


@dataclass(frozen=True)
class Chains:
    """Chains of edits.

    Attributes:
        ends: Settled configurations, ``(n, size)``.
        steps: Their decisions.
        log_ratio: Logarithm of the unlearned probability of each chain over that of the policy that drew it, ``(n,)``.
    """

    ends: Array
    steps: Steps
    log_ratio: Array


@dataclass(frozen=True)
class Policy:
    """Which edit comes next.

    Args:
        edits: The edits.
        weights: ``(d, a + 1)``; None for the unlearned policy.
    """

    edits: Edits
    weights: Array | None = None

    def log_probabilities(self, context: Array, allowed: NDArray[np.bool_]) -> Array:
        """Return the logarithm of the probability of every edit and of the stop, ``(n, a + 1)``."""
        logits = self.edits.base + (0.0 if self.weights is None else context @ self.weights)
        logits = np.where(allowed, logits, -np.inf)
        logits -= logits.max(1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    def draw(self, starts: Array, rng: np.random.Generator, widths: tuple[float, ...]) -> Chains:
        """Draw a chain from each start, ``(n, size)``.

        Args:
            starts: Configurations, settled or not.
            rng: Source of randomness.
            widths: Standard deviations of the steps of ordered parameters, as shares of their range; edits draw one of them.
        """
        edits, encoding, unlearned = self.edits, self.edits.encoding, Policy(self.edits)
        stop, genes = len(edits.gene), encoding.fill(starts, rng)
        edited, ratio, going = np.zeros(genes.shape, dtype=bool), np.zeros(len(genes)), np.arange(len(genes))
        steps = []
        for step in range(MAX_EDITS):
            settled = encoding.settle(genes[going])
            allowed, context = edits.allowed(settled, edited[going], step), edits.features(settled, step)
            base = unlearned.log_probabilities(context, allowed)
            chance = np.exp(base)
            if self.weights is not None:
                chance = _EXPLORE * chance + (1 - _EXPLORE) * np.exp(self.log_probabilities(context, allowed))
            action = (rng.random((len(going), 1)) * chance.sum(1, keepdims=True) >= chance.cumsum(1)).sum(1)
            action = np.where(allowed[np.arange(len(going)), np.minimum(action, stop)], action, chance.argmax(1))
            rows = np.arange(len(going))
            ratio[going] += base[rows, action] - np.log(chance[rows, action])
            steps.append(Steps(going, context, allowed, action))
            goes = action < stop
            going, action = going[goes], action[goes]
            if not len(going):
                break
            genes[going] = edits.apply(genes[going], action, rng, widths)
            edited[going, edits.gene[action]] = True
        return Chains(encoding.settle(genes), concatenate_steps(steps), np.clip(ratio, -_MAX_RATIO, _MAX_RATIO))


def concatenate_steps(steps: Sequence[Steps], counts: Sequence[int] | None = None) -> Steps:
    """Join decisions; chains of later parts are renumbered when there are ``counts`` of chains."""
    first = np.zeros(len(steps), dtype=np.int64) if counts is None else np.r_[0, np.cumsum(counts)[:-1]]
    chain = np.concatenate([part.chain + start for part, start in zip(steps, first, strict=True)])
    return Steps(
        chain,
        np.concatenate([part.features for part in steps]),
        np.concatenate([part.allowed for part in steps]),
        np.concatenate([part.action for part in steps]),
    )


def concatenate_chains(parts: Sequence[Chains]) -> Chains:
    """Join chains."""
    return Chains(
        np.concatenate([part.ends for part in parts]),
        concatenate_steps([part.steps for part in parts], [len(part.ends) for part in parts]),
        np.concatenate([part.log_ratio for part in parts]),
    )


def tilted_weights(scores: Array, ratio: Array, share: float) -> Array:
    """Weigh chains by ``exp(score / temperature + ratio)``, ``(n,)``, sum 1; those without a finite score get 0.

    The temperature is that at which so many chains count as ``share`` of those with a score, but at least 4: the effective sample size,
    one over the sum of squared weights. So neither unit nor scale of the scores matters.

    Args:
        scores: ``(n,)``, larger is better.
        ratio: Logarithm of importance ratios, ``(n,)``.
        share: In (0, 1].
    """
    finite = np.isfinite(scores)
    weights = np.zeros(len(scores))
    if not finite.any():
        return weights
    spread = float(np.ptp(scores[finite])) or 1.0
    height, ratio = (scores[finite] - scores[finite].max()) / spread, ratio[finite]

    def at(cold: float) -> Array:
        raw = cold * height + ratio
        raw = np.exp(raw - raw.max())
        return np.asarray(raw / raw.sum())

    wanted, low, high = max(4.0, share * finite.sum()), -3.0, 6.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (at(10**middle) ** 2).sum() > wanted else (low, middle)
    weights[finite] = at(10**low)
    return weights


def fit_policy(edits: Edits, chains: Chains, weights: Array, *, shrink: float = 1.0, iterations: int = 8) -> Policy:
    """Fit a policy to weighted chains.

    Args:
        edits: The edits.
        chains: Chains, ``n`` of them.
        weights: ``(n,)``, not negative; a chain of weight 1 counts as one that was seen once.
        shrink: Precision of the prior of the policy's weights, which draws them towards the unlearned policy.
        iterations: Most iterations of the optimiser.
    """
    steps, weight = chains.steps, weights[chains.steps.chain]
    kept = np.flatnonzero(weight > _MIN_WEIGHT * weights.max(initial=0.0))
    if not len(kept):
        return Policy(edits)
    context, allowed, action, weight = steps.features[kept], steps.allowed[kept], steps.action[kept], weight[kept]
    rows, shape = np.arange(len(kept)), (context.shape[1], len(edits.base))

    def loss(flat: Array) -> tuple[float, Array]:
        logs = Policy(edits, flat.reshape(shape)).log_probabilities(context, allowed)
        residual = weight[:, None] * np.exp(logs)
        residual[rows, action] -= weight
        return float(0.5 * shrink * flat @ flat - weight @ logs[rows, action]), (shrink * flat + (context.T @ residual).ravel())

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return Policy(edits, found.x.reshape(shape))
