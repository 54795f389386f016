"""Rank correlation with an honest p-value for few points."""

from __future__ import annotations

from itertools import permutations

#: Up to this many pairs every order is tried; 8! = 40,320.
EXACT = 8


def spearman(pairs: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Spearman's rank correlation and its two-sided p-value; None where fewer than 3 pairs or a constant allow none.

    With up to ``EXACT`` pairs the p-value is the share of all orders that correlate as strongly; beyond, that of the t distribution.

    Args:
        pairs: Points ``(x, y)``.
    """
    if len(pairs) < 3 or any(len({pair[side] for pair in pairs}) < 2 for side in (0, 1)):
        return None, None
    import numpy as np
    from scipy.stats import rankdata, spearmanr

    x, y = np.array(pairs, dtype=float).T
    found = spearmanr(x, y)
    rho = float(found.statistic)
    if len(pairs) > EXACT:
        return rho, float(found.pvalue)
    ranks = rankdata(x) - (len(x) + 1) / 2
    orders = np.array(list(permutations(rankdata(y) - (len(y) + 1) / 2)))
    strength = np.abs(orders @ ranks)
    here = abs(float((rankdata(y) - (len(y) + 1) / 2) @ ranks))
    return rho, float((strength >= here - 1e-9).mean())
