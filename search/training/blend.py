"""A weighted mean of trained models behind scikit-learn's names, and which models to take: greedy selection on validation predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .estimator import SklearnLike, plain_scores

#: Models are added one after the other, with replacement, so often; the best prefix of that order is taken.
ROUNDS = 12


class Blend(SklearnLike):
    """Members whose probabilities, or values, are averaged by their weights; ``classes`` is the number of classes, 0 for values.

    ``members`` are fitted objects with scikit-learn's names, which may know some of the classes only; the weights sum to 1.
    """

    _params = ("members", "weights", "classes")

    def __init__(self, members: Sequence[Any] = (), weights: Sequence[float] = (), classes: int = 0) -> None:
        self.__setstate__({"members": list(members), "weights": np.asarray(weights, dtype=np.float64), "classes": int(classes)})

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.members, self.weights, self.classes = list(state["members"]), np.asarray(state["weights"]), int(state["classes"])
        self._ready()

    def _values(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum([weight * plain_scores(one, X).reshape(-1) for one, weight in self._pairs()], axis=0))

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        found = np.zeros((len(X), self.classes))
        for one, weight in self._pairs():
            found[:, np.asarray(one.classes_, dtype=int)] += weight * plain_scores(one, X)
        return found

    def _pairs(self) -> list[tuple[Any, float]]:
        return list(zip(self.members, self.weights.tolist(), strict=True))


def greedy(scores: Sequence[np.ndarray], value: Callable[[np.ndarray], Any], most: int, rounds: int = ROUNDS) -> dict[int, int]:
    """Return how often each model counts in the mean that is best by ``value``, by its place in ``scores``, at most so many models.

    ``value`` takes mean scores and returns something that is greater for better ones.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", with replacement.

    >>> greedy([np.array([0.0]), np.array([1.0])], lambda mean: -abs(float(mean[0]) - 0.5), most=2)
    {0: 1, 1: 1}
    """
    counts: dict[int, int] = {}
    kept: dict[int, int] = {}
    total, best = np.zeros_like(scores[0], dtype=np.float64), None
    for taken in range(rounds):
        allowed = list(counts) if len(counts) == most else range(len(scores))
        values = {k: value((total + scores[k]) / (taken + 1)) for k in allowed}
        added = max(values, key=lambda k: values[k])  # the first of equals
        counts[added] = counts.get(added, 0) + 1
        total = total + scores[added]
        if best is None or values[added] > best:
            best, kept = values[added], dict(counts)
    return kept


def cross_fitted(scores: Sequence[np.ndarray], choose: Callable[[np.ndarray], Mapping[int, int]], seed: int = 0) -> np.ndarray:
    """Return mean scores in which no example has taken part in choosing the members that score it: two halves choose for each other.

    ``choose`` takes the places of examples and returns how often each model counts.
    """
    order = np.random.default_rng(seed).permutation(len(scores[0]))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    found = np.zeros_like(scores[0], dtype=np.float64)
    for known, other in (halves, halves[::-1]):
        counts = choose(np.sort(known))
        found[other] = sum(count * scores[k][other] for k, count in counts.items()) / sum(counts.values())
    return found
