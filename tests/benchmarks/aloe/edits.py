"""Chains of single edits of a configuration, the policy that draws them, and how it is fitted to the chains that ended well.

An edit is another choice of one categorical parameter, or a step up or down of an ordered one.
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

from joulefront.search.samplers.encoding import Array, Encoding

#: Longest chain of edits.
MAX_EDITS = 4
#: The uniform policy stops with this probability after each edit: 1.9 edits on average.
_STOP = 0.5
#: Share of the uniform policy in the policy that draws: every edit stays possible, and importance weights stay bounded.
_EXPLORE = 0.2
#: Logarithms of importance ratios are clipped to this magnitude.
_MAX_LOG_RATIO = 3.0
#: Chains with less than this share of the largest weight are ignored.
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True)
class Edits:
    """The single edits of the space that an encoding describes."""

    encoding: Encoding

    @cached_property
    def gene(self) -> NDArray[np.int64]:
        """Index of the parameter that each edit changes, ``(a,)``."""
        return np.asarray(np.repeat(np.arange(self.encoding.size), self._count), dtype=np.int64)

    @cached_property
    def value(self) -> Array:
        """Choice that each edit sets; the direction, -1 or 1, where the parameter is ordered, ``(a,)``."""
        choices = self.encoding.choices()
        return np.asarray(np.concatenate([np.arange(c) if c else np.array([-1, 1]) for c in choices]), dtype=float)

    @cached_property
    def ordered(self) -> NDArray[np.bool_]:
        """Whether the parameter of each edit is ordered, ``(a,)``."""
        return np.asarray(self.encoding.choices()[self.gene] == 0)

    @cached_property
    def base(self) -> Array:
        """Logits of the uniform policy, ``(a + 1,)``: parameters uniformly, then values uniformly; last, the stop."""
        choices = self.encoding.choices()
        others = np.where(choices > 0, choices - 1, 2)[self.gene]
        return np.asarray(np.r_[-np.log(others * self.encoding.size), np.log(_STOP / (1 - _STOP))])

    @property
    def _count(self) -> NDArray[np.int64]:
        choices = self.encoding.choices()
        return np.where(choices > 0, choices, 2)

    def allowed(self, genes: Array, edited: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
        """Return which edits change something, and whether the chain may stop, ``(n, a + 1)``.

        ``genes`` are settled configurations, ``edited`` tells which parameters the chain has changed in its ``step``
        edits, both ``(n, size)``.
        """
        here = genes[:, self.gene]
        possible = ~np.isnan(here) & ~edited[:, self.gene]
        limit = np.where(self.value < 0, here > 0.0, here < 1.0)
        possible &= np.where(self.ordered, limit, here != self.value)
        # A configuration without any edit left stops.
        return np.column_stack([possible, np.full(len(genes), step > 0) | ~possible.any(1)])

    def features(self, genes: Array, step: int) -> Array:
        """Inputs of the policy: a constant, the number of edits so far and the present values, ``(n, 1 + MAX_EDITS + columns)``."""
        columns = self.encoding.columns(genes) - np.where(self.encoding.numeric_columns, 0.5, 0.0)
        made = np.zeros((len(genes), MAX_EDITS))
        made[:, step] = 1.0
        return np.column_stack([np.ones(len(genes)), made, columns / np.sqrt(max(1, self.encoding.size))])

    def apply(self, genes: Array, action: NDArray[np.int64], rng: np.random.Generator, widths: tuple[float, ...]) -> Array:
        """Make one edit in each row; the result is not settled."""
        rows, gene = np.arange(len(genes)), self.gene[action]
        length = np.abs(rng.normal(size=len(genes))) * rng.choice(widths, size=len(genes))
        moved = np.clip(genes[rows, gene] + self.value[action] * length, 0.0, 1.0)
        changed = genes.copy()
        changed[rows, gene] = np.where(self.ordered[action], moved, self.value[action])
        return changed

    def towards(self, rank: Array, genes: Array, ends: Array) -> NDArray[np.int64]:
        """Return the edit of the parameter with the least rank that brings each row to its end, ``(n,)``.

        The rank is infinite for parameters that stay; all arguments are ``(n, size)``.
        """
        rows, gene = np.arange(len(genes)), rank.argmin(1)
        end = ends[rows, gene]
        offset = np.where(self.encoding.choices()[gene] > 0, end, end > genes[rows, gene])
        return np.asarray(np.cumsum(np.r_[0, self._count])[gene] + offset, dtype=np.int64)


@dataclass(frozen=True)
class Steps:
    """The steps of some chains.

    Attributes:
        chain: Index of the chain of each step, ``(s,)``.
        features: Inputs of the policy, ``(s, d)``.
        allowed: Actions that were possible, ``(s, a + 1)``.
        action: Index of the edit, or of the stop (the last), ``(s,)``.
    """

    chain: NDArray[np.int64]
    features: Array
    allowed: NDArray[np.bool_]
    action: NDArray[np.int64]


@dataclass(frozen=True)
class Chains:
    """Chains of edits.

    They end at settled configurations ``ends (n, size)``. ``log_ratio (n,)`` is the logarithm of the probability under the uniform policy
    over that under the drawing policy.
    """

    ends: Array
    steps: Steps
    log_ratio: Array


@dataclass(frozen=True)
class Policy:
    """A log-linear policy over edits and the stop, with weights ``(d, a + 1)``; None for the uniform policy."""

    edits: Edits
    weights: Array | None = None

    def log_probabilities(self, features: Array, allowed: NDArray[np.bool_]) -> Array:
        """Return the log-probability of every edit and of the stop, ``(n, a + 1)``."""
        logits = self.edits.base + (0.0 if self.weights is None else features @ self.weights)
        logits = np.where(allowed, logits, -np.inf)
        logits -= logits.max(1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    def draw(self, starts: Array, rng: np.random.Generator, widths: tuple[float, ...]) -> Chains:
        """Draw a chain from each start, ``(n, size)``.

        ``widths`` are standard deviations of the steps of ordered parameters, as shares of their range; edits draw one of them.
        """
        edits, encoding, uniform = self.edits, self.edits.encoding, Policy(self.edits)
        stop, genes = len(edits.gene), encoding.fill(starts, rng)
        edited, log_ratio, active = np.zeros(genes.shape, dtype=bool), np.zeros(len(genes)), np.arange(len(genes))
        steps = []
        for step in range(MAX_EDITS):
            settled = encoding.settle(genes[active])
            allowed, features = edits.allowed(settled, edited[active], step), edits.features(settled, step)
            base = uniform.log_probabilities(features, allowed)
            probability = np.exp(base)
            if self.weights is not None:
                probability = _EXPLORE * probability + (1 - _EXPLORE) * np.exp(self.log_probabilities(features, allowed))
            action = (rng.random((len(active), 1)) * probability.sum(1, keepdims=True) >= probability.cumsum(1)).sum(1)
            action = np.where(allowed[np.arange(len(active)), np.minimum(action, stop)], action, probability.argmax(1))
            rows = np.arange(len(active))
            log_ratio[active] += base[rows, action] - np.log(probability[rows, action])
            steps.append(Steps(active, features, allowed, action))
            proceed = action < stop
            active, action = active[proceed], action[proceed]
            if not len(active):
                break
            genes[active] = edits.apply(genes[active], action, rng, widths)
            edited[active, edits.gene[action]] = True
        return Chains(encoding.settle(genes), concatenate_steps(steps), np.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def concatenate_steps(steps: Sequence[Steps], counts: Sequence[int] | None = None) -> Steps:
    """Concatenate steps; with ``counts`` of chains, the chains of later parts are renumbered."""
    first = np.zeros(len(steps), dtype=np.int64) if counts is None else np.r_[0, np.cumsum(counts)[:-1]]
    chain = np.concatenate([part.chain + start for part, start in zip(steps, first, strict=True)])
    return Steps(chain, *(np.concatenate([getattr(part, name) for part in steps]) for name in ("features", "allowed", "action")))


def concatenate_chains(parts: Sequence[Chains]) -> Chains:
    """Concatenate chains."""
    return Chains(
        np.concatenate([part.ends for part in parts]),
        concatenate_steps([part.steps for part in parts], [len(part.ends) for part in parts]),
        np.concatenate([part.log_ratio for part in parts]),
    )


def tilted_weights(scores: Array, log_ratio: Array, share: float) -> Array:
    """Weigh chains by ``exp(score / temperature + log_ratio)``, ``(n,)``, sum 1; those without a finite score get 0.

    The temperature is the one at which the effective sample size (one over the sum of squared weights) is ``share`` of the chains with a
    score, but at least 4. So neither unit nor scale of the scores matters.
    Larger scores ``(n,)`` are better; ``log_ratio (n,)`` are logarithms of importance ratios, ``share`` is in (0, 1].
    """
    finite = np.isfinite(scores)
    weights = np.zeros(len(scores))
    if not finite.any():
        return weights
    spread = float(np.ptp(scores[finite])) or 1.0
    height, log_ratio = (scores[finite] - scores[finite].max()) / spread, log_ratio[finite]

    def at(inverse_temperature: float) -> Array:
        raw = inverse_temperature * height + log_ratio
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

    ``weights (n,)`` are not negative; a chain of weight 1 counts as one that was seen once. ``shrink`` is the precision of the prior of the
    policy's weights, which shrinks them towards the uniform policy.
    """
    steps, weight = chains.steps, weights[chains.steps.chain]
    kept = np.flatnonzero(weight > _MIN_WEIGHT * weights.max(initial=0.0))
    if not len(kept):
        return Policy(edits)
    features, allowed, action, weight = steps.features[kept], steps.allowed[kept], steps.action[kept], weight[kept]
    rows, shape = np.arange(len(kept)), (features.shape[1], len(edits.base))

    def loss(flat: Array) -> tuple[float, Array]:
        logs = Policy(edits, flat.reshape(shape)).log_probabilities(features, allowed)
        residual = weight[:, None] * np.exp(logs)
        residual[rows, action] -= weight
        return float(0.5 * shrink * flat @ flat - weight @ logs[rows, action]), (shrink * flat + (features.T @ residual).ravel())

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return Policy(edits, found.x.reshape(shape))
