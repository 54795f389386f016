import pytest

from joulefront.search.space import FixedTrial
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED, Range, RecipeRanges


def test_every_field_of_a_recipe_can_be_left_open():
    assert set(RecipeRanges.__dataclass_fields__) == set(Recipe.__dataclass_fields__)


def test_fixed_ranges_ask_nothing_of_the_trial():
    assert FIXED.sample(FixedTrial({})) == Recipe(learning_rate=1e-3, weight_decay=0.0, batch_size=128)


def test_open_fields_have_the_names_of_the_recipe():
    ranges = RecipeRanges(optimizer=("adamw", "sgd"), momentum=(0.5, 0.99), resolution=(16, None), head_learning_rate=(1e-4, 1e-2))
    params = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 0.001,
        "momentum": 0.8,
        "batch_size": 48,
        "resolution": None,
        "head_learning_rate": 0.002,
    }
    assert ranges.sample(FixedTrial(params)) == Recipe(**params)


def test_momentum_is_a_parameter_of_trials_with_sgd_only():
    ranges = RecipeRanges(optimizer=("adamw", "sgd"), momentum=(0.5, 0.99), learning_rate=0.1, weight_decay=0.0, batch_size=32)
    assert ranges.sample(FixedTrial({"optimizer": "adamw"})).momentum == Recipe().momentum
    with pytest.raises(ValueError, match="momentum"):
        ranges.sample(FixedTrial({"optimizer": "sgd"}))


def test_a_tactic_is_switched_by_its_own_parameter_and_its_settings_are_conditional():
    ranges = RecipeRanges(
        learning_rate=0.1,
        weight_decay=0.0,
        batch_size=32,
        tactics={"sparse_backprop": {"keep": Range(0.1, 1.0), "schedule": ("constant", "interleave")}, "freeze": {"on": True, "layers": 2}},
    )
    off = ranges.sample(FixedTrial({"tactic.sparse_backprop": False}))
    assert off.tactics == {"freeze": {"layers": 2}}
    name = "tactic.sparse_backprop"
    on = ranges.sample(FixedTrial({name: True, f"{name}.keep": 0.2, f"{name}.schedule": "interleave"}))
    assert on.tactics == {"sparse_backprop": {"keep": 0.2, "schedule": "interleave"}, "freeze": {"layers": 2}}


def test_a_range_of_whole_numbers_in_a_tactic_gives_whole_numbers(contract):
    ranges = RecipeRanges(tactics={"freeze": {"on": True, "from_epoch": Range(1, 4), "share": Range(0.25, 1.0)}})
    drawn = [candidate.recipe.tactics["freeze"] for candidate, _ in contract.trials(Mlp(recipe=ranges), 8)]
    assert {type(settings["from_epoch"]) for settings in drawn} == {int}
    assert {type(settings["share"]) for settings in drawn} == {float}


def test_a_value_outside_the_rules_of_the_recipe_is_named():
    with pytest.raises(ValueError, match=r"recipe\.precision"):
        RecipeRanges(precision="int3").sample(FixedTrial({"learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 32}))
