"""The single edits of a space: another choice of one parameter, or a step up or down."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .encoding import Array, Encoding

#: Longest chain of edits.
MOST_EDITS = 4
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

    def context(self, genes: Array, step: int) -> Array:
        """Describe configurations to the policy: a one, the edits made so far and the present values, ``(n, 1 + MOST_EDITS + columns)``."""
        columns = self.encoding.columns(genes) - np.where(self.encoding.numeric_columns, 0.5, 0.0)
        made = np.zeros((len(genes), MOST_EDITS))
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
