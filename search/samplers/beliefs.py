"""What is believed of a quality before it is measured, and how far measurements were off: beliefs are held to account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Before anything is measured the models are thought to be off like so many measurements with this mean square of their z-scores: on few
#: measurements they are too sure of themselves. Bias counts as zero on so many.
_TRUST, _FIRST_SQUARE, _UNBIASED = 6.0, 2.0, 10.0
#: The latest measurements count; a single one counts at most like so many standard deviations.
_WINDOW, _LARGEST = 40, 5.0
#: Beliefs are widened or narrowed at most so far.
_RANGE = (0.7, 4.0)


@dataclass(frozen=True)
class Belief:
    """What a measured quality is expected to be, its noise included: Gaussian with ``mean`` and ``sd`` after the output transform.

    The transform of a quality ``v``, to be maximised, is ``-log((limit - v) / scale)``, or ``v`` itself without a ``limit``. From ``best``
    on, the best quality so far, it goes straight on: how near the limit is was a guess, which measurements may pass. ``sign`` is -1
    where the user's quality is minimised. ``sd`` is that of the models, which ``inflation`` multiplies;
    ``bias`` is how many of these standard deviations of the models a pick is below what they expect.
    """

    mean: float
    sd: float
    limit: float | None
    scale: float
    sign: float
    inflation: float = 1.0
    bias: float = 0.0
    best: float | None = None

    def z_score(self, quality: float) -> float:
        """Return how many standard deviations a quality, in the user's unit, lies above its expectation."""
        return (self.raw_z_score(quality) - self.bias) / self.inflation

    def raw_z_score(self, quality: float) -> float:
        """Return the z-score by what the models alone believe."""
        value = self.sign * quality
        if self.limit is not None:
            best = self.limit - 1e-6 * self.scale if self.best is None else self.best
            left, beyond = self.limit - min(value, best), 0.0 if self.best is None else max(value - best, 0.0)
            value = -float(np.log(left / self.scale)) + beyond / left
        return (value - self.mean) / self.sd


def inflation(surprises: Sequence[tuple[bool, float]], *, fresh: bool) -> float:
    """Return by how much the spread of fresh configurations, or of continuations, turned out larger than the models believe.

    ``surprises`` are as in ``History``. The factor is the root mean square of the latest z-scores, shrunk towards 1: what is chosen is what
    the models are too sure of, which no fit to the measurements shows.
    """
    recent = [z for was_fresh, z in surprises if was_fresh == fresh][-_WINDOW:]
    squares = float(np.sum(np.clip(recent, -_LARGEST, _LARGEST) ** 2))
    return float(np.clip(np.sqrt((_TRUST * _FIRST_SQUARE + squares) / (_TRUST + len(recent))), *_RANGE))


def bias(surprises: Sequence[tuple[bool, float]], *, fresh: bool) -> float:
    """Return the mean z-score of fresh configurations, or of continuations, shrunk towards 0: the winner's curse of what is picked.

    It belongs to what is said of a pick; the others, which it was chosen from, have none.
    """
    recent = [z for was_fresh, z in surprises if was_fresh == fresh][-_WINDOW:]
    return float(np.clip(recent, -_LARGEST, _LARGEST).sum() / (_UNBIASED + len(recent)))
