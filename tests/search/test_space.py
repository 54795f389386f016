"""Candidates: random draws without a sampler, and their sizes before training."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.samplers.factory import make_sampler
from joulefront.search.space import FixedTrial, RandomTrial, Sizes, SpaceError, check_first, check_space
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.cost import count
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges


@given(st.integers(0, 10**6), st.integers(1, 50), st.integers(0, 50), st.booleans())
def test_whole_numbers_stay_within_their_bounds(seed: int, low: int, width: int, log: bool) -> None:
    draw = RandomTrial(seed)
    value = draw.suggest_int("a", low, low + width, log=log)
    assert low <= value <= low + width
    assert draw.suggest_int("a", low, low + width, log=log) == value
    assert draw.params == {"a": value}


@given(st.integers(0, 10**6), st.floats(1e-6, 1.0), st.floats(1.0, 100.0), st.booleans())
def test_numbers_stay_within_their_bounds(seed: int, low: float, factor: float, log: bool) -> None:
    assert low <= RandomTrial(seed).suggest_float("a", low, low * factor, log=log) <= low * factor


def test_steps_are_kept_and_choices_are_all_drawn() -> None:
    assert {RandomTrial(seed).suggest_float("a", 0.0, 1.0, step=0.25) for seed in range(60)} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {RandomTrial(seed).suggest_int("a", 2, 8, step=3) for seed in range(60)} == {2, 5, 8}
    assert {RandomTrial(seed).suggest_categorical("a", ("x", None, 3)) for seed in range(60)} == {"x", None, 3}


def test_equal_seeds_draw_equal_candidates() -> None:
    assert RandomTrial(3).suggest_float("a", 0, 1) == RandomTrial(3).suggest_float("a", 0, 1) != RandomTrial(4).suggest_float("a", 0, 1)


@pytest.fixture
def task():
    import numpy as np

    rng = np.random.default_rng(0)
    return arrays(
        rng.normal(size=(64, 5)).astype("float32"), rng.integers(0, 2, size=64), name="t", validation_share=0.25, test_share=0.0, seed=0
    )


def test_sizes_are_what_a_built_model_has(task):
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


def test_a_stored_choice_must_be_one_of_the_space_and_a_stored_number_a_number():
    stored = FixedTrial({"kind": "os:system", "known": "b", "width": 10**6, "rate": "fast", "depth": 2.5, "far": float("inf")})
    assert stored.suggest_categorical("known", ["a", "b"]) == "b"
    assert stored.suggest_int("width", 1, 64) == 10**6  # the range was narrowed since: what was trained can still be exported
    with pytest.raises(ValueError, match=r"kind must be one of 'a', 'b', got 'os:system'; the space has changed"):
        stored.suggest_categorical("kind", ["a", "b"])
    for draw in (
        lambda: stored.suggest_float("rate", 0, 1),
        lambda: stored.suggest_int("depth", 1, 3),
        lambda: stored.suggest_float("far", 0, 1),
    ):
        with pytest.raises(ValueError, match=r"must be a (whole|finite) number, got .*the space has changed"):
            draw()


OPEN = Mlp(depths=(1, 3), recipe=RecipeRanges(optimizer=("adamw", "sgd"), momentum=(0.5, 0.9), batch_size=64))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"batch_sise": 64, "depht": 2}, r"study.first\[1\].batch_sise must be a parameter of the space"),
        ({"depht": 2}, r"depht must be a parameter of the space, got an unknown name; write depth"),
        ({"depth": 9}, r"study.first\[1\].depth must be a value that the space draws, got 9; the nearest is 3"),
        ({"depth": "two"}, r"depth must be a value that the space draws, got 'two'"),
        ({"optimizer": "lion"}, r"optimizer must be a value that the space draws, got 'lion'; the nearest is 'adamw'"),
        ({"learning_rate": float("nan")}, r"learning_rate must be a value that the space draws, got nan"),
        ({"batch_size": 32}, r"batch_size must be a parameter of the space"),
        ({"epochs": 0}, r"study.first\[1\].epochs must be a whole number >= 1, got 0"),
        ({"epochs": "3"}, r"epochs must be a whole number >= 1, got '3'"),
    ],
)
def test_trials_to_begin_with_that_the_space_never_draws_are_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        check_first(OPEN, [{}, wanted], check_space(OPEN))


@pytest.mark.parametrize(
    "wanted",
    [
        {"depth": 2},
        {"depth": 2.0, "learning_rate": 3e-2, "epochs": 3},
        {"optimizer": "adamw", "momentum": 0.6},  # of another choice
        {"batch_size": 64},  # which the space has fixed
    ],
)
def test_trials_to_begin_with_may_leave_out_and_name_what_other_choices_have(wanted: dict[str, Any]) -> None:
    check_first(OPEN, [wanted], check_space(OPEN))
