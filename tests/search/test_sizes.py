"""Sizes of candidates as knowledge of the sampler."""

import pytest

from joulefront.search.samplers.factory import make_sampler
from joulefront.search.space import FixedTrial, RandomTrial, Sizes
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.cost import count
from joulefront.spaces.mlp import Mlp


@pytest.fixture
def task():
    import numpy as np

    rng = np.random.default_rng(0)
    return arrays(
        rng.normal(size=(64, 5)).astype("float32"), rng.integers(0, 2, size=64), name="t", validation_share=0.25, test_share=0.0, seed=0
    )


def test_they_are_what_a_built_model_has(task):
    space = Mlp(depths=(1, 4), widths=(4, 64))
    sizes = Sizes(space, task)
    for seed in range(10):
        draw = RandomTrial(seed)
        candidate = space.sample(draw)
        cost = count(space.build(candidate, task), task, candidate.recipe)
        assert sizes(draw.params) == (cost.parameters, cost.flops)


def test_an_architecture_is_counted_once_whatever_its_recipe(task, monkeypatch):
    space = Mlp(depths=2, widths=8)
    sizes, counted = Sizes(space, task), []
    monkeypatch.setattr("joulefront.search.training.cost.count", lambda *a, **k: counted.append(a) or count(*a, **k))
    found = set()
    for seed in range(5):
        draw = RandomTrial(seed)
        space.sample(draw)
        found.add(sizes(draw.params))
    candidates = {str(space.sample(FixedTrial(d.params)).architecture) for d in [_drawn(space, s) for s in range(5)]}
    assert len(counted) == len(candidates)
    assert len(found) <= len(candidates)


def _drawn(space, seed):
    draw = RandomTrial(seed)
    space.sample(draw)
    return draw


def test_what_cannot_be_built_has_no_size(task):
    class Broken(Mlp):
        def build(self, candidate, task):
            raise ValueError("too small")

    space = Broken(depths=2, widths=8)
    assert Sizes(space, task)(_drawn(space, 0).params) == (0.0, 0.0)
    assert Sizes(Mlp(depths=(1, 4), widths=(4, 64)), task)({}) == (0.0, 0.0)


def test_the_sampler_gets_them_when_the_study_asks_and_otherwise_not(task):
    study = Study(name="s", task=task, space=Mlp(depths=(1, 4), widths=(4, 64)), sizes=True)
    told = make_sampler("freeze-thaw", rungs=(1, 3), seed=0, study=study, task=task)
    assert isinstance(told._features, Sizes)
    untold = make_sampler("freeze-thaw", rungs=(1, 3), seed=0, study=Study(name="s", task=task, space=study.space), task=task)
    assert untold._features is None
