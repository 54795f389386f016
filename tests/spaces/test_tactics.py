"""Tactics in the search: switches, conditional parameters, and settings that the tactics accept."""

import optuna
import pytest

from joulefront.search.space import FixedTrial
from joulefront.search.training.tactics.tactic import TACTICS, make_tactics
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import DEFAULTS, FIXED, Range, RecipeRanges, TacticRanges
from joulefront.spaces.timm_zoo import TimmZoo
from joulefront.spaces.torchvision_zoo import TorchvisionZoo
from joulefront.spaces.union import Union

EVERYTHING = TacticRanges(
    sparse_backprop=True, activation_sparsity=True, freeze=True, progressive_resizing=True, power_limits_watts=(150.0, 250.0)
)


def sampled(tactics, seed=0, count=40):
    """Recipes and parameters of random trials of a study that searches nothing but tactics."""
    recipe = RecipeRanges(learning_rate=FIXED.learning_rate, weight_decay=0.0, batch_size=128, tactics=tactics.settings())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(recipe.sample(trial), trial.params) for trial in trials], recipe


def test_all_tactics_are_off_by_default():
    assert TacticRanges().settings() == {}
    assert all(recipe.tactics == {} for recipe, _ in sampled(TacticRanges())[0])


def test_every_known_tactic_can_be_searched():
    assert set(EVERYTHING.settings()) == set(TACTICS)


def test_parameters_of_a_tactic_exist_only_where_it_is_on_and_bear_its_name():
    trials, _ = sampled(EVERYTHING)
    for recipe, params in trials:
        on = {name for name in TACTICS if params[f"tactic.{name}"]}
        assert set(recipe.tactics) == on
        parts = [name.split(".") for name in params]
        assert {part[0] for part in parts} == {"tactic"}
        assert {part[1] for part in parts if len(part) == 2} == set(TACTICS)
        assert {part[1] for part in parts if len(part) == 3} == on
    assert {name for recipe, _ in trials for name in recipe.tactics} == set(TACTICS)


def test_what_is_drawn_makes_tactics_and_lies_in_the_ranges():
    for recipe, _ in sampled(EVERYTHING)[0]:
        assert len(make_tactics(recipe.tactics)) == len(recipe.tactics)
        for name, settings in recipe.tactics.items():
            for key, value in settings.items():
                what = DEFAULTS[name][key] if name in DEFAULTS else (150.0, 250.0)
                assert what.low <= value <= what.high if isinstance(what, Range) else value in what


def test_stored_parameters_give_the_same_recipe_again():
    trials, ranges = sampled(EVERYTHING)
    for recipe, params in trials:
        assert ranges.sample(FixedTrial(params)) == recipe


def test_own_settings_replace_default_ranges_and_a_fixed_value_is_no_parameter():
    tactics = TacticRanges(sparse_backprop={"keep": 0.2, "linear": True}, always=True)
    for recipe, params in sampled(tactics)[0]:
        assert recipe.tactics["sparse_backprop"]["keep"] == 0.2
        assert recipe.tactics["sparse_backprop"]["linear"] is True
        assert set(params) == {"tactic.sparse_backprop.schedule"}


def test_an_unknown_setting_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"'freeze' has no setting layers; it has share, from_epoch"):
        TacticRanges(freeze={"layers": 2}).settings()


@pytest.mark.parametrize("zoo", [TorchvisionZoo, TimmZoo])
def test_freezing_as_a_tactic_and_freezing_as_a_part_of_the_architecture_are_two_parameters(zoo, contract):
    recipe = RecipeRanges(tactics=TacticRanges(freeze={"share": 1.0, "from_epoch": 2}).settings())
    seen = set()
    for space in (
        zoo(freeze=("none", "backbone"), recipe=recipe),
        Union(zoo(freeze=("none", "backbone"), recipe=recipe), Mlp(recipe=recipe)),
    ):
        for candidate, params in contract.trials(space, 30):
            assert ("freeze" in candidate.recipe.tactics) is params["tactic.freeze"]
            if candidate.architecture["family"] != "mlp":
                seen.add((candidate.architecture["freeze"], params["tactic.freeze"]))
    assert seen == {(part, on) for part in ("none", "backbone") for on in (False, True)}


def test_families_of_a_union_share_the_parameters_of_the_tactics():
    recipe = RecipeRanges(tactics=TacticRanges(sparse_backprop={"linear": True}, always=True).settings())
    space = Union(Convnet(recipe=recipe), Mlp(recipe=recipe))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    families = set()
    for _ in range(10):
        trial = study.ask()
        candidate = space.sample(trial)
        families.add(candidate.architecture["family"])
        assert trial.params["tactic.sparse_backprop.keep"] == candidate.recipe.tactics["sparse_backprop"]["keep"]
    assert families == {"convnet", "mlp"}
