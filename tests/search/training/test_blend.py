"""Means of models and the choice of their members, against slow obvious ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier

from joulefront.search.training.blend import Blend, cross_fitted, greedy


def test_a_blend_is_the_weighted_mean_also_of_members_that_know_some_classes_only():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 3
    whole, some = LogisticRegression().fit(X, y), DecisionTreeClassifier(max_depth=2).fit(X[y != 1], y[y != 1])
    blend = Blend([whole, some], [0.75, 0.25], 3)
    wanted = 0.75 * whole.predict_proba(X)
    wanted[:, [0, 2]] += 0.25 * some.predict_proba(X)
    assert np.allclose(blend.predict_proba(X), wanted)
    assert (blend.predict(X) == wanted.argmax(axis=1)).all()


def test_a_blend_of_values_has_no_probabilities():
    X, y = np.arange(8.0).reshape(-1, 1), np.arange(8.0)
    blend = Blend([Ridge(1.0).fit(X, y), Ridge(9.0).fit(X, y)], [0.5, 0.5])
    assert not hasattr(blend, "predict_proba")
    assert blend.predict(X) == pytest.approx((Ridge(1.0).fit(X, y).predict(X) + Ridge(9.0).fit(X, y).predict(X)) / 2)


def test_greedy_selection_takes_at_most_so_many_models_and_is_never_below_the_best_alone():
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=200)
    scores = [wanted + rng.normal(scale=1 + 0.1 * k, size=200) for k in range(6)]

    def value(mean: np.ndarray) -> float:
        return -float(np.mean((mean - wanted) ** 2))

    counts = greedy(scores, value, most=3)
    mean = sum(count * scores[k] for k, count in counts.items()) / sum(counts.values())
    assert 1 < len(counts) <= 3
    assert value(mean) > max(map(value, scores))


def test_no_example_takes_part_in_choosing_what_scores_it():
    scores = [np.zeros(10), np.ones(10)]
    seen: list[set[int]] = []

    def choose(places: np.ndarray) -> dict[int, int]:
        seen.append(set(places.tolist()))
        return {len(seen) - 1: 1}

    found = cross_fitted(scores, choose)
    assert seen[0].isdisjoint(seen[1])
    assert len(seen[0] | seen[1]) == 10
    assert {int(found[k]) for k in seen[1]} == {0}
    assert {int(found[k]) for k in seen[0]} == {1}
