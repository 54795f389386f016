"""Fresh configurations worth scoring: random ones, mutants of good ones and their children."""

from __future__ import annotations

import numpy as np

from .encoding import Array, Encoding


def propose(encoding: Encoding, parents: Array, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` configurations: 40 % uniformly, 45 % mutants of the parents, 15 % mutated children of two of them.

    Args:
        encoding: The space.
        parents: Genes of good configurations, ``(m, size)``; without any, everything is drawn uniformly.
        rng: Source of randomness.
        count: Number of rows.
    """
    if not len(parents) or not encoding.size:
        return encoding.random(rng, count)
    uniform, children = round(0.4 * count), round(0.15 * count)
    mutants = mutate(encoding, parents[rng.integers(len(parents), size=count - uniform - children)], rng)
    mothers, fathers = (parents[rng.integers(len(parents), size=children)] for _ in range(2))
    crossed = np.where(rng.random(mothers.shape) < 0.5, encoding.fill(mothers, rng), encoding.fill(fathers, rng))
    return np.vstack([encoding.random(rng, uniform), mutants, mutate(encoding, crossed, rng)])


def mutate(
    encoding: Encoding, genes: Array, rng: np.random.Generator, *, widths: tuple[float, ...] = (0.05, 0.2), changes: float = 1.5
) -> Array:
    """Change a few genes of every row, at least one.

    Args:
        encoding: The space.
        genes: ``(n, size)``.
        rng: Source of randomness.
        widths: Standard deviations of the steps of ordered parameters, as shares of their range; rows draw one of them.
        changes: Mean number of genes that change.
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
