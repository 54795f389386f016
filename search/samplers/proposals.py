"""Generating fresh configurations to score: random ones, mutants of good ones, and children of two good ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .encoding import Array, Encoding

#: Scores ``(n, size)`` genes, which become candidates for the next training; returns the acquisition value of each, ``(n,)``.
Score = Callable[[Array], Array]

#: So many of the best configurations are refined.
_REFINED = 8


@dataclass(frozen=True)
class ProposalContext:
    """What a proposal may use.

    Attributes:
        encoding: The space.
        parents: Genes of good configurations, ``(m, size)``.
        fresh: Configurations to score at first.
        refined: Variations of the best of them to score in each of two further rounds.
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
        """Score configurations, about ``context.fresh + 2 * context.refined`` of them.

        A proposal must not keep state between calls: then equal seeds give equal proposals, whichever worker decides.
        Whatever ``score`` is called with may be trained next.
        """
        ...


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
